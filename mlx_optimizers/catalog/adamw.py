"""What the world says of AdamW."""

from __future__ import annotations

from mlx_optimizers.adamw import AdamW
from mlx_optimizers.catalog import axes
from mlx_optimizers.catalog.adam import AXES, step
from mlx_optimizers.catalog.adam import ENTRY as ADAM
from mlx_optimizers.catalog.entry import Entry, Event, Plot

ENTRY = Entry(
    optimizer=AdamW,
    formula="AdamW",
    rate=1e-3,
    settings=(
        {**axes.BETAS, "eps": 1e-3, "weight_decay": 0.3},
        axes.SCHEDULED,
        {"betas": (0.8, 0.95), "weight_decay": 0.1},
        {"eps": 1e-6, "weight_decay": 0.0},
        {**axes.SCHEDULED, "betas": (0.8, 0.95), "eps": 1e-3, "weight_decay": 0.0},
    ),
    frame={},
    rare=(*ADAM.rare, axes.LARGE_DECAY),
    means=ADAM.means,
    regimes=axes.REGIMES,
    tiny=axes.up_to_a_millionth,
    axes=(
        *AXES,
        *axes.constants(
            (*axes.IGNORED_BETAS, *axes.IGNORED_EPSILONS, *axes.IGNORED_DECAYS),
            ("eps:100", "learning_rate:0.1", "step:0.5", "weight_decay:2"),
            (axes.SQUARED_RATE, *axes.EPSILONS, *axes.TWO_BETAS, "weight_decay:weight_decay^2"),
        ),
        axes.axis("weight_decay", *axes.DECOUPLED, "corrected", "constant", "schedule", "first_rate"),
    ),
    constants=(
        "learning_rate",
        "step",
        "beta_1",
        "beta_2",
        "eps",
        "weight_decay",
        "initial",
        "gradient",
        "clip",
    ),
    branches=(),
    step=step,
    depth=3,
    undecided=frozenset(),
    elsewhere=axes.adam_elsewhere("AdamW"),
    history=(
        axes.FIRST_GRADIENT,
        axes.RESET,
        axes.INSIDE_ROOT,
        Event("the documentation gave a weight decay of 0; the code has 0.01", "before 0.29.1", (2557,)),
        axes.CORRECTION,
    ),
    plot=Plot(1e-2, (-38, -10)),
    shape=axes.FLAT,
    consistent=False,
)
