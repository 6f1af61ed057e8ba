"""The compiled path: numba's loops where it is installed, bit for bit what NumPy computes."""

from __future__ import annotations

import ctypes
import importlib
import importlib.util
import os
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cache
from typing import Any

import numpy as np
import numpy.typing as npt

from mlx_optimizers.blocks import share, threads

__all__ = ["Rows", "addresses", "kernel_for", "set_compiled"]

DTYPES = ("float32", "float64")
"""What is compiled; the processor computes in these by itself."""

LEAST = 4096
"""Elements that a tree must have before numba is asked: a smaller one is over before it could be imported."""

CHUNK = 262144
"""Elements of a part that a thread takes at a time."""

SHARE = 524288
"""Elements of a step for each thread: with less to do, to wake a thread takes longer than it saves."""

Kernel = Callable[..., None]

_wanted: bool | None = None
_failed = False


def set_compiled(on: bool | None) -> None:
    """Choose between the compiled path and NumPy. Both give the same bits.

    Args:
        on: False for NumPy always; True for the compiled path for trees of any size; None for what the environment
            variable ``MLX_OPTIMIZERS_COMPILED`` says, 0 or 1, or else the compiled path for all but small trees
            where numba is installed.

    Raises:
        ImportError: for True where numba is not installed.

    Example:
        >>> from mlx_optimizers.compiled import set_compiled
        >>> set_compiled(False)
        >>> set_compiled(None)
    """
    global _wanted  # noqa: PLW0603 - one setting for the process
    if on and not _installed():
        raise ImportError("the compiled path needs numba: pip install '.[fast]' in a checkout, or pip install numba")
    _wanted = on


def wanted() -> bool | None:
    """What is set: True always, False never, None by itself.

    Raises:
        ValueError: for an environment variable that is neither 0 nor 1.
    """
    if _wanted is not None:
        return _wanted
    given = os.environ.get("MLX_OPTIMIZERS_COMPILED", "")
    if given not in ("", "0", "1"):
        raise ValueError(f"MLX_OPTIMIZERS_COMPILED must be 0 or 1, not {given!r}")
    return None if given == "" else given == "1"


@cache
def _installed() -> bool:
    return importlib.util.find_spec("numba") is not None


def choice() -> tuple[bool | None, bool]:
    """What the use of the compiled path depends on beside the arrays; a plan made under another one is made anew."""
    # A loop that is compiled neither raises nor calls what `numpy.errstate` asks for.
    return wanted(), all(kind in ("ignore", "warn") for kind in np.geterr().values())


def computes(dtype: np.dtype[Any]) -> bool:
    """Whether it is one of `DTYPES`, in the processor's order of bytes."""
    return dtype.name in DTYPES and dtype.isnative


def kernel_for(advance: Callable[..., None], size: int, coefficients: Mapping[np.dtype[Any], Any]) -> Kernel | None:
    """The compiled loop of an optimizer's ``advance``, ready to run, or None where NumPy has to.

    Args:
        advance: The method of one of the eight optimizers; any other has no compiled loop.
        size: Elements of the tree.
        coefficients: The coefficients by dtype, of which those in `DTYPES` count.
    """
    global _failed  # noqa: PLW0603 - one warning a process
    on, quiet = choice()
    package, _, name = advance.__module__.partition(".")
    if on is False or not quiet or _failed or not _installed() or (size < LEAST and not on):
        return None
    if package != __name__.partition(".")[0]:
        return None
    try:
        made: Kernel | None = getattr(importlib.import_module("mlx_optimizers.kernels"), name, None)
        for dtype, numbers in coefficients.items():
            if made is not None and computes(dtype):
                made(_arguments(dtype, numbers), np.empty(0, np.int64), np.empty((0, 4), np.int64))  # compiles
    except Exception as error:
        _failed = True
        reason = f"{type(error).__name__}: {error}".splitlines()[0]
        warnings.warn(f"numba cannot compile here, NumPy computes instead ({reason})", RuntimeWarning, stacklevel=2)
        return None
    return made


def _arguments(dtype: np.dtype[Any], numbers: tuple[Any, ...]) -> tuple[Any, ...]:
    return (*numbers, dtype.type(1))


class Rows:
    """Contiguous arrays of `DTYPES` as rows of addresses, which a kernel goes through.

    Args:
        arrays: For each parameter the arrays that a step changes: the parameter, then its slots.
        kernel: What goes through them.
    """

    def __init__(self, arrays: Sequence[tuple[npt.NDArray[Any], ...]], kernel: Kernel) -> None:
        self._kernel = kernel
        self._arrays = list(arrays)  # keeps what the addresses point to
        numbers: list[int] = []
        offsets: list[int] = []
        sizes: list[int] = []
        self.parts: list[tuple[np.dtype[Any], slice]] = []
        for dtype in dict.fromkeys(changed[0].dtype for changed in arrays):
            first, filled = len(sizes), 0
            for number, changed in enumerate(arrays):
                for start in range(0, changed[0].size if changed[0].dtype == dtype else 0, CHUNK):
                    size = min(CHUNK, changed[0].size - start)
                    if filled and filled + size > CHUNK:
                        self.parts.append((dtype, slice(first, len(sizes))))
                        first, filled = len(sizes), 0
                    numbers.append(number)
                    offsets.append(start * dtype.itemsize)
                    sizes.append(size)
                    filled += size
            if filled:
                self.parts.append((dtype, slice(first, len(sizes))))
        self._numbers = np.array(numbers, np.intp)
        self._offsets = np.array(offsets, np.int64)
        self._sizes = np.array(sizes, np.int64)
        self.most = max(1, sum(sizes) // SHARE)
        starts = np.array(list(map(addresses, arrays)), np.int64)
        rows = starts[self._numbers] + self._offsets[:, np.newaxis]
        self._rows = np.insert(rows, 1, 0, axis=1)

    def run(self, gradients: Sequence[npt.NDArray[Any]], coefficients: Mapping[np.dtype[Any], tuple[Any, ...]]) -> None:
        """Advance every element; the gradients are contiguous and of their parameters' shapes and dtypes."""
        arguments = {dtype: _arguments(dtype, numbers) for dtype, numbers in coefficients.items()}
        starts = np.array(addresses(gradients), np.int64)
        self._rows[:, 1] = starts[self._numbers] + self._offsets

        def work(_: int, parts: Iterator[tuple[np.dtype[Any], slice]]) -> None:
            for dtype, where in parts:
                self._kernel(arguments[dtype], self._sizes[where], self._rows[where])

        share(self.parts, work, min(threads(), self.most) if self.most > 1 else 1)

    def numbers(self, part: tuple[np.dtype[Any], slice]) -> list[int]:
        """Which of the arrays a part is of."""
        return list(self._numbers[part[1]])


_bytes = ctypes.c_char.from_buffer


def addresses(arrays: Sequence[npt.NDArray[Any]]) -> list[int]:
    """Where the elements of arrays begin."""
    try:  # a fifth of the time, for contiguous and writable arrays of at least one element
        return list(map(ctypes.addressof, map(_bytes, arrays)))  # type: ignore[arg-type]
    except (TypeError, ValueError):
        return [array.ctypes.data for array in arrays]
