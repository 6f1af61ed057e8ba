"""What several entries share: settings of cases, axes, and the pieces of a step that they turn."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from mlx_optimizers.catalog.entry import Axis, Choice, Elsewhere, Event, Value
from mlx_optimizers.kinds import Hyperparameters, Number, Numbers

CHANGING = (0.1, 0.1, 0.05, 0.05, 0.02, 0.02, 0.01, 0.01)
"""The changing learning rate of a case, one number a step."""

RISING = (0.0, 1e-6, 0.01, 1.5, 0.25, 0.5, 1e-3, 2.0)
"""A learning rate that is 0, tiny and above 1, rises and falls, and is another in every step."""

SCHEDULED: Mapping[str, Any] = {"learning_rate": CHANGING}
BETAS: Mapping[str, Any] = {**SCHEDULED, "betas": (0.6, 0.7)}
RARE_RATES: tuple[tuple[str, Mapping[str, Any]], ...] = (
    ("tiny", {"learning_rate": 0.0}),
    ("tiny", {"learning_rate": RISING}),
)
RARE_EPSILONS: tuple[tuple[str, Mapping[str, Any]], ...] = (("tiny", {"eps": 1e-12}), ("tiny", {"eps": 1.0}))
RARE_BETAS: tuple[tuple[str, Mapping[str, Any]], ...] = (
    ("tiny", {"betas": (0.0, 0.4)}),
    ("tiny", {"betas": (0.9999, 0.95)}),
)
LARGE_DECAY: tuple[str, Mapping[str, Any]] = ("plain", {"learning_rate": 0.05, "weight_decay": 2.0})
"""Settings of values that seldom occur, each with the regime that shows it."""

FLAT = (24,)
"""The shape of the parameter in the cases of an optimizer to which shapes do not matter."""

REGIMES = ("plain", "tiny", "wide", "zeros")

FIRST_GRADIENT = Event("the state started from the first gradient: m = g, v = g²", "before 0.2.0", (629,))
INSIDE_ROOT = Event("the documentation had ε inside the root; the code never did", "before 0.27.1", (2416,))
CORRECTION = Event(
    "`bias_correction` was added; it changed float16 and bfloat16 to float32",
    "from 0.21.1, before 0.26.5",
    (1640, 2350),
)
RESET = Event("loading a checkpoint reset the state without a word", "from 0.2.0, before 0.16.1", (1259, 1264))


def up_to_a_millionth(eps: float) -> tuple[float, float]:
    """Span ε and 1e-6, the smaller first."""
    return min(eps, 1e-6), max(eps, 1e-6)


def adam_elsewhere(name: str) -> dict[str, Elsewhere]:
    """Describe Adam or AdamW in other libraries, which keep the same state under other names."""
    corrected = f"{name}[bias_correction=true]"
    before = f"{name}[bias_correction=true,eps=before_correction]"
    return {
        "torch": Elsewhere(name, corrected, {"exp_avg": "m", "exp_avg_sq": "v"}),
        "optax": Elsewhere(name.lower(), corrected, {"mu": "m", "nu": "v"}),
        "keras": Elsewhere(name, before, {"_momentums": "m", "_velocities": "v"}),
    }


FIRST = ("true", "first")
SECOND = ("true", "second")
SHIFT = {"t": 0, "t-1": -1, "t+1": 1}

_MEANING: dict[str, dict[str, Value]] = {
    "betas": {"swapped": Value("β₁ and β₂ swapped", "ports that unpack the pair in the wrong order")},
    "bias_correction": {
        "true": Value("bias correction", "the paper; torch, optax and Keras; MLX with bias_correction=True"),
        "first": Value("the first moment alone corrected", "ports that correct as Adamax does"),
        "second": Value("the second moment alone corrected", "ports that leave the first moment as it is"),
    },
    "eps": {
        "inside_sqrt": Value(
            "ε inside the square root",
            "optax and Keras, RMSprop and Adagrad; MLX's documentation of Adam before 0.27.1",
        ),
        "before_correction": Value(
            "ε added before the correction", "Keras Adam and AdamW; the ε̂ of a remark in the paper"
        ),
        "inside_max": Value("ε inside the maximum", "torch and optax, Adamax"),
        "denominator_only": Value(
            "ε in the denominator alone", "ports of AdaDelta with one ε; from a zero state nothing ever moves"
        ),
        "clamped": Value("ε₁ as the least mean square", "torch, Adafactor"),
        "least": Value("ε as the least norm", "torch, Muon"),
        "1e-08": Value("an ε of 1e-8", "optax, Muon"),
        "ignored": Value("no ε", "ports without it"),
    },
    "ignored": {
        "NAME:VALUE": Value("NAME left at VALUE", "ports that leave a hyperparameter at a framework's own default")
    },
    "initial": {
        "gradient": Value("a state that starts from the first gradient", "MLX before 0.2.0: m = g, v = g²"),
        "0.1": Value("an accumulator that starts at 0.1", "optax and Keras, Adagrad"),
    },
    "nesterov": {"ignored": Value("no Nesterov momentum", "ports without it")},
    "step": {
        "t-1": Value(
            "steps counted from 0",
            "ports that divide by 1−β⁰ = 0 at first; all is NaN, so that no diagnosis names it",
        ),
        "t+1": Value("steps counted from 2", "ports that count the step before and after"),
    },
    "weight_decay": {
        "coupled": Value("weight decay added to the gradient", "Adam with L2 regularization"),
        "decoupled": Value("decoupled weight decay", "Keras SGD"),
        "after": Value("weight decay after the step", "ports that shrink the updated parameter"),
        "unscaled": Value("weight decay without the learning rate", "ports that shrink by κ instead of λκ"),
        "learning_rate": Value("weight decay by the learning rate", "torch, Adafactor"),
        "first": Value("weight decay by the learning rate before all else", "Keras, Adafactor"),
        "adjusted": Value("decoupled weight decay by the scaled learning rate", "the first implementations of Muon"),
        "ignored": Value("no weight decay", "ports without it"),
        "momentum_only": Value("weight decay with momentum alone", "MLX before 0.1.0"),
    },
}


def _step_needs(choice: Choice) -> str | None:
    corrected = choice.get("bias_correction", "false") != "false"
    return None if corrected else "axis 'step' means nothing without a bias correction"


def _eps_needs(choice: Choice) -> str | None:
    before = choice["eps"] == "before_correction" and choice.get("bias_correction") not in SECOND
    return "ε before the correction needs one of the second moment" if before else None


_NEEDS: dict[str, Callable[[Choice], str | None]] = {"step": _step_needs, "eps": _eps_needs}


def axis(name: str, *values: str) -> Axis:
    """Build an axis that several optimizers share, with the values of this one, the default first."""
    return Axis(name, values, _MEANING[name], _NEEDS.get(name, lambda choice: None))


def ignored(*values: str) -> Axis:
    """Build the axis of hyperparameters that are left at some value, with the values that a diagnosis tries."""
    return axis("ignored", "none", *IGNORED_RATES, *values)


IGNORED_RATES = tuple(f"learning_rate:{value}" for value in ("1", "0.001", "0.01", "0.1"))
IGNORED_EPSILONS = tuple(f"eps:{value}" for value in ("1e-10", "1e-08", "1e-07", "1e-06", "0.001"))
IGNORED_BETAS = tuple(f"betas:{value}" for value in ("0.9,0.999", "0.9,0.99", "0.95,0.98"))
IGNORED_DECAYS = tuple(f"weight_decay:{value}" for value in ("0.0001", "0.001", "0.004", "0.01"))


def root(a: Choice, n: Numbers, h: Hyperparameters, v: Number) -> Number:
    """Form the divisor √v + ε, or √(v + ε)."""
    return n.sqrt(v + h.eps) if a["eps"] == "inside_sqrt" else n.sqrt(v) + h.eps


def decayed_before(a: Choice, n: Numbers, h: Hyperparameters, w: Number) -> Number:
    """Apply a decoupled weight decay before the step."""
    kind = a.get("weight_decay")
    if kind not in ("decoupled", "unscaled"):
        return w
    rest: Number = 1 - (n.lift(h.learning_rate) * h.weight_decay if kind == "decoupled" else h.weight_decay)
    return rest * w


def decayed_after(a: Choice, n: Numbers, h: Hyperparameters, w: Number) -> Number:
    """Apply a weight decay after the step."""
    return (1 - n.lift(h.learning_rate) * h.weight_decay) * w if a.get("weight_decay") == "after" else w
