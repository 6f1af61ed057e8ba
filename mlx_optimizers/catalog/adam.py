"""What the world says of Adam."""

from __future__ import annotations

from mlx_optimizers.adam import Adam
from mlx_optimizers.catalog import axes
from mlx_optimizers.catalog.entry import Choice, Entry, Plot
from mlx_optimizers.kinds import Hyperparameters, Number, Numbers, Step


def step(
    a: Choice, n: Numbers, h: Hyperparameters, t: int, w: Number, g: Number, m: Number, v: Number, *most: Number
) -> Step:
    """Take one step under a choice of the axes."""
    b1, b2 = h.betas
    if a.get("weight_decay") == "coupled":
        g = g + h.weight_decay * w
    keep1, rest1, keep2, rest2 = axes.weights(a, h)
    before, m = (m, v), keep1 * m + rest1 * g
    x = {"m": lambda: m**2, "surprise": lambda: (g - m) ** 2}.get(a["v"], lambda: axes.squared(a, n, g))()
    v = keep2 * v + rest2 * x
    v = v + h.eps if a["eps"] == "stored" else v
    kind, steps, early = a["bias_correction"], axes.COUNTED[a["step"]](t), a["eps"] == "before_correction"
    c1, c2 = (1 - (1 - b if kind == "complement" else b) ** steps for b in (b1, b2))
    largest = v
    if a["amsgrad"] == "uncorrected":
        most = tuple(n.max(old, v) for old in most)
        (largest,) = most
    first = m / c1 if kind in axes.FIRST else m * c1 if kind == "multiplied" else m
    second = largest / c2 if kind in axes.SECOND and not early else largest * c2 if kind == "multiplied" else largest
    if a["state"] == "corrected":
        m, v = first, second
    if a["nesterov"] == "true":
        first = keep1 * first + (rest1 / c1 if kind in axes.FIRST else rest1) * g
    if a["amsgrad"] == "true":
        most = tuple(n.max(old, second) for old in most)
        (second,) = most
    rate = h.rate * n.sqrt(c2) if early else h.rate
    w = axes.decayed_before(a, n, h, w, lambda: n.sqrt(c2) / c1)
    w = w - axes.divided(a, n, h, rate * first, second)
    return axes.decayed_after(a, n, h, w), axes.kept(a, "m", before[0], m), axes.kept(a, "v", before[1], v), *most


AXES = (
    axes.axis("amsgrad", "false", "true", "uncorrected"),
    axes.axis("betas", "given", "swapped", "complement", "m_complement", "v_complement", "beside"),
    axes.axis("bias_correction", "false", "true", "first", "second", "multiplied", "complement"),
    axes.axis("eps", "outside_sqrt", "inside_sqrt", "before_correction", "ignored", "stored"),
    axes.axis("gradients", "all", "nonzero"),
    axes.axis("initial", "zero", "gradient"),
    axes.axis("learning_rate", "given", "first", "previous"),
    axes.axis("nesterov", "false", "true"),
    axes.axis("root", "taken", "ignored"),
    axes.axis("state", "kept", "dropped", "m_dropped", "v_dropped", "corrected"),
    axes.axis("step", "t", "t-1", "t+1", "2t", "1"),
    axes.axis("v", "gradient", "absolute", "m", "surprise"),
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
    axes=(
        *AXES,
        *axes.constants(
            (*axes.IGNORED_BETAS, *axes.IGNORED_EPSILONS),
            ("eps:100", "learning_rate:0.1"),
            (axes.SQUARED_RATE, *axes.EPSILONS, *axes.TWO_BETAS),
        ),
    ),
    constants=("learning_rate", "beta_1", "beta_2", "eps", "initial", "gradient", "clip"),
    branches=(),
    step=step,
    depth=3,
    undecided=frozenset(),
    elsewhere=axes.adam_elsewhere("Adam"),
    history=(axes.FIRST_GRADIENT, axes.RESET, axes.INSIDE_ROOT, axes.CORRECTION),
    plot=Plot(1e-2, (-2, 10)),
    shape=axes.FLAT,
    consistent=False,
)
