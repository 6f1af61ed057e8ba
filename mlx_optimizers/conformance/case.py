"""A case: one trajectory to compute, and the random numbers that it is made of."""

from __future__ import annotations

import inspect
import math
import random
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from types import SimpleNamespace
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from mlx_optimizers.catalog import entry_of
from mlx_optimizers.catalog.axes import CHANGING, RISING
from mlx_optimizers.kinds import FloatArray, Shape
from mlx_optimizers.optimizer import Optimizer
from mlx_optimizers.oracle import Format, format_of

__all__ = [
    "DOMAIN",
    "INTERPOLATED",
    "Case",
    "Draw",
    "Level",
    "Unsupported",
    "completed",
    "default_rate",
    "defaults_of",
    "labelled",
    "leveled",
    "require_domain",
]

DOMAIN = (2.0**-40, 2.0**40)
"""Where the interval is proved: every nonzero |g|, |w|, λ and ε of a case lies in it."""


INTERPOLATED = "rounding is not bounded for a program that interpolates with a decay of 1/2 or less"

Level = Literal["required", "informative"]
"""Whether every correct program lies in the interval of a case, or some need not."""


class Unsupported(Exception):
    """Raised by a backend for a case that it cannot express; its text is the reason."""


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
        parameter: w before the first step; one axis, but where shapes matter.
        gradients: g of each step, with an axis for the steps before the parameter's.
        step: The number of updates done before the first step; default 0.
        state: What these updates left, by slot; empty for a state of zeros.
        gradient_dtype: Name of the dtype in which a program gets the gradients, where it is another one. The numbers
            of ``gradients`` are numbers of it.
        saved: The number of steps after which the state is saved and loaded into a fresh optimizer; or None.
        leaves: For a tree of parameters, the case of each; the tree has an empty parameter of its own.
        level: Whether the interval is proved for every order of operations that is covered; "informative" where it is
            not, and a program outside it need not be wrong.
        reason: Why a case only informs; None where it is required.
    """

    id: str
    optimizer: str
    regime: str
    label: str
    dtype: str
    hyperparameters: dict[str, Any]
    parameter: npt.NDArray[Any]
    gradients: npt.NDArray[Any]
    step: int = 0
    state: Mapping[str, FloatArray] = field(default_factory=dict)
    gradient_dtype: str | None = None
    saved: int | None = None
    leaves: tuple[Case, ...] = ()
    level: Level = "required"
    reason: str | None = None

    @property
    def form(self) -> Format:
        """The float format of the arrays."""
        return format_of(self.dtype)

    @property
    def each(self) -> tuple[Case, ...]:
        """The cases of all parameters, which are the leaves of a tree, or the case itself."""
        return self.leaves or (self,)

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

    def given(self, index: int) -> FloatArray:
        """Copy the gradient of the step with this index, in the dtype in which a program gets it.

        Raises:
            Unsupported: for bfloat16 when ml_dtypes is not installed.
        """
        form = self.form if self.gradient_dtype is None else format_of(self.gradient_dtype)
        try:
            return self.gradients[index, ...].astype(form.dtype)
        except ImportError as error:
            raise Unsupported(str(error)) from error

    def to_json(self) -> dict[str, Any]:
        """Write what a program gets of the case, as the adapter protocol and the vectors have it."""
        arrays = {"tree": [leaf._arrays() for leaf in self.leaves]} if self.leaves else self._arrays()
        shape = {} if self.leaves else {"shape": arrays.pop("shape")}
        more: dict[str, Any] = {"step": self.step} if self.step else {}
        if self.gradient_dtype is not None:
            more["gradient_dtype"] = self.gradient_dtype
        kind = {"optimizer": self.optimizer, "dtype": self.dtype}
        return {**kind, **shape, "hyperparameters": self.hyperparameters, **more, **arrays}

    def _arrays(self) -> dict[str, Any]:
        gradients = self.form if self.gradient_dtype is None else format_of(self.gradient_dtype)
        state = {name: self.form.bits(values) for name, values in self.state.items()}
        return {
            "shape": list(self.parameter.shape),
            "parameter": self.form.bits(self.parameter),
            "gradients": [gradients.bits(gradient) for gradient in self.gradients],
            **({"state": state} if state else {}),
        }


class Draw:
    """Random numbers of a format in a range of exponents, derived by IEEE arithmetic alone."""

    def __init__(self, seed: str, form: Format) -> None:
        self.uniform = random.Random(seed).random
        self.digits = form.precision - 1
        self.range = form.emin, form.emax - 5  # the regimes reach beyond float16

    def below(self, end: int) -> int:
        """Draw a whole number from 0, below an end."""
        return int(self.uniform() * end)

    def block(self, shape: Shape, low: int, high: int, digits: int | None = None) -> npt.NDArray[np.float64]:
        """Draw an array of ±1.x · 2ᵉ with so many random bits, by default all of the format, and low ≤ e ≤ high."""
        digits = self.digits if digits is None else digits
        low, high = (min(max(exponent, self.range[0]), self.range[1]) for exponent in (low, high))
        uniform = np.array([self.uniform() for _ in range(3 * math.prod(shape))], np.float64).reshape(*shape, 3)
        sign, fraction, exponent = np.moveaxis(np.floor(uniform * [2.0, 2.0**digits, high - low + 1.0]), -1, 0)
        drawn: npt.NDArray[np.float64] = (1 - 2 * sign) * np.ldexp(
            1 + fraction / 2.0**digits, low + exponent.astype(np.int64)
        )
        return drawn


def leveled(case: Case) -> Case:
    """Set the level of a case by its decays: one of 1/2 or less is outside the proof where a program interpolates."""
    decays = (case.hyperparameters[mean] for mean in entry_of(case.optimizer).means)
    if all(decay is None or min(np.atleast_1d(decay)) > 0.5 for decay in decays):
        return case
    return replace(case, level="informative", reason=INTERPOLATED)


def default_rate(optimizer: str) -> float | None:
    """Look up the default learning rate of an optimizer's cases; None where they give none."""
    return entry_of(optimizer).rate


def defaults_of(optimizer: type[Optimizer]) -> dict[str, Any]:
    """Collect the defaults of a class's hyperparameters; the learning rate has none."""
    return {name: parameter.default for name, parameter in inspect.signature(optimizer).parameters.items()}


def completed(optimizer: type[Optimizer], hyperparameters: Mapping[str, Any]) -> dict[str, Any]:
    """Complete hyperparameters by the defaults, the learning rate by the usual one of the optimizer.

    Raises:
        TypeError: for an unknown hyperparameter.
    """
    defaults = _defaults(optimizer)
    if unknown := set(hyperparameters) - set(defaults):
        raise TypeError(f"{optimizer.__name__} has no hyperparameter {', '.join(sorted(unknown))}")
    return {**defaults, **hyperparameters}


def labelled(optimizer: type[Optimizer], values: Mapping[str, Any]) -> str:
    """Write what differs from the defaults, the label of a case; nothing where nothing does."""
    defaults = _defaults(optimizer)
    return ",".join(f"{key}={_text(values[key])}" for key in sorted(values) if values[key] != defaults[key])


def _defaults(optimizer: type[Optimizer]) -> dict[str, Any]:
    return {**defaults_of(optimizer), "learning_rate": default_rate(optimizer.__name__)}


def _text(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if value in (CHANGING, RISING):
        return "changing" if value == CHANGING else "rising"
    return ",".join(map(repr, value)) if isinstance(value, tuple) else repr(value)


def require_domain(identifier: str, values: Mapping[str, Any], *arrays: npt.ArrayLike) -> None:
    """Refuse what lies outside the domain in which the interval is proved.

    Args:
        identifier: The case.
        values: Every hyperparameter.
        *arrays: The numbers of the case.

    Raises:
        ValueError: for such a number.
    """
    rates = values["learning_rate"]
    rates = 0.0 if rates is None else rates
    eps = np.atleast_1d(values.get("eps", 0.0))[-1]  # Adafactor's first one only keeps a root from 0
    for quantity in (*arrays, rates, eps):
        sizes = np.abs(np.asarray(quantity, np.float64))
        if not np.all((sizes == 0) | ((sizes >= DOMAIN[0]) & (sizes <= DOMAIN[1]))):
            raise ValueError(f"{identifier}: a value lies outside 2**-40 … 2**40")
    if max(np.atleast_1d(rates)) * values.get("weight_decay", 0.0) > 0.2:
        raise ValueError(f"{identifier}: learning_rate times weight_decay is above 0.2")
