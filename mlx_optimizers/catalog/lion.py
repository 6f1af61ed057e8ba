"""What the world says of Lion."""

from __future__ import annotations

from mlx_optimizers.catalog import axes
from mlx_optimizers.catalog.entry import Axis, Choice, Elsewhere, Entry, Event, Plot, Value
from mlx_optimizers.kinds import Hyperparameters, Number, Numbers, Step
from mlx_optimizers.lion import Lion


def step(a: Choice, n: Numbers, h: Hyperparameters, t: int, w: Number, g: Number, m: Number) -> Step:
    """Take one step under a choice of the axes."""
    b1, b2 = h.betas
    if a["weight_decay"] == "coupled":
        g = g + h.weight_decay * w
    c = b1 * m + (1 - b1) * g
    m = b2 * m + (1 - b2) * g
    w = axes.decayed_before(a, n, h, w)
    w = w - h.learning_rate * n.sign(c if a["sign"] == "direction" else m)
    return axes.decayed_after(a, n, h, w), m


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
        axes.axis("betas", "given", "swapped"),
        axes.ignored(*axes.IGNORED_BETAS, *axes.IGNORED_DECAYS),
        axes.axis("initial", "zero", "gradient"),
        Axis(
            "sign",
            ("direction", "momentum"),
            {"momentum": Value("the sign of the updated momentum", "ports that mix Lion up with Signum")},
        ),
        axes.axis("weight_decay", "decoupled", "coupled", "after", "unscaled", "ignored"),
    ),
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
