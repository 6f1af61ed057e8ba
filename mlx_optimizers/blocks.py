"""One step of many arrays: cut into blocks that stay in the cache, and shared out to threads."""

from __future__ import annotations

import contextlib
import contextvars
import math
import os
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from pathlib import Path
from types import EllipsisType
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

__all__ = ["BLOCK", "Blocks", "Halted", "Part", "set_threads", "share", "threads"]

Index = tuple[slice | EllipsisType, ...]


def _second_level_cache() -> int:
    """Bytes of a core's second-level cache; half a megabyte, of which few have less, where the system does not tell."""
    try:
        text = Path("/sys/devices/system/cpu/cpu0/cache/index2/size").read_text(encoding="ascii").strip()
        return int(text.removesuffix("K")) * 1024
    except (OSError, ValueError):
        return 512 * 1024


BLOCK = min(65536, max(16384, _second_level_cache() // 32))
"""Elements of a block: eight float32 arrays of it fit into the second-level cache, of which an optimizer uses six."""

SHARE = 131072
"""Elements of a step for each thread: with less to do, to wake a thread takes longer than it saves."""

THREADED = 16384
"""Elements that blocks must have on average for the step to be shared out."""


# Threads

_set: int | None = None
_pool: ThreadPoolExecutor | None = None
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


def _executor() -> ThreadPoolExecutor:
    """The threads, which start when they are first needed and then wait."""
    global _pool  # noqa: PLW0603 - shared by all optimizers
    with _lock:
        if _pool is None:
            _pool = ThreadPoolExecutor(1024, "mlx-optimizers")
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


def share(parts: Iterable[Any], run: Callable[[Any], None], count: int) -> None:
    """Run all parts on this thread and ``count - 1`` others; each takes the next part that is left.

    Raises:
        Halted: from the first exception of a part, when every thread has ended. After it no part is begun.
    """
    todo, failed, left = deque(parts), [], []
    errors: list[BaseException] = []

    def take() -> None:
        while True:
            try:
                part = todo.popleft()
            except IndexError:  # none is left
                return
            try:
                run(part)
            except BaseException as error:
                errors.append(error)
                failed.append(part)
                with contextlib.suppress(IndexError):
                    while True:
                        left.append(todo.popleft())

    futures: list[Future[None]] = []
    with contextlib.suppress(RuntimeError):  # no thread starts while the interpreter ends; this one then does it all
        # In a copy of the context, so that NumPy's error handling is the caller's on every thread.
        others = range(min(count, len(todo)) - 1)
        futures.extend(_executor().submit(contextvars.copy_context().run, take) for _ in others)
    take()
    running = [future for future in futures if not future.cancel()]
    try:
        wait(running)
    except BaseException:  # an interrupt, after which nobody may still be writing
        todo.clear()
        wait(running)
        raise
    if errors:
        if not isinstance(errors[0], Exception):
            raise errors[0]
        raise Halted(failed, left) from errors[0]


class Part(NamedTuple):
    """A block of one of the arrays: its number, where it lies (None: it is the whole), and what is changed there."""

    number: int
    where: Index | None
    flat: bool
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
        self._local = threading.local()
        self.parts: list[Part] = []
        for number, changed in enumerate(arrays):
            if changed[0].size <= BLOCK:
                self.parts += [Part(number, None, False, changed)] if changed[0].size else []
                continue
            if flat[number]:
                changed = tuple(array.reshape(-1) for array in changed)
            for index in _tiles(changed[0].shape):
                self.parts.append(Part(number, index, flat[number], tuple(array[index] for array in changed)))
        self._largest = max((part.changed[0].size for part in self.parts), default=0)
        size = sum(changed[0].size for changed in arrays)
        # A thread gives up the interpreter's lock for the length of one operation; with small blocks it does not pay.
        self._most = size // SHARE if size >= THREADED * len(self.parts) else 1

    def run(
        self,
        gradients: Sequence[npt.NDArray[Any]],
        advance: Callable[..., None],
        coefficients: Mapping[np.dtype[Any], tuple[Any, ...]],
    ) -> None:
        """Advance every block.

        Args:
            gradients: The gradient of each parameter.
            advance: Advances a block; gets the coefficients, the parameter, the gradient, the slots, the scratch.
            coefficients: The coefficients by dtype.

        Raises:
            Halted: from the exception that a block raised, with the parts that failed and those that are left.
        """

        def block(part: Part) -> None:
            number, where, flat, (w, *slots) = part
            g = gradients[number]
            if where is not None:
                g = (g.reshape(-1) if flat else g)[where]
            advance(coefficients[w.dtype], w, g, *slots, *self._spare(w))

        share(self.parts, block, min(threads(), self._most) if self._most > 1 else 1)

    def _spare(self, block: npt.NDArray[Any]) -> tuple[npt.NDArray[Any], ...]:
        """This thread's scratch arrays, of the shape and dtype of a block."""
        kept: dict[Any, Any] = self._local.__dict__
        key = block.shape, block.dtype
        if key not in kept:
            if block.dtype not in kept:
                kept[block.dtype] = [np.empty(self._largest, block.dtype) for _ in range(self._scratch)]
            kept[key] = tuple(array[: block.size].reshape(block.shape) for array in kept[block.dtype])
        spare: tuple[npt.NDArray[Any], ...] = kept[key]
        return spare


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
