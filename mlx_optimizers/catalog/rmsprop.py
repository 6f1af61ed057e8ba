"""What the world says of RMSprop."""

from __future__ import annotations

from mlx_optimizers.catalog import axes
from mlx_optimizers.catalog.entry import Choice, Elsewhere, Entry, Plot
from mlx_optimizers.kinds import Hyperparameters, Number, Numbers, Step
from mlx_optimizers.rmsprop import RMSprop


def step(a: Choice, n: Numbers, h: Hyperparameters, t: int, w: Number, g: Number, v: Number, *mean: Number) -> Step:
    """Take one step under a choice of the axes."""
    old, x = v, axes.squared(a, n, g)
    keep, rest = (1 - h.alpha, h.alpha) if a["alpha"] == "complement" else (h.alpha, 1 - h.alpha)
    v = (v if a["alpha"] == "undecayed" else keep * v) + (x if a["alpha"] == "unweighted" else rest * x)
    mean = tuple(keep * m + rest * g for m in mean)
    spread = v - mean[0] ** 2 if mean else v
    return w - axes.divided(a, n, h, h.rate * g, spread), axes.kept(a, "v", old, v), *mean


ENTRY = Entry(
    optimizer=RMSprop,
    formula="RMSprop",
    rate=0.01,
    settings=(
        {**axes.SCHEDULED, "alpha": 0.6, "eps": 1e-3},
        axes.SCHEDULED,
        {"alpha": 0.9, "eps": 1e-6},
        {"alpha": 0.6},
    ),
    frame={},
    rare=(
        *axes.RARE_RATES,
        *axes.RARE_EPSILONS,
        ("tiny", {"alpha": 0.0}),
        ("tiny", {"alpha": 0.4}),
        ("tiny", {"alpha": 0.9999}),
    ),
    means=("alpha",),
    regimes=axes.REGIMES,
    tiny=axes.up_to_a_millionth,
    axes=(
        axes.axis("alpha", "given", "complement", "undecayed", "unweighted"),
        axes.axis("centred", "false", "true"),
        axes.axis("eps", "outside_sqrt", "inside_sqrt", "ignored", "reciprocal"),
        axes.axis("gradients", "all", "nonzero"),
        *axes.constants(
            ("alpha:0.99", "alpha:0.9", *axes.IGNORED_EPSILONS),
            ("eps:100", "gradient:0.5", "learning_rate:0.1"),
            (axes.SQUARED_RATE, *axes.EPSILONS),
        ),
        axes.axis("initial", "zero", "gradient"),
        axes.axis("learning_rate", "given", "first", "previous"),
        axes.axis("root", "taken", "ignored"),
        axes.axis("state", "kept", "dropped"),
        axes.axis("v", "gradient", "absolute"),
    ),
    constants=("learning_rate", "alpha", "eps", "initial", "gradient", "clip"),
    branches=(),
    step=step,
    depth=2,
    undecided=frozenset(),
    elsewhere={
        "torch": Elsewhere("RMSprop", "RMSprop", {"square_avg": "v"}),
        "optax": Elsewhere("rmsprop", "RMSprop[eps=inside_sqrt]", {"nu": "v"}),
        "keras": Elsewhere("RMSprop", "RMSprop[eps=inside_sqrt]", {"_velocities": "v"}),
    },
    history=(axes.RESET,),
    plot=Plot(1e-2, (4, -12)),
    shape=axes.FLAT,
    consistent=False,
)
