"""Adamax."""

from __future__ import annotations

import numpy as np

from mlx_optimizers.adam import Adam
from mlx_optimizers.kinds import Constants, FloatArray, Hyperparameters, Number, Numbers, Real, Step

__all__ = ["Adamax"]


class Adamax(Adam):
    r"""Adamax [1]: Adam with a running maximum of the gradient's size, without bias correction.

    .. math::
        \begin{aligned}
        m_t &= \beta_1 m_{t-1} + (1 - \beta_1) g_t \\
        v_t &= \max(\beta_2 v_{t-1}, |g_t|) \\
        w_t &= w_{t-1} - \lambda \frac{m_t}{v_t + \epsilon}
        \end{aligned}

    Args:
        learning_rate: :math:`\lambda`, a number ≥ 0, or a schedule: a function of the number of updates done so far.
        betas: :math:`(\beta_1, \beta_2)`, the decays of m and v, each in [0, 1); default (0.9, 0.999).
        eps: :math:`\epsilon`, a number ≥ 0, added to the maximum; default ``1e-8``.

    State: ``m`` and ``v``, zeros at first. Raises `ValueError` for a number out of range, `TypeError` for another type.

    Example:
        >>> import numpy as np
        >>> import mlx_optimizers as optim
        >>> optimizer = optim.Adamax(0.5, betas=(0.5, 0.75), eps=2.0)
        >>> w = optimizer.apply_gradients(np.float32([-2]), np.float32([1]))  # 1 + ½·1/(2 + 2)
        >>> print(w, optimizer.state["m"], optimizer.state["v"])  # m = −½·2, v = 2
        [1.125] [-1.] [2.]
    """

    def coefficients(self, real: Real) -> Constants:
        """The coefficients of one step, each rounded once to the dtype ``real``."""
        b1, b2 = self.betas
        return tuple(map(real, (self.learning_rate, b1, 1 - b1, b2, self.eps)))

    @staticmethod
    def rule(c: Constants, w: FloatArray, g: FloatArray, m: FloatArray, v: FloatArray) -> tuple[FloatArray, ...]:
        """One step in floats, each operation rounded once."""
        rate, b1, rest1, b2, eps = c
        m = m * b1 + g * rest1
        v = np.maximum(v * b2, np.abs(g))
        return w - (m * rate) / (v + eps), m, v

    @staticmethod
    def exact(n: Numbers, h: Hyperparameters, t: int, w: Number, g: Number, m: Number, v: Number) -> Step:
        """Advance over the numbers of a context ``n``."""
        b1, b2 = h.betas
        m = b1 * m + (1 - b1) * g
        v = n.max(b2 * v, n.abs(g))
        return w - h.learning_rate * m / (v + h.eps), m, v
