"""What the world says of Soft."""

from __future__ import annotations

from mlx_optimizers.catalog import axes
from mlx_optimizers.catalog.entry import Axis, Choice, Entry, Plot, Value
from mlx_optimizers.kinds import Hyperparameters, Number, Numbers, Step
from mlx_optimizers.soft import Soft


def step(a: Choice, n: Numbers, h: Hyperparameters, t: int, w: Number, g: Number, s: Number) -> Step:
    """One step under the values of the axes."""
    s = h.decay * s + g
    size = n.abs(g) if a["size"] == "gradient" else n.abs(s)
    return w - h.learning_rate * s / (1 + h.softness * size), s


ENTRY = Entry(
    optimizer=Soft,
    formula="Soft",
    rate=0.1,
    settings=({**axes.SCHEDULED, "decay": 0.9, "softness": 0.25}, axes.SCHEDULED, {"decay": 0.75}, {"softness": 2.0}),
    frame={},
    rare=(*axes.RARE_RATES, ("tiny", {"decay": 0.25})),
    means=(),
    regimes=axes.REGIMES,
    tiny=axes.up_to_a_millionth,
    axes=(
        *axes.constants(("decay:0.9", "softness:0"), ("learning_rate:0.1",), (axes.SQUARED_RATE,)),
        Axis("size", ("sum", "gradient"), {"gradient": Value("the size of the gradient", "the tests")}),
    ),
    constants=("learning_rate", "decay", "softness"),
    branches=(),
    step=step,
    depth=2,
    undecided=frozenset(),
    elsewhere={},
    history=(),
    plot=Plot(1e-3, (4, -12)),
    shape=axes.FLAT,
    consistent=False,
)
