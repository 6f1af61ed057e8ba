r"""Balls: a value with a certified radius, the model behind the acceptance interval.

The centre of a ball is what exact arithmetic gives; the radius bounds how far a correct backend may be from it after
rounding every operation, in any of the published evaluation orders. Every rule here is one line of the model that
the guide on the interval proves:

* an operation + − × ÷ √ carries its operands' radii on and adds u·(\|result\| + radius) + η;
* a hyperparameter is exact until it meets an array, where it is rounded into the array's format once;
* a sum of n terms in any order adds n·(u·Σ(\|x\| + r) + η)/(1 − nu), exact zeros not counted;
* an exact zero adds nothing, \|x\| and max round nothing, a subnormal input may be taken for zero;
* Newton–Schulz has one bound for its whole matrix, in the Frobenius norm, beside radii of 0;
* an interpolation with any decay, where it is asked for, adds 5u·(\|x\| + \|y\|) + 4η;
* what cannot be bounded has an infinite radius, and keeps it: such an element is not tested.
"""

from __future__ import annotations

import contextlib
import math
import operator
from typing import Any

import numpy as np
import numpy.typing as npt

from mlx_optimizers.kinds import FloatArray, Operand, Shape
from mlx_optimizers.oracle.exact import (
    Arithmetic,
    Array,
    Double,
    Exact,
    Operation,
    Radius,
    Scalar,
    Values,
    reduced,
    terms,
)
from mlx_optimizers.oracle.formats import FORMATS, Format, Scalars
from mlx_optimizers.oracle.newton_schulz import certified

__all__ = ["Ball", "Coefficient", "Rounded", "Scalars", "error_ratio", "norm_ratio"]

_OWN = 4 * 2.0**-53  # what an operation on float64 centres, and on the radii themselves, may lose
_ROOT = 0.004  # what theorem 7 takes more of √(x + r) where x ≤ r


class Coefficient(Arithmetic):
    """A scalar formed from hyperparameters: exact, with a radius for the arithmetic of a backend.

    In double precision the radius is far below what float32 can show; in float32 it is not.
    """

    __slots__ = ("ball", "context", "radius", "value")

    def __init__(self, context: Rounded, value: Scalar, radius: float) -> None:
        self.context = context
        self.value = value
        self.radius = radius
        self.ball: Ball | None = None
        """This number where it has met an array; None as long as it has not."""

    def __int__(self) -> int:
        return int(self.value)

    def __eq__(self, other: object) -> bool:
        return bool(self.value == (other.value if isinstance(other, Coefficient) else other))

    __hash__ = None  # type: ignore[assignment]

    def __pow__(self, power: int) -> Coefficient:
        value = self.value**power
        return Coefficient(self.context, value, 2 * power * self.context.scalar_roundoff * abs(float(value)))

    def _combine(self, operation: Operation, left: Any, right: Any) -> Any:
        if not (isinstance(left, Coefficient | int) and isinstance(right, Coefficient | int)):
            return NotImplemented
        exact = self.context.exact
        a, b = (Coefficient(self.context, x, 0.0) if isinstance(x, int) else x for x in (left, right))
        x, y = abs(float(a.value)), abs(float(b.value))
        if operation is operator.truediv:
            operation = exact.quotient_or_nan
            radius = (x * b.radius + y * a.radius) / (y * (y - b.radius)) if y > b.radius else math.inf
        elif operation is operator.mul:
            radius = x * b.radius + y * a.radius + a.radius * b.radius
        else:
            radius = a.radius + b.radius
        return self._result(operation(a.value, b.value), radius)

    def _result(self, value: Scalar, radius: float) -> Coefficient:
        """Round the result of an operation once in the scalars' format."""
        n = self.context
        if value != 0 or radius != 0:
            radius = radius + n.scalar_roundoff * (abs(float(value)) + radius) + n.scalar_underflow
        return Coefficient(n, value, radius if math.isfinite(radius) else math.inf)


class Ball(Arithmetic):
    """Values with radii, elementwise: arithmetic as in `Array`, rounding as in the model.

    Args:
        context: The model, with its format.
        centre: The exact values.
        inner: How far off a backend's values may be, each by itself; infinite where nothing is known.
        size: ``|centre|`` in float64, where that is known already.
        norm: How far off all of them together may be besides, in the Frobenius norm.
    """

    __slots__ = ("_nothing", "_size", "centre", "context", "inner", "norm", "scaled")
    called = "a ball"

    def __init__(
        self, context: Rounded, centre: Array, inner: Radius, size: Radius | None = None, norm: float = 0.0
    ) -> None:
        self.context = context
        self.centre = centre
        self.inner = inner
        self.norm = norm
        self._size = size
        self._nothing: npt.NDArray[np.bool_] | None = None
        self.scaled: Radius | None = None
        """Where this is a coefficient times a ball, how large the ball may be; None otherwise."""

    @property
    def radius(self) -> Radius:
        """How far off each of a backend's values may be."""
        return self.inner + self.norm if self.norm else self.inner

    @property
    def size(self) -> Radius:
        """``|centre|`` in float64."""
        if self._size is None:
            self._size = self.context.centre.magnitude(self.centre.values)
        return self._size

    @property
    def nothing(self) -> npt.NDArray[np.bool_]:
        """Where the value is an exact zero."""
        if self._nothing is None:
            self._nothing = (self.size == 0) & (self.radius == 0)
        return self._nothing

    def __neg__(self) -> Ball:
        return Ball(self.context, -self.centre, self.inner, self._size, self.norm)

    def _combine(self, operation: Operation, left: Operand, right: Operand) -> Ball:
        n = self.context
        a, b = n.ball(left), n.ball(right)
        if operation is operator.mul:
            out = n.product(a, b)
            if n.interpolating and (isinstance(left, Coefficient) or isinstance(right, Coefficient)):
                ball = a if left is a else b
                out.scaled = ball.size + ball.radius
            return out
        if operation is operator.truediv:
            return n.quotient(a, b)
        return n.sum(a, b, 1 if operation is operator.add else -1)


class Rounded:
    """The rounding model over one float format.

    Args:
        form: Format of the arrays.
        centre: Context of the centres: an `Exact`, or `Double` for a fast float64 search (float64 arrays need an
            `Exact`, since their radii are of the size of float64's own errors).
        scalars: Where a backend forms its coefficients (β, 1−β, 1/(1−βᵗ)): ``"double"`` or ``"float32"``.
        exact: Context of the coefficients; by default ``centre``, or a new `Exact` with `Double`.
        interpolating: Whether a program may compute βx + (1−β)y as x + (1−β)(y − x) or y + β(x − y), and βx + y as
            x + (y − (1−β)x), with any β in 0 … 1.

    Raises:
        ValueError: for an unknown ``scalars``, or float64 arrays with `Double` centres.

    Example:
        One addition of float32 numbers may be off by half an ulp; the model grants 1.5 times that.

        >>> import numpy as np
        >>> from mlx_optimizers.oracle import Exact, Rounded, format_of
        >>> n = Rounded(format_of("float32"), Exact())
        >>> total = n.array(np.float32([1.0])) + n.array(np.float32([2.0]))
        >>> bool(total.radius[0] == 3 * 1.5 * 2.0**-24 + 1.5 * 2.0**-126)
        True
    """

    def __init__(
        self,
        form: Format,
        centre: Exact | Double,
        scalars: Scalars = "double",
        exact: Exact | None = None,
        *,
        interpolating: bool = False,
    ) -> None:
        if scalars not in ("double", "float32"):
            raise ValueError(f"scalars must be 'double' or 'float32', not {scalars!r}")
        if isinstance(centre, Double) and form.name == "float64":
            raise ValueError("float64 arrays need exact centres")
        self.form = form
        self.centre = centre
        self.scalars = scalars
        self.interpolating = interpolating
        self.exact = exact or (centre if isinstance(centre, Exact) else Exact())
        self._own_centre = _OWN if isinstance(centre, Double) else 0.0
        self._unit = form.roundoff + self._own_centre
        scalar_form = FORMATS["float64" if scalars == "double" else "float32"]
        self._number_roundoff = scalar_form.roundoff if scalars == "float32" else 0.0  # a double is exact
        self.scalar_roundoff = scalar_form.roundoff
        self.scalar_underflow = scalar_form.underflow
        self._same_format = scalar_form == form
        self.unsure = False
        """Whether a sign was uncertain; the centres of its ball, and of what follows from it, are no exact values."""

    def active(self) -> contextlib.AbstractContextManager[Any]:
        """Return the context manager of a computation, as `Exact` does."""
        return self.exact.active()

    def array(self, values: npt.ArrayLike) -> Ball:
        """Convert an array of the format exactly; a subnormal carries its own size as radius."""
        centre = self.centre.array(values)
        size = self.centre.magnitude(centre.values)
        radius = np.where(size < self.form.tiny, size, 0.0)
        return Ball(self, centre, np.where(np.isfinite(size), radius, np.inf), size)

    def number(self, value: Scalar) -> Coefficient:
        """Convert a hyperparameter: a double, or the decimal or ratio that a string or Fraction spells."""
        exact = self.exact.number(value)
        return Coefficient(self, exact, self._number_roundoff * abs(float(exact)))

    def lift(self, coefficient: Operand) -> Ball:
        """Make a coefficient one number of the arrays' format, so that arithmetic with it rounds as theirs does."""
        return self.ball(coefficient)

    def cast(self, coefficient: Coefficient) -> Coefficient | Ball:
        """Make a coefficient a number of the arrays' format where coefficients are float32, as MLX does."""
        return coefficient if self._number_roundoff == 0 else self.ball(coefficient)

    def min(self, x: Coefficient, y: Coefficient) -> Coefficient:
        """Take the smaller of two coefficients."""
        return Coefficient(self, self.exact.min(x.value, y.value), max(x.radius, y.radius))

    def power(self, base: int, exponent: Coefficient) -> Coefficient:
        """Raise a positive integer to the power of a coefficient; the library's own function may be off by an ulp."""
        value = self.exact.power(base, exponent.value)
        off = exponent.radius * math.log(base)  # |bᵉ⁺ᵈ − bᵉ| is at most bᵉ·x·exp x, where x is |d|·ln b
        radius = float(value) * (off * math.exp(off) + self.scalar_roundoff) * (1 + _OWN)
        return exponent._result(value, radius)

    def ball(self, x: Operand) -> Ball:
        """Make an operand of an array a ball: a ball, an integer (exact), or a coefficient, rounded here."""
        if isinstance(x, Ball):
            return x
        if not isinstance(x, Coefficient):
            return Ball(self, self._single(self.exact.number(x)), np.zeros(1))
        if x.ball is None:
            x.ball = self._met(x)
        return x.ball

    def _met(self, x: Coefficient) -> Ball:
        """Round a coefficient into the format of the arrays."""
        size, radius = abs(float(x.value)), x.radius
        if size != 0 or radius != 0:
            if not self._same_format:
                radius += self.form.roundoff * (size + radius) + self.form.underflow
            radius += self._own_centre * size  # the centre itself was rounded to float64
        known = size + radius < self.form.limit  # False for NaN too
        return Ball(self, self._single(x.value), np.array([radius if known else math.inf]))

    def _single(self, value: Scalar) -> Array:
        if isinstance(self.centre, Exact):
            return Array(self.centre, self.centre.objects([value]))
        return self.centre.array([float(value)])

    def sum(self, a: Ball, b: Ball, sign: int) -> Ball:
        """a + b, or a − b for the sign −1."""
        centre = a.centre + b.centre if sign > 0 else a.centre - b.centre
        radius, nothing = a.inner + b.inner, a.nothing | b.nothing
        if self.interpolating and not (a.scaled is None and b.scaled is None):
            x, y = (ball.size + ball.radius if ball.scaled is None else ball.scaled for ball in (a, b))
            # The difference and the product round once each, 1−β twice; the products of the errors are below u.
            radius = radius + 5 * self.form.roundoff * (x + y) + 4 * self.form.underflow
            nothing = nothing & (x == 0) & (y == 0)
        return self._rounded(centre, radius, nothing, a.norm + b.norm)

    def product(self, a: Ball, b: Ball) -> Ball:
        """a · b."""
        radius = a.size * b.inner + b.size * a.inner + a.inner * b.inner
        norm = a.norm * b.norm
        for x, y in ((a, b), (b, a)):
            if x.norm:
                norm += x.norm * float(np.max(y.size + y.inner)) * (1 + _OWN)
        return self._rounded(a.centre * b.centre, radius, a.nothing | b.nothing, norm)

    def quotient(self, a: Ball, b: Ball) -> Ball:
        """a ÷ b; the radius is infinite where b may be zero."""
        least = self._least(b)
        known = least > 0
        radius = np.where(known, (a.size * (b.radius / b.size) + a.radius) / least, np.inf)
        centre = Array(self.centre, self.centre.quotient_or_nan(a.centre.values, b.centre.values))
        return self._rounded(centre, radius, a.nothing & known)

    def sqrt(self, x: Any) -> Any:
        """√x of a ball or a coefficient; ValueError where the centre is negative."""
        if isinstance(x, Coefficient):
            root = self.exact.sqrt(x.value)
            low = math.sqrt(max(float(x.value) - x.radius, 0.0))
            return x._result(root, x.radius / (float(root) + low) if x.radius else 0.0)
        size, off, least = x.size, x.radius, self._least(x)
        root, end = np.sqrt(size), np.sqrt(size + off)
        below = np.minimum(off, size) / (root + np.sqrt(np.maximum(least, 0.0)))
        above = off / (end + root) + np.where(least > 0, 0.0, _ROOT * end)
        radius = np.where(off == 0, 0.0, np.fmax(below, above))  # 0/0 below when the centre is zero
        radius = np.where(np.isfinite(off), radius, np.inf)
        return self._rounded(self.centre.sqrt(x.centre), radius, x.nothing)

    def abs(self, x: Ball) -> Ball:
        """Take ``|x|``."""
        return Ball(self, self.centre.abs(x.centre), x.radius)

    def max(self, x: Operand, y: Operand) -> Ball:
        """Take the larger of two."""
        a, b = self.ball(x), self.ball(y)
        return Ball(self, self.centre.max(a.centre, b.centre), np.maximum(a.radius, b.radius))

    def clip(self, x: Ball, bound: Operand) -> Ball:
        """Clip a ball to ±bound; what may be on either side of it has the larger radius."""
        b, least = self.ball(bound), self._least(x)
        inside, outside = x.size + x.radius < b.size - b.radius, least > b.size + b.radius
        radius = np.where(inside, x.radius, np.where(outside, b.radius, np.maximum(x.radius, b.radius)))
        return Ball(self, self.centre.clip(x.centre, b.centre.values), radius)

    @staticmethod
    def is_zero(x: Coefficient) -> bool:
        """Say whether a coefficient is 0."""
        return bool(x.value == 0)

    def where_zero(self, x: Ball, zero: Operand, other: Operand) -> Ball:
        """Take ``zero`` where a ball is exactly zero, and ``other`` elsewhere."""
        a, b, nothing = self.ball(zero), self.ball(other), x.nothing
        centre = Array(self.centre, np.where(nothing, a.centre.values, b.centre.values))
        unsure = ~nothing & ~(self._least(x) > 0)
        return Ball(self, centre, np.where(nothing, a.radius, np.where(unsure, np.inf, b.radius)))

    def sign(self, x: Ball) -> Ball:
        """Take the sign; the ball [−1, 1] where x may be of either sign."""
        unsure = ~(self._least(x) > 0) & ~x.nothing
        self.unsure |= bool(unsure.any())
        centre = np.where(unsure, self._single(self.exact.number(0)).values, self.centre.sign(x.centre).values)
        radius = np.where(np.isfinite(x.radius), np.where(unsure, 1.0, 0.0), np.inf)
        return Ball(self, Array(self.centre, centre), radius)

    def total(self, x: Ball, axis: int | None = None, *, keep: bool = False) -> Ball:
        """Add the elements of a ball along an axis, or all of them, in any order."""
        size, radius = np.broadcast_arrays(x.size, x.radius)
        own = 1 + terms(size, axis) * _OWN  # what the sums of radii may lose
        count = reduced(np.where((size == 0) & (radius == 0), 0.0, 1.0), axis, keep)
        carried, reach = reduced(radius, axis, keep) * own, reduced(size + radius, axis, keep) * own
        loss = count * self._unit
        grown = (carried + (loss * reach + count * self.form.underflow) / (1 - loss)) * (1 + _OWN)
        known = (loss < 1) & (reach < self.form.limit)  # False for NaN too
        radius = np.where(count > 1, np.where(known, grown, np.inf), carried)  # one term alone is not rounded
        return Ball(self, self.centre.total(x.centre, axis, keep=keep), radius)

    def mean(self, x: Ball, axis: int | None = None, *, keep: bool = False) -> Ball:
        """Take the mean along an axis, or of all elements; a program may divide, or multiply by the reciprocal."""
        count = self.exact.number(terms(x.size, axis))
        return self.total(x, axis, keep=keep) * Coefficient(self, self.exact.quotient_or_nan(1, count), 0.0)

    def expand(self, x: Ball, axis: int) -> Ball:
        """Insert an axis of length 1."""
        return Ball(self, self.centre.expand(x.centre, axis), np.expand_dims(x.radius, axis))

    @staticmethod
    def _least(x: Ball) -> Radius:
        """Bound ``|x|`` from below over the ball, not positive where the ball may hold zero."""
        return x.size * (1 - _OWN) - x.radius

    def _rounded(self, centre: Array, radius: Radius, nothing: npt.NDArray[np.bool_], norm: float = 0.0) -> Ball:
        """Round the ball once in the format; leave it where there is nothing to round.

        A radius that is infinite stays so, also where zero times infinity has made it NaN.
        """
        size = self.centre.magnitude(centre.values)
        reach = size + norm if norm else size
        grown = radius * (1 + _OWN) + self._unit * (reach + radius) + self.form.underflow
        radius = np.where(nothing, radius, grown)
        inside = reach + radius < self.form.limit  # False for NaN too
        known = norm * (1 + _OWN) if math.isfinite(norm) else 0.0  # nothing is inside then
        return Ball(self, centre, np.where(inside, radius, np.inf), size, known)

    @staticmethod
    def shape(x: Ball) -> Shape:
        """Return the shape of a ball; a number has one axis."""
        shape: Shape = np.broadcast_shapes(x.size.shape, x.inner.shape)
        return shape

    def orthogonalized(self, x: Ball, steps: int, *, half: bool = False, **varied: Any) -> Ball:
        """Take Newton–Schulz of a ball, as a matrix with its first axis for rows; the bound is the norm.

        In 16 bits, where wrong programs are inside the bound as well, nothing counts as known.
        """
        shape = self.shape(x)
        values, inner = (np.broadcast_to(y, shape).reshape(shape[0], -1) for y in (x.centre.values, x.inner))
        found = certified(self.centre, self.form, values, inner, steps, self.scalars, beyond=x.norm, **varied)
        known = math.isfinite(found.radius) and not half and self.form.precision >= FORMATS["float32"].precision
        radius = np.full(shape, 0.0 if known else math.inf)
        return Ball(self, Array(self.centre, found.centre.reshape(shape)), radius, norm=found.radius if known else 0.0)


def error_ratio(n: Exact | Double, centre: Values, radius: Radius, got: FloatArray, norm: float = 0.0) -> Radius:
    """Divide the distance of floats from the centre of a ball by its radius, elementwise.

    The ratio is 0 where both are equal, for every radius, and infinite for a NaN or an infinity. With a norm, the
    element that is farthest off has that of the whole where it is greater: see `norm_ratio`.

    Args:
        n: The context of the centre.
        centre: The exact values.
        radius: The radii, each with the norm.
        got: The floats.
        norm: What the radii have of the norm; default 0.
    """
    values = got.astype(np.float64)
    finite = np.isfinite(values)
    with np.errstate(all="ignore"):
        error = np.abs(n.array(np.where(finite, values, 0.0)).values - centre).astype(np.float64)
        ratio = np.where(finite, np.where(error == 0, 0.0, error / radius), np.inf)
    if norm:
        whole, place = norm_ratio(np.where(finite, error, np.inf), radius, norm)
        ratio.reshape(-1)[place] = max(ratio.reshape(-1)[place], whole)
    return ratio


def norm_ratio(error: Radius, radius: Radius, norm: float) -> tuple[float, int]:
    """Divide the norm of what is beyond the elements' own radii by the norm that is allowed.

    Args:
        error: How far off each element is.
        radius: The radii, each with the norm; what is untested, with an infinite one, counts as 0.
        norm: The norm.

    Returns:
        The ratio, above 1 where a program is outside, and the place of the element that is farthest off.
    """
    with np.errstate(all="ignore"):
        own = (radius - norm) * (1 + _OWN) + norm * _OWN
        over = np.where(np.isfinite(radius), np.maximum(error - own, 0.0), 0.0)
        ratio = float(np.sqrt(np.sum(np.square(over / norm)))) / (1 + over.size * _OWN)
    return ratio, int(np.argmax(over))
