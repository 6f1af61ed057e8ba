"""The regime ``special``: NaN, infinities, zeros of either sign, and numbers beyond the domain of the proof.

A required case asks for what IEEE 754 and the formula leave one answer to: a NaN stays a NaN, an infinity an infinity,
and a number lies in its interval. Where correct programs differ, a case only informs.

The expected values are those of exact arithmetic within the range of the format: a result that it rounds to zero or to
an infinity becomes that zero or infinity, and infinities and NaN go on as IEEE 754 has it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from functools import cache

import numpy as np
import numpy.typing as npt

from mlx_optimizers.catalog import entry_of
from mlx_optimizers.conformance.case import Case, Level, completed
from mlx_optimizers.kinds import FloatArray
from mlx_optimizers.oracle import Array, Ball, Exact, Formula, Rounded
from mlx_optimizers.oracle.exact import Ranged
from mlx_optimizers.oracle.formats import Scalars
from mlx_optimizers.oracle.trajectory import Quantity, Track, ends, walk

__all__ = ["REGIME", "SPECIAL", "special_ball", "special_of", "special_tracks"]

REGIME = "special"

_ONE = (0.5, -1.25, 2.0, -0.75, 1.5, -3.0)  # what stands where a kind needs something ordinary


def _scaled(parameter: int, gradient: int, others: Mapping[tuple[int, int], float]) -> tuple[FloatArray, FloatArray]:
    """Scale ordinary numbers by powers of two; some steps and elements have other gradients."""
    rows = np.ldexp(np.outer(range(1, 5), _ONE), gradient)
    for place, value in others.items():
        rows[place] = value
    return np.ldexp(_ONE, parameter), rows


SPECIAL: dict[str, tuple[str | None, tuple[npt.ArrayLike, npt.ArrayLike]]] = {
    # A NaN in the first, the third and the last gradient of an element.
    "nan": (None, _scaled(0, 0, {(0, 0): math.nan, (2, 1): math.nan, (3, 2): math.nan})),
    # An infinity in the last gradient: the steps after one depend on the order of operations.
    "infinity": (None, _scaled(0, 0, {(3, 0): math.inf, (3, 1): -math.inf})),
    # Zeros of either sign among parameters and gradients.
    "negative_zero": (
        None,
        ([-0.0, 0.0, -0.0, 0.5, -0.0, -0.0], [[-0.0, -0.0, 0.0, -0.0, g, -3.0] for g in (1.5, -0.0, 1.5, -0.0)]),
    ),
    # g² = 2²⁰⁰, beyond float32 in every order.
    "overflow": ("a program that never squares g has a result where g² is infinite", _scaled(0, 100, {})),
    # g² = 2⁻¹⁶⁰, which float32 rounds to zero.
    "underflow": ("a program that never squares g has a result where g² is 0", _scaled(-60, -80, {})),
    "subnormal": ("many devices take subnormal numbers for 0", _scaled(-132, -130, {})),
}
"""The kinds by label: why one only informs, and the data, a row of gradients a step. Every number is one of float32."""


@cache
def special_of(optimizer: str) -> tuple[Case, ...]:
    """List the special cases of an optimizer, which are of float32 and run with the defaults."""
    values = completed(entry_of(optimizer).optimizer, {})

    def made(kind: str) -> Case:
        reason, data = SPECIAL[kind]
        parameter, gradients = (np.array(numbers, np.float32) for numbers in data)
        level: Level = "required" if reason is None else "informative"
        identifier = f"{optimizer.lower()}/{REGIME}/{kind}"
        arrays = dict(values), parameter, gradients
        return Case(identifier, optimizer, REGIME, kind, "float32", *arrays, level=level, reason=reason)

    return tuple(map(made, SPECIAL))


def special_ball(case: Case, name: str, x: Array, ball: Ball) -> Ball:
    """Choose the model's ball for a finite value, the value alone for another, and all numbers where any may stand."""
    sizes = x.values.astype(np.float64)
    undecided = np.isnan(sizes) & (name in entry_of(case.optimizer).undecided)
    known = np.isfinite(sizes)
    beyond = np.inf if case.level == "informative" else 0.0
    return Ball(ball.context, x, np.where(undecided, np.inf, np.where(known, ball.radius, beyond)))


def special_tracks(formula: Formula, case: Case, scalars: Scalars) -> dict[str, Track]:
    """Evaluate a formula for a special case: `tracks` within the range of the format."""
    exact, form = Exact(), case.form
    data = case.parameter, list(case.gradients), case.hyperparameters
    names = ("parameter", *case.slots)
    columns: dict[str, list[tuple[Array, Ball]]] = {name: [] for name in names}
    with exact.active():
        numbers = walk(formula, Ranged(form, library=exact.library), *data)
        balls = walk(formula, Rounded(form, exact, scalars), *data)
        for row in zip(numbers, balls, strict=True):
            for name, x, ball in zip(names, *row, strict=True):
                columns[name].append((x, special_ball(case, name, x, ball)))
        found = {}
        for name, column in columns.items():
            values = np.stack([x.values for x, _ in column])
            radius = np.stack([np.broadcast_to(ball.radius, x.values.shape) for x, ball in column])
            arrays = (exact.rounded(values, form), *ends(exact, form, values, radius))
            near, low, high = (array.astype(form.dtype) for array in arrays)
            found[name] = Track(Quantity(values, near, low, high, radius), [ball.norm for _, ball in column])
    return found
