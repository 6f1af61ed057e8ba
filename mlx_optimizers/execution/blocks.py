"""One step of many arrays: NumPy goes through blocks that stay in the cache, a compiled loop through rows."""

from __future__ import annotations

import ctypes
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import pairwise

import numpy as np

from mlx_optimizers.execution import tuning
from mlx_optimizers.execution.compiled import Loop, computes
from mlx_optimizers.execution.program import Coefficients
from mlx_optimizers.execution.threads import Stopped, share, threads
from mlx_optimizers.kinds import Constants, Dtype, FloatArray, Shape, Value

Columns = Sequence[Sequence[FloatArray]]
"""The arrays of one step: all parameters, all gradients, then all arrays of each slot."""


class Blocks:
    """What a step changes, cut into parts once: rows for a compiled loop, and blocks for NumPy. It keeps no array."""

    def __init__(self, written: Columns, loop: Loop | None = None) -> None:
        arrays = list(zip(*written, strict=True))
        self.flat = [all(x.flags.c_contiguous for x in row) for row in arrays]
        rows = {n: row for n, row in enumerate(arrays) if loop is not None and self.flat[n] and computes(row[0])}
        kinds: dict[tuple[Shape, Dtype], int] = {}
        # Of each block the number of its parameter; the shape to give that, and its place then (None: it is the whole)
        self._blocks: list[tuple[int, Shape, tuple[slice, ...] | None, int]] = []  # and its kind
        for number, (w, *_) in enumerate(arrays):
            shape = (w.size,) if self.flat[number] else w.shape
            tiles = _tiles(shape) if w.size > tuning.BLOCK else [None] * bool(w.size)
            for tile in tiles if number not in rows else []:
                block = w.shape if tile is None else w.reshape(shape)[tile].shape
                self._blocks.append((number, shape, tile, kinds.setdefault((block, w.dtype), len(kinds))))
        self._kinds = list(kinds)
        self._scratch: dict[tuple[int, int], list[list[FloatArray]]] = {}
        by_loop = sum(w.size for w, *_ in rows.values())
        size = sum(w.size for w in written[0]) - by_loop
        most = max(
            size // tuning.SHARE * (size >= tuning.THREADED * len(self._blocks)), by_loop // tuning.SHARE_COMPILED
        )
        self.threads = threads() if most > 1 else None
        self._count = min(self.threads or 1, most or 1)
        self._rows = Rows(rows, loop, self._count) if loop is not None and rows else None

    def run(self, arrays: Columns, coefficients: Coefficients) -> None:
        """Run all parts, on gradients that are laid out as parameters and slots; raise Stopped with their numbers."""
        first, numbers = len(self._blocks), self._rows.numbers if self._rows else []
        everything = range(len(self.flat))
        try:
            runs = [self._by_numpy(arrays, coefficients)] if first else []
            runs += [self._rows.run_of(arrays[1], coefficients)] if self._rows else []

            def either(thread: int, part: int) -> None:
                runs[part >= first](thread, part if part < first else part - first)

            share(first + len(numbers), runs[0] if len(runs) == 1 else either, self._count)
        except Stopped as stopped:
            numbers = [[number] for number, *_ in self._blocks] + numbers
            begun, left = ({n for part in some for n in numbers[part]} for some in (stopped.begun, stopped.left))
            raise Stopped(begun, left) from stopped.__cause__
        except BaseException as error:  # an interrupt elsewhere than in a part
            raise Stopped(everything, everything) from error

    def _by_numpy(self, arrays: Columns, coefficients: Coefficients) -> Callable[[int, int], None]:
        """Return what runs a block, by the numbers of its thread and its own."""
        ready = {dtype: (program.run, _light(c)) for dtype, (c, program) in coefficients.items()}
        kinds = [ready[dtype] for _, dtype in self._kinds]
        most = max([program.scratch for _, program in coefficients.values()])
        spare = [self._scratch.get((thread, most)) or self._scratch_of(thread, most) for thread in range(self._count)]
        rows, blocks = list(zip(*arrays, strict=True)), self._blocks

        def run(thread: int, part: int) -> None:
            number, shape, tile, kind = blocks[part]
            call, c = kinds[kind]
            row = rows[number] if tile is None else [x.reshape(shape)[tile] for x in rows[number]]
            call([*c, *row, *spare[thread][kind]])

        return run

    def _scratch_of(self, thread: int, count: int) -> list[list[FloatArray]]:
        """Make the scratch arrays of a thread, by kind: views of as many bytes as the largest block has."""
        sizes = [math.prod(shape) * dtype.itemsize for shape, dtype in self._kinds]
        whole = [np.empty(max(sizes), np.uint8) for _ in range(count)]
        kinds = zip(sizes, self._kinds, strict=True)
        views = [[x[:size].view(dtype).reshape(shape) for x in whole] for size, (shape, dtype) in kinds]
        return self._scratch.setdefault((thread, count), views)


def _light(c: Constants) -> list[Value]:
    """Make scalars 0-d arrays, which NumPy takes with less ado."""
    return [np.asarray(number) if isinstance(number, np.generic) else number for number in c]


def _tiles(shape: Shape) -> Iterator[tuple[slice, ...]]:
    """Cut what has more than `BLOCK` elements into parts of like sizes, and of no more; yield their places."""
    row = math.prod(shape[1:])
    if row > tuning.BLOCK:
        yield from ((slice(n, n + 1), *rest) for n in range(shape[0]) for rest in _tiles(shape[1:]))
        return
    even = math.ceil(shape[0] / math.ceil(shape[0] * row / tuning.BLOCK))
    count = min(tuning.BLOCK // row, math.ceil(even / 16) * 16)  # each begins where a line of the cache does
    yield from ((slice(start, start + count),) for start in range(0, shape[0], count))


class Rows:
    """Contiguous arrays as rows of addresses, by the number of their parameter, for a loop on ``count`` threads."""

    def __init__(self, arrays: Mapping[int, tuple[FloatArray, ...]], loop: Loop, count: int) -> None:
        self._loop, self._numbers = loop, list(arrays)
        dtypes = [w.dtype for w, *_ in arrays.values()]
        rows = [
            (place, start * dtype.itemsize, min(tuning.ROW, w.size - start))
            for dtype in dict.fromkeys(dtypes)
            for place, (w, *_) in enumerate(arrays.values())
            for start in range(0, w.size if w.dtype == dtype else 0, tuning.ROW)
        ]
        self._places, self._bytes, sizes = np.array(rows, np.int64).T.copy()
        starts = np.array(list(map(addresses, arrays.values())), np.int64)
        self._rows = np.insert(starts[self._places] + self._bytes[:, np.newaxis], 1, 0, axis=1)
        # A part is half of a thread's stretch, then half of the rest, and so on; and of one dtype.
        ends, of = np.cumsum(sizes), [dtypes[place] for place in self._places]
        aims = [ends[-1] * (thread + 1 - 0.5**k) / count for thread in range(count) for k in range(6)]
        bounds = {*map(of.index, set(of)), len(of), *np.searchsorted(ends, aims if count > 1 else [], "right").tolist()}
        parts = [slice(*pair) for pair in pairwise(sorted(bounds))]
        self._parts = [(of[part.start], sizes[part], self._rows[part]) for part in parts]
        self.numbers = [sorted({self._numbers[place] for place in self._places[part]}) for part in parts]

    def run_of(self, gradients: Sequence[FloatArray], coefficients: Coefficients) -> Callable[[int, int], None]:
        """Return what runs a part, for contiguous gradients of their parameters' shapes and dtypes."""
        given = np.array(addresses(list(map(gradients.__getitem__, self._numbers))), np.int64)
        self._rows[:, 1] = given[self._places] + self._bytes

        def run(_: int, part: int) -> None:
            dtype, sizes, rows = self._parts[part]
            self._loop(coefficients[dtype][0], dtype.type(1), sizes, rows)

        return run


_bytes = ctypes.c_char.from_buffer


def addresses(arrays: Sequence[FloatArray]) -> list[int]:
    """Find where the elements of arrays begin."""
    try:  # a fifth of the time, for contiguous and writable arrays of at least one element
        return list(map(ctypes.addressof, map(_bytes, arrays)))  # type: ignore[arg-type]
    except (TypeError, ValueError):
        return [array.ctypes.data for array in arrays]
