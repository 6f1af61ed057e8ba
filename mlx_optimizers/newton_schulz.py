"""Newton–Schulz: a polynomial of a matrix, repeated, that brings all its singular values near to 1."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from mlx_optimizers.kinds import FloatArray

__all__ = ["COEFFICIENTS", "EPS", "newton_schulz"]

COEFFICIENTS = (3.4445, -4.7750, 2.0315)
"""a, b and c of the polynomial ax + bx³ + cx⁵."""

EPS = 1e-7
"""ε, which is added to the norm."""


def newton_schulz(matrix: FloatArray, steps: int = 5) -> FloatArray:
    r"""Make a matrix nearly orthogonal, by the iteration of Muon.

    A matrix with more rows than columns is transposed first, and back at the end. With :math:`a = 3.4445`,
    :math:`b = -4.7750`, :math:`c = 2.0315` and :math:`\epsilon = 10^{-7}`,

    .. math::
        X_0 = \frac{D}{\lVert D \rVert_F + \epsilon}, \quad A = X_k X_k^\top, \quad
        X_{k+1} = a X_k + (bA + cA^2) X_k

    The singular vectors stay, and each singular value s becomes :math:`as + bs^3 + cs^5` in every step. Five steps
    bring those from 0.002 to 1 of :math:`X_0` to between 0.68 and 1.21.

    Args:
        matrix: D, of two axes; float32 or float64. In float16 and bfloat16 every operation rounds as MLX's does:
            products of matrices add in float32, and round their sum once. There the norm of D is added in float32 from
            squares in 16 bits, so that float16 overflows from a norm of 256 on, and the result is 0.
        steps: How often the polynomial is applied, a whole number ≥ 0; default 5.

    Returns:
        A new array of the shape and dtype of D.

    Raises:
        ValueError: for an array that does not have two axes.

    Source: Keller Jordan, `Muon: An optimizer for hidden layers in neural networks
    <https://kellerjordan.github.io/posts/muon/>`_.

    Example:
        >>> import numpy as np
        >>> from mlx_optimizers.newton_schulz import newton_schulz
        >>> x = newton_schulz(np.float32([[3, 0, 0], [0, -4, 0]]))
        >>> print(x.round(2) + 0)  # the singular values 3 and 4, and then 1, nearly
        [[ 0.72  0.    0.  ]
         [ 0.   -1.12  0.  ]]
    """
    if matrix.ndim != 2:
        raise ValueError(f"Newton–Schulz needs an array of two axes, not of shape {matrix.shape}")
    tall = matrix.shape[0] > matrix.shape[1]
    with np.errstate(all="ignore"):
        wide = matrix.T if tall else matrix
        iterated = _in_float32(wide, steps) if matrix.dtype.itemsize == 2 else _iterated(wide, steps)
    return iterated.T if tall else iterated


def _iterated(d: FloatArray, steps: int) -> FloatArray:
    """Iterate in the dtype of a matrix that has no more rows than columns; all work is in five buffers."""
    rows, real = d.shape[0], d.dtype.type
    a, b, c = map(real, COEFFICIENTS)
    flat = np.ravel(d, order="K")
    norm = np.sqrt(np.dot(flat, flat))
    x: FloatArray = np.divide(d, norm + real(EPS), out=np.empty(d.shape, d.dtype))
    other, gram, square = np.empty_like(x), np.empty((rows, rows), d.dtype), np.empty((rows, rows), d.dtype)
    for _ in range(steps):
        np.matmul(x, x.T, out=gram)  # BLAS forms one half of a product with the transpose, and copies it
        np.matmul(gram, gram.T, out=square)
        square *= c
        gram *= b
        square += gram
        np.matmul(square, x, out=other)
        x *= a
        x += other
    return x


def _in_float32(d: FloatArray, steps: int) -> FloatArray:
    """Iterate in 16 bits: float32 holds every product exactly, and what MLX rounds is rounded to 16 bits."""
    dtype = d.dtype

    def rounded(values: npt.ArrayLike) -> npt.NDArray[np.float32]:
        return np.asarray(values, np.float32).astype(dtype).astype(np.float32)

    a, b, eps = (rounded(value) for value in (*COEFFICIENTS[:2], EPS))
    c: Any = np.float32(COEFFICIENTS[2])  # a factor of BLAS in MLX, which has no 16 bits
    wide = d.astype(np.float32)
    norm = rounded(np.sqrt(rounded(rounded(wide * wide).sum(dtype=np.float32))))
    x = rounded(wide / rounded(norm + eps))
    for _ in range(steps):
        gram = rounded(x @ x.T)
        square = rounded(c * (gram @ gram.T) + rounded(b * gram))
        x = rounded(square @ x + rounded(a * x))
    out: FloatArray = x.astype(dtype)
    return out
