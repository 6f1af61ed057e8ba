"""The verdict on one case: whether a backend's numbers lie in the interval, and which of them is farthest out."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import cache
from operator import attrgetter, itemgetter
from typing import Any, Literal, Self, get_args

import numpy as np
import numpy.typing as npt

import mlx_optimizers
from mlx_optimizers.catalog import entry_of
from mlx_optimizers.conformance import special
from mlx_optimizers.conformance.case import INTERPOLATED, Case
from mlx_optimizers.conformance.cases import cases_of
from mlx_optimizers.kinds import FloatArray
from mlx_optimizers.oracle import FORMATS, Double, Exact, Formula, Rounded
from mlx_optimizers.oracle.formulas import parse
from mlx_optimizers.oracle.newton_schulz import CONSISTENT
from mlx_optimizers.oracle.rounded import Scalars, error_ratio, norm_ratio
from mlx_optimizers.oracle.trajectory import Track, tracks, walk

__all__ = ["WORDS", "Element", "Run", "Verdict", "Word", "can_decide", "decidable", "is_decidable", "judge"]

Word = Literal["conforms", "deviates", "unsupported", "failed"]
WORDS: tuple[Word, ...] = get_args(Word)
"""The verdicts in one word."""


INFORMATIVE = "informative: "
"""How the reason begins of a verdict from which nothing follows."""

Computed = tuple[npt.ArrayLike, Mapping[str, npt.ArrayLike], npt.ArrayLike | None]
"""A parameter and its slots after a step, and its gradient as the program left it, or None."""


@dataclass(eq=False)
class Run:
    """What a backend computed for a case.

    Args:
        case: The case.
        parameters: The parameter after each step, with an axis for the steps before its own.
        state: Slots after each step, those that the backend shows, likewise.
        gradients: The gradients that the program got, as they were after each step; or None where nobody looked.
        leaves: For a tree, what was computed for each of its leaves; the tree has nothing of its own.

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
    gradients: FloatArray | None = None
    leaves: tuple[Run, ...] = ()

    @property
    def each(self) -> tuple[Run, ...]:
        """The runs of all parameters, which are the leaves of a tree, or the run itself."""
        return self.leaves or (self,)

    @classmethod
    def of_tree(cls, case: Case, steps: Iterable[Sequence[Computed]]) -> Self:
        """Collect copies of what a program has after each step, for every parameter of a case in turn."""
        kept: list[list[Computed]] = [[] for _ in case.each]
        for row in steps:
            for column, (parameter, slots, gradient) in zip(kept, row, strict=True):
                copied = {name: np.array(values) for name, values in slots.items()}
                column.append((np.array(parameter), copied, None if gradient is None else np.array(gradient)))
        runs = tuple(cls._collected(*pair) for pair in zip(case.each, kept, strict=True))
        return cls(case, case.gradients, {}, leaves=runs) if case.leaves else runs[0]

    @classmethod
    def _collected(cls, case: Case, steps: Sequence[Computed]) -> Self:
        run = cls.from_steps(case, ((parameter, slots) for parameter, slots, _ in steps))
        gradients = [gradient for *_, gradient in steps if gradient is not None]
        return replace(run, gradients=np.stack(gradients)) if len(gradients) == len(steps) else run

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
    infinity, or anything but an exact zero where only zero is accepted. ``path`` is the index of a leaf in a tree.
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
    path: int | None = None


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
    def informative(self) -> bool:
        """Whether a program lies outside, or nothing was tested, where a correct one may do the same."""
        return self.word == "unsupported" and (self.reason or "").startswith(INFORMATIVE)

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

    A case that only informs is unsupported, with its reason, where a correct program may be outside the interval.

    Raises:
        ValueError: for arrays of another shape or dtype than the case asks for, or an unknown slot.
    """
    verdict, case = _held(run, formula, scalars), run.case
    undecided = case.regime == special.REGIME and verdict.first is None
    if verdict.word != "deviates" or (case.level == "required" and not undecided):
        return verdict
    if case.reason == INTERPOLATED and _held(run, formula, scalars, interpolating=True).word == "deviates":
        return verdict
    reason = case.reason or "a NaN may leave the parameter of a correct program"
    return replace(verdict, word="unsupported", reason=INFORMATIVE + reason, worst=None, first=None)


def _held(run: Run, formula: Formula, scalars: Scalars, *, interpolating: bool = False) -> Verdict:
    """Hold a run to a formula, whatever the level of its case."""
    if run.leaves:
        return _of_tree(run, [judge(leaf, formula, scalars) for leaf in run.leaves])
    if run.case.regime == "untouched" and run.gradients is None:
        return Verdict(run.case, formula, "unsupported", scalars, reason="the backend does not show its gradients")
    case, exact = run.case, Exact()
    expected = _tracks(case, formula, scalars, interpolating=interpolating)
    tested = untested = 0
    excesses: dict[str, list[float | None]] = {}
    greatest: list[tuple[float, str, int, int]] = []
    norm: dict[str, Any] | None = None
    got = _checked(run, formula)
    for name, track in expected.items():
        if name not in got:
            continue
        with exact.active():
            found, wholes = _excess(exact, got[name], track)
        known = np.isfinite(track.all.radius)
        tested += int(known.sum())
        untested += int((~known).sum())
        excesses[name] = []
        for step, (excess, whole, bound) in enumerate(zip(found, wholes, track.norms, strict=True)):
            if bound and (norm is None or whole > norm["got"] / norm["bound"]):
                norm = {"quantity": name, "step": step + 1, "got": whole * bound, "bound": bound}
            index = int(np.argmax(excess)) if excess.size else 0
            decided = excess.size > 0 and bool(known[step].reshape(-1)[index])
            excesses[name].append(float(excess.reshape(-1)[index]) if decided else None)
            if decided:
                greatest.append((float(excess.reshape(-1)[index]), name, step, index))

    def element(excess: float, name: str, step: int, index: int) -> Element:
        quantity = expected[name].all
        numbers = got[name], quantity.low, quantity.nearest, quantity.high
        bits = [case.form.bits(array[step].reshape(-1)[index : index + 1])[0] for array in numbers]
        with exact.active():
            text = exact.text(quantity.exact[step, ...].reshape(-1)[index])
        return Element(name, step + 1, index, bits[0], bits[1], bits[2], bits[3], text, excess)

    greatest.sort(key=lambda place: place[2])  # by step, then in the order of the quantities
    worst = element(*max(greatest, key=itemgetter(0))) if greatest else None
    first = next((element(*place) for place in greatest if place[0] > 1), None)
    verdict = Verdict(case, formula, "conforms", scalars, worst, first, [], None, tested, untested, excesses, norm)
    if (written := _written(run)) is not None:
        return replace(verdict, word="deviates", worst=written, first=written)
    if case.parameter.size == 0:
        return verdict  # there is nothing but the shape
    if not verdict.decided and first is None and entry_of(formula.optimizer.__name__).consistent:
        return _measured(verdict, got["parameter"], expected)
    if not verdict.decided:
        return replace(verdict, word="deviates", reason="no element of the parameter could be tested")
    return verdict if first is None else replace(verdict, word="deviates")


def _tracks(case: Case, formula: Formula, scalars: Scalars, *, interpolating: bool) -> dict[str, Track]:
    """Evaluate a formula for a case."""
    if case.regime == special.REGIME:
        return special.special_tracks(formula, case, scalars)
    return tracks(
        formula,
        case.parameter,
        list(case.gradients),
        dtype=case.dtype,
        scalars=scalars,
        given=case.hyperparameters,
        step=case.step,
        state=case.state,
        quick=case.regime in QUICK,
        interpolating=interpolating,
    )


QUICK = ("sizes", "long")
"""The regimes with so many numbers that float64 holds the centres of the balls."""


def _of_tree(run: Run, verdicts: Sequence[Verdict]) -> Verdict:
    """Join the verdicts on the leaves of a tree: it conforms where all do."""

    def placed(name: str) -> Iterator[Element]:
        for path, verdict in enumerate(verdicts):
            if (element := getattr(verdict, name)) is not None:
                yield replace(element, path=path)

    def joined(name: str) -> list[float | None]:
        columns = zip(*(verdict.excesses[name] for verdict in verdicts if name in verdict.excesses), strict=True)
        return [max((x for x in column if x is not None), default=None) for column in columns]

    graves = [word for word in ("deviates", "unsupported") if any(verdict.word == word for verdict in verdicts)]
    word: Word = next((word for word in WORDS if word in graves), "conforms")
    one = next(verdict for verdict in verdicts if verdict.word == word)
    names = dict.fromkeys(name for verdict in verdicts for name in verdict.excesses)
    return replace(
        one,
        case=run.case,
        word=word,
        worst=max(placed("worst"), key=attrgetter("excess"), default=None) if word != "unsupported" else None,
        first=min(placed("first"), key=attrgetter("step"), default=None),
        tested=sum(verdict.tested for verdict in verdicts),
        untested=sum(verdict.untested for verdict in verdicts),
        excesses={name: joined(name) for name in names},
        norm=next((verdict.norm for verdict in verdicts if verdict.norm is not None), None),
    )


def _written(run: Run) -> Element | None:
    """Find the first gradient that the program has written to; None where it has to none, or nobody looked."""
    case = run.case
    if run.gradients is None or case.regime != "untouched":
        return None
    for step, (before, after) in enumerate(zip(case.gradients, run.gradients, strict=True)):
        were, are = case.form.bits(before), case.form.bits(after)
        for index, (low, got) in enumerate(zip(were, are, strict=True)):
            if low != got:
                exact = Exact()
                with exact.active():
                    text = exact.text(exact.number(float(before.reshape(-1)[index])))
                return Element("gradient", step + 1, index, got, low, low, low, text, math.inf)
    return None


def _measured(verdict: Verdict, got: FloatArray, expected: Mapping[str, Track]) -> Verdict:
    """Compare a program of which nothing is certain with the exact steps: it is consistent with the formula or not.

    What a step changes is compared with what the formula does, in the Frobenius norm, and beyond what a rounding of
    the parameter explains. A step with a direction that Newton–Schulz has not brought near to 1 is left out. The
    first step ends it whose squares overflow or underflow, or whose v depends on how those before were rounded, as it
    does where a weight decay of w outweighs the gradient.
    """
    case, form = verdict.case, verdict.case.form
    narrow = Exact()
    narrow.narrow = FORMATS["bfloat16"] if case.dtype != "float16" else form
    with narrow.active():
        steps = [[x.values.astype(np.float64) for x in step] for step in walked(verdict.formula, narrow, case)]
    second, momenta = zip(*steps, strict=True)
    first, exact_momenta = (expected[name].all.exact.astype(np.float64) for name in ("parameter", "v"))
    start, rows = case.parameter.astype(np.float64), case.parameter.shape[0]
    distances, untold = [], "no step has a matrix of full rank"
    for step, now in enumerate(got.astype(np.float64)):
        before = got[step - 1].astype(np.float64) if step else start
        v = exact_momenta[step]
        squares = [float(np.square(x.astype(np.float64)).sum()) for x in (v, case.gradients[step])]
        in_range = not squares[0] or (form.tiny < squares[0] and max(squares) < form.limit / 4)
        if not in_range or np.linalg.norm(momenta[step] - v) > np.linalg.norm(v) / 100:
            untold = "squares leave the range of the dtype, or rounding comes back by the weight decay"
            break
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
        return replace(verdict, word="unsupported", reason=f"nothing can be told: {untold}", worst=None)
    told = "consistent" if max(distances) <= CONSISTENT else "not consistent"
    reason = f"{told}: a step is {max(distances):.2g} of itself off, and {CONSISTENT} is what rounding explains"
    return replace(verdict, word="unsupported", reason=reason, distance=max(distances), worst=None)


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
    if case.leaves:
        return any(can_decide(leaf, formula) for leaf in case.leaves)
    if case.parameter.size == 0:
        return True  # the shape
    exact = Exact()
    n = Rounded(case.form, exact if case.dtype == "float64" else Double(), "double", exact)
    with n.active():
        try:
            return any(bool(np.isfinite(w.radius).any()) for w, *_ in walked(formula, n, case))
        except ValueError:  # the root of a negative number
            return False


def walked(formula: Formula, n: Any, case: Case) -> Iterator[tuple[Any, ...]]:
    """Evaluate a formula for a case over the numbers of a context; see `walk`."""
    data = case.parameter, list(case.gradients), case.hyperparameters
    return walk(formula, n, *data, step=case.step, state=case.state)


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


def _excess(exact: Exact, got: FloatArray, track: Track) -> tuple[FloatArray, list[float]]:
    """Compute the error ratio after all steps; the ends of the interval decide which values lie inside; −1 untested.

    The second numbers are the ratios of the whole, which the farthest element has where it is greater; 0 without norm.
    """
    quantity, values = track.all, got.astype(np.float64)
    known = np.isfinite(quantity.radius)
    low, high = quantity.low.astype(np.float64), quantity.high.astype(np.float64)
    alone = known & ~np.isfinite(low)  # a NaN or an infinity, in the regime ``special``
    centre = np.where(known & ~alone, quantity.exact, exact.number(0))
    with np.errstate(all="ignore"):
        inside = (values >= low) & (values <= high)
    ratio = error_ratio(exact, centre, quantity.radius, values)
    ratio = np.where(inside, np.minimum(ratio, 1.0), np.maximum(ratio, math.nextafter(1.0, 2.0)))
    ratio = np.where(alone, np.where(inside | (np.isnan(low) & np.isnan(values)), 0.0, np.inf), ratio)
    wholes = [0.0] * len(values)
    for step in np.flatnonzero(track.norms):
        step_values, radius, norm = values[step], quantity.radius[step], track.norms[step]
        with np.errstate(all="ignore"):
            known_values = exact.array(np.nan_to_num(step_values)).values.reshape(step_values.shape)
            error = np.abs(known_values - centre[step]).astype(np.float64)
        wholes[step], place = norm_ratio(np.where(np.isfinite(step_values), error, np.inf), radius, norm)
        ratio[step].reshape(-1)[place] = max(ratio[step].reshape(-1)[place], wholes[step])
    return np.where(known, ratio, -1.0), wholes
