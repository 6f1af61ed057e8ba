"""Which formula a deviating backend computes instead.

Every formula that differs in one axis from the documented one is tried, then every one that differs in two, and in as
many as the catalog says: first in float64 with radii, up to the first number that does not fit, then by the
oracle. The formulas that remain agree with every case of the optimizer, and some case tests the parameter: NaN
everywhere is no evidence for a formula without a value.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np

from mlx_optimizers.catalog import entry_of
from mlx_optimizers.conformance.frame import FAMILIES
from mlx_optimizers.conformance.verdict import Run, judge_widening, walked
from mlx_optimizers.kinds import FloatArray
from mlx_optimizers.oracle import Ball, Double, Exact, Formula, Rounded
from mlx_optimizers.oracle.exact import Radius
from mlx_optimizers.oracle.formulas import variants
from mlx_optimizers.oracle.newton_schulz import CONSISTENT
from mlx_optimizers.oracle.rounded import Scalars, error_ratio

__all__ = ["Diagnosis", "diagnose"]

_SLACK = 1 + 2.0**-40
"""The search tolerates the error of its own float64; the oracle decides afterwards."""

_CLEARLY = 1.0
"""Bits by which errors have to be smaller, on average, for their formula to be nearer than the documented one."""


@dataclass(frozen=True)
class Diagnosis:
    """What a backend computes.

    Args:
        formulas: Names of the formulas that agree with all cases, fewest axes first, then by smallest error ratio.
        nearest: Where nothing agrees, the formula that agrees with most cases; among those the documented one, unless
            another's errors are clearly smaller.
        agreeing: With how many cases it does.
        of: How many cases the diagnosis was made of.
    """

    formulas: list[str]
    nearest: str | None = None
    agreeing: int = 0
    of: int = field(default=0, compare=False)


def diagnose(optimizer: str, runs: Sequence[Run], profiles: Sequence[Scalars]) -> Diagnosis:
    """Find the formulas that agree with all cases of an optimizer.

    Args:
        optimizer: Name of the optimizer.
        runs: What was computed for its cases; the deviating ones first make it faster.
        profiles: The coefficient precisions that may explain a case.
    """
    search, entry = _Search(runs, profiles[-1]), entry_of(optimizer)
    told = any(_finite(run) for run in runs)
    for count in range(entry.depth + 1 if told else 0):
        confirmed = [
            (excess, formula.name)
            for formula in variants(entry.family, count)
            if search.agrees(formula) and (excess := _confirmed(formula, runs, profiles)) is not None
        ]
        if confirmed:
            return Diagnosis([name for _, name in sorted(confirmed)])
    near = {formula.name: formula for count in (0, 1) for formula in variants(entry.family, count)}
    some = _Search([run for run in runs if run.case.regime not in FAMILIES] or runs, profiles[-1])
    radii = some.radii(near[entry.formula])
    away = {name: some.distance(formula, radii) for name, formula in near.items()}
    best = min(near, key=away.__getitem__)
    if away[best][0] == away[entry.formula][0] and away[best][1] > away[entry.formula][1] - _CLEARLY:
        best = entry.formula
    strayed, _ = search.distance(near[best], search.radii(near[entry.formula]))
    return Diagnosis([], best, len(runs) - strayed, len(runs))


def _confirmed(formula: Formula, runs: Iterable[Run], profiles: Sequence[Scalars]) -> float | None:
    """Find the greatest error ratio over all cases by the oracle; None if one deviates or none tests the parameter."""
    greatest = None
    for run in runs:
        verdict = judge_widening(run, formula, profiles)
        if verdict.worst is not None and verdict.conforms:
            greatest = max(greatest or 0.0, verdict.worst.excess)
        elif verdict.consistent and verdict.distance is not None:
            greatest = max(greatest or 0.0, verdict.distance / CONSISTENT)
        elif verdict.word == "unsupported" and verdict.distance is None:
            continue  # nothing can be told
        elif verdict.decided or verdict.first is not None or _finite(run):
            return None  # otherwise neither has a value in this case
    return greatest


def _finite(run: Run) -> bool:
    """Say whether a program has computed a finite parameter."""
    return any(bool(np.isfinite(leaf.parameters).any()) for leaf in run.each)


class _Search:
    """The quick look: float64 centres with the radii of the widest profile."""

    def __init__(self, runs: Sequence[Run], profile: Scalars) -> None:
        self._runs = runs
        self._exact = exact = Exact()
        centre = Double()
        self._model = {
            run.case.dtype: Rounded(run.case.form, exact if run.case.dtype == "float64" else centre, profile, exact)
            for run in runs
        }

    def agrees(self, formula: Formula) -> bool:
        """Say whether all numbers of all cases fit; stop at the first that does not."""
        with self._exact.active():
            return all(
                (_excess(n, ball, got) <= _SLACK).all()
                for run in self._runs
                for _, n, ball, got in self._balls(formula, run)
            )

    def radii(self, formula: Formula) -> list[list[Radius]]:
        """Compute the radii of a formula's numbers, case by case."""
        with self._exact.active():
            return [[ball.radius for _, _, ball, _ in self._balls(formula, run)] for run in self._runs]

    def distance(self, formula: Formula, documented: Sequence[Sequence[Radius]]) -> tuple[int, float]:
        """Count the cases that do not agree or test no parameter, and average log₂ of the errors.

        The errors are in the radii of the documented formula: in wider ones of their own they would look small.
        """
        strayed, bits = 0, []
        for run, radii in zip(self._runs, documented, strict=True):
            own, common, decided = [], [], not any(leaf.parameters.size for leaf in run.each)
            with self._exact.active():
                for (name, n, ball, got), radius in zip(self._balls(formula, run), radii, strict=True):
                    decided |= name == "parameter" and bool(np.isfinite(ball.radius).any())
                    own.append(_excess(n, ball, got).reshape(-1))
                    common.append(_excess(n, Ball(n, ball.centre, radius), got).reshape(-1))
            strayed += int(not decided or (np.concatenate(own) > _SLACK).any())
            errors = np.concatenate(common)
            bits.append(np.log2(np.clip(errors, 1.0, 2.0**64)).mean() if errors.size else 0.0)
        return strayed, float(np.mean(bits))

    def _balls(self, formula: Formula, run: Run) -> Iterator[tuple[str, Rounded, Ball, FloatArray]]:
        """Yield each step's quantities with the backend's numbers; the caller holds the exact context active."""
        for leaf in run.each:
            n, names = self._model[leaf.case.dtype], ("parameter", *leaf.case.slots)
            arrays = {"parameter": leaf.parameters, **leaf.state}
            for step, balls in enumerate(walked(formula, n, leaf.case)):
                for name, ball in zip(names, balls, strict=True):
                    if name in arrays:
                        yield name, n, ball, arrays[name][step]


def _excess(n: Rounded, ball: Ball, got: FloatArray) -> FloatArray:
    """Compute the error ratio; where the formula has no value, 0 for none and infinite for any."""
    ratio = np.where(np.isinf(ball.radius), 0.0, error_ratio(n.centre, ball.centre.values, ball.radius, got, ball.norm))
    return np.where(np.isnan(ball.size), np.where(np.isfinite(got.astype(np.float64)), np.inf, 0.0), ratio)
