"""The steps of one element through an optimizer, as text for people."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping
from typing import Any

import numpy as np

import mlx_optimizers
from mlx_optimizers.oracle import Exact, format_of, trajectory
from mlx_optimizers.oracle.rounded import Scalars

__all__ = ["trace"]


def trace(
    optimizer: type[mlx_optimizers.Optimizer],
    parameter: float,
    gradients: list[float],
    hyperparameters: Mapping[str, Any],
    scalars: Scalars = "double",
) -> str:
    """Write each step's float32 value, its bits, the exact value, and the accepted interval, as text.

    Args:
        optimizer: One of the classes of the package; its fast path gives the float32 values.
        parameter: w before the first step.
        gradients: g of each step.
        hyperparameters: As the class takes them; ``learning_rate`` may be a list, one number a step.
        scalars: Coefficient precision of the interval.

    Raises:
        ValueError, TypeError: as the class and `trajectory` raise them.
    """
    form, exact = format_of("float32"), Exact()
    with np.errstate(over="ignore"):  # beyond float32 lies an infinity, which is shown
        w = np.array([parameter], np.float32)
        steps = np.array(gradients, np.float32).reshape(-1, 1)
    entries = trajectory(optimizer, w, steps, scalars=scalars, **hyperparameters)
    rates = hyperparameters["learning_rate"]
    rates = rates if isinstance(rates, list) else [rates] * len(steps)
    instance = optimizer(**{**hyperparameters, "learning_rate": rates[0]})
    lines = textwrap.wrap(f"{instance!r}, float32, w = {w[0]!s}", 80, subsequent_indent="    ", break_on_hyphens=False)
    model = {"w": w}
    for step, (entry, rate) in enumerate(zip(entries, rates, strict=True), start=1):
        if rate is not None:
            instance.learning_rate = rate
        with np.errstate(all="ignore"):
            instance.update(model, {"w": steps[step - 1]})
        changed = f", learning rate {rate}" if len(set(rates)) > 1 else ""
        lines.append(f"\nstep {step}, g = {steps[step - 1, 0]!s}{changed}")
        lines.append(f"   {'float32':<15} {'bits':<8} {'exact':<22} {'from':<14} to")
        for name, quantity in entry.quantities():
            letter, got = ("w", w) if name == "parameter" else (name, instance.state["w"][name])
            text = exact.text(quantity.exact[0], 16)
            low, high = (str(end[0]) for end in (quantity.low, quantity.high))
            lines.append(f"{letter}  {got[0]!s:<15} {form.bits(got)[0]} {text:<22} {low:<14} {high}".rstrip())
    return "\n".join(lines) + "\n"
