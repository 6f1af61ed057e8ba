"""The cases that every backend is given: optimizers × regimes of data × settings of the hyperparameters.

The data decide what a check can see: gradients near 1 hide where ε stands, constant learning rates hide a scaled
momentum buffer, nonzero moments hide sign(0). Each regime and each setting is here because some wrong formula passes
without it. Every combination of an optimizer's branches that can be reached, and of terms that a hyperparameter of 0
takes away, has cases in which each number takes two values at least.

Everything is derived from a case's identifier by `random.Random.random` and IEEE arithmetic, so that the same
identifier means the same bits on every machine.
"""

from __future__ import annotations

import fnmatch
import inspect
import math
import random
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import numpy.typing as npt

import mlx_optimizers
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

STEPS = 8
"""Steps of a case."""

DOMAIN = (2.0**-40, 2.0**40)
"""Where the interval is proved: every nonzero |g|, |w|, λ and ε of a case lies in it."""

CHANGING = (0.1, 0.1, 0.05, 0.05, 0.02, 0.02, 0.01, 0.01)
"""The changing learning rate, one number a step."""

_RATES = {"SGD": 0.1, "RMSprop": 0.01, "Adagrad": 0.01, "AdaDelta": 1.0, "Adamax": 2e-3, "Lion": 1e-4}
_SCHEDULED: dict[str, Any] = {"learning_rate": CHANGING}
_BETAS = {**_SCHEDULED, "betas": (0.6, 0.7)}

_SETTINGS: dict[str, tuple[Mapping[str, Any], ...]] = {
    "SGD": (
        {**_SCHEDULED, "momentum": 0.9},
        {"momentum": 0.9, "nesterov": True, "weight_decay": 0.1},
        {"learning_rate": 0.05, "momentum": 0.6, "dampening": 0.3, "weight_decay": 0.01},
        {"weight_decay": 0.1, "dampening": 0.5},  # the only one that shows a dampening used without momentum
        {**_SCHEDULED, "weight_decay": 0.1},
        {**_SCHEDULED, "momentum": 0.9, "nesterov": True},
        {"momentum": 0.9, "dampening": 1.0},
        _SCHEDULED,
        {"learning_rate": 0.05, "weight_decay": 0.02},
        {**_SCHEDULED, "dampening": 0.5},
        {"learning_rate": 0.05, "weight_decay": 0.02, "dampening": 0.3},
        {"momentum": 0.6},
        {**_SCHEDULED, "momentum": 0.9, "weight_decay": 0.1},
        {"learning_rate": 0.05, "momentum": 0.6, "weight_decay": 0.01},
        {**_SCHEDULED, "momentum": 0.9, "dampening": 0.5},
        {"learning_rate": 0.05, "momentum": 0.6, "dampening": 0.3},
        {**_SCHEDULED, "momentum": 0.9, "dampening": 0.5, "weight_decay": 0.1},
        {"momentum": 0.6, "nesterov": True},
        {"learning_rate": 0.05, "momentum": 0.6, "nesterov": True, "weight_decay": 0.01},
    ),
    "RMSprop": (
        {**_SCHEDULED, "alpha": 0.6, "eps": 1e-3},
        _SCHEDULED,
        {"alpha": 0.9, "eps": 1e-6},
        {"alpha": 0.6},
    ),
    "Adagrad": ({**_SCHEDULED, "eps": 1e-3}, _SCHEDULED, {"eps": 1e-6}),
    "AdaDelta": ({**_SCHEDULED, "rho": 0.6, "eps": 1e-4}, _SCHEDULED, {"rho": 0.95}, {"eps": 1e-3}),
    "Adam": ({**_BETAS, "eps": 1e-3}, _SCHEDULED, {"betas": (0.8, 0.95)}, {"eps": 1e-6}),
    "AdamW": (
        {**_BETAS, "eps": 1e-3, "weight_decay": 0.3},
        _SCHEDULED,
        {"betas": (0.8, 0.95), "weight_decay": 0.1},
        {"eps": 1e-6, "weight_decay": 0.0},
        {**_SCHEDULED, "betas": (0.8, 0.95), "eps": 1e-3, "weight_decay": 0.0},
    ),
    "Adamax": ({**_BETAS, "eps": 1e-3}, _SCHEDULED, {"betas": (0.8, 0.95)}, {"eps": 1e-6}),
    "Lion": (
        {**_BETAS, "weight_decay": 0.3},
        _SCHEDULED,
        {"betas": (0.95, 0.98), "weight_decay": 0.1},
        {"learning_rate": 0.01, "weight_decay": 1.0},
        _BETAS,
    ),
}


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
        parameter: w before the first step, shape (n,).
        gradients: g of each step, shape (steps, n).
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

    def rates(self) -> list[float]:
        """The learning rate of each step."""
        rate = self.hyperparameters["learning_rate"]
        return list(rate) if isinstance(rate, list) else [rate] * len(self.gradients)

    def at_step(self, index: int) -> dict[str, Any]:
        """Every hyperparameter as it is in the step with this index, from 0."""
        return {**self.hyperparameters, "learning_rate": self.rates()[index]}


class _Draw:
    """Random numbers of a format, of given exponents, the same on every machine."""

    def __init__(self, seed: str, form: Format) -> None:
        self.uniform = random.Random(seed).random
        self.digits = form.precision - 1
        self.range = form.emin, form.emax - 5  # float16 has not the range of the regimes

    def below(self, end: int) -> int:
        return int(self.uniform() * end)

    def float(self, low: int, high: int, digits: int) -> float:
        """±1.x · 2ᵉ with ``digits`` random bits and low ≤ e ≤ high."""
        low, high = (min(max(exponent, self.range[0]), self.range[1]) for exponent in (low, high))
        sign = 1 - 2 * self.below(2)
        return sign * math.ldexp(1 + self.below(2**digits) / 2**digits, low + self.below(high - low + 1))

    def block(self, shape: tuple[int, ...], low: int, high: int, digits: int | None = None) -> npt.NDArray[np.float64]:
        digits = self.digits if digits is None else digits
        return np.array([self.float(low, high, digits) for _ in range(math.prod(shape))]).reshape(shape)


def _exponent(x: float) -> int:
    return math.frexp(x)[1] - 1


Data = tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]
_SHAPE = (STEPS, ELEMENTS)


def _plain(draw: _Draw, optimizer: str, h: Mapping[str, Any]) -> Data:
    """|g| and |w| around 1."""
    return draw.block((ELEMENTS,), -2, 1), draw.block(_SHAPE, -2, 1)


def _tiny(draw: _Draw, optimizer: str, h: Mapping[str, Any]) -> Data:
    """|g| between ε and 1e-6, for AdaDelta around √ε, where ε decides; w = 0, so that nothing of the step is lost."""
    eps = h.get("eps", 0.0) or 1e-8
    ends = (math.sqrt(eps) / 10, math.sqrt(eps) * 10) if optimizer == "AdaDelta" else sorted((eps, 1e-6))
    return np.zeros(ELEMENTS), draw.block(_SHAPE, _exponent(ends[0]), _exponent(ends[1]))


def _wide(draw: _Draw, optimizer: str, h: Mapping[str, Any]) -> Data:
    """Magnitudes from 2⁻³⁰ to 2²⁰, half of the gradients exact powers of two."""
    exact, other = draw.block(_SHAPE, -30, 20, digits=0), draw.block(_SHAPE, -30, 19)
    return draw.block((ELEMENTS,), -30, 19), np.where(np.arange(ELEMENTS) % 2 == 0, exact, other)


def _zeros(draw: _Draw, optimizer: str, h: Mapping[str, Any]) -> Data:
    """Exact zeros among the gradients: one element all along, a third at first, the others now and then; w = 0."""
    gradients = draw.block(_SHAPE, -2, 1)
    for step in range(STEPS):
        for index in range(ELEMENTS):
            late = index % 3 == 0 and step < STEPS // 2
            if index == 0 or late or draw.below(3) == 0:
                gradients[step, index] = 0.0
    return np.zeros(ELEMENTS), gradients


def _edge(draw: _Draw, optimizer: str, h: Mapping[str, Any]) -> Data:
    """Lion's c next to zero: every second gradient is −β₁m/(1−β₁)·(1 ± 2⁻ᵏ), k = 12 … 19."""
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
    "tiny": _tiny,
    "wide": _wide,
    "zeros": _zeros,
    "edge": _edge,
}
"""The regimes of data by name; ``edge`` is Lion's alone."""


def _text(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    return "changing" if value == CHANGING else ",".join(map(repr, value)) if isinstance(value, tuple) else repr(value)


def default_rate(optimizer: str) -> float:
    """The learning rate that a case of an optimizer has by default."""
    return _RATES.get(optimizer, 1e-3)


def make_case(
    optimizer: type[mlx_optimizers.Optimizer],
    regime: str,
    given: Mapping[str, Any],
    dtype: npt.DTypeLike = "float32",
) -> Case:
    """The case of an optimizer, a regime, and the hyperparameters that differ from the defaults.

    Args:
        optimizer: One of the eight classes.
        regime: A key of `REGIMES`.
        given: Hyperparameters; ``learning_rate`` may be a tuple with one number a step. What is not given is at its
            default, the learning rate at the usual one of the optimizer.
        dtype: The dtype of all arrays; default float32.

    Raises:
        TypeError: for an unknown hyperparameter or dtype.
        ValueError: for hyperparameters or data outside the domain in which the interval is proved.
    """
    name, form = optimizer.__name__, format_of(dtype)
    defaults = {
        key: default_rate(name) if key == "learning_rate" else parameter.default
        for key, parameter in inspect.signature(optimizer).parameters.items()
    }
    values = {**defaults, **given}
    if unknown := set(values) - set(defaults):
        raise TypeError(f"{name} has no hyperparameter {', '.join(sorted(unknown))}")
    label = ",".join(f"{key}={_text(values[key])}" for key in sorted(values) if values[key] != defaults[key])
    label = label or "defaults"
    identifier = f"{name.lower()}/{regime}/{label}" + (f"/{form.name}" if form.name != "float32" else "")
    parameter, gradients = (x.astype(form.dtype) for x in REGIMES[regime](_Draw(identifier, form), name, values))
    rates = values["learning_rate"]
    changing = isinstance(rates, tuple)
    _require_domain(identifier, parameter, gradients, rates, values.get("eps", 0.0))
    if max(np.atleast_1d(rates)) * values.get("weight_decay", 0.0) > 0.2:
        raise ValueError(f"{identifier}: learning_rate times weight_decay is above 0.2")
    hyperparameters = {**values, "learning_rate": list(rates) if changing else rates}
    return Case(identifier, name, regime, label, form.name, hyperparameters, parameter, gradients)


def recast(case: Case, dtype: npt.DTypeLike) -> Case:
    """The case of another dtype with the same regime and hyperparameters; the data are its own."""
    given = {name: tuple(value) if isinstance(value, list) else value for name, value in case.hyperparameters.items()}
    optimizer = next(made for made in mlx_optimizers.OPTIMIZERS if made.__name__ == case.optimizer)
    return make_case(optimizer, case.regime, given, dtype)


def _require_domain(identifier: str, *quantities: npt.ArrayLike) -> None:
    for quantity in quantities:
        sizes = np.abs(np.asarray(quantity, np.float64))
        if not np.all((sizes == 0) | ((sizes >= DOMAIN[0]) & (sizes <= DOMAIN[1]))):
            raise ValueError(f"{identifier}: a value lies outside 2**-40 … 2**40")


@cache
def all_cases() -> tuple[Case, ...]:
    """Every case, in the order of the table, of the regimes, of the settings."""
    return tuple(
        make_case(optimizer, regime, given)
        for optimizer in mlx_optimizers.OPTIMIZERS
        for regime in REGIMES
        if regime != "edge" or optimizer is mlx_optimizers.Lion
        for given in ({}, *_SETTINGS[optimizer.__name__])
    )


def cases_of(optimizer: str) -> tuple[Case, ...]:
    """The cases of one optimizer."""
    return tuple(case for case in all_cases() if case.optimizer == optimizer)


def matching(optimizers: Iterable[str] | None = None, pattern: str | None = None) -> list[Case]:
    """The cases of these optimizers (default: all) whose whole identifier matches a pattern (``*`` crosses ``/``)."""
    wanted = None if optimizers is None else set(optimizers)
    return [
        case
        for case in all_cases()
        if (wanted is None or case.optimizer in wanted) and (pattern is None or fnmatch.fnmatchcase(case.id, pattern))
    ]
