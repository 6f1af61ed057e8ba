"""Run a backend over cases and judge what it computed."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from typing import Literal, Protocol

from mlx_optimizers.conformance.acceptance import Judgement, Outcome, judge
from mlx_optimizers.conformance.cases import Case
from mlx_optimizers.conformance.diagnosis import Diagnosis, diagnose
from mlx_optimizers.conformance.report import Report, Result
from mlx_optimizers.oracle.formulas import parse
from mlx_optimizers.oracle.rounded import Scalars

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
    formula: str | None = None,
    scalars: Profile = "either",
    jobs: int = 1,
    progress: Callable[[int], None] | None = None,
) -> Report:
    """Hold a backend to the formulas it claims.

    Args:
        backend: What to check.
        cases: The cases to run.
        formula: The formula to hold it to instead of its own claim.
        scalars: ``"double"``, ``"float32"``, or ``"either"``: double first, then float32.
        jobs: Processes for the oracle; the backend always runs in this one.
        progress: Called with the number of cases judged so far.

    Returns:
        The report, one result a case, in the order given; where the backend breaks off, of the cases that finished.
    """
    tasks: list[Task] = []
    broken: str | None = None

    def executed() -> Iterator[Task]:
        nonlocal broken
        try:
            for task in _executed(backend, cases, formula):
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
        name = parse(formula or backend.claim(case.optimizer)).name
        result = Result(case.id, case.optimizer, name, "failed", "double")
        try:
            outcome = backend.run(copy.deepcopy(case))  # what a backend changes in place stays its own
            if not isinstance(outcome, Outcome):
                raise TypeError(f"the backend returned {type(outcome).__name__}, not an Outcome")
            yield case, name, outcome, None
            continue
        except Broken:
            raise
        except Unsupported as error:
            result.verdict, result.reason = "unsupported", str(error)
        except Exception as error:
            result.reason = f"{type(error).__name__}: {error}"
        yield case, name, None, result


def _judged(tasks: Iterable[Task], scalars: Profile, jobs: int) -> Iterator[Result]:
    if jobs <= 1:
        yield from (_result(*task, scalars) for task in tasks)
        return
    # A new interpreter for each process: a forked one would inherit the threads of the backend's library.
    with ProcessPoolExecutor(jobs, mp_context=get_context("spawn")) as pool:
        yield from [future.result() for future in [pool.submit(_result, *task, scalars) for task in tasks]]


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
        reason=None if judgement.tested else "no element of this case could be tested",
        tested=judgement.tested,
        untested=judgement.untested,
        excesses=judgement.excesses,
    )
