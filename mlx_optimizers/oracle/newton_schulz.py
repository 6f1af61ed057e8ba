r"""Newton–Schulz exactly, with a certified bound on what rounding may change: one number for the whole matrix.

Radii of elements grow without use in a product of matrices that is repeated. The bound here is on the Frobenius norm of
the error instead. :math:`F(X) = aX + (bA + cA^2)X` with :math:`A = XX^\top` applies :math:`p(s) = as + bs^3 + cs^5` to
the singular values of X, and errors near X grow at most as divided differences of p say. With :math:`E_k` for the
distance of a program's matrix from the exact :math:`X_k`,

.. math::
    E_{k+1} = L_k E_k + \rho_k

where :math:`L_k` bounds these differences and :math:`\rho_k` is the rounding of one application.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from mlx_optimizers.kinds import FloatArray
from mlx_optimizers.newton_schulz import COEFFICIENTS, EPS
from mlx_optimizers.oracle.exact import Double, Exact, Radius, Values
from mlx_optimizers.oracle.fixed_point import OWN, Arithmetic, FixedPoint, norm
from mlx_optimizers.oracle.formats import FORMATS, Format, Scalars

__all__ = ["CONSISTENT", "Orthogonalized", "certified", "distance"]

CONSISTENT = 0.15
"""The greatest `distance` of a right program in 16 bits; measured, where the bound is proved."""

_FAR = 2.0**10  # beyond this a bound says nothing, and a matrix is none of Newton–Schulz

Matrix = npt.NDArray[np.float64]


class Orthogonalized(NamedTuple):
    """What Newton–Schulz makes of a matrix.

    Args:
        centre: The result, a matrix of the context's numbers, or of float64.
        radius: How far a right program's matrix may be from it, in the Frobenius norm; infinite where that is unknown.
    """

    centre: Values
    radius: float


def certified(
    n: Exact | Double,
    form: Format,
    d: Values,
    radius: Radius,
    steps: int = 5,
    scalars: Scalars = "double",
    *,
    beyond: float = 0.0,
    coefficients: tuple[float, float, float] = COEFFICIENTS,
    eps: float = EPS,
    least: bool = False,
) -> Orthogonalized:
    r"""Compute Newton–Schulz of a matrix, and bound the error of every right program in the Frobenius norm.

    A right program has a matrix within the radius of d. It computes the formula with + − × ÷ √ of the format, adds the
    terms of each sum in any order, fused with products or not, and may take a subnormal result for zero.

    Args:
        n: The context of the centre: `Exact`, or `Double` for a search, whose own error is part of the bound.
        form: The format in which programs compute.
        d: The matrix, of shape (rows, columns), as numbers of the context.
        radius: How far off a program's matrix may be, elementwise; infinite where nothing is known.
        steps: How often the polynomial is applied; default 5.
        scalars: Where programs keep coefficients: ``"double"`` (default) or ``"float32"``; it matters in float64.
        beyond: How far off a program's matrix may be beyond the radius, in the Frobenius norm; default 0.
        coefficients: a, b and c; default (3.4445, −4.7750, 2.0315).
        eps: ε, added to the norm; default ``1e-7``.
        least: Whether ε is the least that the norm may be instead; what may be below it is then unknown.

    Returns:
        The matrix and its radius. That is infinite where the squares of d may overflow, where a radius of d is
        infinite, and instead of one above 1024, which says nothing. A zero that is exact stays so, with the radius 0.

    Raises:
        ValueError: for an array that does not have two axes.

    Example:
        >>> import numpy as np
        >>> from mlx_optimizers.newton_schulz import newton_schulz
        >>> from mlx_optimizers.oracle import Double, format_of
        >>> from mlx_optimizers.oracle.newton_schulz import certified
        >>> d = np.float32([[1, 2, 3], [3, 2, 1]])
        >>> centre, radius = certified(Double(), format_of("float32"), d.astype(np.float64), np.zeros((2, 3)))
        >>> print(f"{radius:.0e}")
        1e-04
        >>> bool(np.linalg.norm(newton_schulz(d) - centre) < radius / 10)
        True
        >>> bool(np.linalg.norm(newton_schulz(d, steps=4) - centre) > radius * 1000)
        True
    """
    if d.ndim != 2:
        raise ValueError(f"Newton–Schulz needs an array of two axes, not of shape {d.shape}")
    if d.shape[0] > d.shape[1]:
        varied = {"beyond": beyond, "coefficients": coefficients, "eps": eps, "least": least}
        turned = certified(n, form, d.T, radius.T, steps, scalars, **varied)  # type: ignore[arg-type]
        return Orthogonalized(turned.centre.T, turned.radius)
    program = Arithmetic(form.roundoff, form.underflow, _coefficient(form, scalars))
    with n.active():
        unknown = Orthogonalized(np.full(d.shape, n.number(math.nan)), math.inf)
        size, off = n.magnitude(d), norm(radius) + beyond
        if not np.isfinite(size).all():
            return unknown
        if off == 0 and not (d != 0).any():
            return Orthogonalized(d, 0.0)
        centre = (
            FixedPoint(n, coefficients, eps, least=least)
            if isinstance(n, Exact)
            else _Float(coefficients, eps, least=least)
        )
        if least:
            eps = 0.0 if norm(size) * (1 - 2 * OWN) - off > eps else math.nan  # which makes the bound infinite
        error = _start(norm(size), off, d.size, eps, program, form.limit)
        error += _start(norm(size), 0.0, d.size, eps, centre.arithmetic, math.inf)
        x = centre.normalised(d)
        for _ in range(steps):
            view = _View(centre.floats(x), coefficients)
            if not view.largest < _FAR:
                return unknown
            if error < _FAR:
                grown = view.growth(error) * error + view.rounding(error, program)
                error = grown + view.rounding(0.0, centre.arithmetic)
            x = centre.applied(x)
        numbers, lost = centre.numbers(x)
        error = (error + lost) * (1 + OWN)
        return Orthogonalized(numbers, error if error < _FAR else math.inf)


def _coefficient(form: Format, scalars: Scalars) -> float:
    """Bound the relative error of a double that becomes a number of the format, by way of float32 or not."""
    single, double = FORMATS["float32"], FORMATS["float64"]
    if form == double:
        return 0.0 if scalars == "double" else single.roundoff
    return form.roundoff


def _start(length: float, off: float, size: int, eps: float, by: Arithmetic, limit: float) -> float:
    """Bound the error of a normalised matrix, that of its own radius and that of rounding.

    Args:
        length: The norm of the matrix.
        off: The norm of its radii.
        size: The number of its elements.
        eps: ε.
        by: The arithmetic.
        limit: What a sum of squares must not reach.
    """
    u, eta, gamma = by.roundoff, by.underflow, by.gamma(size)
    low, high = max(length * (1 - 2 * OWN) - off, 0.0), length + off
    flushed = 2 * size * eta * (1 + gamma)
    if not high * high * (1 + gamma) + flushed < limit:
        return math.inf
    divisor = low + eps
    if divisor == 0:
        return math.inf
    lost = math.sqrt(flushed)
    if low > 0:
        lost = min(lost, flushed / (low * math.sqrt(1 - gamma)))
    root = gamma / (1 + math.sqrt(1 - gamma)) + lost / divisor
    total = root * (1 + u) + max(u, by.coefficient) + 2 * eta / divisor
    total += u * (1 + total) + eta / divisor
    if total >= 1:
        return math.inf
    moved = off * min(1 / divisor, 2 / (length * (1 - 2 * OWN) + eps))
    return moved + min(1.0, high / (high + eps)) * (u + total) / (1 - total) + math.sqrt(size) * eta


class _View:
    """What the bound needs of one iterate: its singular values, and norms of its products.

    Args:
        x: The iterate in float64, with no more rows than columns.
        coefficients: a, b and c.
    """

    def __init__(self, x: Matrix, coefficients: tuple[float, float, float]) -> None:
        self.coefficients = a, b, c = coefficients
        self.rows, self.columns = x.shape
        self.singular = np.linalg.svd(x, compute_uv=False)
        self.largest = float(self.singular[0]) * (1 + OWN)
        size = np.abs(x)
        gram = x @ x.T
        square = b * gram + c * (gram @ gram)
        absolute = np.abs(gram)
        self.size, self.gram, self.square = (_spectral(matrix) for matrix in (size, absolute, np.abs(square)))
        self.gram_terms = norm(size @ size.T)
        self.square_terms = norm(abs(b) * absolute + abs(c) * (absolute @ absolute))
        self.terms = norm(abs(a) * size + np.abs(square) @ size)
        s, other = self.singular[:, None], self.singular[None, :]
        self.middle = np.abs(b + c * (s**2 + other**2))
        self.through = float(np.max(self.middle * other))

    def growth(self, error: float) -> float:
        """Bound how much an error of this norm grows."""
        a, b, c = self.coefficients
        reach = self.largest + error
        s, other = self.singular[:, None], self.singular[None, :]
        quotients = [np.abs(a + 3 * b * s**2 + 5 * c * s**4)]
        for y in (other, -other):
            each = np.abs(a + b * (s**2 + s * y + y**2) + c * (s**4 + s**3 * y + s**2 * y**2 + s * y**3 + y**4))
            quotients.append(np.where(np.eye(self.rows, dtype=bool), 0.0, each))
        if self.rows < self.columns:
            quotients.append(np.abs(a + b * s**2 + c * s**4))
        first = _greatest(lambda s: a + 3 * b * s**2 + 5 * c * s**4, reach, -3 * b, 10 * c)
        second = _greatest(lambda s: 6 * b * s + 20 * c * s**3, reach, -b, 10 * c)
        here = max(float(np.max(quotient)) for quotient in quotients)
        return min(here + error / 2 * second, first) + (1 + first + second) * OWN

    def rounding(self, error: float, by: Arithmetic) -> float:
        """Bound the rounding of one application to a matrix that is at this distance."""
        a, b, c = (abs(x) for x in self.coefficients)
        m, n, reach, eta = self.rows, self.columns, self.largest + error, 2 * by.underflow
        in_gram = by.gamma(n) * (self.gram_terms + 2 * self.size * error + error**2) + n * eta * m
        off = 2 * self.largest * error + error**2 + in_gram  # of the program's A from the exact one
        gamma = by.gamma(m + 2) + by.coefficient * (1 + by.gamma(m + 2))
        in_square = gamma * (self.square_terms + b * off + c * (2 * self.gram * off + off**2))
        in_square += eta * (m + 1) * (1 + b + c) * m
        off_square = float(self.middle.max()) * off + c * off**2 + in_square
        gamma = by.gamma(m + 1) + by.coefficient * (1 + by.gamma(m + 1))
        in_result = gamma * (self.terms + (a + self.square) * error + off_square * (self.size + error))
        in_result += eta * (m + 1) * (1 + a) * math.sqrt(m * n)
        total: float = in_result + reach * in_square + self.carried(error) * in_gram + c * in_gram**2 * reach
        return total * (1 + OWN)

    def carried(self, error: float) -> float:
        """Bound how much of an error of A a matrix at this distance carries into the result, in first order."""
        _, b, c = self.coefficients
        reach = self.largest + error
        slope = 2 * abs(c) * reach**2 + max(abs(b), abs(b + 4 * c * reach**2))
        return self.through + slope * (error + self.largest * OWN)


def _spectral(matrix: Matrix) -> float:
    """Take the largest singular value, a little too large rather than too small."""
    return float(np.linalg.svd(matrix, compute_uv=False)[0]) * (1 + OWN)


def _greatest(function: Callable[[float], float], end: float, over: float, under: float) -> float:
    """Find the greatest absolute value from 0 to an end, where the only other extremum is at the root of a ratio."""
    inner = math.sqrt(over / under) if under and over / under > 0 else 0.0
    return max(abs(function(s)) for s in (0.0, end, min(inner, end)))


class _Float:
    """The iteration in float64; its rounding is that of a program in float64 with exact coefficients."""

    arithmetic = Arithmetic(FORMATS["float64"].roundoff, FORMATS["float64"].underflow, 0.0)

    def __init__(self, coefficients: tuple[float, float, float], eps: float, *, least: bool = False) -> None:
        self.coefficients, self.eps, self.least = coefficients, eps, least

    def normalised(self, d: Values) -> Values:
        norm = np.sqrt(np.sum(d * d))
        return np.asarray(d / (max(norm, self.eps) if self.least else norm + self.eps))

    def applied(self, x: Values) -> Values:
        a, b, c = self.coefficients
        gram = x @ x.T
        return np.asarray(a * x + (b * gram + c * (gram @ gram)) @ x)

    def floats(self, x: Values) -> Matrix:
        return x

    def numbers(self, x: Values) -> tuple[Values, float]:
        """Return the matrix, and what that loses."""
        return x, 0.0


def distance(form: Format, d: FloatArray, got: FloatArray, steps: int = 5) -> float:
    r"""Measure how far a program's Newton–Schulz is from the formula, relative to the norm of the result.

    In 16 bits the bound of `certified` says nothing, and a right program is only consistent with the formula: on
    matrices of full rank, from 4 × 4 on, its distance stays below `CONSISTENT`. A program may keep the coefficients in
    double precision or in 16 bits; the nearer result of the two counts.

    Args:
        form: The format in which the program computes.
        d: The program's own matrix before, of floats.
        got: Its result, of the same shape.
        steps: How often the polynomial is applied; default 5.

    Returns:
        :math:`\lVert G - X \rVert_F / \lVert X \rVert_F` of the result G and X in float64; infinite for a result
        that is not finite, and for one that is not 0 where X is.

    Example:
        >>> import numpy as np
        >>> from mlx_optimizers.newton_schulz import newton_schulz
        >>> from mlx_optimizers.oracle import format_of
        >>> from mlx_optimizers.oracle.newton_schulz import CONSISTENT, distance
        >>> d = np.float16([[1, 2, 3], [3, 2, 1]])
        >>> half = format_of("float16")
        >>> distance(half, d, newton_schulz(d)) < CONSISTENT < distance(half, d, newton_schulz(d, steps=4))
        True
    """
    matrix, result = d.astype(np.float64), got.astype(np.float64)
    if not np.isfinite(result).all():
        return math.inf
    a, b, c = form.rounded(np.array(COEFFICIENTS)).tolist()
    return min(_apart(matrix, result, steps, coefficients) for coefficients in (COEFFICIENTS, (a, b, c)))


def _apart(d: Matrix, got: Matrix, steps: int, coefficients: tuple[float, float, float]) -> float:
    """Measure the distance from the result of float64, relative to its norm."""
    by = _Float(coefficients, EPS)
    tall = d.shape[0] > d.shape[1]
    x = by.normalised(d.T if tall else d)
    for _ in range(steps):
        x = by.applied(x)
    error, size = (float(np.linalg.norm(matrix)) for matrix in (got - (x.T if tall else x), x))
    return error / size if size else (math.inf if error else 0.0)
