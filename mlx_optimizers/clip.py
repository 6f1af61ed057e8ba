"""Clip gradients by the norm of all of them."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import numpy as np

from mlx_optimizers import leaves, trees
from mlx_optimizers.hyperparameters import at_least_zero
from mlx_optimizers.kinds import Dtype, FloatArray, Tree, Value

__all__ = ["clip_grad_norm"]

_EPS = 1e-6  # MLX's

_BLOCK = 16384
"""How many squares NumPy adds; these sums are added exactly, so that no error grows with the number of elements."""

_LEAST = 2.0**-960
"""A sum of squares below this may have lost some that are too small for a double."""


def clip_grad_norm(grads: Tree, max_norm: float) -> tuple[Tree, Value]:
    r"""Scale gradients down where their norm, that of all together, is greater than a limit.

    The norm is :math:`n = \sqrt{\sum g^2}`, added in double, and the new gradients are
    :math:`g \min(c / (n + 10^{-6}), 1)`, as in MLX, which adds in the dtype of the gradients.
    :doc:`/guides/clipping` says how exact both are, and shows where MLX errs.

    Args:
        grads: The gradients g, a tree of NumPy's or MLX's arrays of floats, integers or booleans; it may be empty.
        max_norm: The limit c, a number ≥ 0; at infinity all gradients stay as they are.

    Returns:
        The new gradients, in new arrays of the same kind and dtype (float32 for integers and booleans), and the norm
        n: a ``numpy.float64``, or an MLX array of float32 where one of the gradients is MLX's.

    Raises:
        TypeError: for a leaf that is no such array, or a limit that is no number.
        ValueError: for a limit that is negative or NaN.

    Example:
        >>> import numpy as np
        >>> import mlx_optimizers as optim
        >>> grads, norm = optim.clip_grad_norm({"w": np.float32([3, 0]), "b": np.float32([4])}, max_norm=2.5)
        >>> print(norm, grads["w"], grads["b"])
        5.0 [1.4999996 0.       ] [1.9999996]
    """
    limit = math.inf if _infinite(max_norm) else at_least_zero("max_norm", max_norm)
    given = list(leaves.given_gradients(grads))
    arrays = [_array(gradient, called) for _, gradient, called in given]
    with np.errstate(all="ignore"):
        norm = _norm(arrays)
        factor = min(limit / (norm + _EPS), 1.0)  # a NaN stays, as it is the first
        new = {
            path: trees.like(gradient, _scaled(array, factor))
            for (path, gradient, _), array in zip(given, arrays, strict=True)
        }
        single = np.array(norm, np.float32)
    mlx = any(trees.is_mlx(gradient) for _, gradient, _ in given)
    return trees.rebuilt(grads, new.__getitem__), trees.to_mlx(single) if mlx else np.float64(norm)


def _infinite(value: Value) -> bool:
    return isinstance(value, float | np.floating) and bool(value == math.inf)


def _array(value: Tree, what: str) -> FloatArray:
    """Take a leaf as a NumPy array of floats, integers or booleans."""
    if trees.is_mlx(value):
        value = trees.from_mlx(value, what)
    if isinstance(value, np.ndarray | np.generic) and value.dtype.kind in "biu":
        trees.refuse_masked(value, what)
        return np.asarray(value)
    return trees.to_numpy(value, what)


def _norm(arrays: Sequence[FloatArray]) -> float:
    """Take the root of the sum of all squares; where that leaves the range of doubles, by a power of two."""
    total = _sum(_squares(arrays))
    if _LEAST <= total < math.inf or math.isnan(total):
        return math.sqrt(total)
    largest = float(np.max([0.0, *(float(np.abs(array).max(initial=0)) for array in arrays)]))
    if largest == 0 or not math.isfinite(largest):
        return largest
    exponent = math.frexp(largest)[1]
    return float(np.ldexp(math.sqrt(_sum(_squares(arrays, exponent))), exponent))


def _squares(arrays: Sequence[FloatArray], exponent: int = 0) -> Iterator[float]:
    """Yield the sums of the squares of blocks, each element over 2 to the power of an exponent."""
    for array in arrays:
        flat = array.reshape(-1)
        for start in range(0, flat.size, _BLOCK):
            block = np.ldexp(flat[start : start + _BLOCK].astype(np.float64), -exponent)
            yield float(np.square(block, out=block).sum())


def _sum(numbers: Iterator[float]) -> float:
    try:
        return math.fsum(numbers)
    except OverflowError:  # of finite numbers
        return math.inf


def _scaled(array: FloatArray, factor: float) -> FloatArray:
    dtype: Dtype = np.dtype(np.float32) if array.dtype.kind in "biu" else array.dtype
    product = np.array(array, np.float64)
    product *= factor
    return product.astype(dtype)
