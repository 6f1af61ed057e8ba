"""One step of many arrays by NumPy: cut into blocks that stay in the cache."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from types import EllipsisType
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from mlx_optimizers.execution import tuning
from mlx_optimizers.execution.program import Coefficients
from mlx_optimizers.execution.threads import share, threads

__all__ = ["Blocks", "Columns", "Part"]

Index = tuple[slice | EllipsisType, ...]

Columns = Sequence[Sequence[npt.NDArray[Any]]]
"""The arrays of one step: all parameters, all gradients, then all arrays of each slot."""


class Part(NamedTuple):
    """A block of one of the parameters: its number, and where it lies (None: it is the whole).

    Blocks of one ``kind`` have the same shape and dtype.
    """

    number: int
    where: Index | None
    flat: bool
    kind: int


class Blocks:
    """Parameters cut into blocks, once; each step then goes through them. It keeps shapes and no array.

    Args:
        parameters: The parameters.
        flat: For each whether it, its gradient and its slots are C-contiguous. They are gone through flat then;
            otherwise the blocks keep the number of dimensions and are cut along the leading ones.

    Example:
        >>> import numpy as np
        >>> from mlx_optimizers.execution.blocks import Blocks
        >>> from mlx_optimizers.execution.program import bind
        >>> def rule(c, w, g):
        ...     return (w - g * c[0],)
        >>> w, g = np.ones((2, 3), np.float32), np.ones((2, 3), np.float32)
        >>> Blocks([w], [True]).run([[w], [g]], {w.dtype: bind(rule, (np.float32(0.5),), slots=0)})
        >>> w.sum()
        np.float32(3.0)
    """

    def __init__(self, parameters: Sequence[npt.NDArray[Any]], flat: Sequence[bool]) -> None:
        self._spares: dict[tuple[int, int], list[tuple[npt.NDArray[Any], ...]]] = {}
        self._kinds: dict[tuple[tuple[int, ...], np.dtype[Any]], int] = {}
        self.parts: list[Part] = []
        for number, w in enumerate(parameters):
            if w.size <= tuning.BLOCK:
                self._add(number, None, False, w.shape, w.dtype)
                continue
            shape = (w.size,) if flat[number] else w.shape
            whole = np.broadcast_to(np.empty((), w.dtype), shape)
            for index in _tiles(shape):
                self._add(number, index, flat[number], whole[index].shape, w.dtype)
        size = sum(w.size for w in parameters)
        self.most = size // tuning.SHARE if size >= tuning.THREADED * len(self.parts) else 1

    def _add(self, number: int, where: Index | None, flat: bool, shape: tuple[int, ...], dtype: np.dtype[Any]) -> None:
        if 0 not in shape:
            kind = self._kinds.setdefault((shape, dtype), len(self._kinds))
            self.parts.append(Part(number, where, flat, kind))

    def run(self, arrays: Columns, coefficients: Coefficients) -> None:
        """Run every block.

        Args:
            arrays: The arrays; parameters and slots are changed.
            coefficients: The coefficients by dtype.

        Raises:
            Halted: from the exception that a block raised, with the parts that failed and those that are left.
        """
        light = {dtype: (program, list(map(_light, c))) for dtype, (c, program) in coefficients.items()}
        ready = [light[dtype] for _, dtype in self._kinds]
        scratch = max([program.scratch for program, _ in ready], default=0)

        def work(thread: int, parts: Iterator[Part]) -> None:
            spare = self._spares.get((thread, scratch)) or self._spare(thread, scratch)
            for number, where, flat, kind in parts:
                program, c = ready[kind]
                given = [column[number] for column in arrays]
                if where is not None:
                    given = [(x.reshape(-1) if flat else x)[where] for x in given]
                program.run([*c, *given, *spare[kind]])

        share(self.parts, work, min(threads(), self.most) if self.most > 1 else 1)

    @staticmethod
    def numbers(part: Part) -> list[int]:
        """Which of the parameters a part is of."""
        return [part.number]

    def _spare(self, thread: int, scratch: int) -> list[tuple[npt.NDArray[Any], ...]]:
        """Scratch arrays of one thread, by kind: views of what is as large as the largest block of the dtype."""
        largest: dict[np.dtype[Any], int] = {}
        for shape, dtype in self._kinds:
            largest[dtype] = max(largest.get(dtype, 0), math.prod(shape))
        whole = {dtype: [np.empty(size, dtype) for _ in range(scratch)] for dtype, size in largest.items()}
        self._spares[thread, scratch] = [
            tuple(array[: math.prod(shape)].reshape(shape) for array in whole[dtype]) for shape, dtype in self._kinds
        ]
        return self._spares[thread, scratch]


def _light(number: Any) -> Any:
    """A scalar as a 0-d array, which NumPy takes with less ado."""
    return np.asarray(number) if isinstance(number, np.generic) else number


def _tiles(shape: tuple[int, ...]) -> Iterator[Index]:
    """Indices that cut an array of this shape into parts of at most `BLOCK` elements; a flat one into like parts."""
    size = math.prod(shape)
    if size <= tuning.BLOCK:
        yield (...,)
        return
    row = math.prod(shape[1:])
    if row == 1:
        even = math.ceil(size / math.ceil(size / tuning.BLOCK))
        count = min(tuning.BLOCK, math.ceil(even / 16) * 16)  # each begins where the first does within a cache line
    else:
        count = max(1, tuning.BLOCK // row)
    for start in range(0, shape[0], count):
        rows = slice(start, start + count)
        if row > tuning.BLOCK:
            yield from ((rows, *rest) for rest in _tiles(shape[1:]))
        else:
            yield (rows, ...)
