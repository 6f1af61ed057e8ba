"""The memory that arrays lie in: where it is, and which arrays share some."""

from __future__ import annotations

import ctypes
import math
from bisect import bisect_left
from collections.abc import Callable, Sequence

import numpy as np
from numpy.lib.array_utils import byte_bounds

from mlx_optimizers.kinds import FloatArray, Tree

_bytes = ctypes.c_char.from_buffer


def addresses(arrays: Sequence[FloatArray]) -> list[int]:
    """Find where the elements of arrays begin."""
    try:  # a fifth of the time, for contiguous and writable arrays of at least one element
        return list(map(ctypes.addressof, map(_bytes, arrays)))  # type: ignore[arg-type]
    except (TypeError, ValueError):
        return [array.ctypes.data for array in arrays]


def owners(arrays: Sequence[FloatArray]) -> set[int] | None:
    """Tell by their identities which arrays have the memory that these are in, or None where one is not known."""
    bases: list[Tree] = [array if array.base is None else array.base for array in arrays]
    known = all(isinstance(base, np.ndarray) and base.flags.owndata for base in bases)
    return set(map(id, bases)) if known else None


def _bounds(array: FloatArray) -> tuple[int, int]:
    return byte_bounds(array) if array.size else (0, 0)


def overlapping(arrays: Sequence[FloatArray]) -> tuple[int, int] | None:
    """Find two arrays that share an element's memory: their indices, the smaller first, or None.

    Takes a pair to share memory where NumPy gives up the search for a common element.
    """
    bounds = sorted((*byte_bounds(array), index) for index, array in enumerate(arrays) if array.size)
    lows, highs, order = np.array(bounds, np.int64).reshape(-1, 3).T
    reached = np.maximum.accumulate(highs)
    crossed = np.flatnonzero(reached[:-1] > lows[1:]) + 1
    if not crossed.size:
        return None
    # Asks NumPy about few pairs of interleaved arrays: where their bounds overlap, and their residues modulo a divisor
    # of their strides, from which each of their elements begins at the same distance.
    steps = np.array([_step(arrays[index]) for index in order], np.int64)
    sizes = np.array([arrays[index].itemsize for index in order], np.int64)
    for at in crossed:
        near = np.flatnonzero(highs[:at] > lows[at])
        ahead, step = lows[at] - lows[near], np.gcd(steps[near], steps[at])
        step[step == 0] = reached[-1]  # both have one element
        for other in near[(ahead % step < sizes[near]) | (-ahead % step < sizes[at])]:
            first, second = sorted((int(order[other]), int(order[at])))
            if _share(arrays[first], arrays[second]):
                return first, second
    return None


def overlaps_itself(array: FloatArray) -> bool:
    """Tell whether two elements of an array share memory, as with a stride of 0."""
    if array.flags.forc or not array.size:
        return False
    reach = array.itemsize
    for stride, length in sorted(
        (abs(stride), length) for stride, length in zip(array.strides, array.shape, strict=True)
    ):
        if length > 1 and stride < reach:
            break
        reach += stride * (length - 1)
    else:
        return False  # as all that indexing and transposing make: each axis steps over those below it
    starts = np.zeros(array.shape, np.intp)
    for axis, stride in enumerate(array.strides):
        starts += np.expand_dims(stride * np.arange(array.shape[axis]), tuple(range(1, array.ndim - axis)))
    return bool((np.diff(np.sort(starts, axis=None)) < array.itemsize).any())


def _step(array: FloatArray) -> int:
    """Find the greatest common divisor of the strides along which there is more than one element."""
    return math.gcd(*(stride for length, stride in zip(array.shape, array.strides, strict=True) if length > 1))


_MAX_WORK = 100_000
"""How many candidates NumPy tries for a common element of two arrays, which can take exponential time."""


def _share(one: FloatArray, other: FloatArray) -> bool:
    """Tell whether two arrays share memory; say they do where that is too hard to find out."""
    try:
        return np.shares_memory(one, other, max_work=_MAX_WORK)  # type: ignore[arg-type]  # NumPy takes any number
    except np.exceptions.TooHardError:
        return True


def shares(arrays: Sequence[FloatArray]) -> Callable[[FloatArray], bool]:
    """Return a test whether an array may share memory with any of these, by the bounds of their memory."""
    ends: list[int] = []
    starts: list[int] = []
    for low, high in sorted(map(_bounds, arrays)):
        if ends and low <= ends[-1]:
            ends[-1] = max(ends[-1], high)
        else:
            starts.append(low)
            ends.append(high)

    def test(array: FloatArray) -> bool:
        low, high = _bounds(array)
        position = bisect_left(ends, low + 1)
        return low < high and position < len(starts) and starts[position] < high

    return test
