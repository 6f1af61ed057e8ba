"""What the world says of RMSprop."""

from __future__ import annotations

from mlx_optimizers.catalog import axes
from mlx_optimizers.catalog.entry import Choice, Elsewhere, Entry, Plot
from mlx_optimizers.kinds import Hyperparameters, Number, Numbers, Step
from mlx_optimizers.rmsprop import RMSprop


def step(a: Choice, n: Numbers, h: Hyperparameters, t: int, w: Number, g: Number, v: Number) -> Step:
    """Take one step under a choice of the axes."""
    v = h.alpha * v + (1 - h.alpha) * g**2
    return w - h.learning_rate * g / axes.root(a, n, h, v), v


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
        axes.axis("eps", "outside_sqrt", "inside_sqrt"),
        axes.ignored("alpha:0.99", "alpha:0.9", *axes.IGNORED_EPSILONS),
    ),
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
