"""The compiled path: numba's loops where it is installed, bit for bit what NumPy computes."""

from __future__ import annotations

import ctypes
import dis
import importlib.util
import os
import warnings
import weakref
from collections.abc import Callable, Iterator, Sequence
from functools import cache
from typing import Any

import numpy as np
import numpy.typing as npt

from mlx_optimizers.execution import tuning
from mlx_optimizers.execution.blocks import Columns
from mlx_optimizers.execution.program import Bound, Coefficients, Rule
from mlx_optimizers.execution.threads import share, threads

DTYPES = ("float32", "float64")
"""What is compiled; the processor computes in these by itself."""

Loop = Callable[..., None]

_loops: weakref.WeakKeyDictionary[Rule, Loop | None] = weakref.WeakKeyDictionary()
"""The loop of each rule that was asked for; None where numba cannot compile it."""

_wanted: bool | None = None


def set_compiled(on: bool | None) -> None:
    """Choose between the compiled path and NumPy. Both give the same bits.

    Args:
        on: False for NumPy always; True for the compiled path for trees of any size; None for what the environment
            variable ``MLX_OPTIMIZERS_COMPILED`` says, 0 or 1, or else the compiled path for all but small trees
            where numba is installed.

    Raises:
        ImportError: for True where numba is not installed.

    Example:
        >>> from mlx_optimizers.execution import set_compiled
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


def computes(w: npt.NDArray[Any]) -> bool:
    """Whether this has elements, of `DTYPES`, in the processor's order of bytes."""
    return w.dtype.name in DTYPES and w.dtype.isnative and w.size > 0


def loop_for(rule: Rule, slots: int, size: int, coefficients: Coefficients) -> Loop | None:
    """The compiled loop of a rule, ready to run, or None where NumPy has to.

    Args:
        rule: The rule of an optimizer.
        slots: Number of state arrays.
        size: Elements of the tree.
        coefficients: The coefficients by dtype, of which those in `DTYPES` count.
    """
    on, quiet = choice()
    if on is False or not quiet or not _installed() or (size < tuning.LEAST and not on):
        return None
    ready = {dtype: c for dtype, c in coefficients.items() if dtype.name in DTYPES and dtype.isnative}
    try:
        if rule not in _loops:
            _loops[rule] = _loop(rule, slots, list(ready.values()))
        loop = _loops[rule]
        if loop is None:
            return None
        for dtype, (c, _) in ready.items():
            loop(c, dtype.type(1), np.empty(0, np.int64), np.empty((0, 2 + slots), np.int64))  # compiles
    except Exception as error:
        _loops[rule] = None
        reason = f"{type(error).__name__}: {error}".splitlines()[0]
        name = getattr(rule, "__qualname__", "a rule")
        warnings.warn(f"numba cannot compile {name}, NumPy computes instead ({reason})", RuntimeWarning, stacklevel=2)
        return None
    return loop


def _loop(rule: Rule, slots: int, bound: Sequence[Bound]) -> Loop | None:
    """The loop of a rule that is a function of NumPy and its arguments alone, by functions that are known; or None."""
    names = {line.argval for line in dis.get_instructions(rule) if line.opname == "LOAD_GLOBAL"}
    if rule.__code__.co_freevars or any(rule.__globals__.get(name) is not np for name in names):
        return None
    from mlx_optimizers.execution import loops

    if any(one.program.functions - loops.KNOWN for one in bound):
        return None
    made: Loop = loops.loop_of(rule, slots)
    return made


class Rows:
    """Contiguous arrays of `DTYPES` as rows of addresses, which a loop goes through. It keeps no array.

    Args:
        arrays: For each parameter the arrays that a step changes: the parameter, then its slots.
        loop: What goes through them.
    """

    def __init__(self, arrays: Sequence[tuple[npt.NDArray[Any], ...]], loop: Loop) -> None:
        self._loop = loop
        self._facts = [(w.size, w.dtype) for w, *_ in arrays]
        self._size = sum(size for size, _ in self._facts)
        self.most = max(1, self._size // tuning.SHARE_COMPILED)
        self._starts = np.array(list(map(addresses, arrays)), np.int64)
        self._count = 0  # of threads for which it is cut into parts

    def _cut(self, count: int) -> None:
        """Cut the elements into parts: of each thread's stretch the half, then the half of the rest, and so on."""
        of: list[tuple[int, int, int]] = []  # parameter, first byte and elements of each row
        self._parts: list[tuple[np.dtype[Any], slice]] = []
        first, filled, past, stretch = 0, 0, 0, -(-self._size // count)
        most = self._part(stretch if count > 1 else self._size)
        for dtype in dict.fromkeys(dtype for _, dtype in self._facts):
            for number, (size, one) in enumerate(self._facts):
                start = 0
                while start < (size if one == dtype else 0):
                    row = min(most - filled, size - start)
                    of.append((number, start * dtype.itemsize, row))
                    start, filled, past = start + row, filled + row, past + row
                    if filled == most:
                        self._parts.append((dtype, slice(first, len(of))))
                        first, filled, most = len(of), 0, self._part(stretch - past % stretch)
            if len(of) > first:
                self._parts.append((dtype, slice(first, len(of))))
                first, filled, most = len(of), 0, self._part(stretch - past % stretch)
        self._of = np.array(of, np.int64).T.copy()
        self.numbers = [self._of[0, where].tolist() for _, where in self._parts]
        self._rows = np.insert(self._starts[self._of[0]] + self._of[1][:, np.newaxis], 1, 0, axis=1)
        self._count = count

    @staticmethod
    def _part(left: int) -> int:
        """Elements of the next part of what is left of a stretch."""
        return min(left, max(tuning.TAIL, left // 2 // 1024 * 1024))

    def run(self, arrays: Columns, coefficients: Coefficients) -> None:
        """Run over every element; the gradients are contiguous and of their parameters' shapes and dtypes."""
        count = min(threads(), self.most) if self.most > 1 else 1
        if count != self._count:
            self._cut(count)
        self._rows[:, 1] = np.array(addresses(arrays[1]), np.int64)[self._of[0]] + self._of[1]

        def work(_: int, parts: Iterator[tuple[np.dtype[Any], slice]]) -> None:
            for dtype, where in parts:
                self._loop(coefficients[dtype].c, dtype.type(1), self._of[2, where], self._rows[where])

        share(self._parts, work, count)


_bytes = ctypes.c_char.from_buffer


def addresses(arrays: Sequence[npt.NDArray[Any]]) -> list[int]:
    """Where the elements of arrays begin."""
    try:  # a fifth of the time, for contiguous and writable arrays of at least one element
        return list(map(ctypes.addressof, map(_bytes, arrays)))  # type: ignore[arg-type]
    except (TypeError, ValueError):
        return [array.ctypes.data for array in arrays]
