"""Every number of a small format: the claims of the guide on the interval, computed case by case.

A false model is among the tests, so that it is known that these numbers can show one.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from math import isqrt
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mlx_optimizers.oracle import Ball, Double, Rounded
from mlx_optimizers.oracle.formats import Format
from tests.expected import EXPECTED, NAMES
from tests.programs import COVERED
from tests.proofs.exhaustion import BINARY, E4M3, FLOATS, SIX, UNARY, UNIT, Six, counted, operations, steps
from tests.support import require

pytestmark = pytest.mark.xdist_group("exhaustion")  # what is counted once serves several tests

RECORD = json.loads((Path(__file__).parents[2] / "docs" / "proved.json").read_text("utf-8"))["exhausted"]


@pytest.fixture(scope="module")
def of_operations() -> dict[str, Any]:
    return operations()


@pytest.fixture(scope="module")
def of_steps() -> dict[str, Any]:
    return steps()


@pytest.mark.norm(
    "interval.ball",
    "interval.one-rounding",
    "interval.sum",
    "interval.product",
    "interval.quotient",
    "interval.root",
    "interval.not-rounded",
)
def test_no_result_of_an_operation_is_outside_of_its_ball(of_operations):
    assert [name for name, seen in of_operations.items() if seen["outside"]] == []
    assert all(seen["untested"] < seen["cases"] / 2 for seen in of_operations.values())


def test_every_pair_of_numbers_in_ten_balls_each_is_a_case(of_operations):
    assert len(set(FLOATS)) == 2 * (14 * 8 + 7) + 1  # 14 binades, the subnormals, zero
    assert {of_operations[name]["cases"] for name in BINARY} == {(len(FLOATS) * 10) ** 2}


@pytest.mark.norm("interval.claim", "interval.statements", "interval.counted")
def test_no_step_in_a_published_order_is_outside_of_its_ball(of_steps):
    assert [name for kind in of_steps.values() for name, seen in kind.items() if seen["outside"]] == []
    assert list(of_steps["orders"]) == list(COVERED)
    assert set(of_steps["optimizers"]) == {*NAMES, "BiasCorrectedAdam", "BiasCorrectedAdamW"}


def test_every_step_is_tested_and_a_third_of_the_radii_at_least_are_below_half_of_the_step(of_steps):
    for row in of_steps["optimizers"].values():
        assert row["tested"] == 1
        assert row["narrow"] > 1 / 3


def test_the_record_holds_what_is_counted(of_operations, of_steps):
    assert {"operations": of_operations, **of_steps} == RECORD


# What is held to the balls is right.


def test_the_table_of_e4m3_is_that_of_ml_dtypes():
    eight = np.arange(256, dtype=np.uint8).view(require("ml_dtypes").float8_e4m3)
    finite = eight[np.isfinite(eight)].astype(float)
    assert sorted(set(finite)) == [x * UNIT for x in FLOATS]


OF_ML_DTYPES: dict[str, Callable[..., Any]] = {
    "sum": lambda x, y: x + y,
    "difference": lambda x, y: x - y,
    "product": lambda x, y: x * y,
    "quotient": lambda x, y: x / y,
    "maximum": np.maximum,
    "root": np.sqrt,
    "magnitude": np.abs,
    "sign": np.sign,
}


@pytest.mark.parametrize("name", [*BINARY, *UNARY])
def test_the_results_on_e4m3_are_those_of_ml_dtypes(name):
    form = require("ml_dtypes").float8_e4m3
    units = [x for x in FLOATS if x >= 0 or name != "root"]
    values = (np.array(units) * UNIT).astype(form)
    with np.errstate(all="ignore"):
        if name in UNARY:
            ours, theirs = [UNARY[name][1](x) for x in units], OF_ML_DTYPES[name](values)
        else:
            ours = [[BINARY[name][1](x, y) for y in units] for x in units]
            theirs = OF_ML_DTYPES[name](values[:, None], values)
            if name == "quotient":  # where ours has no value, whatever is divided by zero
                theirs = np.where(values == 0, np.array(np.nan, form), theirs)
    np.testing.assert_array_equal(np.array(ours), theirs.astype(float))


def rounded(z: Fraction) -> float:
    """Round to 6 significant bits; Python's `round` takes ties to even."""
    if z == 0:
        return 0.0
    unit = Fraction(2) ** -40
    while 64 * unit <= abs(z):
        unit *= 2
    return float(round(z / unit) * unit)


def root(x: Fraction) -> Fraction:
    """The root cut off at 60 places, and moved off the middle of two numbers where it was cut."""
    scaled = x * 4**60
    below = isqrt(int(scaled))
    return Fraction(2 * below + (below**2 != scaled), 2**61)


@pytest.mark.parametrize("shift", [-7, -6, -1, 0, 3])
def test_an_operation_of_six_bits_rounds_once(shift):
    significands = 1 + np.arange(32) / 32
    x, y = Six(significands[:, None]), Six(-significands * 2.0**shift)
    pairs = [[(Fraction(a), Fraction(b)) for b in y.values] for a in x.values[:, 0]]
    for got, exact in (
        (x + y, lambda a, b: a + b),
        (x - y, lambda a, b: a - b),
        (x * y, lambda a, b: a * b),
        (x / y, lambda a, b: a / b),
        (np.sqrt(-y) + 0 * x, lambda a, b: root(-b)),
    ):
        assert got.values.tolist() == [[rounded(exact(a, b)) for a, b in row] for row in pairs]
    assert (x + 0.1).values.tolist() == (x + Six(rounded(Fraction(0.1)))).values.tolist()


def test_a_start_lies_in_the_domain_of_the_theorems():
    for h, _ in (start for expected in EXPECTED.values() for start in expected.starts):
        assert h["learning_rate"] * h.get("weight_decay", 0) <= 0.2
        assert all(beta > 0.5 for beta in (*h.get("betas", ()), *(h[name] for name in ("alpha", "rho") if name in h)))


# What a false model shows.


@dataclass(frozen=True)
class Slack(Format):
    """A format whose model grants an operation another multiple of the unit roundoff."""

    slack: float = 1.0

    @property
    def roundoff(self) -> float:
        return self.slack * 2.0**-self.precision

    @property
    def underflow(self) -> float:
        return self.slack * self.flush


def with_slack(form: Format, slack: float) -> Format:
    return Slack(form.name, form.precision, form.emax, form.flush, slack)


def without_rounding(rule: str) -> type[Rounded]:
    """A model in which one rule carries the radii on and forgets to add the rounding."""

    def forgetful(n, *operands):
        ball = getattr(Rounded(with_slack(n.form, 0), Double()), rule)(*operands)
        return Ball(n, ball.centre, ball.radius)

    return type("Forgetful", (Rounded,), {rule: forgetful})


def test_the_operations_need_the_unit_roundoff_and_not_the_factor():
    def outside(slack):
        return {name for name, seen in operations(with_slack(E4M3, slack)).items() if seen["outside"]}

    assert outside(1.0) == set()
    assert outside(0.9) == {"sum", "difference", "product", "quotient", "root"}


@pytest.mark.parametrize(
    ("rule", "names"),
    [("sum", {"sum", "difference"}), ("product", {"product"}), ("quotient", {"quotient"}), ("sqrt", {"root"})],
)
def test_an_operation_whose_rule_forgets_the_rounding_is_seen(rule, names):
    seen = operations(model=without_rounding(rule))
    assert {name for name, row in seen.items() if row["outside"]} == names


@pytest.mark.norm("interval.slack", "interval.inside")
def test_without_the_factor_the_order_of_the_model_stays_inside_and_orders_above_1_do_not():
    own, other = "plain Lion", ("Lion by interpolation", "Lion w − λ(x + κw)")
    seen = counted([own, *other], with_slack(SIX, 1.0))
    assert seen[own].record()["outside"] == 0
    assert all(seen[name].record()["outside"] > 0 for name in other)
    assert all(row.record()["outside"] == 0 for row in counted([own, *other]).values())


@pytest.mark.parametrize(
    ("rule", "name"), [("sum", "plain SGD"), ("product", "plain RMSprop"), ("product", "plain Lion")]
)
def test_a_step_whose_rule_forgets_the_rounding_is_seen(rule, name):
    assert counted([name], model=without_rounding(rule))[name].record()["outside"] > 0
