"""The verdict on one case: whether a backend's numbers lie in the interval, and which of them is farthest out."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import cache
from operator import itemgetter
from typing import Any, Literal, Self, get_args

import numpy as np
import numpy.typing as npt

import mlx_optimizers
from mlx_optimizers.catalog import entry_of
from mlx_optimizers.conformance.cases import Case, cases_of
from mlx_optimizers.kinds import FloatArray
from mlx_optimizers.oracle import FORMATS, Double, Entry, Exact, Formula, Quantity, Rounded, trajectory
from mlx_optimizers.oracle.formulas import parse
from mlx_optimizers.oracle.newton_schulz import CONSISTENT
from mlx_optimizers.oracle.rounded import Scalars, error_ratio, norm_ratio
from mlx_optimizers.oracle.trajectory import walk

__all__ = ["WORDS", "Element", "Run", "Verdict", "Word", "can_decide", "decidable", "is_decidable", "judge"]

Word = Literal["conforms", "deviates", "unsupported", "failed"]
WORDS: tuple[Word, ...] = get_args(Word)
"""The verdicts in one word."""


@dataclass(eq=False)
class Run:
    """What a backend computed for a case.

    Args:
        case: The case.
        parameters: The parameter after each step, with an axis for the steps before its own.
        state: Slots after each step, those that the backend shows, likewise.

    Example:
        >>> from mlx_optimizers.conformance import Run, matching
        >>> case, = matching(pattern="sgd/plain/defaults")
        >>> run = Run.from_steps(case, ((case.parameter - gradient, {"v": gradient}) for gradient in case.gradients))
        >>> run.parameters.shape, run.state["v"].shape
        ((8, 24), (8, 24))
    """

    case: Case
    parameters: FloatArray
    state: Mapping[str, FloatArray]

    @classmethod
    def from_steps(cls, case: Case, steps: Iterable[tuple[npt.ArrayLike, Mapping[str, npt.ArrayLike]]]) -> Self:
        """Collect copies of the parameter and the slots, as they are after each step."""
        parameters: list[FloatArray] = []
        state: dict[str, list[FloatArray]] = {}
        for parameter, slots in steps:
            parameters.append(np.array(parameter))
            for name, values in slots.items():
                state.setdefault(name, []).append(np.array(values))
        return cls(case, np.stack(parameters), {name: np.stack(rows) for name, rows in state.items()})


@dataclass(frozen=True)
class Element:
    """One element after one step: its bit patterns, and its exact value as decimal text.

    ``excess`` is |got − exact| over the accepted distance, above 1 outside the interval; infinite for a NaN, an
    infinity, or anything but an exact zero where only zero is accepted.
    """

    quantity: str
    step: int
    index: int
    got: str
    low: str
    nearest: str
    high: str
    exact: str
    excess: float


@dataclass(frozen=True, eq=False)
class Verdict:
    """The verdict on one case.

    Args:
        case: The case.
        formula: The formula that the backend was held to.
        word: conforms, deviates, unsupported or failed.
        scalars: The coefficient precision that passed, or the widest tried.
        worst: The tested element of greatest error ratio, conforming or not; None for unsupported and failed.
        first: The first element, by step, outside the interval.
        diagnosis: Names of the formulas that agree with all cases of the optimizer.
        reason: Why a case is unsupported, failed, or could not be tested.
        tested: Elements with a finite interval, over all steps and quantities.
        untested: Elements for which any answer would have passed.
        excesses: For each quantity its greatest error ratio after each step, None where no element was tested.
        norm: Where a whole matrix is held to a bound, the one of greatest ratio: quantity and step, the norm of what
            its elements are off beyond their own radii, and the bound; or None.
        distance: How far a step is off where nothing of the parameter is certain, as a part of the step.
    """

    case: Case
    formula: Formula
    word: Word
    scalars: Scalars = "double"
    worst: Element | None = None
    first: Element | None = None
    diagnosis: list[str] = field(default_factory=list)
    reason: str | None = None
    tested: int = 0
    untested: int = 0
    excesses: Mapping[str, Sequence[float | None]] = field(default_factory=dict)
    norm: Mapping[str, Any] | None = None
    distance: float | None = None

    @property
    def consistent(self) -> bool:
        """Whether the case is measured alone, and a step is as far off as rounding may bring it at most."""
        return self.distance is not None and self.distance <= CONSISTENT

    @property
    def conforms(self) -> bool:
        """Whether every tested element is accepted, and one of the parameter was tested."""
        return self.word == "conforms"

    @property
    def decided(self) -> bool:
        """Whether an element of the parameter was tested."""
        return any(excess is not None for excess in self.excesses.get("parameter", ()))

    def to_json(self) -> dict[str, Any]:
        """Write the verdict as the report's schema has it."""
        worst = None if self.worst is None else asdict(self.worst)
        if worst is not None and not math.isfinite(worst["excess"]):
            worst["excess"] = None
        return {
            "case": self.case.id,
            "optimizer": self.formula.optimizer.__name__,
            "formula": self.formula.name,
            "verdict": self.word,
            "scalars": self.scalars,
            "worst": worst,
            "diagnosis": list(self.diagnosis),
            "reason": self.reason,
            "norm": self._norm(),
        }

    def _norm(self) -> dict[str, Any] | None:
        return None if self.norm is None or not math.isfinite(self.norm["got"]) else dict(self.norm)


def judge(run: Run, formula: Formula, scalars: Scalars) -> Verdict:
    """Hold a run to a formula.

    Args:
        run: What a backend computed, as arrays.
        formula: The formula.
        scalars: The coefficient precision, ``"double"`` or ``"float32"``.

    Raises:
        ValueError: for arrays of another shape or dtype than the case asks for, or an unknown slot.
    """
    case, exact = run.case, Exact()
    entries = trajectory(
        formula, case.parameter, case.gradients, dtype=case.dtype, scalars=scalars, **case.hyperparameters
    )
    got = _checked(run, formula)
    tested = untested = 0
    excesses: dict[str, list[float | None]] = {name: [] for name in got}
    greatest: list[tuple[float, str, int, int]] = []
    norm: dict[str, Any] | None = None
    for step, entry in enumerate(entries):
        for name, quantity in entry.quantities():
            if name not in got:
                continue
            with exact.active():
                excess, whole = _excess(exact, got[name][step], quantity)
            excess = excess.reshape(-1)
            if quantity.norm and (norm is None or whole > norm["got"] / norm["bound"]):
                norm = {"quantity": name, "step": step + 1, "got": whole * quantity.norm, "bound": quantity.norm}
            known = np.isfinite(quantity.radius).reshape(-1)
            tested += int(known.sum())
            untested += int((~known).sum())
            index = int(np.argmax(excess))
            excesses[name].append(float(excess[index]) if known[index] else None)
            if known[index]:
                greatest.append((float(excess[index]), name, step, index))

    def element(excess: float, name: str, step: int, index: int) -> Element:
        quantity = dict(entries[step].quantities())[name]
        arrays = {"got": got[name][step], "low": quantity.low, "nearest": quantity.nearest, "high": quantity.high}
        bits = {key: case.form.bits(array.reshape(-1)[index : index + 1])[0] for key, array in arrays.items()}
        with exact.active():
            text = exact.text(quantity.exact.reshape(-1)[index])
        return Element(name, step + 1, index, exact=text, excess=excess, **bits)

    worst = element(*max(greatest, key=itemgetter(0))) if greatest else None
    first = next((element(*place) for place in greatest if place[0] > 1), None)
    verdict = Verdict(case, formula, "conforms", scalars, worst, first, [], None, tested, untested, excesses, norm)
    if not verdict.decided and first is None and entry_of(formula.optimizer.__name__).consistent:
        return _measured(verdict, got["parameter"], entries)
    if not verdict.decided:
        return replace(verdict, word="deviates", reason="no element of the parameter could be tested")
    return verdict if first is None else replace(verdict, word="deviates")


def _measured(verdict: Verdict, got: FloatArray, entries: Sequence[Entry]) -> Verdict:
    """Compare a program of which nothing is certain with the exact steps: it is consistent with the formula or not.

    What a step changes is compared with what the formula does, in the Frobenius norm, and beyond what a rounding of
    the parameter explains. A step with a direction that Newton–Schulz has not brought near to 1 is left out.
    """
    case, form = verdict.case, verdict.case.form
    narrow = Exact()
    narrow.narrow = FORMATS["bfloat16"] if case.dtype != "float16" else form
    with narrow.active(), np.errstate(all="ignore"):
        second = [
            w.values.astype(np.float64)
            for w, *_ in walk(verdict.formula, narrow, case.parameter, list(case.gradients), case.hyperparameters)
        ]
    first = [entry.parameter.exact.astype(np.float64) for entry in entries]
    start, rows = case.parameter.astype(np.float64), case.parameter.shape[0]
    distances = []
    for step, now in enumerate(got.astype(np.float64)):
        before = got[step - 1].astype(np.float64) if step else start
        slack = 2 * form.roundoff * (np.abs(now) + np.abs(before))
        near = []
        for exact in (first, second):
            wanted = exact[step] - (exact[step - 1] if step else start)
            size = float(np.linalg.norm(wanted))
            singular = np.linalg.svd(wanted.reshape(rows, -1), compute_uv=False)
            if size > 0 and singular[-1] > singular[0] / 4:
                over = np.maximum(np.abs(now - before - wanted) - slack, 0.0)
                near.append(float(np.linalg.norm(over)) / size)
        if near:
            distances.append(min(near) if np.isfinite(now).all() else math.inf)
    if not distances:
        return replace(verdict, word="unsupported", reason="nothing can be told: no step has a matrix of full rank")
    told = "consistent" if max(distances) <= CONSISTENT else "not consistent"
    reason = f"{told}: a step is {max(distances):.2g} of itself off, and {CONSISTENT} is what rounding explains"
    return replace(verdict, word="unsupported", reason=reason, distance=max(distances))


def judge_widening(run: Run, formula: Formula, profiles: Sequence[Scalars]) -> Verdict:
    """Hold a run to a formula under the first coefficient precision that it conforms to, otherwise the last.

    Raises:
        ValueError: as `judge` does.
    """
    for profile in profiles:
        verdict = judge(run, formula, profile)
        if verdict.conforms or verdict.consistent:
            break
    return verdict


def can_decide(case: Case, formula: Formula) -> bool:
    """Say whether a case tests a program's parameter: a formula gives some element a finite interval.

    The interval of the precision *double* decides; that of *float32* contains it.
    """
    exact = Exact()
    n = Rounded(case.form, exact if case.dtype == "float64" else Double(), "double", exact)
    with n.active(), np.errstate(all="ignore"):
        steps = walk(formula, n, case.parameter, list(case.gradients), case.hyperparameters)
        try:
            return any(bool(np.isfinite(w.radius).any()) for w, *_ in steps)
        except ValueError:  # the root of a negative number
            return False


@cache
def is_decidable(formula: Formula) -> bool:
    """Say whether any case tests a program that is held to this formula."""
    return any(can_decide(case, formula) for case in cases_of(formula.optimizer.__name__))


def decidable(formula: str | type[mlx_optimizers.Optimizer] | Formula) -> Formula:
    """Parse the formula of a name or class that a backend can be held to.

    Raises:
        ValueError: for an unknown formula, or one that gives no element of the parameter an interval in any case, as
            a division by 1 − β⁰ = 0: any answer would pass.
        TypeError: for anything else.

    Example:
        >>> from mlx_optimizers.conformance.verdict import decidable
        >>> decidable("BiasCorrectedAdam").name
        'Adam[bias_correction=true]'
    """
    meant = parse(formula)
    if not is_decidable(meant):
        raise ValueError(
            f"nothing can be held to {meant.name!r}: in no case does it give an element of the parameter a value "
            "that can be tested, so that any answer would pass"
        )
    return meant


def _checked(run: Run, formula: Formula) -> dict[str, FloatArray]:
    """Collect the arrays of a run by name; refuse another shape or dtype than the case asks for."""
    case = run.case
    shapes = {"parameter": case.parameter.shape, **case.slots}
    for name in run.state:
        if name not in case.slots:
            raise ValueError(f"{name!r} is no state slot of {formula.name}")
    arrays = {name: np.asarray(values) for name, values in {"parameter": run.parameters, **run.state}.items()}
    for name, values in arrays.items():
        shape = (len(case.gradients), *shapes[name])
        if values.shape != shape:
            raise ValueError(f"{name} has shape {values.shape}, the case asks for {shape}")
        if values.dtype != case.form.dtype:
            raise ValueError(f"{name} has dtype {values.dtype}, the case asks for {case.dtype}")
    return arrays


def _excess(exact: Exact, got: FloatArray, quantity: Quantity) -> tuple[FloatArray, float]:
    """Compute the error ratio; the ends of the interval decide which values lie inside; −1 where untested.

    The second number is the ratio of the whole, which the farthest element has where it is greater; 0 without a norm.
    """
    values = got.astype(np.float64)
    known = np.isfinite(quantity.radius)
    centre = np.where(known, quantity.exact, exact.number(0))
    with np.errstate(all="ignore"):
        inside = (values >= quantity.low.astype(np.float64)) & (values <= quantity.high.astype(np.float64))
    ratio = error_ratio(exact, centre, quantity.radius, values)
    ratio = np.where(inside, np.minimum(ratio, 1.0), np.maximum(ratio, math.nextafter(1.0, 2.0)))
    whole = 0.0
    if quantity.norm:
        with np.errstate(all="ignore"):
            error = np.abs(exact.array(np.nan_to_num(values)).values.reshape(values.shape) - centre).astype(np.float64)
        whole, place = norm_ratio(np.where(np.isfinite(values), error, np.inf), quantity.radius, quantity.norm)
        ratio.reshape(-1)[place] = max(ratio.reshape(-1)[place], whole)
    return np.where(known, ratio, -1.0), whole
