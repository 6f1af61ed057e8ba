"""One step of many arrays: cut into blocks that stay in the cache, and shared out to threads."""

from __future__ import annotations

import contextlib
import contextvars
import math
import os
import threading
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from pathlib import Path
from types import EllipsisType
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

__all__ = ["BLOCK", "Blocks", "Halted", "Part", "set_threads", "share", "threads"]

Index = tuple[slice | EllipsisType, ...]


def _cache(level: int) -> tuple[int, int]:
    """Bytes of a cache, and the number of cores that share it.

    Where the system does not tell: half a megabyte, of which few second-level caches have less, for each core.
    """
    folder = Path(f"/sys/devices/system/cpu/cpu0/cache/index{level}")
    try:
        size = int((folder / "size").read_text(encoding="ascii").strip().removesuffix("K")) * 1024
        ranges = [part.split("-") for part in (folder / "shared_cpu_list").read_text(encoding="ascii").split(",")]
        return size, sum(int(ends[-1]) - int(ends[0]) + 1 for ends in ranges)
    except (OSError, ValueError):
        return 512 * 1024, 1


def _block(second: tuple[int, int], third: tuple[int, int]) -> int:
    """Elements of a block: eight float32 arrays of it fit into a core's second-level cache, or half its third's share.

    An optimizer uses six of them. The fewer blocks, the less of the time goes to the calls, and the less often do
    threads wait for the interpreter's lock.
    """
    room = max(second[0] // second[1], third[0] // third[1] // 2)
    return min(262144, max(16384, room // 32))


BLOCK = _block(_cache(2), _cache(3))
"""Elements of a block."""

SHARE = 262144
"""Elements of a step for each thread: with less to do, to wake a thread takes longer than it saves."""

THREADED = 65536
"""Elements that blocks must have on average for the step to be shared out."""


# Threads

_set: int | None = None
_pool: ThreadPoolExecutor | None = None
_pool_size = 0
_lock = threading.Lock()


def threads() -> int:
    """The number of threads that a large step is shared out to.

    It is what `set_threads` was given, or the environment variable ``MLX_OPTIMIZERS_THREADS``, or the number of
    processor cores that this process may use.

    Raises:
        ValueError: for a variable that is no whole number of at least 1.
    """
    if _set is not None:
        return _set
    given = os.environ.get("MLX_OPTIMIZERS_THREADS", "")
    if not given:
        return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else (os.cpu_count() or 1)
    if not given.isdecimal() or int(given) < 1:
        raise ValueError(f"MLX_OPTIMIZERS_THREADS must be a whole number of at least 1, not {given!r}")
    return int(given)


def set_threads(count: int | None) -> None:
    """Set the number of threads that a large step is shared out to. No number of them changes a bit.

    Args:
        count: At least 1, or None for what `threads` finds by itself.

    Raises:
        ValueError: for a count below 1.
        TypeError: for what is no whole number.

    Example:
        >>> from mlx_optimizers.blocks import set_threads, threads
        >>> set_threads(3)
        >>> threads()
        3
        >>> set_threads(None)
    """
    global _set  # noqa: PLW0603 - one setting for the process, as its cores are
    if count is not None and type(count) is not int:
        raise TypeError(f"count must be a whole number or None, not {count!r}")
    if count is not None and count < 1:
        raise ValueError(f"count must be at least 1, not {count!r}")
    _set = count


def _executor(count: int) -> ThreadPoolExecutor:
    """At least this many threads, which start when they are first needed and then wait."""
    global _pool, _pool_size
    with _lock:
        if _pool is None or _pool_size < count:
            if _pool is not None:
                _pool.shutdown(wait=False)  # it finishes what others gave it
            _pool, _pool_size = ThreadPoolExecutor(count, "mlx-optimizers"), count
        return _pool


def _forget_threads() -> None:
    """After a fork the child has none of the threads, and a lock may have been held by one of them."""
    global _pool, _lock
    _pool, _lock = None, threading.Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_threads)


class Halted(Exception):
    """A step that ended early; its cause says why.

    Args:
        failed: Parts that were begun and not finished.
        left: Parts that were not begun.
    """

    def __init__(self, failed: list[Any], left: list[Any]) -> None:
        super().__init__(failed, left)
        self.failed = failed
        self.left = left


Work = Callable[[int, Iterator[Any]], None]
"""Goes through parts; gets the number of its thread, from 0, and the parts, of which it holds one at a time."""


def share(parts: Sequence[Any], work: Work, count: int) -> None:
    """Have all parts worked on by this thread and ``count - 1`` others; each takes the next part that is left.

    Raises:
        Halted: from the first exception of a part, when every thread has ended. After it no part is begun.
    """
    if count == 1:
        _work_alone(parts, work)
        return
    todo = deque(parts)
    everything = list(todo)
    done: list[Any] = []
    left: list[Any] = []
    errors: list[BaseException] = []

    def take(thread: int) -> None:
        def taken() -> Iterator[Any]:
            for part in _rest(todo):
                yield part
                done.append(part)

        try:
            work(thread, taken())
        except BaseException as error:
            errors.append(error)
            left.extend(_rest(todo))

    futures: list[Future[None]] = []
    others = range(1, min(count, len(todo)))
    try:
        with contextlib.suppress(RuntimeError):  # no thread starts while the interpreter ends; this one does it all
            pool = _executor(len(others))
            # In a copy of the context, so that NumPy's error handling is the caller's on every thread.
            futures.extend(pool.submit(contextvars.copy_context().run, take, thread) for thread in others)
        take(0)
        wait([future for future in futures if not future.cancel()])
    except BaseException as error:  # an interrupt, after which nobody may still be writing
        errors.append(error)
        left.extend(_rest(todo))
        wait([future for future in futures if not future.cancel()])
    if errors:
        settled = set(map(id, [*done, *left]))
        failed = [part for part in everything if id(part) not in settled]
        raise Halted(failed, left) from next((e for e in errors if not isinstance(e, Exception)), errors[0])


def _rest(todo: deque[Any]) -> Iterator[Any]:
    """Take what is left, which others may be taking from too."""
    while todo:
        try:
            part = todo.popleft()
        except IndexError:
            return
        yield part


def _work_alone(parts: Sequence[Any], work: Work) -> None:
    """As `share` for this thread alone."""
    todo = iter(parts)
    try:
        work(0, todo)
    except BaseException as error:
        left = list(todo)
        begun = len(parts) - len(left)
        raise Halted(list(parts[begun - 1 : begun]), left) from error


class Part(NamedTuple):
    """A block of one of the arrays: its number, where it lies (None: it is the whole), and what is changed there.

    Blocks of one ``kind`` have the same shape and dtype.
    """

    number: int
    where: Index | None
    flat: bool
    kind: int
    changed: tuple[npt.NDArray[Any], ...]


class Blocks:
    """Arrays cut into blocks, once; each step then goes through them.

    Args:
        arrays: For each parameter the arrays that a step changes, of one shape and dtype: the parameter, its slots.
        flat: For each whether these arrays and its gradient are C-contiguous. They are gone through flat then;
            otherwise the blocks keep the number of dimensions and are cut along the leading ones.
        scratch: Number of scratch arrays that a step needs.

    Example:
        >>> import numpy as np
        >>> from mlx_optimizers.blocks import Blocks
        >>> def advance(numbers, w, g, a):
        ...     np.multiply(g, numbers[0], out=a)
        ...     w -= a
        >>> w, g = np.ones((2, 3), np.float32), np.ones((2, 3), np.float32)
        >>> Blocks([(w,)], [True], scratch=1).run([g], advance, {w.dtype: (np.float32(0.5),)})
        >>> w.sum()
        np.float32(3.0)
    """

    def __init__(self, arrays: Sequence[tuple[npt.NDArray[Any], ...]], flat: Sequence[bool], scratch: int) -> None:
        self._scratch = scratch
        self._spares: dict[int, list[tuple[npt.NDArray[Any], ...]]] = {}
        self._kinds: dict[tuple[tuple[int, ...], np.dtype[Any]], int] = {}
        self.parts: list[Part] = []
        for number, changed in enumerate(arrays):
            if changed[0].size <= BLOCK:
                self._add(number, None, False, changed)
                continue
            if flat[number]:
                changed = tuple(array.reshape(-1) for array in changed)
            for index in _tiles(changed[0].shape):
                self._add(number, index, flat[number], tuple(array[index] for array in changed))
        size = sum(changed[0].size for changed in arrays)
        # A thread gives up the interpreter's lock for the length of one operation; with small blocks it does not pay.
        self.most = size // SHARE if size >= THREADED * len(self.parts) else 1

    def _add(self, number: int, where: Index | None, flat: bool, changed: tuple[npt.NDArray[Any], ...]) -> None:
        if changed[0].size:
            kind = self._kinds.setdefault((changed[0].shape, changed[0].dtype), len(self._kinds))
            self.parts.append(Part(number, where, flat, kind, changed))

    def run(
        self,
        gradients: Sequence[npt.NDArray[Any]],
        advance: Callable[..., None],
        coefficients: Mapping[np.dtype[Any], tuple[Any, ...]],
    ) -> None:
        """Advance every block.

        Args:
            gradients: The gradient of each parameter.
            advance: Advances a block; gets the coefficients, those that are NumPy's scalars as 0-d arrays, then the
                parameter, the gradient, the slots, the scratch.
            coefficients: The coefficients by dtype.

        Raises:
            Halted: from the exception that a block raised, with the parts that failed and those that are left.
        """
        ready = {dtype: tuple(map(_light, numbers)) for dtype, numbers in coefficients.items()}
        numbers = [ready[dtype] for _, dtype in self._kinds]

        def work(thread: int, parts: Iterator[Part]) -> None:
            spare = self._spares.get(thread) or self._spare(thread)
            for number, where, flat, kind, (w, *slots) in parts:
                g = gradients[number]
                if where is not None:
                    g = (g.reshape(-1) if flat else g)[where]
                advance(numbers[kind], w, g, *slots, *spare[kind])

        share(self.parts, work, min(threads(), self.most) if self.most > 1 else 1)

    @staticmethod
    def numbers(part: Part) -> list[int]:
        """Which of the arrays a part is of."""
        return [part.number]

    def _spare(self, thread: int) -> list[tuple[npt.NDArray[Any], ...]]:
        """Scratch arrays of one thread, by kind: views of what is as large as the largest block of the dtype."""
        largest: dict[np.dtype[Any], int] = {}
        for shape, dtype in self._kinds:
            largest[dtype] = max(largest.get(dtype, 0), math.prod(shape))
        whole = {dtype: [np.empty(size, dtype) for _ in range(self._scratch)] for dtype, size in largest.items()}
        self._spares[thread] = [
            tuple(array[: math.prod(shape)].reshape(shape) for array in whole[dtype]) for shape, dtype in self._kinds
        ]
        return self._spares[thread]


def _light(number: Any) -> Any:
    """A scalar as a 0-d array, which NumPy takes with less ado."""
    return np.asarray(number) if isinstance(number, np.generic) else number


def _tiles(shape: tuple[int, ...]) -> Iterator[Index]:
    """Indices that cut an array of this shape into parts of at most `BLOCK` elements; a flat one into like parts."""
    size = math.prod(shape)
    if size <= BLOCK:
        yield (...,)
        return
    row = math.prod(shape[1:])
    if row == 1:
        even = math.ceil(size / math.ceil(size / BLOCK))
        count = min(BLOCK, math.ceil(even / 16) * 16)  # each begins where the first does within a line of the cache
    else:
        count = max(1, BLOCK // row)
    for start in range(0, shape[0], count):
        rows = slice(start, start + count)
        if row > BLOCK:
            yield from ((rows, *rest) for rest in _tiles(shape[1:]))
        else:
            yield (rows, ...)
