"""What the world says of Adagrad."""

from __future__ import annotations

from mlx_optimizers.adagrad import Adagrad
from mlx_optimizers.catalog import axes
from mlx_optimizers.catalog.entry import Choice, Elsewhere, Entry, Plot
from mlx_optimizers.kinds import Hyperparameters, Number, Numbers, Step


def step(a: Choice, n: Numbers, h: Hyperparameters, t: int, w: Number, g: Number, v: Number) -> Step:
    """Take one step under a choice of the axes."""
    old, v = v, v + axes.squared(a, n, g)
    return w - axes.divided(a, n, h, h.rate * g, v), axes.kept(a, "v", old, v)


ENTRY = Entry(
    optimizer=Adagrad,
    formula="Adagrad",
    rate=0.01,
    settings=(
        {**axes.SCHEDULED, "eps": 1e-3},
        axes.SCHEDULED,
        {"eps": 1e-6},
    ),
    frame={},
    rare=(*axes.RARE_RATES, *axes.RARE_EPSILONS),
    means=(),
    regimes=axes.REGIMES,
    tiny=axes.up_to_a_millionth,
    axes=(
        axes.axis("eps", "outside_sqrt", "inside_sqrt", "ignored", "reciprocal"),
        *axes.constants(
            axes.IGNORED_EPSILONS,
            ("eps:100", "gradient:0.5", "learning_rate:0.1"),
            (axes.SQUARED_RATE, *axes.EPSILONS),
        ),
        axes.axis("initial", "zero", "0.1", "eps"),
        axes.axis("learning_rate", "given", "first", "previous"),
        axes.axis("root", "taken", "ignored"),
        axes.axis("state", "kept", "dropped"),
        axes.axis("v", "gradient", "absolute"),
    ),
    constants=("learning_rate", "eps", "initial", "gradient", "clip"),
    branches=(),
    step=step,
    depth=2,
    undecided=frozenset(),
    elsewhere={
        "torch": Elsewhere("Adagrad", "Adagrad", {"sum": "v"}),
        "optax": Elsewhere("adagrad", "Adagrad[eps=inside_sqrt,initial=0.1]", {"sum_of_squares": "v"}),
        "keras": Elsewhere("Adagrad", "Adagrad[eps=inside_sqrt,initial=0.1]", {"_accumulators": "v"}),
    },
    history=(axes.RESET,),
    plot=Plot(0.3, (6, -12)),
    shape=axes.FLAT,
    consistent=False,
)
