"""Newton–Schulz in fixed point, by Python's integers: the exact matrix, to more bits than a context has."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from mlx_optimizers.kinds import FloatArray
from mlx_optimizers.newton_schulz import COEFFICIENTS, EPS

__all__ = ["OWN", "Arithmetic", "FixedPoint", "exactly", "norm"]

Values = npt.NDArray[Any]
"""Numbers of a context, or the integers that stand for them."""

Matrix = npt.NDArray[np.float64]

OWN = 2.0**-30  # far more than what the bound's own arithmetic in float64 may lose
GUARD = 64  # bits of the fixed-point numbers beyond those of the context


class Arithmetic(NamedTuple):
    """How an arithmetic rounds.

    Args:
        roundoff: u, the relative error of an operation.
        underflow: η, the absolute error of an operation.
        coefficient: The relative error of a coefficient, which is rounded before it is used.
    """

    roundoff: float
    underflow: float
    coefficient: float

    def gamma(self, roundings: int) -> float:
        """Bound the relative error of so many roundings of one term; infinite where it is above a half."""
        error = roundings * self.roundoff
        return error / (1 - error) if error < 1 / 3 else math.inf


def exactly(
    n: Any,
    d: Values,
    steps: int = 5,
    *,
    coefficients: tuple[float, float, float] = COEFFICIENTS,
    eps: float = EPS,
    least: bool = False,
) -> Values:
    """Compute Newton–Schulz of a matrix of a context's numbers, to their precision.

    The arguments are those of `mlx_optimizers.oracle.newton_schulz.certified`, which bounds what a program may have.

    The error is a few units in the last place of the largest numbers, in a fixed point of 64 bits more than the context
    has. Where an element of d is not finite, all of the result is NaN.

    Example:
        >>> import numpy as np
        >>> from mlx_optimizers.oracle import Exact
        >>> from mlx_optimizers.oracle.fixed_point import exactly
        >>> n = Exact()
        >>> with n.active():
        ...     d = n.array(np.float32([[2, 0], [0, 2]])).values
        ...     print(n.text(exactly(n, d, steps=0)[0, 0], 9))
        0.707106756
    """
    if d.shape[0] > d.shape[1]:
        return exactly(n, d.T, steps, coefficients=coefficients, eps=eps, least=least).T
    if not np.isfinite(n.magnitude(d)).all():
        return np.full(d.shape, n.number(math.nan))
    if not (d != 0).any():
        return d
    centre = FixedPoint(n, coefficients, eps, least=least)
    x = centre.normalised(d)
    for _ in range(steps):
        x = centre.applied(x)
    return centre.numbers(x)[0]


def norm(values: FloatArray) -> float:
    """Take the Frobenius norm, a little too large rather than too small."""
    largest = float(np.max(np.abs(values), initial=0.0))
    if largest == 0 or not math.isfinite(largest):
        return largest if largest == 0 else math.inf
    return float(np.linalg.norm(values / largest)) * largest * (1 + OWN)


class FixedPoint:
    """The iteration in fixed point, by Python's integers: exact sums of products, then rounded down once."""

    def __init__(self, n: Any, coefficients: tuple[float, float, float], eps: float, *, least: bool = False) -> None:
        self.n, self.least = n, least
        self.bits = n.bits + GUARD
        self.arithmetic = Arithmetic(0.0, math.ldexp(1.0, 1 - self.bits), 0.0)  # two units for one
        self.eps = eps.as_integer_ratio()
        parts = [x.as_integer_ratio() for x in coefficients]
        self.digits = max(bottom for _, bottom in parts).bit_length() - 1
        self.coefficients = [top << (self.digits + 1 - bottom.bit_length()) for top, bottom in parts]

    def normalised(self, d: Values) -> Values:
        """Divide by the norm and ε, with an error of two in the last place at most."""
        parts = [self.n._parts(x) for x in d.reshape(-1)]
        least = min(exponent for mantissa, exponent in parts if mantissa) if any(x for x, _ in parts) else 0
        whole = [mantissa << (exponent - least) if mantissa else 0 for mantissa, exponent in parts]
        more = self.bits + 32
        root = math.isqrt(sum(x * x for x in whole) << 2 * more)  # in units of 2**(least - more)
        top, bottom = self.eps
        digits = bottom.bit_length() - 1
        fine = max(more - least, digits)
        norm, floor = root << (fine - more + least), top << (fine - digits)
        divisor = max(norm, floor) if self.least else norm + floor
        shift = least + fine + self.bits
        return np.array([(x << shift) // divisor for x in whole], object).reshape(d.shape)

    def applied(self, x: Values) -> Values:
        """Apply the polynomial once."""
        a, b, c = self.coefficients
        gram = x @ x.T >> self.bits
        square = b * gram + c * (gram @ gram >> self.bits) >> self.digits
        return np.asarray((a * x >> self.digits) + (square @ x >> self.bits))

    def floats(self, x: Values) -> Matrix:
        """Convert to float64."""
        floats: Matrix = np.ldexp(x.astype(np.float64), -self.bits)
        return floats

    def numbers(self, x: Values) -> tuple[Values, float]:
        """Round to the numbers of the context, and bound what that loses."""
        unit: Any = self.n.number(math.ldexp(1.0, -self.bits))
        numbers = self.n.objects([self.n.number(int(value)) * unit for value in x.reshape(-1)])
        return numbers.reshape(x.shape), norm(self.floats(x)) * math.ldexp(1.0, 1 - self.n.bits)
