"""What the world says of SGD."""

from __future__ import annotations

from mlx_optimizers.catalog import axes
from mlx_optimizers.catalog.entry import Axis, Choice, Elsewhere, Entry, Event, Plot, Value
from mlx_optimizers.kinds import Hyperparameters, Number, Numbers, Step
from mlx_optimizers.sgd import SGD


def step(a: Choice, n: Numbers, h: Hyperparameters, t: int, w: Number, g: Number, v: Number) -> Step:
    """Take one step under a choice of the axes."""
    coupled = a["weight_decay"] == "coupled" or (a["weight_decay"] == "momentum_only" and not n.is_zero(h.momentum))
    if coupled:
        g = g + h.weight_decay * w
    w = axes.decayed_before(a, n, h, w)
    if a["buffer"] == "scaled":
        g = h.rate * g
    d, new = g, v
    if not n.is_zero(h.momentum):
        ahead = a["nesterov"] == "always" or (h.nesterov and a["nesterov"] != "ignored")
        if ahead and a["nesterov"] == "before":
            g = g + h.momentum * v
        damped = a["dampening"] == "always" or (a["dampening"] == "not_first" and t > 1)
        new = (v if a["momentum"] == "undecayed" else h.momentum * v) + ((1 - h.dampening) * g if damped else g)
        d = new
        if ahead and a["nesterov"] == "previous":
            d = new + h.momentum * v
        elif ahead and a["nesterov"] == "opposite":
            d = g - h.momentum * new
        elif ahead and a["nesterov"] != "before":
            d = g + h.momentum * new
        new = d if ahead and a["nesterov"] == "stored" else new
    w = w - (d if a["buffer"] == "scaled" else h.rate * d)
    return axes.decayed_after(a, n, h, w), axes.kept(a, "v", v, new)


ENTRY = Entry(
    optimizer=SGD,
    formula="SGD",
    rate=0.1,
    settings=(
        {**axes.SCHEDULED, "momentum": 0.9},
        {"momentum": 0.9, "nesterov": True, "weight_decay": 0.1},
        {"learning_rate": 0.05, "momentum": 0.6, "dampening": 0.3, "weight_decay": 0.01},
        {"weight_decay": 0.1, "dampening": 0.5},  # the only one that shows a dampening used without momentum
        {**axes.SCHEDULED, "weight_decay": 0.1},
        {**axes.SCHEDULED, "momentum": 0.9, "nesterov": True},
        {"momentum": 0.9, "dampening": 1.0},
        axes.SCHEDULED,
        {"learning_rate": 0.05, "weight_decay": 0.02},
        {**axes.SCHEDULED, "dampening": 0.5},
        {"learning_rate": 0.05, "weight_decay": 0.02, "dampening": 0.3},
        {"momentum": 0.6},
        {**axes.SCHEDULED, "momentum": 0.9, "weight_decay": 0.1},
        {"learning_rate": 0.05, "momentum": 0.6, "weight_decay": 0.01},
        {**axes.SCHEDULED, "momentum": 0.9, "dampening": 0.5},
        {"learning_rate": 0.05, "momentum": 0.6, "dampening": 0.3},
        {**axes.SCHEDULED, "momentum": 0.9, "dampening": 0.5, "weight_decay": 0.1},
        {"momentum": 0.6, "nesterov": True},
        {"learning_rate": 0.05, "momentum": 0.6, "nesterov": True, "weight_decay": 0.01},
    ),
    frame={"momentum": 0.9, "weight_decay": 0.01},
    rare=(
        *axes.RARE_RATES,
        ("tiny", {"momentum": 0.3}),
        ("tiny", {"momentum": 0.9999}),
        axes.LARGE_DECAY,
    ),
    means=(),
    regimes=axes.REGIMES,
    tiny=axes.up_to_a_millionth,
    axes=(
        Axis("buffer", ("plain", "scaled"), {"scaled": Value("the learning rate inside the momentum buffer", "Keras")}),
        Axis(
            "dampening",
            ("always", "not_first", "ignored"),
            {
                "not_first": Value("no dampening in the first step", "torch, and MLX 0.1.0"),
                "ignored": Value("no dampening", "optax and Keras, which have none"),
            },
        ),
        axes.axis("gradients", "all", "nonzero"),
        *axes.constants(
            ("momentum:0.9", "momentum:0", *axes.IGNORED_DECAYS),
            ("gradient:0.5", "learning_rate:0.1", "weight_decay:2"),
            (axes.SQUARED_RATE, "dampening:1-dampening", "dampening:momentum", "momentum:1-momentum"),
        ),
        axes.axis("learning_rate", "given", "first", "previous"),
        axes.axis("momentum", "given", "undecayed"),
        axes.axis("nesterov", "given", "ignored", "always", "previous", "opposite", "stored", "before"),
        axes.axis("state", "kept", "dropped"),
        axes.axis("weight_decay", "coupled", "decoupled", "after", "unscaled", "ignored", "momentum_only", "constant"),
    ),
    constants=("learning_rate", "momentum", "weight_decay", "dampening", "gradient", "clip"),
    branches=("momentum", "weight_decay", "dampening"),  # each may stand in the place of momentum
    step=step,
    depth=2,
    undecided=frozenset(),
    elsewhere={
        "torch": Elsewhere("SGD", "SGD[dampening=not_first]", {"momentum_buffer": "v"}),
        "optax": Elsewhere("sgd", "SGD", {"trace": "v"}),
        "keras": Elsewhere("SGD", "SGD[buffer=scaled,weight_decay=decoupled]", {"momentums": "v"}),
    },
    history=(
        Event("weight decay was ignored without momentum", "before 0.1.0", (440, 473)),
        Event("the first step had no dampening; before and since it has", "from 0.1.0, before 0.2.0", (473, 629)),
        axes.RESET,
        Event("weight decay changed the caller's gradients", "before 0.32.3", (4426,)),
        Event("the documented formula leaves out weight decay, Nesterov momentum and μ = 0", "still in 0.32.4", ()),
    ),
    plot=Plot(1e-3, (8, -2)),
    shape=axes.FLAT,
    consistent=False,
)
