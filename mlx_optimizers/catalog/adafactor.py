"""What the world says of Adafactor."""

from __future__ import annotations

import math
from dataclasses import replace

from mlx_optimizers.adafactor import Adafactor
from mlx_optimizers.catalog import axes
from mlx_optimizers.catalog.entry import Axis, Choice, Elsewhere, Entry, Event, Plot, Value
from mlx_optimizers.kinds import Hyperparameters, Number, Numbers, Step


def around_the_root(eps: tuple[float, float]) -> tuple[float, float]:
    """Span two decades around √ε₁, which is taken for 1e-20 where it is smaller."""
    root = math.sqrt(max(eps[0], 1e-20))
    return root / 10, root * 10


def step(a: Choice, n: Numbers, h: Hyperparameters, t: int, w: Number, g: Number, *slots: Number) -> Step:
    """Take one step under a choice of the axes."""
    t = axes.COUNTED[a["step"]](t)
    first, second = h.eps
    most = n.number(1e-6) * t if h.warmup_init else n.number(1e-2)
    rate = most = most if h.relative_step else h.learning_rate
    if h.relative_step or a["learning_rate"] == "capped":
        rate = n.min(most, 1 / n.sqrt(n.number(t)))
    if a["weight_decay"] == "first":
        w = (1 - n.lift(most) * h.weight_decay) * w
    least = {"eps_2": second, "eps_1": first, "added": second}[a["scale"]]
    rate = n.lift(rate)
    if h.scale_parameter:
        size = n.sqrt(n.mean(w**2))
        rate = (least + size if a["scale"] == "added" else n.max(least, size)) * rate
    rest = n.cast(n.power(t, h.decay_rate))
    b2, x = 1 - rest, g**2 + first if a["eps"] == "added" else g**2
    if len(slots) - (h.beta_1 is not None) == 2:
        row = b2 * slots[0] + (1 - b2) * n.mean(x, -1)
        column = b2 * slots[1] + (1 - b2) * n.mean(x, -2)
        kept = [row, column]
        mean = n.mean(row, -1, keep=True) if a["mean"] == "last" else n.mean(row)
        if a["eps"] == "clamped":
            v = n.expand(row, -1) * n.expand(column, -2) / n.expand(n.max(first, mean), -1)
            x = 1 / n.sqrt(n.max(first * first, v)) * g
        else:
            across, down = (1 / n.sqrt(v) for v in (row / mean, column))
            x = n.expand(across, -1) * n.expand(down, -2) * g
    else:
        v = b2 * slots[0] + (1 - b2) * x
        kept = [v]
        x = 1 / n.sqrt(n.max(first * first, v) if a["eps"] == "clamped" else v) * g
    if a["clip"] != "ignored":
        size = n.mean(x**2) if a["clip"] == "rms" else n.total(x**2)
        x = x / n.max(1, n.sqrt(size) / h.clip_threshold)
    if a["exp_avg"] == "scaled":
        x = rate * x
    if h.beta_1 is not None:
        x = h.beta_1 * slots[-1] + (1 - h.beta_1) * x
        kept = [*kept, x]
    if a["exp_avg"] == "direction":
        x = rate * x
    decays = {"scaled": lambda: h.weight_decay * rate, "learning_rate": lambda: n.lift(most) * h.weight_decay}
    decay = decays.get(a["weight_decay"], lambda: h.weight_decay)()
    return (w if a["weight_decay"] in ("ignored", "first") else w - decay * w) - x, *kept


def _slots(row: str, column: str, square: str) -> dict[str, str]:
    """Name the mean squares in a library."""
    return {row: "exp_avg_sq_row", column: "exp_avg_sq_col", square: "exp_avg_sq"}


ENTRY = Entry(
    optimizer=Adafactor,
    formula="Adafactor",
    rate=None,
    settings=(
        {"beta_1": 0.6, "weight_decay": 1e-3},
        {**axes.SCHEDULED, "relative_step": False, "weight_decay": 1e-3},
        {"learning_rate": 0.6, "relative_step": False, "scale_parameter": False, "clip_threshold": 0.25},
        {
            "learning_rate": 0.6,
            "relative_step": False,
            "clip_threshold": 1.25,
            "decay_rate": -0.5,
            "weight_decay": 1e-3,
        },
        {"warmup_init": True, "decay_rate": -0.5},
        {"eps": (1e-3, 0.25), "beta_1": 0.9},
        {"scale_parameter": False, "weight_decay": 0.25, "eps": (1e-6, 1e-2)},
    ),
    frame={"learning_rate": 0.01, "relative_step": False},
    rare=(
        *((regime, {**setting, "relative_step": False}) for regime, setting in axes.RARE_RATES),
        ("tiny", {"eps": (0.0, 1.0)}),
        ("plain", {"eps": (0.1, 0.0)}),
        ("tiny", {"beta_1": 0.0}),
        ("plain", {"weight_decay": 2.0}),
    ),
    means=("beta_1",),
    regimes=(*axes.REGIMES, "vector", "batch"),
    tiny=around_the_root,
    axes=(
        Axis(
            "clip",
            ("rms", "norm", "ignored"),
            {
                "norm": Value("the update clipped by its norm", "ports that take the norm for the root mean square"),
                "ignored": Value("no clipping of the update", "ports without it"),
            },
        ),
        axes.axis("eps", "added", "clamped", "ignored"),
        Axis(
            "exp_avg",
            ("scaled", "direction"),
            {"direction": Value("the step size after the running mean", "ports that scale at the end")},
        ),
        *axes.constants(("clip_threshold:1", "decay_rate:-0.8", "weight_decay:0"), (), ()),
        Axis(
            "learning_rate",
            ("given", "capped"),
            {"capped": Value("a learning rate capped by 1/√t", "torch and Keras")},
        ),
        Axis(
            "mean",
            ("last", "all"),
            {"all": Value("the mean of R over the batch", "ports that take the mean of the whole array")},
        ),
        Axis(
            "scale",
            ("eps_2", "eps_1", "added"),
            {
                "eps_1": Value("ε₁ as the least size of the parameter", "MLX's documentation"),
                "added": Value("ε₂ added to the size of the parameter", "ports that add it"),
            },
        ),
        replace(axes.axis("step", "t", "t+1"), needs=lambda choice: None),
        axes.axis("weight_decay", "scaled", "learning_rate", "first", "unscaled", "ignored"),
    ),
    constants=(),
    branches=(),
    step=step,
    depth=2,
    undecided=frozenset({"parameter", "exp_avg"}),  # max(1, NaN) is 1 in Python
    elsewhere={
        "torch": Elsewhere(
            "Adafactor",
            "Adafactor[eps=clamped,learning_rate=capped,weight_decay=learning_rate]",
            _slots("row_var", "col_var", "variance"),
        ),
        "optax": Elsewhere(
            "adafactor", "Adafactor[weight_decay=unscaled]", {**_slots("v_row", "v_col", "v"), "ema": "exp_avg"}
        ),
        "keras": Elsewhere("Adafactor", "Adafactor[learning_rate=capped,weight_decay=first]", _slots("_r", "_c", "_v")),
    },
    history=(
        Event("most arrays of more than two axes raised an error", "before 0.32.0", (3652,)),
        Event("weight decay changed the caller's array", "before 0.32.3", (4426,)),
        Event("its documentation has max(ε₁, rms(w)); the code has ε₂", "still in 0.32.4", ()),
    ),
    plot=Plot(None, (6, -12)),
    shape=(4, 6),
    consistent=False,
)
