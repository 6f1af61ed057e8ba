"""What a formula is written over: the types of its numbers, of the contexts that they belong to, and of arrays."""

from __future__ import annotations

from typing import Any, Protocol, TypeAlias

import numpy as np
import numpy.typing as npt

__all__ = ["FloatArray", "Number", "Numbers", "Operand"]

FloatArray: TypeAlias = npt.NDArray[np.floating[Any]]
"""Floats of any of the four dtypes; the exact numbers of an oracle are arrays of objects."""


class Number(Protocol):
    """A number or an array of numbers: exact, or with a radius. Integers join in, and the only power is a square."""

    def __neg__(self) -> Number: ...
    def __add__(self, other: Operand, /) -> Number: ...
    def __radd__(self, other: Operand, /) -> Number: ...
    def __sub__(self, other: Operand, /) -> Number: ...
    def __rsub__(self, other: Operand, /) -> Number: ...
    def __mul__(self, other: Operand, /) -> Number: ...
    def __rmul__(self, other: Operand, /) -> Number: ...
    def __truediv__(self, other: Operand, /) -> Number: ...
    def __rtruediv__(self, other: Operand, /) -> Number: ...
    def __pow__(self, power: int, /) -> Number: ...


Operand: TypeAlias = Number | int
"""What stands on either side of an operator."""


class Numbers(Protocol):
    """A context: where a formula's numbers come from, and the operations that are no operators."""

    def number(self, value: Any, /) -> Number:
        """A hyperparameter as a number: a double, or the decimal or ratio that a string or Fraction spells."""

    def sqrt(self, x: Any, /) -> Number:
        """√x."""

    def sign(self, x: Any, /) -> Number:
        """−1, 0 or 1, elementwise."""

    def abs(self, x: Any, /) -> Number:
        """``|x|``, elementwise."""

    def max(self, x: Any, y: Any, /) -> Number:
        """The larger of two, elementwise."""

    def lift(self, x: Any, /) -> Number:
        """A coefficient as a number of the arrays' own format."""
