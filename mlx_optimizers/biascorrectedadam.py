"""Adam with bias correction."""

from __future__ import annotations

import math

import numpy as np

from mlx_optimizers.adam import Adam
from mlx_optimizers.kinds import Constants, FloatArray, Hyperparameters, Number, Numbers, Real, Step

__all__ = ["BiasCorrectedAdam"]


class BiasCorrectedAdam(Adam):
    r"""Adam with bias correction [1], as in the paper; MLX's Adam with ``bias_correction=True``.

    .. math::
        \begin{aligned}
        m_t &= \beta_1 m_{t-1} + (1 - \beta_1) g_t \\
        v_t &= \beta_2 v_{t-1} + (1 - \beta_2) g_t^2 \\
        w_t &= w_{t-1} - \lambda \frac{m_t/(1-\beta_1^t)}{\sqrt{v_t/(1-\beta_2^t)} + \epsilon}
        \end{aligned}

    Args:
        learning_rate: :math:`\lambda`, a number ≥ 0, or a schedule: a function of the number of updates done so far.
        betas: :math:`(\beta_1, \beta_2)`, the decays of m and v, each in [0, 1); default (0.9, 0.999).
        eps: :math:`\epsilon`, a number ≥ 0, added to the root; default ``1e-8``.

    State: ``m`` and ``v``, zeros at first. Raises `ValueError` for a number out of range, `TypeError` for another type.

    Example:
        >>> import numpy as np
        >>> import mlx_optimizers as optim
        >>> optimizer = optim.BiasCorrectedAdam(0.5, betas=(0.5, 0.75), eps=2.0)
        >>> w = optimizer.apply_gradients(np.float32([2]), np.float32([1]))  # 1 − ½·2/(2 + 2)
        >>> print(w, optimizer.state["m"], optimizer.state["v"])  # m = ½·2, v = ¼·4
        [0.75] [1.] [1.]
    """

    def coefficients(self, real: Real) -> Constants:
        """The coefficients of the step that is counted, at first of step 1, each rounded once to ``real``."""
        (b1, b2), t = self.betas, max(int(self.step), 1)
        rate, root = self.learning_rate / (1 - b1**t), 1 / math.sqrt(1 - b2**t)
        return tuple(map(real, (rate, root, b1, 1 - b1, b2, 1 - b2, self.eps)))

    @staticmethod
    def rule(c: Constants, w: FloatArray, g: FloatArray, m: FloatArray, v: FloatArray) -> tuple[FloatArray, ...]:
        """One step in floats, each operation rounded once."""
        rate, root, b1, rest1, b2, rest2, eps = c
        m = m * b1 + g * rest1
        v = v * b2 + (g * g) * rest2
        return w - (m * rate) / (np.sqrt(v) * root + eps), m, v

    @staticmethod
    def exact(n: Numbers, h: Hyperparameters, t: int, w: Number, g: Number, m: Number, v: Number) -> Step:
        """Advance over the numbers of a context ``n``."""
        b1, b2 = h.betas
        m = b1 * m + (1 - b1) * g
        v = b2 * v + (1 - b2) * g**2
        first, second = m / (1 - b1**t), v / (1 - b2**t)
        return w - h.learning_rate * first / (n.sqrt(second) + h.eps), m, v
