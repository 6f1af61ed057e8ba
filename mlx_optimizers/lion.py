"""Lion."""

from __future__ import annotations

import numpy as np

from mlx_optimizers.elementwise import Elementwise
from mlx_optimizers.hyperparameters import Hyperparameter, at_least_zero, explained, pair_below_one
from mlx_optimizers.kinds import Constants, FloatArray, Hyperparameters, Number, Numbers, Real, Step
from mlx_optimizers.rates import LearningRate

__all__ = ["Lion"]


class Lion(Elementwise):
    r"""Lion [1]: steps of one size in the direction of an interpolated momentum, with decoupled weight decay.

    .. math::
        \begin{aligned}
        c_t &= \beta_1 m_{t-1} + (1 - \beta_1) g_t \\
        m_t &= \beta_2 m_{t-1} + (1 - \beta_2) g_t \\
        w_t &= (1 - \lambda \kappa) w_{t-1} - \lambda \operatorname{sign}(c_t)
        \end{aligned}

    Args:
        learning_rate: :math:`\lambda`, a number ≥ 0, or a schedule: a function of the number of updates done so far.
        betas: :math:`(\beta_1, \beta_2)`, the decays of c and m, each in [0, 1); default (0.9, 0.99).
        weight_decay: :math:`\kappa`, a number ≥ 0, decoupled: the momentum does not see it; default 0.

    The sign of zero is 0.
    State: ``m``, zeros at first. Raises `ValueError` for a number out of range, `TypeError` for another type.

    Example:
        >>> import numpy as np
        >>> import mlx_optimizers as optim
        >>> optimizer = optim.Lion(0.5, betas=(0.5, 0.75), weight_decay=0.5)
        >>> w = optimizer.apply_gradients(np.float32([2]), np.float32([1]))  # ¾ − ½
        >>> print(w, optimizer.state["m"])  # c = ½·2, m = ¼·2
        [0.25] [0.5]
    """

    slots = ("m",)

    betas = Hyperparameter(pair_below_one, "Decays (β₁, β₂), each in [0, 1).")
    weight_decay = Hyperparameter(at_least_zero, "Decoupled weight decay κ ≥ 0.")

    @explained
    def __init__(
        self, learning_rate: LearningRate, betas: tuple[float, float] = (0.9, 0.99), weight_decay: float = 0.0
    ) -> None:
        super().__init__()
        self.learning_rate = learning_rate
        self.betas = betas
        self.weight_decay = weight_decay

    def coefficients(self, real: Real) -> Constants:
        """λ, 1 − λκ, the betas and one less each, each rounded once to ``real``; whether there is weight decay."""
        b1, b2 = self.betas
        rate, kappa = real(self.learning_rate), real(self.weight_decay)
        keep = real(1) - rate * kappa
        return rate, keep, *map(real, (b1, 1 - b1, b2, 1 - b2)), bool(keep != 1)

    @staticmethod
    def rule(c: Constants, w: FloatArray, g: FloatArray, m: FloatArray) -> tuple[FloatArray, ...]:
        """One step in floats, each operation rounded once."""
        rate, keep, b1, rest1, b2, rest2, decayed = c
        d = m * b1 + g * rest1
        m = m * b2 + g * rest2
        w = w * keep if decayed else w
        return w - np.sign(d) * rate, m

    @staticmethod
    def exact(n: Numbers, h: Hyperparameters, t: int, w: Number, g: Number, m: Number) -> Step:
        """Advance over the numbers of a context ``n``."""
        b1, b2 = h.betas
        c = b1 * m + (1 - b1) * g
        m = b2 * m + (1 - b2) * g
        return (1 - n.lift(h.learning_rate) * h.weight_decay) * w - h.learning_rate * n.sign(c), m
