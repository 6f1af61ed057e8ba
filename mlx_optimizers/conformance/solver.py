"""Constants solved from the numbers of a program: which values of a hyperparameter explain all of them.

Branch and prune: a grid of values is evaluated together, and a cell between two neighbours stays while every number
of the program lies between what its ends give, half their second difference apart. What is left when nothing more can
be cut off is the interval of the constant that the numbers allow, and the plainest number in it is its name.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Iterator, Sequence
from decimal import ROUND_CEILING, ROUND_FLOOR, Decimal
from typing import Any

import numpy as np
import numpy.typing as npt

from mlx_optimizers.catalog import Choice
from mlx_optimizers.conformance.stack import SLACK, Glance, Stack, off
from mlx_optimizers.oracle.constants import Constant, Kind
from mlx_optimizers.oracle.formulas import varied

__all__ = ["DECAYS", "Unknown", "digits", "glimpsed", "paired", "plainest", "simplest", "solved"]

Unknown = tuple[Kind, str]
"""A constant that is looked for: how it takes the place of which hyperparameter."""

Grid = npt.NDArray[np.float64]
Hull = list[tuple[float, float]]
"""For each unknown the least and the greatest value."""

DECAYS = ("beta_1", "beta_2", "alpha", "rho", "momentum", "dampening")


def _logarithmic(low: float, high: float, each: int) -> list[float]:
    """List powers of ten, so many for each decade."""
    return [10.0 ** (k / each) for k in range(round(low * each), round(high * each) + 1)]


def grid(kind: Kind, name: str) -> Grid:
    """List the values of a constant to begin with, in order."""
    if kind == "scaled":
        sizes = _logarithmic(-8, 10, 4) if name == "eps" else _logarithmic(-6, 6, 4)
        middle = 0.0 if name in ("eps", "weight_decay") else math.nan  # otherwise nothing would move
        return np.array([*(-x for x in sizes[::-1]), middle, *sizes])
    if name in DECAYS:
        near_one = (1 - x for x in _logarithmic(-6, -0.3, 8))
        from_zero = [] if name == "momentum" else [0.0]
        return np.array(sorted({*from_zero, *_logarithmic(-4, -0.35, 6), *near_one}))
    if name == "clip":
        return np.array(_logarithmic(-4, 4, 6))
    zero = [] if name == "learning_rate" else [0.0]  # nothing would move
    return np.array([*zero, *_logarithmic(-18 if name in ("eps", "initial") else -8, 2, 4)])


def solved(
    stack: Stack, few: Stack, optimizer: str, choice: Choice, unknown: Sequence[Unknown], hulls: Iterable[Hull]
) -> Iterator[list[Constant]]:
    """Yield the constants that explain every number, the plainest ones of each interval that the numbers allow.

    Args:
        stack: The runs.
        few: The same with a few elements of each, for the first looks.
        optimizer: Name of the optimizer.
        choice: The axes besides.
        unknown: What is looked for, one constant or two.
        hulls: Where to look.
    """
    for hull in hulls:
        narrow = _narrowed(stack, few, optimizer, choice, unknown, hull)
        if narrow is not None and (constants := _snapped(stack, optimizer, choice, unknown, narrow)) is not None:
            yield constants


def paired(few: Stack, optimizer: str, choice: Choice, unknown: Sequence[Unknown]) -> list[Hull]:
    """Find where two constants together may explain a few elements."""
    axes = [axis[:: 1 + len(axis) // 40] for axis in (grid(*each) for each in unknown)]
    return _groups(_feasible(few, optimizer, choice, unknown, axes, shared=True), axes)[:6]


def glimpsed(coarse: Glance, fine: Glance, optimizer: str, choice: Choice, unknown: Unknown) -> list[Hull]:
    """Find where a constant may explain some elements, so that it is worth solving for there."""

    def alive(glance: Glance, values: Grid) -> npt.NDArray[np.bool_]:
        constant = Constant(*unknown, values[:, None])
        return glance.cells(varied(optimizer, choice, [constant]), len(values))

    values, out = grid(*unknown), []
    cells = alive(coarse, values)
    cells = cells & alive(fine, values) if cells.any() else cells
    for hull in _groups(cells, [values])[:6]:
        for _ in range(3):
            values = np.linspace(*hull[0], 17)
            cells = alive(fine, values)
            if not cells.any():
                break
            hull = _hull(cells, [values])
        else:
            out.append(hull)
    return out


def _feasible(
    stack: Stack,
    optimizer: str,
    choice: Choice,
    unknown: Sequence[Unknown],
    axes: Sequence[Grid],
    *,
    shared: bool = False,
) -> npt.NDArray[np.bool_]:
    """Say of each cell of a grid whether every number of the program may come from it."""
    shape = tuple(len(axis) for axis in axes)
    constants = []
    for place, points in enumerate(np.meshgrid(*axes, indexing="ij")):
        values = points.reshape(-1, 1, 1)
        number = stack.n.input(("grid", place, *unknown), "number", values) if shared else stack.n.number(values)
        constants.append(Constant(*unknown[place], number))
    alive = np.ones([size - 1 for size in shape], bool)
    for index, name, ball in stack.walk(varied(optimizer, choice, constants)):
        got = stack.got[name][index]
        if ball.centre.ndim < 3 or ball.centre.shape[0] == 1:
            if not (off(ball, got) <= SLACK).all():
                return np.zeros_like(alive)
            continue
        whole = (*shape, *np.broadcast_shapes(ball.centre.shape[1:], got.shape))
        centre = np.broadcast_to(ball.centre, (len(ball.centre), *whole[len(shape) :])).reshape(whole)
        radius = np.broadcast_to(ball.radius, (len(ball.centre), *whole[len(shape) :])).reshape(whole)
        nothing = np.isinf(radius) | np.isnan(centre)
        reach = radius * SLACK + _bulge(centre, len(shape))
        low, high = np.where(nothing, -np.inf, centre - reach), np.where(nothing, np.inf, centre + reach)
        for axis in range(len(shape)):
            first, last = range(shape[axis] - 1), range(1, shape[axis])
            low = np.minimum(np.take(low, first, axis), np.take(low, last, axis))
            high = np.maximum(np.take(high, first, axis), np.take(high, last, axis))
        inside = (got >= low) & (got <= high) | ~np.isfinite(got) & np.isinf(low)
        alive &= inside.all(axis=(-1, -2))
        if not alive.any():
            break
    return alive


def _bulge(centre: Any, count: int) -> Any:
    """Bound how far a formula may reach beyond the ends of a cell, by its second differences on the grid."""
    out = np.zeros_like(centre)
    for axis in range(count):
        if centre.shape[axis] > 2:
            bent = np.abs(np.diff(centre, 2, axis=axis))
            pad = [(1, 1) if place == axis else (0, 0) for place in range(centre.ndim)]
            out += 0.5 * np.pad(np.where(np.isfinite(bent), bent, 0.0), pad, "edge")
    return out


def _narrowed(
    stack: Stack, few: Stack, optimizer: str, choice: Choice, unknown: Sequence[Unknown], hull: Hull
) -> Hull | None:
    """Cut a hull until nothing more can be cut off; None where nothing is left of it."""
    for depth in range(24):
        axes = [np.linspace(low, high, 17 if len(unknown) == 1 else 9) for low, high in hull]
        if any(not (axis[1:] > axis[:-1]).all() for axis in axes):
            return hull
        alive = _feasible(stack if depth > 1 else few, optimizer, choice, unknown, axes)
        if not alive.any():
            return None
        before, hull = hull, _hull(alive, axes)
        pairs = zip(hull, before, strict=True)
        if depth > 1 and all(new[1] - new[0] > 0.8 * (old[1] - old[0]) for new, old in pairs):
            return hull
    return hull


def _hull(alive: npt.NDArray[np.bool_], axes: Sequence[Grid]) -> Hull:
    """Find the least and the greatest value of each axis among cells."""
    out = []
    for axis, points in enumerate(axes):
        cells = np.flatnonzero(alive.any(axis=tuple(place for place in range(alive.ndim) if place != axis)))
        out.append((float(points[cells[0]]), float(points[cells[-1] + 1])))
    return out


def _groups(alive: npt.NDArray[np.bool_], axes: Sequence[Grid]) -> list[Hull]:
    """Find the hull of each group of neighbouring cells: between two groups there may be no value."""
    left, out = alive.copy(), []
    while left.any():
        group = np.zeros_like(left)
        group[np.unravel_index(np.argmax(left), left.shape)] = True
        before = None
        while before is None or (group != before).any():
            before = group.copy()
            for axis in range(left.ndim):
                ahead, behind = (np.moveaxis(x, axis, 0) for x in (group, before))
                ahead[1:] |= behind[:-1]
                ahead[:-1] |= behind[1:]
            group &= left
        left &= ~group
        out.append(_hull(group, axes))
    return out


def _snapped(
    stack: Stack, optimizer: str, choice: Choice, unknown: Sequence[Unknown], hull: Hull
) -> list[Constant] | None:
    """Find the plainest constants that explain every number; None where they change nothing or none do."""
    for margin in (0.0, 0.25, 0.45):
        constants = [
            Constant(kind, name, plainest(low + margin * (high - low), high - margin * (high - low), kind))
            for (kind, name), (low, high) in zip(unknown, hull, strict=True)
        ]
        if any(_as_given(item) for item in constants):
            return None
        if stack.fits(varied(optimizer, choice, constants)):
            return constants
    return None


def _as_given(item: Constant) -> bool:
    """Say whether a constant changes nothing."""
    return item.value == 1 if item.kind == "scaled" else item.name == "initial" and item.value == 0


def simplest(low: float, high: float) -> float:
    """Find the number of fewest decimal digits between two; of several the one nearest to the middle.

    Example:
        >>> from mlx_optimizers.conformance.solver import simplest
        >>> simplest(0.0099999, 0.0100002), simplest(-1.0000001, -0.9999999)
        (0.01, -1.0)
    """
    if low <= 0 <= high:
        return 0.0
    sign = 1 if low > 0 else -1
    low, high = sorted((abs(low), abs(high)))
    middle = (low + high) / 2
    for places in range(1, 18):
        unit = Decimal(1).scaleb(math.floor(math.log10(high)) - places + 1)
        first = (Decimal(low) / unit).to_integral_value(ROUND_CEILING)
        last = (Decimal(high) / unit).to_integral_value(ROUND_FLOOR)
        if first <= last:
            nearest = min(max((Decimal(middle) / unit).to_integral_value(), first), last)
            return sign * float(nearest * unit)
    return sign * middle


def plainest(low: float, high: float, kind: Kind) -> float:
    """Find the plainest number between two: a short decimal; for a factor also a reciprocal or a power of two.

    Example:
        >>> from mlx_optimizers.conformance.solver import plainest
        >>> plainest(0.00097656, 0.00097657, "scaled") == 2.0**-10
        True
    """
    best = simplest(low, high)
    if kind != "scaled" or low <= 0 <= high:
        return best
    inverse = 1 / simplest(1 / high, 1 / low)
    options = [(digits(best), best), (digits(1 / inverse) + 1, inverse)]
    sign, small, large = (1, low, high) if low > 0 else (-1, -high, -low)
    if (power := math.ceil(math.log2(small))) <= math.log2(large):
        options.append((3, sign * 2.0**power))
    return min(option for option in options if low <= option[1] <= high)[1]


def digits(x: float) -> int:
    """Count the significant digits of a number as Python writes it."""
    return len(re.sub(r"e.*|\D", "", repr(float(x))).strip("0"))
