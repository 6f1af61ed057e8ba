"""AdamW with bias correction."""

from __future__ import annotations

import numpy as np

from mlx_optimizers.adamw import AdamW
from mlx_optimizers.biascorrectedadam import BiasCorrectedAdam
from mlx_optimizers.kinds import Constants, FloatArray, Hyperparameters, Number, Numbers, Real, Step

__all__ = ["BiasCorrectedAdamW"]


class BiasCorrectedAdamW(BiasCorrectedAdam, AdamW):
    r"""AdamW with bias correction [1], as in the paper; MLX's AdamW with ``bias_correction=True``.

    .. math::
        \begin{aligned}
        m_t &= \beta_1 m_{t-1} + (1 - \beta_1) g_t \\
        v_t &= \beta_2 v_{t-1} + (1 - \beta_2) g_t^2 \\
        w_t &= (1 - \lambda \kappa) w_{t-1} - \lambda \frac{m_t/(1-\beta_1^t)}{\sqrt{v_t/(1-\beta_2^t)} + \epsilon}
        \end{aligned}

    Args:
        learning_rate: :math:`\lambda`, a number ≥ 0, or a schedule: a function of the number of updates done so far.
        betas: :math:`(\beta_1, \beta_2)`, the decays of m and v, each in [0, 1); default (0.9, 0.999).
        eps: :math:`\epsilon`, a number ≥ 0, added to the root; default ``1e-8``.
        weight_decay: :math:`\kappa`, a number ≥ 0, decoupled: the gradient and its means do not see it; default 0.01.

    State: ``m`` and ``v``, zeros at first. Raises `ValueError` for a number out of range, `TypeError` for another type.

    Example:
        >>> import numpy as np
        >>> import mlx_optimizers as optim
        >>> optimizer = optim.BiasCorrectedAdamW(0.5, betas=(0.5, 0.75), eps=2.0, weight_decay=0.5)
        >>> w = optimizer.apply_gradients(np.float32([2]), np.float32([1]))  # ¾ − ½·2/(2 + 2)
        >>> print(w, optimizer.state["m"], optimizer.state["v"])  # m = ½·2, v = ¼·4
        [0.5] [1.] [1.]
    """

    def coefficients(self, real: Real) -> Constants:
        """The coefficients of one step, 1 − λκ first, each rounded once to the dtype ``real``."""
        keep = real(1) - real(self.learning_rate) * real(self.weight_decay)
        return keep, *super().coefficients(real)

    @staticmethod
    def rule(c: Constants, w: FloatArray, g: FloatArray, m: FloatArray, v: FloatArray) -> tuple[FloatArray, ...]:
        """One step in floats, each operation rounded once."""
        keep, rate, root, b1, rest1, b2, rest2, eps = c
        m = m * b1 + g * rest1
        v = v * b2 + (g * g) * rest2
        return w * keep - (m * rate) / (np.sqrt(v) * root + eps), m, v

    @staticmethod
    def exact(n: Numbers, h: Hyperparameters, t: int, w: Number, g: Number, m: Number, v: Number) -> Step:
        """Advance over the numbers of a context ``n``."""
        return BiasCorrectedAdam.exact(n, h, t, (1 - n.lift(h.learning_rate) * h.weight_decay) * w, g, m, v)
