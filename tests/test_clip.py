"""Gradients clipped by their norm: right for every dtype, and MLX's results where those are right.

The norm and the products are computed again by mpmath, with 200 bits; what MLX does is had from MLX itself.
"""

from __future__ import annotations

import inspect
import math

import mpmath
import numpy as np
import pytest

import mlx_optimizers as optim
from tests.support import require

UNITS = {"float16": 2.0**-11, "bfloat16": 2.0**-8, "float32": 2.0**-24, "float64": 2.0**-53}
TINY = {"float16": 2.0**-24, "bfloat16": 2.0**-133, "float32": 2.0**-149, "float64": 2.0**-1074}
"""The unit of rounding, and the least number above 0."""

ERROR = 1e-12
"""That of the norm: a block of n squares has at most n − 1 roundings of one part in 2⁵³, and the root halves it."""

each_dtype = pytest.mark.parametrize("dtype", UNITS)


def _array(values, dtype):
    real = require("ml_dtypes").bfloat16 if dtype == "bfloat16" else dtype
    return np.asarray(values, np.float64).astype(real)


def _f(*values):
    return np.array(values, np.float32)


def _exact_norm(arrays):
    with mpmath.workprec(200):
        return mpmath.sqrt(mpmath.fsum(mpmath.mpf(float(x)) ** 2 for array in arrays for x in np.ravel(array)))


def _require_clipped(new, given, limit, norm):
    """Hold each element to its exact product, within one rounding and what the norm and a double may be off."""
    with mpmath.workprec(200):
        factor = min(mpmath.mpf(limit) / (norm + mpmath.mpf("1e-6")), 1)
        for array, before in zip(new, given, strict=True):
            name = array.dtype.name
            assert (name, array.shape) == (before.dtype.name, before.shape)
            unit = UNITS[name] + (2.0**-24 if name == "bfloat16" else 0)  # ml_dtypes rounds to float32 before
            for got, g in zip(np.ravel(array), np.ravel(before), strict=True):
                product = mpmath.mpf(float(g)) * factor
                assert abs(mpmath.mpf(float(got)) - product) <= (unit + 2 * ERROR) * abs(product) + TINY[name] / 2


@each_dtype
@pytest.mark.parametrize("limit", [0, 1e-3, 1.0, 50.0, 1e6])
def test_norm_and_elements_are_those_of_the_formula(dtype, limit):
    rng = np.random.default_rng(0)
    given = [
        _array(rng.standard_normal(shape) * 10.0 ** rng.integers(-3, 3, shape), dtype) for shape in ((40, 30), (7,), ())
    ]
    new, norm = optim.clip_grad_norm(given, limit)
    exact = _exact_norm(given)
    assert abs(norm - exact) <= ERROR * exact
    _require_clipped(new, given, limit, exact)


@each_dtype
def test_a_gradient_of_more_than_one_block_and_of_any_layout(dtype):
    wide = _array(np.random.default_rng(1).standard_normal((300, 200)), dtype)
    exact = _exact_norm([wide])
    for array in (wide, wide.T, np.asfortranarray(wide), wide[::-1]):
        _, norm = optim.clip_grad_norm(array, 1.0)
        assert abs(norm - exact) <= ERROR * exact


def test_the_error_does_not_grow_with_the_number_of_elements():
    """4 million times 0.1 as float32, whose square is exact in double."""
    square = float(np.float32(0.1)) ** 2
    _, norm = optim.clip_grad_norm(np.full(4_000_000, 0.1, np.float32), 1.0)
    with mpmath.workprec(200):
        exact = mpmath.sqrt(4_000_000 * mpmath.mpf(square))
        assert abs(norm - exact) <= ERROR * exact


@pytest.mark.parametrize(
    ("values", "norm"),
    [
        ([3e200, 4e200], 5e200),
        ([3e-200, 4e-200], 5e-200),
        ([3e-200, 4e-200, 0], 5e-200),
        ([1.2e154, 1.2e154], 1.2e154 * math.sqrt(2)),
        ([5e-324], 5e-324),
        ([3 * 2.0**-1074, 4 * 2.0**-1074], 5 * 2.0**-1074),
        ([1e308, 1e-308], 1e308),
        ([1.5e308, 1.5e308], math.inf),
    ],
)
@pytest.mark.parametrize("apart", [False, True])
def test_squares_that_no_double_holds(values, norm, apart):
    given = [np.array([x]) for x in values] if apart else np.array(values)
    assert optim.clip_grad_norm(given, 1.0)[1] == pytest.approx(norm, rel=ERROR, abs=0)


@pytest.mark.parametrize("value", [3e38, 1e-44])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_the_whole_range_of_float32_is_clipped(value, dtype):
    given = _array([value] * 400, dtype)
    new, norm = optim.clip_grad_norm(given, 10 * abs(float(given[0])))
    exact = _exact_norm([given])
    assert abs(norm - exact) <= ERROR * exact
    _require_clipped([new], [given], 10 * abs(float(given[0])), exact)


# Trees


@pytest.mark.parametrize("empty", [{}, [], (), {"a": [{}, ()]}])
def test_an_empty_tree(empty):
    new, norm = optim.clip_grad_norm(empty, 1.0)
    assert (new, norm.item()) == (empty, 0)


def test_any_tree_keeps_its_structure_and_the_arrays_given_stay_as_they_are():
    given = {"a": [_f(3), (_f(0), np.float32(4))], "b": {"c": np.zeros((0, 2), np.float32)}}
    kept = {"a": [_f(3), (_f(0), np.float32(4))], "b": {"c": np.zeros((0, 2), np.float32)}}
    for limit in (1.0, 100.0):
        new, norm = optim.clip_grad_norm(given, limit)
        assert norm == 5
        assert list(new) == ["a", "b"] and type(new["a"]) is list and type(new["a"][1]) is tuple
        assert new["a"][1][1].shape == () and new["b"]["c"].shape == (0, 2)
        new["a"][0][...] = 7
        np.testing.assert_equal(given, kept)


def test_a_bare_array_is_a_tree():
    new, norm = optim.clip_grad_norm(_f(30, 40), 5.0)
    assert norm == 50
    assert new.tolist() == np.float32([30 * (5 / 50.000001), 40 * (5 / 50.000001)]).tolist()


@each_dtype
def test_zeros_stay_and_have_norm_zero(dtype):
    new, norm = optim.clip_grad_norm({"w": _array([0, -0.0], dtype)}, 1.0)
    assert norm == 0 and np.array_equal(np.signbit(new["w"]), [False, True]) and (new["w"] == 0).all()


@each_dtype
def test_gradients_within_the_limit_keep_their_bits(dtype):
    given = _array([0.3, -0.4, 1e-7], dtype)
    for limit in (0.75, math.inf, np.float32("inf")):
        assert optim.clip_grad_norm(given, limit)[0].tobytes() == given.tobytes()


def test_what_the_norm_is():
    _, norm = optim.clip_grad_norm(_f(3, 4), 1.0)
    assert (type(norm), norm.item(), f"{norm:.2f}") == (np.float64, 5, "5.00")


@pytest.mark.parametrize("dtype", ["int8", "uint8", "int32", "int64", "bool"])
def test_integers_become_float32(dtype):
    given = np.array([1, 0, 1], dtype) * (np.array(100, dtype) if dtype != "bool" else np.True_)
    new, norm = optim.clip_grad_norm({"w": given}, 0.5)
    exact = _exact_norm([given])
    assert abs(norm - exact) <= ERROR * exact
    _require_clipped([new["w"]], [given.astype(np.float32)], 0.5, exact)


# What is no number


@each_dtype
def test_an_infinite_gradient(dtype):
    new, norm = optim.clip_grad_norm([_array([math.inf, 1], dtype), _array([2], dtype)], 1.0)
    assert norm == math.inf
    assert np.isnan(new[0][0]) and new[0][1] == new[1][0] == 0


@each_dtype
@pytest.mark.parametrize("others", [[1], [math.inf]])
def test_a_gradient_that_is_nan(dtype, others):
    new, norm = optim.clip_grad_norm([_array([math.nan, 1], dtype), _array(others, dtype)], 1.0)
    assert np.isnan(norm) and all(np.isnan(array).all() for array in new)


@pytest.mark.parametrize(
    ("grads", "limit", "error", "match"),
    [
        (_f(1), -1, ValueError, "max_norm must be at least 0, not -1.0"),
        (_f(1), math.nan, ValueError, "max_norm must be finite, not nan"),
        (_f(1), "1", TypeError, "max_norm must be a number, not '1'"),
        (_f(1), None, TypeError, "max_norm must be a number, not None"),
        (_f(1), _f(1, 2), TypeError, "max_norm must be a number, not array"),
        ({"a": [None]}, 1, TypeError, r"gradient a\.0 is None, .*; leave it out of the tree"),
        ({"a": 1.0}, 1, TypeError, "gradient a is 1.0, a float, not an array"),
        ({"a": np.array([1j])}, 1, TypeError, "gradient a has dtype complex128, not one of"),
        ({"a": np.ma.array([1])}, 1, TypeError, "gradient a is a masked array"),
        (None, 1, TypeError, "the gradient is None"),
    ],
)
def test_what_is_refused(grads, limit, error, match):
    with pytest.raises(error, match=match):
        optim.clip_grad_norm(grads, limit)


def test_it_warns_of_nothing_and_heeds_no_setting_of_numpy():
    with np.errstate(all="raise"):
        optim.clip_grad_norm([np.array([1e-320, 1e200]), _f(3e38, math.inf)], 1.0)


# Beside MLX


@pytest.fixture(scope="module")
def mlx():
    return require("mlx.core"), require("mlx.optimizers")


def _flat(tree):
    return [np.array(array.astype(require("mlx.core").float32), np.float64) for array in tree.values()]


def test_arguments_are_those_of_mlx(mlx):
    ours, theirs = (inspect.signature(kind.clip_grad_norm).parameters.values() for kind in (optim, mlx[1]))
    assert [(one.name, one.kind, one.default) for one in ours] == [(one.name, one.kind, one.default) for one in theirs]


DTYPES = ["float32", "float16", "bfloat16", "int32", "int8", "uint8", "int64", "bool_"]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("limit", [1.0, 1e3])
def test_kinds_dtypes_and_values_are_those_of_mlx(dtype, limit, mlx):
    """Of 3 elements, whose squares and sum no dtype here rounds."""
    mx, theirs = mlx
    given = {"w": mx.array([2, 3]).astype(getattr(mx, dtype)), "b": mx.array([1]).astype(getattr(mx, dtype))}
    ours, norm = optim.clip_grad_norm(given, limit)
    expected, their_norm = theirs.clip_grad_norm(given, limit)
    assert {name: array.dtype for name, array in ours.items()} == {
        name: array.dtype for name, array in expected.items()
    }
    assert (type(norm), norm.dtype, norm.shape) == (mx.array, mx.float32, ())
    unit = UNITS.get(dtype, UNITS["float32"])
    # Theirs rounds the root, the sum with 1e-6, the quotient and the product, and for 16 bits the result again.
    assert abs(norm.item() - their_norm.item()) <= 2 * unit * norm.item()
    for left, right in zip(_flat(ours), _flat(expected), strict=True):
        assert (abs(left - right) <= 6 * unit * abs(left)).all()


@pytest.mark.parametrize("seed", range(5))
def test_small_trees_of_float32_are_clipped_as_by_mlx(seed, mlx):
    mx, theirs = mlx
    rng = np.random.default_rng(seed)
    given = {name: mx.array(rng.standard_normal(5).astype(np.float32)) for name in "abc"}
    ours, norm = optim.clip_grad_norm(given, 1.0)
    expected, their_norm = theirs.clip_grad_norm(given, 1.0)
    # 15 squares, each rounded, and 15 sums, the root of it, rounded; then a sum, a quotient and a product.
    unit = UNITS["float32"]
    assert abs(norm.item() - their_norm.item()) <= (8 + 2) * unit * norm.item()
    for left, right in zip(_flat(ours), _flat(expected), strict=True):
        assert (abs(left - right) <= (8 + 2 + 4) * unit * abs(left)).all()


@pytest.mark.parametrize("values", [[math.inf, 1], [math.nan, 1], [0, 0], [-math.inf, math.nan]])
@pytest.mark.parametrize("limit", [0.0, 1.0, math.inf])
def test_what_is_no_number_is_as_in_mlx(values, limit, mlx):
    mx, theirs = mlx
    given = {"w": mx.array(values, dtype=mx.float32)}
    (ours, norm), (expected, their_norm) = (kind.clip_grad_norm(given, limit) for kind in (optim, theirs))
    np.testing.assert_equal(np.array(ours["w"]), np.array(expected["w"]))
    np.testing.assert_equal(norm.item(), their_norm.item())


def test_arrays_of_numpy_and_mlx_may_be_mixed(mlx):
    mx, _ = mlx
    new, norm = optim.clip_grad_norm({"a": mx.array([3.0]), "b": _f(4)}, 1.0)
    assert (type(new["a"]), type(new["b"]), type(norm), norm.item()) == (mx.array, np.ndarray, mx.array, 5)


def _norm_of(tree):
    return math.sqrt(sum((array**2).sum() for array in _flat(tree)))


@pytest.mark.parametrize(
    ("shape", "count", "wrong", "right", "left"),
    [
        ((1,), 1000, "16.0", "31.6", "1.98"),
        ((4,), 4096, "65.0", "127.4", "1.96"),
        ((64, 64), 1000, "1448.0", "2022.9", "1.40"),
    ],
)
def test_where_mlx_adds_bfloat16_in_bfloat16(shape, count, wrong, right, left, mlx):
    mx, theirs = mlx
    rng = np.random.default_rng(3)
    made = (lambda: np.ones(1)) if shape == (1,) else (lambda: rng.standard_normal(shape))
    given = {str(n): mx.array(made().astype(np.float32)).astype(mx.bfloat16) for n in range(count)}
    clipped, norm = theirs.clip_grad_norm(given, 1.0)
    assert (f"{norm.item():.1f}", f"{_norm_of(clipped):.2f}") == (wrong, left)
    ours, norm = optim.clip_grad_norm(given, 1.0)
    assert f"{norm.item():.1f}" == right == f"{_norm_of(given):.1f}"
    # Each of the clipped elements is rounded to 8 bits.
    assert abs(_norm_of(ours) - 1) <= UNITS["bfloat16"] + 1e-6


@pytest.mark.parametrize(
    ("values", "dtype", "norm", "right"),
    [
        ([1e20, 1], "float32", math.inf, 1e20),
        ([1e-25, 1e-25], "float32", 0, 1e-25 * math.sqrt(2)),
        ([2**20], "int32", 0, 2**20),
        ([100, 100], "int8", math.sqrt(32), 100 * math.sqrt(2)),
    ],
)
def test_where_squares_leave_the_dtype_in_mlx(values, dtype, norm, right, mlx):
    mx, theirs = mlx
    given = {"w": mx.array(values).astype(getattr(mx, dtype))}
    assert theirs.clip_grad_norm(given, 1.0)[1].item() == np.float32(norm)
    assert abs(optim.clip_grad_norm(given, 1.0)[1].item() - right) <= 2 * UNITS["float32"] * right


def test_an_array_that_is_traced_has_no_value(mlx):
    mx, _ = mlx
    with pytest.raises(TypeError, match="gradient w is a traced array"):
        mx.compile(lambda g: optim.clip_grad_norm({"w": g}, 1.0))(mx.array([1.0]))
