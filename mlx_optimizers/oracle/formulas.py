"""Formulas as axes: every optimizer's formula with the places where implementations are known to differ.

An `Axis` says what may differ, for whom, and where it was found; a step below computes whatever the axes say. With
every axis at its default a step gives what the optimizer's own ``exact`` gives, bit for bit.

A name is the optimizer's, with what differs in brackets: ``Adam[bias_correction=true,eps=inside_sqrt]``.
"""

from __future__ import annotations

import inspect
import math
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from itertools import combinations, product
from typing import Any

import mlx_optimizers
from mlx_optimizers.oracle.formula import Formula

__all__ = ["AXES", "Axis", "Value", "axes_of", "in_words", "name_of", "parse", "split", "variants"]

Choice = Mapping[str, str]


@dataclass(frozen=True)
class Value:
    """One way to differ.

    Args:
        words: What a sentence "computes Adam with …" says of it.
        found: Where it is found.
    """

    words: str
    found: str


@dataclass(frozen=True)
class Axis:
    """One thing that implementations do differently.

    Args:
        name: The key in brackets.
        values: For each optimizer its values, the default first. The axis ``ignored`` takes any ``NAME:VALUE``
            besides; those listed are the ones that a diagnosis tries.
        meaning: What each value but the default means, and where it is found.
        needs: Whether the axis means anything beside the other choices.
    """

    name: str
    values: Mapping[str, tuple[str, ...]]
    meaning: Mapping[str, Value]
    needs: Callable[[Choice], bool] = lambda choice: True


def _corrected(choice: Choice) -> bool:
    return choice.get("bias_correction", "false") != "false"


_FIRST = ("true", "first")
_SECOND = ("true", "second")
_SHIFT = {"t": 0, "t-1": -1, "t+1": 1}
_ADAMS = ("Adam", "AdamW")
_RATES = tuple(f"learning_rate:{value}" for value in ("1", "0.001", "0.01", "0.1"))
_EPSILONS = tuple(f"eps:{value}" for value in ("1e-10", "1e-08", "1e-07", "1e-06", "0.001"))
_BETAS = tuple(f"betas:{value}" for value in ("0.9,0.999", "0.9,0.99", "0.95,0.98"))
_DECAYS = tuple(f"weight_decay:{value}" for value in ("0.0001", "0.001", "0.004", "0.01"))

AXES = (
    Axis(
        "betas",
        dict.fromkeys((*_ADAMS, "Adamax", "Lion"), ("given", "swapped")),
        {"swapped": Value("β₁ and β₂ swapped", "ports that unpack the pair in the wrong order")},
    ),
    Axis(
        "bias_correction",
        {**dict.fromkeys(_ADAMS, ("false", "true", "first", "second")), "Adamax": ("false", "true")},
        {
            "true": Value("bias correction", "the paper; torch, optax and Keras; MLX with bias_correction=True"),
            "first": Value("the first moment alone corrected", "ports that correct as Adamax does"),
            "second": Value("the second moment alone corrected", "ports that leave the first moment as it is"),
        },
    ),
    Axis(
        "buffer",
        {"SGD": ("plain", "scaled")},
        {"scaled": Value("the learning rate inside the momentum buffer", "Keras")},
    ),
    Axis(
        "dampening",
        {"SGD": ("always", "not_first", "ignored")},
        {
            "not_first": Value("no dampening in the first step", "torch, and MLX 0.1.0"),
            "ignored": Value("no dampening", "optax and Keras, which have none"),
        },
    ),
    Axis(
        "eps",
        {
            **dict.fromkeys(("RMSprop", "Adagrad"), ("outside_sqrt", "inside_sqrt")),
            "AdaDelta": ("outside_sqrt", "denominator_only"),
            **dict.fromkeys(_ADAMS, ("outside_sqrt", "inside_sqrt", "before_correction")),
            "Adamax": ("outside_sqrt", "inside_max"),
        },
        {
            "inside_sqrt": Value(
                "ε inside the square root",
                "optax and Keras, RMSprop and Adagrad; MLX's documentation of Adam until 0.27.1",
            ),
            "before_correction": Value(
                "ε added before the correction", "Keras Adam and AdamW; the ε̂ of a remark in the paper"
            ),
            "inside_max": Value("ε inside the maximum", "torch and optax, Adamax"),
            "denominator_only": Value(
                "ε in the denominator alone", "ports of AdaDelta with one ε; from a zero state nothing ever moves"
            ),
        },
    ),
    Axis(
        "ignored",
        {
            "SGD": ("none", *_RATES, "momentum:0.9", "momentum:0", *_DECAYS),
            "RMSprop": ("none", *_RATES, "alpha:0.99", "alpha:0.9", *_EPSILONS),
            "Adagrad": ("none", *_RATES, *_EPSILONS),
            "AdaDelta": ("none", *_RATES, "rho:0.9", "rho:0.95", *_EPSILONS),
            "Adam": ("none", *_RATES, *_BETAS, *_EPSILONS),
            "AdamW": ("none", *_RATES, *_BETAS, *_EPSILONS, *_DECAYS),
            "Adamax": ("none", *_RATES, *_BETAS, *_EPSILONS),
            "Lion": ("none", *_RATES, *_BETAS, *_DECAYS),
        },
        {"NAME:VALUE": Value("NAME left at VALUE", "ports that leave a hyperparameter at a framework's own default")},
    ),
    Axis(
        "initial",
        {**dict.fromkeys((*_ADAMS, "Lion"), ("zero", "gradient")), "Adagrad": ("zero", "0.1")},
        {
            "gradient": Value("a state that starts from the first gradient", "MLX before 0.2.0: m = g, v = g²"),
            "0.1": Value("an accumulator that starts at 0.1", "optax and Keras, Adagrad"),
        },
    ),
    Axis(
        "nesterov",
        {"SGD": ("given", "ignored")},
        {"ignored": Value("no Nesterov momentum", "ports without it")},
    ),
    Axis(
        "sign",
        {"Lion": ("direction", "momentum")},
        {"momentum": Value("the sign of the updated momentum", "ports that mix Lion up with signSGD")},
    ),
    Axis(
        "step",
        dict.fromkeys((*_ADAMS, "Adamax"), ("t", "t-1", "t+1")),
        {
            "t-1": Value(
                "steps counted from 0",
                "ports that divide by 1−β⁰ = 0 at first; all is NaN, so that no diagnosis names it",
            ),
            "t+1": Value("steps counted from 2", "ports that count the step before and after"),
        },
        _corrected,
    ),
    Axis(
        "u",
        {"AdaDelta": ("updated", "frozen")},
        {"frozen": Value("u left at zero", "MLX until 0.0.11, which read one slot and wrote another")},
    ),
    Axis(
        "weight_decay",
        {
            "SGD": ("coupled", "decoupled", "after", "unscaled", "ignored", "momentum_only"),
            **dict.fromkeys(("AdamW", "Lion"), ("decoupled", "coupled", "after", "unscaled", "ignored")),
        },
        {
            "coupled": Value("weight decay added to the gradient", "Adam with L2 regularization"),
            "decoupled": Value("decoupled weight decay", "Keras SGD"),
            "after": Value("weight decay after the step", "ports that shrink the updated parameter"),
            "unscaled": Value("weight decay without the learning rate", "ports that shrink by κ instead of λκ"),
            "ignored": Value("no weight decay", "ports without it"),
            "momentum_only": Value("weight decay with momentum alone", "MLX until 0.0.11"),
        },
    ),
)
"""Every axis, sorted by name."""

_KEYED = {axis.name: axis for axis in AXES}


def axes_of(optimizer: str) -> dict[str, tuple[str, ...]]:
    """The axes of one optimizer with their values, the default first."""
    return {axis.name: axis.values[optimizer] for axis in AXES if optimizer in axis.values}


# One step of each optimizer, whatever the axes `a` say. The letters are those of the pages.


def _sgd(a: Choice, n: Any, h: Any, t: int, w: Any, g: Any, v: Any) -> tuple[Any, ...]:
    coupled = a["weight_decay"] == "coupled" or (a["weight_decay"] == "momentum_only" and h.momentum != 0)
    if coupled:
        g = g + h.weight_decay * w
    w = _decayed_before(a, n, h, w)
    rate = h.learning_rate
    if a["buffer"] == "scaled":
        g, rate = rate * g, 1
    if h.momentum == 0:
        d = g
    else:
        damped = a["dampening"] == "always" or (a["dampening"] == "not_first" and t > 1)
        v = h.momentum * v + ((1 - h.dampening) * g if damped else g)
        d = g + h.momentum * v if h.nesterov and a["nesterov"] == "given" else v
    w = w - (d if a["buffer"] == "scaled" else rate * d)
    return _decayed_after(a, n, h, w), v


def _rmsprop(a: Choice, n: Any, h: Any, t: int, w: Any, g: Any, v: Any) -> tuple[Any, ...]:
    v = h.alpha * v + (1 - h.alpha) * g**2
    return w - h.learning_rate * g / _root(a, n, h, v), v


def _adagrad(a: Choice, n: Any, h: Any, t: int, w: Any, g: Any, v: Any) -> tuple[Any, ...]:
    v = v + g**2
    return w - h.learning_rate * g / _root(a, n, h, v), v


def _adadelta(a: Choice, n: Any, h: Any, t: int, w: Any, g: Any, v: Any, u: Any) -> tuple[Any, ...]:
    v = h.rho * v + (1 - h.rho) * g**2
    above = u + h.eps if a["eps"] == "outside_sqrt" else u
    d = n.sqrt(above) / n.sqrt(v + h.eps) * g
    if a["u"] == "updated":
        u = h.rho * u + (1 - h.rho) * d**2
    return w - h.learning_rate * d, v, u


def _adam(a: Choice, n: Any, h: Any, t: int, w: Any, g: Any, m: Any, v: Any) -> tuple[Any, ...]:
    b1, b2 = h.betas
    if a.get("weight_decay") == "coupled":
        g = g + h.weight_decay * w
    w = _decayed_before(a, n, h, w)
    m = b1 * m + (1 - b1) * g
    v = b2 * v + (1 - b2) * g**2
    steps = t + _SHIFT[a["step"]]
    before = a["eps"] == "before_correction"
    first = m / (1 - b1**steps) if a["bias_correction"] in _FIRST else m
    second = v / (1 - b2**steps) if a["bias_correction"] in _SECOND and not before else v
    rate = h.learning_rate * n.sqrt(1 - b2**steps) if before else h.learning_rate
    w = w - rate * first / _root(a, n, h, second)
    return _decayed_after(a, n, h, w), m, v


def _adamax(a: Choice, n: Any, h: Any, t: int, w: Any, g: Any, m: Any, v: Any) -> tuple[Any, ...]:
    b1, b2 = h.betas
    m = b1 * m + (1 - b1) * g
    inside = a["eps"] == "inside_max"
    v = n.max(b2 * v, n.abs(g) + h.eps if inside else n.abs(g))
    first = m / (1 - b1 ** (t + _SHIFT[a["step"]])) if a["bias_correction"] in _FIRST else m
    return w - h.learning_rate * first / (v if inside else v + h.eps), m, v


def _lion(a: Choice, n: Any, h: Any, t: int, w: Any, g: Any, m: Any) -> tuple[Any, ...]:
    b1, b2 = h.betas
    if a["weight_decay"] == "coupled":
        g = g + h.weight_decay * w
    c = b1 * m + (1 - b1) * g
    m = b2 * m + (1 - b2) * g
    w = _decayed_before(a, n, h, w)
    w = w - h.learning_rate * n.sign(c if a["sign"] == "direction" else m)
    return _decayed_after(a, n, h, w), m


def _root(a: Choice, n: Any, h: Any, v: Any) -> Any:
    return n.sqrt(v + h.eps) if a["eps"] == "inside_sqrt" else n.sqrt(v) + h.eps


def _decayed_before(a: Choice, n: Any, h: Any, w: Any) -> Any:
    kind = a.get("weight_decay")
    if kind == "decoupled":
        return (1 - n.lift(h.learning_rate) * h.weight_decay) * w
    return (1 - h.weight_decay) * w if kind == "unscaled" else w


def _decayed_after(a: Choice, n: Any, h: Any, w: Any) -> Any:
    return (1 - n.lift(h.learning_rate) * h.weight_decay) * w if a.get("weight_decay") == "after" else w


_STEPS: dict[str, Callable[..., tuple[Any, ...]]] = {
    "SGD": _sgd,
    "RMSprop": _rmsprop,
    "Adagrad": _adagrad,
    "AdaDelta": _adadelta,
    "Adam": _adam,
    "AdamW": _adam,
    "Adamax": _adamax,
    "Lion": _lion,
}


def _step(a: Choice, n: Any, h: Any, t: int, w: Any, g: Any, *slots: Any) -> tuple[Any, ...]:
    """One step under the axes that every optimizer has, then the optimizer's own."""
    if a["ignored"] != "none":
        h = _ignoring(a["ignored"], n, h)
    if a.get("betas") == "swapped":
        h = _replaced(h, "betas", h.betas[::-1])
    return _STEPS[a["optimizer"]](a, n, h, t, w, g, *slots)


def _ignoring(text: str, n: Any, h: Any) -> Any:
    name, value = text.split(":")
    numbers = tuple(n.number(float(item)) for item in value.split(","))
    return _replaced(h, name, numbers if name == "betas" else numbers[0])


def _replaced(h: Any, name: str, value: Any) -> Any:
    return type(h)(**{**vars(h), name: value})


def _initial(a: Choice, n: Any, h: Any, g: Any, *slots: Any) -> tuple[Any, ...]:
    """State before the first step."""
    if a["initial"] == "gradient":
        return (g, g**2)[: len(slots)]
    return tuple(slot + n.number(0.1) for slot in slots)


def split(name: str) -> tuple[str, dict[str, str]]:
    """A formula's name as an optimizer and the axes that are not at their default.

    Raises:
        ValueError: for an unknown optimizer, axis or value, or axes that mean nothing together.

    Example:
        >>> from mlx_optimizers.oracle.formulas import split
        >>> split("BiasCorrectedAdam")
        ('Adam', {'bias_correction': 'true'})
    """
    if name in ("BiasCorrectedAdam", "BiasCorrectedAdamW"):
        name = f"{name.removeprefix('BiasCorrected')}[bias_correction=true]"
    match = re.fullmatch(r"(\w+)(?:\[(.+)\])?", name)
    if match is None or match[1] not in _STEPS:
        raise ValueError(f"unknown formula {name!r}; optimizers are {', '.join(_STEPS)}")
    optimizer, choice = match[1], {}
    for item in re.split(r",(?=\w+=)", match[2]) if match[2] else ():
        key, _, value = item.partition("=")
        allowed = axes_of(optimizer)
        if key not in allowed:
            raise ValueError(f"unknown axis {key!r} of {optimizer} in {name!r}; it has {', '.join(allowed)}")
        if key in choice:
            raise ValueError(f"axis {key!r} stands twice in {name!r}")
        if value not in allowed[key] and not (key == "ignored" and _is_ignorable(optimizer, value)):
            raise ValueError(f"unknown value {value!r} of axis {key!r} in {name!r}; it has {', '.join(allowed[key])}")
        if value != allowed[key][0]:
            choice[key] = value
    _require_meaning(optimizer, choice)
    return optimizer, choice


def _is_ignorable(optimizer: str, text: str) -> bool:
    name, _, value = text.partition(":")
    known = inspect.signature(_optimizer(optimizer)).parameters
    number = r"\d+(\.\d+)?(e[+-]?\d+)?"
    pattern = f"{number},{number}" if name == "betas" else number
    if name not in known or name == "nesterov" or re.fullmatch(pattern, value, re.ASCII) is None:
        return False
    return all(math.isfinite(float(item)) for item in value.split(","))


def _require_meaning(optimizer: str, choice: Choice) -> None:
    for key in choice:
        if not _KEYED[key].needs(choice):
            raise ValueError(f"{name_of(optimizer, choice)!r}: axis {key!r} means nothing without a bias correction")
    if choice.get("eps") == "before_correction" and choice.get("bias_correction") not in _SECOND:
        raise ValueError(f"{name_of(optimizer, choice)!r}: ε before the correction needs one of the second moment")


def name_of(optimizer: str, choice: Choice) -> str:
    """The name of a formula: keys sorted, defaults left out."""
    text = ",".join(f"{key}={choice[key]}" for key in sorted(choice))
    return f"{optimizer}[{text}]" if text else optimizer


def in_words(name: str) -> str:
    """A formula as a phrase.

    Example:
        >>> from mlx_optimizers.oracle.formulas import in_words
        >>> in_words("Adam[bias_correction=true,ignored=eps:1e-08]")
        'Adam with bias correction and eps left at 1e-08'
    """
    optimizer, choice = split(name)
    words = []
    for key, value in choice.items():
        if key == "ignored":
            words.append(" left at ".join(value.split(":")))
        else:
            words.append(_KEYED[key].meaning[value].words)
    return f"{optimizer} with {' and '.join(words)}" if words else f"{optimizer} as documented"


def _optimizer(name: str) -> type[mlx_optimizers.Optimizer]:
    return next(optimizer for optimizer in mlx_optimizers.OPTIMIZERS if optimizer.__name__ == name)


def parse(name: str) -> Formula:
    """The formula that a name stands for.

    Args:
        name: An optimizer's name, with the axes that differ in brackets; ``BiasCorrectedAdam`` and
            ``BiasCorrectedAdamW`` stand for the bracket form.

    Returns:
        The formula, under its canonical name.

    Raises:
        ValueError: for an unknown optimizer, axis or value.

    Example:
        >>> from mlx_optimizers.conformance import parse
        >>> parse("AdamW[eps=inside_sqrt,bias_correction=true]").name
        'AdamW[bias_correction=true,eps=inside_sqrt]'
    """
    optimizer, choice = split(name)
    full = {"optimizer": optimizer, **{key: values[0] for key, values in axes_of(optimizer).items()}, **choice}
    return Formula(
        name_of(optimizer, choice),
        _optimizer(optimizer),
        partial(_step, full),
        partial(_initial, full) if choice.get("initial") else None,
    )


def variants(optimizer: str, count: int) -> Iterator[str]:
    """The names of an optimizer's formulas that differ in exactly so many axes, but for those that mean nothing.

    Args:
        optimizer: Name of the optimizer.
        count: Number of axes that are not at their default.
    """
    axes = axes_of(optimizer)
    for keys in combinations(axes, count):
        for values in product(*(axes[key][1:] for key in keys)):
            choice = dict(zip(keys, values, strict=True))
            try:
                _require_meaning(optimizer, choice)
            except ValueError:
                continue
            yield name_of(optimizer, choice)
