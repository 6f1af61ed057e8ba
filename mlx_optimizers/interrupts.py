"""A signal during a step, or while a process is started: that is finished first."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from signal import SIGINT, Signals
from types import FrameType, TracebackType
from typing import Any, TypeVar

try:  # what `signal` wraps, to make enumerations of numbers, which takes ten times as long
    from _signal import getsignal, signal  # type: ignore[import-not-found]
except ImportError:
    from signal import getsignal, signal

__all__ = ["ENDING", "Held", "Stopped", "held"]

ENDING = tuple(number for number in Signals if number.name in ("SIGINT", "SIGTERM", "SIGHUP", "SIGQUIT"))
"""The signals by which a terminal or another process ends a program; Windows lacks some."""

PATIENCE = 1.0
"""Seconds after which a second interrupt is not held any more: whoever sends it does not want to wait."""


class Stopped(Exception):
    """A step that ended early, by its cause, with the numbers of what may have moved, and what not to the end."""

    def __init__(self, begun: Iterable[int], left: Iterable[int]) -> None:
        super().__init__()
        self.begun, self.left = set(begun), set(left)


class Held:
    """Holds a signal, and has it handled as usual when the block is over.

    It is held in the main thread alone, as Python handles signals in no other, and only where a Python function
    handles it: what ignores the signal, or ends the process at once, does so.

    Args:
        number: The signal.

    Example:
        >>> import signal
        >>> from mlx_optimizers.interrupts import Held
        >>> before = signal.signal(signal.SIGINT, signal.default_int_handler)
        >>> try:
        ...     with Held():
        ...         signal.raise_signal(signal.SIGINT)
        ...         print("the block goes on")
        ... except KeyboardInterrupt:
        ...     print("and ends")
        the block goes on
        and ends
        >>> previous = signal.signal(signal.SIGINT, before)
    """

    def __init__(self, number: int = SIGINT) -> None:
        self._number = number
        self._usual: Any = None
        self._frame: FrameType | None = None
        self._first: tuple[float, int, FrameType | None] | None = None

    def __enter__(self) -> None:
        usual = getsignal(self._number)
        if callable(usual):
            self._usual, self._frame = usual, sys._getframe(1)
            try:
                signal(self._number, self._hold)
            except ValueError:  # not the main thread
                self._usual = self._frame = None
            except BaseException:  # of the handler of another signal
                signal(self._number, usual)
                raise

    def _hold(self, number: int, frame: FrameType | None) -> None:
        now = time.monotonic()
        if self._frame not in _below(sys._getframe()):  # the block is over: an exception at its end kept this handler
            signal(self._number, self._usual)
            self._usual(number, frame)
        elif self._first is None:
            self._first = now, number, frame
        elif now - self._first[0] > PATIENCE:
            try:
                self._usual(number, frame)
            except BaseException:
                self._first = None  # is the same one
                raise

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._usual is None:
            return
        found = signal(self._number, self._usual)
        self._frame = None
        if found != self._hold:  # set meanwhile, by a schedule or a rule of somebody's own
            signal(self._number, found)
        if self._first is not None:
            self._usual(*self._first[1:])


def _below(frame: FrameType | None) -> Iterator[FrameType | None]:
    """A frame, and those that it was called from."""
    while frame is not None:
        yield frame
        frame = frame.f_back


_Result = TypeVar("_Result")


def held(work: Callable[[], _Result], signals: Sequence[int] = ENDING) -> _Result:
    """Do work, and have each of the signals handled when it is done."""
    if not signals:
        return work()
    with Held(signals[0]):
        return held(work, signals[1:])
