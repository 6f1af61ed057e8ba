"""What the world says of Adamax."""

from __future__ import annotations

from typing import Any

from mlx_optimizers.adamax import Adamax
from mlx_optimizers.catalog.axes import (
    BETAS,
    FIRST,
    IGNORED_BETAS,
    IGNORED_EPSILONS,
    REGIMES,
    RESET,
    SCHEDULED,
    SHIFT,
    axis,
    ignored,
    up_to_a_millionth,
)
from mlx_optimizers.catalog.entry import Choice, Elsewhere, Entry, Plot


def step(a: Choice, n: Any, h: Any, t: int, w: Any, g: Any, m: Any, v: Any) -> tuple[Any, ...]:
    """One step, whatever the axes say."""
    b1, b2 = h.betas
    m = b1 * m + (1 - b1) * g
    inside = a["eps"] == "inside_max"
    v = n.max(b2 * v, n.abs(g) + h.eps if inside else n.abs(g))
    first = m / (1 - b1 ** (t + SHIFT[a["step"]])) if a["bias_correction"] in FIRST else m
    return w - h.learning_rate * first / (v if inside else v + h.eps), m, v


ENTRY = Entry(
    optimizer=Adamax,
    rate=2e-3,
    settings=(
        {**BETAS, "eps": 1e-3},
        SCHEDULED,
        {"betas": (0.8, 0.95)},
        {"eps": 1e-6},
    ),
    regimes=REGIMES,
    tiny=up_to_a_millionth,
    axes=(
        axis("betas", "given", "swapped"),
        axis("bias_correction", "false", "true"),
        axis("eps", "outside_sqrt", "inside_max"),
        ignored(*IGNORED_BETAS, *IGNORED_EPSILONS),
        axis("step", "t", "t-1", "t+1"),
    ),
    step=step,
    depth=3,
    undecided=frozenset({"v"}),  # max(x, NaN) is x in C
    elsewhere={
        "torch": Elsewhere("Adamax", "Adamax[bias_correction=true,eps=inside_max]", {"exp_avg": "m", "exp_inf": "v"}),
        "optax": Elsewhere("adamax", "Adamax[bias_correction=true,eps=inside_max]", {"mu": "m", "nu": "v"}),
        "keras": Elsewhere("Adamax", "Adamax[bias_correction=true]", {"_m": "m", "_u": "v"}),
    },
    history=(RESET,),
    plot=Plot(2e-2, (8, 0)),
)
