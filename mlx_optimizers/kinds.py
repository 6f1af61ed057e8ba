"""The names of types that stand in many signatures."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from types import SimpleNamespace
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[Any]
"""An array of float16, bfloat16, float32 or float64; NumPy knows the second by no class of its own."""

Dtype = np.dtype[Any]
"""The dtype of a `FloatArray`."""

Shape = tuple[int, ...]

Tree = Any
"""Nested dictionaries, lists and tuples of arrays, or one array, of NumPy or MLX; also a module of MLX."""

Key = Any
"""A key of a dictionary, or a place in a list or tuple."""

Path = tuple[Key, ...]
"""Where a leaf stands in a tree: the keys and indices that lead to it."""

Slots = dict[str, FloatArray]
"""The state arrays of one parameter by their names."""

Real = Callable[[float], np.floating[Any]]
"""A dtype as a class, such as `numpy.float32`, which rounds a number to it."""

Value = Any
"""What a step reads: an array, a scalar, a flag, or what records a step; of a learning rate also an array of MLX."""

Schedule = Callable[[Any], Value]
"""A function from the number of updates done to a value: a float, or a 0-d array of NumPy or MLX."""

Constants = tuple[Value, ...]
"""The coefficients of a step in one dtype: scalars, and flags."""

Columns = Sequence[Sequence[FloatArray]]
"""The arrays of one step: all parameters, all gradients, then all arrays of each slot."""

Rule = Callable[..., tuple[FloatArray, ...]]
"""One step of an optimizer, ``rule(c, w, g, *slots)``: the new parameter and slots, in new arrays."""

Loop = Callable[..., None]
"""A rule that goes through the elements of arrays at addresses, compiled."""

Hyperparameters = SimpleNamespace
"""The hyperparameters of an exact step by their names, as numbers of a context; switches stay what they are."""


class Number(Protocol):
    """A number of a context, or an array of them: exact, or with a radius. The only power is a square."""

    def __add__(self, other: Operand, /) -> Number: ...
    def __radd__(self, other: Operand, /) -> Number: ...
    def __sub__(self, other: Operand, /) -> Number: ...
    def __rsub__(self, other: Operand, /) -> Number: ...
    def __mul__(self, other: Operand, /) -> Number: ...
    def __rmul__(self, other: Operand, /) -> Number: ...
    def __truediv__(self, other: Operand, /) -> Number: ...
    def __rtruediv__(self, other: Operand, /) -> Number: ...
    def __pow__(self, power: int, /) -> Number: ...


Operand = Number | int
"""What may stand on the other side of an operator."""

Step = tuple[Number, ...]
"""The parameter and the slots after an exact step."""


class Numbers(Protocol):
    """A context of numbers: the functions of an exact step that are no operators."""

    def number(self, value: Any, /) -> Any:
        """Make a number of a hyperparameter: a float, or the decimal or ratio that a string or Fraction spells."""

    def is_zero(self, x: Number, /) -> bool:
        """Say whether a coefficient is 0."""

    def lift(self, x: Number, /) -> Number:
        """Make a coefficient a number of the arrays' own format."""

    def sqrt(self, x: Number, /) -> Number:
        """Take the root."""

    def cast(self, x: Number, /) -> Number:
        """Convert a coefficient to the arrays' own format where coefficients are float32."""

    def power(self, base: int, exponent: Number, /) -> Number:
        """Raise a positive integer to the power of a coefficient."""

    def min(self, x: Number, y: Number, /) -> Number:
        """Take the smaller of two coefficients."""

    def abs(self, x: Number, /) -> Number:
        """Take the absolute value."""

    def where_zero(self, x: Number, zero: Operand, other: Operand, /) -> Number:
        """Take ``zero`` where an array is exactly zero, and ``other`` elsewhere."""

    def clip(self, x: Number, bound: Number, /) -> Number:
        """Clip an array to ±bound."""

    def max(self, x: Operand, y: Operand, /) -> Number:
        """Take the larger of two, one of which is an array."""

    def total(self, x: Number, axis: int | None = None, /, *, keep: bool = False) -> Number:
        """Add the elements of an array along an axis, or all of them; ``keep`` leaves an axis of length 1."""

    def mean(self, x: Number, axis: int | None = None, /, *, keep: bool = False) -> Number:
        """Take the mean along an axis, or of all elements."""

    def expand(self, x: Number, axis: int, /) -> Number:
        """Insert an axis of length 1."""

    def shape(self, x: Number, /) -> Shape:
        """Return the shape of an array; a number has one axis."""

    def orthogonalized(self, x: Number, steps: int, /, *, half: bool = False, **varied: Any) -> Number:
        """Take Newton–Schulz of an array, as a matrix with its first axis for rows.

        With ``half`` a program may compute it in 16 bits, of which nothing is certain. The rest are ``coefficients``,
        ``eps`` and ``least`` of `mlx_optimizers.oracle.newton_schulz.certified`.
        """

    def sign(self, x: Number, /) -> Number:
        """Take the sign, which is 0 for 0."""
