"""Threads: how the parts of one step are shared out."""

from __future__ import annotations

import contextlib
import contextvars
import os
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from typing import Any

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
        >>> from mlx_optimizers.execution.threads import set_threads, threads
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


class Stopped(Exception):
    """A step that ended early; its cause says why.

    Args:
        partly: The numbers of what may have moved in part.
        still: The numbers of what has not moved.
    """

    def __init__(self, partly: Iterable[int], still: Iterable[int]) -> None:
        self.partly, self.still = sorted(partly), sorted(still)
        super().__init__(self.partly, self.still)


Work = Callable[[int, Iterator[Any]], None]
"""Goes through parts; gets the number of its thread, from 0, and the parts, of which it holds one at a time."""


def share(parts: Sequence[Any], work: Work, count: int) -> None:
    """Have this thread and ``count - 1`` others work on all parts; each takes the next one that is left.

    Raises:
        Stopped: from the first exception of a part, when every thread has ended. After it no part is begun.
    """
    if min(count, len(parts)) < 2:
        rest = iter(parts)
        try:
            work(0, rest)
        except BaseException as error:
            begun = len(parts) - len(list(rest))
            raise Stopped(range(max(0, begun - 1), begun), range(begun, len(parts))) from error
        return
    todo, unbegun, done = deque(enumerate(parts)), {*range(len(parts))}, set[int]()
    errors: list[BaseException] = []

    def taken() -> Iterator[Any]:
        with contextlib.suppress(IndexError):
            while not errors:
                number, part = todo.popleft()
                unbegun.remove(number)
                yield part
                done.add(number)

    def take(thread: int) -> None:
        try:
            work(thread, taken())
        except BaseException as error:
            errors.append(error)

    futures: list[Future[None]] = []
    others = range(1, min(count, len(parts)))
    try:
        with contextlib.suppress(RuntimeError):  # no thread starts while the interpreter ends; this one does it all
            pool = _executor(len(others))
            # In a copy of the context, so that NumPy's error handling is the caller's on every thread.
            futures.extend(pool.submit(contextvars.copy_context().run, take, thread) for thread in others)
        take(0)
        wait([future for future in futures if not future.cancel()])
    except BaseException as error:  # an interrupt, after which nobody may still be writing
        errors.append(error)
        wait([future for future in futures if not future.cancel()])
    if errors:
        cause = next((error for error in errors if not isinstance(error, Exception)), errors[0])
        raise Stopped({*range(len(parts))} - unbegun - done, unbegun) from cause
