"""Adagrad."""

from __future__ import annotations

import numpy as np

from mlx_optimizers.elementwise import Elementwise
from mlx_optimizers.hyperparameters import Hyperparameter, explained, positive
from mlx_optimizers.kinds import Constants, FloatArray, Hyperparameters, Number, Numbers, Real, Step
from mlx_optimizers.rates import LearningRate

__all__ = ["Adagrad"]


class Adagrad(Elementwise):
    r"""Adagrad [1]: the gradient over the root of the sum of all its squares.

    .. math::
        \begin{aligned}
        v_t &= v_{t-1} + g_t^2 \\
        w_t &= w_{t-1} - \lambda \frac{g_t}{\sqrt{v_t} + \epsilon}
        \end{aligned}

    Args:
        learning_rate: :math:`\lambda`, a number ≥ 0, or a schedule: a function of the number of updates done so far.
        eps: :math:`\epsilon`, a number > 0, added to the root; default ``1e-8``.

    State: ``v``, zeros at first. Raises `ValueError` for a number out of range, `TypeError` for another type.

    Example:
        >>> import numpy as np
        >>> import mlx_optimizers as optim
        >>> optimizer, w = optim.Adagrad(0.5, eps=3.0), np.float32([1])
        >>> for g in (3, 4):  # w = 1 − ½·3/(3 + 3), then less ½·4/(5 + 3)
        ...     optimizer.update(w, np.float32([g]))
        >>> print(w, optimizer.state["v"])
        [0.5] [25.]
    """

    slots = ("v",)

    eps = Hyperparameter(positive, "ε > 0.")

    @explained
    def __init__(self, learning_rate: LearningRate, eps: float = 1e-8) -> None:
        super().__init__()
        self.learning_rate = learning_rate
        self.eps = eps

    def coefficients(self, real: Real) -> Constants:
        """The coefficients of one step, each rounded once to the dtype ``real``."""
        return real(self.learning_rate), real(self.eps)

    @staticmethod
    def rule(c: Constants, w: FloatArray, g: FloatArray, v: FloatArray) -> tuple[FloatArray, ...]:
        """One step in floats, each operation rounded once."""
        rate, eps = c
        v = v + g * g
        return w - (g * rate) / (np.sqrt(v) + eps), v

    @staticmethod
    def exact(n: Numbers, h: Hyperparameters, t: int, w: Number, g: Number, v: Number) -> Step:
        """Advance over the numbers of a context ``n``."""
        v = v + g**2
        return w - h.learning_rate * g / (n.sqrt(v) + h.eps), v
