"""What Keras 3.15.1 computes where it deviates in 16 bits, after the lines of its source in ``keras/src/optimizers``.

Two switches mend what the lines do: ``mended`` forms each coefficient in double and rounds it once, and ``wide`` takes
products and quotients in float32 before they are rounded, where nothing underflows.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from mlx_optimizers.backends import claim_of
from tests.programs import Program

__all__ = ["OPTIMIZERS", "keras_program"]


def _rate(h: Any, real: Any) -> Any:
    """The learning rate is a variable of float32, cast to the parameter's dtype: base_optimizer.py, line 185."""
    return real(np.float32(h.learning_rate))


def _rest(real: Any, beta: float, t: int, *, mended: bool) -> Any:
    """1 − βᵗ by ``1 - power(cast(beta, dtype), cast(t, dtype))``; XLA takes a power of 16 bits in float32."""
    return real(1 - beta**t) if mended else real(1) - real(np.float32(real(beta)) ** np.float32(t))


def _decayed(h: Any, real: Any, w: Any) -> Any:
    """Decay w before the step: base_optimizer.py, line 959."""
    return w - w * real(h.weight_decay) * _rate(h, real) if hasattr(h, "weight_decay") else w


def adam(h: Any, t: int, w: Any, g: Any, m: Any, v: Any, *, mended: bool, wide: bool) -> tuple[Any, ...]:
    """Follow adam.py, lines 104 to 136: βᵗ and what is made of it are in the parameter's dtype."""
    real, (b1, b2) = w.dtype.type, h.betas
    w = _decayed(h, real, w)
    first, second = (_rest(real, beta, t, mended=mended) for beta in h.betas)
    alpha = _rate(h, real) * np.sqrt(second) / first
    if mended:
        alpha = real(h.learning_rate * (1 - b2**t) ** 0.5 / (1 - b1**t))
    m = m + (g - m) * real(1 - b1)
    v = v + (g * g - v) * real(1 - b2)
    return w - m * alpha / (np.sqrt(v) + real(h.eps)), m, v


def adamax(h: Any, t: int, w: Any, g: Any, m: Any, v: Any, *, mended: bool, wide: bool) -> tuple[Any, ...]:
    """Follow adamax.py, lines 107 to 129: λm over (1 − β₁ᵗ)(v + ε)."""
    real, (b1, b2) = w.dtype.type, h.betas
    more = np.float32 if wide else real
    rest = _rest(real, b1, t, mended=mended)
    m = m + (g - m) * real(1 - b1)
    v = np.maximum(real(b2) * v, abs(g))
    step = more(_rate(h, real)) * m.astype(more) / (more(rest) * (v.astype(more) + more(h.eps)))
    return w - step.astype(real), m, v


def adadelta(h: Any, t: int, w: Any, g: Any, v: Any, u: Any, *, mended: bool, wide: bool) -> tuple[Any, ...]:
    """Follow adadelta.py, lines 86 to 119: √(u + ε)·g over √(v + ε)."""
    real = w.dtype.type
    more = np.float32 if wide else real
    rho, rest, eps = real(h.rho), real(1 - h.rho), real(h.eps)
    v = rho * v + rest * (g * g)
    above, below = np.sqrt(u + eps).astype(more), np.sqrt(v + eps).astype(more)
    d = (above * g.astype(more) / below).astype(real)
    return w - _rate(h, real) * d, v, rho * u + rest * (d * d)


def lion(h: Any, t: int, w: Any, g: Any, m: Any, *, mended: bool, wide: bool) -> tuple[Any, ...]:
    """Follow lion.py, lines 98 to 121: 1 − β is formed of the rounded β, in the parameter's dtype."""
    real = w.dtype.type
    w = _decayed(h, real, w)
    (b1, b2), (rest1, rest2) = map(real, h.betas), (_rest(real, beta, 1, mended=mended) for beta in h.betas)
    return w - _rate(h, real) * np.sign(m * b1 + g * rest1), m * b2 + g * rest2


OPTIMIZERS: dict[str, Callable[..., tuple[Any, ...]]] = {
    "AdaDelta": adadelta,
    "Adam": adam,
    "AdamW": adam,
    "Adamax": adamax,
    "Lion": lion,
    "BiasCorrectedAdam": adam,
    "BiasCorrectedAdamW": adam,
}


def keras_program(optimizer: str, *, mended: bool = False, wide: bool = False) -> Program:
    """Make the program of an optimizer, which claims what Keras does."""

    def step(h: Any, t: int, w: Any, g: Any, *slots: Any) -> tuple[Any, ...]:
        return OPTIMIZERS[optimizer](h, t, w, g, *slots, mended=mended, wide=wide)

    return Program(step, claim_of("keras", optimizer))
