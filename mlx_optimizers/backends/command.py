"""A program in any language as a backend: the adapter protocol, one JSON object a line on standard input and output.

Nothing that the program does is trusted. Every reply has a limit of time and of size, everything in it is checked, and
the program's process group is killed at the end: with `Command.close`, after a broken protocol, on any exception that
passes through, when the backend is garbage and when the interpreter exits. (A child that the program has put into a
session of its own leaves the group; POSIX has no way to hold it.)
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import selectors
import shlex
import shutil
import signal
import subprocess
import sys
import time
import weakref
from collections.abc import Callable
from itertools import chain
from pathlib import Path
from types import TracebackType
from typing import Any, TypeVar

import numpy as np

from mlx_optimizers.backends import Unavailable
from mlx_optimizers.catalog import CATALOG, entry_of
from mlx_optimizers.conformance import Broken, Case, Run, Unsupported, parse
from mlx_optimizers.conformance.report import printable
from mlx_optimizers.conformance.verdict import decidable
from mlx_optimizers.kinds import FloatArray, Shape

__all__ = ["LIMIT", "NEWEST", "TIMEOUT", "AdapterError", "Command", "Failed", "request"]

NEWEST = 2
"""The newest protocol that the checker speaks: it adds trees, a state to start from, and gradients in another dtype."""

LIMIT = 2**24
"""Bytes that a reply may have."""

TIMEOUT = 60.0
"""Seconds that a reply may take."""

GRACE = 2.0
"""Seconds that an adapter has to end after it was told to stop."""

_SHOWN, _SHOWN_ERRORS = 200, 2000
"""Characters that a message quotes of a reply, and of the end of standard error."""

T = TypeVar("T")


class AdapterError(Broken):
    """An adapter that started has broken the protocol; the text says where, what came, and what was expected."""


class Failed(Exception):
    """The adapter answered a case with ``error``; the text is its reason."""


class _Breach(Exception):
    """Part of the text of an `AdapterError`: what is wrong, and what was expected."""

    def __init__(self, wrong: str, expected: str) -> None:
        super().__init__(wrong)
        self.expected = expected


def _require(holds: bool, wrong: str, expected: str) -> None:
    """Raise `_Breach` unless something holds."""
    if not holds:
        raise _Breach(wrong, expected)


class Command(contextlib.AbstractContextManager["Command"]):
    """A program that speaks the adapter protocol; one process for all cases.

    A broken protocol does not raise here but is kept as ``error``, so that what finished before can still be reported.

    Args:
        command: The program and its arguments, split as a shell splits them and run without one. A program that is
            not on PATH is looked for in the folder of the running Python: a virtual environment may not be activated.
        device: What the report says; an adapter computes where it likes.
        timeout: Seconds that each reply may take.

    Raises:
        ValueError: for a command that cannot be split, or a time that is not above 0.
        Unavailable: when the program cannot be started.

    Attributes:
        protocol: The protocol that the program speaks, from 1 to `NEWEST`.
        error: The `AdapterError` after which nothing more is asked, or None.
    """

    def __init__(self, command: str, device: str = "cpu", timeout: float = TIMEOUT) -> None:
        if not timeout > 0:
            raise ValueError(f"timeout must be above 0 seconds, not {timeout!r}")
        self.name, self.version, self.device = f"cmd:{printable(command)}", "unknown", device
        self.protocol = 1
        self.error: AdapterError | None = None
        self._command, self._timeout = command, timeout
        self._claims: dict[str, str] = {}
        self._process = _Process(command)
        self._finalizer = weakref.finalize(self, self._process.end)
        with contextlib.suppress(AdapterError):
            start = {"op": "start", "protocol": 1, "newest": NEWEST}
            self.name, self.version, self.protocol, self._claims = self._ask("start", start, _introduction)

    def claim(self, optimizer: str) -> str:
        """What the adapter said in answer to ``start``, otherwise the formula of the page."""
        return self._claims.get(optimizer, optimizer)

    def run(self, case: Case) -> Run:
        """Compute a case.

        Raises:
            Unsupported: when the adapter says that it cannot express the case, or its protocol cannot.
            Failed: when it answers ``error``.
            AdapterError: when it breaks the protocol, and in every call from then on.
        """
        self._require_protocol()
        if (reason := _beyond(case, self.protocol)) is not None:
            raise Unsupported(reason)
        answer = self._ask(f"run {case.id}", request(case), lambda reply: _answer(reply, case))
        if isinstance(answer, Exception):
            raise answer
        return answer

    def close(self) -> None:
        """Tell the adapter to stop, then kill what is left of its process group."""
        try:
            if self._finalizer.alive:
                self._process.stop()
        except _Breach as breach:
            self.error = AdapterError(self._text("stop", breach, self._process.received))
        finally:
            self._finalizer()

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if kind is None:
            self.close()
        else:
            self._finalizer()

    def _ask(self, what: str, message: dict[str, Any], read: Callable[[dict[str, Any]], T]) -> T:
        """Send a request and return what ``read`` makes of the reply; after anything else the process is killed."""
        self._require_protocol()
        line = b""
        try:
            if message["op"] == "run":
                self._process.require_silence()
            line = self._process.exchange(json.dumps(message).encode() + b"\n", self._timeout)
            return read(_object(line))
        except _Breach as breach:
            self._finalizer()
            self.error = AdapterError(self._text(what, breach, line or self._process.received))
            raise self.error from None
        except BaseException:
            self._finalizer()
            raise

    def _require_protocol(self) -> None:
        """Raise the `AdapterError` of a protocol that was broken before."""
        if self.error is not None:
            raise AdapterError(*self.error.args)

    def _text(self, what: str, breach: _Breach, line: bytes | bytearray) -> str:
        came = _cut(line[: 4 * _SHOWN].decode("utf-8", "replace"), len(line)) if line else "nothing"
        text = f"the adapter {printable(self._command)!r} broke the protocol in its reply to '{what}': {breach}"
        text += f"\n  came:     {came}\n  expected: {breach.expected}"
        if errors := self._process.errors.decode("utf-8", "replace").strip()[-_SHOWN_ERRORS:]:
            text += "\n  its standard error ends with:" + "".join(f"\n    {printable(x)}" for x in errors.splitlines())
        return text


class _Process:
    """A running program, its process group and its pipes."""

    def __init__(self, command: str) -> None:
        arguments = shlex.split(command)
        if not arguments:
            raise ValueError("cmd: needs a command, as in 'cmd:node adapter.mjs'")
        if not hasattr(os, "killpg"):
            raise Unavailable("an adapter needs a POSIX system, with process groups")
        folders = [*os.get_exec_path(), str(Path(sys.executable).parent)]
        program = shutil.which(arguments[0], path=os.pathsep.join(folders))
        if program is None:
            raise Unavailable(f"there is no program {arguments[0]!r}")
        pipe = subprocess.PIPE
        try:
            self._popen = subprocess.Popen(
                [program, *arguments[1:]], stdin=pipe, stdout=pipe, stderr=pipe, bufsize=0, start_new_session=True
            )
        except OSError as error:
            raise Unavailable(f"{arguments[0]!r} cannot be started: {error}") from error
        self._pipes = [pipe for pipe in (self._popen.stdin, self._popen.stdout, self._popen.stderr) if pipe is not None]
        self._input, self._output, self._errors = self._pipes
        self._selector = selectors.PollSelector()  # registers without a call of the system
        for stream in self._pipes:
            os.set_blocking(stream.fileno(), False)
        self._selector.register(self._output, selectors.EVENT_READ, self._receive)
        self._selector.register(self._errors, selectors.EVENT_READ, self._hear)
        self._unsent = memoryview(b"")
        self._closed = False
        self.received = bytearray()
        """What came on standard output and is not read yet."""
        self.errors = b""
        """The end of what came on standard error."""

    def exchange(self, message: bytes, timeout: float) -> bytes:
        """Send a message and return the next line, without its end."""
        deadline, searched = time.monotonic() + timeout, 0
        self._unsent = memoryview(message)
        self._selector.register(self._input, selectors.EVENT_WRITE, self._send)
        while not self._closed:
            end = self.received.find(b"\n", searched)
            whole = end >= 0 and not self._unsent
            size = end if whole else len(self.received)
            _require(size <= LIMIT, f"more than {LIMIT} bytes", f"one line of at most {LIMIT} bytes")
            if whole:
                line = bytes(self.received[:end])
                del self.received[: end + 1]
                return line
            searched = end if end >= 0 else len(self.received)
            in_time = self._wait(deadline)
            _require(in_time, f"no end of the line after {timeout:g} s", f"one line within {timeout:g} s")
        self.end()
        status = self._popen.returncode
        how = {0: "ended", -signal.SIGKILL: "closed its standard output"}
        ended = f"ended with status {status}" if status > 0 else f"was ended by signal {-status}"
        raise _Breach(f"the program {how.get(status, ended)}", "one line, and a program that waits for the next")

    def _wait(self, deadline: float) -> bool:
        """Write and read what can be, as soon as anything can; False when the time is over."""
        if (left := deadline - time.monotonic()) <= 0:
            return False
        for key, _ in self._selector.select(min(left, 60)):
            if not key.data():
                self._selector.unregister(key.fileobj)
        return True

    def require_silence(self) -> None:
        """Refuse what came before it was asked for."""
        with contextlib.suppress(BlockingIOError):
            self.received += os.read(self._output.fileno(), _CHUNK)
        _require(not self.received, "text before the question", "one line, after each request")

    def _send(self) -> bool:
        """Write some of the message; False once nothing is left of it."""
        try:
            self._unsent = self._unsent[os.write(self._input.fileno(), self._unsent[:_CHUNK]) :]
        except BrokenPipeError:  # it reads no more; what it has written will tell whether that is right
            self._unsent = self._unsent[:0]
        return bool(self._unsent)

    def _receive(self) -> bool:
        """Read some standard output; False once it is closed."""
        chunk = os.read(self._output.fileno(), _CHUNK)
        self.received += chunk
        self._closed = not chunk
        return bool(chunk)

    def _hear(self) -> bool:
        """Read some standard error and keep its end; False once it is closed."""
        chunk = os.read(self._errors.fileno(), _CHUNK)
        self.errors = (self.errors + chunk)[-4 * _SHOWN_ERRORS :]
        return bool(chunk)

    def stop(self) -> None:
        """Ask the program to stop, and give it the time for it."""
        deadline = time.monotonic() + GRACE
        with contextlib.suppress(OSError):
            os.write(self._input.fileno(), b'{"op": "stop"}\n')
        self._input.close()
        while not (self.received or self._closed) and self._wait(deadline):
            pass
        if self._closed:
            self._require_end(deadline)
        _require(not self.received, "text after the program was told to stop", "nothing more")

    def _require_end(self, deadline: float) -> None:
        """Wait until the program has ended, and require the status 0; one that takes longer is killed later."""
        while hasattr(os, "waitid") and time.monotonic() < deadline:
            # It stays to be waited for, so that no other process gets its number before its group is killed.
            ended = os.waitid(os.P_PID, self._popen.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT)
            if ended is not None:
                if ended.si_status:
                    how = "ended with status" if ended.si_code == os.CLD_EXITED else "was ended by signal"
                    raise _Breach(f"the program {how} {ended.si_status}", "an end with status 0")
                return
            time.sleep(0.005)

    def end(self) -> None:
        """Kill the process group. Only then is the process waited for: until then no other gets its number."""
        if self._popen.returncode is not None:
            return
        with contextlib.suppress(ProcessLookupError, PermissionError):  # the latter: macOS, of a group that has ended
            os.killpg(self._popen.pid, signal.SIGKILL)
        self._popen.wait()
        with contextlib.suppress(BlockingIOError):
            for _ in range(16):  # the pipe of standard error holds no more
                if not self._hear():
                    break
        for pipe in self._pipes:
            pipe.close()


_CHUNK = 2**16


def request(case: Case) -> dict[str, Any]:
    """The request that asks an adapter for a case.

    Example:
        >>> from mlx_optimizers.backends.command import request
        >>> from mlx_optimizers.conformance import matching
        >>> request(matching(pattern="sgd/plain/defaults")[0])["hyperparameters"]["learning_rate"]
        0.1
    """
    return {"op": "run", "id": case.id, **case.to_json()}


def _beyond(case: Case, protocol: int) -> str | None:
    """Say why a protocol cannot ask for a case, or None."""
    if case.regime == "untouched":
        return "a pipe does not show what a program writes to"
    if case.saved is not None:
        return "an adapter keeps no optimizer between requests; resume/step=3000 gives it a state"
    if protocol < 2 and (case.leaves or case.step or case.state or case.gradient_dtype is not None):
        return "the adapter speaks protocol 1"
    return None


def _object(line: bytes) -> dict[str, Any]:
    expected = "one JSON object"
    try:
        value = json.loads(line.decode("utf-8"), object_pairs_hook=_once)
    except (ValueError, RecursionError) as error:
        raise _Breach(f"not JSON ({_cut(str(error))})", expected) from None
    if not isinstance(value, dict):
        raise _Breach("not an object", expected)
    return value


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """An object, in which no key stands twice."""
    value = dict(pairs)
    if len(value) != len(pairs):
        raise ValueError("a key stands twice in an object")
    return value


def _require_keys(value: dict[str, Any], *sets: tuple[set[str], set[str]], place: str = "") -> None:
    """One of the sets of keys: those that must be there, and those that may."""
    words = [", ".join([*sorted(must), *(f"{key} (optional)" for key in sorted(may))]) for must, may in sets]
    known = any(must <= set(value) <= must | may for must, may in sets)
    _require(known, f"{place}the keys are {_cut(', '.join(value))}", "the keys " + "; or ".join(words))


def _word(value: dict[str, Any], key: str) -> str:
    text = value[key]
    _require(isinstance(text, str), f"{key} is {_cut(text)}", f"{key} is a string")
    return printable(text[:_SHOWN])


def _introduction(reply: dict[str, Any]) -> tuple[str, str, int, dict[str, str]]:
    """Name, version, protocol and claims in the reply to ``start``."""
    _require_keys(reply, ({"protocol", "name", "version"}, {"formulas"}))
    protocol, claims = reply["protocol"], reply.get("formulas", {})
    known = type(protocol) is int and 1 <= protocol <= NEWEST
    _require(known, f"protocol is {_cut(protocol)}", f'"protocol": 1, or as much as {NEWEST}')
    _require(isinstance(claims, dict), f"formulas is {_cut(claims)}", "formulas is an object")
    for optimizer, formula in claims.items():
        try:
            if optimizer not in {entry.name for entry in CATALOG}:
                raise ValueError(f"{optimizer!r} is no optimizer")
            if not isinstance(formula, str) or decidable(formula).optimizer.__name__ != entry_of(optimizer).family:
                raise ValueError(f"{formula!r} is no formula of {optimizer}")
        except ValueError as error:
            raise _Breach(_cut(str(error)), "formulas by optimizer") from None
    claimed = {key: parse(name).name for key, name in claims.items()}
    return _word(reply, "name"), _word(reply, "version"), protocol, claimed


def _answer(reply: dict[str, Any], case: Case) -> Run | Unsupported | Failed:
    """What the reply to ``run`` says."""
    one: tuple[set[str], set[str]] = {"parameters"}, {"state"}
    computed = ({"id", "tree"}, set[str]()) if case.leaves else ({"id", *one[0]}, one[1])
    _require_keys(reply, computed, ({"id", "unsupported"}, set()), ({"id", "error"}, set()))
    _require(reply["id"] == case.id, f"id is {_cut(reply['id'])}", f"id is {case.id!r}")
    if "unsupported" in reply:
        return Unsupported(_word(reply, "unsupported"))
    if "error" in reply:
        return Failed(_word(reply, "error"))
    if not case.leaves:
        return _computed("", reply, case)
    tree, count = reply["tree"], len(case.leaves)
    _require(isinstance(tree, list) and len(tree) == count, f"tree is {_cut(tree)}", f"tree is a list of {count}")
    runs = []
    for index, (value, leaf) in enumerate(zip(tree, case.leaves, strict=True)):
        place = f"tree[{index}]"
        _require(isinstance(value, dict), f"{place} is {_cut(value)}", f"{place} is an object")
        _require_keys(value, one, place=f"{place}: ")
        runs.append(_computed(f"{place}: ", value, leaf))
    return Run(case, case.gradients, {}, leaves=tuple(runs))


def _computed(place: str, value: dict[str, Any], case: Case) -> Run:
    """What was computed for one parameter; ``place`` says where in the reply."""
    slots, state = case.slots, value.get("state", {})
    alone = f"state is an object with {', '.join(slots)} alone"
    _require(isinstance(state, dict), f"{place}state is {_cut(state)}", alone)
    _require(set(state) <= set(slots), f"{place}the slots of state are {_cut(', '.join(state))}", alone)
    parameters = _floats(f"{place}parameters", value["parameters"], case, case.parameter.shape)
    found = {name: _floats(f"{place}state {name}", rows, case, slots[name]) for name, rows in state.items()}
    return Run(case, parameters, found)


def _floats(what: str, rows: Any, case: Case, shape: Shape) -> FloatArray:
    """The array that lists of bit patterns stand for, one list a step."""
    steps, count, digits = len(case.gradients), math.prod(shape), case.form.width // 4
    expected = f"{steps} lists of {count} strings of {digits} digits 0-9a-f"
    _require(isinstance(rows, list) and len(rows) == steps, f"{what}: {_cut(rows)}", expected)
    for step, row in enumerate(rows, 1):
        _require(isinstance(row, list) and len(row) == count, f"{what} after step {step}: {_cut(row)}", expected)
    patterns = [*chain.from_iterable(rows)]
    if not _are_patterns(patterns, digits):
        wrong = next(i for i, pattern in enumerate(patterns) if not _are_patterns([pattern], digits))
        step, element = divmod(wrong, count)
        raise _Breach(f"{what} after step {step + 1}, element {element}: {_cut(patterns[wrong])}", expected)
    unsigned = np.frombuffer(bytes.fromhex("".join(patterns)), f">u{digits // 2}").astype(f"u{digits // 2}")
    return unsigned.view(case.form.dtype).reshape(steps, *shape)


def _are_patterns(values: list[Any], digits: int) -> bool:
    """Whether all are strings of so many hexadecimal digits; all at once, as that is faster."""
    if not (set(map(type, values)) <= {str} and set(map(len, values)) <= {digits}):
        return False
    return not "".join(values).encode("ascii", "replace").translate(None, b"0123456789abcdef")


def _cut(value: Any, size: int = 0) -> str:
    """A value of JSON as text, cut short; ``size`` is its length where it comes shortened already."""
    if isinstance(value, list):
        return f"a list of {len(value)}"
    if isinstance(value, dict):
        return f"an object of {len(value)}"
    text = value if isinstance(value, str) else repr(value)
    size = max(size, len(text))
    return printable(text[:_SHOWN]) + (f" … ({size} bytes)" if size > _SHOWN else "")
