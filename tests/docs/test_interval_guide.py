"""The guide on the interval: its theorems and its constants, derived a second time, with numbers."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from fractions import Fraction

import numpy as np
import pytest

from docs._ext.orders import STATEMENTS
from mlx_optimizers.oracle import Ball, Double, Rounded, format_of
from mlx_optimizers.oracle.newton_schulz import certified
from tests.conformance.test_right_programs import size
from tests.docs.copies import ROOT
from tests.oracle.test_rounded import COUNT
from tests.programs import adam_by

GUIDE = (ROOT / "docs" / "guides" / "interval.md").read_text("utf-8")


class Term:
    """A value and what rounding may have done to it, to first order, in units of v."""

    def __init__(self, value, error=0.0):
        self.value, self.error = value, error

    def __add__(self, other):
        z = self.value + other.value
        return Term(z, self.error + other.error + abs(z))

    def __sub__(self, other):
        z = self.value - other.value
        return Term(z, self.error + other.error + abs(z))

    def __mul__(self, other):
        z = self.value * other.value
        return Term(z, abs(self.value) * other.error + abs(other.value) * self.error + abs(z))

    def __truediv__(self, other):
        z = self.value / other.value
        return Term(z, (self.error + abs(z) * other.error) / abs(other.value) + abs(z))

    def root(self):
        z = np.sqrt(self.value)
        return Term(z, self.error / (2 * z) + z)


class Drawn:
    """Draw data for a statement: floats of every size, the domain of the hyperparameters, sums that cancel."""

    def __init__(self, count=400_000, seed=0):
        draw = np.random.Generator(np.random.PCG64(seed))

        def sizes(low, high):
            return 2.0 ** draw.uniform(low, high, count)

        def signed(low, high):
            return Term(sizes(low, high) * draw.choice([-1.0, 1.0], count))

        self.g, self.m, self.a = signed(-12, 12), signed(-12, 12), signed(-12, 12)
        self.d, self.v = Term(sizes(-12, 12)), Term(sizes(-20, 20))
        self.sign = Term(np.sign(self.m.value))
        self.beta = draw.uniform(0.5, 1, count)
        self.eps = sizes(-20, 0)
        self.c1, self.c2 = draw.uniform(1e-3, 1, count), draw.uniform(1e-3, 1, count)
        self.rate = sizes(-12, 0)
        self.kappa = draw.uniform(0, 0.2, count) / self.rate
        step = self.rate * self.a.value / self.d.value
        near = draw.random(count) < 0.5  # w of the size of the step, where the two may cancel
        self.w = Term(np.where(near, step * draw.uniform(0.5, 2, count), sizes(-20, 20)))
        near = draw.random(count) < 0.3
        opposite = -self.beta * self.m.value / (1 - self.beta) * draw.uniform(0.9, 1.1, count)
        self.g = Term(np.where(near, opposite, self.g.value))

    @staticmethod
    def number(c):
        """A coefficient, rounded into the format once; an integer is exact."""
        return Term(float(c)) if isinstance(c, int) else Term(c, abs(c))

    @staticmethod
    def root(x):
        return x.root() if isinstance(x, Term) else np.sqrt(x)

    @staticmethod
    def fused(a, b, c):
        z = a.value * b.value + c.value
        return Term(z, abs(a.value) * b.error + abs(b.value) * a.error + c.error + abs(z))

    def wide(self, evaluate):
        """Double precision throughout and one rounding at the end."""
        z = evaluate(self).value
        return Term(z, abs(z))


def constant(text: str, beta):
    """A constant of the table, as numbers."""
    if text == r"$\max(4/3,\, 3/(4\beta))$":
        return np.maximum(4 / 3, 3 / (4 * beta))
    if text == r"$\max(5/4,\, 1/\beta - 1/2)$":
        return np.maximum(5 / 4, 1 / beta - 1 / 2)
    return np.full_like(beta, float(Fraction(text)))


@pytest.fixture(scope="module")
def drawn() -> Drawn:
    return Drawn()


ROWS = [(statement, order) for statement in STATEMENTS for order in statement.orders]


@pytest.mark.norm(
    "interval.less-rounding",
    "interval.steps",
    "interval.running-means",
    "interval.bias-correction",
    "interval.weight-decay",
    "interval.counted",
)
@pytest.mark.parametrize(("statement", "order"), ROWS, ids=[order.name for _, order in ROWS])
def test_no_order_rounds_more_than_its_constant_and_some_data_come_near(drawn, statement, order):
    right, other = statement.model(drawn), order.evaluate(drawn)
    np.testing.assert_allclose(right.value, other.value, rtol=1e-6, atol=1e-9 * np.max(right.error))
    ratio, allowed = other.error / right.error, constant(order.constant, drawn.beta)
    assert np.all(ratio <= allowed * (1 + 1e-9))
    assert np.all(allowed < 1.5)
    if order.constant != "1":
        assert np.max(ratio / allowed) > 0.97


@pytest.mark.norm("interval.running-means", "interval.interpolation")
def test_an_interpolation_is_covered_above_one_half_and_not_below():
    [(statement, order)] = [row for row in ROWS if row[1].name == "m by interpolation"]

    def worst(beta):
        there = Drawn(20_000)
        there.beta = np.full(20_000, beta)
        there.g = Term(-there.beta * there.m.value / (1 - there.beta))
        return np.max(order.evaluate(there).error / statement.model(there).error)

    assert worst(0.51) < 1.5 < worst(0.49)
    assert worst(0.5) == pytest.approx(1.5)


OPERATIONS: dict[str, Callable] = {
    "sum": lambda n, a, b: a + b,
    "difference": lambda n, a, b: a - b,
    "product": lambda n, a, b: a * b,
    "quotient": lambda n, a, b: a / b,
    "root": lambda n, a, b: n.sqrt(n.abs(a)),
}


@pytest.mark.norm("interval.inclusion")
@pytest.mark.parametrize("operation", OPERATIONS)
def test_a_part_of_a_ball_gives_a_part_of_the_result(operation):
    """Theorem 7, with room for the float64 arithmetic of the radii themselves."""
    draw, n, count = np.random.Generator(np.random.PCG64(1)), Rounded(format_of("float32"), Double()), 100_000

    def ball_and_part():
        x = draw.uniform(0.1, 4, count) * draw.choice([-1, 1], count)
        r = np.abs(x) * 2.0 ** draw.uniform(-30, -0.01, count) * draw.choice([0, 1], count, p=[0.1, 0.9])
        share = draw.choice([0, 0.5, 1], count)
        inner = r * share * draw.uniform(0, 1, count)
        moved = x + (r - inner) * draw.choice([-1, 1], count)
        return Ball(n, n.centre.array(x), r), Ball(n, n.centre.array(moved), inner)

    (a, part_a), (b, part_b) = ball_and_part(), ball_and_part()
    whole, part = (OPERATIONS[operation](n, *pair) for pair in ((a, b), (part_a, part_b)))
    reached = np.abs(part.centre.values - whole.centre.values) + part.radius
    assert np.all(reached <= whole.radius * (1 + 1e-9) + 1e-14)
    assert np.isfinite(whole.radius).mean() > 0.9


@pytest.mark.norm("interval.inclusion")
def test_a_part_of_a_ball_that_holds_zero_gives_a_part_of_its_root():
    """Theorem 7 for x ≤ r and parts with 8r' ≤ x̂; with the radius of theorem 4 alone some would stick out."""
    draw, n, count = np.random.Generator(np.random.PCG64(2)), Rounded(format_of("float32"), Double()), 100_000
    x, r = draw.uniform(0, 1, count), draw.uniform(1, 4, count)
    inner = (x + r) / 9 * draw.uniform(0, 1, count)  # then 8r' ≤ x̂ for the one that touches the outer end
    whole, part = (n.sqrt(Ball(n, n.centre.array(c), radius)) for c, radius in ((x, r), (x + r - inner, inner)))
    reached = np.abs(part.centre.values - whole.centre.values) + part.radius
    assert np.all(reached <= whole.radius * (1 + 1e-9))
    assert np.any(np.abs(part.centre.values - whole.centre.values) + part.radius > np.sqrt(x + r) - np.sqrt(x) + 1e-4)


@pytest.mark.norm("interval.drawn")
def test_the_guide_says_how_many_cases_of_an_operation_are_drawn():
    assert f"{COUNT:,} random cases" in GUIDE


@pytest.mark.norm("interval.half")
def test_the_worst_of_a_program_is_half_of_the_bound_to_five_sixths():
    for report in sorted((ROOT / "docs" / "reports").glob("*.json")):
        results = json.loads(report.read_text("utf-8"))["results"]
        proved = [result for result in results if "/special/" not in result["case"]]
        excesses = [result["worst"]["excess"] for result in proved if result["worst"]]
        assert 0.5 < max(excesses) < 5 / 6, report.name


def test_every_theorem_is_there_once_and_in_order():
    assert [int(number) for number in re.findall(r"^\*\*Theorem (\d+),", GUIDE, re.MULTILINE)] == list(range(1, 15))


@pytest.mark.norm("interval.newton-schulz-16-bits")
@pytest.mark.parametrize("name", ["bfloat16", "float16", "float32"])
@pytest.mark.parametrize("shape", [(1, 1), (1, 3), (2, 2), (3, 2), (2, 5), (4, 6)])
def test_newton_schulz_has_no_bound_in_bfloat16_and_in_float16_that_of_one_row(name, shape):
    form, rng = format_of(name), np.random.default_rng(0)
    for d in (np.eye(*shape), np.ones(shape), *rng.normal(size=(5, *shape))):
        _, bound = certified(Double(), form, form.rounded(d), np.zeros(shape))
        bounded = bound <= 1024
        assert bounded or bound == np.inf
        assert bounded == (name == "float32" or (name == "float16" and min(shape) == 1))


@pytest.mark.norm("interval.approximate", "interval.four-units")
@pytest.mark.parametrize("operation", ["÷", "√"])
def test_an_approximate_operation_is_not_found_outside_at_4_ulp(operation):
    assert 0.5 < size("Adam", {}, adam_by(operation, 4)) < 1
    assert " ".join(GUIDE.split()).count("4 units in the last place") == 2
