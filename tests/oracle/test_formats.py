"""Correct rounding into the four formats."""

from __future__ import annotations

import math
import random
from fractions import Fraction

import numpy as np
import pytest

from mlx_optimizers.oracle import FORMATS, SLACK, Exact, format_of

NATIVE = ("float16", "float32", "float64")


UNITS = {"float16": (-11, -25), "bfloat16": (-8, -126), "float32": (-24, -126), "float64": (-53, -1022)}
"""The exponents of the unit roundoff and of what an operation may lose near zero."""


@pytest.mark.norm("interval.slack")
def test_the_slack_is_the_derived_constant():
    assert SLACK == 1.5


@pytest.mark.norm("interval.unit")
def test_unit_and_threshold_are_one_and_a_half_times_those_of_the_format():
    found = {name: (form.roundoff, form.underflow) for name, form in FORMATS.items()}
    assert found == {name: (1.5 * 2.0**unit, 1.5 * 2.0**threshold) for name, (unit, threshold) in UNITS.items()}


@pytest.mark.parametrize("name", NATIVE)
def test_constants_are_those_of_numpy(name):
    form, info = FORMATS[name], np.finfo(name)
    assert (form.precision, form.emax, form.emin) == (info.nmant + 1, info.maxexp - 1, info.minexp)
    assert (form.tiny, form.width, form.dtype) == (float(info.tiny), info.bits, info.dtype)


def test_constants_of_bfloat16():
    ml_dtypes = pytest.importorskip("ml_dtypes")
    form, info = FORMATS["bfloat16"], ml_dtypes.finfo("bfloat16")
    assert (form.precision, form.emax, form.emin, form.tiny) == (
        info.nmant + 1,
        info.maxexp - 1,
        info.minexp,
        float(info.tiny),
    )


def _nearest_by_search(value: Fraction, form):
    """Find the nearest float by comparing the two neighbours as rationals: slow, and without bit tricks."""
    size = abs(value)
    if size == 0:
        return 0.0
    exponent = max(form.emin, size.numerator.bit_length() - size.denominator.bit_length() - 1)
    while Fraction(2) ** (exponent + 1) <= size:
        exponent += 1
    step = Fraction(2) ** (exponent - form.precision + 1)
    below = size // step
    distance = size - below * step
    if distance > step / 2 or (distance == step / 2 and below % 2):
        below += 1
    rounded = below * step
    sign = -1 if value < 0 else 1
    return sign * (math.inf if rounded >= Fraction(2) ** (form.emax + 1) else float(rounded))


@pytest.mark.parametrize("name", FORMATS)
def test_rounding_agrees_with_rational_arithmetic(name):
    form, draw = FORMATS[name], random.Random(name)
    for _ in range(3000):
        exponent = draw.randint(max(form.emin - form.precision - 3, -300), min(form.emax + 1, 300))
        bits = draw.choice([1, form.precision, form.precision + 1, form.precision + 2, 100])
        mantissa = draw.choice([-1, 1]) * ((1 << (bits - 1)) | draw.getrandbits(bits))
        shift = exponent - bits + 1
        got = form.round(mantissa, shift)
        assert got == _nearest_by_search(Fraction(mantissa) * Fraction(2) ** shift, form), (mantissa, shift)


@pytest.mark.norm("interval.rounding")
@pytest.mark.parametrize("name", FORMATS)
def test_gradual_underflow_and_but_in_float16_a_flush_to_zero_are_within_unit_and_threshold(name):
    """Also at the worst: half-way between two numbers, and next to the smallest normal one."""
    form, draw = FORMATS[name], random.Random(f"{name} underflow")
    h, threshold = (Fraction(2) ** exponent for exponent in UNITS[name])
    flushed = []
    for _ in range(2000):
        shift = draw.randint(form.emin - form.precision - 2, form.emin + 2) - 39
        mantissa = draw.choice([2**39, 2**40 - 1, draw.getrandbits(40), draw.getrandbits(form.precision + 1)])
        z = Fraction(mantissa) * Fraction(2) ** shift
        near = Fraction(_nearest_by_search(z, form))
        assert abs(near - z) <= h * z + threshold
        if 0 < near < Fraction(2) ** form.emin:
            flushed.append(z <= h * z + threshold)
    assert len(flushed) > 200
    assert all(flushed) == (name != "float16")


@pytest.mark.parametrize("name", FORMATS)
def test_half_way_cases_go_to_even_also_among_the_subnormals(name):
    form = FORMATS[name]
    smallest = form.emin - form.precision + 1
    assert form.round(1, smallest - 1) == 0.0
    assert form.round(3, smallest - 1) == math.ldexp(2, smallest)
    assert form.round(5, smallest - 1) == math.ldexp(2, smallest)
    one = 1 << (form.precision - 1)
    assert form.round(2 * one + 1, -form.precision) == 1.0
    assert form.round(2 * one + 3, -form.precision) == math.ldexp(one + 2, 1 - form.precision)


@pytest.mark.parametrize("name", FORMATS)
def test_overflow(name):
    form = FORMATS[name]
    largest = math.ldexp((1 << form.precision) - 1, form.emax - form.precision + 1)
    half_way = (1 << (form.precision + 1)) - 1, form.emax - form.precision
    assert form.round(*half_way) == math.inf
    assert form.round(-half_way[0], half_way[1]) == -math.inf
    assert form.round(half_way[0] * 2 - 1, half_way[1] - 1) == largest
    assert form.round(*half_way, "down") == largest
    assert form.round(*half_way, "up") == math.inf
    assert form.round(-half_way[0], half_way[1], "up") == -largest
    assert form.round(1, 5000) == math.inf
    assert form.round(1, -5000) == 0.0


@pytest.mark.parametrize("name", FORMATS)
def test_directions_enclose_and_keep_what_is_exact(name):
    form, draw = FORMATS[name], random.Random(f"{name} directions")
    for _ in range(1000):
        mantissa, exponent = draw.randint(-(2**80), 2**80), draw.randint(form.emin, form.emax) - 100
        down, up = form.round(mantissa, exponent, "down"), form.round(mantissa, exponent, "up")
        value = Fraction(mantissa) * Fraction(2) ** exponent
        assert math.isinf(down) or Fraction(down) <= value
        assert math.isinf(up) or Fraction(up) >= value
        assert form.round(mantissa, exponent) in (down, up)
        if math.isfinite(down) and Fraction(down) == value:
            assert up == down


@pytest.mark.parametrize("name", NATIVE)
def test_rounding_a_double_is_numpys_conversion(name):
    form, exact = FORMATS[name], Exact(library="mpmath")
    values = np.random.default_rng(1).standard_normal(2000) * 10.0 ** np.random.default_rng(2).integers(-50, 45, 2000)
    with np.errstate(over="ignore"):
        expected = values.astype(name)
    got = np.array([exact.round(exact.number(value), form) for value in values]).astype(name)
    assert np.array_equal(got, expected)


def test_a_double_between_would_round_wrongly():
    """1 + 2⁻²⁴ + 2⁻⁶⁰ is above half-way in float32; as a double it is exactly half-way and would go down."""
    mantissa = (1 << 60) + (1 << 36) + 1
    assert FORMATS["float32"].round(mantissa, -60) == 1 + 2.0**-23
    assert np.float32(mantissa / 2**60) == 1


@pytest.mark.parametrize("library", ["mpmath", "gmpy2"])
def test_agrees_with_mpfr_rounding_to_ieee_formats(library):
    gmpy2 = pytest.importorskip("gmpy2")
    exact, draw = Exact(library=library), random.Random("ieee")
    for width, name in ((16, "float16"), (32, "float32"), (64, "float64")):
        form = FORMATS[name]
        for _ in range(2000):
            mantissa = draw.choice([-1, 1]) * draw.getrandbits(120)
            exponent = draw.randint(form.emin - form.precision - 2, form.emax + 1) - 119
            number = exact.number(Fraction(mantissa) * Fraction(2) ** exponent)
            with gmpy2.context(gmpy2.ieee(width)):
                expected = float(gmpy2.mpfr(gmpy2.mpq(Fraction(mantissa) * Fraction(2) ** exponent)))
            assert exact.round(number, form) == expected


@pytest.mark.parametrize("name", NATIVE)
def test_bit_patterns(name):
    form = FORMATS[name]
    array = np.array([1.0, -0.0, np.inf, np.finfo(name).smallest_subnormal], name)
    patterns = form.bits(array)
    assert patterns[1] == "8" + "0" * (form.width // 4 - 1)
    assert patterns[3] == "0" * (form.width // 4 - 1) + "1"
    assert np.array_equal(form.from_bits(patterns).view(f"u{form.width // 8}"), array.view(f"u{form.width // 8}"))
    assert FORMATS["float32"].bits([1.0]) == ["3f800000"]


@pytest.mark.parametrize("pattern", ["3f80000", "3f8000000", "3F800000", "3f80000g", "", 1065353216, " 3f80000"])
def test_a_wrong_bit_pattern_is_refused(pattern):
    with pytest.raises(ValueError, match="bit pattern"):
        FORMATS["float32"].from_bits([pattern])


def test_an_unknown_dtype_is_refused():
    for dtype in ("int32", np.complex64, "nonsense"):
        with pytest.raises(TypeError, match="none of float16"):
            format_of(dtype)
