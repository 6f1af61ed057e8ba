"""Which formula a deviating backend computes instead.

Every formula that differs in one axis from the documented one is tried, then every one that differs in two, and for
the Adam family in three: first in float64 with radii, given up at the first number that does not fit, then by the
oracle. What is left agrees with every case of the optimizer.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from mlx_optimizers.conformance.acceptance import Outcome, judge
from mlx_optimizers.conformance.cases import Case
from mlx_optimizers.conformance.formulas import parse, variants
from mlx_optimizers.oracle import Ball, Double, Exact, Formula, Rounded
from mlx_optimizers.oracle.rounded import Scalars
from mlx_optimizers.oracle.trajectory import walk

__all__ = ["Diagnosis", "Run", "diagnose"]

Run = tuple[Case, Outcome]

_DEPTH = {"Adam": 3, "AdamW": 3, "Adamax": 3}


@dataclass(frozen=True)
class Diagnosis:
    """What a backend computes.

    Args:
        formulas: Names of the formulas that agree with all cases, fewest axes first, then by smallest excess.
        nearest: Where nothing agrees, the formula that agrees with most cases.
        agreeing: With how many cases it does.
    """

    formulas: list[str]
    nearest: str | None = None
    agreeing: int = 0


def diagnose(optimizer: str, runs: Sequence[Run], profiles: Sequence[Scalars]) -> Diagnosis:
    """Find the formulas that agree with all cases of an optimizer.

    Args:
        optimizer: Name of the optimizer.
        runs: All of its cases that were executed, with their outcomes; the deviating ones first make it faster.
        profiles: The scalar profiles that may explain a case.
    """
    search = _Search(runs, profiles[-1])
    for count in range(_DEPTH.get(optimizer, 2) + 1):
        confirmed = [
            (excess, name)
            for name in variants(optimizer, count)
            if search.agrees(parse(name)) and (excess := _confirmed(parse(name), runs, profiles)) is not None
        ]
        if confirmed:
            return Diagnosis([name for _, name in sorted(confirmed)])
    names = [name for count in (0, 1) for name in variants(optimizer, count)]
    best = max(names, key=lambda name: search.agreeing(parse(name)))
    return Diagnosis([], best, search.agreeing(parse(best)))


def _confirmed(formula: Formula, runs: Iterable[Run], profiles: Sequence[Scalars]) -> float | None:
    """The greatest excess over all cases by the oracle, or None if one deviates."""
    greatest = 0.0
    for case, outcome in runs:
        for profile in profiles:
            judgement = judge(case, outcome, formula, profile)
            if judgement.conforms:
                break
        if not judgement.conforms or judgement.worst is None:
            return None
        greatest = max(greatest, judgement.worst.excess)
    return greatest


class _Search:
    """The quick look: float64 centres with the radii of the widest profile."""

    def __init__(self, runs: Sequence[Run], profile: Scalars) -> None:
        self._runs = runs
        exact, centre = Exact(), Double()
        self._model = {
            case.dtype: Rounded(case.form, exact if case.dtype == "float64" else centre, profile, exact)
            for case, _ in runs
        }

    def agrees(self, formula: Formula) -> bool:
        return all(self._fits(formula, case, outcome) for case, outcome in self._runs)

    def agreeing(self, formula: Formula) -> int:
        return sum(self._fits(formula, case, outcome) for case, outcome in self._runs)

    def _fits(self, formula: Formula, case: Case, outcome: Outcome) -> bool:
        n = self._model[case.dtype]
        given = {"parameter": outcome.parameters, **outcome.state}
        names = ("parameter", *formula.slots)
        with n.active():
            steps = walk(formula, n, case.parameter, list(case.gradients), case.hyperparameters)
            return all(
                _inside(n, ball, given[name][step])
                for step, balls in enumerate(steps)
                for name, ball in zip(names, balls, strict=True)
                if name in given
            )


def _inside(n: Rounded, ball: Ball, got: npt.NDArray[Any]) -> bool:
    """Whether all values lie in the ball; where the formula has no value, there must be none."""
    values = got.astype(np.float64)
    finite = np.isfinite(values)
    with np.errstate(all="ignore"):
        error = abs((n.centre.array(np.where(finite, values, 0.0)) - ball.centre).values).astype(np.float64)
        inside = finite & (error <= ball.radius * (1 + 2.0**-40))
        fits = np.where(np.isnan(error), ~finite, inside | np.isinf(ball.radius))
    return bool(fits.all())
