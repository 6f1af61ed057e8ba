"""Threads: how the parts of one step are shared out."""

from __future__ import annotations

import contextlib
import contextvars
import os
import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from typing import Any

__all__ = ["Halted", "set_threads", "share", "threads"]

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
