"""Trajectories: precision and library make no difference, hyperparameters mean what they spell, intervals are tight."""

from __future__ import annotations

import math
from fractions import Fraction
from functools import cache

import numpy as np
import pytest

import mlx_optimizers
from mlx_optimizers.backends import open_backend
from mlx_optimizers.conformance import cases_of, matching
from mlx_optimizers.oracle import Double, Exact, format_of, trajectory
from mlx_optimizers.oracle.formats import FORMATS, SLACK
from mlx_optimizers.oracle.trajectory import ends
from tests.expected import EXPECTED, NAMES, WHOLE, each_name
from tests.programs import formula_cases
from tests.support import require


@cache
def _by_mpmath(name):
    """Compute every case of an optimizer with mpmath at 200 bits, which is the authority."""
    return [(case, _computed(case, 200, "mpmath")) for case in cases_of(name)]


def _computed(case, bits, library):
    return trajectory(
        case.optimizer, case.parameter, case.gradients, bits=bits, library=library, **case.hyperparameters
    )


def _pairs(left, right):
    """Yield every quantity of two trajectories side by side."""
    for a, b in zip(left, right, strict=True):
        for (name, x), (other, y) in zip(a.quantities(), b.quantities(), strict=True):
            assert name == other
            yield x, y


@each_name
def test_200_bits_rounded_are_400_bits_rounded(name):
    for case, entries in _by_mpmath(name):
        for x, y in _pairs(entries, _computed(case, 400, "mpmath")):
            for left, right in ((x.nearest, y.nearest), (x.low, y.low), (x.high, y.high)):
                assert left.tobytes() == right.tobytes(), case.id


@each_name
def test_mpfr_gives_the_bits_of_mpmath(name):
    require("gmpy2")
    for case, entries in _by_mpmath(name):
        for x, y in _pairs(entries, _computed(case, 200, "gmpy2")):
            assert [_fraction(value) for value in x.exact] == [_fraction(value) for value in y.exact], case.id
            assert np.array_equal(x.radius, y.radius)
            assert x.low.tobytes() == y.low.tobytes() and x.high.tobytes() == y.high.tobytes()


def _fraction(value):
    """Turn a number of either library into a fraction, without a rounding."""
    if hasattr(value, "_mpf_"):
        sign, mantissa, exponent, _ = value._mpf_
        return (-1) ** sign * int(mantissa) * Fraction(2) ** int(exponent)
    mantissa, exponent = value.as_mantissa_exp()
    return int(mantissa) * Fraction(2) ** int(exponent)


@pytest.mark.norm("interval.hyperparameter")
@pytest.mark.parametrize("name", [name for name in NAMES if EXPECTED[name].rational])
@pytest.mark.parametrize("kind", ["text", "fraction", "double"])
def test_text_and_fractions_are_exact_and_a_float_is_the_double_it_is(name, kind):
    convert = {"text": str, "fraction": Fraction, "double": float}[kind]
    tenths, step = EXPECTED[name].rational
    given = {
        key: tuple(map(convert, value)) if isinstance(value, tuple) else convert(value) for key, value in tenths.items()
    }
    meant = {
        key: tuple(map(Fraction, value)) if isinstance(value, tuple) else Fraction(value)
        for key, value in given.items()
    }
    (entry,) = trajectory(name, [1.5], [[-0.75]], bits=400, **given)
    expected = step(Fraction(3, 2), Fraction(-3, 4), meant)
    assert abs(_fraction(entry.parameter.exact[0]) - expected) < Fraction(1, 2**380)


def test_a_decimal_and_its_double_differ_by_what_the_double_is_off():
    text, double = (trajectory("SGD", [0.0], [[1.0]], learning_rate=rate)[0] for rate in ("0.1", 0.1))
    off = _fraction(text.parameter.exact[0]) - _fraction(double.parameter.exact[0])
    assert abs(off - (Fraction(0.1) - Fraction(1, 10))) < Fraction(1, 2**190)
    assert text.parameter.nearest.tobytes() == double.parameter.nearest.tobytes()


@pytest.mark.norm("interval.ends")
@pytest.mark.parametrize("dtype", FORMATS)
@each_name
def test_in_every_dtype_values_are_of_it_and_correctly_rounded(name, dtype):
    if dtype == "bfloat16":
        require("ml_dtypes")
    form = format_of(dtype)
    rng = np.random.default_rng(7)
    w, g = rng.standard_normal(6), rng.standard_normal((3, 6))
    for entry in trajectory(name, w, g, dtype=dtype, learning_rate=0.0625):
        for _, quantity in entry.quantities():
            for values in (quantity.nearest, quantity.low, quantity.high):
                assert (values.dtype, values.shape) == (form.dtype, (6,))
            for index, exact in enumerate(map(_fraction, quantity.exact)):
                # Next to the nearest there is nothing nearer; the ends are the outermost floats of the ball.
                nearest = Fraction(float(quantity.nearest[index]))
                for other in _neighbours(quantity.nearest, index, form):
                    assert abs(nearest - exact) <= abs(other - exact)
                radius = Fraction(float(quantity.radius[index]))
                low, high = Fraction(float(quantity.low[index])), Fraction(float(quantity.high[index]))
                assert _neighbours(quantity.low, index, form)[0] < exact - radius <= low
                assert high <= exact + radius < _neighbours(quantity.high, index, form)[1]
                assert low <= nearest <= high


def _neighbours(values, index, form):
    """Return the floats below and above a float of a format, as fractions."""
    value = Fraction(float(values[index]))
    size = max(math.frexp(float(abs(value)))[1] - 1, form.emin) if value else form.emin
    ulp = Fraction(2) ** (size - form.precision + 1)
    power = value != 0 and abs(value) == Fraction(2) ** size and size > form.emin
    inward, outward = ulp / 2 if power else ulp, ulp
    return (value - outward, value + inward) if value < 0 else (value - inward, value + outward)


@each_name
def test_a_learning_rate_a_step(name):
    """The state does not depend on the rate, and the step, weight decay included, is in proportion to it."""
    rates, g = [0.5, 0.25, 0.125], [[1.0], [-0.5], [2.0]]
    decay = {"weight_decay": 0.0} if EXPECTED[name].decay else {}
    changing = trajectory(name, [1.0], g, learning_rate=rates, **decay)
    constant = trajectory(name, [1.0], g, learning_rate=1.0, **decay)
    w = {"changing": Fraction(1), "constant": Fraction(1)}
    for entry, other, rate in zip(changing, constant, rates, strict=True):
        moved, full = _fraction(entry.parameter.exact[0]), _fraction(other.parameter.exact[0])
        assert abs((moved - w["changing"]) - (full - w["constant"]) * Fraction(rate)) < Fraction(1, 2**190)
        w = {"changing": moved, "constant": full}


def test_shapes_are_kept():
    w, g = np.ones((2, 3)), np.ones((4, 2, 3))
    entries = trajectory("Adam", w, g, learning_rate=0.5)
    assert len(entries) == 4
    for entry in entries:
        assert [name for name, _ in entry.quantities()] == ["parameter", "m", "v"]
        for _, quantity in entry.quantities():
            assert quantity.exact.shape == quantity.nearest.shape == quantity.radius.shape == (2, 3)
    (scalar,) = trajectory("SGD", 1.0, [0.5], learning_rate=0.5)
    assert (scalar.parameter.nearest.shape, scalar.parameter.nearest) == ((), 0.75)
    assert trajectory("SGD", [1.0], [], learning_rate=0.5) == []
    (empty,) = trajectory("Adam", np.zeros(0), [np.zeros(0)], learning_rate=0.5)
    assert empty.parameter.low.shape == (0,)


def test_a_formula_may_be_given_as_its_class():
    by_class, by_name = (trajectory(f, [1.0], [[1.0]], learning_rate=0.1) for f in (mlx_optimizers.Lion, "Lion"))
    assert by_class[0].parameter.nearest == by_name[0].parameter.nearest


def test_data_are_rounded_to_the_dtype_before_the_first_step():
    (entry,) = trajectory("SGD", [0.1], [[0.0]], learning_rate=1.0)
    assert float(entry.parameter.exact[0]) == float(np.float32(0.1))


@pytest.mark.parametrize(
    ("arguments", "given", "error", "message"),
    [
        (("Adan", [1.0], [[1.0]]), {"learning_rate": 0.1}, ValueError, "unknown formula 'Adan'; optimizers are SGD, "),
        (("Adam", [1.0], [[1.0], [1.0, 2.0]]), {"learning_rate": 0.1}, ValueError, r"step 2 has shape \(2,\)"),
        (("Adam", [1.0], [[1.0]]), {"learning_rate": [0.1, 0.1]}, ValueError, "2 entries for 1 steps"),
        (("Adam", [1.0], [[1.0]]), {"learning_rate": "-0.1"}, ValueError, "learning_rate must be at least 0"),
        (("Adam", [1.0], [[1.0]]), {"learning_rate": 0.1, "betas": ("1", "0.5")}, ValueError, "betas"),
        (("Adam", [1.0], [[1.0]]), {"learning_rate": 0.1, "rho": 0.5}, TypeError, "Adam has no hyperparameter rho"),
        (("Adam", [1.0], [[1.0]]), {}, TypeError, "learning_rate"),
        (("Adam", [1.0], [[1.0]]), {"learning_rate": 0.1, "dtype": "int8"}, TypeError, "'int8' is none of float16"),
        (("Adam", [1.0], [[1.0]]), {"learning_rate": 0.1, "bits": 32}, ValueError, "bits must be at least 64"),
        (("Adam", [1.0], [[1.0]]), {"learning_rate": 0.1, "scalars": "half"}, ValueError, "scalars must be"),
        (("Adam", [1.0], [[1.0]]), {"learning_rate": 0.1, "library": "sympy"}, ValueError, "library must be"),
        (("SGD", [1.0], [[1.0]]), {"learning_rate": "a tenth"}, ValueError, "a tenth"),
        (("SGD", [1.0], [[1.0]]), {"learning_rate": "1e400"}, ValueError, "learning_rate must be finite"),
    ],
)
def test_errors(arguments, given, error, message):
    with pytest.raises(error, match=message):
        trajectory(*arguments, **given)


@pytest.mark.norm("interval.untested")
def test_what_cannot_be_bounded_is_open_to_any_answer():
    (entry,) = trajectory("Adam", [1.0], [[1e30]], learning_rate=0.1)  # g² is beyond float32
    assert np.isinf(entry.state["v"].radius) and np.isinf(entry.parameter.radius)
    assert (entry.parameter.low, entry.parameter.high) == (-np.inf, np.inf)
    assert np.isfinite(entry.state["m"].radius)
    (entry,) = trajectory("Adam", [1.0], [[0.0]], learning_rate=0.1, eps=0.0)  # 0/0
    assert np.isinf(entry.parameter.radius) and entry.state["v"].radius == 0
    for bad in (np.nan, np.inf):
        first, second = trajectory("SGD", [1.0, 1.0], [[bad, 1.0], [1.0, 1.0]], learning_rate=0.1)
        assert np.isinf(first.parameter.radius).tolist() == np.isinf(second.parameter.radius).tolist() == [True, False]


@each_name
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf, 3e38])
def test_numbers_that_float32_cannot_go_on_with_are_unknown_and_stay_in_their_element(name, bad):
    """Quietly, as warnings are errors here; and the other elements are as without them."""
    data = [[0.5, bad], [0.25, 1.0], [bad, 1.0]]
    entries = trajectory(name, [1.0, 1.0], data, learning_rate=0.1)
    alone = trajectory(name, [1.0], [[0.5], [0.25]], learning_rate=0.1)
    for x, y in _pairs(entries[:2], alone):
        assert (x.low[0], x.nearest[0], x.high[0]) == (y.low[0], y.nearest[0], y.high[0])
    if not np.isfinite(bad):
        assert all(np.isinf(entry.parameter.radius[1]) for entry in entries)


def test_float32_scalars_widen_the_interval_and_never_move_its_centre():
    for case in matching(["Adam"], "adam/plain/*"):
        double, single = (
            trajectory(case.optimizer, case.parameter, case.gradients, scalars=scalars, **case.hyperparameters)
            for scalars in ("double", "float32")
        )
        for x, y in _pairs(double, single):
            assert np.array_equal(x.nearest, y.nearest)
            assert (x.radius <= y.radius).all() and (x.radius < y.radius).any()
            assert (y.low <= x.low).all() and (x.high <= y.high).all()


@pytest.mark.norm("interval.slack", "interval.unit")
def test_the_slack_is_the_one_that_was_proved():
    assert SLACK == 1.5
    assert format_of("float32").roundoff == 1.5 * 2.0**-24
    assert format_of("float32").underflow == 1.5 * 2.0**-126


@each_name
def test_the_interval_is_not_loose(name):
    """Median of radius over error of plain float32, every case, 8 steps: at most 64 in the parameter and each slot."""
    reference, exact = open_backend("reference"), Exact()
    ratios = {}
    for case in cases_of(name):
        outcome = reference.run(case)
        given = {"parameter": outcome.parameters, **outcome.state}
        for step, entry in enumerate(_computed(case, 200, exact.library)):
            for quantity, interval in entry.quantities():
                with exact.active():
                    off = exact.array(given[quantity][step]).values - interval.exact
                    error = np.abs(off).astype(np.float64)
                assert (error <= interval.radius).all(), case.id
                with np.errstate(all="ignore"):
                    ratio = np.where(interval.radius == 0, 1.0, interval.radius / error)
                ratios.setdefault(quantity, []).append(ratio)
    medians = {quantity: float(np.median(values)) for quantity, values in ratios.items()}
    assert medians and max(medians.values()) <= 64, medians


def test_every_case_of_the_suite_can_be_bounded():
    for case in formula_cases():
        if case.optimizer in WHOLE and case.regime in ("wide", "tiny", "small"):
            continue  # the parameter grows beyond float32, or weight decay feeds errors back to a tiny d
        for entry in _computed(case, 200, None)[-1:]:
            assert all(np.isfinite(quantity.radius).all() for _, quantity in entry.quantities()), case.id


@pytest.mark.norm("interval.sign")
@pytest.mark.parametrize("second", ["-0.09000001", "-0.08999999"])
def test_where_the_sign_in_lion_is_uncertain_the_exact_value_is_still_exact(second):
    """The interval holds the results of either sign; the exact value is the result of the exact sign."""
    g, (b1, b2) = np.float32([1.0, second]), (Fraction(0.9), Fraction(0.99))
    c = b1 * (1 - b2) * Fraction(1) + (1 - b1) * Fraction(float(g[1]))
    expected = Fraction(1) - Fraction("0.5") - (Fraction("0.5") if c > 0 else -Fraction("0.5"))
    _, entry = trajectory("Lion", [1.0], g[:, None], learning_rate=0.5)
    assert entry.parameter.exact[0] == entry.parameter.nearest[0] == expected
    assert entry.parameter.low[0] < 0 < 1 < entry.parameter.high[0]
    assert entry.parameter.radius[0] >= 1  # from the exact value to the farther end


@pytest.mark.parametrize(
    ("name", "new"),
    [
        ("Adam[bias_correction=true]", -0.5),  # m̂ = g = 2, √v̂ = 2: w = −1·2/(2 + 2)
        ("BiasCorrectedAdam", -0.5),
        ("Adam", -0.25),  # with ε = 3, m = ½·2, v = ¼·4: w = −1·1/(1 + 3)
        ("RMSprop[eps=inside_sqrt]", -1.0),  # v = ½·4: w = −2/√(2 + 2)
        ("SGD[weight_decay=decoupled]", -2.0),
    ],
)
def test_a_formula_is_known_by_any_of_its_names(name, new):
    given = {"learning_rate": 1.0}
    if "Adam" in name:
        given |= {"betas": (0.5, 0.75), "eps": 2.0 if name != "Adam" else 3.0}
    elif "RMSprop" in name:
        given |= {"alpha": 0.5, "eps": 2.0}
    (entry,) = trajectory(name, [0.0], [[2.0]], **given)
    assert entry.parameter.nearest.tolist() == [new]


@pytest.mark.parametrize(
    ("given", "error", "words"),
    [
        ({"learning_rate": []}, ValueError, "learning_rate has 0 entries for 2 steps"),
        ({"learning_rate": [0.1]}, ValueError, "learning_rate has 1 entries for 2 steps"),
        ({"learning_rate": lambda step: 0.1}, TypeError, "learning_rate must be a number, or a list .*, not <function"),
        ({"learning_rate": "fast"}, ValueError, "learning_rate must be a number, not 'fast'"),
        ({"learning_rate": ["0.1", "1/0"]}, ValueError, "learning_rate must be a number, not '1/0'"),
        ({"learning_rate": None}, TypeError, "learning_rate must be a number, not None"),
        ({"betas": ("0.9", "x")}, ValueError, "betas must be a number, not 'x'"),
        ({"betas": 0.9}, TypeError, "betas must be two numbers, not 0.9"),
        ({"eps": "inf"}, ValueError, "eps must be a number, not 'inf'"),
        ({"scalars": "x"}, ValueError, "scalars must be 'double' or 'float32', not 'x'"),
        ({"formula": 3}, TypeError, "a formula is a name or one of the classes, not 3"),
        ({"formula": int}, ValueError, "unknown formula 'int'"),
        ({"dtype": "int8"}, TypeError, "dtype 'int8' is none of"),
    ],
)
def test_a_refusal_names_the_argument_and_the_value(given, error, words):
    given = {"formula": "Adam", "parameter": [1.0], "gradients": [[1.0], [1.0]], "learning_rate": 0.1, **given}
    with pytest.raises(error, match=words):
        trajectory(**given)


@pytest.mark.parametrize("dtype", ["float16", "float32"])
def test_the_ends_in_float64_are_those_of_the_oracle_or_the_floats_next_to_them(dtype):
    form, rng = format_of(dtype), np.random.default_rng(0)
    centre = np.ldexp(rng.normal(size=600), rng.integers(form.emin - 4, form.emax - 1, 600))
    radius = abs(centre) * np.repeat([0.0, form.roundoff, 0.25], 200)
    centre[::3] = centre[::3].astype(dtype)  # of the format, so that the end is one where the radius is 0
    radius[5], centre[6], radius[7] = np.inf, 0.0, form.limit - abs(centre[7])
    exact, double = Exact(), Double()
    with exact.active():
        narrow = ends(exact, form, exact.array(centre).values, radius)
        wide = ends(double, form, centre, radius)
    for (near, far), outwards in zip(zip(narrow, wide, strict=True), (-np.inf, np.inf), strict=True):
        far, near = far.astype(dtype), near.astype(dtype)
        next_to = np.where(np.isfinite(far), np.nextafter(near, near.dtype.type(outwards)), outwards)
        assert ((far == near) | (far == next_to)).all()
        assert (far != near).sum() < 200
