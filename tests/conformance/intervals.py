"""The parameter's accepted intervals over cases, to compare formulas with each other and not with a program."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np

from mlx_optimizers.conformance import Case, parse
from mlx_optimizers.oracle import Double, Exact, Rounded, format_of
from mlx_optimizers.oracle.trajectory import walk


@cache
def _model(dtype: str) -> Rounded:
    """The wider profile, so that what lies apart here is told apart in both."""
    exact = Exact()
    return Rounded(format_of(dtype), exact if dtype == "float64" else Double(), "float32", exact)


_SLACK = 1 + 2.0**-40  # for the float64 arithmetic of the comparison itself


@cache
def intervals(name: str, case: Case) -> tuple[Any, Any]:
    """Compute centre and radius of the parameter after each step, each of shape (steps, n)."""
    model = _model(case.dtype)
    with model.active(), np.errstate(all="ignore"):
        steps = walk(parse(name), model, case.parameter, list(case.gradients), case.hyperparameters)
        balls = [np.broadcast_arrays(w.centre.values.astype(np.float64), w.radius) for w, *_ in steps]
    centre, radius = zip(*balls, strict=True)
    return np.stack(centre), np.stack(radius)


def apart(one: str, other: str, case: Case) -> bool:
    """Tell whether no program lies in the intervals of both: two are disjoint, or only one formula has a value."""
    (a, reach_a), (b, reach_b) = intervals(one, case), intervals(other, case)
    with np.errstate(all="ignore"):
        disjoint = abs(a - b) > (reach_a + reach_b) * _SLACK
    only_a = np.isfinite(reach_a) & np.isnan(b)
    only_b = np.isfinite(reach_b) & np.isnan(a)
    return bool((disjoint | only_a | only_b).any())


def passes_as(one: str, other: str, case: Case) -> bool:
    """Tell whether the exact values of one formula lie in the intervals of the other."""
    (a, _), (b, reach) = intervals(one, case), intervals(other, case)
    with np.errstate(all="ignore"):
        inside = (abs(a - b) <= reach) | np.isinf(reach)
    return bool(np.where(np.isnan(b), np.isnan(a), inside).all())
