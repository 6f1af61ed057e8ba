"""A formula carried through its steps: exact values, correctly rounded ones, and the accepted interval."""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import numpy as np
import numpy.typing as npt

import mlx_optimizers
from mlx_optimizers.kinds import FloatArray, Hyperparameters
from mlx_optimizers.oracle.exact import Array, Exact, Library, Values
from mlx_optimizers.oracle.formats import Format, format_of
from mlx_optimizers.oracle.formula import Formula
from mlx_optimizers.oracle.formulas import parse
from mlx_optimizers.oracle.rounded import Ball, Rounded, Scalars
from mlx_optimizers.trees import refuse_masked

__all__ = ["Entry", "Quantity", "ends", "settings", "trajectory", "walk"]


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
    names = inspect.signature(optimizer).parameters
    if unknown := sorted(set(values) - set(names)):
        raise TypeError(f"{optimizer.__name__} has no hyperparameter {', '.join(unknown)}")
    rates: Any = values.get("learning_rate")
    if callable(rates):
        raise TypeError(f"learning_rate must be a number, or a list with one number a step, not {rates!r}")
    changing = isinstance(rates, Sequence) and not isinstance(rates, str)
    if changing and len(rates) != steps:
        raise ValueError(f"learning_rate has {len(rates)} entries for {steps} steps")
    out = []
    for step in range(steps):
        wanted = {**values, "learning_rate": rates[step]} if changing else dict(values)
        instance = optimizer(**{name: _plain(name, value) for name, value in wanted.items()})
        out.append({name: wanted[name] if name in wanted else getattr(instance, name, None) for name in names})
    return out


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
    formula: Formula, n: Any, parameter: FloatArray, gradients: Sequence[Any], hyperparameters: Mapping[str, Any]
) -> Iterator[tuple[Any, ...]]:
    """Evaluate a formula step by step over the numbers of a context; yields (w, *slots) after each step.

    The caller holds the context active (``with n.active():``) while it iterates.
    """
    w, chosen = n.array(parameter), settings(formula.optimizer, hyperparameters, len(gradients))
    shapes = formula.slot_shapes(chosen[0], np.shape(parameter)) if chosen else {}
    state = [n.array(np.zeros(shape)) for shape in shapes.values()]
    for t, (gradient, values) in enumerate(zip(gradients, chosen, strict=True), start=1):
        h, g = _coefficients(n, values), n.array(gradient)
        if t == 1 and formula.initial is not None:
            state = [*formula.initial(n, h, g, *state)]
        w, *state = formula.exact(n, h, t, w, g, *state)
        yield (w, *state)


def trajectory(
    formula: str | type[mlx_optimizers.Optimizer] | Formula,
    parameter: npt.ArrayLike,
    gradients: Sequence[npt.ArrayLike] | FloatArray,
    *,
    dtype: npt.DTypeLike = "float32",
    scalars: Scalars = "double",
    bits: int = 200,
    library: Library | None = None,
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
    parsed, form, centre = parse(formula), format_of(dtype), Exact(bits, library)
    refuse_masked(parameter, "parameter")
    w, steps = np.asarray(parameter).astype(form.dtype), []
    for t, values in enumerate(gradients, start=1):
        refuse_masked(values, f"the gradient of step {t}")
        gradient = np.asarray(values).astype(form.dtype)
        steps.append(gradient)
        if gradient.shape != w.shape:
            raise ValueError(f"the gradient of step {t} has shape {gradient.shape}, the parameter {w.shape}")
    n = Rounded(form, centre, scalars)
    shapes = parsed.slot_shapes(settings(parsed.optimizer, hyperparameters, len(steps))[0], w.shape) if steps else {}
    with n.active():
        balls = list(walk(parsed, n, w, steps, hyperparameters))
        exact = [tuple(ball.centre for ball in row) for row in balls]
        if n.unsure:
            with np.errstate(all="ignore"):
                exact = list(walk(parsed, centre, w, steps, hyperparameters))
        entries = []
        for row in zip(exact, balls, strict=True):
            each = zip(*row, (w.shape, *shapes.values()), strict=True)
            quantity, *state = (_quantity(n, value, ball, shape) for value, ball, shape in each)
            entries.append(Entry(quantity, dict(zip(shapes, state, strict=True))))
        return entries


def _quantity(n: Rounded, value: Array, ball: Ball, shape: tuple[int, ...]) -> Quantity:
    """Round exact values, and find the outermost floats in their ball."""
    exact, form = n.exact, n.form
    values, centres, radius = np.broadcast_arrays(value.values, ball.centre.values, ball.radius)

    nearest = exact.rounded(values, form)
    low, high = ends(exact, form, centres, radius)
    apart = exact.magnitude(values - centres) if n.unsure else 0.0
    reach = np.where(np.isfinite(radius), radius + apart, np.inf)
    near, least, most = (numbers.astype(form.dtype).reshape(shape) for numbers in (nearest, low, high))
    return Quantity(values.reshape(shape), near, least, most, reach.reshape(shape), ball.norm)


def ends(exact: Exact, form: Format, centre: Values, radius: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Find the lowest and the highest float of a format within the radius of each centre; infinite where that is."""
    known = np.isfinite(radius)
    off = exact.array(np.where(known, radius, 0.0)).values
    with np.errstate(all="ignore"):  # mpmath makes its NaN and its infinities by arithmetic that raises flags
        low, high = exact.rounded(centre - off, form, "up"), exact.rounded(centre + off, form, "down")
    return np.where(known, low, -np.inf), np.where(known, high, np.inf)
