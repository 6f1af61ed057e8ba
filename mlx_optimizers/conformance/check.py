"""Run a backend over cases and judge what it computed."""

from __future__ import annotations

import contextlib
import copy
import os
import signal
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context, parent_process
from typing import Any, Literal, Protocol, get_args

import numpy as np

import mlx_optimizers
from mlx_optimizers.conformance.acceptance import Judgement, Outcome, decidable, judge
from mlx_optimizers.conformance.cases import Case
from mlx_optimizers.conformance.diagnosis import Diagnosis, diagnose
from mlx_optimizers.conformance.report import Report, Result, printable
from mlx_optimizers.oracle.formulas import parse
from mlx_optimizers.oracle.rounded import Scalars
from mlx_optimizers.trees import refuse_masked

__all__ = ["Backend", "Broken", "Outcome", "Profile", "Unsupported", "check"]

Profile = Literal["double", "float32", "either"]


class Unsupported(Exception):
    """Raised by a backend for a case that it cannot express; its text is the reason."""


class Broken(Exception):
    """Raised by a backend that cannot go on: what finished is reported, and nothing more is asked of it."""


class Backend(Protocol):
    """Something that computes optimizer steps.

    ``name``, ``version`` and ``device`` go into the report. One that speaks for a library has ``checked`` too, the
    version whose claims were checked.
    """

    name: str
    version: str
    device: str

    def claim(self, optimizer: str) -> str:
        """The name of the formula that the backend says it computes for an optimizer."""

    def run(self, case: Case) -> Outcome:
        """Compute a case, with every hyperparameter as the case has it.

        Raises:
            Unsupported: for a case that the backend cannot express.
            Broken: when no further case can be asked for either.
        """


def check(
    backend: Backend,
    cases: Iterable[Case],
    *,
    formula: str | type[mlx_optimizers.Optimizer] | None = None,
    scalars: Profile = "either",
    jobs: int = 1,
    progress: Callable[[int], None] | None = None,
) -> Report:
    """Hold a backend to the formulas it claims.

    Args:
        backend: What to check.
        cases: The cases to run.
        formula: The formula to hold it to instead of its own claim, by name or class.
        scalars: ``"double"``, ``"float32"``, or ``"either"``: double first, then float32.
        jobs: Processes for the oracle; the backend always runs in this one.
        progress: Called with the number of cases judged so far.

    Returns:
        The report, one result a case, in the order given; where the backend breaks off, of the cases that finished.
        What the backend's code raises, SystemExit too, is that case's failure; KeyboardInterrupt passes.

    Raises:
        ValueError: for an unknown formula or profile, a formula that `decidable` refuses, or a case of another
            optimizer than the formula's.
        TypeError: for a formula that is neither a name nor a class.
    """
    if scalars not in get_args(Profile):
        raise ValueError(f"scalars must be 'double', 'float32' or 'either', not {scalars!r}")
    cases = list(cases)
    asked = None if formula is None else decidable(formula)
    for case in cases:
        if asked is not None and case.optimizer != asked.optimizer.__name__:
            raise ValueError(f"{case.id} is no case of {asked.name}")
    tasks: list[Task] = []
    broken: str | None = None

    def executed() -> Iterator[Task]:
        nonlocal broken
        try:
            for task in _executed(backend, cases, None if asked is None else asked.name):
                tasks.append(task)
                yield task
        except Broken as error:
            broken = str(error)

    results: list[Result] = []
    for result in _judged(executed(), scalars, jobs):
        results.append(result)
        if progress is not None:
            progress(len(results))
    diagnoses = _diagnosed(tasks, results, _profiles(scalars))
    checked = getattr(backend, "checked", None)
    return Report(backend.name, backend.version, backend.device, results, diagnoses, broken, checked)


Task = tuple[Case, str, Outcome | None, Result | None]


def _profiles(scalars: Profile) -> tuple[Scalars, ...]:
    return ("double", "float32") if scalars == "either" else (scalars,)


def _diagnosed(tasks: list[Task], results: list[Result], profiles: tuple[Scalars, ...]) -> dict[str, Diagnosis]:
    """The diagnosis of every optimizer that deviates, by all of its cases together; also put into the results."""
    found = {}
    for optimizer in dict.fromkeys(result.optimizer for result in results if result.verdict == "deviates"):
        rows = [(task, result) for task, result in zip(tasks, results, strict=True) if result.optimizer == optimizer]
        rows.sort(key=lambda row: row[1].verdict != "deviates")  # what deviates refutes other formulas first
        judged = [task for task, result in rows if result.verdict in ("conforms", "deviates")]
        runs = [(case, outcome) for case, _, outcome, _ in judged if outcome is not None]
        found[optimizer] = diagnose(optimizer, runs, profiles)
        for _, result in rows:
            if result.verdict == "deviates":
                result.diagnosis = found[optimizer].formulas
    return found


def _executed(backend: Backend, cases: Iterable[Case], formula: str | None) -> Iterator[Task]:
    """Run the backend; a case that gives nothing to judge comes with its result already."""
    for case in cases:
        result, outcome = Result(case.id, case.optimizer, formula or case.optimizer, "failed", "double"), None
        try:
            result.formula = formula or _claim(backend, case.optimizer)
            outcome = _own(backend.run(copy.deepcopy(case)))  # what a backend changes in place stays its own
        except (Broken, KeyboardInterrupt):
            raise
        except Unsupported as error:
            result.verdict, result.reason = "unsupported", _text(error)
        except BaseException as error:  # a SystemExit too: the code that is checked does not end the check
            result.reason = f"{type(error).__name__}: {_text(error)}"
        yield case, result.formula, outcome, result if outcome is None else None


def _claim(backend: Backend, optimizer: str) -> str:
    formula = decidable(backend.claim(optimizer))
    if formula.optimizer.__name__ != optimizer:
        raise ValueError(f"the backend claims {formula.name} for {optimizer}")
    return formula.name


def _own(outcome: Any) -> Outcome:
    """A copy of what a backend returned, which may use its buffers again for the next case."""
    if not isinstance(outcome, Outcome):
        raise TypeError(f"the backend returned {type(outcome).__name__}, not an Outcome")
    for name, values in (("parameters", outcome.parameters), *outcome.state.items()):
        refuse_masked(values, f"the backend's {name}")
    state = {name: np.array(np.asarray(values)) for name, values in outcome.state.items()}
    return Outcome(np.array(np.asarray(outcome.parameters)), state)


def _text(error: BaseException) -> str:
    """What an exception says, if it can say it."""
    try:
        return printable(str(error), "\n")
    except KeyboardInterrupt:
        raise
    except BaseException as another:
        return f"its text cannot be read, {type(another).__name__}"


def _judged(tasks: Iterable[Task], scalars: Profile, jobs: int) -> Iterator[Result]:
    if jobs <= 1:
        yield from (_result(*task, scalars) for task in tasks)
        return
    # A new interpreter for each process: a forked one would inherit the threads of the backend's library.
    with ProcessPoolExecutor(jobs, mp_context=get_context("spawn"), initializer=_end_with_parent) as pool:
        try:
            futures = []
            for task in tasks:
                with _blocked_interrupts():  # starts a process where none is idle
                    futures.append(pool.submit(_result, *task, scalars))
            yield from [future.result() for future in futures]
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise


@contextlib.contextmanager
def _blocked_interrupts() -> Iterator[None]:
    """Block Ctrl-C, for ever in the processes that start meanwhile: it is for the one that started them."""
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, ())
    try:
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _end_with_parent() -> None:
    """Have this process end when the one that started it has, were it killed."""
    parent = parent_process()
    assert parent is not None

    def wait() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=wait, daemon=True).start()


def _result(case: Case, name: str, outcome: Outcome | None, result: Result | None, scalars: Profile) -> Result:
    """The verdict on one case under the first profile that it conforms to."""
    if result is not None or outcome is None:
        assert result is not None
        return result
    try:
        for profile in _profiles(scalars):
            judgement = judge(case, outcome, parse(name), profile)
            if judgement.conforms:
                break
    except ValueError as error:
        return Result(case.id, case.optimizer, name, "failed", profile, reason=str(error))
    return _verdict(case, name, profile, judgement)


def _verdict(case: Case, name: str, profile: str, judgement: Judgement) -> Result:
    return Result(
        case.id,
        case.optimizer,
        name,
        "conforms" if judgement.conforms else "deviates",
        profile,
        worst=judgement.worst,
        first=judgement.first,
        reason=None if judgement.decided else "no element of the parameter could be tested",
        tested=judgement.tested,
        untested=judgement.untested,
        excesses=judgement.excesses,
    )
