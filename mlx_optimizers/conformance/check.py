"""Run a backend over cases and judge what it computed."""

from __future__ import annotations

import contextlib
import copy
import os
import signal
import threading
from collections import deque
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from dataclasses import replace
from functools import partial
from multiprocessing import get_context, parent_process
from typing import Literal, Protocol, get_args

import numpy as np

import mlx_optimizers
from mlx_optimizers.catalog import entry_of
from mlx_optimizers.conformance.case import Case, Unsupported
from mlx_optimizers.conformance.diagnosis import Diagnosis, diagnose
from mlx_optimizers.conformance.report import Report, printable
from mlx_optimizers.conformance.special import REGIME
from mlx_optimizers.conformance.verdict import Run, Verdict, can_decide, decidable, judge_widening
from mlx_optimizers.interrupts import held
from mlx_optimizers.oracle import Formula
from mlx_optimizers.oracle.formulas import parse
from mlx_optimizers.oracle.rounded import Scalars
from mlx_optimizers.trees import refuse_masked

__all__ = ["Backend", "Broken", "Profile", "Unsupported", "check", "decisive"]

Profile = Literal["double", "float32", "either"]


class Broken(Exception):
    """Raised by a backend that cannot go on: what finished is reported, and nothing more is asked of it."""


class Backend(Protocol):
    """Something that computes optimizer steps.

    ``name``, ``version`` and ``device`` go into the report. One that speaks for a library has ``checked`` too, the
    version whose claims were checked; and it may have ``unclaimed(case)``, which says why it claims nothing of a case
    that it can run, or None. Such a case is run where a formula is asked for.
    """

    name: str
    version: str
    device: str

    def claim(self, optimizer: str) -> str:
        """The name of the formula that the backend says it computes for an optimizer."""

    def run(self, case: Case) -> Run:
        """Compute a case, with every hyperparameter as the case has it.

        Raises:
            Unsupported: for a case that the backend cannot express.
            Broken: when no further case can be asked for either.
        """


def check(
    backend: Backend,
    cases: Iterable[Case],
    *,
    formula: str | type[mlx_optimizers.Optimizer] | Formula | None = None,
    scalars: Profile = "either",
    jobs: int = 1,
    progress: Callable[[int], None] | None = None,
) -> Report:
    """Hold a backend to the formulas it claims.

    Args:
        backend: What to check.
        cases: The cases to run.
        formula: The formula to hold it to instead of its own claim, by name or class, or itself.
        scalars: The coefficient precision: ``"double"``, ``"float32"``, or ``"either"``: double first, then float32.
        jobs: Processes for the oracle; the backend always runs in this one.
        progress: Called with the number of cases judged so far.

    Returns:
        The report, one result a case, in their order; where the backend breaks off, of the cases that finished.
        What the backend's code raises, SystemExit too, is that case's failure; KeyboardInterrupt passes.

    Raises:
        ValueError: for an unknown formula or profile, a formula that `decidable` refuses, or a case of another
            optimizer than the formula's.
        TypeError: for a formula that is neither a name nor a class.
    """
    if scalars not in get_args(Profile):
        raise ValueError(f"scalars must be 'double', 'float32' or 'either', not {scalars!r}")
    profiles: tuple[Scalars, ...] = ("double", "float32") if scalars == "either" else (scalars,)
    cases = list(cases)
    asked = None if formula is None else decidable(formula)
    for case in cases:
        if asked is not None and entry_of(case.optimizer).family != asked.optimizer.__name__:
            raise ValueError(f"{case.id} is no case of {asked.name}")
    answers: list[Answer] = []
    broken: str | None = None

    def executed() -> Iterator[Answer]:
        nonlocal broken
        try:
            for answer in _executed(backend, cases, asked):
                answers.append(answer)
                yield answer
        except Broken as error:
            broken = str(error)

    verdicts: list[Verdict] = []
    for verdict in _judged(executed(), profiles, jobs, asked is not None):
        verdicts.append(verdict)
        if progress is not None:
            progress(len(verdicts))
    aside = {case.id for case in cases if _aside(backend, case)}
    diagnoses = _diagnosed(answers, verdicts, profiles, aside)
    for index, verdict in enumerate(verdicts):
        if verdict.word == "deviates":
            verdicts[index] = replace(verdict, diagnosis=diagnoses[verdict.case.optimizer].formulas)
    checked = getattr(backend, "checked", None)
    return Report(backend.name, backend.version, backend.device, verdicts, diagnoses, broken, checked)


def decisive(backend: Backend, cases: Iterable[Case], formula: Formula | None = None) -> list[Case]:
    """Leave out the cases whose dtype lets nothing of the parameter be tested.

    That depends on the formula that the backend is held to. All of float32 stay, and those of an optimizer that is
    measured where nothing is certain.

    Args:
        backend: What is to be checked.
        cases: The cases.
        formula: As for `check`.
    """

    def tells(case: Case) -> bool:
        if case.dtype == "float32" or entry_of(case.optimizer).consistent:
            return True
        try:
            return can_decide(case, formula or _claimed(backend, case.optimizer))
        except ValueError:  # a claim that fails in `check`, case by case
            return True

    return [case for case in cases if tells(case)]


Answer = tuple[Run, Formula] | Verdict
"""What a backend computed and the formula to hold it to, or the verdict on a case that leaves nothing to judge."""


def _executed(backend: Backend, cases: Iterable[Case], asked: Formula | None) -> Iterator[Answer]:
    """Run the backend case by case."""
    for case in cases:
        formula = parse(case.optimizer)
        answer: Answer
        try:
            formula = asked or _claimed(backend, case.optimizer)
            if asked is None and (reason := _unclaimed(backend, case)) is not None:
                raise Unsupported(reason)
            with np.errstate(all="ignore"):  # a NaN or an infinity is a number of some cases
                run = backend.run(copy.deepcopy(case))  # what a backend changes in place stays its own
            answer = _own(case, run), formula
        except (Broken, KeyboardInterrupt):
            raise
        except Unsupported as error:
            answer = Verdict(case, formula, "unsupported", reason=_text(error))
        except BaseException as error:  # a SystemExit too: the code that is checked does not end the check
            answer = Verdict(case, formula, "failed", reason=f"{type(error).__name__}: {_text(error)}")
        yield answer


def _unclaimed(backend: Backend, case: Case) -> str | None:
    """Say why a backend claims nothing of a case; most claim all that they can run."""
    reason: str | None = getattr(backend, "unclaimed", lambda case: None)(case)
    return reason


def _aside(backend: Backend, case: Case) -> bool:
    """Say whether a diagnosis leaves a case out: it is not claimed, or of numbers that no formula has."""
    return _unclaimed(backend, case) is not None or case.level == "informative" or case.regime == REGIME


def _claimed(backend: Backend, optimizer: str) -> Formula:
    formula = decidable(backend.claim(optimizer))
    if formula.optimizer.__name__ != entry_of(optimizer).family:
        raise ValueError(f"the backend claims {formula.name} for {optimizer}")
    return formula


def _own(case: Case, run: Run) -> Run:
    """Copy what a backend returned: it may use its buffers again for the next case."""
    if not isinstance(run, Run):
        raise TypeError(f"the backend returned {type(run).__name__}, not a Run")
    if len(run.leaves) != len(case.leaves):
        raise ValueError(f"the backend returned {len(run.leaves)} parameters of a tree, not {len(case.leaves)}")
    if case.leaves:
        leaves = tuple(_own(*pair) for pair in zip(case.leaves, run.leaves, strict=True))
        return Run(case, case.gradients, {}, leaves=leaves)
    for name, values in {"parameters": run.parameters, "gradients": run.gradients, **run.state}.items():
        refuse_masked(values, f"the backend's {name}")
    state = {name: np.array(np.asarray(values)) for name, values in run.state.items()}
    gradients = None if run.gradients is None else np.array(np.asarray(run.gradients))
    return Run(case, np.array(np.asarray(run.parameters)), state, gradients)


def _text(error: BaseException) -> str:
    """Read the text of an exception, which may raise another."""
    try:
        return printable(str(error), "\n")
    except KeyboardInterrupt:
        raise
    except BaseException as another:
        return f"its text cannot be read, {type(another).__name__}"


def _judged(answers: Iterable[Answer], profiles: Sequence[Scalars], jobs: int, asked: bool) -> Iterator[Verdict]:
    if jobs <= 1:
        yield from (_verdict(answer, profiles, asked) for answer in answers)
        return
    # A new interpreter for each process: a forked one would inherit the threads of the backend's library.
    with ProcessPoolExecutor(jobs, mp_context=get_context("spawn"), initializer=_end_with_parent) as pool:
        try:
            futures: deque[Future[Verdict]] = deque()
            for answer in answers:
                with _blocked_interrupts():  # starts a process where none is idle; an exception meanwhile would lose it
                    futures.append(held(partial(pool.submit, _verdict, answer, profiles, asked)))
                while futures and futures[0].done():
                    yield futures.popleft().result()
            while futures:
                yield futures.popleft().result()
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise


def _verdict(answer: Answer, profiles: Sequence[Scalars], asked: bool) -> Verdict:
    """Judge a run; what its arrays or its formula do not allow is a failure.

    One that is measured alone deviates where it is held to a formula that was asked for.
    """
    if isinstance(answer, Verdict):
        return answer
    run, formula = answer
    try:
        verdict = judge_widening(run, formula, profiles)
        if asked and verdict.distance is not None and not verdict.consistent:
            return replace(verdict, word="deviates")
        return verdict
    except ValueError as error:  # of the formula or the arrays, whatever the profile
        return Verdict(run.case, formula, "failed", profiles[0], reason=str(error))


def _diagnosed(
    answers: Iterable[Answer], verdicts: Iterable[Verdict], profiles: Sequence[Scalars], aside: Collection[str]
) -> dict[str, Diagnosis]:
    """Diagnose every optimizer that deviates, by all of its cases together but some, if another than these does."""
    judged: dict[str, list[tuple[bool, Run]]] = {}
    held: dict[str, Formula] = {}
    for answer, verdict in zip(answers, verdicts, strict=True):
        if not isinstance(answer, Verdict) and verdict.word != "failed":
            held[verdict.case.optimizer] = answer[1]
            run = replace(answer[0], gradients=verdict.case.gradients)  # what it wrote to is no matter of a formula
            judged.setdefault(verdict.case.optimizer, []).append((verdict.word != "deviates", run))
    diagnoses = {}
    for optimizer, rows in judged.items():
        telling = [row for row in rows if row[1].case.id not in aside]
        rows = rows if all(agrees for agrees, _ in telling) else telling
        rows.sort(key=lambda row: (row[0], row[1].parameters.size))  # what deviates refutes other formulas first
        if not rows[0][0]:
            diagnoses[optimizer] = diagnose(optimizer, [run for _, run in rows], profiles, held[optimizer])
    return diagnoses


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
