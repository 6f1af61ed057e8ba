"""What the world says of Adam."""

from __future__ import annotations

from mlx_optimizers.adam import Adam
from mlx_optimizers.catalog import axes
from mlx_optimizers.catalog.entry import Choice, Entry, Plot
from mlx_optimizers.kinds import Hyperparameters, Number, Numbers, Step


def step(a: Choice, n: Numbers, h: Hyperparameters, t: int, w: Number, g: Number, m: Number, v: Number) -> Step:
    """Take one step under a choice of the axes."""
    b1, b2 = h.betas
    if a.get("weight_decay") == "coupled":
        g = g + h.weight_decay * w
    w = axes.decayed_before(a, n, h, w)
    m = b1 * m + (1 - b1) * g
    v = b2 * v + (1 - b2) * g**2
    steps = t + axes.SHIFT[a["step"]]
    before = a["eps"] == "before_correction"
    first = m / (1 - b1**steps) if a["bias_correction"] in axes.FIRST else m
    second = v / (1 - b2**steps) if a["bias_correction"] in axes.SECOND and not before else v
    rate = h.learning_rate * n.sqrt(1 - b2**steps) if before else h.learning_rate
    w = w - rate * first / axes.root(a, n, h, second)
    return axes.decayed_after(a, n, h, w), m, v


AXES = (
    axes.axis("betas", "given", "swapped"),
    axes.axis("bias_correction", "false", "true", "first", "second"),
    axes.axis("eps", "outside_sqrt", "inside_sqrt", "before_correction"),
    axes.axis("initial", "zero", "gradient"),
    axes.axis("step", "t", "t-1", "t+1"),
)
"""The axes that the step turns, but the weight decay."""

ENTRY = Entry(
    optimizer=Adam,
    formula="Adam",
    rate=1e-3,
    settings=(
        {**axes.BETAS, "eps": 1e-3},
        axes.SCHEDULED,
        {"betas": (0.8, 0.95)},
        {"eps": 1e-6},
    ),
    frame={},
    rare=(*axes.RARE_RATES, ("tiny", {"eps": 0.0}), ("tiny", {"eps": 1.0}), *axes.RARE_BETAS),
    means=("betas",),
    regimes=axes.REGIMES,
    tiny=axes.up_to_a_millionth,
    axes=(*AXES, axes.ignored(*axes.IGNORED_BETAS, *axes.IGNORED_EPSILONS)),
    step=step,
    depth=3,
    undecided=frozenset(),
    elsewhere=axes.adam_elsewhere("Adam"),
    history=(axes.FIRST_GRADIENT, axes.RESET, axes.INSIDE_ROOT, axes.CORRECTION),
    plot=Plot(1e-2, (-2, 10)),
    shape=axes.FLAT,
    consistent=False,
)
