"""What the world says of Lion."""

from __future__ import annotations

from mlx_optimizers.catalog import axes
from mlx_optimizers.catalog.entry import Choice, Elsewhere, Entry, Event, Plot
from mlx_optimizers.kinds import Hyperparameters, Number, Numbers, Step
from mlx_optimizers.lion import Lion


def step(a: Choice, n: Numbers, h: Hyperparameters, t: int, w: Number, g: Number, m: Number) -> Step:
    """Take one step under a choice of the axes."""
    if a["weight_decay"] == "coupled":
        g = g + h.weight_decay * w
    keep1, rest1, keep2, rest2 = axes.weights(a, h)
    old, c = m, keep1 * m + rest1 * g
    m = keep2 * m + rest2 * g
    if a["weight_decay"] == "direction_only":
        c = c + h.weight_decay * w
    c = {"momentum": m, "gradient": g}.get(a["sign"], c)
    w = axes.decayed_before(a, n, h, w)
    w = w - h.rate * (c if a["sign"] == "ignored" else n.sign(c))
    return axes.decayed_after(a, n, h, w), axes.kept(a, "m", old, m)


ENTRY = Entry(
    optimizer=Lion,
    formula="Lion",
    rate=1e-4,
    settings=(
        {**axes.BETAS, "weight_decay": 0.3},
        axes.SCHEDULED,
        {"betas": (0.95, 0.98), "weight_decay": 0.1},
        {"learning_rate": 0.01, "weight_decay": 1.0},
        axes.BETAS,
    ),
    frame={"weight_decay": 0.1},
    rare=(*axes.RARE_RATES, *axes.RARE_BETAS, axes.LARGE_DECAY),
    means=("betas",),
    regimes=(*axes.REGIMES, "edge"),
    tiny=axes.up_to_a_millionth,
    axes=(
        axes.axis("betas", "given", "swapped", "complement"),
        axes.axis("gradients", "all", "nonzero"),
        *axes.constants(
            (*axes.IGNORED_BETAS, *axes.IGNORED_DECAYS),
            ("learning_rate:0.1", "step:0.5", "weight_decay:2"),
            (axes.SQUARED_RATE, *axes.TWO_BETAS, "weight_decay:weight_decay^2"),
        ),
        axes.axis("initial", "zero", "gradient"),
        axes.axis("learning_rate", "given", "first", "previous"),
        axes.axis("sign", "direction", "momentum", "gradient", "ignored"),
        axes.axis("state", "kept", "dropped"),
        axes.axis("weight_decay", *axes.DECOUPLED, "direction_only", "schedule"),
    ),
    constants=("learning_rate", "step", "beta_1", "beta_2", "weight_decay", "gradient", "clip"),
    branches=(),
    step=step,
    depth=2,
    undecided=frozenset({"parameter"}),  # MLX's sign(NaN) is 0
    elsewhere={
        "optax": Elsewhere("lion", "Lion", {"mu": "m"}),
        "keras": Elsewhere("Lion", "Lion", {"_momentums": "m"}),
    },
    history=(
        Event("the state started from the first gradient: m = g", "before 0.2.0", (629,)),
        axes.RESET,
        Event("the documented formula says sign(cₜ) where the code has cₜ₊₁", "still in 0.32.4", ()),
    ),
    plot=Plot(5e-3, (4, -12)),
    shape=axes.FLAT,
    consistent=False,
)
