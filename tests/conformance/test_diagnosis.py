"""A program that computes another formula is told which, from its parameters alone."""

from __future__ import annotations

import random

import numpy as np
import pytest

import mlx_optimizers
from mlx_optimizers.conformance import cases_of, check, matching, parse
from mlx_optimizers.conformance.cases import make_case, recast
from mlx_optimizers.conformance.diagnosis import Diagnosis, diagnose
from mlx_optimizers.conformance.formats.text import text as human
from mlx_optimizers.conformance.verdict import judge
from mlx_optimizers.oracle.formulas import split, variants
from tests.conformance.intervals import passes_as
from tests.expected import EIGHT, EXPECTED, NAMES
from tests.programs import Evaluated, Program

pytestmark = pytest.mark.usefixtures("remembered")

ADAMS = [name for name in NAMES if "step" in EXPECTED[name].axes]
"""Those that count steps, for a bias correction."""

PROFILES = ("double", "float32")


def outcomes(name):
    program = Evaluated(name, state=False)
    return [program.run(case) for case in cases_of(split(name)[0])]


def conforms(run, name):
    return any(judge(run, parse(name), profile).conforms for profile in PROFILES)


@pytest.mark.usefixtures("mpfr")
@pytest.mark.parametrize("optimizer", EIGHT)
@pytest.mark.norm("formulas.diagnosis")
def test_every_change_of_one_axis_is_caught_and_named_first(optimizer):
    names = [formula.name for formula in variants(optimizer, 1)]
    assert len(names) >= 10
    first = 0
    for name in names:
        runs = outcomes(name)
        assert not all(conforms(run, optimizer) for run in runs), f"{name} passes as {optimizer}"
        found = diagnose(optimizer, runs, PROFILES).formulas
        assert name in found
        first += found[0] == name
    assert first >= 0.95 * len(names)


@pytest.mark.parametrize("optimizer", ADAMS)
def test_steps_counted_otherwise_are_named(optimizer):
    """The axis ``step`` means something only with a bias correction."""
    name = f"{optimizer}[bias_correction=true,step=t+1]"
    found = diagnose(optimizer, outcomes(name), PROFILES).formulas
    assert name in found
    assert {split(other)[1]["step"] for other in found} == {"t+1"}


def named_or_indistinguishable(name):
    """Tell whether a diagnosis has the name, or formulas with exact values in its own intervals everywhere."""
    optimizer, _ = split(name)
    found = diagnose(optimizer, outcomes(name), PROFILES).formulas
    if name in found:
        return True
    return bool(found) and all(passes_as(other, name, case) for other in found for case in cases_of(optimizer))


def _sample(seed, optimizers, axes, size):
    """Draw formulas from those that a program can be held to: 1 − β⁰ = 0 leaves none a value."""
    names = [formula.name for optimizer in optimizers for formula in variants(optimizer, axes)]
    names = [name for name in names if "step=t-1" not in name]
    return random.Random(seed).sample(names, size)


PAIRS = _sample(4, EIGHT, 2, 200)
TRIPLES = _sample(5, ADAMS, 3, 48)


@pytest.mark.norm("formulas.diagnosis")
def test_of_pairs_of_axes_nine_in_ten_are_named():
    assert sum(map(named_or_indistinguishable, PAIRS[:40])) >= 36


@pytest.mark.slow
def test_of_200_pairs_of_axes_nine_in_ten_are_named():
    assert sum(map(named_or_indistinguishable, PAIRS)) >= 180


@pytest.mark.norm("formulas.diagnosis")
def test_of_triples_of_axes_of_the_adam_family_nine_in_ten_are_named():
    assert sum(map(named_or_indistinguishable, TRIPLES[:10])) >= 9


@pytest.mark.slow
def test_of_48_triples_of_axes_of_the_adam_family_nine_in_ten_are_named():
    assert sum(map(named_or_indistinguishable, TRIPLES)) >= 44


@pytest.mark.norm("check_your_port.adapter", "check_your_port.computes", "check_your_port.first")
def test_the_words_name_the_formula_and_where_it_was_first_seen():
    report = check(Evaluated("Adam[eps=inside_sqrt]", state=False), cases_of("Adam"), formula="Adam")
    assert report.counts()["conforms"] < report.counts()["deviates"]
    assert {tuple(r.diagnosis) for r in report.results if r.word == "deviates"} == {("Adam[eps=inside_sqrt]",)}
    assert {tuple(r.diagnosis) for r in report.results if r.word == "conforms"} == {()}
    text = " ".join(human(report).split())
    assert "It computes Adam with ε inside the square root: Adam[eps=inside_sqrt]" in text
    first = next(r for r in report.results if r.word == "deviates").first
    assert first.excess > 1
    assert f"step {first.step}, parameter[{first.index}]: got" in text
    assert f"({first.got}), accepted [" in text
    assert first.exact in text


@pytest.mark.norm("formulas.diagnosis")
def test_formulas_that_the_cases_cannot_tell_apart_are_all_named():
    """Where no case has momentum, decay with momentum alone is none."""
    cases = [make_case(mlx_optimizers.SGD, "plain", {"weight_decay": 0.1})]
    report = check(Evaluated("SGD[weight_decay=ignored]", state=False), cases, formula="SGD")
    assert set(report.diagnoses["SGD"].formulas) == {"SGD[weight_decay=ignored]", "SGD[weight_decay=momentum_only]"}


@pytest.mark.norm("formulas.diagnosis")
def test_fewest_axes_come_first_and_more_are_not_tried():
    """From a state of zero, AdaDelta without ε above never moves, with any other change."""
    report = check(
        Evaluated("AdaDelta[eps=denominator_only,u=frozen]", state=False), cases_of("AdaDelta"), formula="AdaDelta"
    )
    assert report.diagnoses["AdaDelta"].formulas == ["AdaDelta[eps=denominator_only]"]


@pytest.mark.norm("check_your_port.state")
def test_a_change_in_the_state_alone_is_seen_where_the_state_is_shown():
    def right(h, t, w, g, v):
        v = h.alpha * v + (1 - h.alpha) * g * g
        return w - h.learning_rate * g / (np.sqrt(v) + np.float32(h.eps)), v

    class Doubling(Program):
        """Shows twice the state that it keeps, from the third step on."""

        def run(self, case):
            outcome = super().run(case)
            shown = outcome.state["v"].copy()
            shown[2:] *= 2
            return type(outcome)(case, outcome.parameters, {"v": shown})

    report = check(Doubling(right, "RMSprop"), matching(["RMSprop"], "*/plain/*"))
    assert report.counts()["deviates"] == len(report.results)
    for result in report.results:
        assert (result.first.quantity, result.first.step) == ("v", 3)
    assert check(Program(right, "RMSprop", state=False), cases_of("RMSprop")).status == 0
    assert report.diagnoses["RMSprop"].formulas == []
    assert "v[" in human(report)


def biased(factor):
    def step(h, t, w, g, m, v):
        b1, b2 = h.betas
        m, v = b1 * m + (1 - b1) * g, b2 * v + (1 - b2) * g * g
        corrected = m / np.float32(1 - b1**t), v / np.float32(1 - b2**t)
        return w - h.learning_rate * factor * corrected[0] / (np.sqrt(corrected[1]) + np.float32(h.eps)), m, v

    return Program(step, "Adam", state=False)


def test_where_no_formula_agrees_the_nearest_is_told_by_the_size_of_the_errors():
    report = check(biased(1.01), cases_of("Adam"))
    assert report.diagnoses["Adam"] == Diagnosis([], "Adam[bias_correction=true]", 1)  # a rate of 0 shows nothing
    assert all(result.diagnosis == [] for result in report.results)
    text = " ".join(human(report).split())
    assert "No formula known here agrees with every case. Nearest is Adam[bias_correction=true], in 1 of 28." in text
    assert "First seen in adam/plain/defaults, step 1, parameter[" in text


@pytest.mark.parametrize("factor", [0.5, 1.01, 1.3])
def test_another_formula_with_a_learning_rate_that_is_off_is_the_nearest(factor):
    def step(h, t, w, g, v):
        v = h.alpha * v + (1 - h.alpha) * g * g
        return w - np.float32(factor * h.learning_rate) * g / np.sqrt(v + np.float32(h.eps)), v

    found = check(Program(step, state=False), cases_of("RMSprop")).diagnoses["RMSprop"]
    assert (found.formulas, found.nearest) == ([], "RMSprop[eps=inside_sqrt]")


@pytest.mark.parametrize("factor", [0.9, 1.01, 1.3])
@pytest.mark.parametrize("one", [False, True])
def test_a_learning_rate_that_is_off_leaves_the_documented_formula_the_nearest(factor, one):
    """Not one whose weight decay stands elsewhere, though its wider interval makes errors look small."""

    def step(h, t, w, g, v):
        g = g + np.float32(h.weight_decay) * w
        if h.momentum:
            v = h.momentum * v + (1 - h.dampening) * g
            g = g + h.momentum * v if h.nesterov else v
        return w - np.float32(factor * h.learning_rate) * g, v

    found = check(Program(step, state=False), cases_of("SGD")[: 1 if one else None]).diagnoses["SGD"]
    assert (found.formulas, found.nearest) == ([], "SGD")


def test_the_nearest_is_first_what_agrees_with_most_cases():
    """Right but in one regime: the nearest is the documented formula, with the number of cases it agrees in."""

    class Flawed(Program):
        def run(self, case):
            outcome = super().run(case)
            return type(outcome)(case, outcome.parameters + (case.regime == "zeros"), {})

    def step(h, t, w, g, v):
        v = v + g * g
        return w - h.learning_rate * g / (np.sqrt(v) + np.float32(h.eps)), v

    cases = cases_of("Adagrad")
    flawed = sum(case.regime == "zeros" for case in cases)
    report = check(Flawed(step, state=False), cases)
    assert report.counts()["deviates"] == flawed
    assert report.diagnoses["Adagrad"] == Diagnosis([], "Adagrad", len(cases) - flawed)


def test_coefficients_formed_in_float32_are_no_hindrance():
    """1−β₂ᵗ formed in float32 needs the wider profile, and is named under it alone."""

    def step(h, t, w, g, m, v):
        b1, b2 = h.betas
        m, v = b1 * m + (1 - b1) * g, b2 * v + (1 - b2) * g * g
        one = np.float32(1)
        c1, c2 = one - np.float32(b1) ** np.float32(t), one - np.float32(b2) ** np.float32(t)
        return w - np.float32(h.learning_rate) * (m / c1) / (np.sqrt(v / c2) + np.float32(h.eps)), m, v

    cases = cases_of("Adam")
    program = Program(step, state=False)
    assert check(program, cases, formula="Adam").diagnoses["Adam"].formulas == ["Adam[bias_correction=true]"]
    assert check(program, cases, formula="Adam", scalars="double").diagnoses["Adam"].formulas == []


def test_another_dtype_is_diagnosed_too():
    def step(h, t, w, g, v):
        v = h.alpha * v + (1 - h.alpha) * g * g
        return w - h.learning_rate * g / np.sqrt(v + h.eps), v

    cases = [recast(case, "float64") for case in cases_of("RMSprop")]
    assert check(Program(step, state=False), cases).diagnoses["RMSprop"].formulas == ["RMSprop[eps=inside_sqrt]"]


@pytest.mark.norm("formulas.diagnosis")
def test_two_axes_of_a_program_written_by_hand():
    """ε inside the root, and left at 1e-7 under every setting."""

    def step(h, t, w, g, v):
        v = h.alpha * v + (1 - h.alpha) * g * g
        return w - h.learning_rate * g / np.sqrt(v + np.float32(1e-7)), v

    found = check(Program(step, state=False), cases_of("RMSprop")).diagnoses["RMSprop"].formulas
    assert found == ["RMSprop[eps=inside_sqrt,ignored=eps:1e-07]"]
