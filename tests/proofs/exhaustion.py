"""Proof by exhaustion: formats so small that every case can be computed.

The theorems of the guide on the interval stand on two steps that are no algebra: that IEEE rounding stays within
h·|z| + η, and that what holds for each statement holds for a whole step. Here both are computed for every number of a
small format, and the balls are the package's own. What is held to them is not: the rounded results of the 8-bit float
come from a search in the table of its numbers, in integers, and the programs are those of tests/programs.py.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import numpy as np

from mlx_optimizers.kinds import Hyperparameters
from mlx_optimizers.oracle import Ball, Double, Rounded
from mlx_optimizers.oracle.exact import Array
from mlx_optimizers.oracle.formats import Format
from mlx_optimizers.oracle.formulas import parse
from mlx_optimizers.oracle.trajectory import settings
from tests.expected import EXPECTED
from tests.programs import COVERED, right_programs

RIGHT = right_programs()


@dataclass
class Count:
    """What was seen of some results and their balls.

    Args:
        cases: The results.
        outside: Those that are outside of their ball.
        untested: Those whose ball has an infinite radius.
        greatest: The greatest error ratio, error over radius.
    """

    cases: int = 0
    outside: int = 0
    untested: int = 0
    greatest: float = 0.0

    def hold(self, ball: Ball, got: Any) -> None:
        """Hold results to balls, elementwise."""
        with np.errstate(all="ignore"):
            error = np.abs(got - ball.centre.values)
            ratio = np.where(error == 0, 0.0, error / ball.radius)
        tested = np.broadcast_to(np.isfinite(ball.radius), ratio.shape)
        self.cases += ratio.size
        self.untested += int(np.count_nonzero(~tested))
        self.outside += int(np.count_nonzero(tested & ~(ratio <= 1)))  # NaN too
        self.greatest = max(self.greatest, float(np.max(ratio, initial=0.0, where=tested)))

    def add(self, other: Count) -> None:
        """Add what another has seen."""
        self.cases += other.cases
        self.outside += other.outside
        self.untested += other.untested
        self.greatest = max(self.greatest, other.greatest)


# Operations: every pair of an 8-bit float.

E4M3 = Format("E4M3", 4, 7, 2.0**-10)
"""An IEEE format of 8 bits, four of them exponent and three fraction, with gradual underflow and infinities."""

UNIT = 2.0**-9
"""Its smallest subnormal number; the others are multiples."""

SIZES = [p if p < 8 else (8 + p % 8) << (p // 8 - 1) for p in range(121)]
"""The magnitudes by their bit patterns, in units. The last would be the next number, and stands for infinity."""

FLOATS = [-size for size in SIZES[119:0:-1]] + SIZES[:120]
"""Every finite number, in units."""


def nearest(top: int, bottom: int, root: int = 1) -> float:
    """Find the number of E4M3 nearest to a quotient of integers in units, or to its root; ties to the even pattern."""
    if bottom < 0:
        top, bottom = -top, -bottom
    size = abs(top)
    above = bisect_left(SIZES, size, key=lambda x: x**root * bottom)
    if above == len(SIZES):
        found = float("inf")
    else:
        middle = (SIZES[above] + SIZES[above - 1]) ** root * bottom  # twice the middle, to the power
        up = above == 0 or 2**root * size > middle or (2**root * size == middle and above % 2 == 0)
        pattern = above if up else above - 1
        found = SIZES[pattern] * UNIT if pattern < 120 else float("inf")
    return -found if top < 0 else found


def _quotient(x: int, y: int) -> float:
    return nearest(x * 512, y) if y else float("nan")


BINARY: dict[str, tuple[Callable[..., Any], Callable[[int, int], float]]] = {
    "sum": (lambda n, a, b: a + b, lambda x, y: nearest(x + y, 1)),
    "difference": (lambda n, a, b: a - b, lambda x, y: nearest(x - y, 1)),
    "product": (lambda n, a, b: a * b, lambda x, y: nearest(x * y, 512)),
    "quotient": (lambda n, a, b: a / b, _quotient),
    "maximum": (lambda n, a, b: n.max(a, b), lambda x, y: max(x, y) * UNIT),
}
"""The operations of two operands: the ball, and the rounded result from integers, in units of which 512 are 1."""

UNARY: dict[str, tuple[Callable[..., Any], Callable[[int], float]]] = {
    "root": (lambda n, a: n.sqrt(a), lambda x: nearest(x * 512, 1, 2)),
    "magnitude": (lambda n, a: n.abs(a), lambda x: abs(x) * UNIT),
    "sign": (lambda n, a: n.sign(a), lambda x: float((x > 0) - (x < 0))),
}


def around(values: Any) -> Iterator[tuple[Any, Any]]:
    """Yield the centres and radii of balls that hold each value, the ball of radius 0 first.

    The radii are 0, what one operation adds to an exact result, nearly the value, and more than twice the value, and
    the value is at the middle and at both ends of the ball: its centre is a number of the format only by chance.
    """
    size = np.abs(values)
    yield values, 0 * size
    for radius in (E4M3.roundoff * size + E4M3.underflow, 7 / 8 * size, 2 * size + 1):
        for shift in (-1, 0, 1):
            yield values + shift * radius, radius


def operation(name: str, n: Rounded) -> tuple[Count, Count]:
    """Hold every result of an operation to the balls of its operands: to those of radius 0, and to all."""
    exact, every = Count(), Count()
    if name in UNARY:
        ball_of, result = UNARY[name]
        values = [x for x in FLOATS if x >= 0 or name != "root"]
        got = np.array([result(x) for x in values])
        for index, (x, r) in enumerate(around(np.array(values) * UNIT)):
            there = (x >= 0) | (name != "root")  # a centre below zero has no root
            every.hold(ball := ball_of(n, Ball(n, Array(n.centre, x[there]), r[there])), got[there])
            if index == 0:
                exact.hold(ball, got)
        return exact, every
    ball_of, result = BINARY[name]
    values = np.array(FLOATS) * UNIT
    got = np.array([[result(x, y) for y in FLOATS] for x in FLOATS])
    for i, (x, r) in enumerate(around(values[:, None])):
        for j, (y, s) in enumerate(around(values)):
            every.hold(ball := ball_of(n, Ball(n, Array(n.centre, x), r), Ball(n, Array(n.centre, y), s)), got)
            if i == j == 0:
                exact.hold(ball, got)
    return exact, every


def operations(form: Format = E4M3, model: type[Rounded] = Rounded) -> dict[str, Any]:
    """Count the results of each operation over every number, or every pair of numbers, of E4M3.

    ``greatest`` is the greatest error ratio where the operands have the radius 0. In the other balls it is 1 where an
    operand at the edge of its ball takes the result to the edge, and nothing is rounded.
    """
    out = {}
    for name in (*BINARY, *UNARY):
        with (n := model(form, Double())).active():
            exact, every = operation(name, n)
        out[name] = {
            "format": E4M3.name,
            "cases": every.cases,
            "outside": every.outside,
            "untested": every.untested,
            "greatest": round(exact.greatest, 3),
            "greatest_in_balls": round(every.greatest, 3),
        }
    return out


# Steps: all significands of a 6-bit format.

SIX = Format("6 bits", 6, 1000, 0.0)
"""A format of 6 bits of significand whose exponents have no end here: nothing underflows or overflows."""


def in_six_bits(values: Any) -> Any:
    """Round float64 to 6 significant bits, ties to even: half a place is added, then 47 of the 53 bits go."""
    bits = np.atleast_1d(np.float64(values)).view(np.int64)
    return ((bits + ((1 << 46) - 1) + (bits >> 47 & 1)) >> 47 << 47).view(np.float64)


class Six(np.lib.mixins.NDArrayOperatorsMixin):
    """An array of 6-bit floats, whose operations round once, in NumPy's own arithmetic.

    Each operation is computed in float64 and rounded again. For + − × ÷ √ that is the correct rounding, since
    53 ≥ 2·6 + 2 (Figueroa, "When is double rounding innocuous?", 1995). A Python number that meets an array is rounded
    first.
    """

    def __init__(self, values: Any) -> None:
        self.values = in_six_bits(values)

    @property
    def dtype(self) -> SimpleNamespace:
        return SimpleNamespace(type=Six)

    def __array__(self, dtype: Any = None, copy: Any = None) -> Any:
        return self.values

    def __array_ufunc__(self, ufunc: Any, method: str, *inputs: Any) -> Six:
        return Six(ufunc(*(x.values if isinstance(x, Six) else in_six_bits(x) for x in inputs)))


def inputs(optimizer: str, exponents: Sequence[int]) -> list[Any]:
    """Make the parameter, gradient and slots: zero and all 32 significands of each, every one with every other.

    Each lies along an axis of its own. The parameter, and the slots that change their sign with it, have both signs.
    The gradient is not negative: negating all that have a sign negates the step.
    """
    significands = np.concatenate([[0.0], 1 + np.arange(32) / 32])
    names = ("w", "g", *EXPECTED[optimizer].slots)
    out = []
    for axis, (name, exponent) in enumerate(zip(names, exponents, strict=True)):
        values = significands * 2.0**exponent
        if name in EXPECTED[optimizer].odd:
            values = np.concatenate([-values[:0:-1], values])
        out.append(values.reshape([-1 if axis == i else 1 for i in range(len(names))]))
    return out


def numbers(n: Rounded, values: Mapping[str, Any]) -> Hyperparameters:
    """Make hyperparameters numbers of the model; switches stay."""

    def number(x: Any) -> Any:
        return tuple(map(n.number, x)) if isinstance(x, tuple) else x if isinstance(x, bool) else n.number(x)

    return Hyperparameters(**{name: number(value) for name, value in values.items()})


OWN = {
    **{name: f"plain {name}" for name in EXPECTED},
    "BiasCorrectedAdam": "corrected Adam m̂/(√v̂ + ε)",
    "BiasCorrectedAdamW": "corrected AdamW",
}
"""The program of each class that computes in the model's own order."""


@dataclass
class Steps:
    """What was seen of the steps of a program: of the parameters after them, and of the slots.

    ``narrow`` counts the parameters whose radius is below half of the exact step.
    """

    parameter: Count = field(default_factory=Count)
    state: Count = field(default_factory=Count)
    narrow: int = 0

    def add(self, other: Steps) -> None:
        """Add what another has seen."""
        self.parameter.add(other.parameter)
        self.state.add(other.state)
        self.narrow += other.narrow

    def record(self) -> dict[str, Any]:
        """Write it as plain numbers."""
        w = self.parameter
        return {
            "steps": w.cases,
            "outside": w.outside + self.state.outside,
            "tested": round(1 - w.untested / w.cases, 3),
            "narrow": round(self.narrow / w.cases, 3),
            "greatest": round(w.greatest, 3),
            "greatest_state": round(self.state.greatest, 3),
        }


def counted(names: Iterable[str], form: Format = SIX, model: type[Rounded] = Rounded) -> dict[str, Steps]:
    """Take the steps of right programs from every start of their optimizers, and hold them to the model's balls.

    A start is at the step t of its number, from a state of any significands.
    """
    claims: dict[str, list[str]] = {}
    for name in names:
        optimizer, program = RIGHT[name]
        claims.setdefault(program.claim(optimizer), []).append(name)
    n, out = model(form, Double()), {name: Steps() for name in names}
    for claim, claiming in claims.items():
        formula = parse(claim)
        optimizer = formula.optimizer.__name__
        for t, (given, exponents) in enumerate(EXPECTED[optimizer].starts, start=1):
            chosen = settings(formula.optimizer, given, 1)[0]
            w, *others = inputs(optimizer, exponents)
            for values in ((part, *others) for part in np.array_split(w, 5)):  # which is kinder to memory
                balls = [Ball(n, Array(n.centre, x), np.zeros_like(x)) for x in values]
                with n.active():
                    held = formula.exact(n, numbers(n, chosen), t, *balls)
                narrow = int(np.count_nonzero(held[0].radius < abs(held[0].centre.values - values[0]) / 2))
                for name in claiming:
                    seen, got = out[name], RIGHT[name][1].step(SimpleNamespace(**chosen), t, *map(Six, values))
                    seen.narrow += narrow
                    seen.parameter.hold(held[0], got[0].values)
                    for ball, slot in zip(held[1:], got[1:], strict=True):
                        seen.state.hold(ball, slot.values)
    return out


def steps() -> dict[str, Any]:
    """Count steps over all significands of 6 bits, by published order, and by optimizer in the model's own order."""
    seen = counted(RIGHT)
    orders = {}
    for order, names in COVERED.items():
        total = Steps()
        for name in names:
            total.add(seen[name])
        orders[order] = {"programs": len(names), **total.record()}
    optimizers = {}
    for name, own in OWN.items():
        optimizers[name] = {"starts": len(EXPECTED[RIGHT[own][0]].starts), **seen[own].record()}
    return {"orders": orders, "optimizers": optimizers}
