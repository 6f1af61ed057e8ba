"""Exact arithmetic at a working precision that makes its own rounding irrelevant: mpmath, or MPFR through gmpy2.

Both libraries round + − × ÷ √ correctly to the precision asked for, so that they give the same numbers bit for bit;
mpmath is the authority and always there, MPFR is some thirty times faster. A formula is evaluated over an
`Array` of such numbers, while hyperparameters stay the library's own scalars: what `1 - b1` gives is a scalar again.
"""

from __future__ import annotations

import contextlib
import decimal
import importlib.util
import math
import operator
from collections.abc import Callable, Iterator
from decimal import Decimal
from fractions import Fraction
from functools import cached_property
from typing import Any, Literal, Self

import mpmath
import numpy as np
import numpy.typing as npt

from mlx_optimizers.kinds import FloatArray, Operand, Shape
from mlx_optimizers.newton_schulz import COEFFICIENTS
from mlx_optimizers.oracle.fixed_point import exactly
from mlx_optimizers.oracle.formats import Direction, Format

__all__ = ["Arithmetic", "Array", "Context", "Double", "Exact", "Library", "Ranged"]

Library = Literal["mpmath", "gmpy2"]

Scalar = Any
"""A number of mpmath or MPFR, which have no types, or a float."""

Values = npt.NDArray[Any]
"""An array of such numbers, of objects or of float64."""

Radius = npt.NDArray[np.float64]

Operation = Callable[[Any, Any], Any]
"""One of the operators that are functions of the module `operator`."""


class Arithmetic:
    """The operators, which the class of a number computes in one place: by `_combine`."""

    __slots__ = ()
    __array_ufunc__ = None  # NumPy leaves the arithmetic to this class

    called: str
    """What a message calls a number of the class."""

    def _combine(self, operation: Operation, left: Operand, right: Operand) -> Self:
        """Apply ``add``, ``sub``, ``mul`` or ``truediv`` to two operands, one of which is this number."""
        raise NotImplementedError

    def __add__(self, other: Operand) -> Self:
        return self._combine(operator.add, self, other)

    __radd__ = __add__

    def __sub__(self, other: Operand) -> Self:
        return self._combine(operator.sub, self, other)

    def __rsub__(self, other: Operand) -> Self:
        return self._combine(operator.sub, other, self)

    def __mul__(self, other: Operand) -> Self:
        return self._combine(operator.mul, self, other)

    __rmul__ = __mul__

    def __truediv__(self, other: Operand) -> Self:
        return self._combine(operator.truediv, self, other)

    def __rtruediv__(self, other: Operand) -> Self:
        return self._combine(operator.truediv, other, self)

    def __pow__(self, power: int) -> Self:
        if power != 2:
            raise ValueError(f"{self.called} is raised to the power 2 alone, not {power}")
        return self * self


class Array(Arithmetic):
    """Numbers of one context with elementwise arithmetic.

    Args:
        context: Where the operations come from that NumPy cannot be trusted with.
        values: The numbers; an object array in an exact context.
    """

    __slots__ = ("context", "values")
    called = "an array"

    def __init__(self, context: Context, values: Values) -> None:
        self.context = context
        self.values = values

    def __neg__(self) -> Array:
        return self.context.wrap(-self.values)

    def _combine(self, operation: Operation, left: Operand, right: Operand) -> Array:
        apply = self.context.quotient if operation is operator.truediv else operation
        return self.context.wrap(apply(_values(left), _values(right)))


class Context:
    """What `Exact` and `Double` have in common: the operations of a formula that are no operators.

    Every computation with its numbers runs under ``with context.active():``.
    """

    number: Callable[[Scalar | str | Fraction], Scalar]
    quotient: Callable[..., Values]
    quotient_or_nan: Callable[..., Values]
    _sqrt: Callable[[Scalar], Scalar]
    _sign: Callable[[Values], Values]
    _maximum: Callable[..., Values]

    def active(self) -> contextlib.AbstractContextManager[Any]:
        """Return what a computation enters: NumPy is silent about NaN and infinities, which are values here."""
        return np.errstate(all="ignore")

    def wrap(self, values: Values) -> Array:
        """Wrap the result of an operation."""
        return Array(self, values)

    def sqrt(self, x: Scalar) -> Scalar:
        """Take √x of an array or a coefficient; ValueError where x is negative."""
        return self.wrap(self._sqrt(x.values)) if isinstance(x, Array) else self._sqrt(x)

    def sign(self, x: Array) -> Array:
        """Take the sign, −1, 0 or 1, elementwise."""
        return self.wrap(self._sign(x.values))

    def abs(self, x: Array) -> Array:
        """Take ``|x|``, elementwise."""
        return self.wrap(abs(x.values))

    def max(self, x: Scalar, y: Scalar) -> Array:
        """Take the larger of two, elementwise, one of which is an array; NaN where either is."""
        left, right = (self.number(z) if isinstance(z, int) else _values(z) for z in (x, y))
        return self.wrap(self._maximum(left, right))

    def clip(self, x: Array, bound: Scalar) -> Array:
        """Clip an array to ±bound, elementwise."""
        least = self._maximum(x.values, -bound)
        return self.wrap(-self._maximum(-least, -bound))

    @staticmethod
    def is_zero(x: Scalar) -> bool:
        """Say whether a coefficient is 0."""
        return bool(x == 0)

    def where_zero(self, x: Array, zero: Scalar, other: Scalar) -> Array:
        """Take ``zero`` where an array is exactly zero, and ``other`` elsewhere."""
        left, right = (self.number(z) if isinstance(z, int) else _values(z) for z in (zero, other))
        return self.wrap(np.where(x.values == 0, left, right))

    def min(self, x: Scalar, y: Scalar) -> Scalar:
        """Take the smaller of two coefficients."""
        return min(x, y)

    def total(self, x: Array, axis: int | None = None, *, keep: bool = False) -> Array:
        """Add the elements of an array along an axis, or all of them; ``keep`` leaves an axis of length 1."""
        return self.wrap(reduced(x.values, axis, keep))

    def mean(self, x: Array, axis: int | None = None, *, keep: bool = False) -> Array:
        """Take the mean along an axis, or of all elements."""
        mean: Array = self.total(x, axis, keep=keep) / self.number(terms(x.values, axis))
        return mean

    def expand(self, x: Array, axis: int) -> Array:
        """Insert an axis of length 1."""
        return self.wrap(np.expand_dims(x.values, axis))

    def shape(self, x: Array) -> Shape:
        """Return the shape of an array; a number has one axis."""
        shape: Shape = x.values.shape
        return shape

    def lift(self, x: Scalar) -> Scalar:
        """Make a coefficient a number of the arrays' own format; exactly the same number here."""
        return x

    def cast(self, x: Scalar) -> Scalar:
        """Convert a coefficient to the arrays' format where coefficients are float32; the same number here."""
        return x


def terms(values: Values, axis: int | None) -> int:
    """Count the elements that a sum along an axis adds."""
    return values.size if axis is None else values.shape[axis]


def _values(x: Scalar) -> Scalar:
    return x.values if isinstance(x, Array) else x


def reduced(values: Values, axis: int | None, keep: bool) -> Values:
    """Add along an axis, or all; what has no axis left becomes an array of one number."""
    return np.atleast_1d(np.sum(values, axis=axis, keepdims=keep))


_FASTEST: Library = "gmpy2" if importlib.util.find_spec("gmpy2") else "mpmath"


class Exact(Context):
    """Numbers of a fixed binary precision, by mpmath or by MPFR.

    Args:
        bits: Working precision, at least 64; default 200.
        library: ``"mpmath"`` or ``"gmpy2"``; by default gmpy2 where it is installed.

    Raises:
        ValueError: for fewer than 64 bits or an unknown library.
        ImportError: for gmpy2 when it is not installed.

    Example:
        >>> from mlx_optimizers.oracle import Exact
        >>> n = Exact(bits=100, library="mpmath")
        >>> with n.active():
        ...     third = n.number("1/3")
        ...     (third + third + third) == 1
        True
    """

    def __init__(self, bits: int = 200, library: Library | None = None) -> None:
        if bits < 64:
            raise ValueError(f"bits must be at least 64, not {bits}")
        library = _FASTEST if library is None else library
        if library not in ("mpmath", "gmpy2"):
            raise ValueError(f"library must be 'mpmath' or 'gmpy2', not {library!r}")
        self.bits = bits
        self.library = library
        root, nan = self._bind_mpmath() if library == "mpmath" else self._bind_gmpy2()

        def quotient(a: Scalar, b: Scalar) -> Scalar:
            if b == 0:
                if a == 0 or a != a:
                    return nan  # 0/0 has no value; the element is not tested
                raise ZeroDivisionError(f"division of {a} by zero")
            return a / b

        def square_root(x: Scalar) -> Scalar:
            if x < 0:
                raise ValueError(f"square root of the negative number {x}")
            return root(x)

        zero, one = self.number(0), self.number(1)
        self._one, self.nan, self._infinities = one, nan, (self.number(np.inf), self.number(-np.inf))
        self.quotient_or_nan = np.frompyfunc(lambda a, b: nan if b == 0 else a / b, 2, 1)
        self.quotient = np.frompyfunc(quotient, 2, 1)
        self._sqrt = np.frompyfunc(square_root, 1, 1)
        self._sign = np.frompyfunc(lambda x: one if x > 0 else -one if x < 0 else zero if x == 0 else x, 1, 1)
        self._maximum = np.frompyfunc(lambda x, y: x if x >= y or x != x else y, 2, 1)

    def _bind_mpmath(self) -> tuple[Callable[[Scalar], Scalar], Scalar]:
        private = mpmath.MPContext()
        private.prec = self.bits

        def ratio(x: Fraction) -> Scalar:
            return private.make_mpf(mpmath.libmp.from_rational(x.numerator, x.denominator, self.bits, "n"))

        def parts(x: Scalar) -> tuple[int, int]:
            sign, mantissa, exponent, _ = x._mpf_
            return (-int(mantissa) if sign else int(mantissa)), int(exponent)

        self._number, self._ratio, self._parts = private.mpf, ratio, parts
        return private.sqrt, private.nan

    def _bind_gmpy2(self) -> tuple[Callable[[Scalar], Scalar], Scalar]:
        import gmpy2

        def ratio(x: Fraction) -> Scalar:
            return gmpy2.mpfr(gmpy2.mpq(x))

        def parts(x: Scalar) -> tuple[int, int]:
            mantissa, exponent = x.as_mantissa_exp()
            return int(mantissa), int(exponent)

        self._gmpy2, self._number, self._ratio, self._parts = gmpy2, gmpy2.mpfr, ratio, parts
        return gmpy2.sqrt, gmpy2.nan()

    def number(self, x: Scalar | str | Fraction) -> Scalar:
        """Convert a float or an integer exactly; round the decimal or ratio that a string or Fraction spells."""
        with self._precision():
            if isinstance(x, str | Fraction):
                return self._ratio(Fraction(x))
            return self._number(x if isinstance(x, int) else float(x))

    @contextlib.contextmanager
    def active(self) -> Iterator[None]:
        """Return what a computation enters: it sets MPFR's precision, and mpmath's NaN and infinities raise no flags.

        They are made by arithmetic that NumPy would warn of.
        """
        with super().active(), self._precision():
            yield

    def _precision(self) -> contextlib.AbstractContextManager[Any]:
        """Return the context of the precision, which in MPFR belongs to the thread and is 53 bits at first."""
        if self.library == "gmpy2":
            return self._gmpy2.context(precision=self.bits)  # type: ignore[no-any-return]
        return contextlib.nullcontext()

    def array(self, values: npt.ArrayLike) -> Array:
        """Convert an array of floats exactly, one number to one axis; ±inf and NaN stay what they are."""
        floats = np.atleast_1d(values).astype(np.float64).astype(object)
        with self.active():
            return self.wrap(floats * self._one)  # exactly; to convert each takes MPFR seven times as long

    @cached_property
    def _wide(self) -> mpmath.MPContext:
        wide = mpmath.MPContext()
        wide.prec = self.bits + 64
        return wide

    def power(self, base: int, exponent: Scalar) -> Scalar:
        """Raise a positive integer to the power of a coefficient, by mpmath with 64 bits more, and round once."""
        wide = self._wide
        _, mantissa, scale, _ = (wide.mpf(base) ** wide.ldexp(*self._parts(exponent)))._mpf_
        return self.number(int(mantissa) * Fraction(2) ** int(scale))

    @staticmethod
    def objects(numbers: list[Scalar]) -> Values:
        """Put numbers into a one-dimensional object array."""
        return np.array(numbers, object)

    def magnitude(self, values: Values) -> Radius:
        """Take ``|values|`` in float64, within one rounding."""
        return abs(values.astype(np.float64))

    def round(self, x: Scalar, form: Format, direction: Direction = "nearest") -> float:
        """Round a number once into a float format; see `Format.round`."""
        if x != x or x in self._infinities:
            return float(x)
        return form.round(*self._parts(x), direction)

    def rounded(self, values: Values, form: Format, direction: Direction = "nearest") -> FloatArray:
        """Round each number of an array once into a float format, as `round` does; they come in float64.

        The float64 next to a number decides for most of them; the others are rounded one by one.
        """
        with np.errstate(all="ignore"):
            out, decided = form.by_double(values.astype(np.float64), direction)
        for place in np.flatnonzero(~decided):
            out.flat[place] = self.round(values.flat[place], form, direction)
        return out

    narrow: Format | None = None
    """The format to which coefficients of Newton–Schulz are rounded, as some programs in 16 bits do; or None."""

    def orthogonalized(self, x: Array, steps: int, *, half: bool = False, **varied: Any) -> Array:
        """Take Newton–Schulz of an array, as a matrix with its first axis for rows."""
        matrix = x.values.reshape(x.values.shape[0], -1)
        if self.narrow is not None:
            a, b, c = varied.get("coefficients", COEFFICIENTS)
            varied["coefficients"] = (*self.narrow.rounded(np.array([a, b])).tolist(), c)
        return self.wrap(exactly(self, matrix, steps, **varied).reshape(x.values.shape))

    def text(self, x: Scalar, digits: int = 30) -> str:
        """Write a number as decimal text of so many significant digits; both libraries give the same text."""
        if x != x or x in self._infinities:
            return str(float(x))
        mantissa, exponent = self._parts(x)
        with decimal.localcontext() as context:
            context.prec, context.Emax, context.Emin = decimal.MAX_PREC, decimal.MAX_EMAX, decimal.MIN_EMIN
            value = Decimal(mantissa)
            value = value * 2**exponent if exponent >= 0 else (value * 5**-exponent).scaleb(exponent)
            context.prec = digits
            return str((+value).normalize())


class Ranged(Exact):
    """Exact numbers within the range of a format: what it rounds to zero or to an infinity becomes that.

    Args:
        form: The format.
        library: As for `Exact`.
    """

    def __init__(self, form: Format, *, library: Library | None = None) -> None:
        super().__init__(library=library)

        def fit(x: Any) -> Any:
            near = self.round(x, form)
            return x if near and math.isfinite(near) else self.number(near)

        self._fit = np.frompyfunc(fit, 1, 1)

    def wrap(self, values: Values) -> Array:
        """Make an array of numbers, those within the range as they are."""
        return Array(self, self._fit(values))


class Double(Context):
    """Float64 arrays under the interface of `Exact`: fast, and exact enough where the error is carried along."""

    number = float
    quotient = np.divide
    _sign = np.sign
    _maximum = np.maximum

    @staticmethod
    def quotient_or_nan(a: Values, b: Values) -> Values:
        """Divide elementwise; NaN where the divisor is zero."""
        return np.where(b == 0, np.nan, np.divide(a, b))

    @staticmethod
    def _sqrt(x: Scalar) -> Scalar:
        if np.any(np.asarray(x) < 0):
            raise ValueError("square root of a negative number")
        return np.sqrt(x)

    def array(self, values: npt.ArrayLike) -> Array:
        """Convert an array of floats to float64, one number to one axis."""
        return Array(self, np.atleast_1d(values).astype(np.float64))

    def magnitude(self, values: Values) -> Radius:
        """Take ``|values|``."""
        return abs(values)
