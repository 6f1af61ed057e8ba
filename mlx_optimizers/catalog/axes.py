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


FIRST = ("true", "first", "complement")
SECOND = ("true", "second", "complement")
COUNTED: Mapping[str, Callable[[int], int]] = {
    "t": lambda t: t,
    "t-1": lambda t: t - 1,
    "t+1": lambda t: t + 1,
    "2t": lambda t: 2 * t,
    "1": lambda t: 1,
}
"""The step number in a correction, by the axis ``step``."""

_MEANING: dict[str, dict[str, Value]] = {
    "alpha": {
        "complement": Value("α and 1−α exchanged", "ports that weigh the new square by α"),
        "undecayed": Value("a v that never decays", "ports that add (1−α)g² to the old v"),
        "unweighted": Value("no factor 1−α", "ports that add g² to αv"),
    },
    "amsgrad": {
        "true": Value("the greatest v so far (AMSGrad), corrected where v is", "optax, AMSGrad"),
        "uncorrected": Value("the greatest v so far, corrected afterwards", "torch with amsgrad=True"),
    },
    "betas": {
        "swapped": Value("β₁ and β₂ swapped", "ports that unpack the pair in the wrong order"),
        "complement": Value("β and 1−β exchanged", "ports that weigh the new gradient by β"),
        "m_complement": Value("β₁ and 1−β₁ exchanged in m", "ports that mix up the weights of m"),
        "v_complement": Value("β₂ and 1−β₂ exchanged in v", "ports that mix up the weights of v"),
        "beside": Value("β in the place of 1−β", "ports that weigh the old and the new by β"),
    },
    "bias_correction": {
        "true": Value("bias correction", "the paper; torch, optax and Keras; MLX with bias_correction=True"),
        "first": Value("the first moment alone corrected", "ports that correct as Adamax does"),
        "second": Value("the second moment alone corrected", "ports that leave the first moment as it is"),
        "multiplied": Value("a correction that multiplies", "ports that multiply by 1−βᵗ where they should divide"),
        "complement": Value("a correction by 1−(1−β)ᵗ", "ports of code whose β is 1−β"),
        "adam": Value("Adam's correction, √(1−β₂ᵗ)/(1−β₁ᵗ)", "ports of Adamax that begin with a copy of Adam"),
    },
    "centred": {"true": Value("the square of the mean gradient taken from v (centred)", "torch with centered=True")},
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
        "outside_both": Value("ε outside both square roots", "ports of AdaDelta that treat ε as Adam does"),
        "stored": Value("ε added to the v that is kept", "ports that add ε in place"),
        "reciprocal": Value("ε added to 1/√v", "ports that misplace a bracket"),
        "clamped": Value("ε₁ as the least mean square", "torch, Adafactor"),
        "least": Value("ε as the least norm", "torch, Muon"),
        "1e-08": Value("an ε of 1e-8", "optax, Muon"),
        "ignored": Value("no ε", "ports without it; of the elementwise ones those that take 0/0 for 0"),
    },
    "gradients": {
        "nonzero": Value(
            "elements whose gradient is 0 left as they are, moments too (lazy)",
            "torch, SparseAdam; TensorFlow, LazyAdam",
        )
    },
    "ignored": {
        "NAME:VALUE": Value("NAME left at VALUE", "ports that leave a hyperparameter at a framework's own default")
    },
    "initial": {
        "gradient": Value("a state that starts from the first gradient", "MLX before 0.2.0: m = g, v = g²"),
        "0.1": Value("an accumulator that starts at 0.1", "optax and Keras, Adagrad"),
        "eps": Value("a v that starts from ε", "ports that put ε into the state at first"),
    },
    "learning_rate": {
        "first": Value("the first learning rate in every step", "ports that read the rate once"),
        "previous": Value("the learning rate of the step before", "loops that advance the schedule after the step"),
    },
    "momentum": {"undecayed": Value("a momentum buffer that never decays", "ports that drop μ from the buffer")},
    "nesterov": {
        "ignored": Value("no Nesterov momentum", "ports without it"),
        "always": Value("Nesterov momentum in every case", "ports with Nesterov momentum alone"),
        "previous": Value("the look-ahead by the buffer of the step before", "ports that update the buffer too late"),
        "opposite": Value("a look-ahead of the other sign", "ports that lose a bracket"),
        "stored": Value("a look-ahead that is kept in the buffer", "ports that compute it in place"),
        "before": Value("a look-ahead that goes into the buffer", "MLX before its first release"),
        "true": Value("Nesterov momentum (NAdam)", "NAdam with a constant momentum"),
    },
    "replaced": {
        "NAME:EXPRESSION": Value("EXPRESSION in the place of NAME", "ports that mix up hyperparameters, or square one")
    },
    "rho": {"complement": Value("ρ and 1−ρ exchanged", "ports that weigh the new square by ρ")},
    "root": {
        "ignored": Value("no square root", "ports that divide by v"),
        "ignored_above": Value("no square root above", "ports of AdaDelta without the root of u"),
        "ignored_below": Value("no square root below", "ports of AdaDelta without the root of v"),
    },
    "scaled": {"NAME:FACTOR": Value("NAME times FACTOR", "ports with a factor too many, or without one")},
    "sign": {
        "momentum": Value("the sign of the updated momentum", "ports that mix Lion up with Signum"),
        "gradient": Value("the sign of the gradient", "ports that compute signSGD"),
        "ignored": Value("no sign", "ports that forget it"),
    },
    "state": {
        "dropped": Value("a state that is never kept", "ports that assign it to a local variable"),
        "m_dropped": Value("an m that is never kept", "ports that keep v alone"),
        "v_dropped": Value("a v that is never kept", "ports that keep m alone"),
        "corrected": Value("corrected moments fed back into the means", "ports that correct m and v in place"),
    },
    "step": {
        "t-1": Value(
            "steps counted from 0",
            "ports that divide by 1−β⁰ = 0 at first; all is NaN, so that no diagnosis names it",
        ),
        "t+1": Value("steps counted from 2", "ports that count the step before and after"),
        "2t": Value("steps counted twice", "ports that count once for each of two parameters"),
        "1": Value("every step corrected as the first", "ports that never advance the count"),
    },
    "u": {
        "frozen": Value("u left at zero", "MLX before 0.1.0, which read one slot and wrote another"),
        "scaled": Value("u the mean of (λd)² instead of d²", "ports that scale by λ first"),
        "gradient": Value("u the mean of g² instead of d²", "ports that feed the gradient to both means"),
        "parameter": Value("u the mean of w² instead of d²", "ports that feed the new parameter to u"),
    },
    "v": {
        "absolute": Value("|g| in the place of g²", "ports that forget the square"),
        "plain": Value("g in the place of g² or |g|", "ports that forget the square, or the absolute value"),
        "m": Value("m² in the place of g²", "ports that square m"),
        "surprise": Value("(g−m)² in the place of g² (AdaBelief)", "AdaBelief without its second ε"),
        "undecayed": Value("a v that never decays", "ports that leave out β₂"),
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
        "constant": Value("a decay that is not multiplied by w", "ports that forget the parameter"),
        "corrected": Value("weight decay by the corrected learning rate", "ports that put λ√(1−β₂ᵗ)/(1−β₁ᵗ) into λ"),
        "direction_only": Value("weight decay inside Lion's sign", "ports of Lion that add κw to the direction"),
        "first_rate": Value("weight decay by the first learning rate", "ports that compute λκ once"),
        "schedule": Value(
            "weight decay by λₜ/λ₁ alone, 1 where λ₁ is 0", "the paper's AdamW, whose schedule is a factor"
        ),
    },
}


def _step_needs(choice: Choice) -> str | None:
    corrected = choice.get("bias_correction", "false") != "false"
    return None if corrected else "axis 'step' means nothing without a bias correction"


def _eps_needs(choice: Choice) -> str | None:
    before = choice["eps"] == "before_correction" and choice.get("bias_correction") not in SECOND
    return "ε before the correction needs one of the second moment" if before else None


def _state_needs(choice: Choice) -> str | None:
    corrected = choice.get("bias_correction", "false") != "false"
    return "no moments are corrected" if choice["state"] == "corrected" and not corrected else None


def _decay_needs(choice: Choice) -> str | None:
    corrected = choice.get("bias_correction", "false") != "false"
    return "no learning rate is corrected" if choice["weight_decay"] == "corrected" and not corrected else None


def _root_needs(choice: Choice) -> str | None:
    inside = choice["root"] == "ignored" and choice.get("eps", "ignored") != "ignored"
    return f"axis 'root' means nothing with eps={choice['eps']}" if inside else None


def _amsgrad_needs(choice: Choice) -> str | None:
    late = choice.get("bias_correction") in (*SECOND, "multiplied") and choice.get("eps") != "before_correction"
    return "no maximum is corrected" if choice["amsgrad"] == "uncorrected" and not late else None


_NEEDS: dict[str, Callable[[Choice], str | None]] = {
    "amsgrad": _amsgrad_needs,
    "step": _step_needs,
    "eps": _eps_needs,
    "state": _state_needs,
    "weight_decay": _decay_needs,
    "root": _root_needs,
}
_REMEMBERING = {"amsgrad": ("true", "uncorrected"), "centred": ("true",)}
"""The values under which a step keeps an array of its own besides the slots."""


def axis(name: str, *values: str) -> Axis:
    """Build an axis that several optimizers share, with the values of this one, the default first."""
    meaning = {value: _MEANING[name][value] for value in values[1:]}
    return Axis(name, values, meaning, _NEEDS.get(name, lambda choice: None), _REMEMBERING.get(name, ()))


def constants(ignored: tuple[str, ...], scaled: tuple[str, ...], replaced: tuple[str, ...]) -> tuple[Axis, ...]:
    """Build the axes of what may stand in the place of a hyperparameter, with usual values.

    Args:
        ignored: ``NAME:VALUE``, besides usual learning rates.
        scaled: ``NAME:FACTOR``.
        replaced: ``NAME:EXPRESSION``.
    """
    values = {
        "ignored": ("NAME:VALUE", (*IGNORED_RATES, *ignored)),
        "scaled": ("NAME:FACTOR", scaled),
        "replaced": ("NAME:EXPRESSION", replaced),
    }
    return tuple(
        Axis(name, ("none", *usual), {kind: _MEANING[name][kind]}) for name, (kind, usual) in values.items() if usual
    )


IGNORED_RATES = tuple(f"learning_rate:{value}" for value in ("1", "0.001", "0.01", "0.1"))
IGNORED_EPSILONS = tuple(f"eps:{value}" for value in ("1e-10", "1e-08", "1e-07", "1e-06", "0.001"))
IGNORED_BETAS = tuple(f"betas:{value}" for value in ("0.9,0.999", "0.9,0.99", "0.95,0.98"))
IGNORED_DECAYS = tuple(f"weight_decay:{value}" for value in ("0.0001", "0.001", "0.004", "0.01"))
DECOUPLED = ("decoupled", "coupled", "after", "unscaled", "ignored")
"""The places of a weight decay that is decoupled by default."""

SQUARED_RATE = "learning_rate:learning_rate^2"
EPSILONS = ("eps:eps^2", "eps:sqrt(eps)")
TWO_BETAS = ("beta_1:1-beta_1", "beta_1:beta_2", "beta_2:1-beta_2", "beta_2:beta_1")


def squared(a: Choice, n: Numbers, g: Number) -> Number:
    """Square the gradient, or what stands in the place of its square."""
    return {"absolute": lambda: n.abs(g), "plain": lambda: g}.get(a["v"], lambda: g**2)()


def weights(a: Choice, h: Hyperparameters) -> tuple[Number, Number, Number, Number]:
    """Weigh the old m and the new gradient, the old v and the new square."""
    b1, b2 = h.betas
    one, two, kind = (b1, 1 - b1), (b2, 1 - b2), a["betas"]
    if kind == "beside":
        return b1, b1, b2, b2
    return *(one[::-1] if kind in ("complement", "m_complement") else one), *(
        two[::-1] if kind in ("complement", "v_complement") else two
    )


def divided(a: Choice, n: Numbers, h: Hyperparameters, x: Number, v: Number) -> Number:
    """Divide x by √v + ε, by √(v + ε), or as the axes ``eps`` and ``root`` have it."""
    if a["eps"] == "inside_sqrt":
        return x / n.sqrt(v + h.eps)
    root = v if a["root"] == "ignored" else n.sqrt(v)
    if a["eps"] == "reciprocal":
        inverse: Number = 1 / root + h.eps
        return x * inverse
    below: Number = n.where_zero(x, 1, root) if a["eps"] == "ignored" else root + h.eps
    return x / below


def kept(a: Choice, name: str, old: Number, new: Number) -> Number:
    """Keep the new array of a slot, or the old one where the axis ``state`` drops the new."""
    return old if a["state"] in ("dropped", f"{name}_dropped") else new


def decayed_before(
    a: Choice, n: Numbers, h: Hyperparameters, w: Number, corrected: Callable[[], Number] | None = None
) -> Number:
    """Apply a decoupled weight decay before the step.

    Args:
        a: The choice.
        n: The context.
        h: The hyperparameters.
        w: The parameter.
        corrected: Computes the factor of a corrected learning rate.
    """
    kind = a.get("weight_decay")
    if kind == "constant":
        return w - n.lift(h.learning_rate * h.weight_decay)
    rate: Callable[[], Number] | None = {
        "decoupled": lambda: n.lift(h.learning_rate) * h.weight_decay,
        "unscaled": lambda: h.weight_decay,
        "corrected": lambda: n.lift(h.learning_rate * corrected()) * h.weight_decay if corrected else None,
        "first_rate": lambda: n.lift(h.first_rate) * h.weight_decay,
        "schedule": lambda: n.lift(_schedule(n, h)) * h.weight_decay,
    }.get(str(kind))
    if rate is None:
        return w
    rest: Number = 1 - rate()
    return rest * w


def _schedule(n: Numbers, h: Hyperparameters) -> Number:
    """Compute λₜ/λ₁, and 1 where λ₁ is 0."""
    ratio: Number = n.number(1.0) if n.is_zero(h.first_rate) else h.learning_rate / h.first_rate
    return ratio


def decayed_after(a: Choice, n: Numbers, h: Hyperparameters, w: Number) -> Number:
    """Apply a weight decay after the step."""
    return (1 - n.lift(h.learning_rate) * h.weight_decay) * w if a.get("weight_decay") == "after" else w
