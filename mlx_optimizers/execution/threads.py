"""Threads: how the parts of one step are shared out."""

from __future__ import annotations

import contextlib
import contextvars
import os
import queue
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from itertools import pairwise
from typing import Any

_set: int | None = None
_jobs: queue.SimpleQueue[_Job] = queue.SimpleQueue()
_workers = 0
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


class _Job:
    """Something for another thread to do, unless it is called off before that begins."""

    def __init__(self, run: Callable[[], None]) -> None:
        self._run = run
        self._begun = self._called_off = False
        self._ended = threading.Event()

    def run(self) -> None:
        self._begun = True
        try:
            if not self._called_off:
                self._run()
        finally:
            self._ended.set()

    def finish(self) -> None:
        """Wait until it has ended, or see to it that it never begins."""
        self._called_off = True
        if self._begun:
            self._ended.wait()


def _serve(jobs: queue.SimpleQueue[_Job]) -> None:
    while True:
        jobs.get().run()


def _give(jobs: Sequence[_Job]) -> None:
    """Give jobs to threads, which start when they are first needed and then wait; a queue wakes them in 20 µs."""
    global _workers  # noqa: PLW0603 - the threads of the process
    with _lock, contextlib.suppress(RuntimeError):  # none starts while the interpreter ends; the jobs are called off
        while _workers < len(jobs):
            threading.Thread(target=_serve, args=(_jobs,), name=f"mlx-optimizers_{_workers}", daemon=True).start()
            _workers += 1
    for job in jobs:
        _jobs.put(job)


def _forget_threads() -> None:
    """After a fork the child has none of the threads, and a lock may have been held by one of them."""
    global _jobs, _workers, _lock
    _jobs, _workers, _lock = queue.SimpleQueue(), 0, threading.Lock()


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
    """Have this thread and ``count - 1`` others work on all parts, each on a stretch, then on what others have left.

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
    count = min(count, len(parts))
    # Each begins with a stretch of its own, whose memory is then near its core at every step.
    ends = [len(parts) * thread // count for thread in range(count + 1)]
    todo = [deque(range(start, stop)) for start, stop in pairwise(ends)]
    unbegun, done, errors = {*range(len(parts))}, set[int](), list[BaseException]()

    def taken(thread: int) -> Iterator[Any]:
        while not errors:
            for take in (todo[thread].popleft, *(other.pop for other in todo)):
                with contextlib.suppress(IndexError):
                    number = take()
                    break
            else:
                return
            unbegun.remove(number)
            yield parts[number]
            done.add(number)

    def take(thread: int) -> None:
        try:
            work(thread, taken(thread))
        except BaseException as error:
            errors.append(error)

    # In a copy of the context, so that NumPy's error handling is the caller's on every thread.
    runs = [partial(contextvars.copy_context().run, take, thread) for thread in range(1, count)]
    jobs = list(map(_Job, runs))
    try:
        _give(jobs)
        take(0)
    except BaseException as error:  # an interrupt
        errors.append(error)
    try:
        for job in jobs:
            job.finish()
    except BaseException as error:  # another one, after which nobody may still be writing either
        errors.append(error)
        for job in jobs:
            job.finish()
    if errors:
        cause = next((error for error in errors if not isinstance(error, Exception)), errors[0])
        raise Stopped({*range(len(parts))} - unbegun - done, unbegun) from cause
