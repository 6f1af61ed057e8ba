"""Threads: how the parts of one step are shared out."""

from __future__ import annotations

import contextlib
import contextvars
import ctypes
import os
import queue
import threading
from collections.abc import Callable
from functools import partial
from itertools import chain

from mlx_optimizers.interrupts import Stopped

_workers: list[_Worker] = []

_core = getattr(ctypes.CDLL(None), "sched_getcpu", None) if hasattr(os, "sched_setaffinity") else None


class _Worker(threading.Thread):
    """A thread that runs jobs for as long as the process lives."""

    def __init__(self, number: int) -> None:
        super().__init__(name=f"mlx-optimizers_{number}", daemon=True)
        self._jobs = queue.SimpleQueue[Callable[[], None]]()  # wakes the thread that waits for it within 20 µs
        self._beside = -1

    def run(self) -> None:
        while True:
            self._jobs.get()()

    def give(self, job: Callable[[], None]) -> None:
        """Run a job on another core than the caller's, where Linux may wake an idle thread, which then waits there."""
        if _core is not None and (here := _core()) != self._beside:
            with contextlib.suppress(OSError):  # no other core is allowed
                os.sched_setaffinity(self.native_id or -1, os.sched_getaffinity(0) - {here})
            self._beside = here
        self._jobs.put(job)


def _started(count: int) -> list[_Worker]:
    """Start workers that are needed for the first time; return fewer while the interpreter ends."""
    with contextlib.suppress(RuntimeError):
        _workers[:] = [worker for worker in _workers if worker.is_alive()]  # a forked child has none of its parent's
        while len(_workers) < count:
            worker = _Worker(len(_workers))
            worker.start()
            _workers.append(worker)
    return _workers[:count]


def share(parts: int, run: Callable[[int, int], None], count: int) -> None:
    """Run parts, by the numbers of a thread and of a part, on ``count`` threads, of which this one is the first.

    Each begins at a stretch of its own, which is near its core at every step, and goes on to what others have left.
    After an exception no part begins; when all threads have ended, it is the cause of Stopped.
    """
    if (count := min(count, parts)) < 2:
        part = -1
        try:
            for part in range(parts):
                run(0, part)
        except BaseException as error:
            raise Stopped(range(part + 1), range(max(0, part), parts)) from error
        return
    todo, left = dict.fromkeys(range(parts), True), {*range(parts)}
    errors: list[BaseException] = []
    working = [threading.Lock() for _ in range(count)]

    def work(thread: int) -> None:
        first = parts * thread // count
        with working[thread]:
            try:
                for part in chain(range(first, parts), range(first)):
                    if not errors and todo.pop(part, False):
                        run(thread, part)
                        left.discard(part)
            except BaseException as error:
                errors.append(error)

    try:
        for thread, worker in enumerate(_started(count - 1), 1):
            # In a copy of the context, so that NumPy's error handling is the caller's on every thread.
            worker.give(partial(contextvars.copy_context().run, work, thread))
        work(0)
    except BaseException as error:  # an interrupt
        errors.append(error)
    # No part is left to take, or there are errors: a worker that begins from here on does nothing.
    awaited = working[1:]
    while awaited:
        try:
            with awaited[-1]:
                awaited.pop()
        except BaseException as error:  # an interrupt too, after which nobody may still be writing either
            errors.append(error)
    if errors:
        cause = next((error for error in errors if not isinstance(error, Exception)), errors[0])
        raise Stopped({*range(parts)} - todo.keys(), left) from cause
