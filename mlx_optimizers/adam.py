"""Adam."""

from __future__ import annotations

import numpy as np

from mlx_optimizers.elementwise import Elementwise
from mlx_optimizers.hyperparameters import Hyperparameter, at_least_zero, explained, pair_below_one
from mlx_optimizers.kinds import Constants, FloatArray, Hyperparameters, Number, Numbers, Real, Step
from mlx_optimizers.rates import LearningRate

__all__ = ["Adam"]


class Adam(Elementwise):
    r"""Adam [1]: a running mean of the gradient over the root of one of its square, without bias correction.

    .. math::
        \begin{aligned}
        m_t &= \beta_1 m_{t-1} + (1 - \beta_1) g_t \\
        v_t &= \beta_2 v_{t-1} + (1 - \beta_2) g_t^2 \\
        w_t &= w_{t-1} - \lambda \frac{m_t}{\sqrt{v_t} + \epsilon}
        \end{aligned}

    Args:
        learning_rate: :math:`\lambda`, a number ≥ 0, or a schedule: a function of the number of updates done so far.
        betas: :math:`(\beta_1, \beta_2)`, the decays of m and v, each in [0, 1); default (0.9, 0.999).
        eps: :math:`\epsilon`, a number ≥ 0, added to the root; default ``1e-8``.

    State: ``m`` and ``v``, zeros at first. Raises `ValueError` for a number out of range, `TypeError` for another type.

    Example:
        >>> import numpy as np
        >>> import mlx_optimizers as optim
        >>> optimizer = optim.Adam(0.5, betas=(0.5, 0.75), eps=1.0)
        >>> w = optimizer.apply_gradients(np.float32([2]), np.float32([1]))  # 1 − ½·1/(1 + 1)
        >>> print(w, optimizer.state["m"], optimizer.state["v"])  # m = ½·2, v = ¼·4
        [0.75] [1.] [1.]
    """

    slots = ("m", "v")

    betas = Hyperparameter(pair_below_one, "Decays (β₁, β₂), each in [0, 1).")
    eps = Hyperparameter(at_least_zero, "ε ≥ 0.")

    @explained
    def __init__(
        self, learning_rate: LearningRate, betas: tuple[float, float] = (0.9, 0.999), eps: float = 1e-8
    ) -> None:
        super().__init__()
        self.learning_rate = learning_rate
        self.betas = betas
        self.eps = eps

    def coefficients(self, real: Real) -> Constants:
        """The coefficients of one step, each rounded once to the dtype ``real``."""
        b1, b2 = self.betas
        return tuple(map(real, (self.learning_rate, b1, 1 - b1, b2, 1 - b2, self.eps)))

    @staticmethod
    def rule(c: Constants, w: FloatArray, g: FloatArray, m: FloatArray, v: FloatArray) -> tuple[FloatArray, ...]:
        """One step in floats, each operation rounded once."""
        rate, b1, rest1, b2, rest2, eps = c
        m = m * b1 + g * rest1
        v = v * b2 + (g * g) * rest2
        return w - (m * rate) / (np.sqrt(v) + eps), m, v

    @staticmethod
    def exact(n: Numbers, h: Hyperparameters, t: int, w: Number, g: Number, m: Number, v: Number) -> Step:
        """Advance over the numbers of a context ``n``."""
        b1, b2 = h.betas
        m = b1 * m + (1 - b1) * g
        v = b2 * v + (1 - b2) * g**2
        return w - h.learning_rate * m / (n.sqrt(v) + h.eps), m, v
