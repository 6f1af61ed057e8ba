"""A program that computes another formula is told which, from its parameters alone."""

from __future__ import annotations

import random
import re
from types import SimpleNamespace

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
from tests.wrong import right

pytestmark = pytest.mark.usefixtures("remembered")

ADAMS = [name for name in NAMES if "step" in EXPECTED[name].axes]
"""Those that count steps, for a bias correction."""

PROFILES = ("double", "float32")


PLAINER = {
    "RMSprop[scaled=gradient:0.5]": "RMSprop[scaled=eps:2]",
    "Adagrad[scaled=gradient:0.5]": "Adagrad[scaled=eps:2]",
    **{
        f"{name}[replaced=beta_{number}:1-beta_{number}]": f"{name}[betas={slot}_complement]"
        for name in ("Adam", "AdamW")
        for number, slot in ((1, "m"), (2, "v"))
    },
    "Lion[replaced=beta_1:beta_2]": "Lion[sign=momentum]",
    "Lion[state=dropped]": "Lion[sign=gradient]",
}
"""Formulas that have a plainer name."""


def outcomes(name):
    program = Evaluated(name, state=False)
    return [program.run(case) for case in cases_of(split(name)[0])]


def conforms(run, name):
    return any(judge(run, parse(name), profile).conforms for profile in PROFILES)


@pytest.mark.usefixtures("mpfr")
@pytest.mark.parametrize("optimizer", EIGHT)
@pytest.mark.norm("formulas.diagnosis", "formulas.plainer")
def test_every_change_of_one_axis_is_caught_and_named_first(optimizer):
    names = [formula.name for formula in variants(optimizer, 1)]
    assert len(names) >= 25
    for name in names:
        runs = outcomes(name)
        assert not all(conforms(run, optimizer) for run in runs), f"{name} passes as {optimizer}"
        assert diagnose(optimizer, runs, PROFILES).formulas[0] == PLAINER.get(name, name)


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
    """Draw formulas of those that are searched: with one constant at most, and beside two axes a rate, ε or decay.

    And that a program can be held to: 1 − β⁰ = 0 leaves none a value.
    """
    names = [formula.name for optimizer in optimizers for formula in variants(optimizer, axes)]
    names = [name for name in names if "step=t-1" not in name and _searched(name, axes)]
    return random.Random(seed).sample(names, size)


def _searched(name, axes):
    constants = re.findall(r"(ignored|scaled|replaced)=(\w+)", name)
    late = {("ignored", "learning_rate"), ("scaled", "learning_rate"), ("ignored", "eps")}
    late |= {("ignored", "weight_decay"), ("scaled", "weight_decay")}
    return len(constants) <= 1 and (axes < 3 or set(constants) <= late)


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
    axes = {"SGD[weight_decay=ignored]", "SGD[weight_decay=momentum_only]"}
    zeros = {f"SGD[replaced=weight_decay:{name}]" for name in ("momentum", "dampening")}
    assert set(report.diagnoses["SGD"].formulas) == axes | zeros


@pytest.mark.norm("formulas.diagnosis")
def test_fewest_axes_come_first_and_more_are_not_tried():
    """From a state of zero, AdaDelta without ε above never moves, with any other change."""
    report = check(
        Evaluated("AdaDelta[eps=denominator_only,u=frozen]", state=False), cases_of("AdaDelta"), formula="AdaDelta"
    )
    assert report.diagnoses["AdaDelta"].formulas == ["AdaDelta[eps=denominator_only]", "AdaDelta[ignored=eps:0]"]


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


@pytest.mark.norm("formulas.solved")
@pytest.mark.parametrize("factor", [0.5, 1.01, 1.3, -1, 1 / 3, 2.0**-7, 1e-4])
def test_a_learning_rate_that_is_off_is_named_with_its_factor(factor):
    """A third is written as Python writes it, and so is a power of two."""
    written = repr(float(factor)).removesuffix(".0")
    found = check(biased(factor), cases_of("Adam")).diagnoses["Adam"].formulas
    assert found == [f"Adam[bias_correction=true,scaled=learning_rate:{written}]"]


@pytest.mark.parametrize("factor", [0.5, 1.01, 1.3])
def test_and_so_it_is_beside_another_axis(factor):
    def step(h, t, w, g, v):
        v = h.alpha * v + (1 - h.alpha) * g * g
        return w - np.float32(factor * h.learning_rate) * g / np.sqrt(v + np.float32(h.eps)), v

    found = check(Program(step, state=False), cases_of("RMSprop")).diagnoses["RMSprop"].formulas
    assert found == [f"RMSprop[eps=inside_sqrt,scaled=learning_rate:{factor}]"]


@pytest.mark.parametrize("factor", [0.9, 1.01, 1.3])
@pytest.mark.norm("formulas.solved")
def test_with_one_setting_left_at_and_times_cannot_be_told_apart(factor):
    def step(h, t, w, g, v):
        g = g + np.float32(h.weight_decay) * w
        if h.momentum:
            v = h.momentum * v + (1 - h.dampening) * g
            g = g + h.momentum * v if h.nesterov else v
        return w - np.float32(factor * h.learning_rate) * g, v

    several = check(Program(step, state=False), cases_of("SGD")).diagnoses["SGD"].formulas
    assert several == [f"SGD[scaled=learning_rate:{factor}]"]
    alone = check(Program(step, state=False), cases_of("SGD")[:1]).diagnoses["SGD"].formulas
    left = repr(round(factor * 0.1, 4))
    assert set(alone) >= {f"SGD[ignored=learning_rate:{left}]", f"SGD[scaled=learning_rate:{factor}]"}


@pytest.mark.parametrize(
    ("optimizer", "change", "name"),
    [
        ("Adam", {"eps": lambda h: 3e-5}, "Adam[ignored=eps:3e-05]"),
        ("Adam", {"eps": lambda h: 0.02 * h.eps}, "Adam[scaled=eps:0.02]"),
        ("Adam", {"betas": lambda h: (0.87, h.betas[1])}, "Adam[ignored=beta_1:0.87]"),
        ("Adam", {"betas": lambda h: (h.betas[0], 0.985)}, "Adam[ignored=beta_2:0.985]"),
        ("Adam", {"betas": lambda h: (0.8, 0.95)}, "Adam[ignored=betas:0.8,0.95]"),
        ("AdamW", {"weight_decay": lambda h: 0.03}, "AdamW[ignored=weight_decay:0.03]"),
        ("AdamW", {"weight_decay": lambda h: h.weight_decay / 7}, f"AdamW[scaled=weight_decay:{1 / 7}]"),
        ("AdamW", {"weight_decay": lambda h: 0.0}, "AdamW[weight_decay=ignored]"),
        ("RMSprop", {"alpha": lambda h: 0.93}, "RMSprop[ignored=alpha:0.93]"),
        ("AdaDelta", {"rho": lambda h: 1 - h.rho}, "AdaDelta[rho=complement]"),
        ("Adamax", {"eps": lambda h: h.eps**0.5}, "Adamax[replaced=eps:sqrt(eps)]"),
        ("SGD", {"momentum": lambda h: 0.85 if h.momentum else 0.0}, None),
        ("SGD", {"dampening": lambda h: 0.25}, "SGD[ignored=dampening:0.25]"),
        ("SGD", {"weight_decay": lambda h: h.learning_rate}, "SGD[replaced=weight_decay:learning_rate]"),
        ("Lion", {"betas": lambda h: (0.95, 0.98)}, "Lion[ignored=betas:0.95,0.98]"),
        ("Lion", {"weight_decay": lambda h: -h.weight_decay}, "Lion[scaled=weight_decay:-1]"),
    ],
)
@pytest.mark.norm("formulas.solved")
def test_constants_are_solved_for(optimizer, change, name):
    """By a right step that is given other hyperparameters."""
    step = right(optimizer)

    def wrong(h, t, w, g, *slots):
        return step(SimpleNamespace(**{**vars(h), **{key: new(h) for key, new in change.items()}}), t, w, g, *slots)

    found = check(Program(wrong, state=False), cases_of(optimizer)).diagnoses[optimizer].formulas
    assert found == ([] if name is None else [name])


@pytest.mark.parametrize(
    ("optimizer", "change", "name"),
    [
        ("Adam", lambda g: np.clip(g, -np.float32(0.6), np.float32(0.6)), "Adam[ignored=clip:0.6]"),
        ("AdamW", lambda g: g * np.float32(1024), "AdamW[scaled=gradient:1024]"),
        ("SGD", lambda g: g / np.float32(3), f"SGD[scaled=gradient:{1 / 3}]"),
    ],
)
def test_so_are_those_of_the_gradient(optimizer, change, name):
    step = right(optimizer)
    program = Program(lambda h, t, w, g, *slots: step(h, t, w, change(g), *slots), state=False)
    assert name in check(program, cases_of(optimizer)).diagnoses[optimizer].formulas


def test_an_accumulator_that_starts_elsewhere_is_named():
    step = right("Adagrad")
    program = Program(lambda h, t, w, g, v: step(h, t, w, g, v + (t == 1) * np.float32(0.3)), state=False)
    assert check(program, cases_of("Adagrad")).diagnoses["Adagrad"].formulas == ["Adagrad[ignored=initial:0.3]"]


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
