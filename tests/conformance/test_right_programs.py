"""No false alarm: correct programs conform, in any order of evaluation; the cost of the orders not covered.

The programs of tests/programs.py and the steps of tests/expected.py are written by hand in plain NumPy, and share
nothing with the package; the intervals that they are held to come from `exact`.
"""

from __future__ import annotations

import inspect
import sys
from pathlib import Path

import numpy as np
import pytest

import mlx_optimizers
from mlx_optimizers.conformance import Case, cases_of, check, decisive, matching, parse
from mlx_optimizers.conformance.case import default_rate
from mlx_optimizers.conformance.diagnosis import Diagnosis
from mlx_optimizers.conformance.frame import frame_of
from mlx_optimizers.conformance.special import special_of
from mlx_optimizers.oracle import Double, Exact, Rounded, format_of
from mlx_optimizers.oracle.trajectory import walk
from tests.expected import LATER, NAMES
from tests.programs import COVERED, not_covered, right_programs
from tests.support import require

pytestmark = pytest.mark.usefixtures("remembered")

RIGHT = right_programs()


def test_every_published_order_has_a_program_and_every_program_one_order():
    assert sorted(name for names in COVERED.values() for name in names) == sorted(RIGHT)
    assert all(COVERED.values())
    assert len(COVERED["six ways of bias correction"]) == 6 + len(LATER)
    assert len(RIGHT) >= 30
    assert {optimizer for optimizer, _ in RIGHT.values()} == set(NAMES)


@pytest.mark.norm("vectors.orders", "interval.claim")
@pytest.mark.parametrize("name", RIGHT)
@pytest.mark.norm("check_your_port.contracted")
def test_a_right_program_conforms(name):
    """In every case, parameter and state, with coefficients in double as these programs form them."""
    optimizer, program = RIGHT[name]
    results = check(program, (*cases_of(optimizer), *special_of(optimizer)), scalars="double").results
    others = {r.case.id.partition("/")[2]: r for r in results if r.word != "conforms"}
    assert [(r.case.id, r.first) for r in others.values() if r.word != "unsupported"] == []
    assert {r.case.level for r in others.values()} <= {"informative"}
    small = {case for case in others if case.startswith("tiny")}
    assert not small or "interpolation" in name
    assert set(others) - small <= {"special/overflow"}


@pytest.mark.usefixtures("mpfr")
@pytest.mark.parametrize("name", RIGHT)
def test_a_right_program_conforms_in_the_frame(name):
    optimizer, program = RIGHT[name]
    results = check(program, frame_of(optimizer), scalars="double").results
    assert [(r.case.id, r.first) for r in results if r.word != "conforms"] == []


OUT_OF_RANGE = {
    "AdaDelta (√u·g)/√v": 4,
    "Adagrad a(1/d)": 1,
    "Adam a(1/d)": 1,
    "Adamax a(1/d)": 1,
    "Adamax a(λ/d)": 1,
    "Adamax a/(d/λ)": 5,
    "RMSprop a(1/d)": 2,
}
"""In how many cases of float16 an intermediate value of these overflows or underflows, so that they deviate."""


@pytest.mark.norm("interval.own-rounding")
@pytest.mark.parametrize("pattern", ["*/plain/defaults/*", pytest.param("*", marks=pytest.mark.slow)])
@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float64"])
def test_a_right_program_conforms_in_other_dtypes_where_nothing_leaves_their_range(dtype, pattern, monkeypatch):
    if dtype == "bfloat16":
        require("ml_dtypes")
    monkeypatch.setattr(sys.modules["mlx_optimizers.conformance.check"], "diagnose", lambda *given: Diagnosis([]))
    deviating = {}
    for name, (optimizer, program) in RIGHT.items():
        counts = check(program, decisive(program, matching([optimizer], pattern, [dtype])), scalars="double").counts()
        assert counts["failed"] == 0 < counts["conforms"]
        deviating[name] = counts["deviates"]
    whole = dtype == "float16" and pattern == "*"
    assert {name: count for name, count in deviating.items() if count} == (OUT_OF_RANGE if whole else {})


SIZES = {
    "interpolation with β = 1/8": 1.58,
    "interpolation with β = 1/32": 6.91,
    "g + β(m − g)": 269,
    "(√(1−β)·g)²": 1.08,
    "Nesterov as w −= λμv; w −= λg": 0.724,
    "decay of SGD as (1−λκ)w − λg": 1.3,
    "÷ 16 ulp off": 1.79,
    "√ 16 ulp off": 2.81,
    "(2⁶⁰g)²·2⁻¹²⁰": float("inf"),
}
"""The greatest error ratio seen in an order that is not covered: above 1 it lies outside. These data show no Nesterov
in two roundings outside; the model grants it nothing all the same."""

ELEMENTS = 20_000


def searched(optimizer, given):
    """Data in which an order may stray: signs, sizes and cancellation at random, 4 steps of 20,000 elements."""
    made = getattr(mlx_optimizers, optimizer)
    h = {name: p.default for name, p in inspect.signature(made).parameters.items()}
    h = {**h, "learning_rate": default_rate(optimizer), **given}
    draw = np.random.Generator(np.random.PCG64(0))
    kind = np.arange(ELEMENTS) % 6
    g = draw.uniform(1, 2, (4, ELEMENTS)) * np.where(draw.random((4, ELEMENTS)) < 0.5, -1, 1)
    w = draw.uniform(1, 2, ELEMENTS)
    w[kind == 0] = 0  # the step alone
    g[:, kind == 1] = draw.uniform(1, 1.02, (4, (kind == 1).sum()))  # where a unit roundoff is largest
    g[1:, kind == 2] /= 64  # a moment far above the gradient
    g[1, kind == 3] = -(0.9**2) * g[0, kind == 3] / 1.9 * draw.uniform(0.99, 1.01, (kind == 3).sum())
    w[kind == 3] /= 1024  # momentum and gradient that cancel
    g[:, kind == 4] *= 1024
    w[kind == 5] = draw.uniform(1, 1.02, (kind == 5).sum())
    g[:, kind == 5] = -h.get("weight_decay", 0.1) * w[kind == 5]  # decay and gradient that cancel
    return Case("searched", optimizer, "searched", "", "float32", h, np.float32(w), np.float32(g))


def size(optimizer, given, program):
    """Compute the greatest error over radius, of the parameter and of every slot."""
    case = searched(optimizer, given)
    outcome = program.run(case)
    n = Rounded(format_of("float32"), Double(), "double", Exact())
    greatest = 0.0
    with n.active(), np.errstate(all="ignore"):
        steps = walk(parse(optimizer), n, case.parameter, list(case.gradients), case.hyperparameters)
        for step, (w, *slots) in enumerate(steps):
            rows = [outcome.parameters[step], *(values[step] for values in outcome.state.values())]
            for ball, got in zip((w, *slots), rows, strict=True):
                error = abs(got.astype(np.float64) - ball.centre.values)
                greatest = max(greatest, float(np.max(np.where(error == 0, 0.0, error / ball.radius))))
    return greatest


@pytest.mark.norm("interval.not-covered", "interval.interpolation", "interval.two-roundings", "interval.own-overflow")
@pytest.mark.parametrize("name", not_covered())
def test_what_an_order_that_is_not_covered_costs(name):
    assert float(f"{size(*not_covered()[name]):.3g}") == SIZES[name]


@pytest.mark.norm("interval.not-covered")
def test_the_guide_states_what_these_orders_cost():
    guide = (Path(__file__).parents[2] / "docs" / "guides" / "interval.md").read_text("utf-8")
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in guide.splitlines() if line.startswith("| ")]
    assert rows[0][0] == "order that is not covered"
    assert {name: float(size.replace("∞", "inf")) for name, size in rows[2:]} == SIZES
