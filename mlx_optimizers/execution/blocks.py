"""One step of many arrays by NumPy: cut into blocks that stay in the cache."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from mlx_optimizers.execution import tuning
from mlx_optimizers.execution.program import Coefficients
from mlx_optimizers.execution.threads import share, threads

Columns = Sequence[Sequence[npt.NDArray[Any]]]
"""The arrays of one step: all parameters, all gradients, then all arrays of each slot."""


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
        self._scratch: dict[tuple[int, int], list[list[npt.NDArray[Any]]]] = {}
        kinds: dict[tuple[tuple[int, ...], np.dtype[Any]], int] = {}
        # Each part: the number of its parameter, where it lies (None: it is the whole), and its shape and dtype.
        self._parts: list[tuple[int, Any, int]] = []
        for number, w in enumerate(parameters):
            like = np.broadcast_to(np.empty((), w.dtype), (w.size,) if flat[number] and w.size else w.shape)
            for where in _tiles(like.shape) if w.size > tuning.BLOCK else [None] * bool(w.size):
                shape = w.shape if where is None else like[where].shape
                kind = kinds.setdefault((shape, w.dtype), len(kinds))
                self._parts.append((number, where[0] if flat[number] and where else where, kind))
        self._kinds = list(kinds)
        size = sum(w.size for w in parameters)
        self.most = size // tuning.SHARE if size >= tuning.THREADED * len(self._parts) else 1
        self.numbers = [[number] for number, _, _ in self._parts]

    def run(self, arrays: Columns, coefficients: Coefficients) -> None:
        """Run every block; parameters and slots are changed.

        Raises:
            Stopped: from the exception that a block raised, with the numbers of parts.
        """
        ready = {dtype: (program, [*map(_light, c)]) for dtype, (c, program) in coefficients.items()}
        kinds = [ready[dtype] for _, dtype in self._kinds]
        scratch = max([program.scratch for program, _ in kinds], default=0)

        rows = list(zip(*arrays, strict=True))

        def work(thread: int, parts: Iterator[tuple[int, Any, int]]) -> None:
            spare = self._scratch.get((thread, scratch)) or self._scratch_of(thread, scratch)
            for number, where, kind in parts:
                program, c = kinds[kind]
                row: Iterable[npt.NDArray[Any]] = rows[number]
                if where is not None:
                    row = [(x.reshape(-1) if type(where) is slice else x)[where] for x in row]
                program.run([*c, *row, *spare[kind]])

        share(self._parts, work, min(threads(), self.most) if self.most > 1 else 1)

    def _scratch_of(self, thread: int, count: int) -> list[list[npt.NDArray[Any]]]:
        """Scratch arrays of one thread, by kind: views of what is as large as the largest block of the dtype."""
        largest: dict[np.dtype[Any], int] = {}
        for shape, dtype in self._kinds:
            largest[dtype] = max(largest.get(dtype, 0), math.prod(shape))
        whole = {dtype: [np.empty(size, dtype) for _ in range(count)] for dtype, size in largest.items()}
        made = [[x[: math.prod(shape)].reshape(shape) for x in whole[dtype]] for shape, dtype in self._kinds]
        self._scratch[thread, count] = made
        return made


def _light(number: Any) -> Any:
    """A scalar as a 0-d array, which NumPy takes with less ado."""
    return np.asarray(number) if isinstance(number, np.generic) else number


def _tiles(shape: tuple[int, ...]) -> Iterator[tuple[Any, ...]]:
    """Indices that cut an array of this shape into parts of at most `BLOCK` elements; a flat one into like parts."""
    size, row = math.prod(shape), math.prod(shape[1:])
    if size <= tuning.BLOCK:
        yield (...,)
        return
    count = max(1, tuning.BLOCK // row)
    if row == 1:
        even = math.ceil(size / math.ceil(size / tuning.BLOCK))
        count = min(count, math.ceil(even / 16) * 16)  # each begins where the first does within a line of the cache
    for start in range(0, shape[0], count):
        rows = slice(start, start + count)
        yield from ((rows, *rest) for rest in _tiles(shape[1:])) if row > tuning.BLOCK else [(rows, ...)]
