"""RMSprop."""

from __future__ import annotations

import numpy as np

from mlx_optimizers.elementwise import Elementwise
from mlx_optimizers.hyperparameters import Hyperparameter, explained, positive, unit
from mlx_optimizers.kinds import Constants, FloatArray, Hyperparameters, Number, Numbers, Real, Step
from mlx_optimizers.rates import LearningRate

__all__ = ["RMSprop"]


class RMSprop(Elementwise):
    r"""RMSprop [1]: the gradient over the root of a running mean of its square.

    .. math::
        \begin{aligned}
        v_t &= \alpha v_{t-1} + (1 - \alpha) g_t^2 \\
        w_t &= w_{t-1} - \lambda \frac{g_t}{\sqrt{v_t} + \epsilon}
        \end{aligned}

    Args:
        learning_rate: :math:`\lambda`, a number ≥ 0, or a schedule: a function of the number of updates done so far.
        alpha: :math:`\alpha`, the decay of the running mean, in [0, 1]; default 0.99.
        eps: :math:`\epsilon`, a number > 0, added to the root; default ``1e-8``.

    State: ``v``, zeros at first. Raises `ValueError` for a number out of range, `TypeError` for another type.

    Example:
        >>> import numpy as np
        >>> import mlx_optimizers as optim
        >>> optimizer = optim.RMSprop(0.5, alpha=0.75, eps=1.0)
        >>> w = optimizer.apply_gradients(np.float32([2]), np.float32([1]))  # 1 − ½·2/(1 + 1)
        >>> print(w, optimizer.state["v"])  # v = ¼·4
        [0.5] [1.]
    """

    slots = ("v",)

    alpha = Hyperparameter(unit, "Smoothing constant α in [0, 1].")
    eps = Hyperparameter(positive, "ε > 0.")

    @explained
    def __init__(self, learning_rate: LearningRate, alpha: float = 0.99, eps: float = 1e-8) -> None:
        super().__init__()
        self.learning_rate = learning_rate
        self.alpha = alpha
        self.eps = eps

    def coefficients(self, real: Real) -> Constants:
        """The coefficients of one step, each rounded once to the dtype ``real``."""
        return tuple(map(real, (self.learning_rate, self.alpha, 1 - self.alpha, self.eps)))

    @staticmethod
    def rule(c: Constants, w: FloatArray, g: FloatArray, v: FloatArray) -> tuple[FloatArray, ...]:
        """One step in floats, each operation rounded once."""
        rate, alpha, rest, eps = c
        v = v * alpha + (g * g) * rest
        return w - (g * rate) / (np.sqrt(v) + eps), v

    @staticmethod
    def exact(n: Numbers, h: Hyperparameters, t: int, w: Number, g: Number, v: Number) -> Step:
        """Advance over the numbers of a context ``n``."""
        v = h.alpha * v + (1 - h.alpha) * g**2
        return w - h.learning_rate * g / (n.sqrt(v) + h.eps), v
