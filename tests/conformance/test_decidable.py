"""A formula that leaves the parameter without a value accepts any answer: nothing can be held to it, or conforms."""

from __future__ import annotations

import sys

import numpy as np
import pytest

import mlx_optimizers
from mlx_optimizers.backends import open_backend
from mlx_optimizers.cli import main
from mlx_optimizers.conformance import Case, Run, cases_of, check, decisive, matching, parse
from mlx_optimizers.conformance.cases import recast
from mlx_optimizers.conformance.diagnosis import diagnose
from mlx_optimizers.conformance.formats.summary import details, summaries
from mlx_optimizers.conformance.formats.text import text as human
from mlx_optimizers.conformance.verdict import can_decide, decidable, is_decidable, judge
from mlx_optimizers.oracle.formulas import variants
from mlx_optimizers.testing import assert_conforms
from tests.expected import EIGHT, EXPECTED
from tests.programs import Evaluated, Program, adam
from tests.support import require

pytestmark = pytest.mark.usefixtures("remembered")

WITHOUT_VALUE = [name for expected in EXPECTED.values() for name in expected.without_value]
"""1 − β⁰ = 0 is a divisor."""


@pytest.mark.norm("formulas.no-value")
def test_some_formulas_of_up_to_two_axes_have_no_value():
    formulas = [formula for optimizer in EIGHT for count in (0, 1, 2) for formula in variants(optimizer, count)]
    assert sorted(formula.name for formula in formulas if not is_decidable(formula)) == sorted(WITHOUT_VALUE)


def refuses(action):
    with pytest.raises(ValueError, match=r"nothing can be held to '.*': in no case does it give .* a value"):
        action()


@pytest.mark.parametrize("name", [*WITHOUT_VALUE, "RMSprop[ignored=alpha:2]"])  # the root of a negative number
@pytest.mark.norm("formulas.as", "formulas.no-value", "formulas.step-zero")
def test_nothing_is_held_to_a_formula_without_a_value(name, capsys):
    def never(parameter, gradients, **h):
        raise AssertionError

    refuses(lambda: decidable(name))
    refuses(lambda: assert_conforms(never, name))
    refuses(lambda: check(adam(), cases_of("Adam"), formula=name))
    assert main(["check", "reference", "--as", name]) == 2
    assert f"nothing can be held to {name!r}" in capsys.readouterr().err
    assert parse(name).name == name  # it is still known


ADAPTER = """
import json, sys
for line in sys.stdin:
    message = json.loads(line)
    if message["op"] == "start":
        claims = {"Adam": NAME}
        print(json.dumps({"protocol": 1, "name": "a", "version": "1", "formulas": claims}), flush=True)
    elif message["op"] == "run":
        rows = [["deadbeef"] * len(row) for row in message["gradients"]]
        print(json.dumps({"id": message["id"], "parameters": rows}), flush=True)
"""


@pytest.mark.norm("formulas.step-zero", "check_your_port.no-value")
def test_an_adapter_that_claims_a_formula_without_a_value_breaks_the_protocol(tmp_path, capsys):
    script = tmp_path / "adapter.py"
    script.write_text(ADAPTER.replace("NAME", repr(WITHOUT_VALUE[0])), "utf-8")
    assert main(["check", f"cmd:{sys.executable} {script}", "--optimizer", "Adam"]) == 4
    captured = capsys.readouterr()
    assert "nothing can be held to" in captured.err
    assert "conforms" not in captured.out


def test_a_claim_of_a_formula_without_a_value_fails():
    class Claims:
        name, version, device = "claims", "1", "cpu"

        def claim(self, optimizer):
            return WITHOUT_VALUE[0]

        def run(self, case):
            return Run(case, np.full_like(case.gradients, np.nan), {})

    report = check(Claims(), matching(["Adam"], "*/plain/*"))
    assert report.counts()["failed"] == len(report.results) == 5
    assert "nothing can be held to" in report.results[0].reason
    assert report.status == 1


# A verdict needs an element of the parameter.


def _of_a_case_without_a_value():
    """A parameter that overflows in every element, from a momentum that does not."""
    w = np.full(3, 2.0**127, np.float32)
    gradients = np.ones((1, 3), np.float32)
    given = {"learning_rate": 1.0, "momentum": 0.9, "weight_decay": 0.0, "dampening": 0.0, "nesterov": False}
    case = Case("sgd/plain/huge", "SGD", "plain", "huge", "float32", given, w, gradients)
    return Run(case, w[None], {"v": gradients})


@pytest.mark.norm("interval.untested-case")
def test_a_state_alone_does_not_make_a_case_conform():
    run = _of_a_case_without_a_value()
    for profile in ("double", "float32"):
        judgement = judge(run, parse("SGD"), profile)
        assert judgement.tested == 3 and judgement.first is None  # v is right
        assert not judgement.decided and not judgement.conforms
    assert not can_decide(run.case, parse("SGD"))


def test_the_human_report_never_says_conforms_where_nothing_was_tested():
    run = _of_a_case_without_a_value()

    good = matching(["SGD"], "*/plain/defaults")
    for cases in ([run.case], [run.case, *good]):
        report = check(_Either(run), cases)
        assert [row.verdict for row in summaries(report)] == ["deviates"]
        assert "no element of the parameter could be tested" in human(report)
        assert report.status == 1


class _Either(Program):
    """Right where a case is one of the suite's, otherwise with a fixed outcome."""

    def __init__(self, outcome):
        super().__init__(Evaluated("SGD")._evaluate)
        self._outcome = outcome

    def run(self, case):
        return self._outcome if case.label == "huge" else super().run(case)


# Cases that a dtype cannot decide are left out of its run.


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32"])
def test_what_is_left_out_is_what_tests_nothing(dtype):
    if dtype == "bfloat16":
        require("ml_dtypes")
    cases = [case for case in matching(EIGHT, None, [dtype]) if case.regime != "special"]
    kept = decisive(open_backend("reference"), cases)
    assert kept == [case for case in cases if can_decide(case, parse(case.optimizer))]
    assert len(cases) - len(kept) == {"float16": 44}.get(dtype, 0)


def test_the_formula_that_a_backend_is_held_to_says_what_is_left_out():
    cases = matching(["Adagrad"], None, ["float16"])
    claim = "Adagrad[eps=inside_sqrt,initial=0.1]"
    claiming = Program(lambda h, t, w, g, v: (w, v), claim)
    assert [len(decisive(backend, cases)) for backend in (open_backend("reference"), claiming)] == [15, 22]
    assert len(decisive(claiming, cases, parse("Adagrad"))) == 15


def test_what_is_measured_and_what_has_no_claim_stays():
    cases = matching(["Adam", "Muon"], None, ["float16"])
    nameless = Program(lambda h, t, w, g, *slots: (w, *slots), "Adan")
    assert decisive(nameless, cases) == cases
    assert {result.word for result in check(nameless, cases[:2]).results} == {"failed"}


# A diagnosis needs one, too.


@pytest.mark.norm("formulas.step-zero")
def test_nan_everywhere_is_no_evidence_for_a_formula_without_a_value():
    def nothing(h, t, w, g, *slots):
        return (w * np.float32(np.nan), *slots)

    for state in (False, True):
        report = check(Program(nothing, state=state), cases_of("Adam"))
        assert report.diagnoses["Adam"].formulas == []
        assert (report.diagnoses["Adam"].nearest, report.diagnoses["Adam"].agreeing) == (None, 0)


@pytest.mark.parametrize("name", WITHOUT_VALUE)
def test_what_computes_a_formula_without_a_value_is_given_no_name(name):
    optimizer = parse(name).optimizer.__name__
    runs = [Evaluated(name).run(case) for case in cases_of(optimizer)]
    found = diagnose(optimizer, runs, ("double", "float32"))
    assert found.formulas == []
    assert found.agreeing <= 1  # a learning rate of 0 leaves the parameter as it was, whatever the rest


def test_no_message_says_that_a_formula_agrees_with_every_case_and_with_none():
    """In float16 some cases of Adam decide nothing: they agree with no formula."""
    cases = [recast(case, "float16") for case in cases_of("Adam")]
    required = [case for case in cases if case.level == "required"]
    undecided = sum(not can_decide(case, parse("Adam")) for case in required)
    assert undecided > 0

    def step(h, t, w, g, m, v):
        real = w.dtype.type
        (b1, b2), (rest1, rest2) = map(real, h.betas), (real(1 - beta) for beta in h.betas)
        m, v = b1 * m + rest1 * g, b2 * v + rest2 * g * g
        return w - real(h.learning_rate) * m / (np.sqrt(v) + real(h.eps)), m, v

    report = check(Program(step), cases)
    assert report.counts()["deviates"] == undecided
    assert f"Nearest is Adam, in {len(required) - undecided} of {len(required)}." in " ".join(
        details(report)[0].split()
    )


# A case of the suite can always decide, under the formula of the page.


@pytest.mark.parametrize("optimizer", mlx_optimizers.OPTIMIZERS, ids=EIGHT)
def test_every_case_of_float32_tells_something(optimizer):
    assert all(can_decide(case, parse(optimizer.__name__)) for case in cases_of(optimizer.__name__))
