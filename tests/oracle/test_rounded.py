"""The rounding model: what a backend may compute lies in the ball, operation by operation."""

from __future__ import annotations

import math

import numpy as np
import pytest

from mlx_optimizers.oracle import Ball, Exact, Rounded, format_of
from mlx_optimizers.oracle.exact import Array, Double
from mlx_optimizers.oracle.formats import FORMATS, Format

COUNT = 100_000

SETUPS = [
    ("float32", "double centres"),
    ("float32", "exact centres"),
    ("float16", "double centres"),
    ("bfloat16", "double centres"),
    ("float64", "exact centres"),
]


def _model(dtype, centres):
    if dtype == "bfloat16":
        pytest.importorskip("ml_dtypes")
    return Rounded(format_of(dtype), Double() if centres == "double centres" else Exact())


def _floats(rng, form):
    """Draw numbers of a format: every exponent, subnormals, zeros, powers of two."""
    patterns = rng.integers(0, (1 << form.width) - 1, COUNT, np.uint64, endpoint=True).astype(f"u{form.width // 8}")
    values = patterns.view(form.dtype).copy()
    with np.errstate(invalid="ignore"):  # signalling NaNs among the patterns
        values[~np.isfinite(values.astype(np.float64))] = 1.5
    near = rng.integers(0, COUNT, COUNT // 3)  # exponents next to each other, so that sums cancel
    values[near] = (rng.uniform(1, 2, near.size) * rng.choice([-1, 1], near.size)).astype(form.dtype)
    values[rng.integers(0, COUNT, COUNT // 50)] = 0.0
    subnormal = rng.integers(0, COUNT, COUNT // 50)
    values[subnormal] = (rng.uniform(-1, 1, subnormal.size) * form.tiny).astype(form.dtype)
    return values


def _ball(rng, n, values):
    """Draw a ball around somewhere near the values, as narrow as holds them, or wider; a fifth have no radius."""
    wide = values.astype(np.float64)
    with np.errstate(all="ignore"):
        off = wide * rng.uniform(-1, 1, COUNT) * 2.0 ** rng.integers(-40, 1, COUNT)
    off[rng.integers(0, COUNT, COUNT // 5)] = 0.0
    with np.errstate(all="ignore"):
        centre = wide + off
        centre = np.where(np.isfinite(centre), centre, wide)
        radius = np.abs(centre - wide) * rng.choice([1 + 2.0**-50, 1.5, 4.0], COUNT)
    # A subnormal carries its size: as an input by rule, as a result through η.
    radius += np.where(_may_flush(n.form, wide), np.abs(wide), 0.0)
    made = n.centre.array(centre)
    return Ball(n, made, radius)


def _may_flush(form, wide):
    return (np.abs(wide) < form.tiny) & (form.name != "float16")


def _difference(n, values, centre: Array):
    """Compute |values − centre|, rounded up."""
    if isinstance(n.centre, Exact):
        with n.active(), np.errstate(over="ignore"):
            return np.abs((n.centre.array(values) - centre).values.astype(np.float64)) * (1 - 2.0**-50)
    with np.errstate(all="ignore"):
        return np.abs(values.astype(np.longdouble) - centre.values.astype(np.longdouble))


OPERATIONS = {
    "a + b": (lambda n, a, b: a + b, lambda a, b: a + b),
    "a - b": (lambda n, a, b: a - b, lambda a, b: a - b),
    "a * b": (lambda n, a, b: a * b, lambda a, b: a * b),
    "a / b": (lambda n, a, b: a / b, lambda a, b: a / b),
    "sqrt |a|": (lambda n, a, b: n.sqrt(n.abs(a)), lambda a, b: np.sqrt(np.abs(a))),
    "max(a, b)": (lambda n, a, b: n.max(a, b), np.maximum),
    "sign a": (lambda n, a, b: n.sign(a), np.sign),
    "a + a": (lambda n, a, b: a + a, lambda a, b: a + a),
    "a - a": (lambda n, a, b: a - a, lambda a, b: a - a),
    "a * a": (lambda n, a, b: a**2, lambda a, b: a * a),
    "a / a": (lambda n, a, b: a / a, lambda a, b: a / a),
    "-a": (lambda n, a, b: -a, lambda a, b: -a),
}


@pytest.mark.norm("interval.ball", "interval.subnormal", "interval.drawn")
@pytest.mark.parametrize("name", OPERATIONS)
@pytest.mark.parametrize(("dtype", "centres"), SETUPS)
def test_every_operation_contains_what_ieee_arithmetic_gives(name, dtype, centres):
    n = _model(dtype, centres)
    rng = np.random.default_rng(list(f"{name}{dtype}".encode()))
    x, y = _floats(rng, n.form), _floats(rng, n.form)
    used = [_ball(rng, n, values) for values in ((x, y) if "b" in name else (x,))]
    a, b = used[0], used[-1]
    operation, native = OPERATIONS[name]
    if "/" in name:  # the model raises, or knows nothing, where the exact divisor is zero
        divisor_zero = (b.size == 0) | ((y if "b" in name else x) == 0)
        one = n.form.dtype.type(1)
        x, y = np.where(divisor_zero, one, x), np.where(divisor_zero, one, y)
        for ball in used:
            ball.centre.values[divisor_zero] = n.centre.number(1)
            ball.radius[divisor_zero] = 0.0
        used = [Ball(n, ball.centre, ball.radius) for ball in used]  # a ball keeps its size
        a, b = used[0], used[-1]
    with n.active(), np.errstate(all="ignore"):
        ball = operation(n, a, b)
        value = native(x, y).astype(n.form.dtype)
    known = np.isfinite(ball.radius)
    assert known.mean() > 0.3, "the cases are mostly untested"
    wide = value.astype(np.float64)
    assert np.isfinite(wide[known]).all()
    off = np.zeros(COUNT, np.longdouble)
    for got, held in ((wide, known), (np.zeros(COUNT), known & _may_flush(n.form, wide))):
        off[held] = _difference(n, got[held], Array(n.centre, ball.centre.values[held]))
        bad = held & ~(off <= ball.radius)
        assert not bad.any(), (x[bad][:3], y[bad][:3], value[bad][:3], ball.radius[bad][:3], off[bad][:3])


def _one(n, x, radius=0.0):
    return Ball(n, n.centre.array([x]), np.array([radius]))


@pytest.fixture(params=["double centres", "exact centres"])
def n(request):
    n = _model("float32", request.param)
    with n.active():
        yield n


@pytest.mark.norm("interval.operation", "interval.slack")
def test_radii_are_those_of_the_model(n):
    u, eta = 1.5 * 2.0**-24, 1.5 * 2.0**-126
    own = 1e-8  # relative; what float64 centres and radii add is far below
    for got, expected in (
        (_one(n, 1.0) + _one(n, 2.0), 3 * u + eta),
        (_one(n, 1.0, 0.5) + _one(n, 2.0, 0.25), 0.75 + u * 3.75 + eta),
        (_one(n, 3.0) * _one(n, 2.0), 6 * u + eta),
        (_one(n, 3.0, 0.5) * _one(n, -2.0, 0.25), 1.875 + u * 7.875 + eta),
        (_one(n, 1.0) / _one(n, 4.0), u / 4 + eta),
        (_one(n, 1.0, 0.5) / _one(n, 4.0, 1.0), 0.25 + u * 0.5 + eta),
        (n.sqrt(_one(n, 4.0)), 2 * u + eta),
        (n.sqrt(_one(n, 4.0, 3.0)), 1 + u * 3 + eta),
        (n.sqrt(_one(n, 1.0, 1.0)), 1 + u * 2 + eta),  # √1, which is more than 1.004·√2 − √1
        (n.sqrt(_one(n, 1.0, 3.0)), 1.008 + u * 2.008 + eta),  # 1.004·√4 − √1
        (n.sqrt(_one(n, 0.0, 4.0)), 2.008 + u * 2.008 + eta),
    ):
        assert got.radius[0] == pytest.approx(expected, rel=own)


@pytest.mark.norm("interval.exact")
def test_an_exact_zero_adds_nothing(n):
    zero, x = _one(n, 0.0), _one(n, 3.0, 0.5)
    assert (zero + x).radius[0] == 0.5
    assert (x - zero).radius[0] == 0.5
    assert (zero * x).radius[0] == 0.0
    assert (zero / x).radius[0] == 0.0
    assert n.sqrt(zero).radius[0] == 0.0
    assert n.sign(zero).radius[0] == 0.0


@pytest.mark.norm("interval.exact")
def test_abs_max_and_negation_round_nothing(n):
    x, y = _one(n, -3.0, 0.5), _one(n, 2.0, 0.25)
    assert (n.abs(x).radius[0], (-x).radius[0], n.max(x, y).radius[0]) == (0.5, 0.5, 0.5)


@pytest.mark.norm("interval.sign")
def test_sign_of_a_ball_that_holds_zero_is_anything(n):
    with n.active():
        cases = ((1.0, 1.0, (0, 1)), (1.0, 0.5, (1, 0)), (-1.0, 0.5, (-1, 0)), (0.0, 1e-9, (0, 1)))
        for centre, radius, expected in cases:
            sign = n.sign(_one(n, centre, radius))
            assert (float(sign.centre.values[0]), sign.radius[0]) == expected


@pytest.mark.norm("interval.untested")
def test_what_is_not_known_stays_unknown(n):
    unknown = _one(n, 1.0, math.inf)
    zero, x = _one(n, 0.0), _one(n, 2.0)
    with n.active():
        for ball in (
            unknown * zero,
            zero * unknown,
            zero / unknown,
            unknown + zero,
            n.sqrt(unknown),
            n.sign(unknown),
            n.abs(unknown),
            n.max(unknown, x),
            -unknown,
            x / _one(n, 1.0, 1.0),  # a divisor that may be zero
            _one(n, 2.0**126) + _one(n, 2.0**126),  # reaches half of the largest binade
            _one(n, 2.0**100) * _one(n, 2.0**100),
            n.array(np.float32([math.inf])) * zero,
            n.array(np.float32([math.nan])) + x,
        ):
            assert ball.radius[0] == math.inf
        assert math.isfinite((_one(n, 2.0**125) + _one(n, 2.0**125)).radius[0])


@pytest.mark.norm("interval.untested")
def test_division_by_zero_is_unknown(n):
    with n.active():
        for above in (0.0, 1.0):
            ball = _one(n, above) / _one(n, 0.0)
            assert ball.radius[0] == math.inf
            assert math.isnan(float(ball.centre.values[0]))
            coefficient = n.number(above) / n.number(0.0)
            assert coefficient.radius == math.inf
            assert n.ball(coefficient).radius[0] == math.inf


@pytest.mark.norm("interval.subnormal")
def test_a_subnormal_input_carries_its_own_size(n):
    tiny = np.float32(2.0**-127)
    assert n.array(np.float32([tiny, 1.0, 0.0])).radius.tolist() == [float(tiny), 0.0, 0.0]


@pytest.mark.norm("interval.subnormal")
@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32", "float64"])
def test_a_subnormal_number_may_be_taken_for_zero_and_but_in_float16_a_subnormal_result_too(dtype):
    n = _model(dtype, "exact centres")
    half = n.form.tiny / 2
    assert n.array(np.array([half], n.form.dtype)).radius.tolist() == [half]
    assert ((_one(n, half) + _one(n, half / 2)).radius[0] > half * 1.5) == (dtype != "float16")


@pytest.mark.norm("interval.own-rounding")
def test_a_radius_grows_by_its_own_rounding_and_a_float64_centre_by_that_of_the_centre():
    """In a format so fine that nothing else is added."""
    fine = Format("fine", 200, 1000, 0.0)
    for centres, expected in ((Exact(), 1 + 4 * 2.0**-53), (Double(), 1 + 4 * 2.0**-53 + 4 * 2.0**-53 * (3 + 1))):
        n = Rounded(fine, centres)
        with n.active():
            assert (_one(n, 1.0, 1.0) + _one(n, 2.0)).radius[0] == expected


@pytest.mark.norm("interval.corrected-root")
@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32", "float64"])
def test_the_quotient_of_a_bias_correction_is_off_by_an_eighth_at_most_from_nine_thresholds_on(dtype):
    n = _model(dtype, "exact centres")
    nine = 9 * n.form.underflow
    least = 2.0**-80 * 2.0**-7 / 8  # of v̂ after seven zero gradients: β₂⁷(1 − β₂)/(1 − β₂⁸) is 2⁻⁷/8 or more
    assert (least > nine) == (dtype != "float16")
    assert dtype != "float16" or float(f"{nine:.0e}") == 4e-7
    with n.active():
        for c in (1e-5, 1e-3, 0.1, 1.0):
            for times, narrow in ((1.0, True), (1.5, True), (64.0, True), (7 / 9, False)):
                ball = _one(n, nine * times * c) / n.number(c)
                assert (8 * ball.radius[0] <= abs(float(ball.centre.values[0]))) == narrow, (c, times)


@pytest.mark.norm("interval.hyperparameter", "interval.profiles")
def test_a_coefficient_is_rounded_once_when_it_meets_an_array(n):
    u, eta = 1.5 * 2.0**-24, 1.5 * 2.0**-126
    x = n.array(np.float32([2.0]))
    with n.active():
        beta = n.number(0.75)
        once = u * 0.75 + eta
        assert (beta * x).radius[0] == pytest.approx(2 * once + u * (1.5 + 2 * once) + eta, rel=1e-8)
        quarter = 1 - beta
        assert quarter.radius < 2.0**-50
        assert n.ball(quarter).radius[0] == pytest.approx(u * 0.25 + eta, rel=1e-8)
        assert n.ball(n.number(0.0)).radius[0] == 0.0
        assert n.ball(1).radius[0] == 0.0


@pytest.mark.norm("interval.hyperparameter")
@pytest.mark.parametrize("dtype", FORMATS)
@pytest.mark.parametrize("scalars", ["double", "float32"])
def test_zero_is_exact_and_in_the_profile_double_of_float64_every_double_is(dtype, scalars):
    n = Rounded(format_of(dtype), Exact(), scalars)
    with n.active():
        assert n.ball(n.number(0.0)).radius[0] == 0.0
        exact = {n.ball(n.number(c)).radius[0] == 0.0 for c in (0.1, 0.75, 1e-8)}
    assert exact == {(dtype, scalars) == ("float64", "double")}


@pytest.mark.norm("interval.profiles-16-bits")
@pytest.mark.parametrize(("dtype", "unit", "threshold"), [("float16", -11, -25), ("bfloat16", -8, -126)])
@pytest.mark.parametrize(("scalars", "own"), [("double", -53), ("float32", -24)])
def test_in_16_bits_a_coefficient_is_formed_in_its_profile_and_rounded_once(dtype, unit, threshold, scalars, own):
    n = Rounded(format_of(dtype), Exact(), scalars)
    with n.active():
        rest = n.ball(1 - n.number(0.999))
    formed = 1.5 * 2.0**own  # of β and of 1 − β, which are 1 together; in double β is exact, and this is too much
    u, eta = 1.5 * 2.0**unit, 1.5 * 2.0**threshold
    most = formed + u * (0.001 + formed) + eta
    assert u * 0.001 + eta < rest.radius[0] < most * (1 + 1e-6)
    assert scalars == "double" or rest.radius[0] > most * (1 - 1e-6)


@pytest.mark.norm("interval.profiles", "interval.profiles-16-bits")
def test_float32_scalars_carry_their_own_roundings():
    n = Rounded(format_of("float32"), Exact(), scalars="float32")
    u = 1.5 * 2.0**-24
    with n.active():
        beta = n.number(0.75)
        assert beta.radius == pytest.approx(0.75 * u)
        assert (1 - beta).radius == pytest.approx(0.75 * u + 0.25 * u, rel=1e-6)
        assert (beta**4).radius == pytest.approx(8 * u * 0.75**4)
        assert n.ball(beta).radius[0] == pytest.approx(0.75 * u)
        half = Rounded(format_of("float16"), Exact(), scalars="float32")
        assert half.ball(half.number(0.75)).radius[0] == pytest.approx(0.75 * (u + 1.5 * 2.0**-11), rel=1e-3)


@pytest.mark.norm("interval.coefficients", "interval.profiles")
@pytest.mark.parametrize("scalars", ["double", "float32"])
def test_coefficients_contain_what_a_backend_forms(scalars):
    """β, 1−β, βᵗ, 1/(1−βᵗ), its root, λκ: formed in the profile's own arithmetic, 2,000 random draws."""
    rng = np.random.default_rng(5)
    real = np.float64 if scalars == "double" else np.float32
    n = Rounded(format_of("float32"), Exact(), scalars=scalars)
    with n.active():
        for _ in range(2000):
            b, rate, t = rng.uniform(0.5, 1), rng.uniform(0, 1), int(rng.integers(1, 9))
            x, y = real(b), real(rate)
            beta, lam = n.number(b), n.number(rate)
            one = real(1)
            power = real(x**t)
            for model, backend in (
                (beta, x),
                (1 - beta, one - x),
                (beta**t, power),
                (1 - beta**t, one - power),
                (1 / (1 - beta**t), one / (one - power)),
                (n.sqrt(1 - beta**t), np.sqrt(one - power)),
                (lam / (1 - beta**t), y / (one - power)),
                (lam * beta, y * x),
                (beta + lam, x + y),
                (lam - beta, y - x),
            ):
                assert abs(float(model.value - n.exact.number(float(backend)))) <= model.radius or (
                    scalars == "double" and model is beta
                )


@pytest.mark.norm("interval.decay-factor")
def test_decay_is_formed_in_the_arrays_format_in_both_profiles():
    u = 1.5 * 2.0**-24
    for scalars in ("double", "float32"):
        n = Rounded(format_of("float32"), Exact(), scalars=scalars)
        with n.active():
            keep = 1 - n.lift(n.number(0.5)) * n.number(0.25)
            product = 0.5 * 0.25 * (u + u) + u * 0.125
            assert keep.radius[0] == pytest.approx(product + u * 0.875, rel=1e-5)
            assert (1 - n.lift(n.number(0.5)) * n.number(0.0)).radius[0] == 0.0


def test_bad_arguments():
    with pytest.raises(ValueError, match="scalars must be"):
        Rounded(format_of("float32"), Double(), scalars="single")
    with pytest.raises(ValueError, match="float64 arrays need exact centres"):
        Rounded(format_of("float64"), Double())
    n = Rounded(format_of("float32"), Exact())
    with pytest.raises(ValueError, match="power 2"):
        n.array(np.float32([1.0])) ** 3
    with pytest.raises(TypeError):
        n.number(0.5) + "1"
    with pytest.raises(ValueError, match="negative"):
        n.sqrt(n.array(np.float32([-1.0])))
