"""Whether a backend's numbers lie in the interval, and which of them is farthest out."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import numpy.typing as npt

import mlx_optimizers
from mlx_optimizers.conformance.cases import Case, cases_of
from mlx_optimizers.oracle import Double, Exact, Format, Formula, Quantity, Rounded, trajectory
from mlx_optimizers.oracle.formulas import parse
from mlx_optimizers.oracle.trajectory import formula_named, walk

__all__ = ["Judgement", "Outcome", "Worst", "can_decide", "decidable", "is_decidable", "judge"]


@dataclass(frozen=True, eq=False)
class Outcome:
    """What a backend computed for a case.

    Args:
        parameters: The parameter after each step, shape (steps, n).
        state: Slots after each step, those that the backend shows; each of shape (steps, n).
    """

    parameters: npt.NDArray[Any]
    state: Mapping[str, npt.NDArray[Any]]


@dataclass(frozen=True)
class Worst:
    """The element of greatest excess: its bit patterns, its exact value as decimal text.

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


@dataclass(frozen=True)
class Judgement:
    """One case under one scalar profile.

    Args:
        conforms: Every tested element is accepted, and one of the parameter was tested.
        decided: An element of the parameter was tested.
        worst: The tested element of greatest excess.
        first: The first element, by step, that is not accepted; None if all are.
        tested: Number of elements with a finite interval, over all steps and quantities.
        untested: Number of elements for which any answer would pass.
        excesses: For each quantity its greatest excess after each step, None where no element was tested.
    """

    conforms: bool
    decided: bool
    worst: Worst | None
    first: Worst | None
    tested: int
    untested: int
    excesses: Mapping[str, list[float | None]]


def judge(case: Case, outcome: Outcome, formula: Formula, scalars: Any) -> Judgement:
    """Hold an outcome to a formula.

    Args:
        case: The case.
        outcome: What a backend computed.
        formula: The formula it is held to.
        scalars: The profile, ``"double"`` or ``"float32"``.

    Raises:
        ValueError: for an outcome of another shape than the case asks for, or with an unknown slot.
    """
    exact = Exact()
    entries = trajectory(
        formula,
        case.parameter,
        case.gradients,
        dtype=case.dtype,
        scalars=scalars,
        **case.hyperparameters,
    )
    given = _given(case, outcome, formula)
    worst = first = None
    decided, tested, untested = False, 0, 0
    excesses: dict[str, list[float | None]] = {name: [] for name in given}
    with exact.active():
        for step, entry in enumerate(entries):
            for name, quantity in entry.quantities():
                if name not in given:
                    continue
                got = given[name][step]
                excess = _excess(exact, got, quantity)
                known = np.isfinite(quantity.radius)
                decided |= name == "parameter" and bool(known.any())
                tested += int(known.sum())
                untested += int((~known).sum())
                index = int(np.argmax(excess))
                excesses[name].append(float(excess[index]) if known[index] else None)
                if not known[index]:
                    continue
                if worst is None or excess[index] > worst.excess:
                    worst = _element(exact, case.form, quantity, got, name, step, index, float(excess[index]))
                if first is None and excess[index] > 1:
                    first = _element(exact, case.form, quantity, got, name, step, index, float(excess[index]))
    return Judgement(decided and first is None, decided, worst, first, tested, untested, excesses)


def can_decide(case: Case, formula: Formula) -> bool:
    """Whether a case can tell anything of a program's parameter: a formula gives some element a finite interval.

    The profile *double* is asked, whose interval the one of *float32* holds.
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
def is_decidable(name: str) -> bool:
    """Whether any case can tell something of a program held to the formula of this name."""
    formula = parse(name)
    return any(can_decide(case, formula) for case in cases_of(formula.optimizer.__name__))


def decidable(name: str | type[mlx_optimizers.Optimizer]) -> Formula:
    """The formula of a name or class, if a backend can be held to it.

    Raises:
        ValueError: for an unknown formula, or one that gives no element of the parameter an interval in any case, as
            a division by 1 − β⁰ = 0: any answer would pass.
        TypeError: for anything else.

    Example:
        >>> from mlx_optimizers.conformance.acceptance import decidable
        >>> decidable("BiasCorrectedAdam").name
        'Adam[bias_correction=true]'
    """
    formula = parse(formula_named(name).name)
    if not is_decidable(formula.name):
        raise ValueError(
            f"nothing can be held to {formula.name!r}: in no case does it give an element of the parameter a value "
            "that can be tested, so that any answer would pass"
        )
    return formula


def _given(case: Case, outcome: Outcome, formula: Formula) -> dict[str, npt.NDArray[Any]]:
    for name in outcome.state:
        if name not in formula.slots:
            raise ValueError(f"{name!r} is no state slot of {formula.name}")
    given = {name: np.asarray(values) for name, values in {"parameter": outcome.parameters, **outcome.state}.items()}
    for name, values in given.items():
        if values.shape != case.gradients.shape:
            raise ValueError(f"{name} has shape {values.shape}, the case asks for {case.gradients.shape}")
        if values.dtype != case.form.dtype:
            raise ValueError(f"{name} has dtype {values.dtype}, the case asks for {case.dtype}")
    return given


def _excess(exact: Exact, got: npt.NDArray[Any], quantity: Quantity) -> npt.NDArray[np.float64]:
    """|got − exact| over the radius: 0 where untested, infinite where the quotient has no value."""
    values = got.astype(np.float64)
    with np.errstate(all="ignore"):
        inside = (values >= quantity.low.astype(np.float64)) & (values <= quantity.high.astype(np.float64))
        # A NaN or an infinity stands for itself below, so that the subtraction is one of finite numbers.
        finite = np.where(np.isfinite(values), values, 0.0)
        known = np.isfinite(quantity.radius)
        centre = np.where(known, quantity.exact, exact.number(0))
        error = np.abs(exact.array(finite).values - centre).astype(np.float64)
        excess = np.where(error == 0, 0.0, error / quantity.radius)
    excess = np.where(np.isfinite(values), excess, np.inf)
    # The comparison with the interval's ends decides; the quotient of two rounded numbers may not overrule it.
    excess = np.where(inside, np.minimum(excess, 1.0), np.maximum(excess, math.nextafter(1.0, 2.0)))
    return np.where(known, excess, -1.0)


def _element(
    exact: Exact,
    form: Format,
    quantity: Quantity,
    got: npt.NDArray[Any],
    name: str,
    step: int,
    index: int,
    excess: float,
) -> Worst:
    def bits(array: npt.NDArray[Any]) -> str:
        return form.bits(array[index : index + 1])[0]

    return Worst(
        quantity=name,
        step=step + 1,
        index=index,
        got=bits(got),
        low=bits(quantity.low),
        nearest=bits(quantity.nearest),
        high=bits(quantity.high),
        exact=exact.text(quantity.exact[index]),
        excess=excess,
    )
