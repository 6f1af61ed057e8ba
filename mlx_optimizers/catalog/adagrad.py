"""What the world says of Adagrad."""

from __future__ import annotations

from typing import Any

from mlx_optimizers.adagrad import Adagrad
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


def step(a: Choice, n: Any, h: Any, t: int, w: Any, g: Any, v: Any) -> tuple[Any, ...]:
    """One step, whatever the axes say."""
    v = v + g**2
    return w - h.learning_rate * g / root(a, n, h, v), v


ENTRY = Entry(
    optimizer=Adagrad,
    rate=0.01,
    settings=(
        {**SCHEDULED, "eps": 1e-3},
        SCHEDULED,
        {"eps": 1e-6},
    ),
    regimes=REGIMES,
    tiny=up_to_a_millionth,
    axes=(
        axis("eps", "outside_sqrt", "inside_sqrt"),
        ignored(*IGNORED_EPSILONS),
        axis("initial", "zero", "0.1"),
    ),
    step=step,
    depth=2,
    undecided=frozenset(),
    elsewhere={
        "torch": Elsewhere("Adagrad", "Adagrad", {"sum": "v"}),
        "optax": Elsewhere("adagrad", "Adagrad[eps=inside_sqrt,initial=0.1]", {"sum_of_squares": "v"}),
        "keras": Elsewhere("Adagrad", "Adagrad[eps=inside_sqrt,initial=0.1]", {"_accumulators": "v"}),
    },
    history=(RESET,),
    plot=Plot(0.3, (6, -12)),
)
