"""Balls in float64 for many cases at once: the model of `Rounded`, for a search that the oracle confirms afterwards.

The arrays have an axis for the cases and one for the elements, and hyperparameters are arrays of a number for each
case, so that one operation of NumPy serves all cases. Where a search looks for a constant, an axis in front of them
has one of its values each. Values that many formulas have in common have a key: an operation between two of them is
computed once for all formulas.
"""

from __future__ import annotations

import operator
from typing import Any

import numpy as np
import numpy.typing as npt

from mlx_optimizers.oracle.exact import Arithmetic, Operation, Radius
from mlx_optimizers.oracle.formats import FORMATS, Format, Scalars

__all__ = ["Many", "Stacked"]

_OWN = 4 * 2.0**-53
_MEMORY = 3e8
"""Bytes of shared values, beyond which all are forgotten."""

_NAMES = {operator.add: "add", operator.sub: "sub", operator.mul: "mul", operator.truediv: "div"}


class Many(Arithmetic):
    """Centres and radii, in arrays that broadcast.

    Args:
        context: The context.
        centre: The values.
        radius: How far a program may be from each.
        scalar: Whether a program forms it from hyperparameters alone.
        key: A number by which it is known where formulas share it; 0 where they do not.
    """

    __slots__ = ("centre", "context", "key", "radius", "scalar")
    called = "a stack"

    def __init__(self, context: Stacked, centre: Any, radius: Any, scalar: bool = False, key: int = 0) -> None:
        self.context, self.centre, self.radius, self.scalar, self.key = context, centre, radius, scalar, key

    def __neg__(self) -> Many:
        return self.context.once("neg", self)

    def __pow__(self, power: int) -> Many:
        return self.context.once("pow", self, self.context.of(power)) if self.scalar else self * self

    def _combine(self, operation: Operation, left: Any, right: Any) -> Many:
        n = self.context
        return n.once(_NAMES[operation], n.of(left), n.of(right))


class Stacked:
    """The context.

    Args:
        form: Format of the arrays.
        scalars: The coefficient precision, as in `Rounded`.
    """

    def __init__(self, form: Format, scalars: Scalars) -> None:
        scalar_form = FORMATS["float64" if scalars == "double" else "float32"]
        self.form = form
        self._u, self._eta = form.roundoff + _OWN, form.underflow
        self._scalar_u = scalar_form.roundoff + (_OWN if scalars == "double" else 0.0)
        self._given = scalar_form.roundoff if scalars == "float32" else 0.0
        self._same = scalar_form == form
        self._memo: dict[Any, Many] = {}
        self._inputs: dict[Any, Many] = {}
        self._keys = self._bytes = 0

    # The inputs.

    def shared(self, x: Many) -> Many:
        """Give a value a key, by which operations on it are computed once."""
        self._keys += 1
        x.key = self._keys
        return x

    def input(self, name: Any, kind: str, values: Any) -> Many:
        """Convert values that all formulas share, once for each name.

        Args:
            name: The name.
            kind: ``"number"``: a hyperparameter; ``"array"``: exact; ``"kept"``: what a program may hold in more digits
                than it shows.
            values: The values.
        """
        if name not in self._inputs:
            self._inputs[name] = self.shared(getattr(self, kind)(values))
        return self._inputs[name]

    def number(self, values: npt.ArrayLike) -> Many:
        """Convert a hyperparameter: a number, or one for each case."""
        centre = np.asarray(values, np.float64)
        return Many(self, centre, self._given * np.abs(centre), True)

    def array(self, values: Any) -> Many:
        """Convert numbers of the format; a subnormal one may be taken for zero."""
        size = np.abs(values)
        return Many(self, values, np.where(np.isfinite(values), np.where(size < self.form.tiny, size, 0.0), np.inf))

    def kept(self, values: Any) -> Many:
        """Convert what a program has after a step: it may hold more digits than it shows."""
        return Many(self, values, np.where(np.isfinite(values), self._u * np.abs(values) + self._eta, np.inf))

    def of(self, x: Any) -> Many:
        """Convert a whole number, which is exact."""
        if isinstance(x, Many):
            return x
        if ("whole", x) not in self._inputs:
            self._inputs["whole", x] = self.shared(Many(self, np.float64(x), np.zeros(1), True))
        return self._inputs["whole", x]

    # The operations.

    def once(self, name: str, *operands: Many) -> Many:
        """Compute an operation, once for all formulas where every operand has a key."""
        if not all(x.key for x in operands):
            out: Many = getattr(self, f"_{name}")(*operands)
            return out
        key = (name, *(x.key for x in operands))
        if key not in self._memo:
            out = self.shared(getattr(self, f"_{name}")(*operands))
            self._bytes += np.asarray(out.centre).nbytes + np.asarray(out.radius).nbytes
            if self._bytes > _MEMORY:
                self._memo.clear()
                self._bytes = 0
            self._memo[key] = out
        return self._memo[key]

    def lift(self, x: Any) -> Many:
        """Make a coefficient a number of the arrays' format."""
        x = self.of(x)
        return self.once("lift", x) if x.scalar else x

    def cast(self, x: Any) -> Many:
        """Make a coefficient a number of the arrays' format where coefficients are float32."""
        return self.lift(x) if self._given else x

    def sqrt(self, x: Any) -> Many:
        """√x; NaN where x is negative."""
        return self.once("sqrt", x)

    def abs(self, x: Many) -> Many:
        """Take ``|x|``."""
        return self.once("abs", x)

    def max(self, x: Any, y: Any) -> Many:
        """Take the larger of two."""
        return self.once("max", self.lift(x), self.lift(y))

    def sign(self, x: Many) -> Many:
        """Take the sign; the ball [−1, 1] where x may be of either."""
        return self.once("sign", x)

    def clip(self, x: Many, bound: Any) -> Many:
        """Clip to ±bound."""
        return self.once("clip", x, self.lift(bound))

    @staticmethod
    def is_zero(x: Many) -> bool:
        """Say whether a hyperparameter is 0 in all cases: none is in some alone, see `Stack`."""
        return bool((x.centre == 0).all())

    def where_zero(self, x: Many, zero: Any, other: Any) -> Many:
        """Take ``zero`` where x is exactly zero, and ``other`` elsewhere."""
        return self.once("where", x, self.lift(zero), self.lift(other))

    def _pair(self, a: Many, b: Many) -> tuple[Many, Many, bool]:
        if a.scalar != b.scalar:
            a, b = self.lift(a), self.lift(b)
        return a, b, a.scalar

    def _lift(self, x: Many) -> Many:
        size = np.abs(x.centre)
        grown = x.radius + (_OWN * size if self._same else self._u * (size + x.radius) + self._eta)
        whole = (x.radius == 0) & (x.centre == np.rint(x.centre)) & (size <= 2)  # exact in every format
        grown = np.where(size + grown < self.form.limit, grown, np.inf)
        return Many(self, x.centre, np.where(whole, 0.0, grown))

    def _rounded(self, centre: Any, radius: Radius, scalar: bool) -> Many:
        u, size = self._scalar_u if scalar else self._u, np.abs(centre)
        grown = radius * (1 + _OWN + u) + u * size
        if not scalar:
            grown = np.where(size + radius < self.form.limit, grown + self._eta, np.inf)
        return Many(self, centre, np.where((centre == 0) & (radius == 0), 0.0, grown), scalar)

    def _neg(self, x: Many) -> Many:
        return Many(self, -x.centre, x.radius, x.scalar)

    def _add(self, a: Many, b: Many) -> Many:
        a, b, scalar = self._pair(a, b)
        return self._rounded(a.centre + b.centre, a.radius + b.radius, scalar)

    def _sub(self, a: Many, b: Many) -> Many:
        a, b, scalar = self._pair(a, b)
        return self._rounded(a.centre - b.centre, a.radius + b.radius, scalar)

    def _mul(self, a: Many, b: Many) -> Many:
        a, b, scalar = self._pair(a, b)
        radius = np.abs(a.centre) * b.radius + (np.abs(b.centre) + b.radius) * a.radius
        return self._rounded(a.centre * b.centre, np.where(np.isnan(radius), np.inf, radius), scalar)

    def _div(self, a: Many, b: Many) -> Many:
        a, b, scalar = self._pair(a, b)
        size = np.abs(b.centre)
        least = size * (1 - _OWN) - b.radius
        radius = np.where(least > 0, (np.abs(a.centre) * (b.radius / size) + a.radius) / least, np.inf)
        return self._rounded(np.where(b.centre == 0, np.nan, a.centre / b.centre), radius, scalar)

    def _pow(self, a: Many, b: Many) -> Many:
        power = float(b.centre)
        value = a.centre**power
        return Many(self, value, 2 * abs(power) * self._scalar_u * np.abs(value), True)

    def _sqrt(self, x: Many) -> Many:
        root, size = np.sqrt(x.centre), np.abs(x.centre)
        if x.scalar:
            return self._rounded(root, np.where(x.radius == 0, 0.0, x.radius / root), True)
        low = np.sqrt(np.maximum(size * (1 - _OWN) - x.radius, 0.0))
        radius = np.where(size == 0, np.sqrt(x.radius), x.radius / (np.sqrt(size) + low))
        return self._rounded(root, np.where(np.isnan(radius) & (x.centre >= 0), np.inf, radius), False)

    def _abs(self, x: Many) -> Many:
        return Many(self, np.abs(x.centre), x.radius)

    def _max(self, a: Many, b: Many) -> Many:
        return Many(self, np.maximum(a.centre, b.centre), np.maximum(a.radius, b.radius))

    def _clip(self, x: Many, b: Many) -> Many:
        size = np.abs(x.centre)
        inside, outside = size + x.radius < b.centre - b.radius, size - x.radius > b.centre + b.radius
        radius = np.where(inside, x.radius, np.where(outside, b.radius, np.maximum(x.radius, b.radius)))
        return Many(self, np.clip(x.centre, -b.centre, b.centre), radius)

    def _sign(self, x: Many) -> Many:
        unsure = (np.abs(x.centre) <= x.radius) & (x.radius > 0)
        return Many(self, np.where(unsure, 0.0, np.sign(x.centre)), np.where(unsure, 1.0, 0.0))

    def _where(self, x: Many, zero: Many, other: Many) -> Many:
        nothing = (x.centre == 0) & (x.radius == 0)
        unsure = ~nothing & (np.abs(x.centre) <= x.radius)
        radius = np.where(nothing, zero.radius, np.where(unsure, np.inf, other.radius))
        return Many(self, np.where(nothing, zero.centre, other.centre), radius)
