"""All that the tests know of each optimizer by its name: one record an optimizer, and every field of it is required.

Everything here is written by hand: from the papers, from MLX, from torch, optax and Keras, or worked out on paper. The
steps take part in that: they state the order of the float32 operations a second time, in plain NumPy. Nothing here is
read from the catalog or from the code under test. To test one more optimizer, write its step and its record.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import Any

import numpy as np
import pytest

import mlx_optimizers

AT_LEAST_0, ABOVE_0, UP_TO_1 = "a number ≥ 0", "a number > 0", "a number in [0, 1]"
PAIR_BELOW_1, FLAG = "two numbers in [0, 1)", "True or False"

Settings = tuple[Mapping[str, Any], ...]
"""Several choices of hyperparameters; those that are left out stay at their defaults."""


def about(value: float) -> Any:
    """A value that is worked out in double, with a root or a quotient in it."""
    return pytest.approx(value, rel=1e-15)


# The order of operations. `real` rounds a number to the dtype of the arrays; every operation is rounded to it.


def sgd(real, h, w, g, v):
    rate, mu, kappa, rest = real(h.learning_rate), real(h.momentum), real(h.weight_decay), real(1 - h.dampening)
    g = g + kappa * w
    if not h.momentum:
        return w - rate * g, v
    v = mu * v + rest * g
    d = g + mu * v if h.nesterov else v
    return w - rate * d, v


def rmsprop(real, h, w, g, v):
    rate, alpha, rest, eps = real(h.learning_rate), real(h.alpha), real(1 - h.alpha), real(h.eps)
    v = alpha * v + rest * (g * g)
    return w - rate * g / (np.sqrt(v) + eps), v


def adagrad(real, h, w, g, v):
    rate, eps = real(h.learning_rate), real(h.eps)
    v = v + g * g
    return w - rate * g / (np.sqrt(v) + eps), v


def adadelta(real, h, w, g, v, u):
    rate, rho, rest, eps = real(h.learning_rate), real(h.rho), real(1 - h.rho), real(h.eps)
    v = rho * v + rest * (g * g)
    d = np.sqrt(u + eps) / np.sqrt(v + eps) * g
    u = rho * u + rest * (d * d)
    return w - rate * d, v, u


def adam(real, h, w, g, m, v):
    b1, b2 = h.betas
    rate, eps = real(h.learning_rate), real(h.eps)
    m = real(b1) * m + real(1 - b1) * g
    v = real(b2) * v + real(1 - b2) * (g * g)
    return w - rate * m / (np.sqrt(v) + eps), m, v


def adamw(real, h, w, g, m, v):
    b1, b2 = h.betas
    rate, eps, kappa = real(h.learning_rate), real(h.eps), real(h.weight_decay)
    m = real(b1) * m + real(1 - b1) * g
    v = real(b2) * v + real(1 - b2) * (g * g)
    keep = real(1) - rate * kappa
    return keep * w - rate * m / (np.sqrt(v) + eps), m, v


def bias_corrected_adam(real, h, w, g, m, v):
    b1, b2 = h.betas
    t = int(h.step)
    first, second = real(h.learning_rate / (1 - b1**t)), real(1 / (1 - b2**t) ** 0.5)
    m = real(b1) * m + real(1 - b1) * g
    v = real(b2) * v + real(1 - b2) * (g * g)
    return w - first * m / (np.sqrt(v) * second + real(h.eps)), m, v


def bias_corrected_adamw(real, h, w, g, m, v):
    b1, b2 = h.betas
    t = int(h.step)
    first, second = real(h.learning_rate / (1 - b1**t)), real(1 / (1 - b2**t) ** 0.5)
    m = real(b1) * m + real(1 - b1) * g
    v = real(b2) * v + real(1 - b2) * (g * g)
    keep = real(1) - real(h.learning_rate) * real(h.weight_decay)
    return keep * w - first * m / (np.sqrt(v) * second + real(h.eps)), m, v


def adamax(real, h, w, g, m, v):
    b1, b2 = h.betas
    rate, eps = real(h.learning_rate), real(h.eps)
    m = real(b1) * m + real(1 - b1) * g
    v = np.maximum(real(b2) * v, np.abs(g))
    return w - rate * m / (v + eps), m, v


def lion(real, h, w, g, m):
    b1, b2 = h.betas
    rate, kappa = real(h.learning_rate), real(h.weight_decay)
    c = real(b1) * m + real(1 - b1) * g
    m = real(b2) * m + real(1 - b2) * g
    keep = real(1) - rate * kappa
    return keep * w - rate * np.sign(c), m


@dataclass(frozen=True, kw_only=True)
class Expected:
    """All that the tests expect of one optimizer.

    The class and its page:
        signature: The signature, with the defaults.
        row: The row of the table on the page "Optimizers".
        cites: Whether that row cites a paper.
        ranges: The range of each hyperparameter.
        allowed: Turns hyperparameters that are drawn one by one into ones that the class takes together.
        slots: The slots of the state, in order.
        lines: The most lines of the module, and of the docstring of the class.
        examples: How many examples the page has at least, and the module.

    The step:
        step: The order of its operations: ``step(real, h, w, g, *slots) -> (w, *slots)``. ``h.step`` counts the steps,
            from 1.
        changes: Wrong steps by name, each as replacements in the source of `step`; those of the mutator are left out.
        unnoticed: The mutants of `step` that compute what `step` does.
        calls: The calls of NumPy that a step needs under `full`.
        full: Hyperparameters under which every term plays a part.
        settings: Hyperparameters that reach every branch and the ends of the ranges.
        bitwise: Hyperparameters under which a run is compared with MLX's, bit for bit; each takes two values.
        training: Hyperparameters with which a network learns.
        switched: Hyperparameters that replace drawn ones, so that every branch is taken.

    Properties of the mathematics and of floats:
        odd: The parameter and slots that change their signs with w and g; the others keep them.
        scaled: The powers of 2ᵏ by which w, g and hyperparameters are scaled.
        scales: The powers of 2ᵏ by which the parameter and the slots are then scaled.
        squares: Whether v holds squares of gradients, which overflow and underflow.
        lost: Whether ε rounds to 0 in float16, so that a zero gradient gives 0/0.
        stuck: Whether the decay of v rounds to 1 in bfloat16.
        decay: The default of a decoupled weight decay, 0 where there is none.
        idle: The slots that stay 0 under the defaults.
        infinity: The first two elements of parameter and slots, after gradients +∞ and −∞.
        decays: Hyperparameters, and the parameter and slots after g = 2 and after g = −4, from w = 1 with λ = ½.
        rational: Hyperparameters in tenths, and the first step in rational numbers; None where a root is in the way.

    Formulas, cases and other libraries:
        axes: The values of each axis but ``ignored``, the default first.
        by_hand: Steps from a state of zeros: axes, w, the gradient or one a step, hyperparameters, the last w.
        corrected: Formulas besides the page's and those that libraries claim, around which axes are varied.
        without_value: The formulas of at most two axes in which a divisor is always 0.
        regimes: The regimes of its cases.
        labels: Settings that a review found sufficient.
        claims: The formulas that torch, optax and Keras claim; None where a library has no such optimizer.
        fused: Whether torch has a fused one.
        single: The libraries that form a coefficient in float32.
        beyond: The cases that a library cannot express, by library: their pattern and the reason.
        starts: Where the steps over all significands start: hyperparameters, and the exponents of the parameter, the
            gradient and the slots, so that the terms of each statement are of one size.
    """

    signature: str
    row: str
    cites: bool
    ranges: Mapping[str, str]
    allowed: Callable[[Mapping[str, Any]], dict[str, Any]]
    slots: tuple[str, ...]
    lines: tuple[int, int]
    examples: tuple[int, int]

    step: Callable[..., tuple[Any, ...]]
    changes: Mapping[str, tuple[tuple[str, str], ...]]
    unnoticed: frozenset[str]
    calls: int
    full: Mapping[str, Any]
    settings: Settings
    bitwise: Settings
    training: Mapping[str, Any]
    switched: Settings

    odd: frozenset[str]
    scaled: Mapping[str, int]
    scales: Mapping[str, int]
    squares: bool
    lost: bool
    stuck: bool
    decay: float
    idle: frozenset[str]
    infinity: Mapping[str, tuple[str, str]]
    decays: tuple[tuple[Mapping[str, Any], tuple[tuple[float, ...] | None, ...]], ...]
    rational: tuple[Mapping[str, Any], Callable[..., Fraction]] | None

    axes: Mapping[str, str]
    by_hand: tuple[tuple[str, float, float | tuple[float, ...], Mapping[str, Any], Any], ...]
    corrected: tuple[str, ...]
    without_value: tuple[str, ...]
    regimes: tuple[str, ...]
    labels: tuple[str, ...]
    claims: Mapping[str, str | None]
    fused: bool
    single: frozenset[str]
    beyond: Mapping[str, tuple[str, str]]
    starts: tuple[tuple[Mapping[str, Any], tuple[int, ...]], ...]


_ALL_REGIMES = ("plain", "tiny", "wide", "zeros")
_CHANGING = "learning_rate=changing"
_SQUARED = {"parameter": ("nan", "nan"), "v": ("inf", "inf")}
_MOMENTS = {"parameter": ("nan", "nan"), "m": ("inf", "-inf"), "v": ("inf", "inf")}
_MOMENTS_IN_MLX = tuple(
    {"learning_rate": rate, "betas": betas, "eps": eps}
    for rate, betas, eps in (
        (1e-3, (0.9, 0.999), 1e-8),
        (0.3, (0.6, 0.7), 1e-3),
        (0.01, (0.3, 0.2), 1e-6),
        (0.1, (0.0, 0.0), 0.0),
        (1e-4, (0.95, 0.98), 1e-5),
    )
)
_HALF = {"learning_rate": 0.5, "betas": (0.5, 0.75), "eps": 0.25}
_DECAY = {"learning_rate": 0.5, "weight_decay": 0.25}
_ADAM_AXES = {
    "amsgrad": "false true uncorrected",
    "betas": "given swapped complement m_complement v_complement beside",
    "bias_correction": "false true first second multiplied complement",
    "eps": "outside_sqrt inside_sqrt before_correction ignored stored",
    "gradients": "all nonzero",
    "initial": "zero gradient",
    "learning_rate": "given first previous",
    "nesterov": "false true",
    "root": "taken ignored",
    "state": "kept dropped m_dropped v_dropped corrected",
    "step": "t t-1 t+1 2t 1",
    "v": "gradient absolute m surprise",
}
_MOMENTUM = {"learning_rate": 0.5, "momentum": 0.5}
_QUARTER = {"learning_rate": 0.5, "alpha": 0.75, "eps": 0.25}
_WIDE = {"learning_rate": 0.5, "rho": 0.75, "eps": 0.25}
_RATES = {"learning_rate": [0.5, 0.25, 0.125]}
_NO_EPS = {"no ε": (("np.sqrt(v) + eps", "np.sqrt(v)"),)}
_SWAPPED = {"betas swapped": (("h.betas", "h.betas[::-1]"),)}

_EIGHT: Mapping[str, Expected] = {
    "SGD": Expected(
        signature="(learning_rate, momentum=0.0, weight_decay=0.0, dampening=0.0, nesterov=False)",
        row="SGD(learning_rate[, momentum, weight_decay, ...])",
        cites=False,
        ranges={
            "learning_rate": AT_LEAST_0,
            "momentum": AT_LEAST_0,
            "weight_decay": AT_LEAST_0,
            "dampening": UP_TO_1,
            "nesterov": FLAG,
        },
        allowed=lambda h: {**h, "momentum": h["momentum"] or 0.5, "dampening": 0.0} if h["nesterov"] else {**h},
        slots=("v",),
        lines=(100, 32),  # five hyperparameters, and three switches in the formula
        examples=(39, 5),
        step=sgd,
        changes={
            "no look ahead": (("g + mu * v if h.nesterov else v", "v"),),
            "no decay": (("g + kappa * w", "g"),),
            "decay after the step": (
                ("g + kappa * w", "g"),
                ("w - rate * g, v", "(1 - rate * kappa) * (w - rate * g), v"),
                ("w - rate * d, v", "(1 - rate * kappa) * (w - rate * d), v"),
            ),
        },
        unnoticed=frozenset({"5:15 number 1 scaled by 1 + 1e-5: (w - rate * g, v)"}),  # v is 0 without momentum
        calls=7,
        full={"momentum": 0.9, "weight_decay": 0.1, "dampening": 0.5},
        settings=tuple(
            {"momentum": momentum, "dampening": dampening, "nesterov": nesterov, "weight_decay": weight_decay}
            for momentum, dampening, nesterov in (
                (0, 0, False),
                (0, 0.5, False),
                (0.9, 0, False),
                (0.9, 0.3, False),
                (0.9, 0, True),
            )
            for weight_decay in (0, 0.1)
        ),
        bitwise=tuple(
            {
                "learning_rate": rate,
                "momentum": momentum,
                "dampening": dampening,
                "nesterov": nesterov,
                "weight_decay": 0.0 if rate == 0.1 else 0.03,
            }
            for rate in (1e-4, 3e-3, 0.1, 0.3)
            for momentum, dampening, nesterov in (
                (0.0, 0.0, False),
                (0.0, 0.5, False),
                (0.9, 0.0, False),
                (0.7, 0.3, False),
                (0.9, 0.0, True),
            )
        ),
        training={"learning_rate": 0.1, "momentum": 0.9, "nesterov": True, "weight_decay": 1e-3},
        switched=({"momentum": 0.0}, {"nesterov": True, "dampening": 0.0}),
        odd=frozenset({"w", "v"}),
        scaled={"w": 1, "g": 1},
        scales={"w": 1, "v": 1},
        squares=False,
        lost=False,
        stuck=False,
        decay=0.0,
        idle=frozenset({"v"}),
        infinity={"parameter": ("-inf", "inf"), "v": ("0", "0")},
        decays=(),
        rational=(
            {"learning_rate": "0.1", "weight_decay": "0.3"},
            lambda w, g, h: w - h["learning_rate"] * (g + h["weight_decay"] * w),
        ),
        axes={
            "buffer": "plain scaled",
            "dampening": "always not_first ignored",
            "gradients": "all nonzero",
            "learning_rate": "given first previous",
            "momentum": "given undecayed",
            "nesterov": "given ignored always previous opposite stored before",
            "state": "kept dropped",
            "weight_decay": "coupled decoupled after unscaled ignored momentum_only constant",
        },
        by_hand=(
            # decay: w = 1, λ = 1/2, κ = 1/4
            ("", 1.0, 1.0, _DECAY, 1 - 0.5 * 1.25),
            ("weight_decay=decoupled", 1.0, 1.0, _DECAY, 0.875 - 0.5),
            ("weight_decay=after", 1.0, 1.0, _DECAY, 0.875 * 0.5),
            ("weight_decay=unscaled", 1.0, 1.0, _DECAY, 0.75 - 0.5),
            ("weight_decay=ignored", 1.0, 1.0, _DECAY, 0.5),
            ("weight_decay=momentum_only", 1.0, 1.0, _DECAY, 0.5),
            ("weight_decay=momentum_only", 1.0, 1.0, {"momentum": 0.5, **_DECAY}, 1 - 0.5 * 1.25),
            ("dampening=not_first", 0.0, 1.0, {"learning_rate": 0.5, "momentum": 0.5, "dampening": 0.5}, -0.5),
            ("", 0.0, 1.0, {"learning_rate": 0.5, "momentum": 0.5, "dampening": 0.5}, -0.25),
            ("nesterov=ignored", 0.0, 1.0, {"learning_rate": 0.5, "momentum": 0.5, "nesterov": True}, -0.5),
            ("buffer=scaled", 0.0, 1.0, {"learning_rate": 0.5, "momentum": 0.5, "nesterov": True}, -0.75),
            ("weight_decay=constant", 1.0, 1.0, _DECAY, 1 - 0.125 - 0.5),
            ("learning_rate=first", 0.0, (1.0, 1.0, 1.0), _RATES, -1.5),
            ("learning_rate=previous", 0.0, (1.0, 1.0, 1.0), _RATES, -0.5 - 0.5 - 0.25),
            # v = 1, then 3/2
            ("", 0.0, (1.0, 1.0), _MOMENTUM, -0.5 - 0.75),
            ("gradients=nonzero", 0.0, (1.0, 0.0), _MOMENTUM, -0.5),
            ("momentum=undecayed", 0.0, (1.0, 1.0), _MOMENTUM, -0.5 - 1.0),
            ("state=dropped", 0.0, (1.0, 1.0), _MOMENTUM, -0.5 - 0.5),
            ("nesterov=always", 0.0, 1.0, _MOMENTUM, -0.75),
            ("nesterov=previous", 0.0, (1.0, 1.0), {**_MOMENTUM, "nesterov": True}, -0.5 - 0.5 * (1.5 + 0.5)),
            ("nesterov=opposite", 0.0, 1.0, {**_MOMENTUM, "nesterov": True}, -0.5 * (1 - 0.5)),
            ("nesterov=stored", 0.0, (1.0, 1.0), {**_MOMENTUM, "nesterov": True}, -0.5 * (1.5 + 1 + 0.5 * 1.75)),
            ("nesterov=before", 0.0, (1.0, 1.0), {**_MOMENTUM, "nesterov": True}, -0.5 * (1 + 0.5 + 1.5)),
            ("ignored=momentum:0.5", 0.0, (1.0, 1.0), {"learning_rate": 0.5}, -0.5 - 0.75),
            ("ignored=clip:0.5", 0.0, (1.0, -0.25), {"learning_rate": 0.5}, -0.25 + 0.125),
            ("scaled=gradient:0.5", 0.0, 1.0, {"learning_rate": 0.5}, -0.25),
            ("scaled=learning_rate:-1", 1.0, 1.0, _DECAY, 1 + 0.5 * 1.25),
            ("scaled=weight_decay:2", 1.0, 1.0, _DECAY, 1 - 0.5 * 1.5),
            ("replaced=learning_rate:learning_rate^2", 0.0, 1.0, {"learning_rate": 0.5}, -0.25),
            ("replaced=learning_rate:weight_decay", 1.0, 1.0, _DECAY, 1 - 0.25 * 1.25),
            ("replaced=dampening:1-dampening", 0.0, 1.0, {**_MOMENTUM, "dampening": 0.25}, -0.5 * 0.25),
            ("replaced=momentum:sqrt(momentum)", 0.0, (1.0, 1.0), {"learning_rate": 0.5, "momentum": 0.25}, -1.25),
        ),
        corrected=(),
        without_value=(),
        regimes=_ALL_REGIMES,
        labels=(
            f"{_CHANGING},momentum=0.9",
            "momentum=0.9,nesterov=true,weight_decay=0.1",
            "dampening=0.3,learning_rate=0.05,momentum=0.6,weight_decay=0.01",
            "dampening=0.5,weight_decay=0.1",
        ),
        claims={
            "torch": "SGD[dampening=not_first]",
            "optax": "SGD",
            "keras": "SGD[buffer=scaled,weight_decay=decoupled]",
        },
        fused=True,
        single=frozenset(),
        beyond={
            "optax": ("sgd/*dampening=*", "optax.sgd has no dampening"),
            "keras": ("sgd/*dampening=*", "keras.optimizers.SGD has no dampening"),
        },
        starts=tuple(
            ({"learning_rate": rate, "weight_decay": kappa, **momentum}, exponents)
            for momentum in (
                {"momentum": 0.0},
                {"momentum": 0.9, "dampening": 0.3},
                {"momentum": 0.6},
                {"momentum": 0.9, "nesterov": True},
            )
            for rate, kappa, exponents in (
                (0.1, 0.1, (-3, 0, 0)),
                (0.1, 0.1, (3, 0, 0)),
                (0.3, 0.3, (0, 0, -1)),
                (0.01, 0.01, (-6, 0, 3)),
            )
        ),
    ),
    "RMSprop": Expected(
        signature="(learning_rate, alpha=0.99, eps=1e-08)",
        row="RMSprop(learning_rate[, alpha, eps])",
        cites=True,
        ranges={"learning_rate": AT_LEAST_0, "alpha": UP_TO_1, "eps": ABOVE_0},
        allowed=dict,
        slots=("v",),
        lines=(80, 25),
        examples=(26, 5),
        step=rmsprop,
        changes=_NO_EPS,
        unnoticed=frozenset(),
        calls=9,
        full={},
        settings=({}, {"alpha": 0.25, "eps": 0.5}, {"alpha": 1}, {"alpha": 0}),
        bitwise=tuple(
            {"learning_rate": rate, "alpha": alpha, "eps": eps}
            for rate, alpha, eps in (
                (0.01, 0.99, 1e-8),
                (0.3, 0.9, 1e-3),
                (1e-3, 0.4, 1e-6),
                (0.1, 0.0, 1e-8),
                (0.1, 1.0, 1e-5),
            )
        ),
        training={"learning_rate": 1e-3},
        switched=(),
        odd=frozenset({"w"}),
        scaled={"w": 0, "g": 1, "eps": 1},
        scales={"w": 0, "v": 2},
        squares=True,
        lost=True,
        stuck=False,
        decay=0.0,
        idle=frozenset(),
        infinity=_SQUARED,
        decays=(
            ({"alpha": 0.0, "eps": 2.0}, ((0.75, 4.0), (0.75 + 2 / 6, 16.0))),
            ({"alpha": 1.0, "eps": 2.0}, ((0.5, 0.0), (1.5, 0.0))),
            ({"alpha": 0.25, "eps": 1.0}, ((1 - 1 / (3**0.5 + 1), 3.0), None)),
        ),
        rational=None,
        axes={
            "alpha": "given complement undecayed unweighted",
            "centred": "false true",
            "eps": "outside_sqrt inside_sqrt ignored reciprocal",
            "gradients": "all nonzero",
            "initial": "zero gradient",
            "learning_rate": "given first previous",
            "root": "taken ignored",
            "state": "kept dropped",
            "v": "gradient absolute",
        },
        by_hand=(
            # v = g²/4: for g = 2, √v = 1
            ("", 0.0, 2.0, {"learning_rate": 0.5, "alpha": 0.75, "eps": 0.25}, -1 / 1.25),
            ("eps=inside_sqrt", 0.0, 2.0, {"learning_rate": 0.5, "alpha": 0.75, "eps": 0.25}, about(-1 / 1.25**0.5)),
            ("alpha=complement", 0.0, 2.0, _QUARTER, about(-1 / (3**0.5 + 0.25))),
            ("alpha=undecayed", 0.0, (2.0, 2.0), _QUARTER, about(-1 / 1.25 - 1 / (2**0.5 + 0.25))),
            ("alpha=unweighted", 0.0, 2.0, _QUARTER, about(-1 / 2.25)),
            ("centred=true", 0.0, 2.0, _QUARTER, about(-1 / (0.75**0.5 + 0.25))),
            ("eps=ignored", 0.0, (0.0, 2.0), _QUARTER, -1.0),
            ("eps=reciprocal", 0.0, 2.0, _QUARTER, -1.25),
            ("gradients=nonzero", 0.0, (2.0, 0.0, 2.0), _QUARTER, about(-1 / 1.25 - 1 / (1.75**0.5 + 0.25))),
            ("ignored=initial:4", 0.0, 2.0, _QUARTER, about(-1 / 2.25)),
            ("initial=gradient", 0.0, 2.0, _QUARTER, about(-1 / 2.25)),
            ("root=ignored", 0.0, 2.0, {**_QUARTER, "alpha": 0.5}, about(-1 / 2.25)),
            ("state=dropped", 0.0, (2.0, 2.0), _QUARTER, about(-2 / 1.25)),
            ("v=absolute", 0.0, 2.0, _QUARTER, about(-1 / (0.5**0.5 + 0.25))),
        ),
        corrected=(),
        without_value=(),
        regimes=_ALL_REGIMES,
        labels=(f"alpha=0.6,eps=0.001,{_CHANGING}",),
        claims={"torch": "RMSprop", "optax": "RMSprop[eps=inside_sqrt]", "keras": "RMSprop[eps=inside_sqrt]"},
        fused=False,
        single=frozenset(),
        beyond={},
        starts=(
            ({"learning_rate": 0.1, "alpha": 0.99, "eps": 0.1}, (-1, 0, -6)),
            ({"learning_rate": 0.1, "alpha": 0.99, "eps": 1e-3}, (-3, 0, 0)),
            ({"learning_rate": 0.3, "alpha": 0.6, "eps": 1.0}, (-2, 0, 0)),
            ({"learning_rate": 0.3, "alpha": 0.6, "eps": 0.3}, (-3, 0, 2)),
            ({"learning_rate": 0.01, "alpha": 0.9, "eps": 1e-3}, (-7, 0, -3)),
        ),
    ),
    "Adagrad": Expected(
        signature="(learning_rate, eps=1e-08)",
        row="Adagrad(learning_rate[, eps])",
        cites=True,
        ranges={"learning_rate": AT_LEAST_0, "eps": ABOVE_0},
        allowed=dict,
        slots=("v",),
        lines=(80, 25),
        examples=(29, 5),
        step=adagrad,
        changes={"no square": (("g * g", "np.abs(g)"),), **_NO_EPS},
        unnoticed=frozenset(),
        calls=7,
        full={},
        settings=({}, {"eps": 0.5}),
        bitwise=tuple(
            {"learning_rate": rate, "eps": eps} for rate, eps in ((0.01, 1e-8), (0.3, 1e-3), (1e-3, 1e-10), (1.0, 1.0))
        ),
        training={"learning_rate": 1e-2},
        switched=(),
        odd=frozenset({"w"}),
        scaled={"w": 0, "g": 1, "eps": 1},
        scales={"w": 0, "v": 2},
        squares=True,
        lost=True,
        stuck=False,
        decay=0.0,
        idle=frozenset(),
        infinity=_SQUARED,
        decays=(),
        rational=None,
        axes={
            "eps": "outside_sqrt inside_sqrt ignored reciprocal",
            "initial": "zero 0.1 eps",
            "learning_rate": "given first previous",
            "root": "taken ignored",
            "state": "kept dropped",
            "v": "gradient absolute",
        },
        by_hand=(
            ("", 0.0, 2.0, {"learning_rate": 0.5, "eps": 0.5}, -0.4),
            ("initial=0.1", 0.0, 0.0, {"learning_rate": 1.0}, 0.0),
            ("eps=ignored", 0.0, (0.0, 2.0), {"learning_rate": 0.5, "eps": 0.5}, -0.5),
            ("eps=reciprocal", 0.0, 2.0, {"learning_rate": 0.5, "eps": 0.5}, -1.0),
            ("initial=eps", 0.0, 2.0, {"learning_rate": 0.5, "eps": 0.5}, about(-1 / (4.5**0.5 + 0.5))),
            ("root=ignored", 0.0, 2.0, {"learning_rate": 0.5, "eps": 0.5}, about(-1 / 4.5)),
            ("state=dropped", 0.0, (2.0, 2.0), {"learning_rate": 0.5, "eps": 0.5}, -0.8),
            ("v=absolute", 0.0, 2.0, {"learning_rate": 0.5, "eps": 0.5}, about(-1 / (2**0.5 + 0.5))),
            ("replaced=eps:eps^2", 0.0, 2.0, {"learning_rate": 0.5, "eps": 0.5}, about(-1 / 2.25)),
            ("scaled=eps:4", 0.0, 2.0, {"learning_rate": 0.5, "eps": 0.5}, -0.25),
        ),
        corrected=(),
        without_value=(),
        regimes=_ALL_REGIMES,
        labels=(f"eps=0.001,{_CHANGING}",),
        claims={
            "torch": "Adagrad",
            "optax": "Adagrad[eps=inside_sqrt,initial=0.1]",
            "keras": "Adagrad[eps=inside_sqrt,initial=0.1]",
        },
        fused=True,
        single=frozenset(),
        beyond={},
        starts=(
            ({"learning_rate": 0.1, "eps": 1.0}, (-4, 0, 0)),
            ({"learning_rate": 0.1, "eps": 0.1}, (-4, 0, 2)),
            ({"learning_rate": 0.01, "eps": 1e-3}, (-8, 0, 4)),
            ({"learning_rate": 0.3, "eps": 2.0}, (-3, 0, -2)),
        ),
    ),
    "AdaDelta": Expected(
        signature="(learning_rate, rho=0.9, eps=1e-06)",
        row="AdaDelta(learning_rate[, rho, eps])",
        cites=True,
        ranges={"learning_rate": AT_LEAST_0, "rho": UP_TO_1, "eps": ABOVE_0},
        allowed=dict,
        slots=("v", "u"),
        lines=(80, 25),
        examples=(26, 5),
        step=adadelta,
        changes={
            "ε outside the roots": (
                ("np.sqrt(u + eps) / np.sqrt(v + eps)", "(np.sqrt(u) + eps) / (np.sqrt(v) + eps)"),
            ),
            "ε below alone": (("np.sqrt(u + eps)", "np.sqrt(u)"),),
        },
        unnoticed=frozenset(),
        calls=16,
        full={},
        settings=({}, {"rho": 0.25, "eps": 0.5}, {"rho": 1}, {"rho": 0}),
        bitwise=tuple(
            {"learning_rate": rate, "rho": rho, "eps": eps}
            for rate, rho, eps in (
                (1.0, 0.9, 1e-6),
                (0.3, 0.5, 1e-3),
                (0.1, 0.95, 1e-8),
                (1.0, 0.0, 1e-6),
                (1.0, 1.0, 1e-6),
            )
        ),
        training={"learning_rate": 1.0},
        switched=(),
        odd=frozenset({"w"}),
        scaled={"w": 1, "g": 1, "eps": 2},
        scales={"w": 1, "v": 2, "u": 2},
        squares=True,
        lost=False,
        stuck=False,
        decay=0.0,
        idle=frozenset(),
        infinity={**_SQUARED, "u": ("nan", "nan")},
        decays=(
            ({"rho": 1.0, "eps": 1.0}, ((0.0, 0.0, 0.0), (2.0, 0.0, 0.0))),
            ({"rho": 0.0, "eps": 12.0}, ((1 - 3**0.5 / 2, 4.0, 3.0), None)),
        ),
        rational=None,
        axes={
            "eps": "outside_sqrt denominator_only outside_both",
            "gradients": "all nonzero",
            "learning_rate": "given first previous",
            "rho": "given complement",
            "root": "taken ignored_above ignored_below",
            "state": "kept dropped",
            "u": "updated frozen scaled gradient parameter",
        },
        by_hand=(
            ("eps=denominator_only", 0.0, 1.0, {"learning_rate": 1.0}, 0.0),
            ("u=frozen", 0.0, 1.0, {"learning_rate": 1.0}, pytest.approx(-((1e-6 / (0.1 + 1e-6)) ** 0.5), rel=1e-14)),
            # v = 1/4, then 7/16; d = ½/√½, whose square is ½
            ("eps=outside_both", 0.0, 1.0, _WIDE, about(-1 / 6)),
            ("rho=complement", 0.0, 1.0, _WIDE, -0.25),
            ("root=ignored_above", 0.0, 1.0, _WIDE, about(-0.5 * 0.25 / 0.5**0.5)),
            ("root=ignored_below", 0.0, 1.0, _WIDE, -0.5),
            ("state=dropped", 0.0, (1.0, 1.0), _WIDE, about(-(0.5**0.5))),
            ("", 0.0, (1.0, 1.0), _WIDE, about(-0.5 * (0.5**0.5 + (0.375 / 0.6875) ** 0.5))),
            ("u=scaled", 0.0, (1.0, 1.0), _WIDE, about(-0.5 * (0.5**0.5 + (0.28125 / 0.6875) ** 0.5))),
            ("u=gradient", 0.0, (1.0, 1.0), _WIDE, about(-0.5 * (0.5**0.5 + (0.5 / 0.6875) ** 0.5))),
            ("u=parameter", 0.0, (1.0, 1.0), _WIDE, about(-0.5 * (0.5**0.5 + (0.28125 / 0.6875) ** 0.5))),
        ),
        corrected=(),
        without_value=(),
        regimes=_ALL_REGIMES,
        labels=(f"eps=0.0001,{_CHANGING},rho=0.6",),
        claims={"torch": "AdaDelta", "optax": "AdaDelta", "keras": "AdaDelta"},
        fused=False,
        single=frozenset(),
        beyond={},
        starts=(
            ({"learning_rate": 1.0, "rho": 0.9, "eps": 0.1}, (0, 0, -1, -3)),
            ({"learning_rate": 0.3, "rho": 0.6, "eps": 0.3}, (-2, 0, 0, -1)),
            ({"learning_rate": 1.0, "rho": 0.9, "eps": 1e-3}, (-3, 0, -3, -9)),
        ),
    ),
    "Adam": Expected(
        signature="(learning_rate, betas=(0.9, 0.999), eps=1e-08)",
        row="Adam(learning_rate[, betas, eps])",
        cites=True,
        ranges={"learning_rate": AT_LEAST_0, "betas": PAIR_BELOW_1, "eps": AT_LEAST_0},
        allowed=dict,
        slots=("m", "v"),
        lines=(80, 25),
        examples=(28, 5),
        step=adam,
        changes={**_SWAPPED, **_NO_EPS},
        unnoticed=frozenset(),
        calls=12,
        full={},
        settings=({}, {"betas": (0.3, 0.2), "eps": 0}, {"betas": (0, 0), "eps": 0.5}),
        bitwise=_MOMENTS_IN_MLX,
        training={"learning_rate": 1e-3},
        switched=(),
        odd=frozenset({"w", "m"}),
        scaled={"w": 0, "g": 1, "eps": 1},
        scales={"w": 0, "m": 1, "v": 2},
        squares=True,
        lost=True,
        stuck=True,
        decay=0.0,
        idle=frozenset(),
        infinity=_MOMENTS,
        decays=(
            ({"betas": (0.0, 0.0), "eps": 2.0}, ((0.75, 2.0, 4.0), (0.75 + 2 / 6, -4.0, 16.0))),
            ({"betas": (0.25, 0.0), "eps": 2.0}, ((0.8125, 1.5, 4.0), (0.8125 + 2.625 / 12, -2.625, 16.0))),
        ),
        rational=None,
        axes=_ADAM_AXES,
        by_hand=(
            # m = g/2, v = g²/4: for g = 2, m = 1, √v = 1
            ("", 0.0, 2.0, _HALF, -0.5 / 1.25),
            ("eps=inside_sqrt", 0.0, 2.0, _HALF, about(-0.5 / 1.25**0.5)),
            ("bias_correction=true", 0.0, 2.0, _HALF, about(-1 / 2.25)),
            ("bias_correction=first", 0.0, 2.0, _HALF, -1 / 1.25),
            ("bias_correction=second", 0.0, 2.0, _HALF, about(-0.5 / 2.25)),
            ("bias_correction=true,eps=before_correction", 0.0, 2.0, _HALF, -0.5 / 1.25),
            ("bias_correction=multiplied", 0.0, 2.0, _HALF, about(-0.25 / 0.75)),
            ("bias_correction=complement", 0.0, 2.0, _HALF, about(-1 / ((4 / 3) ** 0.5 + 0.25))),
            # after g = 2, then 0: m = 1, ½; v = 1, ¾; corrected by ½, ¾ and by ¼, 7/16
            ("amsgrad=true", 0.0, (2.0, 0.0), _HALF, about(-0.5 / 1.25 - 0.25 / 1.25)),
            ("amsgrad=true,bias_correction=true", 0.0, (2.0, 0.0), _HALF, about(-(1 + 1 / 3) / 2.25)),
            (
                "amsgrad=uncorrected,bias_correction=true",
                0.0,
                (2.0, 0.0),
                _HALF,
                about(-1 / 2.25 - 1 / 3 / ((16 / 7) ** 0.5 + 0.25)),
            ),
            ("betas=complement", 0.0, 2.0, {**_HALF, "betas": (0.75, 0.75)}, about(-0.75 / (3**0.5 + 0.25))),
            ("betas=m_complement", 0.0, 2.0, {**_HALF, "betas": (0.75, 0.75)}, about(-0.75 / 1.25)),
            ("betas=v_complement", 0.0, 2.0, _HALF, about(-0.5 / (3**0.5 + 0.25))),
            ("betas=beside", 0.0, 2.0, {**_HALF, "betas": (0.75, 0.75)}, about(-0.75 / (3**0.5 + 0.25))),
            ("eps=ignored", 0.0, (0.0, 2.0), _HALF, -0.5),
            ("eps=stored", 0.0, 2.0, _HALF, about(-0.5 / (1.25**0.5 + 0.25))),
            ("gradients=nonzero", 0.0, (2.0, 0.0), _HALF, about(-0.5 / 1.25)),
            ("nesterov=true", 0.0, 2.0, _HALF, about(-0.75 / 1.25)),
            ("bias_correction=true,nesterov=true", 0.0, 2.0, _HALF, about(-1.5 / 2.25)),
            ("root=ignored", 0.0, 1.0, _HALF, -0.5),
            ("state=dropped", 0.0, (2.0, 2.0), _HALF, about(-0.8)),
            ("state=m_dropped", 0.0, (2.0, 2.0), _HALF, about(-0.5 / 1.25 - 0.5 / (1.75**0.5 + 0.25))),
            ("state=v_dropped", 0.0, (2.0, 2.0), _HALF, about(-0.5 / 1.25 - 0.75 / 1.25)),
            (
                "bias_correction=true,state=corrected",
                0.0,
                (2.0, 0.0),
                _HALF,
                about(-1 / 2.25 - 2 / 3 / ((48 / 7) ** 0.5 + 0.25)),
            ),
            ("bias_correction=true,step=2t", 0.0, 2.0, _HALF, about(-2 / 3 / ((16 / 7) ** 0.5 + 0.25))),
            ("bias_correction=true,step=1", 0.0, (2.0, 0.0), _HALF, about(-1 / 2.25 - 0.5 / (3**0.5 + 0.25))),
            ("v=absolute", 0.0, 2.0, _HALF, about(-0.5 / (0.5**0.5 + 0.25))),
            ("v=m", 0.0, 2.0, _HALF, about(-0.5 / 0.75)),
            ("v=surprise", 0.0, 2.0, _HALF, about(-0.5 / 0.75)),
            ("ignored=beta_1:0.75", 0.0, 2.0, _HALF, about(-0.25 / 1.25)),
            ("ignored=betas:0.75,0.5", 0.0, 2.0, _HALF, about(-0.25 / (2**0.5 + 0.25))),
            ("replaced=beta_1:beta_2", 0.0, 2.0, _HALF, about(-0.25 / 1.25)),
            ("replaced=beta_2:1-beta_2", 0.0, 2.0, _HALF, about(-0.5 / (3**0.5 + 0.25))),
            ("betas=swapped", 0.0, 2.0, _HALF, about(-0.25 / (2**0.5 + 0.25))),
            ("initial=gradient", 0.0, 2.0, _HALF, about(-1 / 2.25)),
            ("ignored=eps:1", 0.0, 2.0, _HALF, -0.25),
            (
                "bias_correction=true,step=t+1",
                0.0,
                2.0,
                _HALF,
                about(-0.5 / 0.75 / (1 / (1 - 0.5625) ** 0.5 + 0.25)),
            ),
        ),
        corrected=("Adam[bias_correction=first]", "Adam[bias_correction=second]"),
        without_value=(
            "Adam[bias_correction=complement,step=t-1]",
            "Adam[bias_correction=true,step=t-1]",
            "Adam[bias_correction=first,step=t-1]",
            "Adam[bias_correction=second,step=t-1]",
        ),
        regimes=_ALL_REGIMES,
        labels=(f"betas=0.6,0.7,eps=0.001,{_CHANGING}",),
        claims={
            "torch": "Adam[bias_correction=true]",
            "optax": "Adam[bias_correction=true]",
            "keras": "Adam[bias_correction=true,eps=before_correction]",
        },
        fused=True,
        single=frozenset({"optax", "keras"}),  # 1 − β₂ᵗ
        beyond={},
        starts=(
            ({"learning_rate": 0.5, "betas": (0.9, 0.99), "eps": 0.25}, (-2, 0, -3, -6)),
            ({"learning_rate": 0.3, "betas": (0.6, 0.7), "eps": 0.5}, (-3, 0, 0, 0)),
            ({"learning_rate": 0.01, "betas": (0.9, 0.999), "eps": 1e-3}, (-5, 0, 0, -4)),
        ),
    ),
    "AdamW": Expected(
        signature="(learning_rate, betas=(0.9, 0.999), eps=1e-08, weight_decay=0.01)",
        row="AdamW(learning_rate[, betas, eps, weight_decay])",
        cites=True,
        ranges={"learning_rate": AT_LEAST_0, "betas": PAIR_BELOW_1, "eps": AT_LEAST_0, "weight_decay": AT_LEAST_0},
        allowed=dict,
        slots=("m", "v"),
        lines=(80, 25),
        examples=(36, 5),
        step=adamw,
        changes={
            **_SWAPPED,
            **_NO_EPS,
            "no decay": (("keep * w", "w"),),
            "decay after the step": (
                ("keep * w - rate * m / (np.sqrt(v) + eps)", "keep * (w - rate * m / (np.sqrt(v) + eps))"),
            ),
        },
        unnoticed=frozenset(),
        calls=13,
        full={},
        settings=({}, {"betas": (0.3, 0.2), "eps": 0}, {"betas": (0, 0), "weight_decay": 0}),
        bitwise=tuple(
            {**given, "weight_decay": weight_decay} for given in _MOMENTS_IN_MLX for weight_decay in (0.0, 0.01, 0.3)
        ),
        training={"learning_rate": 1e-3},
        switched=(),
        odd=frozenset({"w", "m"}),
        scaled={"w": 0, "g": 1, "eps": 1},
        scales={"w": 0, "m": 1, "v": 2},
        squares=True,
        lost=True,
        stuck=True,
        decay=0.01,
        idle=frozenset(),
        infinity=_MOMENTS,
        decays=(({"betas": (0.0, 0.0), "eps": 2.0, "weight_decay": 0.5}, ((0.5, 2.0, 4.0), None)),),
        rational=None,
        axes={
            **_ADAM_AXES,
            "weight_decay": "decoupled coupled after unscaled ignored corrected constant schedule first_rate",
        },
        by_hand=(
            ("", 1.0, 2.0, {**_HALF, "weight_decay": 0.25}, 0.875 - 0.5 / 1.25),
            ("weight_decay=after", 1.0, 2.0, {**_HALF, "weight_decay": 0.25}, about(0.875 * (1 - 0.5 / 1.25))),
            ("weight_decay=constant", 2.0, 2.0, {**_HALF, "weight_decay": 0.25}, about(2 - 0.125 - 0.5 / 1.25)),
            (
                "bias_correction=true,weight_decay=corrected",  # by √¼/¼ = 2
                1.0,
                2.0,
                {**_HALF, "betas": (0.75, 0.75), "weight_decay": 0.25},
                about(1 - 2 * 0.125 - 1 / 2.25),
            ),
            ("weight_decay=schedule", 1.0, (0.0, 0.0, 0.0), _RATES | {"weight_decay": 0.5}, 0.5 * 0.75 * 0.875),
            ("weight_decay=first_rate", 1.0, (0.0, 0.0, 0.0), _RATES | {"weight_decay": 0.5}, 0.75**3),
            ("scaled=step:0.5", 1.0, 2.0, {**_HALF, "weight_decay": 0.25}, about(0.875 - 0.25 / 1.25)),
        ),
        corrected=("AdamW[bias_correction=first]", "AdamW[bias_correction=second]"),
        without_value=(
            "AdamW[bias_correction=complement,step=t-1]",
            "AdamW[bias_correction=true,step=t-1]",
            "AdamW[bias_correction=first,step=t-1]",
            "AdamW[bias_correction=second,step=t-1]",
        ),
        regimes=_ALL_REGIMES,
        labels=(f"betas=0.6,0.7,eps=0.001,{_CHANGING},weight_decay=0.3",),
        claims={
            "torch": "AdamW[bias_correction=true]",
            "optax": "AdamW[bias_correction=true]",
            "keras": "AdamW[bias_correction=true,eps=before_correction]",
        },
        fused=True,
        single=frozenset({"optax", "keras"}),  # 1 − β₂ᵗ
        beyond={},
        starts=(
            ({"learning_rate": 0.5, "betas": (0.9, 0.99), "eps": 0.25, "weight_decay": 0.3}, (-2, 0, -3, -6)),
            ({"learning_rate": 0.3, "betas": (0.6, 0.7), "eps": 0.5, "weight_decay": 0.6}, (-3, 0, 0, 0)),
            ({"learning_rate": 0.01, "betas": (0.9, 0.999), "eps": 1e-3, "weight_decay": 0.3}, (-5, 0, 0, -4)),
        ),
    ),
    "Adamax": Expected(
        signature="(learning_rate, betas=(0.9, 0.999), eps=1e-08)",
        row="Adamax(learning_rate[, betas, eps])",
        cites=True,
        ranges={"learning_rate": AT_LEAST_0, "betas": PAIR_BELOW_1, "eps": AT_LEAST_0},
        allowed=dict,
        slots=("m", "v"),
        lines=(80, 25),
        examples=(33, 5),
        step=adamax,
        changes={
            **_SWAPPED,
            "no ε": (("v + eps", "v"),),
            "ε in the maximum": (("np.abs(g)", "np.abs(g) + eps"), ("v + eps", "v")),
        },
        unnoticed=frozenset(),
        calls=10,
        full={},
        settings=({}, {"betas": (0.3, 0.2), "eps": 0}, {"betas": (0, 0), "eps": 0.5}),
        bitwise=_MOMENTS_IN_MLX,
        training={"learning_rate": 2e-3},
        switched=(),
        odd=frozenset({"w", "m"}),
        scaled={"w": 0, "g": 1, "eps": 1},
        scales={"w": 0, "m": 1, "v": 1},
        squares=False,
        lost=True,
        stuck=True,
        decay=0.0,
        idle=frozenset(),
        infinity=_MOMENTS,
        decays=(
            ({"betas": (0.0, 0.0), "eps": 2.0}, ((0.75, 2.0, 2.0), (0.75 + 2 / 6, -4.0, 4.0))),
            ({"betas": (0.25, 0.25), "eps": 0.0}, ((0.625, 1.5, 2.0), (0.625 + 2.625 / 8, -2.625, 4.0))),
        ),
        rational=(
            {"learning_rate": "0.1", "betas": ("0.9", "0.7"), "eps": "0.001"},
            lambda w, g, h: w - h["learning_rate"] * (1 - h["betas"][0]) * g / (abs(g) + h["eps"]),
        ),
        axes={
            "betas": "given swapped complement",
            "bias_correction": "false true adam",
            "eps": "outside_sqrt inside_max ignored stored",
            "gradients": "all nonzero",
            "initial": "zero gradient",
            "learning_rate": "given first previous",
            "state": "kept dropped",
            "step": "t t-1 t+1 2t 1",
            "v": "max undecayed plain",
        },
        by_hand=(
            # m = 1, v = 2
            ("", 0.0, 2.0, _HALF, pytest.approx(-0.5 / 2.25)),
            ("eps=inside_max", 0.0, 2.0, _HALF, pytest.approx(-0.5 / 2.25)),
            ("bias_correction=true", 0.0, 2.0, _HALF, pytest.approx(-1 / 2.25)),
            ("bias_correction=adam", 0.0, 2.0, _HALF, about(-0.5 / 2.25)),
            ("betas=complement", 0.0, 2.0, {**_HALF, "betas": (0.75, 0.75)}, about(-0.75 / 2.25)),
            ("eps=ignored", 0.0, (0.0, 2.0), _HALF, -0.25),
            ("eps=stored", 0.0, (2.0, 0.0), _HALF, about(-0.5 / 2.25 - 0.25 / 1.9375)),
            ("gradients=nonzero", 0.0, (2.0, 0.0), _HALF, about(-0.5 / 2.25)),
            ("initial=gradient", 0.0, 2.0, _HALF, about(-1 / 3.25)),
            ("state=dropped", 0.0, (2.0, 2.0), _HALF, about(-1 / 2.25)),
            ("v=undecayed", 0.0, (2.0, 0.0), _HALF, about(-0.75 / 2.25)),
            ("v=plain", 0.0, -2.0, _HALF, 2.0),
        ),
        corrected=(),
        without_value=("Adamax[bias_correction=adam,step=t-1]", "Adamax[bias_correction=true,step=t-1]"),
        regimes=_ALL_REGIMES,
        labels=(f"betas=0.6,0.7,eps=0.001,{_CHANGING}",),
        claims={
            "torch": "Adamax[bias_correction=true,eps=inside_max]",
            "optax": "Adamax[bias_correction=true,eps=inside_max]",
            "keras": "Adamax[bias_correction=true]",
        },
        fused=False,
        single=frozenset({"optax", "keras"}),  # 1 − β₁ᵗ, with β₁ = 0.9999
        beyond={},
        starts=(
            ({"learning_rate": 0.5, "betas": (0.9, 0.99), "eps": 0.25}, (-4, 0, -3, 0)),
            ({"learning_rate": 0.3, "betas": (0.6, 0.7), "eps": 1.0}, (-3, 0, 0, 1)),
            ({"learning_rate": 0.01, "betas": (0.9, 0.999), "eps": 1e-3}, (-7, 0, 0, 0)),
        ),
    ),
    "Lion": Expected(
        signature="(learning_rate, betas=(0.9, 0.99), weight_decay=0.0)",
        row="Lion(learning_rate[, betas, weight_decay])",
        cites=True,
        ranges={"learning_rate": AT_LEAST_0, "betas": PAIR_BELOW_1, "weight_decay": AT_LEAST_0},
        allowed=dict,
        slots=("m",),
        lines=(80, 25),
        examples=(26, 5),
        step=lion,
        changes={
            **_SWAPPED,
            "sign of m": (("np.sign(c)", "np.sign(m)"),),
            "no decay": (("keep * w", "w"),),
            "decay after the step": (("keep * w - rate * np.sign(c)", "keep * (w - rate * np.sign(c))"),),
        },
        unnoticed=frozenset(),
        calls=10,
        full={"weight_decay": 0.1},
        settings=({}, {"betas": (0.3, 0.2), "weight_decay": 0.1}, {"betas": (0, 0)}),
        bitwise=tuple(
            {"learning_rate": rate, "betas": betas, "weight_decay": weight_decay}
            for rate, betas in ((1e-4, (0.9, 0.99)), (0.3, (0.6, 0.7)), (0.01, (0.2, 0.0)))
            for weight_decay in (0.0, 0.1, 0.3)
        ),
        training={"learning_rate": 1e-4, "weight_decay": 0.1},
        switched=(),
        odd=frozenset({"w", "m"}),
        scaled={"w": 0, "g": 1},
        scales={"w": 0, "m": 1},
        squares=False,
        lost=False,
        stuck=False,
        decay=0.0,
        idle=frozenset(),
        infinity={"m": ("inf", "-inf")},
        decays=(
            ({"betas": (0.0, 0.0)}, ((0.5, 2.0), (1.0, -4.0))),
            ({"betas": (0.25, 0.0)}, ((0.5, 2.0), (1.0, -4.0))),
            ({"betas": (0.0, 0.25), "weight_decay": 0.5}, ((0.25, 1.5), (0.6875, -2.625))),
        ),
        rational=(
            {"learning_rate": "0.1", "betas": ("0.9", "0.7"), "weight_decay": "0.3"},
            lambda w, g, h: (1 - h["learning_rate"] * h["weight_decay"]) * w - h["learning_rate"] * ((g > 0) - (g < 0)),
        ),
        axes={
            "betas": "given swapped complement",
            "gradients": "all nonzero",
            "initial": "zero gradient",
            "learning_rate": "given first previous",
            "sign": "direction momentum gradient ignored",
            "state": "kept dropped",
            "weight_decay": "decoupled coupled after unscaled ignored direction_only schedule",
        },
        by_hand=(
            ("weight_decay=coupled", -1.0, 0.125, _DECAY, -0.5),
            ("", -1.0, 0.125, _DECAY, -0.875 - 0.5),
            ("weight_decay=direction_only", 1.0, -0.125, {**_DECAY, "betas": (0.5, 0.5)}, 1 - 0.5),
            ("weight_decay=schedule", 1.0, (0.0, 0.0, 0.0), _RATES | {"weight_decay": 0.5}, 0.5 * 0.75 * 0.875),
            ("sign=gradient", 0.0, (1.0, -0.25), {"learning_rate": 0.5, "betas": (0.5, 0.5)}, 0.0),
            ("", 0.0, (1.0, -0.25), {"learning_rate": 0.5, "betas": (0.5, 0.5)}, -1.0),
            ("sign=ignored", 0.0, 1.0, {"learning_rate": 0.5, "betas": (0.5, 0.5)}, -0.25),
            ("betas=complement", 0.0, (1.0, -0.5), {"learning_rate": 0.5, "betas": (0.25, 0.75)}, -1.0),
            ("", 0.0, (1.0, -0.5), {"learning_rate": 0.5, "betas": (0.25, 0.75)}, 0.0),
            ("state=dropped", 0.0, (1.0, -0.25), {"learning_rate": 0.5, "betas": (0.5, 0.5)}, 0.0),
            ("gradients=nonzero", 0.0, (1.0, 0.0), {"learning_rate": 0.5, "betas": (0.5, 0.5)}, -0.5),
        ),
        corrected=(),
        without_value=(),
        regimes=(*_ALL_REGIMES, "edge"),
        labels=(f"betas=0.6,0.7,{_CHANGING},weight_decay=0.3",),
        claims={"torch": None, "optax": "Lion", "keras": "Lion"},
        fused=False,
        single=frozenset({"keras"}),  # 1 − β
        beyond={"keras": ("lion/tiny/betas=0.0,0.4", "keras.optimizers.Lion takes no β₁ of 0")},
        starts=tuple(
            ({"learning_rate": rate, "betas": betas, "weight_decay": kappa}, exponents)
            for rate, betas, kappa, exponents in (
                (0.25, (0.9, 0.99), 0.3, (-2, 0, -3)),
                (0.3, (0.9, 0.99), 0.6, (-2, 0, -4)),
                (0.3, (0.6, 0.7), 0.3, (-3, 0, 0)),
                (0.01, (0.6, 0.7), 1.0, (-7, 0, -1)),
                (0.01, (0.95, 0.98), 0.1, (0, 0, -4)),
                # next to the middle of two numbers of 6 bits, from where rounding moves a coefficient most
                (0.26171875 - 1e-9, (0.95263671875, 0.9881591796875 + 1e-9), 0.43359375 - 1e-9, (-6, 0, -4)),
                (0.6640625 + 1e-9, (0.51953125 + 1e-9, 0.96826171875), 0.26953125 + 1e-9, (-1, 0, 0)),
            )
        ),
    ),
}

_OFF_BY_ONE = {"steps counted from 2": (("int(h.step)", "int(h.step) + 1"),)}
_ALONE = {
    "the first moment alone corrected": ((" * second", ""),),
    "the second moment alone corrected": (("first * m", "real(h.learning_rate) * m"),),
}

_LATER: Mapping[str, Expected] = {
    "BiasCorrectedAdam": replace(
        _EIGHT["Adam"],
        row="BiasCorrectedAdam(learning_rate[, betas, eps])",
        examples=(31, 5),
        step=bias_corrected_adam,
        changes={**_SWAPPED, "no ε": ((" + real(h.eps)", ""),), **_OFF_BY_ONE, **_ALONE},
        calls=13,
        bitwise=(),  # powf decides: tests/test_bias_corrected.py
        decays=(
            ({"betas": (0.0, 0.0), "eps": 2.0}, ((0.75, 2.0, 4.0), (0.75 + 2 / 6, -4.0, 16.0))),
            # m̂ = 1.5/0.75, then −2.625/0.9375
            ({"betas": (0.25, 0.0), "eps": 2.0}, ((0.75, 1.5, 4.0), (0.75 + 1.4 / 6, -2.625, 16.0))),
        ),
        axes={},
        by_hand=(("", 0.0, 2.0, _HALF, about(-1 / 2.25)),),
        corrected=(),
        without_value=(),
        single=frozenset({"mlx", "optax", "keras"}),  # 1 − β₂ᵗ
    ),
    "BiasCorrectedAdamW": replace(
        _EIGHT["AdamW"],
        row="BiasCorrectedAdamW(learning_rate[, betas, eps, weight_decay])",
        examples=(33, 5),
        step=bias_corrected_adamw,
        changes={
            **_SWAPPED,
            "no ε": ((" + real(h.eps)", ""),),
            "no decay": (("keep * w", "w"),),
            **_OFF_BY_ONE,
            **_ALONE,
        },
        calls=14,
        bitwise=(),
        axes={},
        by_hand=(("", 1.0, 2.0, {**_HALF, "weight_decay": 0.25}, about(0.875 - 1 / 2.25)),),
        corrected=(),
        without_value=(),
        single=frozenset({"mlx", "optax", "keras"}),
    ),
}

EXPECTED: Mapping[str, Expected] = {**_EIGHT, **_LATER}
"""The records, in the order of the tables."""

EIGHT, LATER, NAMES = tuple(_EIGHT), tuple(_LATER), tuple(EXPECTED)
"""The names of the optimizers of the first table, of those that MLX added later, and of both."""

WHOLE = ("Adafactor", "Muon")
"""The names of those whose rule needs whole arrays, which stand last; each has a file of tests of its own."""

AXES_OF_WHOLE: Mapping[str, Mapping[str, str]] = {
    "Adafactor": {
        "clip": "rms norm ignored",
        "eps": "added clamped ignored",
        "exp_avg": "scaled direction",
        "learning_rate": "given capped",
        "mean": "last all",
        "scale": "eps_2 eps_1 added",
        "step": "t t+1",
        "weight_decay": "scaled learning_rate first unscaled ignored",
    },
    "Muon": {
        "bias_correction": "false true",
        "buffer": "ema sum",
        "coefficients": "given classical",
        "eps": "added least 1e-08",
        "nesterov": "given ignored",
        "precision": "own bfloat16",
        "scale": "rows flattened columns rms none",
        "weight_decay": "coupled decoupled adjusted ignored",
    },
}
"""The values of their axes but ``ignored``, the default first."""

CLASSES = tuple(getattr(mlx_optimizers, name) for name in NAMES)
"""The classes."""

FORMULAS = tuple(
    dict.fromkeys(
        formula
        for name, expected in EXPECTED.items()
        for formula in (name, *expected.claims.values())
        if formula is not None
    )
)
"""The formulas of the pages, and those that torch, optax and Keras claim."""

SQUARING = tuple(name for name, expected in EXPECTED.items() if expected.squares)
"""Those with squares of gradients in v."""

each_of_eight = pytest.mark.parametrize("name", EIGHT)
each_class_of_eight = pytest.mark.parametrize("made", CLASSES[: len(EIGHT)], ids=EIGHT)
"""The marks of a test of what those of the first table have, such as the bits of MLX."""

each_name = pytest.mark.parametrize("name", NAMES)
each_class = pytest.mark.parametrize("made", CLASSES, ids=NAMES)
"""The marks of a test that runs for every optimizer."""


def record_of(made: type) -> Expected:
    """Look up the record of a class."""
    return EXPECTED[made.__name__]
