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
    keep1, rest1, keep2, _ = axes.weights(a, h)
    before, m = (m, v), keep1 * m + rest1 * g
    x, old = g if a["v"] == "plain" else n.abs(g), v if a["v"] == "undecayed" else keep2 * v
    x = x + h.eps if a["eps"] == "inside_max" else x
    v = n.max(old, x)
    v = v + h.eps if a["eps"] == "stored" else v
    steps, rate = axes.COUNTED[a["step"]](t), h.rate
    first = m if a["bias_correction"] == "false" else m / (1 - b1**steps)
    rate = rate * n.sqrt(1 - b2**steps) if a["bias_correction"] == "adam" else rate
    below = v + h.eps if a["eps"] == "outside_sqrt" else v
    below = n.where_zero(first, 1, v) if a["eps"] == "ignored" else below
    return w - rate * first / below, axes.kept(a, "m", before[0], m), axes.kept(a, "v", before[1], v)


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
        axes.axis("betas", "given", "swapped", "complement"),
        axes.axis("bias_correction", "false", "true", "adam"),
        axes.axis("eps", "outside_sqrt", "inside_max", "ignored", "stored"),
        axes.axis("gradients", "all", "nonzero"),
        *axes.constants(
            (*axes.IGNORED_BETAS, *axes.IGNORED_EPSILONS),
            ("eps:100", "learning_rate:0.1"),
            (axes.SQUARED_RATE, *axes.EPSILONS, *axes.TWO_BETAS),
        ),
        axes.axis("initial", "zero", "gradient"),
        axes.axis("learning_rate", "given", "first", "previous"),
        axes.axis("state", "kept", "dropped"),
        axes.axis("step", "t", "t-1", "t+1", "2t", "1"),
        axes.axis("v", "max", "undecayed", "plain"),
    ),
    constants=("learning_rate", "beta_1", "beta_2", "eps", "gradient", "clip"),
    branches=(),
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
