"""What the world says of Soft."""

from __future__ import annotations

from typing import Any

from mlx_optimizers.catalog.axes import REGIMES, SCHEDULED, ignored, up_to_a_millionth
from mlx_optimizers.catalog.entry import Axis, Choice, Entry, Plot, Value
from mlx_optimizers.soft import Soft


def step(a: Choice, n: Any, h: Any, t: int, w: Any, g: Any, s: Any) -> tuple[Any, ...]:
    """One step under the values of the axes."""
    s = h.decay * s + g
    size = n.abs(g) if a["size"] == "gradient" else n.abs(s)
    return w - h.learning_rate * s / (1 + h.softness * size), s


ENTRY = Entry(
    optimizer=Soft,
    rate=0.1,
    settings=({**SCHEDULED, "decay": 0.9, "softness": 0.25}, SCHEDULED, {"decay": 0.75}, {"softness": 2.0}),
    regimes=REGIMES,
    tiny=up_to_a_millionth,
    axes=(
        ignored("decay:0.9", "softness:0"),
        Axis("size", ("sum", "gradient"), {"gradient": Value("the size of the gradient", "the tests")}),
    ),
    step=step,
    depth=2,
    undecided=frozenset(),
    elsewhere={},
    history=(),
    plot=Plot(1e-3, (4, -12)),
)
