"""AdaDelta."""

from __future__ import annotations

import numpy as np

from mlx_optimizers.elementwise import Elementwise
from mlx_optimizers.hyperparameters import Hyperparameter, explained, positive, unit
from mlx_optimizers.kinds import Constants, FloatArray, Hyperparameters, Number, Numbers, Real, Step
from mlx_optimizers.rates import LearningRate

__all__ = ["AdaDelta"]


class AdaDelta(Elementwise):
    r"""AdaDelta with a learning rate [1]: steps in proportion to the running size of the steps before.

    .. math::
        \begin{aligned}
        v_t &= \rho v_{t-1} + (1 - \rho) g_t^2 \\
        d_t &= \frac{\sqrt{u_{t-1} + \epsilon}}{\sqrt{v_t + \epsilon}} g_t \\
        u_t &= \rho u_{t-1} + (1 - \rho) d_t^2 \\
        w_t &= w_{t-1} - \lambda d_t
        \end{aligned}

    Args:
        learning_rate: :math:`\lambda`, a number ≥ 0, or a schedule: a function of the number of updates done so far.
        rho: :math:`\rho`, the decay of both running means, in [0, 1]; default 0.9.
        eps: :math:`\epsilon`, a number > 0, inside both roots; default ``1e-6``.

    State: ``v`` and ``u``, zeros at first. Raises `ValueError` for a number out of range, `TypeError` for another type.

    Example:
        >>> import numpy as np
        >>> import mlx_optimizers as optim
        >>> optimizer = optim.AdaDelta(1.0, rho=0.25, eps=1.0)
        >>> w = optimizer.apply_gradients(np.float32([2]), np.float32([1]))  # 1 − √1/√(3 + 1)·2
        >>> print(w, optimizer.state["v"], optimizer.state["u"])  # v = ¾·4, u = ¾·1
        [0.] [3.] [0.75]
    """

    slots = ("v", "u")

    rho = Hyperparameter(unit, "Decay ρ in [0, 1].")
    eps = Hyperparameter(positive, "ε > 0.")

    @explained
    def __init__(self, learning_rate: LearningRate, rho: float = 0.9, eps: float = 1e-6) -> None:
        super().__init__()
        self.learning_rate = learning_rate
        self.rho = rho
        self.eps = eps

    def coefficients(self, real: Real) -> Constants:
        """The coefficients of one step, each rounded once to the dtype ``real``."""
        return tuple(map(real, (self.learning_rate, self.rho, 1 - self.rho, self.eps)))

    @staticmethod
    def rule(c: Constants, w: FloatArray, g: FloatArray, v: FloatArray, u: FloatArray) -> tuple[FloatArray, ...]:
        """One step in floats, each operation rounded once."""
        rate, rho, rest, eps = c
        v = v * rho + (g * g) * rest
        d = np.sqrt(u + eps) / np.sqrt(v + eps) * g
        u = u * rho + (d * d) * rest
        return w - d * rate, v, u

    @staticmethod
    def exact(n: Numbers, h: Hyperparameters, t: int, w: Number, g: Number, v: Number, u: Number) -> Step:
        """Advance over the numbers of a context ``n``."""
        v = h.rho * v + (1 - h.rho) * g**2
        d = n.sqrt(u + h.eps) / n.sqrt(v + h.eps) * g
        u = h.rho * u + (1 - h.rho) * d**2
        return w - h.learning_rate * d, v, u
