"""The exact contexts: the two libraries agree bit for bit, and neither leaks into the caller's."""

from __future__ import annotations

import math
import random
import threading
from fractions import Fraction

import mpmath
import numpy as np
import pytest

from mlx_optimizers.oracle import FORMATS, Exact
from mlx_optimizers.oracle.exact import Double
from tests.support import require


@pytest.fixture(params=["mpmath", "gmpy2"])
def library(request):
    """List each library; mpmath alone where the other is not installed."""
    return request.param if request.param == "mpmath" else require("gmpy2").__name__


def _parts(exact, number):
    mantissa, exponent = exact._parts(number)
    while mantissa and mantissa % 2 == 0:
        mantissa, exponent = mantissa // 2, exponent + 1
    return (mantissa, exponent) if mantissa else (0, 0)


@pytest.fixture
def both():
    require("gmpy2")
    return Exact(library="mpmath"), Exact(library="gmpy2")


@pytest.mark.parametrize("operation", ["+", "-", "*", "/", "sqrt", "power"])
def test_mpfr_and_mpmath_give_the_same_bits(both, operation):
    draw = random.Random(operation)
    results = []
    pairs = []
    for _ in range(5000):
        a = Fraction(draw.getrandbits(200) | 1) * Fraction(2) ** draw.randint(-400, 0)
        b = Fraction(draw.getrandbits(200) | 1) * Fraction(2) ** draw.randint(-400, 0)
        if draw.random() < 0.2:  # cancellation, and ties of the sum
            b = a * (1 + Fraction(draw.choice([-1, 1])) / 2 ** draw.randint(150, 250))
        pairs.append((a, b, draw.randint(1, 5000)))
    for exact in both:
        with exact.active():
            out = []
            for a, b, power in pairs:
                x, y = exact.number(a), exact.number(b)
                value = {
                    "+": lambda x, y, p: x + y,
                    "-": lambda x, y, p: x - y,
                    "*": lambda x, y, p: x * y,
                    "/": lambda x, y, p, n=exact: n.quotient(x, y),
                    "sqrt": lambda x, y, p, n=exact: n.sqrt(x),
                    "power": lambda x, y, p: (x / (x + y)) ** p,
                }[operation](x, y, power)
                out.append(_parts(exact, value))
        results.append(out)
    assert results[0] == results[1]


def test_numbers_are_what_they_spell(library):
    exact = Exact(library=library)
    with exact.active():
        assert exact.number(0.1) == Fraction(0.1)
        assert exact.text(exact.number(0.1)) == "0.100000000000000005551115123126"
        assert exact.text(exact.number("0.1")) == "0.1"
        assert exact.text(exact.number(Fraction(1, 3)), 5) == "0.33333"
        assert exact.number("0.1") != exact.number(0.1)
        assert exact.number(np.float32(0.1)) == Fraction(float(np.float32(0.1)))
        assert exact.text(exact.number(-(2**70))) == "-1180591620717411303424"
        assert exact.text(exact.number(0)) == "0"
        assert exact.text(exact.number(math.nan)) == "nan"
        assert exact.text(exact.number(-math.inf)) == "-inf"


def test_rules_at_the_edges(library):
    exact = Exact(library=library)
    with exact.active(), np.errstate(invalid="ignore"):  # mpmath makes a float NaN of ∞ − ∞, which NumPy notices
        x = exact.array(np.array([0.0, -0.0, 4.0, -4.0, math.nan]))
        zero_over_zero = x / exact.array(np.array([0.0, 0.0, 2.0, 2.0, 0.0]))
        floats = zero_over_zero.values.astype(float)
        assert np.isnan(floats[[0, 1, 4]]).all()
        assert floats[2:4].tolist() == [2.0, -2.0]
        with pytest.raises(ZeroDivisionError, match="by zero"):
            exact.array(np.array([1.0])) / exact.number(0)
        with pytest.raises(ValueError, match="negative"):
            exact.sqrt(exact.array(np.array([-1.0])))
        with pytest.raises(ValueError, match="negative"):
            exact.sqrt(exact.number(-1))
        assert exact.sign(x).values.astype(float)[:4].tolist() == [0, 0, 1, -1]
        assert math.isnan(exact.sign(x).values.astype(float)[4])
        assert exact.abs(x).values.astype(float)[:4].tolist() == [0, 0, 4, 4]
        larger = exact.max(x, exact.array(np.array([1.0, math.nan, 1.0, 1.0, 1.0]))).values.astype(float)
        assert larger[[0, 2, 3]].tolist() == [1, 4, 1]
        assert np.isnan(larger[[1, 4]]).all()
        with pytest.raises(ValueError, match="power 2"):
            x**3


def test_zeros_are_numbers_without_a_sign(library):
    exact = Exact(library=library)
    from mlx_optimizers.oracle import format_of

    with exact.active():
        product = exact.array(np.array([-1.0])) * exact.array(np.array([0.0]))
        assert math.copysign(1, exact.round(product.values[0], format_of("float32"))) == 1


@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize("direction", ["nearest", "down", "up"])
def test_arrays_are_rounded_as_integers_are(library, name, direction):
    """Next to floats, to half-way between two, to zero and to the end of the range, where a float64 does not decide."""
    form, exact, draw = FORMATS[name], Exact(library=library), random.Random(f"{name} {direction}")
    values, expected = [], []
    for _ in range(4000):
        digits = draw.choice([1, 2, form.precision, form.precision + 1, form.precision + 2, 54])
        low = form.emin - form.precision - 3
        ends = draw.choice([(low, form.emin + 2), (-3, 3), (form.emax - 2, form.emax + 1), (-1070, -1000)])
        exponent = draw.randint(*ends)
        size = (1 << 100) | (draw.getrandbits(digits - 1) << (101 - digits)) if digits > 1 else 1 << 100
        size += draw.choice([0, 0, 1, -1, 1 << 40, -(1 << 40), draw.getrandbits(90)])
        mantissa, exponent = draw.choice([-1, 1]) * size, exponent - 100
        values.append(exact.number(Fraction(mantissa) * Fraction(2) ** exponent))
        expected.append(form.round(mantissa, exponent, direction))
    got = exact.rounded(exact.objects(values).reshape(40, 100), form, direction)
    assert got.shape == (40, 100) and got.dtype == np.float64
    assert got.reshape(-1).tobytes() == np.array(expected).tobytes()
    special = exact.objects([exact.number(x) for x in (0.0, math.inf, -math.inf, math.nan)])
    assert np.array_equal(exact.rounded(special, form, direction), [0, math.inf, -math.inf, math.nan], equal_nan=True)


def test_arrays_are_of_the_floats_themselves(library):
    """Of floats at both ends of the range too, and of other dtypes."""
    values = [0.0, 1.0, -0.1, math.pi, 5e-324, -(2.0**-1022), 1.7e308, math.inf, -math.inf, math.nan]
    exact = Exact(bits=64, library=library)
    for given in (values, np.float32(values[:5]), np.arange(3), [True, False]):
        got = exact.array(given).values
        with np.errstate(all="ignore"):  # mpmath makes its NaN by arithmetic that raises flags
            assert np.array_equal(got.astype(np.float64), np.asarray(given, np.float64), equal_nan=True)
        finite = [(x, y) for x, y in zip(got, np.asarray(given).tolist(), strict=True) if math.isfinite(y)]
        for number, value in finite:
            mantissa, exponent = _parts(exact, number)
            assert Fraction(mantissa) * Fraction(2) ** exponent == Fraction(value)


def test_arithmetic_of_scalars_and_arrays(library):
    exact = Exact(library=library)
    with exact.active():
        b, x = exact.number("0.75"), exact.array(np.array([2.0, 3.0]))
        for got, expected in (
            (b * x, [1.5, 2.25]),
            (x * b, [1.5, 2.25]),
            (1 - b, 0.25),
            ((1 - b) * x, [0.5, 0.75]),
            (x - b, [1.25, 2.25]),
            (b - x, [-1.25, -2.25]),
            (b + x, [2.75, 3.75]),
            (6 / x, [3.0, 2.0]),
            (x / 2, [1.0, 1.5]),
            (b**2, 0.5625),
            (x**2, [4.0, 9.0]),
            (-x, [-2.0, -3.0]),
        ):
            values = got.values.astype(float).tolist() if hasattr(got, "values") else float(got)
            assert values == expected


def test_the_global_precisions_are_left_alone(both):
    gmpy2 = require("gmpy2")
    before = mpmath.mp.prec, gmpy2.get_context().precision
    for exact in both:
        with exact.active():
            exact.sqrt(exact.array(np.array([2.0])))
    assert (mpmath.mp.prec, gmpy2.get_context().precision) == before


def test_a_new_thread_computes_at_full_precision():
    require("gmpy2")
    exact, out = Exact(library="gmpy2"), []

    def compute():
        with exact.active():
            out.append(exact.text(exact.number(1) / 3, 60))

    thread = threading.Thread(target=compute)
    thread.start()
    thread.join()
    assert out == ["0." + "3" * 60]


def test_bad_arguments():
    with pytest.raises(ValueError, match="bits must be at least 64, not 53"):
        Exact(53)
    with pytest.raises(ValueError, match="library must be"):
        Exact(library="numpy")


def test_double_has_the_same_interface():
    n = Double()
    x = n.array(np.float32([4.0, 0.0]))
    assert n.sqrt(x).values.tolist() == [2.0, 0.0]
    assert n.max(x, n.array([1.0, 1.0])).values.tolist() == [4.0, 1.0]
    assert (n.sign(x) - n.abs(x)).values.tolist() == [-3.0, 0.0]
    with pytest.raises(ValueError, match="negative"):
        n.sqrt(n.array([-1.0]))
