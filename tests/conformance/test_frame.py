"""The cases of the frame: what they are, and the wrong programs that nothing else sees."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from mlx_optimizers.conformance import Case, Run, all_cases, cases_of, check, matching, parse
from mlx_optimizers.conformance.case import DOMAIN
from mlx_optimizers.conformance.frame import FAMILIES, SIZES, family, frame_of
from mlx_optimizers.conformance.special import special_of
from mlx_optimizers.conformance.verdict import QUICK, can_decide, judge, judge_widening
from mlx_optimizers.oracle import Exact
from mlx_optimizers.oracle.trajectory import tracks
from tests.expected import EXPECTED, NAMES, WHOLE
from tests.programs import Program, adam, corrected, plain

pytestmark = pytest.mark.usefixtures("remembered")

EVERYONE = (*NAMES, *WHOLE)
CORRECTED = "BiasCorrectedAdam"


def of(name: str, *regimes: str) -> list[Case]:
    return [case for case in frame_of(name) if case.regime in regimes]


# What they are


@pytest.mark.parametrize("name", EVERYONE)
def test_every_optimizer_has_every_family(name):
    cases = frame_of(name)
    assert list(dict.fromkeys(case.regime for case in cases)) == list(FAMILIES)
    assert [case for case in all_cases() if case.optimizer == name] == [*cases_of(name), *special_of(name), *cases]
    assert [case.label for case in of(name, "sizes")] == [f"n={size}" for size in SIZES]
    assert [case.parameter.size for case in of(name, "sizes")] == list(SIZES)
    shapes = {case.label: case.parameter.shape for case in of(name, "shapes")}
    assert shapes == {"6x4": (6, 4), "0d": (), "empty": (0,), "2x6x3": (2, 6, 3), "2x3x2x2": (2, 3, 2, 2)}
    for case in of(name, "long"):
        assert case.gradients.shape[0] == 300 and case.parameter.size == 2 and not case.parameter.any()
    trees = of(name, "many")
    assert {"defaults", "last=empty"} <= {case.label for case in trees}
    for case in trees:
        shapes = [leaf.parameter.shape for leaf in case.leaves]
        assert () in shapes and (0,) in shapes and case.parameter.size == 0
        assert (shapes[-1] == (0,)) == (case.label == "last=empty")
        assert all(leaf.hyperparameters == case.hyperparameters for leaf in case.leaves)
    resumed, saved = of(name, "resume")
    assert (resumed.label, resumed.step, resumed.saved) == ("step=3000", 3000, None)
    assert {slot: values.shape for slot, values in resumed.state.items()} == resumed.slots
    assert (saved.label, saved.step, saved.saved, len(saved.gradients)) == ("saved", 0, 4, 8)
    (mixed,) = of(name, "mixed")
    assert mixed.gradient_dtype == "bfloat16" and not (mixed.gradients.view(np.uint32) & 0xFFFF).any()


@pytest.mark.parametrize("name", EVERYONE)
def test_a_case_of_the_frame_lies_inside_the_domain(name):
    for case in frame_of(name):
        for leaf in case.each:
            assert leaf.parameter.dtype == leaf.gradients.dtype == np.float32
            assert leaf.gradients.shape[1:] == leaf.parameter.shape
            for values in (leaf.parameter, leaf.gradients, [rate for rate in leaf.rates() if rate is not None]):
                sizes = np.abs(np.asarray(values, np.float64))
                assert np.all((sizes == 0) | ((sizes >= DOMAIN[0]) & (sizes <= DOMAIN[1])))


def test_a_state_and_a_weight_decay_play_a_part():
    for name in NAMES:
        (case,) = of(name, "mixed")
        assert case.hyperparameters.get("momentum", 1) and case.hyperparameters.get("weight_decay", 1), name


def test_the_data_are_the_same_on_every_machine_and_release():
    """The digest of every bit. A change of it is a change of the suite: say so in CHANGELOG."""
    digest = hashlib.sha256()
    for name in EVERYONE:
        for case in frame_of(name):
            digest.update(case.id.encode())
            for leaf in case.each:
                for array in (leaf.parameter, leaf.gradients, *leaf.state.values()):
                    digest.update(array.astype("<f4").tobytes())
    assert digest.hexdigest()[:16] == "6882f1c886ef9d74"


@pytest.mark.parametrize("dtype", ["float16", "float64"])
def test_a_family_exists_in_other_dtypes(dtype):
    for name in ("sizes", "shapes", "long", "untouched"):
        for case in family("Adam", name, {"betas": (0.8, 0.95)}, dtype):
            assert case.id.endswith(f"/{dtype}") and case.parameter.dtype == np.dtype(dtype)
            assert case.label == "betas=0.8,0.95" or case.label.endswith(",betas=0.8,0.95")


def test_a_list_of_learning_rates_goes_on_from_its_start():
    (case,) = family("Adam", "long", {"learning_rate": (0.5, 0.25, 0.125)})
    assert case.rates() == [0.5, 0.25, 0.125] * 100


# Radii and centres in float64


@pytest.mark.usefixtures("mpfr")
@pytest.mark.parametrize("name", EVERYONE)
def test_the_intervals_of_many_numbers_hold_those_of_the_oracle_and_are_hardly_wider(name):
    """The exact values are the oracle's; an end may be farther by 2⁻¹² of the radius, and is never nearer."""
    for case in (*of(name, "long"), *[case for case in of(name, "sizes") if case.parameter.size in (1, 27)]):
        assert case.regime in QUICK
        data = parse(name), case.parameter, list(case.gradients)
        given = {"dtype": "float32", "scalars": "double", "given": case.hyperparameters}
        quick, full = (tracks(*data, **given, exact=Exact(), quick=which) for which in (True, False))
        for slot, track in full.items():
            wide, narrow = quick[slot].all, track.all
            assert (wide.exact.astype(float) == narrow.exact.astype(float)).all()
            assert (wide.nearest == narrow.nearest).all()
            assert (wide.low <= narrow.low).all() and (narrow.high <= wide.high).all()
            assert (wide.radius <= narrow.radius * (1 + 2.0**-12)).all(), (case.id, slot)


# What they see. Each program is right but for one thing.

Step = Callable[..., tuple[Any, ...]]


def right(name: str) -> Step:
    return plain(name).step


def left_out(where: Callable[[int], Any]) -> Callable[[Step], Step]:
    """Leave the elements that ``where`` chooses, by the size of the array, as they were."""

    def make(step: Step) -> Step:
        def wrong(h: Any, t: int, w: Any, g: Any, *slots: Any) -> tuple[Any, ...]:
            new, chosen = step(h, t, w, g, *slots), np.reshape(where(w.size), w.shape)
            return tuple(np.where(chosen, old, x) for old, x in zip((w, *slots), new, strict=True))

        return wrong

    return make


def counted(change: Callable[[int], int]) -> Callable[[Step], Step]:
    return lambda step: lambda h, t, *rest: step(h, change(t), *rest)


def vectors_alone(step: Step) -> Step:
    return lambda h, t, w, g, *slots: step(h, t, w, g, *slots) if w.ndim == 1 else (w, *slots)


def into_the_gradient(step: Step) -> Step:
    def wrong(h: Any, t: int, w: Any, g: Any, *slots: Any) -> tuple[Any, ...]:
        new = step(h, t, w, g, *slots)
        g[...] = new[0]
        return new

    return wrong


def indices(size: int) -> Any:
    return np.arange(size)


LOOPS = {
    f"a loop of width {width} without a tail": left_out(
        lambda size, width=width: indices(size) >= size // width * width
    )
    for width in (2, 4, 8, 16, 32, 64)
}
BODIES = {
    f"a loop of width {width} with a tail alone": left_out(
        lambda size, width=width: indices(size) < size // width * width
    )
    for width in (32, 64, 1024, 4096)
}
WRONG = {
    **{what: (make, "sizes") for what, make in (LOOPS | BODIES).items()},
    "elements from the 1,000th on": (left_out(lambda size: indices(size) >= 999), "sizes"),
    "elements from the 24th on": (left_out(lambda size: indices(size) >= 24), "sizes"),
    "vectors alone": (vectors_alone, "shapes"),
    "the caller's gradient": (into_the_gradient, "untouched"),
}


def deviating(program: Any, cases: Iterable[Case]) -> list[Case]:
    """List the cases that deviate, without a diagnosis."""

    def deviates(case: Case) -> bool:
        return judge_widening(program.run(case), parse(case.optimizer), ("double", "float32")).word == "deviates"

    return [case for case in cases if deviates(case)]


def seen(program: Any, name: str) -> set[str]:
    """Collect the families of the cases that deviate."""
    return {case.regime for case in deviating(program, frame_of(name))}


@pytest.mark.usefixtures("mpfr")
@pytest.mark.parametrize("what", WRONG)
def test_a_wrong_program_is_seen_for_every_optimizer(what):
    make, regime = WRONG[what]
    for name in NAMES:
        assert deviating(Program(make(right(name)), state=False), of(name, regime)), name


@pytest.mark.usefixtures("mpfr")
@pytest.mark.parametrize("name", NAMES)
def test_the_right_program_is_not(name):
    assert deviating(plain(name), frame_of(name)) == []


COUNTERS = {
    "stuck at 255": (lambda t: min(t, 255), {"long", "resume"}),
    "stuck at 256": (lambda t: min(t, 256), {"long", "resume"}),
    "of 8 bits": (lambda t: (t - 1) % 256 + 1, {"long", "resume"}),
    "stuck at 2,048": (lambda t: min(t, 2048), {"resume"}),
    "that starts anew": (lambda t: t - 3000 if t > 3000 else t, {"resume"}),
}


@pytest.mark.usefixtures("mpfr")
@pytest.mark.parametrize("what", COUNTERS)
def test_a_wrong_counter_is_seen(what):
    change, regimes = COUNTERS[what]
    for name in (CORRECTED, "BiasCorrectedAdamW"):
        assert seen(Program(counted(change)(right(name)), name, state=False), name) == regimes


class _Shared(Program):
    """One counter for all parameters, advanced by each."""

    def run(self, case: Case) -> Run:
        self.calls = case.step
        return super().run(case)

    def stepped(self, h: Any, t: int, row: tuple[Any, ...], g: Any) -> tuple[Any, ...]:
        self.calls += 1
        return super().stepped(h, self.calls, row, g)


class _Stopping(Program):
    """A step that ends at the first parameter without elements, and before it where that is the last one."""

    def _steps(self, case: Case) -> Any:
        last_empty = case.each[-1].parameter.size == 0 and len(case.each) > 1
        for rows in super()._steps(case):
            untouched = [(leaf.parameter, slots, g) for leaf, (_, slots, g) in zip(case.each, rows, strict=True)]
            yield untouched if last_empty else rows


class _Forgetful(Program):
    """State that a save does not hold: it is zeros after a start from one."""

    def first(self, case: Case) -> list[Any]:
        return [np.zeros_like(x) for x in super().first(case)]


@pytest.mark.usefixtures("mpfr")
def test_a_counter_shared_by_the_parameters_is_seen():
    for name in (CORRECTED, "BiasCorrectedAdamW"):
        assert deviating(_Shared(right(name), state=False), frame_of(name)) == of(name, "many")


@pytest.mark.parametrize("name", NAMES)
def test_an_empty_parameter_at_the_end_that_stops_the_step_is_seen(name):
    wrong = _Stopping(right(name), state=False)
    assert [case.label for case in deviating(wrong, of(name, "many"))] == ["last=empty"]


@pytest.mark.usefixtures("mpfr")
@pytest.mark.parametrize("name", NAMES)
def test_a_state_that_is_lost_on_resuming_is_seen(name):
    assert seen(_Forgetful(right(name), state=False), name) == {"resume"}


def test_a_wrong_leaf_is_named():
    class Wrong(Program):
        def stepped(self, h: Any, t: int, row: tuple[Any, ...], g: Any) -> tuple[Any, ...]:
            new = super().stepped(h, t, row, g)
            return (new[0] + np.float32(1), *new[1:]) if t == 2 and g.shape == (5,) else new

    (case,) = matching(["Adam"], "adam/many/defaults")
    (result,) = check(Wrong(adam().step), [case]).results
    assert result.word == "deviates"
    assert (result.first.path, result.first.step, result.first.quantity) == (3, 2, "parameter")
    assert result.to_json()["worst"]["path"] == 3
    assert sum(leaf.parameter.size for leaf in case.leaves) * 3 * 3 == result.tested


def test_a_tree_with_another_number_of_leaves_is_a_failure():
    class Fewer(Program):
        def run(self, case: Case) -> Run:
            run = super().run(case)
            return replace(run, leaves=run.leaves[1:])

    (case,) = matching(["Adam"], "adam/many/defaults")
    (result,) = check(Fewer(adam().step), [case]).results
    assert result.word == "failed" and "3 parameters of a tree, not 4" in result.reason


# Verdicts of their own


def test_an_array_without_elements_conforms_by_its_shape():
    (case,) = matching(["Adam"], "adam/shapes/empty")
    (result,) = check(adam(), [case]).results
    assert (result.word, result.worst, result.tested) == ("conforms", None, 0)
    assert can_decide(case, parse("Adam"))
    wrong = Run(case, np.zeros((3, 1), np.float32), {})
    with pytest.raises(ValueError, match=r"has shape \(3, 1\)"):
        judge(wrong, parse("Adam"), "double")


def test_a_gradient_that_is_written_to_is_shown():
    (case,) = matching(["Adam"], "adam/untouched/defaults")
    (result,) = check(Program(into_the_gradient(right("Adam"))), [case]).results
    assert result.word == "deviates" and result.diagnosis == ["Adam"]
    worst = result.to_json()["worst"]
    assert (worst["quantity"], worst["step"], worst["index"], worst["excess"]) == ("gradient", 1, 0, None)
    assert worst["low"] == worst["nearest"] == worst["high"] == case.form.bits(case.gradients[0])[0] != worst["got"]


def test_nothing_is_said_of_gradients_that_are_not_shown():
    class Silent(Program):
        def run(self, case: Case) -> Run:
            return replace(super().run(case), gradients=None)

    (result,) = check(Silent(adam().step), matching(["Adam"], "adam/untouched/defaults")).results
    assert (result.word, result.reason) == ("unsupported", "the backend does not show its gradients")


def test_a_backend_is_not_held_to_a_case_that_it_does_not_claim_unless_a_formula_is_asked_for():
    class Modest(Program):
        def unclaimed(self, case: Case) -> str | None:
            return "why" if case.gradient_dtype else None

    cases = of("Adam", "mixed", "untouched")
    modest = Modest(adam().step)
    assert [(result.word, result.reason) for result in check(modest, cases).results] == [
        ("unsupported", "why"),
        ("conforms", None),
    ]
    assert [result.word for result in check(modest, cases, formula="Adam").results] == ["conforms"] * 2


def test_a_formula_without_bias_correction_is_told_apart_after_3000_steps():
    """The state is the same, the step is not."""
    (case,) = matching([CORRECTED], "*/resume/step=3000")
    program = corrected("m̂/(√v̂ + ε)")
    assert deviating(program, [case]) == []
    late = replace(program.run(replace(case, step=0)), case=case)
    assert judge_widening(late, parse(CORRECTED), ("double", "float32")).word == "deviates"


def test_the_slots_of_a_state_are_those_of_the_formula():
    for name in NAMES:
        (case, _) = of(name, "resume")
        assert tuple(case.state) == EXPECTED[name].slots
