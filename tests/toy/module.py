"""Soft, an optimizer that exists in tests alone."""

from __future__ import annotations

import numpy as np

from mlx_optimizers.elementwise import Elementwise
from mlx_optimizers.hyperparameters import Hyperparameter, at_least_zero, explained, unit
from mlx_optimizers.kinds import Constants, FloatArray, Hyperparameters, Number, Numbers, Real, Step
from mlx_optimizers.rates import LearningRate

__all__ = ["Soft"]


class Soft(Elementwise):
    r"""Soft: a decaying sum of gradients, divided by one plus a multiple of its size.

    .. math::
        \begin{aligned}
        s_t &= \rho s_{t-1} + g_t \\
        w_t &= w_{t-1} - \lambda \frac{s_t}{1 + \tau |s_t|}
        \end{aligned}

    Args:
        learning_rate: :math:`\lambda`, a number ≥ 0, or a schedule: a function of the number of updates done so far.
        decay: :math:`\rho`, the decay of s, in [0, 1]; default ``0.5``.
        softness: :math:`\tau`, a number ≥ 0; default ``1.0``.

    State: ``s``, zeros at first. Raises `ValueError` for a number out of range, `TypeError` for another type.

    Example:
        >>> import numpy as np
        >>> import mlx_optimizers as optim
        >>> optimizer = optim.Soft(0.5)
        >>> print(optimizer.apply_gradients(np.float32([3]), np.float32([1])))  # w = 1 − ½·3/(1 + 3)
        [0.625]
    """

    slots = ("s",)

    decay = Hyperparameter(unit, "Decay ρ in [0, 1].")
    softness = Hyperparameter(at_least_zero, "Softness τ ≥ 0.")

    @explained
    def __init__(self, learning_rate: LearningRate, decay: float = 0.5, softness: float = 1.0) -> None:
        super().__init__()
        self.learning_rate = learning_rate
        self.decay = decay
        self.softness = softness

    def coefficients(self, real: Real) -> Constants:
        """The coefficients of one step, each rounded once to the dtype ``real``."""
        return real(1), real(self.learning_rate), real(self.decay), real(self.softness)

    @staticmethod
    def rule(c: Constants, w: FloatArray, g: FloatArray, s: FloatArray) -> tuple[FloatArray, ...]:
        """One step in floats, each operation rounded once."""
        one, rate, decay, softness = c
        s = s * decay + g
        return w - (s * rate) / (one + np.abs(s) * softness), s

    @staticmethod
    def exact(n: Numbers, h: Hyperparameters, t: int, w: Number, g: Number, s: Number) -> Step:
        """Advance over the numbers of a context ``n``."""
        s = h.decay * s + g
        return w - h.learning_rate * s / (1 + h.softness * n.abs(s)), s
