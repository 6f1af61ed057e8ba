"""The names of types that stand in many signatures."""

from __future__ import annotations

from collections.abc import Callable
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

Number = Any
"""A number of a context, or an array; `rule` and `exact` are written over any that has the operators."""

Step = tuple[Number, ...]
"""The parameter and the slots after a step."""

Real = Callable[[float], Number]
"""A dtype as a class, such as `numpy.float32`, which rounds a number to it."""

Hyperparameters = Any
"""What has the hyperparameters of an optimizer as attributes: it, or a setting that the oracle reads."""


class Numbers(Protocol):
    """The context of an exact step: the functions of its numbers."""

    def lift(self, x: Number, /) -> Number:
        """Make a float a number of the context."""

    def sqrt(self, x: Number, /) -> Number:
        """Take the root."""

    def abs(self, x: Number, /) -> Number:
        """Take the absolute value."""

    def max(self, x: Number, y: Number, /) -> Number:
        """Take the larger of two."""

    def sign(self, x: Number, /) -> Number:
        """Take the sign, which is 0 for 0."""
