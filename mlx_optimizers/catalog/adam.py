"""What the world says of Adam."""

from __future__ import annotations

from typing import Any

from mlx_optimizers.adam import Adam
from mlx_optimizers.catalog.axes import (
    BETAS,
    FIRST,
    IGNORED_BETAS,
    IGNORED_EPSILONS,
    REGIMES,
    RESET,
    SCHEDULED,
    SECOND,
    SHIFT,
    axis,
    decayed_after,
    decayed_before,
    ignored,
    root,
    up_to_a_millionth,
)
from mlx_optimizers.catalog.entry import Choice, Elsewhere, Entry, Event, Plot


def step(a: Choice, n: Any, h: Any, t: int, w: Any, g: Any, m: Any, v: Any) -> tuple[Any, ...]:
    """One step, whatever the axes say."""
    b1, b2 = h.betas
    if a.get("weight_decay") == "coupled":
        g = g + h.weight_decay * w
    w = decayed_before(a, n, h, w)
    m = b1 * m + (1 - b1) * g
    v = b2 * v + (1 - b2) * g**2
    steps = t + SHIFT[a["step"]]
    before = a["eps"] == "before_correction"
    first = m / (1 - b1**steps) if a["bias_correction"] in FIRST else m
    second = v / (1 - b2**steps) if a["bias_correction"] in SECOND and not before else v
    rate = h.learning_rate * n.sqrt(1 - b2**steps) if before else h.learning_rate
    w = w - rate * first / root(a, n, h, second)
    return decayed_after(a, n, h, w), m, v


ENTRY = Entry(
    optimizer=Adam,
    rate=1e-3,
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
        axis("bias_correction", "false", "true", "first", "second"),
        axis("eps", "outside_sqrt", "inside_sqrt", "before_correction"),
        ignored(*IGNORED_BETAS, *IGNORED_EPSILONS),
        axis("initial", "zero", "gradient"),
        axis("step", "t", "t-1", "t+1"),
    ),
    step=step,
    depth=3,
    undecided=frozenset(),
    elsewhere={
        "torch": Elsewhere("Adam", "Adam[bias_correction=true]", {"exp_avg": "m", "exp_avg_sq": "v"}),
        "optax": Elsewhere("adam", "Adam[bias_correction=true]", {"mu": "m", "nu": "v"}),
        "keras": Elsewhere(
            "Adam", "Adam[bias_correction=true,eps=before_correction]", {"_momentums": "m", "_velocities": "v"}
        ),
    },
    history=(
        Event("the state started from the first gradient: m = g, v = g²", "before 0.2.0", (629,)),
        RESET,
        Event("the documentation had ε inside the root; the code never did", "until 0.27.1", (2416,)),
        Event(
            "`bias_correction` was added; it changed float16 and bfloat16 to float32", "0.21.1 to 0.26.4", (1640, 2350)
        ),
    ),
    plot=Plot(1e-2, (-2, 10)),
)
