"""Programs to be checked: plain NumPy, right ones in every published evaluation order, and wrong ones.

A program computes in the format of its arrays: a Python number that meets one is rounded to it.

Nothing here calls the package's own fast path or its exact steps, except `Evaluated`, which runs a named formula in
NumPy numbers to make the wrong programs of the axes. `plain` runs the steps of tests/expected.py, the rest is written
out here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import numpy as np

from mlx_optimizers.conformance import Case, Run, Verdict, cases_of, parse
from mlx_optimizers.conformance.verdict import Word
from mlx_optimizers.oracle import FORMATS, trajectory
from tests.expected import EIGHT, EXPECTED, LATER, WHOLE


class Program:
    """A backend around ``step(h, t, w, g, *slots) -> (w, *slots)`` over NumPy arrays."""

    device = "cpu"
    version = "1"

    def __init__(self, step: Callable[..., tuple[Any, ...]], claim: str | None = None, *, state: bool = True) -> None:
        self.name = getattr(step, "__name__", "program")
        self.step, self._claim, self._state = step, claim, state

    def claim(self, optimizer: str) -> str:
        return self._claim or optimizer

    def run(self, case: Case) -> Run:
        return Run.of_tree(case, self._steps(case))

    def first(self, case: Case) -> list[Any]:
        """The slots before the first step."""
        zeros = {name: np.zeros_like(case.parameter) for name in EXPECTED[case.optimizer].slots}
        return [np.array(values) for values in {**zeros, **case.state}.values()]

    def _steps(self, case: Case) -> Iterator[list[Any]]:
        rows = [(leaf.parameter.copy(), *self.first(leaf)) for leaf in case.each]
        for index in range(len(case.gradients)):
            h = SimpleNamespace(**case.at_step(index))
            gradients = [leaf.gradients[index, ...].copy() for leaf in case.each]
            with np.errstate(all="ignore"):
                rows = [self.stepped(h, case.step + index + 1, row, g) for row, g in zip(rows, gradients, strict=True)]
            names = EXPECTED[case.optimizer].slots if self._state else ()
            shown = [dict(zip(names, slots, strict=False)) for _, *slots in rows]
            yield list(zip([w for w, *_ in rows], shown, gradients, strict=True))

    def stepped(self, h: Any, t: int, row: tuple[Any, ...], g: Any) -> tuple[Any, ...]:
        """Take the step of one parameter, in the format of its array."""
        real = row[0].dtype.type
        return tuple(np.asarray(x, real) for x in self.step(h, t, row[0], g, *row[1:]))


class _Numpy:
    """The context of formulas over float32 NumPy arrays and Python floats."""

    sqrt = staticmethod(np.sqrt)
    abs = staticmethod(np.abs)
    max = staticmethod(np.maximum)
    sign = staticmethod(np.sign)
    lift = staticmethod(np.float32)

    @staticmethod
    def where_zero(x: Any, zero: Any, other: Any) -> Any:
        return np.where(x == 0, np.float32(zero), np.float32(other))

    number = staticmethod(float)

    @staticmethod
    def clip(x: Any, bound: Any) -> Any:
        return np.clip(x, -bound, bound)

    @staticmethod
    def is_zero(x: Any) -> bool:
        return bool(x == 0)


class Evaluated(Program):
    """A named formula in float32."""

    def __init__(self, formula: str, *, state: bool = True) -> None:
        self._formula = parse(formula)
        super().__init__(self._evaluate, formula, state=state)
        self.name = formula

    def _evaluate(self, h: Any, t: int, w: Any, g: Any, *slots: Any) -> tuple[Any, ...]:
        if t == 1:
            self._more = [np.zeros_like(w) for _ in range(self._formula.more)]
            self._rates = [h.learning_rate]
        h.first_rate, h.previous_rate = self._rates[0], self._rates[-1]
        self._rates.append(h.learning_rate)
        if t == 1 and self._formula.initial is not None:
            slots = self._formula.initial(_Numpy, h, g, *slots)
        out: tuple[Any, ...] = self._formula.exact(_Numpy, h, t, w, g, *(np.float32(x) for x in (*slots, *self._more)))
        self._more = list(out[1 + len(slots) :])
        return tuple(np.float32(x) for x in out[: 1 + len(slots)])


class Stepped:
    """A step over whole arrays, ``step(h, t, w, g, slots) -> w`` with the hyperparameters and slots by their names."""

    name, version, device = "program", "1", "cpu"

    def __init__(self, step: Callable[..., Any], real: Any = np.float32, *, state: bool = False) -> None:
        self.step, self.real, self.state = step, real, state

    def claim(self, optimizer: str) -> str:
        return optimizer

    def run(self, case: Case) -> Run:
        return Run.of_tree(case, zip(*map(self._steps, case.each), strict=True))

    def _steps(self, case: Case) -> Iterator[Any]:
        w = case.parameter.astype(self.real)
        slots = {name: np.zeros(shape, self.real) for name, shape in case.slots.items()}
        slots.update({name: values.astype(self.real) for name, values in case.state.items()})
        for index, g in enumerate(case.gradients):
            with np.errstate(all="ignore"):
                h, t = case.at_step(index), case.step + index + 1
                w = np.asarray(self.step(h, t, w, g.astype(self.real), slots), self.real)
                shown = {name: slots[name].astype(np.float32) for name in case.slots} if self.state else {}
                yield w.astype(np.float32), shown, g


class Nearest(Stepped):
    """The correctly rounded steps of a formula."""

    def __init__(self, formula: Any) -> None:
        self.formula = formula

    def _steps(self, case: Case) -> Iterator[Any]:
        begun = {"step": case.step, "state": case.state}
        for entry, g in zip(
            trajectory(self.formula, case.parameter, case.gradients, **begun, **case.hyperparameters),
            case.gradients,
            strict=True,
        ):
            yield entry.parameter.nearest, {name: slot.nearest for name, slot in entry.state.items()}, g


def formula_cases() -> list[Case]:
    """List the cases of every formula, without those of the frame."""
    return [case for name in (*EXPECTED, *WHOLE) for case in cases_of(name)]


def plain(optimizer: str) -> Program:
    """Run the order of operations that tests/expected.py states."""
    step = EXPECTED[optimizer].step
    return Program(lambda h, t, w, g, *slots: step(w.dtype.type, SimpleNamespace(**vars(h), step=t), w, g, *slots))


# The evaluation orders. Each function below takes arrays and Python floats and is one way to write one thing.


def rounded(x: Any, like: Any) -> Any:
    """Round numbers to the format of an array."""
    return like.dtype.type(x)


def fma(a: Any, b: Any, c: Any) -> Any:
    """Compute a·b + c in one rounding, double rounding apart: the product of two float32 is exact in float64."""
    return rounded(np.float64(rounded(a, c)) * np.float64(b) + np.float64(c), c)


TAILS: dict[str, Callable[..., Any]] = {
    "(λa)/d": lambda w, rate, a, d: w - rate * a / d,
    "λ(a/d)": lambda w, rate, a, d: w - rate * (a / d),
    "a(λ/d)": lambda w, rate, a, d: w - a * (rate / d),
    "a/(d/λ)": lambda w, rate, a, d: w - a / (d / rate),
    "a(1/d)": lambda w, rate, a, d: w - rate * (a * (1 / d)),
    "fma": lambda w, rate, a, d: fma(-rate, a / d, w),
    "double": lambda w, rate, a, d: rounded(np.float64(w) - rate * np.float64(a) / np.float64(d), w),
}

MEANS: dict[str, Callable[..., Any]] = {
    "βm + (1−β)x": lambda b, m, x: b * m + (1 - b) * x,
    "fma of βm": lambda b, m, x: fma(b, m, (1 - b) * x),
    "fma of (1−β)x": lambda b, m, x: fma(1 - b, x, b * m),
    "interpolation": lambda b, m, x: m + (1 - b) * (x - m),
    "double": lambda b, m, x: rounded(b * np.float64(m) + (1 - b) * np.float64(x), x),
}

SQUARES: dict[str, Callable[..., Any]] = {
    "(1−β)(gg)": lambda b, v, g: b * v + (1 - b) * (g * g),
    "((1−β)g)g": lambda b, v, g: b * v + (1 - b) * g * g,
    "interpolation": lambda b, v, g: v + (1 - b) * (g * g - v),
    "fma": lambda b, v, g: fma((1 - b) * g, g, b * v),
    "double": lambda b, v, g: rounded(b * np.float64(v) + (1 - b) * np.float64(g) ** 2, g),
}

DECAYS: dict[str, Callable[..., Any]] = {
    "(1−λκ)w in double": lambda w, rate, kappa: (1 - rate * kappa) * w,
    "(1−λκ)w in float32": lambda w, rate, kappa: (rounded(1, w) - rounded(rate, w) * rounded(kappa, w)) * w,
    "w − λκw": lambda w, rate, kappa: w - rate * kappa * w,
    "w − λ(κw)": lambda w, rate, kappa: w - rate * (kappa * w),
}


def adam(tail: str = "(λa)/d", mean: str = "βm + (1−β)x", square: str = "(1−β)(gg)") -> Program:
    def step(h: Any, t: int, w: Any, g: Any, m: Any, v: Any) -> tuple[Any, ...]:
        b1, b2 = h.betas
        m, v = MEANS[mean](b1, m, g), SQUARES[square](b2, v, g)
        return TAILS[tail](w, h.learning_rate, m, np.sqrt(v) + h.eps), m, v

    return Program(step)


def adamw(decay: str, tail: str = "(λa)/d") -> Program:
    def step(h: Any, t: int, w: Any, g: Any, m: Any, v: Any) -> tuple[Any, ...]:
        b1, b2 = h.betas
        m, v = b1 * m + (1 - b1) * g, b2 * v + (1 - b2) * g * g
        d = np.sqrt(v) + h.eps
        if decay == "w − λ(x + κw)":
            return w - h.learning_rate * (m / d + h.weight_decay * w), m, v
        return TAILS[tail](DECAYS[decay](w, h.learning_rate, h.weight_decay), h.learning_rate, m, d), m, v

    return Program(step)


def corrected(way: str, optimizer: str = "Adam") -> Program:
    """Adam with bias correction, or AdamW, in one of six ways."""

    def step(h: Any, t: int, w: Any, g: Any, m: Any, v: Any) -> tuple[Any, ...]:
        b1, b2 = h.betas
        m, v = b1 * m + (1 - b1) * g, b2 * v + (1 - b2) * g * g
        c1, c2, rate, eps = 1 - b1**t, 1 - b2**t, h.learning_rate, h.eps
        if optimizer == "AdamW":
            w = DECAYS["(1−λκ)w in float32"](w, rate, h.weight_decay)
        if way == "m̂/(√v̂ + ε)":
            w = w - rate * (m / c1) / (np.sqrt(v / c2) + eps)
        elif way == "(λ/c₁)m/(√v/√c₂ + ε)":
            w = w - (rate / c1) * m / (np.sqrt(v) / c2**0.5 + eps)
        elif way == "inverses":
            w = w - rate * (m * (1 / c1)) / (np.sqrt(v * (1 / c2)) + eps)
        elif way == "λ√c₂/c₁ · m/(√v + ε√c₂)":
            w = w - (rate * c2**0.5 / c1) * m / (np.sqrt(v) + h.eps * c2**0.5)
        elif way == "(λ/c₁)m/(√v·(1/√c₂) + ε)":
            w = w - (rate / c1) * m / (np.sqrt(v) * c2**-0.5 + eps)
        elif way == "√v·(1/√c₂)":
            w = w - (rate / c1) * (m / (np.sqrt(v) * c2**-0.5 + eps))
        else:
            raise KeyError(way)
        return w, m, v

    return Program(step, f"{optimizer}[bias_correction=true]")


CORRECTIONS = (
    "m̂/(√v̂ + ε)",
    "(λ/c₁)m/(√v/√c₂ + ε)",
    "(λ/c₁)m/(√v·(1/√c₂) + ε)",
    "inverses",
    "λ√c₂/c₁ · m/(√v + ε√c₂)",
    "√v·(1/√c₂)",
)


def rmsprop(tail: str = "(λa)/d", square: str = "(1−β)(gg)") -> Program:
    def step(h: Any, t: int, w: Any, g: Any, v: Any) -> tuple[Any, ...]:
        v = SQUARES[square](h.alpha, v, g)
        return TAILS[tail](w, h.learning_rate, g, np.sqrt(v) + h.eps), v

    return Program(step)


def adagrad(tail: str = "(λa)/d", *, fused: bool = False) -> Program:
    def step(h: Any, t: int, w: Any, g: Any, v: Any) -> tuple[Any, ...]:
        v = fma(g, g, v) if fused else v + g * g
        return TAILS[tail](w, h.learning_rate, g, np.sqrt(v) + h.eps), v

    return Program(step)


def adadelta(way: str, square: str = "(1−β)(gg)") -> Program:
    def step(h: Any, t: int, w: Any, g: Any, v: Any, u: Any) -> tuple[Any, ...]:
        v, eps = SQUARES[square](h.rho, v, g), h.eps
        above, below = np.sqrt(u + eps), np.sqrt(v + eps)
        d = {
            "(√u/√v)g": lambda: above / below * g,
            "√u(g/√v)": lambda: above * (g / below),
            "(√u·g)/√v": lambda: above * g / below,
            "double": lambda: rounded(np.float64(above) / np.float64(below) * np.float64(g), g),
        }[way]()
        return w - h.learning_rate * d, v, SQUARES[square](h.rho, u, d)

    return Program(step)


def adamax(tail: str = "(λa)/d", mean: str = "βm + (1−β)x") -> Program:
    def step(h: Any, t: int, w: Any, g: Any, m: Any, v: Any) -> tuple[Any, ...]:
        b1, b2 = h.betas
        m, v = MEANS[mean](b1, m, g), np.maximum(b2 * v, np.abs(g))
        return TAILS[tail](w, h.learning_rate, m, v + h.eps), m, v

    return Program(step)


def lion(mean: str, decay: str) -> Program:
    def step(h: Any, t: int, w: Any, g: Any, m: Any) -> tuple[Any, ...]:
        b1, b2 = h.betas
        direction = np.sign(MEANS[mean](b1, m, g))
        m = MEANS[mean](b2, m, g)
        if decay == "w − λ(x + κw)":
            return w - h.learning_rate * (direction + h.weight_decay * w), m
        return DECAYS[decay](w, h.learning_rate, h.weight_decay) - h.learning_rate * direction, m

    return Program(step)


def sgd(way: str) -> Program:
    def step(h: Any, t: int, w: Any, g: Any, v: Any) -> tuple[Any, ...]:
        if way == "fma":
            g = fma(h.weight_decay, w, g)
        elif way == "double":
            g = rounded(np.float64(g) + h.weight_decay * np.float64(w), g)
        else:
            g = g + h.weight_decay * w
        if h.momentum == 0:
            d = g
        else:
            damped = (1 - h.dampening) * g
            v = fma(h.momentum, v, damped) if way == "fma" else h.momentum * v + damped
            d = v
            if h.nesterov:
                d = fma(h.momentum, v, g) if way == "fma" else g + h.momentum * v
        return (fma(-h.learning_rate, d, w) if way == "fma" else w - h.learning_rate * d), v

    return Program(step)


TAILED: dict[str, Callable[[str], Program]] = {
    "Adam": adam,
    "RMSprop": rmsprop,
    "Adagrad": lambda tail: adagrad(tail, fused=tail == "fma"),
    "Adamax": adamax,
}
"""The programs of those with the step λa/d alone."""


def right_programs() -> dict[str, tuple[str, Program]]:
    """Collect correct programs by name: the optimizer whose cases they run, and the program."""
    out: dict[str, tuple[str, Program]] = {f"plain {name}": (name, plain(name)) for name in EXPECTED}
    for tail in TAILS:
        for name, program in TAILED.items():
            out[f"{name} {tail}"] = name, program(tail)
    for mean in MEANS:
        out[f"Adam m by {mean}"] = "Adam", adam(mean=mean)
        out[f"Adamax m by {mean}"] = "Adamax", adamax(mean=mean)
        out[f"Lion by {mean}"] = "Lion", lion(mean, "(1−λκ)w in float32")
    for square in SQUARES:
        out[f"Adam v by {square}"] = "Adam", adam(square=square)
        out[f"RMSprop v by {square}"] = "RMSprop", rmsprop(square=square)
        out[f"AdaDelta v by {square}"] = "AdaDelta", adadelta("(√u/√v)g", square=square)
    for decay in (*DECAYS, "w − λ(x + κw)"):
        out[f"AdamW {decay}"] = "AdamW", adamw(decay)
        out[f"Lion {decay}"] = "Lion", lion("βm + (1−β)x", decay)
    for way in CORRECTIONS:
        out[f"corrected Adam {way}"] = "Adam", corrected(way)
    out["corrected AdamW"] = "AdamW", corrected("m̂/(√v̂ + ε)", "AdamW")
    for way in ("(√u/√v)g", "√u(g/√v)", "(√u·g)/√v", "double"):
        out[f"AdaDelta {way}"] = "AdaDelta", adadelta(way)
    for way in ("plain", "fma", "double"):
        out[f"SGD {way}"] = "SGD", sgd(way)
    return out


COVERED: dict[str, list[str]] = {
    "the model's own order": [
        *(f"plain {name}" for name in EIGHT),
        "Adam m by βm + (1−β)x",
        "Adamax m by βm + (1−β)x",
        "Lion by βm + (1−β)x",
        "Adam v by (1−β)(gg)",
        "RMSprop v by (1−β)(gg)",
        "AdaDelta v by (1−β)(gg)",
        "AdaDelta (√u/√v)g",
        "corrected AdamW",
        "SGD plain",
    ],
    "any FMA": [
        *(f"{name} fma" for name in (*TAILED, "SGD")),
        *(f"{what} by {way}" for what in ("Adam m", "Adamax m", "Lion") for way in ("fma of βm", "fma of (1−β)x")),
        *(f"{name} v by fma" for name in ("Adam", "RMSprop", "AdaDelta")),
    ],
    **{
        order: [f"{name} {tail}" for name in TAILED]
        for order, tail in {
            "(λa)/d": "(λa)/d",
            "λ(a/d)": "λ(a/d)",
            "a(λ/d)": "a(λ/d)",
            "a/(d/λ)": "a/(d/λ)",
            "a·(1/d)": "a(1/d)",
        }.items()
    },
    "double intermediates": [
        *(f"{name} double" for name in (*TAILED, "AdaDelta", "SGD")),
        *(f"{what} by double" for what in ("Adam m", "Adamax m", "Lion", "Adam v", "RMSprop v", "AdaDelta v")),
    ],
    "√u·(g/√v)": ["AdaDelta √u(g/√v)"],
    "(√u·g)/√v": ["AdaDelta (√u·g)/√v"],
    "((1−β)g)g": ["Adam v by ((1−β)g)g", "RMSprop v by ((1−β)g)g", "AdaDelta v by ((1−β)g)g"],
    "six ways of bias correction": [
        *(f"corrected Adam {way}" for way in CORRECTIONS),
        *(f"plain {name}" for name in LATER),
    ],
    "m, v by interpolation with β > 1/2": [
        f"{what} by interpolation" for what in ("Adam m", "Adamax m", "Lion", "Adam v", "RMSprop v", "AdaDelta v")
    ],
    "w − λκw": ["AdamW w − λκw", "AdamW w − λ(κw)", "Lion w − λκw", "Lion w − λ(κw)"],
    "1−λκ in float32": ["AdamW (1−λκ)w in float32", "Lion (1−λκ)w in float32"],
    "1−λκ in double": ["AdamW (1−λκ)w in double", "Lion (1−λκ)w in double"],
    "w − λ(x + κw)": ["AdamW w − λ(x + κw)", "Lion w − λ(x + κw)"],
}
"""The published list of orders, and the right programs written in each."""


# Orders that the interval does not cover: the formula in real arithmetic, rounded more than the model grants.


def truncated(x: Any, ulps: int) -> Any:
    """Make a float32 result some ulps too small, as that of an approximate instruction may be."""
    return (np.asarray(x, np.float32).view(np.int32) - ulps).view(np.float32)


def adam_by(way: str, ulps: int = 0) -> Program:
    """Adam in an order that is not covered."""

    def step(h: Any, t: int, w: Any, g: Any, m: Any, v: Any) -> tuple[Any, ...]:
        b1, b2 = h.betas
        if way == "g + β(m − g)":
            m, v = g + b1 * (m - g), g * g + b2 * (v - g * g)
        elif way == "overflow of its own":
            m, v = b1 * m + (1 - b1) * g, b2 * v + (1 - b2) * ((g * 2.0**60) ** 2 * 2.0**-120)
        elif way == "interpolation":
            m, v = m + (1 - b1) * (g - m), v + (1 - b2) * (g * g - v)
        else:
            root = (1 - b2) ** 0.5 * g
            m, v = b1 * m + (1 - b1) * g, b2 * v + (root * root if way == "(√(1−β)·g)²" else (1 - b2) * g * g)
        root = np.sqrt(v)
        if way == "√":
            root = np.where(root > 0, truncated(root, ulps), root)
        d = m / (root + h.eps)
        if way == "÷":
            d = np.where(d != 0, truncated(d, ulps), d)
        return w - h.learning_rate * d, m, v

    return Program(step)


def sgd_in_two_roundings(way: str) -> Program:
    """SGD with w updated twice."""

    def step(h: Any, t: int, w: Any, g: Any, v: Any) -> tuple[Any, ...]:
        rate = h.learning_rate
        if way == "(1−λκ)w − λg":
            return (1 - rate * h.weight_decay) * w - rate * g, v
        g = g + h.weight_decay * w
        v = h.momentum * v + g
        return (w - rate * h.momentum * v) - rate * g, v

    return Program(step)


HALF_WAY = 1 - ((1 + 12345.49 * 2.0**-23) / 8) ** 2
"""A β for which √(1−β) lies nearly half-way between two float32."""


def not_covered() -> dict[str, tuple[str, dict[str, Any], Program]]:
    """Collect orders that are not covered, by name: optimizer, hyperparameters that show it, and the program."""
    return {
        "interpolation with β = 1/8": ("Adam", {"betas": (0.125, 0.125)}, adam_by("interpolation")),
        "interpolation with β = 1/32": ("Adam", {"betas": (1 / 32, 1 / 32)}, adam_by("interpolation")),
        "g + β(m − g)": ("Adam", {}, adam_by("g + β(m − g)")),
        "(√(1−β)·g)²": ("Adam", {"betas": (0.9, HALF_WAY)}, adam_by("(√(1−β)·g)²")),
        "Nesterov as w −= λμv; w −= λg": (
            "SGD",
            {"momentum": 0.9, "nesterov": True},
            sgd_in_two_roundings("nesterov"),
        ),
        "decay of SGD as (1−λκ)w − λg": ("SGD", {"weight_decay": 0.1}, sgd_in_two_roundings("(1−λκ)w − λg")),
        "÷ 16 ulp off": ("Adam", {}, adam_by("÷", 16)),
        "√ 16 ulp off": ("Adam", {}, adam_by("√", 16)),
        "(2⁶⁰g)²·2⁻¹²⁰": ("Adam", {}, adam_by("overflow of its own")),
    }


def verdict(identifier: str, formula: str, word: Word, **more: Any) -> Verdict:
    """A verdict on a case that nothing ran."""
    meant, dtype = parse(formula), identifier.rpartition("/")[2]
    nothing = np.zeros((0, 0))
    case = Case(
        identifier, meant.optimizer.__name__, "", "", dtype if dtype in FORMATS else "float32", {}, nothing, nothing
    )
    return Verdict(case, meant, word, **more)
