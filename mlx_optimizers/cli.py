"""The command ``mlx-optimizers``."""

from __future__ import annotations

import argparse
import contextlib
import functools
import io
import json
import math
import os
import re
import shutil
import signal
import sys
import time
import traceback
from collections.abc import Callable, Sequence
from typing import Any, TextIO

import mlx_optimizers
from mlx_optimizers.apart import Ended, apart
from mlx_optimizers.backends import BACKENDS, OWN, Unavailable, open_backend, require_known
from mlx_optimizers.catalog import CATALOG, entry_of
from mlx_optimizers.conformance import Report, check, decisive, matching, vectors
from mlx_optimizers.conformance.case import Case, default_rate, defaults_of
from mlx_optimizers.conformance.formats import FORMATS
from mlx_optimizers.conformance.formats.text import text
from mlx_optimizers.conformance.report import printable
from mlx_optimizers.conformance.schemas import schema
from mlx_optimizers.conformance.trace import trace
from mlx_optimizers.conformance.verdict import decidable
from mlx_optimizers.files import replacing
from mlx_optimizers.interrupts import ENDING
from mlx_optimizers.oracle import FORMATS as DTYPES
from mlx_optimizers.oracle import Exact, Formula

__all__ = ["main"]

EXECUTED_NOTHING = 3
USAGE = 2
DEVIATES = 1

MANY = 300
"""From so many cases on it pays to start processes for the oracle."""

MOST_JOBS = 4
"""Each takes half a second to start."""

_OPTIMIZERS = {entry.name: entry.optimizer for entry in CATALOG}


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line.

    Args:
        argv: Arguments; default those of the process.

    Returns:
        The exit status, the first that applies: 2 usage, 4 an adapter broke the protocol, 3 nothing was executed,
        1 something deviates or failed, 0 everything conforms.

    Example:
        >>> from mlx_optimizers.cli import main
        >>> main(["trace", "SGD", "--gradient=-1", "--learning-rate", "0.5"])
        SGD(learning_rate=0.5, momentum=0.0, weight_decay=0.0, dampening=0.0,
            nesterov=False), float32, w = 0.0
        <BLANKLINE>
        step 1, g = -1.0
           float32         bits     exact                  from           to
        w  0.5             3f000000 0.5                    0.4999999      0.50000006
        v  0.0             00000000 0                      0.0            0.0
        0
    """
    if argv is None:  # the process is ours
        _open_streams()
        _hear_signals()
        _write_every_character()
        _keep_output()
    try:
        return _run(sys.argv[1:] if argv is None else argv, ours=argv is None)
    finally:
        for stream in (sys.stdout, sys.stderr):
            _flush(stream)


def _run(argv: Sequence[str], *, ours: bool) -> int:
    arguments = _parser().parse_args(_with_negative_numbers(argv), argparse.Namespace(ours=ours))
    try:
        run: Callable[[argparse.Namespace], int] = arguments.run
        return run(arguments)
    except (_Stop, _Signalled, OSError) as error:
        stop = _stop(arguments, error)
        _say(stop.text)
        return stop.status


class _Stop(Exception):
    """The end of a command that has no result.

    Args:
        text: What standard error says.
        status: The exit status.
    """

    def __init__(self, text: str, status: int) -> None:
        super().__init__(text, status)
        self.text, self.status = text, status


def _usage(arguments: argparse.Namespace, error: str | Exception) -> _Stop:
    """Stop for arguments that a command cannot run with."""
    return _Stop(f"{arguments.parser.format_usage()}{arguments.parser.prog}: error: {error}", USAGE)


def _nothing(reason: str | Exception) -> _Stop:
    """Stop before anything was executed."""
    return _Stop(f"mlx-optimizers: nothing was executed: {reason}", EXECUTED_NOTHING)


def _no_report(reason: str) -> _Stop:
    """Stop where the checked code ended after the first case had begun, before the report."""
    return _Stop(f"mlx-optimizers: no report: {reason}", DEVIATES)


def _stop(arguments: argparse.Namespace, error: _Stop | KeyboardInterrupt | OSError) -> _Stop:
    """Stop for what ends a command early: a signal, or a file that cannot be read or written."""
    if isinstance(error, _Stop):
        return error
    if isinstance(error, OSError):
        return _Stop(f"{arguments.parser.prog}: error: {error}", USAGE)
    number = error.number if isinstance(error, _Signalled) else signal.SIGINT
    return _Stop(f"{arguments.parser.prog}: ended by {number.name}", 128 + number)


class _Signalled(KeyboardInterrupt):
    """A signal that ends the process, by way of the handlers that end an adapter too; nobody's verdict.

    Args:
        number: The signal.
    """

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = signal.Signals(number)


_SOON = 3.0
"""Seconds after a signal in which further ones are ignored, while the command ends what it began."""


def _hear_signals() -> None:
    """Raise `_Signalled` for each signal that would end the process, but for those that are ignored, as by nohup.

    Another that comes soon afterwards waits for what ends: a terminal sends them to every process, as a parent may.
    """
    last = -math.inf

    def raise_it(number: int, _: object) -> None:
        nonlocal last
        before, last = last, time.monotonic()
        if last - before > _SOON:
            raise _Signalled(number)

    for number in ENDING:
        if signal.getsignal(number) != signal.SIG_IGN:
            signal.signal(number, raise_it)


def _open_streams() -> None:
    """Give a standard stream that was closed to the null device, so that no file gets its descriptor."""
    for number, name, mode in ((0, "stdin", "r"), (1, "stdout", "w"), (2, "stderr", "w")):
        if getattr(sys, name) is None:
            descriptor = os.open(os.devnull, os.O_RDWR)
            if descriptor != number:
                os.dup2(descriptor, number)
                os.close(descriptor)
            setattr(sys, name, os.fdopen(number, mode, encoding="utf-8", closefd=False))


def _keep_output() -> None:
    """Keep standard output for us: what children and libraries in C print goes to standard error."""
    sys.stdout.flush()
    encoding, errors = sys.stdout.encoding, sys.stdout.errors
    kept = os.fdopen(os.dup(1), "w", encoding=encoding, errors=errors)
    os.dup2(2, 1)
    sys.stdout = sys.__stdout__ = kept  # type: ignore[misc]


def _say(text: str) -> None:
    """Print on standard error, which may be full: that changes no status."""
    with contextlib.suppress(OSError):
        print(printable(text, "\n"), file=sys.stderr)
    _flush(sys.stderr)


def _print(text: str) -> None:
    """Print on standard output. A reader that has seen enough changes no status; a full disk is an error."""
    try:
        sys.stdout.write(text)
        sys.stdout.flush()
    except BrokenPipeError:
        _flush(sys.stdout)


def _flush(stream: TextIO) -> None:
    """Write what a stream still holds; where that cannot be, let it go, so that the interpreter's last try is none."""
    try:
        stream.flush()
    except OSError:
        with contextlib.suppress(OSError, ValueError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
            stream.flush()


def _write_every_character() -> None:
    """Write UTF-8 into files and pipes under every locale; a terminal shows ? for the characters that it lacks.

    PYTHONIOENCODING overrides this.
    """
    if isinstance(sys.stdout, io.TextIOWrapper):
        if sys.stdout.isatty() or os.environ.get("PYTHONIOENCODING"):
            sys.stdout.reconfigure(errors="replace")
        else:
            sys.stdout.reconfigure(encoding="utf-8")


def _with_negative_numbers(argv: Sequence[str]) -> list[str]:
    """Join ``--option -1,2`` to ``--option=-1,2``: argparse takes the second for an option."""
    out: list[str] = []
    for argument in argv:
        if re.match(r"-(\d|\.|inf|nan)", argument) and out and re.fullmatch(r"--[a-z-]+", out[-1]):
            out[-1] += f"={argument}"
        else:
            out.append(argument)
    return out


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="mlx-optimizers",
        description="The MLX optimizers exactly, and a checker that tells any backend what it computes.",
    )
    parser.add_argument("--version", action="version", version=f"mlx-optimizers {mlx_optimizers.__version__}")
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")
    _add_check(commands.add_parser("check", help="check a backend against the documented formulas"))
    _add_trace(commands.add_parser("trace", help="show every step of one element"))
    _add_vectors(commands.add_parser("vectors", help="write or verify the published vectors"))
    return parser


def _add_check(parser: argparse.ArgumentParser) -> None:
    parser.description = "Run a backend over the cases and say whether it computes what it claims to."
    parser.epilog = (
        "Exit status: 0 everything conforms, 1 a case deviates or failed, 2 usage, 3 nothing was executed, "
        f"4 an adapter broke the protocol. Backends: {', '.join(BACKENDS)}; an optimizer of your own as "
        f"{', '.join(f'{kind}:MODULE:NAME' for kind in OWN)}; a program in any language as cmd:COMMAND."
    )
    parser.set_defaults(run=_check, parser=parser)
    parser.add_argument("backend", metavar="BACKEND", nargs="?", help="what to check")
    parser.add_argument("--optimizer", action="append", metavar="NAME", help="only this optimizer (may be repeated)")
    parser.add_argument("--case", metavar="GLOB", help="only cases whose identifier matches; * crosses /")
    parser.add_argument(
        "--dtype",
        action="append",
        choices=DTYPES,
        metavar="NAME",
        help=f"run the cases in this dtype: {', '.join(DTYPES)}; default float32 (may be repeated). Another than "
        "float32 has the cases of the formulas alone, but those in which it lets nothing of the parameter be tested",
    )
    parser.add_argument("--as", dest="formula", metavar="FORMULA", help="hold its optimizer to this formula")
    parser.add_argument("--scalars", choices=("double", "float32", "either"), default="either")
    parser.add_argument("--device", choices=("cpu", "gpu"), default="cpu")
    parser.add_argument("--format", choices=FORMATS, default="human")
    parser.add_argument("-o", "--output", metavar="FILE", help="write the report there instead of standard output")
    parser.add_argument(
        "--timeout", type=_seconds, default=60.0, metavar="SECONDS", help="for each reply of an adapter; default 60"
    )
    parser.add_argument(
        "-j",
        "--jobs",
        type=_count,
        metavar="N",
        help=f"processes for the oracle; default one a processor, at most {MOST_JOBS}, and 1 for fewer than {MANY} "
        "cases or MODULE:NAME",
    )
    parser.add_argument("--list", action="store_true", help="print the cases' identifiers and stop")
    parser.add_argument("--schema", action="store_true", help="print the JSON Schema of the report and stop")


def _count(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number above 0")
    return int(text)


def _jobs(arguments: argparse.Namespace, cases: int) -> int:
    """Choose how many processes hold the cases to the oracle.

    A process that is not ours may have a main module that must not be imported again, as each of them does; the user's
    own code may end the process that started them.
    """
    if arguments.jobs is not None:
        return int(arguments.jobs)
    if cases < MANY or not arguments.ours or _is_own(arguments.backend):
        return 1
    processors = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return min(processors or 1, MOST_JOBS)


def _is_own(backend: str) -> bool:
    """Tell whether the backend is code of the user's own, which runs in this process."""
    return backend.partition(":")[0] in OWN


def _seconds(text: str) -> float:
    if not 0 < (seconds := _number(text)) < math.inf:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of seconds above 0")
    return seconds


def _check(arguments: argparse.Namespace) -> int:
    if arguments.schema:
        _print(json.dumps(schema("report"), indent=2) + "\n")
        return 0
    if arguments.backend is None:
        raise _usage(arguments, "the following arguments are required: BACKEND")
    optimizers, formula = arguments.optimizer, None
    try:
        if unknown := [name for name in optimizers or () if name not in _OPTIMIZERS]:
            raise ValueError(f"unknown optimizer {unknown[0]!r}; known are {', '.join(_OPTIMIZERS)}")
        if arguments.formula is not None:
            formula = decidable(arguments.formula)
            alone = formula.optimizer.__name__
            if others := sorted(name for name in optimizers or () if entry_of(name).family != alone):
                raise ValueError(f"--optimizer {others[0]} has no part in --as {arguments.formula}, which runs {alone}")
            optimizers = optimizers or [alone]
        require_known(arguments.backend)
        cases = matching(optimizers, arguments.case, arguments.dtype or ("float32",))
    except ValueError as error:
        raise _usage(arguments, error) from error
    except ImportError as error:
        raise _nothing(error) from error
    if arguments.list:
        _print("".join(f"{case.id}\n" for case in cases))
        return 0
    if not cases:
        raise _nothing("no case matches")
    with contextlib.ExitStack() as output:
        # Opened first, so that a place that cannot be written to is known before anything runs.
        file = output.enter_context(replacing(arguments.output)) if arguments.output is not None else None
        # The user's own code may end its process; it must not write the report.
        foreign = arguments.ours and _is_own(arguments.backend) and hasattr(os, "fork")
        done = functools.partial(_done, arguments, cases, formula)
        text, broken, status = _apart(arguments, done) if foreign else done(lambda: None)
        if file is not None:
            file.write(text.encode())
    if file is None:
        _print(text)
    if broken is not None:
        _say(f"mlx-optimizers: {broken}")
    return status


_Done = tuple[str, str | None, int]
"""The report in its format, how an adapter broke the protocol, and the exit status."""


def _apart(arguments: argparse.Namespace, done: Callable[[Callable[[], None]], _Done]) -> _Done:
    """Run the check in a process of its own."""

    def work(begin: Callable[[], None]) -> dict[str, Any]:
        try:
            return {"done": done(begin)}
        except (_Stop, KeyboardInterrupt, OSError) as error:
            return {"stop": _stop(arguments, error).args}
        except Exception as error:
            traceback.print_exc()
            return {"stop": _no_report(f"{type(error).__name__}: {error}").args}

    try:
        answer = apart(work)
    except Ended as ended:
        how = f"the code of {arguments.backend} ended its process, with {ended}"
        raise (_no_report(how) if ended.begun else _nothing(how)) from None
    if "stop" in answer:
        raise _Stop(*answer["stop"])
    text, broken, status = answer["done"]
    return text, broken, status


def _done(
    arguments: argparse.Namespace, cases: list[Case], formula: Formula | None, begin: Callable[[], None]
) -> _Done:
    """Check, and write the report."""
    try:
        report = _report(arguments, cases, formula, begin)
    except ValueError as error:
        raise _usage(arguments, error) from error
    except Unavailable as error:
        raise _nothing(error) from error
    if arguments.format != "human":
        return FORMATS[arguments.format](report), report.broken, report.status
    terminal = arguments.output is None and sys.stdout.isatty()
    width = shutil.get_terminal_size().columns if terminal else 100
    colour = terminal and not os.environ.get("NO_COLOR")
    return text(report, colour=colour, width=width), report.broken, report.status


def _report(
    arguments: argparse.Namespace, cases: list[Case], formula: Formula | None, begin: Callable[[], None]
) -> Report:
    """Run the check. What foreign code prints goes to standard error, and its folder is first on the path meanwhile."""
    Exact()  # imports its library before another of that name can come first
    path = list(sys.path)
    try:
        with contextlib.ExitStack() as stack:
            stack.enter_context(contextlib.redirect_stdout(sys.stderr))
            backend = open_backend(arguments.backend, arguments.device, arguments.timeout)
            stack.callback(getattr(backend, "close", lambda: None))  # an adapter is a running program
            if not (cases := decisive(backend, cases, formula)):
                dtypes = " or ".join(dict.fromkeys(arguments.dtype))
                raise _nothing(f"no case that matches tests anything of the parameter in {dtypes}")
            progress = _progress(backend.name, len(cases))
            begin()
            jobs = _jobs(arguments, len(cases))
            report = check(backend, cases, formula=formula, scalars=arguments.scalars, jobs=jobs, progress=progress)
    finally:
        sys.path[:] = path
    if report.broken is None and getattr(backend, "error", None) is not None:
        report.broken = str(backend.error)  # type: ignore[attr-defined]
    return report


def _progress(name: str, total: int) -> Callable[[int], None] | None:
    """Count on standard error, on a terminal only."""
    if not sys.stderr.isatty():
        return None

    def show(done: int) -> None:
        end = "\r\033[K" if done == total else ""
        print(f"\r{name}: {done} of {total} cases{end}", end="", file=sys.stderr, flush=True)

    return show


def _add_trace(parser: argparse.ArgumentParser) -> None:
    parser.description = "Show one element's float32 value, bits, exact value and accepted interval, step by step."
    parser.set_defaults(run=_trace, parser=parser)
    parser.add_argument("optimizer", metavar="OPTIMIZER", choices=list(_OPTIMIZERS), help=", ".join(_OPTIMIZERS))
    parser.add_argument("--gradient", type=_numbers, required=True, metavar="G,G,…", help="one number a step")
    parser.add_argument("--parameter", type=_number, default=0.0, metavar="W", help="before the first step; default 0")
    parser.add_argument("--scalars", choices=("double", "float32"), default="double", help="profile of the interval")
    group = parser.add_argument_group("hyperparameters", "as the optimizer takes them; default: the class's")
    group.add_argument("--learning-rate", type=_numbers, metavar="X", help="one number, or one a step")
    for name, defaults in _hyperparameters().items():
        option, pairs = f"--{name.replace('_', '-')}", [isinstance(default, tuple) for default in defaults]
        if isinstance(defaults[0], bool):
            action = argparse.BooleanOptionalAction if defaults[0] else "store_true"
            group.add_argument(option, action=action, default=None)
        elif any(pairs):
            group.add_argument(option, type=_numbers if all(pairs) else _number_or_pair, metavar="X1,X2")
        else:
            group.add_argument(option, type=_number, metavar="X")


def _hyperparameters() -> dict[str, list[Any]]:
    """Collect the defaults of each hyperparameter but the learning rate; several optimizers may share a name."""
    defaults: dict[str, list[Any]] = {}
    for entry in CATALOG:
        for name, default in defaults_of(entry.optimizer).items():
            defaults.setdefault(name, []).append(default)
    del defaults["learning_rate"]
    return defaults


def _number_or_pair(text: str) -> float | list[float]:
    numbers = _numbers(text)
    return numbers if len(numbers) > 1 else numbers[0]


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number") from None


def _numbers(text: str) -> list[float]:
    return [_number(item) for item in text.split(",")]


def _trace(arguments: argparse.Namespace) -> int:
    names = ("learning_rate", *_hyperparameters())
    values: dict[str, Any] = {name: getattr(arguments, name) for name in names if getattr(arguments, name) is not None}
    rates = values.setdefault("learning_rate", [default_rate(arguments.optimizer)])
    if len(rates) == 1:
        values["learning_rate"] = rates[0]
    optimizer = _OPTIMIZERS[arguments.optimizer]
    try:
        text = trace(optimizer, arguments.parameter, arguments.gradient, values, arguments.scalars)
    except (TypeError, ValueError) as error:
        raise _usage(arguments, error) from error
    _print(text)
    return 0


def _add_vectors(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        "Write the published vectors into a folder, or derive them again and compare with what it holds. --verify "
        "compares the files of other dtypes too where --dtype asks for them or the folder's manifest lists one. "
        "Exit status: 0 written, or every byte right; 1 something differs."
    )
    parser.set_defaults(run=_vectors, parser=parser)
    parser.add_argument("folder", metavar="DIR", nargs="?", help="where to write them")
    parser.add_argument("--verify", metavar="DIR", help="the folder to compare with")
    parser.add_argument(
        "--dtype",
        action="append",
        choices=vectors.DTYPES,
        default=[],
        metavar="NAME",
        help=f"every case in this dtype too, in files such as adam.NAME.json: {', '.join(vectors.DTYPES)} "
        "(may be repeated)",
    )
    parser.add_argument("--schema", action="store_true", help="print the JSON Schema of a file and stop")


def _vectors(arguments: argparse.Namespace) -> int:
    if [arguments.folder is not None, arguments.verify is not None, arguments.schema].count(True) != 1:
        raise _usage(arguments, "one of DIR, --verify DIR and --schema is required")
    if arguments.schema:
        _print(json.dumps(schema("vectors"), indent=2) + "\n")
        return 0
    if "" in (arguments.folder, arguments.verify):
        raise _usage(arguments, "DIR is empty")
    dtypes = {*arguments.dtype, *([] if arguments.verify is None else vectors.listed_dtypes(arguments.verify))}
    cases = [len(vectors.vectors_of(name, dtype)) for name in _OPTIMIZERS for dtype in ("float32", *dtypes)]
    progress = _progress("vectors", sum(cases))
    if arguments.verify is None:
        _print("".join(f"{path}\n" for path in vectors.write_vectors(arguments.folder, progress, dtypes=dtypes)))
        return 0
    problems = vectors.verify_vectors(arguments.verify, progress, dtypes=dtypes)
    _print(printable("\n".join(problems) or f"{arguments.verify}: every byte is right", "\n") + "\n")
    return 1 if problems else 0
