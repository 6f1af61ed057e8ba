"""One step of many arrays: NumPy goes through blocks that stay in the cache, a compiled loop through rows."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from functools import cache, partial
from itertools import pairwise

import numpy as np

from mlx_optimizers import settings
from mlx_optimizers.execution import tuning
from mlx_optimizers.execution.compiled import computes
from mlx_optimizers.execution.program import Coefficients
from mlx_optimizers.execution.threads import share
from mlx_optimizers.interrupts import Stopped
from mlx_optimizers.kinds import Columns, Dtype, FloatArray, Loop, Shape
from mlx_optimizers.memory import addresses


class Blocks:
    """What a step changes, cut into parts once: blocks for NumPy, then rows for a compiled loop. It keeps no array."""

    def __init__(self, written: Columns, loop: Loop | None = None) -> None:
        arrays = list(zip(*written, strict=True))
        self.flat = [all(x.flags.c_contiguous for x in row) for row in arrays]
        self._looped = [n for n, (w, *_) in enumerate(arrays) if loop is not None and self.flat[n] and computes(w)]
        self._looped.sort(key=lambda n: str(arrays[n][0].dtype))
        kinds: dict[tuple[Shape, Dtype], int] = {}
        # Of each block the number of its parameter; the shape to give that, and its place then (None: it is the whole)
        self._blocks: list[tuple[int, Shape, tuple[slice, ...] | None, int]] = []  # and its kind
        for number in sorted({*range(len(arrays))} - {*self._looped}):
            w = arrays[number][0]
            shape = (w.size,) if self.flat[number] else w.shape
            for tile in _tiles(shape) if w.size > tuning.BLOCK else [None] * bool(w.size):
                block = w.shape if tile is None else w.reshape(shape)[tile].shape
                self._blocks.append((number, shape, tile, kinds.setdefault((block, w.dtype), len(kinds))))
        self._kinds, self._scratch = list(kinds), cache(partial(_scratch, list(kinds)))
        self._numbers = [[number] for number, *_ in self._blocks]  # of the parameters of each part
        by_loop = sum(arrays[number][0].size for number in self._looped)
        size = sum(w.size for w in written[0]) - by_loop
        most = size // tuning.SHARE if size >= tuning.THREADED * len(self._blocks) else 1
        self._count = min(settings.threads(), max(1, most, by_loop // tuning.SHARE_COMPILED))
        self._loop = loop
        self._cut([arrays[number] for number in self._looped], len(written))

    def _cut(self, arrays: Sequence[Sequence[FloatArray]], columns: int) -> None:
        """Cut contiguous arrays, of one dtype after the other, into rows of addresses, and these into parts."""
        bases = np.array([addresses(row) for row in arrays], np.int64).reshape(-1, columns)
        cuts = [
            (place, start, stop, start * w.itemsize)
            for place, (w, *_) in enumerate(arrays)
            # Each but the first begins where a line of the cache does: of w, and so of most others.
            for ahead in [-bases[place, 0] % tuning.LINE // w.itemsize]
            for start, stop in pairwise([0, *range(ahead or tuning.ROW, w.size, tuning.ROW), w.size])
        ]
        places, starts, stops, self._bytes = np.array(cuts, np.int64).reshape(-1, 4).T
        self._places, of = places, [arrays[place][0].dtype for place in places]
        self._rows = np.insert(bases[places] + self._bytes[:, np.newaxis], 1, 0, axis=1)
        # A part is half of a thread's stretch, then half of the rest, and so on; and of one dtype.
        sizes, count = stops - starts, self._count if self._count > 1 else 0
        aims = [sizes.sum() * (thread + 1 - 0.5**k) / count for thread in range(count) for k in range(6)]
        bounds = {*map(of.index, set(of)), len(of), *np.searchsorted(np.cumsum(sizes), aims, "right").tolist()}
        parts = [slice(*pair) for pair in pairwise(sorted(bounds))]
        self._parts = [(of[part.start], sizes[part], self._rows[part]) for part in parts]
        self._numbers += [sorted({self._looped[place] for place in places[part]}) for part in parts]

    def run(self, arrays: Columns, coefficients: Coefficients) -> None:
        """Run all parts, on gradients that are laid out as parameters and slots; raise Stopped with their numbers."""
        blocks, first, parts, loop = self._blocks, len(self._blocks), self._parts, self._loop
        try:
            # NumPy takes a 0-d array with less ado than a scalar.
            ready = {
                dtype: (program.run, [np.asarray(x) if isinstance(x, np.generic) else x for x in c])
                for dtype, (c, program) in (coefficients.items() if blocks else ())
            }
            kinds = [ready[dtype] for _, dtype in self._kinds]
            most = max([program.scratch for _, program in coefficients.values()], default=0)
            spare = [self._scratch(thread, most) for thread in range(self._count if blocks else 0)]
            rows = list(zip(*arrays, strict=True)) if blocks else []
            if self._looped:
                given = addresses([arrays[1][number] for number in self._looped])
                self._rows[:, 1] = np.array(given, np.int64)[self._places] + self._bytes

            def run(thread: int, part: int) -> None:
                if part < first:
                    number, shape, tile, kind = blocks[part]
                    call, c = kinds[kind]
                    row = rows[number] if tile is None else [x.reshape(shape)[tile] for x in rows[number]]
                    call([*c, *row, *spare[thread][kind]])
                elif loop is not None:
                    dtype, sizes, places = parts[part - first]
                    loop(coefficients[dtype][0], dtype.type(1), sizes, places)

            share(len(self._numbers), run, self._count)
        except Stopped as stopped:
            begun, left = ({n for part in some for n in self._numbers[part]} for some in (stopped.begun, stopped.left))
            raise Stopped(begun, left) from stopped.__cause__
        except BaseException as error:  # an interrupt elsewhere than in a part
            raise Stopped(range(len(self.flat)), range(len(self.flat))) from error


def _scratch(kinds: list[tuple[Shape, Dtype]], _: int, count: int) -> list[list[FloatArray]]:
    """Make the scratch arrays of a thread, by kind of block: views of as many bytes as the largest block has."""
    size = max([math.prod(shape) * dtype.itemsize for shape, dtype in kinds], default=0)
    whole = [np.empty(size, np.uint8) for _ in range(count)]
    return [[np.ndarray(shape, dtype, x) for x in whole] for shape, dtype in kinds]


def _tiles(shape: Shape) -> Iterator[tuple[slice, ...]]:
    """Cut what has more than `BLOCK` elements into parts of like sizes, and of no more; yield their places."""
    row = math.prod(shape[1:])
    if row > tuning.BLOCK:
        yield from ((slice(n, n + 1), *rest) for n in range(shape[0]) for rest in _tiles(shape[1:]))
        return
    even = math.ceil(shape[0] / math.ceil(shape[0] * row / tuning.BLOCK))
    count = min(tuning.BLOCK // row, math.ceil(even / 16) * 16)  # each begins where a line of the cache does
    yield from ((slice(start, start + count),) for start in range(0, shape[0], count))
