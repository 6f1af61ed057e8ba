"""What the world says of AdaDelta."""

from __future__ import annotations

import math

from mlx_optimizers.adadelta import AdaDelta
from mlx_optimizers.catalog import axes
from mlx_optimizers.catalog.entry import Axis, Choice, Elsewhere, Entry, Event, Plot, Value
from mlx_optimizers.kinds import Hyperparameters, Number, Numbers, Step


def around_the_root(eps: float) -> tuple[float, float]:
    """Span two decades around √ε."""
    return math.sqrt(eps) / 10, math.sqrt(eps) * 10


def step(a: Choice, n: Numbers, h: Hyperparameters, t: int, w: Number, g: Number, v: Number, u: Number) -> Step:
    """Take one step under a choice of the axes."""
    v = h.rho * v + (1 - h.rho) * g**2
    above = u + h.eps if a["eps"] == "outside_sqrt" else u
    d = n.sqrt(above) / n.sqrt(v + h.eps) * g
    if a["u"] == "updated":
        u = h.rho * u + (1 - h.rho) * d**2
    return w - h.learning_rate * d, v, u


ENTRY = Entry(
    optimizer=AdaDelta,
    formula="AdaDelta",
    rate=1.0,
    settings=(
        {**axes.SCHEDULED, "rho": 0.6, "eps": 1e-4},
        axes.SCHEDULED,
        {"rho": 0.95},
        {"eps": 1e-3},
    ),
    frame={},
    rare=(
        *axes.RARE_RATES,
        *axes.RARE_EPSILONS,
        ("tiny", {"rho": 0.0}),
        ("tiny", {"rho": 0.4}),
        ("tiny", {"rho": 0.9999}),
    ),
    means=("rho",),
    regimes=axes.REGIMES,
    tiny=around_the_root,
    axes=(
        axes.axis("eps", "outside_sqrt", "denominator_only"),
        axes.ignored("rho:0.9", "rho:0.95", *axes.IGNORED_EPSILONS),
        Axis(
            "u",
            ("updated", "frozen"),
            {"frozen": Value("u left at zero", "MLX before 0.1.0, which read one slot and wrote another")},
        ),
    ),
    step=step,
    depth=2,
    undecided=frozenset(),
    elsewhere={
        "torch": Elsewhere("Adadelta", "AdaDelta", {"square_avg": "v", "acc_delta": "u"}),
        "optax": Elsewhere("adadelta", "AdaDelta", {"e_g": "v", "e_x": "u"}),
        "keras": Elsewhere("Adadelta", "AdaDelta", {"_accumulated_grads": "v", "_accumulated_delta_vars": "u"}),
    },
    history=(
        Event("one slot was read and another written, so that u stayed 0", "before 0.1.0", (603,)),
        axes.RESET,
        Event("the documentation gave an ε of 1e-8; the code has 1e-6", "before 0.32.0", (3712,)),
    ),
    plot=Plot(5.0, (4, -12)),
    shape=axes.FLAT,
    consistent=False,
)
