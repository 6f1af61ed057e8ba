"""The cases that every backend computes: optimizers × regimes of data × settings of the hyperparameters.

The data decide what a check can see: gradients near 1 hide where ε stands, constant learning rates hide a scaled
momentum buffer, nonzero moments hide sign(0). Each regime and each setting is here because some wrong formula passes
without it. Values that seldom occur have cases of their own: steps without a gradient, numbers at the ends of the
domain, rates and decays of 0, and those of the module `special`. Every combination of an optimizer's branches that can
be reached, and of terms that a hyperparameter of 0 takes away, has cases in which each number takes two values at
least.

Everything is derived from a case's identifier by `random.Random.random` and IEEE arithmetic, so that the same
identifier means the same bits on every processor whose arithmetic is IEEE's.
"""

from __future__ import annotations

import fnmatch
import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from functools import cache
from typing import Any

import numpy as np
import numpy.typing as npt

from mlx_optimizers.catalog import CATALOG, entry_of
from mlx_optimizers.conformance.case import Case, Draw, completed, labelled, leveled, require_domain
from mlx_optimizers.conformance.frame import frame_of
from mlx_optimizers.conformance.special import special_of
from mlx_optimizers.kinds import Shape
from mlx_optimizers.optimizer import Optimizer
from mlx_optimizers.oracle import format_of

__all__ = [
    "ELEMENTS",
    "REGIMES",
    "STEPS",
    "VALUES",
    "Case",
    "all_cases",
    "cases_of",
    "make_case",
    "matching",
    "recast",
]

ELEMENTS = 24
"""Elements of a case's parameter."""

SHAPES: dict[str, Shape] = {"vector": (ELEMENTS,), "batch": (2, 3, 4), "tall": (6, 4), "stack": (2, 4, 3)}
"""The shapes of the parameter in the regimes that have their own; the others have the optimizer's."""

STEPS = 8
"""Steps of a case."""

Data = tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]
_SHAPE = (STEPS, ELEMENTS)


def _plain(draw: Draw, optimizer: str, h: Mapping[str, Any]) -> Data:
    """Draw |g| and |w| around 1."""
    return draw.block((ELEMENTS,), -2, 1), draw.block(_SHAPE, -2, 1)


def _tiny(draw: Draw, optimizer: str, h: Mapping[str, Any]) -> Data:
    """Draw |g| where ε decides, mostly between ε and 1e-6; w = 0, so that the step loses no digits."""
    low, high = (math.frexp(end)[1] - 1 for end in entry_of(optimizer).tiny(h.get("eps", 0.0) or 1e-8))
    return np.zeros(ELEMENTS), draw.block(_SHAPE, low, high)


def _wide(draw: Draw, optimizer: str, h: Mapping[str, Any]) -> Data:
    """Draw magnitudes from 2⁻³⁰ to 2²⁰, half of the gradients exact powers of two."""
    exact, other = draw.block(_SHAPE, -30, 20, digits=0), draw.block(_SHAPE, -30, 19)
    return draw.block((ELEMENTS,), -30, 19), np.where(np.arange(ELEMENTS) % 2 == 0, exact, other)


def _zeros(draw: Draw, optimizer: str, h: Mapping[str, Any]) -> Data:
    """Draw exact zeros among the gradients: one element always, a third at first, the others at times; w = 0."""
    gradients = draw.block(_SHAPE, -2, 1)
    for step, index in np.ndindex(_SHAPE):
        late = index % 3 == 0 and step < STEPS // 2
        if index == 0 or late or draw.below(3) == 0:
            gradients[step, index] = 0.0
    return np.zeros(ELEMENTS), gradients


def _edge(draw: Draw, optimizer: str, h: Mapping[str, Any]) -> Data:
    """Draw Lion's c next to zero: every second gradient is −β₁m/(1−β₁)·(1 ± 2⁻ᵏ), k = 12 … 19."""
    parameter, gradients = _plain(draw, optimizer, h)
    b1, b2 = h["betas"]
    m = np.zeros(ELEMENTS)
    for step in range(STEPS):
        if step % 2:
            near = [1 + (1 - 2 * draw.below(2)) * 2.0 ** -(12 + draw.below(8)) for _ in range(ELEMENTS)]
            gradients[step] = np.float32(-b1 * m / (1 - b1) * np.array(near))
        m = b2 * m + (1 - b2) * gradients[step]
    return parameter, gradients


def _still(draw: Draw, optimizer: str, h: Mapping[str, Any]) -> Data:
    """Draw as in ``plain``, with steps in which every gradient is 0: the last one, and three others; half w = 0."""
    gradients = draw.block(_SHAPE, -2, 1)
    gradients[[2, 3, 5, 7]] = 0.0
    return _half(draw.block((ELEMENTS,), -2, 1)), gradients


def _small(draw: Draw, optimizer: str, h: Mapping[str, Any]) -> Data:
    """Draw the smallest numbers of the domain, 2⁻⁴⁰ to 2⁻³⁰; half w = 0."""
    return _half(draw.block((ELEMENTS,), -40, -31)), draw.block(_SHAPE, -40, -31)


def _large(draw: Draw, optimizer: str, h: Mapping[str, Any]) -> Data:
    """Draw the largest numbers of the domain, 2³⁰ to 2⁴⁰; half w = 0, so that small steps are seen."""
    return _half(draw.block((ELEMENTS,), 30, 39)), draw.block(_SHAPE, 30, 39)


def _half(parameter: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Set every second element to 0."""
    return np.where(np.arange(ELEMENTS) % 2 == 0, 0.0, parameter)


REGIMES: dict[str, Callable[[Draw, str, Mapping[str, Any]], Data]] = {
    "plain": _plain,
    "vector": _plain,
    "batch": _plain,
    "tall": _plain,
    "stack": _plain,
    "tiny": _tiny,
    "wide": _wide,
    "zeros": _zeros,
    "edge": _edge,
    "still": _still,
    "small": _small,
    "large": _large,
}
"""The regimes of data by name; ``edge`` is Lion's alone, those of `SHAPES` are plain data of other shapes."""

VALUES = ("still", "small", "large")
"""The regimes of values that seldom occur, which every optimizer has with one setting."""

NARROW = "intermediate values of correct programs leave the range of float16"


def make_case(
    optimizer: type[Optimizer],
    regime: str,
    hyperparameters: Mapping[str, Any],
    dtype: npt.DTypeLike = "float32",
    *,
    wide: bool = False,
) -> Case:
    """The case of an optimizer, a regime, and the hyperparameters that differ from the defaults.

    Args:
        optimizer: One of the classes of the package.
        regime: A key of `REGIMES`.
        hyperparameters: ``learning_rate`` may be a tuple with one number a step. The others are at their
            default, the learning rate at the usual one of the optimizer.
        dtype: The dtype of all arrays; default float32.
        wide: Whether the numbers of this dtype come as float64, which needs no package for bfloat16.

    Raises:
        TypeError: for an unknown hyperparameter or dtype.
        ValueError: for hyperparameters or data outside the domain in which the interval is proved.
    """
    name, form, values = optimizer.__name__, format_of(dtype), completed(optimizer, hyperparameters)
    label = labelled(optimizer, values) or "defaults"
    identifier = f"{name.lower()}/{regime}/{label}" + (f"/{form.name}" if form.name != "float32" else "")
    data = REGIMES[regime](Draw(identifier, form), name, values)
    parameter, gradients = map(form.rounded, data) if wide else (x.astype(form.dtype) for x in data)
    shape = SHAPES.get(regime, entry_of(name).shape)
    parameter, gradients = parameter.reshape(shape), gradients.reshape(STEPS, *shape)
    require_domain(identifier, values, parameter, gradients)
    rates = values["learning_rate"]
    values["learning_rate"] = list(rates) if isinstance(rates, tuple) else rates
    case = leveled(Case(identifier, name, regime, label, form.name, values, parameter, gradients))
    return _narrow(case) if regime in VALUES else case


def recast(case: Case, dtype: npt.DTypeLike, *, wide: bool = False) -> Case:
    """Make the case of another dtype with the same regime and hyperparameters; it has its own data. See `make_case`."""
    values = {name: tuple(value) if isinstance(value, list) else value for name, value in case.hyperparameters.items()}
    entry = entry_of(case.optimizer)
    made = make_case(entry.optimizer, case.regime, values, dtype, wide=wide)
    rare = {labelled(entry.optimizer, completed(entry.optimizer, setting)) for _, setting in entry.rare}
    return _narrow(made) if made.label in rare else made


def _narrow(case: Case) -> Case:
    """Let a case of rare values only inform in float16."""
    return replace(case, level="informative", reason=NARROW) if case.dtype == "float16" else case


@cache
def cases_of(optimizer: str) -> tuple[Case, ...]:
    """List the cases of one optimizer's formula: regime by regime for all settings, then those of rare values."""
    entry = entry_of(optimizer)
    usual = [(regime, setting) for regime in entry.regimes for setting in ({}, *entry.settings)]
    rare = [*((regime, entry.frame) for regime in VALUES), *entry.rare]
    return tuple(make_case(entry.optimizer, *each) for each in (*usual, *rare))


@cache
def all_cases() -> tuple[Case, ...]:
    """List every case: by optimizer, in the table's order, those of its formula, the special ones, and the frame's."""
    return tuple(case for entry in CATALOG for case in _cases_in("float32", entry.name))


def matching(
    optimizers: Iterable[str] | None = None, pattern: str | None = None, dtypes: Iterable[npt.DTypeLike] = ("float32",)
) -> list[Case]:
    """List the cases of optimizers (default: all) whose whole identifier matches a pattern (``*`` crosses ``/``).

    Args:
        optimizers: Their names.
        pattern: The pattern; default any identifier.
        dtypes: The dtypes, one after the other. Another than float32 has the cases of the formulas alone.

    Raises:
        TypeError: for an unknown dtype.
        ImportError: for bfloat16 when ml_dtypes is not installed.
    """
    wanted = None if optimizers is None else set(optimizers)
    chosen = [entry.name for entry in CATALOG if wanted is None or entry.name in wanted]
    forms = dict.fromkeys(format_of(dtype).name for dtype in dtypes)
    cases = (case for form in forms for name in chosen for case in _cases_in(form, name))
    return [case for case in cases if pattern is None or fnmatch.fnmatchcase(case.id, pattern)]


def _cases_in(form: str, optimizer: str) -> Iterable[Case]:
    """List the cases of one optimizer in a dtype: the special ones and those of the frame are of float32."""
    if form == "float32":
        return (*cases_of(optimizer), *special_of(optimizer), *frame_of(optimizer))
    return (recast(case, form) for case in cases_of(optimizer))
