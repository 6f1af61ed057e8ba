"""A formula carried through its steps: exact values, correctly rounded ones, and the accepted interval."""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import cache
from typing import Any

import numpy as np
import numpy.typing as npt

import mlx_optimizers
from mlx_optimizers.kinds import FloatArray, Hyperparameters, Shape
from mlx_optimizers.oracle.exact import Array, Double, Exact, Library, Values
from mlx_optimizers.oracle.formats import Format, format_of
from mlx_optimizers.oracle.formula import Formula
from mlx_optimizers.oracle.formulas import parse
from mlx_optimizers.oracle.rounded import Ball, Rounded, Scalars
from mlx_optimizers.trees import refuse_masked

__all__ = ["Entry", "Quantity", "Track", "ends", "settings", "tracks", "trajectory", "walk"]


@dataclass(frozen=True)
class Quantity:
    """A parameter or a state slot after one step, elementwise.

    Args:
        exact: The exact values, an object array of numbers of the exact context.
        nearest: The same, correctly rounded to the dtype.
        low: The smallest accepted value; −∞ where nothing is known.
        high: The largest accepted value; +∞ where nothing is known.
        radius: How far the accepted interval reaches from the exact value, before its ends are rounded to the dtype.
            To both sides, but where the sign in Lion is uncertain; infinite where nothing is known.
        norm: What the radius has of a bound on all elements together, in the Frobenius norm: an element may be off by
            it, and then no other is. 0 but for Muon.
    """

    exact: Values
    nearest: FloatArray
    low: FloatArray
    high: FloatArray
    radius: npt.NDArray[np.float64]
    norm: float = 0.0


@dataclass(frozen=True)
class Entry:
    """The result of one step: the parameter and the state slots by name."""

    parameter: Quantity
    state: dict[str, Quantity]

    def quantities(self) -> Iterator[tuple[str, Quantity]]:
        """Yield the parameter, under that name, then every slot."""
        yield "parameter", self.parameter
        yield from self.state.items()


def settings(optimizer: type[mlx_optimizers.Optimizer], values: Mapping[str, Any], steps: int) -> list[dict[str, Any]]:
    """Complete the hyperparameters of an optimizer, for each step.

    Args:
        optimizer: The class that names, validates and completes them.
        values: Hyperparameters by name; a string or fraction means the exact number it spells; ``learning_rate`` may
            be a sequence with one entry a step.
        steps: Number of steps.

    Raises:
        TypeError, ValueError: as the class raises them, for text that spells no number, a learning rate sequence of
            another length, or a schedule.
    """
    names = _names(optimizer)  # type: ignore[arg-type]
    if unknown := sorted(set(values) - set(names)):
        raise TypeError(f"{optimizer.__name__} has no hyperparameter {', '.join(unknown)}")
    rates: Any = values.get("learning_rate")
    if callable(rates):
        raise TypeError(f"learning_rate must be a number, or a list with one number a step, not {rates!r}")
    changing = isinstance(rates, Sequence) and not isinstance(rates, str)
    if changing and len(rates) != steps:
        raise ValueError(f"learning_rate has {len(rates)} entries for {steps} steps")

    def completed(wanted: Mapping[str, Any]) -> dict[str, Any]:
        instance = optimizer(**{name: _plain(name, value) for name, value in wanted.items()})
        return {name: wanted[name] if name in wanted else getattr(instance, name, None) for name in names}

    return [completed({**values, "learning_rate": rate}) for rate in rates] if changing else [completed(values)] * steps


@cache
def _names(optimizer: type[mlx_optimizers.Optimizer]) -> tuple[str, ...]:
    """List the hyperparameters of a class."""
    return tuple(inspect.signature(optimizer).parameters)


def _plain(name: str, value: Any) -> Any:
    """Convert a string, a fraction, or a pair of them to the numbers that validation sees."""
    if isinstance(value, str | Fraction):
        try:
            return Fraction(value)
        except (ValueError, ZeroDivisionError):
            raise ValueError(f"{name} must be a number, not {value!r}") from None
    if isinstance(value, tuple | list):
        return tuple(_plain(name, item) for item in value)
    return value


def _coefficients(n: Any, values: Mapping[str, Any]) -> Hyperparameters:
    """Convert hyperparameters to numbers of a context; switches stay booleans, and what is not given None."""

    def number(value: Any) -> Any:
        if isinstance(value, tuple | list):
            return tuple(map(number, value))
        return value if isinstance(value, bool | None) else n.number(value)

    return Hyperparameters(**{name: number(value) for name, value in values.items()})


def walk(
    formula: Formula,
    n: Any,
    parameter: FloatArray,
    gradients: Sequence[Any],
    hyperparameters: Mapping[str, Any],
    *,
    step: int = 0,
    state: Mapping[str, npt.ArrayLike] | None = None,
) -> Iterator[tuple[Any, ...]]:
    """Evaluate a formula step by step over the numbers of a context; yields (w, *slots) after each step.

    The caller holds the context active (``with n.active():``) while it iterates.

    Args:
        formula: The formula.
        n: The context.
        parameter: The parameter before the first step.
        gradients: One gradient a step.
        hyperparameters: Those of the formula's optimizer; ``learning_rate`` may be a list, one number a step.
        step: The number of updates done before.
        state: The slots that they left, by name; those that are missing are zeros.
    """
    w, chosen = n.array(parameter), settings(formula.optimizer, hyperparameters, len(gradients))
    shapes = formula.slot_shapes(chosen[0], np.shape(parameter)) if chosen else {}
    before = {} if state is None else state
    slots = [n.array(before[name] if name in before else np.zeros(shape)) for name, shape in shapes.items()]
    slots += [n.array(np.zeros(np.shape(parameter))) for _ in range(formula.more)]
    last = first = previous = None
    for t, (gradient, values) in enumerate(zip(gradients, chosen, strict=True), start=step + 1):
        if values is not last:
            last, h = values, _coefficients(n, values)
        first = h.learning_rate if first is None else first
        h.first_rate, h.previous_rate = first, h.learning_rate if previous is None else previous
        previous, g = h.learning_rate, n.array(gradient)
        if t == 1 and formula.initial is not None:
            slots = [*formula.initial(n, h, g, *slots)]
        w, *slots = formula.exact(n, h, t, w, g, *slots)
        yield (w, *slots[: len(shapes)])


def trajectory(
    formula: str | type[mlx_optimizers.Optimizer] | Formula,
    parameter: npt.ArrayLike,
    gradients: Sequence[npt.ArrayLike] | FloatArray,
    *,
    dtype: npt.DTypeLike = "float32",
    scalars: Scalars = "double",
    bits: int = 200,
    library: Library | None = None,
    step: int = 0,
    state: Mapping[str, npt.ArrayLike] | None = None,
    **hyperparameters: Any,
) -> list[Entry]:
    """Evaluate a formula step by step: exactly, correctly rounded, and with the interval that rounding can explain.

    Args:
        formula: A formula's name, such as ``"Adam"`` or ``"Adam[bias_correction=true]"``, or an optimizer class.
        parameter: The parameter w before the first step, of any shape; converted to the dtype.
        gradients: One gradient g a step, each of the parameter's shape; converted to the dtype.
        dtype: float16, bfloat16, float32 or float64; default float32.
        scalars: Where a backend forms 1−β and its like: ``"double"`` (default) or ``"float32"``.
        bits: Working precision of the exact numbers; default 200.
        library: ``"mpmath"`` or ``"gmpy2"``; by default gmpy2 where installed. Both give the same bits.
        step: The number of updates done before the first of these; default 0.
        state: The slots that they left, by name; those that are missing are zeros.
        **hyperparameters: As the class takes them. A float means its exact value, a string or
            `fractions.Fraction` the exact decimal or ratio; ``learning_rate`` may be a list, one entry a step.

    Returns:
        One `Entry` a step; ``entry.parameter`` and ``entry.state["m"]`` hold arrays of their own shapes.

    Raises:
        ValueError: for an unknown formula, a gradient of another shape, a hyperparameter out of range.
        TypeError: for an unknown hyperparameter or dtype, and for masked arrays.

    Example:
        >>> from mlx_optimizers.oracle import trajectory
        >>> first, = trajectory("SGD", [1.0], [[0.5]], learning_rate="0.1")
        >>> first.parameter.nearest, first.parameter.low, first.parameter.high
        (array([0.95], dtype=float32), array([0.9499999], dtype=float32), array([0.95000005], dtype=float32))
    """
    w, steps = _converted(parameter, gradients, format_of(dtype))
    found = tracks(
        parse(formula),
        w,
        steps,
        dtype=dtype,
        scalars=scalars,
        exact=Exact(bits, library),
        given=hyperparameters,
        step=step,
        state=state,
    )
    entries = []
    for index in range(len(steps)):
        quantity, *slots = (track.at(index) for track in found.values())
        entries.append(Entry(quantity, dict(zip([*found][1:], slots, strict=True))))
    return entries


def _converted(
    parameter: npt.ArrayLike, gradients: Sequence[npt.ArrayLike] | FloatArray, form: Format
) -> tuple[FloatArray, list[FloatArray]]:
    """Convert the arrays to the format; refuse masked ones, and gradients of another shape."""
    refuse_masked(parameter, "parameter")
    w, steps = np.asarray(parameter).astype(form.dtype), []
    for t, values in enumerate(gradients, start=1):
        refuse_masked(values, f"the gradient of step {t}")
        gradient = np.asarray(values).astype(form.dtype)
        steps.append(gradient)
        if gradient.shape != w.shape:
            raise ValueError(f"the gradient of step {t} has shape {gradient.shape}, the parameter {w.shape}")
    return w, steps


@dataclass(frozen=True)
class Track:
    """A quantity after each step: a `Quantity` with an axis for the steps before its own, and the norm of each.

    Args:
        all: The arrays of all steps.
        norms: The norm of each step.
    """

    all: Quantity
    norms: list[float]

    def at(self, index: int) -> Quantity:
        """Select the step with this index, from 0."""
        x = self.all
        arrays = (
            x.exact[index, ...],
            x.nearest[index, ...],
            x.low[index, ...],
            x.high[index, ...],
            x.radius[index, ...],
        )
        return Quantity(*arrays, self.norms[index])


def tracks(
    formula: Formula,
    parameter: FloatArray,
    gradients: Sequence[FloatArray],
    *,
    dtype: npt.DTypeLike,
    scalars: Scalars,
    given: Mapping[str, Any],
    exact: Exact | None = None,
    step: int = 0,
    state: Mapping[str, npt.ArrayLike] | None = None,
    quick: bool = False,
    interpolating: bool = False,
) -> dict[str, Track]:
    """Evaluate a formula as `trajectory` does, and collect the parameter and each slot over all steps.

    Args:
        formula: The formula.
        parameter: w, of the dtype.
        gradients: One a step, of the dtype.
        dtype: The dtype.
        scalars: The coefficient precision.
        given: The hyperparameters.
        exact: The context of the exact values.
        step: The number of updates done before.
        state: The slots that they left.
        quick: Whether float64 may hold the centres and the radii. The exact values are the same; the interval is
            wider by what float64 may lose, 2⁻²⁷ of itself in an operation. Not in float64, whose radii are no larger.
        interpolating: Whether a program may interpolate with any decay; see `Rounded`.
    """
    form = format_of(dtype)
    exact = Exact() if exact is None else exact
    centre = Double() if quick and form.name != "float64" else exact
    n = Rounded(form, centre, scalars, exact, interpolating=interpolating)
    if not gradients:
        return {}
    with exact.active():
        balls = list(walk(formula, n, parameter, gradients, given, step=step, state=state))
        centres: list[tuple[Array, ...]] = [tuple(ball.centre for ball in row) for row in balls]
        if n.unsure or n.centre is not exact:
            centres = list(walk(formula, exact, parameter, gradients, given, step=step, state=state))
        slots = formula.slot_shapes(settings(formula.optimizer, given, len(gradients))[0], parameter.shape)
        shapes = {"parameter": parameter.shape, **slots}
        columns = zip(shapes.items(), zip(*centres, strict=True), zip(*balls, strict=True), strict=True)
        return {name: _track(n, exact, values, row, shape) for (name, shape), values, row in columns}


def _track(n: Rounded, exact: Exact, values: Sequence[Array], balls: Sequence[Ball], shape: Shape) -> Track:
    """Round exact values, and find the outermost floats in their balls, for all steps at once."""
    form, whole = n.form, (len(balls), *shape)
    flat = shape or (1,)  # a number has one axis

    def stacked(rows: Iterable[Any]) -> Any:
        return np.stack([row if row.shape == flat else np.broadcast_to(row, flat) for row in rows]).reshape(whole)

    numbers, radius = stacked(value.values for value in values), stacked(ball.radius for ball in balls)
    nearest, apart = exact.rounded(numbers, form), 0.0
    if n.centre is exact and not n.unsure:
        low, high = ends(exact, form, numbers, radius)
    else:
        centres = stacked(ball.centre.values for ball in balls)
        low, high = ends(n.centre, form, centres, radius)
        apart = abs((numbers if n.centre is exact else numbers.astype(np.float64)) - centres).astype(np.float64)
    reach = np.where(np.isfinite(radius), radius + apart, np.inf)
    near, least, most = (x.astype(form.dtype) for x in (nearest, low, high))
    return Track(Quantity(numbers, near, least, most, reach), [ball.norm for ball in balls])


def ends(n: Exact | Double, form: Format, centre: Values, radius: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Find the lowest and the highest float of a format within the radius of each centre; infinite where that is.

    With centres in float64 each end may be one float64 farther out, so that none is too near.
    """
    known = np.isfinite(radius)
    off = np.where(known, radius, 0.0)
    if isinstance(n, Double):
        low, high = np.nextafter(centre - off, -np.inf), np.nextafter(centre + off, np.inf)
        known = known & (np.maximum(-low, high) < form.limit)  # False for NaN too
        low, high = form.by_double(low, "up")[0], form.by_double(high, "down")[0]
    else:
        off = n.array(off).values
        low, high = n.rounded(centre - off, form, "up"), n.rounded(centre + off, form, "down")
    return np.where(known, low, -np.inf), np.where(known, high, np.inf)
