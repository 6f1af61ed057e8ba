"""A program of Soft that is wrong: it divides by the size of the gradient, not of the sum."""

from __future__ import annotations

from typing import Any

import numpy as np


def wrong(parameter: Any, gradients: Any, *, learning_rate: Any, decay: float, softness: float) -> Any:
    """The parameter after each step."""
    w, s, out = parameter, np.zeros_like(parameter), []
    for g, rate in zip(gradients, np.broadcast_to(np.float32(learning_rate), len(gradients)), strict=True):
        s = np.float32(decay) * s + g
        w = w - rate * s / (1 + np.float32(softness) * np.abs(g))
        out.append(w)
    return np.stack(out)
