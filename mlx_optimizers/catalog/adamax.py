"""What the world says of Adamax."""

from __future__ import annotations

from mlx_optimizers.adamax import Adamax
from mlx_optimizers.catalog import axes
from mlx_optimizers.catalog.adam import ENTRY as ADAM
from mlx_optimizers.catalog.entry import Choice, Elsewhere, Entry, Plot
from mlx_optimizers.kinds import Hyperparameters, Number, Numbers, Step


def step(a: Choice, n: Numbers, h: Hyperparameters, t: int, w: Number, g: Number, m: Number, v: Number) -> Step:
    """Take one step under a choice of the axes."""
    b1, b2 = h.betas
    m = b1 * m + (1 - b1) * g
    inside = a["eps"] == "inside_max"
    v = n.max(b2 * v, n.abs(g) + h.eps if inside else n.abs(g))
    first = m / (1 - b1 ** (t + axes.SHIFT[a["step"]])) if a["bias_correction"] in axes.FIRST else m
    return w - h.learning_rate * first / (v if inside else v + h.eps), m, v


ENTRY = Entry(
    optimizer=Adamax,
    formula="Adamax",
    rate=2e-3,
    settings=ADAM.settings,
    frame={},
    rare=ADAM.rare,
    means=ADAM.means,
    regimes=axes.REGIMES,
    tiny=axes.up_to_a_millionth,
    axes=(
        axes.axis("betas", "given", "swapped"),
        axes.axis("bias_correction", "false", "true"),
        axes.axis("eps", "outside_sqrt", "inside_max"),
        axes.ignored(*axes.IGNORED_BETAS, *axes.IGNORED_EPSILONS),
        axes.axis("step", "t", "t-1", "t+1"),
    ),
    step=step,
    depth=3,
    undecided=frozenset({"v"}),  # max(x, NaN) is x in C
    elsewhere={
        "torch": Elsewhere("Adamax", "Adamax[bias_correction=true,eps=inside_max]", {"exp_avg": "m", "exp_inf": "v"}),
        "optax": Elsewhere("adamax", "Adamax[bias_correction=true,eps=inside_max]", {"mu": "m", "nu": "v"}),
        "keras": Elsewhere("Adamax", "Adamax[bias_correction=true]", {"_m": "m", "_u": "v"}),
    },
    history=(axes.RESET,),
    plot=Plot(2e-2, (8, 0)),
    shape=axes.FLAT,
    consistent=False,
)
