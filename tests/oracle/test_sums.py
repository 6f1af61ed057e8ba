"""Sums of balls: what adding in any order may give lies in the ball of the model.

The exact sums, and the floats that a program adds, are fractions; a format rounds them by a function of this module.
Only the balls are of the code under test.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from fractions import Fraction

import numpy as np
import pytest

from mlx_optimizers.oracle import Ball, Exact, Rounded, format_of
from mlx_optimizers.oracle.exact import Double
from mlx_optimizers.oracle.formats import Format
from tests.support import require

FORMATS = {"float16": (11, -14, 15), "bfloat16": (8, -126, 127), "float32": (24, -126, 127)}
"""Bits of the significand, exponents of the smallest normal number and of the largest binade."""

every_format = pytest.mark.parametrize("dtype", FORMATS)

Round = Callable[[Fraction], Fraction]
Order = Callable[[list[Fraction], Round, np.random.Generator], Fraction]


def model(dtype: str, *, exact: bool = True) -> Rounded:
    if dtype == "bfloat16":
        require("ml_dtypes")
    return Rounded(format_of(dtype), Exact() if exact else Double())


def unit(dtype: str) -> tuple[Fraction, Fraction]:
    """IEEE's h, and the threshold below which a result is rounded absolutely: flushed to zero, but in float16."""
    precision, least, _ = FORMATS[dtype]
    return Fraction(2) ** -precision, Fraction(2) ** (-25 if dtype == "float16" else least)


def rounding(dtype: str, way: Callable[[Fraction], int] = round) -> Round:
    """Round to a format, by default to nearest, ties to even; ``math.floor`` and ``math.ceil`` direct it."""
    precision, least, _ = FORMATS[dtype]

    def rounded(x: Fraction) -> Fraction:
        if x == 0:
            return x
        exponent = abs(x.numerator).bit_length() - x.denominator.bit_length()
        exponent -= abs(x) < Fraction(2) ** exponent
        step = Fraction(2) ** (max(exponent, least) - precision + 1)
        return way(x / step) * step

    return rounded


def flushing(dtype: str) -> Round:
    """Round to nearest, and take what is subnormal for zero."""
    nearest, least = rounding(dtype), Fraction(2) ** FORMATS[dtype][1]
    return lambda x: nearest(x) if abs(nearest(x)) >= least else Fraction(0)


def adversary(dtype: str, sign: int) -> Round:
    """Move each result as far as IEEE's bound allows, always in one direction."""
    h, eta = unit(dtype)
    return lambda x: x + sign * (h * abs(x) + eta)


def one_by_one(terms: list[Fraction], add: Round, rng: np.random.Generator) -> Fraction:
    total = terms[0]
    for term in terms[1:]:
        total = add(total + term) if total and term else total + term
    return total


def pairwise(terms: list[Fraction], add: Round, rng: np.random.Generator) -> Fraction:
    if len(terms) == 1:
        return terms[0]
    left, right = (pairwise(part, add, rng) for part in (terms[: len(terms) // 2], terms[len(terms) // 2 :]))
    return add(left + right) if left and right else left + right


def any_tree(terms: list[Fraction], add: Round, rng: np.random.Generator) -> Fraction:
    left = list(terms)
    while len(left) > 1:
        one, other = (left.pop(int(rng.integers(len(left)))) for _ in range(2))
        left.append(add(one + other) if one and other else one + other)
    return left[0]


def lanes(terms: list[Fraction], add: Round, rng: np.random.Generator) -> Fraction:
    return one_by_one([one_by_one(terms[lane::4], add, rng) for lane in range(min(4, len(terms)))], add, rng)


ORDERS: dict[str, Order] = {
    "one by one": one_by_one,
    "from the end": lambda terms, add, rng: one_by_one(terms[::-1], add, rng),
    "the smallest first": lambda terms, add, rng: one_by_one(sorted(terms, key=abs), add, rng),
    "the largest first": lambda terms, add, rng: one_by_one(sorted(terms, key=abs)[::-1], add, rng),
    "the negative first": lambda terms, add, rng: one_by_one(sorted(terms), add, rng),
    "pairwise": pairwise,
    "four lanes": lanes,
    "any tree": any_tree,
}


def drawn(dtype: str, rng: np.random.Generator, count: int, kind: str) -> list[Fraction]:
    """Draw floats of a format."""
    _, least, _ = FORMATS[dtype]
    if kind == "cancelling":
        half = rng.uniform(1, 2, count)
        values = np.where(np.arange(count) % 2, half, -np.roll(half, 1) * (1 + 2.0**-6 * rng.uniform(-1, 1, count)))
    elif kind == "wide":
        values = rng.uniform(1, 2, count) * 2.0 ** rng.integers(-10, 5, count) * rng.choice([-1, 1], count)
    elif kind == "subnormal":
        values = rng.uniform(-4, 4, count) * 2.0**least
    else:
        values = rng.uniform(1, 2, count)
    values[rng.random(count) < (0.3 if kind == "zeros" else 0)] = 0.0
    return list(map(rounding(dtype), map(Fraction, values.tolist())))


KINDS = ("positive", "cancelling", "wide", "subnormal", "zeros")
COUNTS = (1, 2, 3, 5, 16, 100)


def held(n: Rounded, ball: Ball) -> tuple[Fraction, Fraction | None]:
    """Centre and radius of a ball of one number as fractions; None for a radius that is infinite."""
    (centre,), (radius,) = ball.centre.values.reshape(-1), ball.radius.reshape(-1)
    middle = Fraction(n.centre.text(centre, 2000)) if isinstance(n.centre, Exact) else Fraction(float(centre))
    return middle, Fraction(float(radius)) if math.isfinite(radius) else None


def balls(n: Rounded, centres: list[Fraction], radii: list[Fraction] | None = None) -> Ball:
    """Make balls of fractions that are doubles."""
    made = n.centre.array(np.array([float(x) for x in centres]))
    return Ball(n, made, np.array([float(r) for r in radii or [Fraction(0)] * len(centres)]))


def sums(dtype: str, seed: int) -> Iterator[tuple[list[Fraction], Fraction, Fraction]]:
    """Draw terms, each with its exact sum and the radius of the model's ball, whose centre is that sum."""
    n, rng = model(dtype), np.random.default_rng(seed)
    for kind in KINDS:
        for count in COUNTS:
            terms = drawn(dtype, rng, count, kind)
            with n.active():
                centre, radius = held(n, n.total(balls(n, terms)))
            assert centre == sum(terms)
            assert radius is not None
            yield terms, centre, radius


@pytest.mark.norm("interval.total", "interval.sums")
@every_format
@pytest.mark.parametrize("order", ORDERS)
def test_a_sum_in_any_order_is_in_its_ball(dtype, order):
    rng, used = np.random.default_rng(1), 0.0
    for terms, exact, radius in sums(dtype, 2):
        ways = [rounding(dtype)] + ([] if dtype == "float16" else [flushing(dtype)])
        if len(terms) < 4:  # directed, a rounding counts twice
            ways += [rounding(dtype, math.floor), rounding(dtype, math.ceil)]
        for add in ways:
            off = abs(ORDERS[order](terms, add, rng) - exact)
            assert off <= radius
            used = max(used, float(off / radius) if radius else 0.0)
    assert used > 0.05, "the attack comes near"


@pytest.mark.norm("interval.total", "interval.sums")
@every_format
@pytest.mark.parametrize("sign", [1, -1])
def test_every_rounding_may_take_all_that_ieee_allows_it(dtype, sign):
    """Where all roundings of n positive terms are h and in one direction, two thirds of the radius are used."""
    rng, used = np.random.default_rng(3), 0.0
    for terms, exact, radius in sums(dtype, 4):
        for order in ORDERS.values():
            off = abs(order(terms, adversary(dtype, sign), rng) - exact)
            assert off <= radius
            used = max(used, float(off / radius) if radius else 0.0)
    assert used > 0.3


@pytest.mark.norm("interval.sums")
@every_format
def test_terms_that_are_off_already_stay_inside(dtype):
    n, rng = model(dtype), np.random.default_rng(5)
    for kind in KINDS:
        for count in COUNTS[1:]:
            floats = drawn(dtype, rng, count, kind)
            off = [abs(x) * Fraction(float(rng.choice([0, 2.0**-20, 0.25, 1]))) for x in floats]
            centres = [Fraction(float(x + r * rng.choice([-1, 1]))) for x, r in zip(floats, off, strict=True)]
            radii = [abs(c - x) for c, x in zip(centres, floats, strict=True)]
            radii = [Fraction(math.nextafter(float(r), math.inf)) if r else r for r in radii]
            with n.active():
                centre, radius = held(n, n.total(balls(n, centres, radii)))
            assert radius is not None
            for order in ORDERS.values():
                for add in (rounding(dtype), adversary(dtype, 1), adversary(dtype, -1)):
                    assert abs(order(floats, add, rng) - centre) <= radius


@pytest.mark.norm("interval.sums")
@every_format
def test_a_fused_multiply_add_of_squares_stays_inside(dtype):
    n, rng = model(dtype), np.random.default_rng(6)
    for count in COUNTS[1:]:
        floats = drawn(dtype, rng, count, "wide")
        with n.active():
            centre, radius = held(n, n.total(balls(n, floats) ** 2))
        squares = [x * x for x in floats]
        assert centre == sum(squares)
        assert radius is not None
        for nearest in (rounding(dtype), adversary(dtype, 1), adversary(dtype, -1)):
            total = nearest(squares[0])
            for square in squares[1:]:
                total = nearest(total + square)  # of which the square is not rounded
            assert abs(total - centre) <= radius
            for order in ORDERS.values():
                assert abs(order([nearest(square) for square in squares], nearest, rng) - centre) <= radius


@pytest.mark.norm("interval.sums")
@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_a_sum_in_a_wider_format_with_one_rounding_more_stays_inside(dtype):
    rng, nearest = np.random.default_rng(7), rounding(dtype)
    for terms, exact, radius in sums(dtype, 8):
        for order in ORDERS.values():
            assert abs(nearest(order(terms, rounding("float32"), rng)) - exact) <= radius
            if len(terms) > 1:
                assert abs(adversary(dtype, 1)(order(terms, adversary(dtype, 1), rng)) - exact) <= radius


@pytest.mark.norm("interval.total")
@every_format
@pytest.mark.parametrize("exact", [True, False])
def test_the_radius_is_that_of_the_guide(dtype, exact):
    n, (h, eta) = model(dtype, exact=exact), unit(dtype)
    u, eta = h * 3 / 2, eta * 3 / 2
    own = 1e-8 if dtype == "float32" and not exact else 1e-12  # relative: what float64 centres and radii add
    for terms, radii in (
        ([1, 2], [0, 0]),
        ([1, -2, 3], [0, 0, 0]),
        ([1, -2, 3, 0], [Fraction(1, 4), Fraction(1, 2), 0, 1]),
        ([5] * 50, [Fraction(1, 8)] * 50),
    ):
        count, reach = len(terms), sum(abs(x) + r for x, r in zip(terms, radii, strict=True))
        expected = sum(radii) + count * (u * reach + eta) / (1 - count * u)
        with n.active():
            _, radius = held(n, n.total(balls(n, list(map(Fraction, terms)), list(map(Fraction, radii)))))
        assert radius is not None
        assert float(expected) <= float(radius) == pytest.approx(float(expected), rel=own)


@pytest.mark.norm("interval.own-rounding")
def test_a_radius_grows_by_its_own_rounding_once_a_term():
    """In a format so fine that nothing else is added."""
    n = Rounded(Format("fine", 200, 1000, 0.0), Exact())
    with n.active():
        _, radius = held(n, n.total(balls(n, [Fraction(1)] * 64, [Fraction(1)] * 64)))
    assert 64 * (1 + 64 * 4 * 2.0**-53) <= radius <= 64 * (1 + 66 * 4 * 2.0**-53)


@pytest.mark.norm("interval.total-count")
@every_format
def test_zeros_are_not_counted_and_one_term_is_not_rounded(dtype):
    n = model(dtype)
    with n.active():
        for zeros in (0, 1, 500):
            assert held(n, n.total(balls(n, [Fraction(0)] * zeros + [Fraction(3)]))) == (3, 0)
            assert held(n, n.total(balls(n, [Fraction(0)] * (zeros + 1)))) == (0, 0)
            _, radius = held(n, n.total(balls(n, [Fraction(0)] * zeros + [Fraction(3), Fraction(1)])))
            _, alone = held(n, n.total(balls(n, [Fraction(3), Fraction(1)])))
            assert float(radius) == pytest.approx(float(alone), rel=1e-12), "but for the rounding of radii"
        (_, alone) = held(n, n.total(balls(n, [Fraction(3), Fraction(0)], [Fraction(1, 2), Fraction(0)])))
        assert float(alone) == pytest.approx(0.5, rel=1e-12)
        uncertain = held(n, n.total(balls(n, [Fraction(3), Fraction(0)], [Fraction(0), Fraction(1, 2)])))[1]
        assert uncertain is not None and uncertain > Fraction(1, 2), "what may be another number is counted"


@pytest.mark.norm("interval.total-terms", "interval.untested")
@pytest.mark.parametrize(("dtype", "first"), [("bfloat16", 171), ("float16", 1366)])
def test_from_so_many_terms_on_there_is_no_bound(dtype, first):
    assert (first - 1) * unit(dtype)[0] * Fraction(3, 2) < 1 <= first * unit(dtype)[0] * Fraction(3, 2)
    n, rng = model(dtype), np.random.default_rng(9)
    with n.active():
        assert held(n, n.total(balls(n, [Fraction(1)] * first)))[1] is None
        terms = drawn(dtype, rng, first - 1, "positive")
        centre, radius = held(n, n.total(balls(n, terms)))
    assert radius is not None
    for order in ORDERS.values():
        for add in (rounding(dtype), adversary(dtype, 1), adversary(dtype, -1)):
            assert abs(order(terms, add, rng) - centre) <= radius


@pytest.mark.norm("interval.total-terms")
def test_in_float32_eleven_million_terms_have_a_bound_and_a_few_more_have_none():
    first = 11_184_811
    assert (first - 1) * unit("float32")[0] * Fraction(3, 2) < 1 <= first * unit("float32")[0] * Fraction(3, 2)
    n = model("float32", exact=False)
    for count, known in ((first - 10, True), (first, False)):
        total = n.total(Ball(n, n.centre.array(np.ones(count)), np.zeros(count)))
        assert np.isfinite(total.radius[0]) == known


@pytest.mark.norm("interval.total-overflow", "interval.untested")
@every_format
def test_no_partial_sum_overflows_where_the_radius_is_finite_and_some_do_where_it_is_not(dtype):
    precision, _, greatest = FORMATS[dtype]
    largest = (2 - Fraction(2) ** (1 - precision)) * Fraction(2) ** greatest
    n, rng = model(dtype), np.random.default_rng(10)
    partial: list[Fraction] = []

    def watched(add: Round) -> Round:
        def noted(x: Fraction) -> Fraction:
            partial.append(abs(add(x)))
            return add(x)

        return noted

    for count in (2, 3, 100, 170):
        below = Fraction(2) ** greatest / count * Fraction(127, 128)
        terms = [rounding(dtype, math.floor)(below) * sign for sign in rng.choice([-1, 1], count).tolist()]
        for signed in (terms, list(map(abs, terms))):
            with n.active():
                assert held(n, n.total(balls(n, signed)))[1] is not None
            for order in ORDERS.values():
                for sign in (1, -1):
                    order(signed, watched(adversary(dtype, sign)), rng)
    assert max(partial) < largest
    above = Fraction(2) ** greatest
    with n.active():
        assert held(n, n.total(balls(n, [above, above, -above])))[1] is None
    assert abs(one_by_one([above, above, -above], watched(rounding(dtype)), rng)) == above
    assert max(partial) > largest, "where the exact sum does not"


@pytest.mark.norm("interval.mean", "interval.mean-division")
@every_format
@pytest.mark.parametrize("kind", KINDS)
def test_a_mean_by_the_reciprocal_or_by_a_division_is_in_its_ball(dtype, kind):
    n, rng = model(dtype), np.random.default_rng(11)
    for count in (*COUNTS, 150):
        terms = drawn(dtype, rng, count, kind)
        with n.active():
            centre, radius = held(n, n.mean(balls(n, terms)))
        assert radius is not None
        assert abs(centre - sum(terms) / count) <= abs(centre) * Fraction(2) ** -190
        for fl in (rounding(dtype), adversary(dtype, 1), adversary(dtype, -1)):
            for order in ORDERS.values():
                total = order(terms, fl, rng)
                for number in (Fraction(count), fl(Fraction(count))):
                    for mean in (fl(total * fl(1 / number)), fl(total / number)):
                        assert total == 0 or abs(mean - centre) <= radius


@pytest.mark.norm("interval.mean")
def test_zeros_are_among_the_elements_of_a_mean():
    n = model("float32")
    with n.active():
        centre, radius = held(n, n.mean(balls(n, [Fraction(3), Fraction(0), Fraction(0), Fraction(0)])))
        product = n.array(np.float32([3])) * n.ball(n.number(0.25))
        assert (centre, radius) == (Fraction(3, 4), held(n, product)[1])


@pytest.mark.norm("interval.total")
def test_a_sum_along_an_axis_is_the_sum_of_each_row():
    n, rng = model("float32"), np.random.default_rng(12)
    values, radii = rng.uniform(-1, 1, (3, 4)), rng.uniform(0, 1, (3, 4))
    with n.active():
        ball = Ball(n, n.centre.array(values), radii)
        for axis, lines in ((-1, range(3)), (-2, range(4))):
            total = n.total(ball, axis)
            for line in lines:
                part = np.s_[line] if axis == -1 else np.s_[:, line]
                alone = n.total(Ball(n, n.centre.array(values[part]), radii[part]))
                assert total.radius[line] == alone.radius[0]
                assert abs(total.centre.values[line] - alone.centre.values[0]) < 2.0**-150
        assert n.total(ball, -1, keep=True).radius.shape == (3, 1)
        assert n.total(ball).radius.shape == (1,)
