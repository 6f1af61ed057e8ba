"""What the world says of Muon."""

from __future__ import annotations

import math
from fractions import Fraction
from typing import Any

from mlx_optimizers.catalog import axes
from mlx_optimizers.catalog.entry import Axis, Choice, Elsewhere, Entry, Plot, Value
from mlx_optimizers.kinds import Hyperparameters, Number, Numbers, Shape, Step
from mlx_optimizers.muon import Muon
from mlx_optimizers.newton_schulz import COEFFICIENTS, EPS


def around_the_norm(eps: float) -> tuple[float, float]:
    """Span what makes the norm of d as small as the ε of Newton–Schulz, which is no hyperparameter."""
    return EPS / 8, EPS * 4


def scale(a: Choice, n: Numbers, shape: Shape) -> Number:
    """Return what the learning rate is multiplied by."""
    rows, columns = shape[-2:]
    if a["scale"] == "flattened":
        rows, columns = shape[0], math.prod(shape[1:])
    if a["scale"] == "columns":
        rows, columns = columns, rows
    ratio = {"none": Fraction(1), "rms": Fraction(max(rows, columns), 25)}
    scaled: Number = n.sqrt(n.number(ratio.get(a["scale"], max(Fraction(1), Fraction(rows, columns)))))
    return scaled


def step(a: Choice, n: Numbers, h: Hyperparameters, t: int, w: Number, g: Number, v: Number) -> Step:
    """Take one step under a choice of the axes."""
    mu, shape, rate = h.momentum, n.shape(w), n.lift(h.learning_rate)
    if 0 in shape:
        return w, v
    if a["weight_decay"] == "coupled":
        g = g + h.weight_decay * w
    new = 1 if a["buffer"] == "sum" else 1 - mu
    v = mu * v + new * g
    corrected = a["bias_correction"] == "true"
    if h.nesterov and a["nesterov"] == "given":
        late, now = (v / (1 - mu ** (t + 1)), g / (1 - mu**t)) if corrected else (v, g)
        d = new * now + mu * late
    else:
        d = v / (1 - mu**t) if corrected else v
    adjusted = rate
    if len(shape) > 1:
        varied: dict[str, Any] = {
            "coefficients": (1.875, -1.25, 0.375) if a["coefficients"] == "classical" else COEFFICIENTS,
            "eps": 1e-8 if a["eps"] == "1e-08" else EPS,
            "least": a["eps"] == "least",
            "half": a["precision"] == "bfloat16",
        }
        d = n.orthogonalized(d, int(h.ns_steps), **varied)
        adjusted = rate * scale(a, n, shape)
    if a["weight_decay"] in ("decoupled", "adjusted"):
        w = (1 - (rate if a["weight_decay"] == "decoupled" else adjusted) * h.weight_decay) * w
    return w - adjusted * d, v


ENTRY = Entry(
    optimizer=Muon,
    formula="Muon",
    rate=0.02,
    settings=(
        {**axes.SCHEDULED, "momentum": 0.6, "weight_decay": 0.5},
        {"nesterov": False, "weight_decay": 0.0},
        {"learning_rate": 0.05, "momentum": 0.6, "ns_steps": 3},
        {"learning_rate": 0.05, "momentum": 0.8, "nesterov": False, "ns_steps": 6, "weight_decay": 0.3},
    ),
    frame={},
    rare=(
        *axes.RARE_RATES,
        ("tiny", {"momentum": 0.0}),
        ("tiny", {"momentum": 0.9999}),
        axes.LARGE_DECAY,
    ),
    means=("momentum",),
    regimes=(*axes.REGIMES, "vector", "tall", "stack"),
    tiny=around_the_norm,
    axes=(
        axes.axis("bias_correction", "false", "true"),
        Axis("buffer", ("ema", "sum"), {"sum": Value("a buffer that sums", "Keras; torch's documentation")}),
        Axis(
            "coefficients",
            ("given", "classical"),
            {"classical": Value("the coefficients 15/8, −10/8, 3/8", "Newton–Schulz in textbooks")},
        ),
        axes.axis("eps", "added", "least", "1e-08"),
        *axes.constants(("momentum:0.95", "momentum:0.9", "ns_steps:5", "weight_decay:0", "weight_decay:0.01"), (), ()),
        axes.axis("nesterov", "given", "ignored"),
        Axis("precision", ("own", "bfloat16"), {"bfloat16": Value("Newton–Schulz in bfloat16", "torch")}),
        Axis(
            "scale",
            ("rows", "flattened", "columns", "rms", "none"),
            {
                "flattened": Value("the scale of the flattened matrix", "ports that reshape first"),
                "columns": Value("the scale of the transposed matrix", "optax, whose rows are inputs"),
                "rms": Value("a scale of 0.2·√max(r, c)", "Keras; Moonlight"),
                "none": Value("no scale", "ports without it"),
            },
        ),
        axes.axis("weight_decay", "coupled", "decoupled", "adjusted", "ignored"),
    ),
    constants=(),
    branches=(),
    step=step,
    depth=3,
    undecided=frozenset(),
    elsewhere={
        "torch": Elsewhere(
            "Muon", "Muon[eps=least,precision=bfloat16,weight_decay=decoupled]", {"momentum_buffer": "v"}
        ),
        "optax": Elsewhere(
            "contrib.muon", "Muon[bias_correction=true,eps=1e-08,scale=columns,weight_decay=decoupled]", {"mu": "v"}
        ),
        "keras": Elsewhere("Muon", "Muon[buffer=sum,scale=rms,weight_decay=decoupled]", {"momentums": "v"}),
    },
    history=(),
    plot=Plot(0.02, (6, -12)),
    shape=(4, 6),
    consistent=True,
)
