"""Cache-sized views of arrays, so that an optimizer's passes over a parameter stay in the cache."""

from __future__ import annotations

import math
from collections.abc import Iterator
from types import EllipsisType
from typing import Any

import numpy as np
import numpy.typing as npt

__all__ = ["BLOCK", "blocks"]

BLOCK = 16384
"""Elements of a block: five float32 arrays of it fit into the second-level cache of a current processor."""

Index = tuple[slice | EllipsisType, ...]


def blocks(*arrays: npt.NDArray[Any], scratch: int = 0) -> Iterator[tuple[npt.NDArray[Any], ...]]:
    """Go through arrays of one shape by cache-sized views of all of them.

    Args:
        *arrays: Arrays of one shape. C-contiguous ones are gone through flat; otherwise the views keep the number
            of dimensions and are cut along the leading ones.
        scratch: Number of scratch views that come with each block, of the first array's dtype, contents undefined.

    Returns:
        An iterator over tuples: a view of each array, then the scratch views, all of one shape.

    Example:
        >>> import numpy as np
        >>> from mlx_optimizers.blocks import blocks
        >>> w, g = np.ones((2, 3), np.float32), np.ones((2, 3), np.float32)
        >>> for part, gradient, spare in blocks(w, g, scratch=1):
        ...     part -= gradient
        >>> w.sum()
        np.float32(0.0)
    """
    if all(array.flags.c_contiguous for array in arrays):
        arrays = tuple(array.reshape(-1) for array in arrays)
    spare = [np.empty(min(arrays[0].size, BLOCK), arrays[0].dtype) for _ in range(scratch)]
    for index in _tiles(arrays[0].shape):
        views = [array[index] for array in arrays]
        size, shape = views[0].size, views[0].shape
        yield (*views, *(block[:size].reshape(shape) for block in spare))


def _tiles(shape: tuple[int, ...]) -> Iterator[Index]:
    """Indices that cut an array of this shape into parts of at most `BLOCK` elements."""
    if math.prod(shape) <= BLOCK:
        yield (...,)
        return
    row = math.prod(shape[1:])
    count = max(1, BLOCK // row)
    for start in range(0, shape[0], count):
        rows = slice(start, start + count)
        if row > BLOCK:
            yield from ((rows, *rest) for rest in _tiles(shape[1:]))
        else:
            yield (rows, ...)
