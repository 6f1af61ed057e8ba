"""Threads: how the parts of one step are shared out."""

from __future__ import annotations

import contextlib
import contextvars
import os
import queue
import threading
from collections import deque
from collections.abc import Callable, Iterable
from functools import partial

_set: int | None = None


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


Jobs = queue.SimpleQueue[Callable[[], None]]  # wakes the thread that waits for it within 20 µs

_workers: list[tuple[threading.Thread, Jobs]] = []


def _work(jobs: Jobs) -> None:
    """Run jobs for as long as the process lives."""
    while True:
        jobs.get()()


def _started(count: int) -> list[Jobs]:
    """Start workers that are needed for the first time; return their queues, fewer while the interpreter ends."""
    with contextlib.suppress(RuntimeError):
        _workers[:] = [worker for worker in _workers if worker[0].is_alive()]  # a forked child has none of its parent's
        while len(_workers) < count:
            jobs: Jobs = queue.SimpleQueue()
            thread = threading.Thread(target=_work, args=[jobs], name=f"mlx-optimizers_{len(_workers)}", daemon=True)
            thread.start()
            _workers.append((thread, jobs))
    return [jobs for _, jobs in _workers[:count]]


class Stopped(Exception):
    """A step that ended early, by its cause, with the numbers of what may have moved, and what not to the end."""

    def __init__(self, begun: Iterable[int], left: Iterable[int]) -> None:
        super().__init__()
        self.begun, self.left = set(begun), set(left)


def share(parts: int, run: Callable[[int, int], None], count: int) -> None:
    """Run parts, by the numbers of a thread and of a part, on ``count`` threads, of which this one is the first.

    Each runs a stretch of them, then what others have left. After an exception no part begins; when all threads have
    ended, it is the cause of Stopped.
    """
    count = min(count, parts)
    if count < 2:
        number = -1
        try:
            for number in range(parts):
                run(0, number)
        except BaseException as error:
            raise Stopped(range(number + 1), range(max(0, number), parts)) from error
        return
    # A stretch of its own is near the core of its thread at every step.
    todo = [deque(range(parts * thread // count, parts * (thread + 1) // count)) for thread in range(count)]
    working = [threading.Lock() for _ in range(count)]
    begun, left, errors = set[int](), {*range(parts)}, list[BaseException]()

    def work(thread: int) -> None:
        takes = [todo[thread].popleft, *(other.pop for other in todo)]
        with working[thread]:
            try:
                while takes and not errors:
                    try:
                        number = takes[0]()
                    except IndexError:
                        del takes[0]
                        continue
                    begun.add(number)
                    run(thread, number)
                    left.discard(number)
            except BaseException as error:
                errors.append(error)

    try:
        for thread, jobs in enumerate(_started(count - 1), 1):
            # In a copy of the context, so that NumPy's error handling is the caller's on every thread.
            jobs.put(partial(contextvars.copy_context().run, work, thread))
        work(0)
    except BaseException as error:  # an interrupt
        errors.append(error)
    # No part is left to take, or there are errors: a worker that begins from here on does nothing.
    awaited = list(working)
    while awaited:
        try:
            with awaited[-1]:
                awaited.pop()
        except BaseException as error:  # an interrupt too, after which nobody may still be writing either
            errors.append(error)
    if errors:
        cause = next((error for error in errors if not isinstance(error, Exception)), errors[0])
        raise Stopped(begun, left) from cause
