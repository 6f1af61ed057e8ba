"""What the world says of RMSprop."""

from __future__ import annotations

from typing import Any

from mlx_optimizers.catalog.axes import (
    IGNORED_EPSILONS,
    REGIMES,
    RESET,
    SCHEDULED,
    axis,
    ignored,
    root,
    up_to_a_millionth,
)
from mlx_optimizers.catalog.entry import Choice, Elsewhere, Entry, Plot
from mlx_optimizers.rmsprop import RMSprop


def step(a: Choice, n: Any, h: Any, t: int, w: Any, g: Any, v: Any) -> tuple[Any, ...]:
    """One step, whatever the axes say."""
    v = h.alpha * v + (1 - h.alpha) * g**2
    return w - h.learning_rate * g / root(a, n, h, v), v


ENTRY = Entry(
    optimizer=RMSprop,
    rate=0.01,
    settings=(
        {**SCHEDULED, "alpha": 0.6, "eps": 1e-3},
        SCHEDULED,
        {"alpha": 0.9, "eps": 1e-6},
        {"alpha": 0.6},
    ),
    regimes=REGIMES,
    tiny=up_to_a_millionth,
    axes=(
        axis("eps", "outside_sqrt", "inside_sqrt"),
        ignored("alpha:0.99", "alpha:0.9", *IGNORED_EPSILONS),
    ),
    step=step,
    depth=2,
    undecided=frozenset(),
    elsewhere={
        "torch": Elsewhere("RMSprop", "RMSprop", {"square_avg": "v"}),
        "optax": Elsewhere("rmsprop", "RMSprop[eps=inside_sqrt]", {"nu": "v"}),
        "keras": Elsewhere("RMSprop", "RMSprop[eps=inside_sqrt]", {"_velocities": "v"}),
    },
    history=(RESET,),
    plot=Plot(1e-2, (4, -12)),
)
