"""The cases that every backend computes: optimizers × regimes of data × settings of the hyperparameters.

The data decide what a check can see: gradients near 1 hide where ε stands, constant learning rates hide a scaled
momentum buffer, nonzero moments hide sign(0). Each regime and each setting is here because some wrong formula passes
without it. Every combination of an optimizer's branches that can be reached, and of terms that a hyperparameter of 0
takes away, has cases in which each number takes two values at least.

Everything is derived from a case's identifier by `random.Random.random` and IEEE arithmetic, so that the same
identifier means the same bits on every processor whose arithmetic is IEEE's.
"""

from __future__ import annotations

import fnmatch
import inspect
import math
import random
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from types import SimpleNamespace
from typing import Any

import numpy as np
import numpy.typing as npt

from mlx_optimizers.catalog import CATALOG, entry_of
from mlx_optimizers.catalog.axes import CHANGING
from mlx_optimizers.kinds import Shape
from mlx_optimizers.optimizer import Optimizer
from mlx_optimizers.oracle import Format, format_of

__all__ = [
    "ELEMENTS",
    "REGIMES",
    "STEPS",
    "Case",
    "all_cases",
    "cases_of",
    "default_rate",
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

DOMAIN = (2.0**-40, 2.0**40)
"""Where the interval is proved: every nonzero |g|, |w|, λ and ε of a case lies in it."""


@dataclass(frozen=True, eq=False)
class Case:
    """One trajectory to compute: data, and every hyperparameter of an optimizer.

    Args:
        id: ``<optimizer>/<regime>/<label>``, and ``/<dtype>`` for another dtype than float32.
        optimizer: Name of the optimizer.
        regime: Name of the kind of data.
        label: What differs from the defaults.
        dtype: Name of the dtype of all arrays.
        hyperparameters: Every hyperparameter by name; ``learning_rate`` is a list where it changes, one number a step.
        parameter: w before the first step; one axis, but for an optimizer to which shapes matter.
        gradients: g of each step, with an axis for the steps before the parameter's.
    """

    id: str
    optimizer: str
    regime: str
    label: str
    dtype: str
    hyperparameters: dict[str, Any]
    parameter: npt.NDArray[Any]
    gradients: npt.NDArray[Any]

    @property
    def form(self) -> Format:
        """The float format of the arrays."""
        return format_of(self.dtype)

    @property
    def slots(self) -> dict[str, Shape]:
        """The state slots of the optimizer with their shapes, in order."""
        of: dict[str, Shape] = entry_of(self.optimizer).optimizer.slot_shapes(
            SimpleNamespace(**self.hyperparameters), self.parameter.shape
        )
        return of

    def rates(self) -> list[float | None]:
        """List the learning rate of each step; None where it is not given."""
        rate = self.hyperparameters["learning_rate"]
        return list(rate) if isinstance(rate, list) else [rate] * len(self.gradients)

    def at_step(self, index: int) -> dict[str, Any]:
        """Collect every hyperparameter of the step with this index, from 0."""
        return {**self.hyperparameters, "learning_rate": self.rates()[index]}

    def to_json(self) -> dict[str, Any]:
        """Write what a program gets of the case, as the adapter protocol and the vectors have it."""
        return {
            "optimizer": self.optimizer,
            "dtype": self.dtype,
            "shape": list(self.parameter.shape),
            "hyperparameters": self.hyperparameters,
            "parameter": self.form.bits(self.parameter),
            "gradients": [self.form.bits(gradient) for gradient in self.gradients],
        }


class _Draw:
    """Random numbers of a format in a range of exponents, derived by IEEE arithmetic alone."""

    def __init__(self, seed: str, form: Format) -> None:
        self.uniform = random.Random(seed).random
        self.digits = form.precision - 1
        self.range = form.emin, form.emax - 5  # the regimes reach beyond float16

    def below(self, end: int) -> int:
        return int(self.uniform() * end)

    def float(self, low: int, high: int, digits: int) -> float:
        """Draw ±1.x · 2ᵉ with ``digits`` random bits and low ≤ e ≤ high."""
        low, high = (min(max(exponent, self.range[0]), self.range[1]) for exponent in (low, high))
        sign = 1 - 2 * self.below(2)
        return sign * math.ldexp(1 + self.below(2**digits) / 2**digits, low + self.below(high - low + 1))

    def block(self, shape: tuple[int, ...], low: int, high: int, digits: int | None = None) -> npt.NDArray[np.float64]:
        digits = self.digits if digits is None else digits
        return np.array([self.float(low, high, digits) for _ in range(math.prod(shape))]).reshape(shape)


Data = tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]
_SHAPE = (STEPS, ELEMENTS)


def _plain(draw: _Draw, optimizer: str, h: Mapping[str, Any]) -> Data:
    """Draw |g| and |w| around 1."""
    return draw.block((ELEMENTS,), -2, 1), draw.block(_SHAPE, -2, 1)


def _tiny(draw: _Draw, optimizer: str, h: Mapping[str, Any]) -> Data:
    """Draw |g| where ε decides, mostly between ε and 1e-6; w = 0, so that the step loses no digits."""
    low, high = (math.frexp(end)[1] - 1 for end in entry_of(optimizer).tiny(h.get("eps", 0.0) or 1e-8))
    return np.zeros(ELEMENTS), draw.block(_SHAPE, low, high)


def _wide(draw: _Draw, optimizer: str, h: Mapping[str, Any]) -> Data:
    """Draw magnitudes from 2⁻³⁰ to 2²⁰, half of the gradients exact powers of two."""
    exact, other = draw.block(_SHAPE, -30, 20, digits=0), draw.block(_SHAPE, -30, 19)
    return draw.block((ELEMENTS,), -30, 19), np.where(np.arange(ELEMENTS) % 2 == 0, exact, other)


def _zeros(draw: _Draw, optimizer: str, h: Mapping[str, Any]) -> Data:
    """Draw exact zeros among the gradients: one element always, a third at first, the others at times; w = 0."""
    gradients = draw.block(_SHAPE, -2, 1)
    for step, index in np.ndindex(_SHAPE):
        late = index % 3 == 0 and step < STEPS // 2
        if index == 0 or late or draw.below(3) == 0:
            gradients[step, index] = 0.0
    return np.zeros(ELEMENTS), gradients


def _edge(draw: _Draw, optimizer: str, h: Mapping[str, Any]) -> Data:
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


REGIMES: dict[str, Callable[[_Draw, str, Mapping[str, Any]], Data]] = {
    "plain": _plain,
    "vector": _plain,
    "batch": _plain,
    "tall": _plain,
    "stack": _plain,
    "tiny": _tiny,
    "wide": _wide,
    "zeros": _zeros,
    "edge": _edge,
}
"""The regimes of data by name; ``edge`` is Lion's alone, those of `SHAPES` are plain data of other shapes."""


def _text(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    return "changing" if value == CHANGING else ",".join(map(repr, value)) if isinstance(value, tuple) else repr(value)


def default_rate(optimizer: str) -> float | None:
    """Look up the default learning rate of an optimizer's cases; None where they give none."""
    return entry_of(optimizer).rate


def defaults_of(optimizer: type[Optimizer]) -> dict[str, Any]:
    """Collect the defaults of a class's hyperparameters; the learning rate has none."""
    return {name: parameter.default for name, parameter in inspect.signature(optimizer).parameters.items()}


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
    name, form = optimizer.__name__, format_of(dtype)
    defaults = {**defaults_of(optimizer), "learning_rate": default_rate(name)}
    values = {**defaults, **hyperparameters}
    if unknown := set(values) - set(defaults):
        raise TypeError(f"{name} has no hyperparameter {', '.join(sorted(unknown))}")
    label = ",".join(f"{key}={_text(values[key])}" for key in sorted(values) if values[key] != defaults[key])
    label = label or "defaults"
    identifier = f"{name.lower()}/{regime}/{label}" + (f"/{form.name}" if form.name != "float32" else "")
    data = REGIMES[regime](_Draw(identifier, form), name, values)
    parameter, gradients = map(form.rounded, data) if wide else (x.astype(form.dtype) for x in data)
    shape = SHAPES.get(regime, entry_of(name).shape)
    parameter, gradients = parameter.reshape(shape), gradients.reshape(STEPS, *shape)
    rates = values["learning_rate"]
    eps = np.atleast_1d(values.get("eps", 0.0))[-1]  # Adafactor's first one only keeps a root from 0
    _require_domain(identifier, parameter, gradients, 0.0 if rates is None else rates, eps)
    if rates is not None and max(np.atleast_1d(rates)) * values.get("weight_decay", 0.0) > 0.2:
        raise ValueError(f"{identifier}: learning_rate times weight_decay is above 0.2")
    values["learning_rate"] = list(rates) if isinstance(rates, tuple) else rates
    return Case(identifier, name, regime, label, form.name, values, parameter, gradients)


def recast(case: Case, dtype: npt.DTypeLike, *, wide: bool = False) -> Case:
    """Make the case of another dtype with the same regime and hyperparameters; it has its own data. See `make_case`."""
    values = {name: tuple(value) if isinstance(value, list) else value for name, value in case.hyperparameters.items()}
    return make_case(entry_of(case.optimizer).optimizer, case.regime, values, dtype, wide=wide)


def _require_domain(identifier: str, *quantities: npt.ArrayLike) -> None:
    for quantity in quantities:
        sizes = np.abs(np.asarray(quantity, np.float64))
        if not np.all((sizes == 0) | ((sizes >= DOMAIN[0]) & (sizes <= DOMAIN[1]))):
            raise ValueError(f"{identifier}: a value lies outside 2**-40 … 2**40")


@cache
def all_cases() -> tuple[Case, ...]:
    """Make every case, in the order of the table, of the regimes, of the settings."""
    return tuple(
        make_case(entry.optimizer, regime, setting)
        for entry in CATALOG
        for regime in entry.regimes
        for setting in ({}, *entry.settings)
    )


def cases_of(optimizer: str) -> tuple[Case, ...]:
    """List the cases of one optimizer."""
    return tuple(case for case in all_cases() if case.optimizer == optimizer)


def matching(optimizers: Iterable[str] | None = None, pattern: str | None = None) -> list[Case]:
    """List the cases of optimizers (default: all) whose whole identifier matches a pattern (``*`` crosses ``/``)."""
    wanted = None if optimizers is None else set(optimizers)
    return [
        case
        for case in all_cases()
        if (wanted is None or case.optimizer in wanted) and (pattern is None or fnmatch.fnmatchcase(case.id, pattern))
    ]
