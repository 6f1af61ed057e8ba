"""What the world says of AdaDelta."""

from __future__ import annotations

import math

from mlx_optimizers.adadelta import AdaDelta
from mlx_optimizers.catalog import axes
from mlx_optimizers.catalog.entry import Choice, Elsewhere, Entry, Event, Plot
from mlx_optimizers.kinds import Hyperparameters, Number, Numbers, Step


def around_the_root(eps: float) -> tuple[float, float]:
    """Span two decades around √ε."""
    return math.sqrt(eps) / 10, math.sqrt(eps) * 10


def step(a: Choice, n: Numbers, h: Hyperparameters, t: int, w: Number, g: Number, v: Number, u: Number) -> Step:
    """Take one step under a choice of the axes."""
    keep, rest = (1 - h.rho, h.rho) if a["rho"] == "complement" else (h.rho, 1 - h.rho)
    before, v = (v, u), keep * v + rest * g**2
    if a["eps"] == "outside_both":
        d = (n.sqrt(u) + h.eps) / (n.sqrt(v) + h.eps) * g
    else:
        above, below = u + h.eps if a["eps"] == "outside_sqrt" else u, v + h.eps
        above = above if a["root"] == "ignored_above" else n.sqrt(above)
        d = above / (below if a["root"] == "ignored_below" else n.sqrt(below)) * g
    moved = h.rate * d
    w = w - moved
    if a["u"] != "frozen":
        u = keep * u + rest * {"scaled": moved, "gradient": g, "parameter": w}.get(a["u"], d) ** 2
    return w, axes.kept(a, "v", before[0], v), axes.kept(a, "u", before[1], u)


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
        axes.axis("eps", "outside_sqrt", "denominator_only", "outside_both"),
        axes.axis("gradients", "all", "nonzero"),
        *axes.constants(
            ("rho:0.9", "rho:0.95", *axes.IGNORED_EPSILONS),
            ("eps:100", "gradient:0.5", "learning_rate:0.1"),
            (axes.SQUARED_RATE, *axes.EPSILONS),
        ),
        axes.axis("learning_rate", "given", "first", "previous"),
        axes.axis("rho", "given", "complement"),
        axes.axis("root", "taken", "ignored_above", "ignored_below"),
        axes.axis("state", "kept", "dropped"),
        axes.axis("u", "updated", "frozen", "scaled", "gradient", "parameter"),
    ),
    constants=("learning_rate", "rho", "eps", "initial", "gradient", "clip"),
    branches=(),
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
