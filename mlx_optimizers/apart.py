"""Run foreign code in a process of its own, which it may end without ending ours."""

from __future__ import annotations

import contextlib
import ctypes
import json
import multiprocessing
import os
import signal
import sys
import tempfile
import time
from collections.abc import Callable
from typing import IO, Any, NoReturn

__all__ = ["Ended", "apart"]

PATIENCE = 2.0
"""Seconds in which a process must end when it is told to."""

_BEGUN, _ANSWER = b"begun\n", b"answer\n"
_PR_SET_PDEATHSIG = 1


class Ended(Exception):
    """The process ended before the work did; the text says how.

    Args:
        how: With which status, or by which signal.
        begun: Whether the work had said that it begins.
    """

    def __init__(self, how: str, begun: bool) -> None:
        super().__init__(how)
        self.begun = begun


def apart(work: Callable[[Callable[[], None]], Any]) -> Any:
    """Do work in a process of its own.

    Args:
        work: Gets a function to call when it begins in earnest.

    Returns:
        The result of the work, which must be JSON.

    Raises:
        Ended: where the process ends first, with any status, also of success.
    """
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError):
            stream.flush()
    with tempfile.TemporaryFile() as answer:
        parent, child, end = os.getpid(), 0, None
        try:
            child = os.fork()
            if child == 0:
                _answer(work, answer, parent)
            with contextlib.suppress(ChildProcessError):  # where SIGCHLD is ignored, it is gone
                _, end = os.waitpid(child, 0)
        except BaseException:
            if os.getpid() != parent:
                os._exit(1)
            if child:
                _end(child)
            raise
        answer.seek(0)
        text = answer.read()
    begun, _, done = text.partition(_ANSWER)
    if done.endswith(b"\n"):
        return json.loads(done)
    raise Ended(_how(end), bool(begun))


def _how(end: int | None) -> str:
    code = None if end is None else os.waitstatus_to_exitcode(end)
    if code is None or code >= 0:
        return f"status {'unknown' if code is None else code}"
    names = {number.value: number.name for number in signal.Signals}  # some have none
    return f"signal {names.get(-code, -code)}"


def _answer(work: Callable[[Callable[[], None]], Any], answer: IO[bytes], parent: int) -> NoReturn:
    """In the child: write the answer and end, without the exit handlers of the program."""
    try:
        if sys.platform == "linux":  # end with the parent, were it killed
            ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() == parent:
            own = os.getpid()
            done = work(lambda: _write(answer, _BEGUN))
            if os.getpid() == own:  # and not a process that the work has forked
                _write(answer, _ANSWER + json.dumps(done).encode() + b"\n")
                for process in multiprocessing.active_children():
                    process.kill()
    finally:
        try:
            for stream in (sys.stdout, sys.stderr):
                with contextlib.suppress(Exception):  # it may be anything by now
                    stream.flush()
        finally:
            os._exit(1)


def _end(child: int) -> None:
    """End the child, after a moment in which it can end its own processes."""
    with contextlib.suppress(ProcessLookupError, ChildProcessError):  # it has
        os.kill(child, signal.SIGTERM)
        deadline = time.monotonic() + PATIENCE
        while os.waitpid(child, os.WNOHANG) == (0, 0):
            if time.monotonic() > deadline:
                os.kill(child, signal.SIGKILL)
                os.waitpid(child, 0)
                return
            time.sleep(0.01)


def _write(file: IO[bytes], text: bytes) -> None:
    file.write(text)
    file.flush()
