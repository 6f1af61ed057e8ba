"""Running a backend: verdicts, profiles, what goes wrong in it, several processes."""

from __future__ import annotations

import multiprocessing
import signal
import threading

import numpy as np
import pytest

import mlx_optimizers
from mlx_optimizers.backends import open_backend
from mlx_optimizers.conformance import Case, Run, Unsupported, cases_of, check, matching
from mlx_optimizers.conformance.cases import VALUES
from tests.programs import Evaluated, Program, adam, rmsprop, sgd

pytestmark = pytest.mark.usefixtures("remembered")

ADAM = cases_of("Adam")
SOME = [case for case in cases_of("Adam") if case.label == "defaults" and case.regime not in VALUES]


class Backend:
    """A program, changed case by case."""

    name, version, device = "changed", "1", "cpu"

    def __init__(self, program, change):
        self._program, self._change = program, change

    def claim(self, optimizer):
        return optimizer

    def run(self, case):
        return self._change(case, self._program.run(case))


def _facts(report):
    """All that verdicts say; those of another process have cases and formulas of their own."""
    return [{**vars(r), "case": r.case.id, "formula": r.formula.name} for r in report.results]


def _verdicts(report):
    return [result.word for result in report.results]


def test_a_right_program_conforms():
    report = check(adam(), SOME)
    assert _verdicts(report) == ["conforms"] * 4
    assert [result.case.id for result in report.results] == [case.id for case in SOME]
    assert {(r.formula.name, r.scalars, r.reason) for r in report.results} == {("Adam", "double", None)}
    assert all(result.worst.excess <= 1 and result.diagnosis == [] for result in report.results)
    assert all((result.tested, result.untested) == (3 * 8 * 24, 0) for result in report.results)
    assert report.status == 0


def test_results_and_progress_come_in_the_order_of_the_cases():
    seen = []
    cases = [*matching(["SGD"], "*/plain/*"), *SOME][::-1]
    report = check(open_backend("reference"), cases, progress=seen.append)
    assert [result.case.id for result in report.results] == [case.id for case in cases]
    assert seen == list(range(1, len(cases) + 1))


@pytest.mark.norm("check_your_port.first")
def test_one_wrong_number_in_one_case_deviates():
    def change(case, outcome):
        if case.id == "adam/plain/defaults":
            outcome.state["v"][4, 7] *= np.float32(1.01)
        return outcome

    report = check(Backend(adam(), change), SOME)
    assert _verdicts(report) == ["deviates", "conforms", "conforms", "conforms"]
    bad = report.results[0]
    assert (bad.worst.quantity, bad.worst.step, bad.worst.index) == ("v", 5, 7)
    assert bad.diagnosis == []  # no formula does that
    assert report.diagnoses["Adam"].nearest == "Adam"
    assert report.diagnoses["Adam"].agreeing == 3
    assert report.status == 1


def test_a_diagnosis_stands_in_the_deviating_results_alone():
    wrong = Evaluated("Adam[eps=inside_sqrt]")
    wrong.claim = lambda optimizer: optimizer
    report = check(wrong, ADAM)
    verdicts = set(_verdicts(report))
    assert verdicts == {"conforms", "deviates"}  # in the wide regime without small gradients nobody can tell
    for result in report.results:
        assert result.diagnosis == (["Adam[eps=inside_sqrt]"] if result.word == "deviates" else [])
    assert report.diagnoses["Adam"].formulas == ["Adam[eps=inside_sqrt]"]


@pytest.mark.norm("formulas.as")
def test_a_backend_is_held_to_its_claim_or_to_the_formula_asked_for():
    inside = Evaluated("Adam[eps=inside_sqrt]")
    assert check(inside, SOME).status == 0
    assert {result.formula.name for result in check(inside, SOME).results} == {"Adam[eps=inside_sqrt]"}
    assert check(inside, SOME, formula="Adam").status == 1
    asked = check(adam(), SOME, formula="BiasCorrectedAdam")
    assert {result.formula.name for result in asked.results} == {"Adam[bias_correction=true]"}
    assert asked.status == 1


def _single_scalars():
    """Bias correction with 1−βᵗ formed in float32: wrong by 1e-5 at t = 1, and a right program of that profile."""

    def step(h, t, w, g, m, v):
        f = np.float32
        b1, b2 = map(f, h.betas)
        m, v = b1 * m + (f(1) - b1) * g, b2 * v + (f(1) - b2) * g * g
        c1, c2 = f(1) - f(b1**t), f(1) - f(b2**t)
        return w - f(h.learning_rate) * (m / c1) / (np.sqrt(v / c2) + f(h.eps)), m, v

    return Program(step, "Adam[bias_correction=true]")


@pytest.mark.norm("vectors.scalars", "interval.named-profile", "check_your_port.float32")
def test_profiles():
    single, double = _single_scalars(), adam()
    for program, asked, verdicts, scalars in (
        (double, "double", {"conforms"}, {"double"}),
        (double, "float32", {"conforms"}, {"float32"}),
        (double, "either", {"conforms"}, {"double"}),
        (single, "float32", {"conforms"}, {"float32"}),
    ):
        report = check(program, SOME, scalars=asked)
        assert set(_verdicts(report)) == verdicts
        assert {result.scalars for result in report.results} == scalars
    assert "deviates" in _verdicts(check(single, SOME, scalars="double"))
    either = check(single, SOME)
    assert either.status == 0
    assert "float32" in {result.scalars for result in either.results}
    # What deviates in both is reported under the widest tried.
    wrong = check(double, SOME, formula="Adam[betas=swapped]")
    assert {(r.word, r.scalars) for r in wrong.results} == {("deviates", "float32")}


def test_a_backend_that_raises():
    def change(case, outcome):
        if case.regime == "tiny":
            raise FloatingPointError("too small")
        return outcome

    report = check(Backend(adam(), change), SOME)
    assert _verdicts(report) == ["conforms", "failed", "conforms", "conforms"]
    bad = report.results[1]
    assert (bad.reason, bad.worst, bad.diagnosis, bad.scalars) == (
        "FloatingPointError: too small",
        None,
        [],
        "double",
    )
    assert report.status == 1


def test_what_a_backend_cannot_express_is_unsupported():
    def change(case, outcome):
        if case.regime in ("tiny", "wide"):
            raise Unsupported("no small gradients")
        return outcome

    report = check(Backend(adam(), change), SOME)
    assert _verdicts(report) == ["conforms", "unsupported", "unsupported", "conforms"]
    assert report.results[1].reason == "no small gradients"
    assert report.status == 0
    nothing = check(Backend(adam(), change), matching(["Adam"], "*/tiny/*"))
    assert set(_verdicts(nothing)) == {"unsupported"}
    assert nothing.status == 3
    assert check(adam(), []).status == 3


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda x: Run(x.case, x.parameters[:-1], x.state), r"parameter has shape (7, 24), the case asks for (8, 24)"),
        (lambda x: Run(x.case, x.parameters.T, x.state), "parameter has shape (24, 8)"),
        (lambda x: Run(x.case, x.parameters.astype(np.float64), {}), "parameter has dtype float64"),
        (lambda x: Run(x.case, x.parameters.astype(object), {}), "parameter has dtype object"),
        (lambda x: Run(x.case, x.parameters.tolist(), {}), "parameter has dtype float64"),
        (lambda x: Run(x.case, np.zeros(()), {}), "parameter has shape ()"),
        (lambda x: Run(x.case, x.parameters, {"v": x.state["v"].astype(np.float16)}), "v has dtype float16"),
        (lambda x: Run(x.case, x.parameters, {"parameter": x.parameters}), "'parameter' is no state slot of Adam"),
        (lambda x: Run(x.case, x.parameters, {"u": x.state["v"]}), "'u' is no state slot of Adam"),
    ],
)
def test_what_cannot_be_judged_has_failed(change, reason):
    report = check(Backend(adam(), lambda case, outcome: change(outcome)), SOME[:1])
    (result,) = report.results
    assert (result.word, result.worst) == ("failed", None)
    assert reason in result.reason
    assert report.status == 1


def test_a_backend_that_gives_no_outcome_has_failed():
    report = check(Backend(adam(), lambda case, outcome: None), SOME[:1])
    assert _verdicts(report) == ["failed"]
    assert "NoneType" in report.results[0].reason


def test_a_diagnosis_leaves_out_what_could_not_be_judged():
    inside = Evaluated("Adam[eps=inside_sqrt]")

    def change(case, outcome):
        if case.regime == "plain":
            return Run(case, outcome.parameters[:, :1], {})
        return Run(case, outcome.parameters.astype(np.float64), {}) if case.regime == "zeros" else outcome

    report = check(Backend(inside, change), SOME)
    assert _verdicts(report) == ["failed", "deviates", "deviates", "failed"]
    assert report.results[1].diagnosis == ["Adam[eps=inside_sqrt]"]


def test_slots_that_are_not_shown_are_not_held_against_a_backend():
    def change(case, outcome):
        return Run(case, outcome.parameters, {"m": outcome.state["m"]} if case.regime == "plain" else {})

    report = check(Backend(adam(), change), SOME)
    assert report.status == 0
    assert [result.tested for result in report.results] == [2 * 8 * 24, 8 * 24, 8 * 24, 8 * 24]


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_numbers_that_are_none_deviate(bad):
    def change(case, outcome):
        outcome.parameters[3:, 5] = bad
        return outcome

    report = check(Backend(adam(), change), SOME[:1])
    (result,) = report.results
    assert (result.word, result.worst.excess) == ("deviates", np.inf)
    assert (result.first.step, result.first.index) == (4, 5)


@pytest.mark.norm("interval.untested-case")
def test_what_nobody_can_test_does_not_conform():
    """v overflows in every element, so that any parameter would do."""
    huge = np.full((2, 3), 1e30, np.float32)
    hyperparameters = {"learning_rate": 0.1, "alpha": 0.9, "eps": 1e-8}
    case = Case("rmsprop/plain/huge", "RMSprop", "plain", "huge", "float32", hyperparameters, huge[0], huge)
    report = check(open_backend("reference"), [case])
    (result,) = report.results
    assert result.word == "deviates"
    assert result.reason == "no element of the parameter could be tested"
    assert (result.worst, result.tested, result.untested) == (None, 0, 12)
    assert report.status == 1


def test_several_processes_give_the_same_report():
    cases = [*matching(["SGD"], "*/plain/*"), *matching(["Adam"], "adam/*/*eps*")]

    class Mixed:
        name, version, device = "mixed", "1", "cpu"

        def claim(self, optimizer):
            return optimizer

        def run(self, case):
            if case.regime == "wide":
                raise Unsupported("wide")
            if case.regime == "zeros":
                raise ValueError("zeros")
            wrong = Evaluated("Adam[eps=inside_sqrt]")
            return wrong.run(case) if case.optimizer == "Adam" else sgd("plain").run(case)

    seen = []
    one, two = check(Mixed(), cases), check(Mixed(), cases, jobs=2, progress=seen.append)
    assert one.dumps() == two.dumps()
    assert _facts(one) == _facts(two) and one.diagnoses == two.diagnoses
    assert {*_verdicts(one)} == {"conforms", "deviates", "unsupported", "failed"}
    assert seen[-1] == len(cases)


def test_an_unknown_claim_is_an_error_of_the_caller():
    with pytest.raises(ValueError, match="unknown formula 'Adan'"):
        check(adam(), SOME[:1], formula="Adan")


def test_a_bad_program_of_another_optimizer_leaves_the_others_alone():
    class Two:
        name, version, device = "two", "1", "cpu"

        def claim(self, optimizer):
            return optimizer

        def run(self, case):
            return (Evaluated("Adam[ignored=eps:1]") if case.optimizer == "Adam" else rmsprop()).run(case)

    report = check(Two(), matching(["Adam", "RMSprop"], "*/tiny/defaults"))
    assert {(r.case.optimizer, r.word) for r in report.results} == {("Adam", "deviates"), ("RMSprop", "conforms")}
    assert set(report.diagnoses) == {"Adam"}


def test_cases_are_the_same_after_a_backend_has_run():
    """A backend that works in place on what it is given must not change the case that it is held to."""

    class InPlace:
        name, version, device = "in place", "1", "cpu"

        def claim(self, optimizer):
            return optimizer

        def run(self, case):
            outcome = adam().run(case)
            case.parameter[:] = 0
            case.gradients[:] = 0
            return outcome

    before = [(case.parameter.tobytes(), case.gradients.tobytes()) for case in SOME]
    report = check(InPlace(), SOME)
    assert [(case.parameter.tobytes(), case.gradients.tobytes()) for case in SOME] == before
    assert report.status == 0


class _Raises:
    """A backend that raises in one place, in the regime ``tiny`` where it can choose."""

    name, version, device = "raises", "1", "cpu"

    def __init__(self, error, place):
        self._error, self._place = error, place

    def claim(self, optimizer):
        if self._place == "claim":
            raise self._error
        return optimizer

    def run(self, case):
        outcome = adam().run(case)
        if case.regime != "tiny":
            return outcome
        if self._place == "run":
            raise self._error
        error, place = self._error, self._place

        class Array:
            def __array__(self, dtype=None, copy=None):
                raise error

        class State(dict):
            def items(self):
                raise error

        return {
            "array": Run(outcome.case, Array(), {}),
            "state": Run(outcome.case, outcome.parameters, {"m": Array()}),
            "mapping": Run(outcome.case, outcome.parameters, State()),
        }[place]


class _Silent(Exception):
    def __str__(self):
        raise SystemExit(0)


@pytest.mark.parametrize("place", ["run", "array", "state", "mapping", "claim"])
@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (SystemExit(0), "SystemExit: 0"),
        (GeneratorExit("over"), "GeneratorExit: over"),
        (BaseExceptionGroup("two", [SystemExit(1)]), "BaseExceptionGroup: two (1 sub-exception)"),
        (type("Own", (BaseException,), {})("own"), "Own: own"),
        (ValueError("a value"), "ValueError: a value"),
        (_Silent(), "_Silent: its text cannot be read, SystemExit"),
    ],
    ids=lambda x: type(x).__name__ if isinstance(x, BaseException) else "",
)
def test_what_a_backend_raises_is_a_failure_of_that_case(error, reason, place):
    report = check(_Raises(error, place), SOME)
    failed = [result for result in report.results if result.word == "failed"]
    hit = [case.id for case in SOME if place == "claim" or case.regime == "tiny"]
    assert [result.case.id for result in failed] == hit
    assert {result.reason for result in failed} == {reason}
    assert {result.formula.name for result in report.results} == {"Adam"}
    assert report.status == 1


class _Signal(KeyboardInterrupt):
    pass


@pytest.mark.parametrize("place", ["run", "array", "state", "mapping", "claim"])
@pytest.mark.parametrize("error", [KeyboardInterrupt, _Signal])
def test_an_interrupt_passes(error, place):
    with pytest.raises(error):
        check(_Raises(error(), place), SOME)


@pytest.mark.parametrize("claim", ["Adan", "SGD", "Adam[eps=nowhere]", None, 7])
def test_a_claim_that_is_none_is_a_failure(claim):
    backend = adam()
    backend.claim = lambda optimizer: claim
    report = check(backend, SOME)
    assert _verdicts(report) == ["failed"] * 4
    assert repr(claim) in report.results[0].reason or str(claim) in report.results[0].reason


@pytest.mark.parametrize(
    "outcome", [None, 3, np.zeros((8, 24), np.float32), Run(SOME[0], None, {}), Run(SOME[0], [[1], []], {})]
)
def test_an_outcome_that_is_none_is_a_failure(outcome):
    assert _verdicts(check(Backend(adam(), lambda case, right: outcome), SOME[:1])) == ["failed"]


@pytest.mark.parametrize("name", ["parameters", "m"])
def test_a_masked_array_is_a_failure(name):
    """What a mask hides is not what the backend computed, though it be the right number."""

    def masked(case, right):
        values = {"parameters": right.parameters, **right.state}
        values[name] = np.ma.array(values[name], mask=True)
        return Run(case, values.pop("parameters"), values)

    report = check(Backend(adam(), masked), SOME[:1])
    assert _verdicts(report) == ["failed"]
    assert f"the backend's {name} is a masked array" in report.results[0].reason


class _Buffer(Program):
    """A program that returns its own buffers, the same ones for every case."""

    def __init__(self, program):
        self.name, self._program, self._buffers = "buffer", program, {}

    def claim(self, optimizer):
        return optimizer

    def run(self, case):
        outcome = self._program.run(case)
        for name, values in {"w": outcome.parameters, **outcome.state}.items():
            self._buffers.setdefault(name, np.empty_like(values))[:] = values
        state = {name: values for name, values in self._buffers.items() if name != "w"}
        return Run(case, self._buffers["w"], state)


@pytest.mark.parametrize("jobs", [1, 2])
def test_a_backend_that_returns_its_own_buffer_gets_the_same_report(jobs):
    assert check(_Buffer(adam()), SOME, jobs=jobs).counts()["conforms"] == len(SOME)
    cases = matching(["Adam"], "adam/*/*eps*")
    wrong = Evaluated("Adam[eps=inside_sqrt]")
    own, copied = (check(program, cases, formula="Adam", jobs=jobs) for program in (_Buffer(wrong), wrong))
    assert _facts(own) == _facts(copied) and own.diagnoses == copied.diagnoses
    assert own.diagnoses["Adam"].formulas == ["Adam[eps=inside_sqrt]"]


@pytest.mark.parametrize(
    ("given", "error", "words"),
    [
        ({"scalars": "x"}, ValueError, "scalars must be 'double', 'float32' or 'either', not 'x'"),
        ({"scalars": ["double"]}, ValueError, "scalars must be"),
        ({"formula": 3}, TypeError, "a formula is a name or one of the classes, not 3"),
        ({"formula": Backend}, ValueError, "unknown formula 'Backend'"),
        ({"formula": "SGD"}, ValueError, "adam/plain/defaults is no case of SGD"),
    ],
)
def test_what_cannot_be_asked_for_is_refused_before_anything_runs(given, error, words):
    backend = adam()
    backend.run = None
    with pytest.raises(error, match=words):
        check(backend, SOME, **given)


def test_a_formula_may_be_a_class():
    assert check(adam(), SOME, formula=mlx_optimizers.Adam).dumps() == check(adam(), SOME, formula="Adam").dumps()


@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM", "SIGHUP", "SIGQUIT"])
def test_a_signal_while_the_processes_that_judge_are_started_is_handled_when_they_are(name, monkeypatch):
    number, start, begun = getattr(signal, name), threading.Thread.start, []

    def signalled(thread):
        if threading.current_thread() is threading.main_thread() and multiprocessing.active_children():
            begun.append(thread)
            signal.raise_signal(number)
        start(thread)

    def raise_it(number, frame):
        raise KeyboardInterrupt(signal.Signals(number).name)

    before = signal.signal(number, raise_it)
    try:
        monkeypatch.setattr(threading.Thread, "start", signalled)
        with pytest.raises(KeyboardInterrupt, match=name):
            check(adam(), SOME, jobs=2)
        assert signal.getsignal(number) is raise_it
    finally:
        signal.signal(number, before)
    assert len(begun) == 1
    assert not begun[0].is_alive() and multiprocessing.active_children() == []
