"""Stochastic gradient descent."""

from __future__ import annotations

from mlx_optimizers.elementwise import Elementwise
from mlx_optimizers.hyperparameters import Hyperparameter, at_least_zero, explained, switch, unit
from mlx_optimizers.kinds import Constants, FloatArray, Hyperparameters, Number, Numbers, Real, Step
from mlx_optimizers.rates import LearningRate

__all__ = ["SGD"]


class SGD(Elementwise):
    r"""Stochastic gradient descent, with momentum and coupled weight decay.

    .. math::
        \begin{aligned}
        h_t &= g_t + \kappa w_{t-1} \\
        v_t &=\begin{cases} v_{t-1} & \text{if } \mu = 0 \\ \mu v_{t-1} + (1-\tau) h_t & \text{otherwise} \end{cases} \\
        d_t &= \begin{cases} h_t & \text{if } \mu = 0 \\ h_t + \mu v_t & \text{if nesterov} \\
            v_t & \text{otherwise} \end{cases} \\
        w_t &= w_{t-1} - \lambda d_t
        \end{aligned}

    Args:
        learning_rate: :math:`\lambda`, a number ≥ 0, or a schedule: a function of the number of updates done so far.
        momentum: :math:`\mu`, a number ≥ 0; default 0.
        weight_decay: :math:`\kappa`, a number ≥ 0, coupled: it goes into the gradient; default 0.
        dampening: :math:`\tau`, a number in [0, 1]; default 0.
        nesterov: Whether to look ahead along the momentum; needs μ > 0 and τ = 0; default False.

    State: ``v``, zeros at first. Raises `ValueError` for a number out of range, `TypeError` for another type.

    Example:
        >>> import numpy as np
        >>> import mlx_optimizers as optim
        >>> optimizer, w = optim.SGD(0.5, momentum=0.5), np.float32([1])
        >>> for g in (1, 1):  # v = 1, then ½·1 + 1
        ...     optimizer.update(w, np.float32([g]))
        >>> print(w, optimizer.state["v"])
        [-0.25] [1.5]
    """

    slots = ("v",)

    momentum = Hyperparameter(at_least_zero, "Momentum μ ≥ 0.")
    weight_decay = Hyperparameter(at_least_zero, "Weight decay κ ≥ 0.")
    dampening = Hyperparameter(unit, "Dampening τ in [0, 1].")
    nesterov = Hyperparameter(switch, "Whether Nesterov momentum is used.")

    @explained
    def __init__(
        self,
        learning_rate: LearningRate,
        momentum: float = 0.0,
        weight_decay: float = 0.0,
        dampening: float = 0.0,
        nesterov: bool = False,
    ) -> None:
        super().__init__()
        self.learning_rate = learning_rate
        self.momentum = momentum
        self.weight_decay = weight_decay
        self.dampening = dampening
        self.nesterov = nesterov

    def check_together(self) -> None:
        """Refuse Nesterov momentum without momentum, or with dampening."""
        if vars(self).get("nesterov") and (self.momentum == 0 or self.dampening != 0):
            raise ValueError(
                f"nesterov needs momentum above 0 and dampening 0, not momentum {self.momentum!r} "
                f"and dampening {self.dampening!r}"
            )

    def coefficients(self, real: Real) -> Constants:
        """λ, μ, κ and 1 − τ, each rounded once to ``real``; whether there is weight decay, momentum, dampening."""
        rate, mu, kappa, rest = map(real, (self.learning_rate, self.momentum, self.weight_decay, 1 - self.dampening))
        # μ and τ count as they were given: what they round to may be 0.
        return rate, mu, kappa, rest, bool(kappa), self.momentum > 0, self.dampening > 0, self.nesterov

    @staticmethod
    def rule(c: Constants, w: FloatArray, g: FloatArray, v: FloatArray) -> tuple[FloatArray, ...]:
        """One step in floats, each operation rounded once."""
        rate, mu, kappa, rest, decayed, buffered, dampened, nesterov = c
        h = w * kappa + g if decayed else g
        if not buffered:
            return w - h * rate, v
        v = v * mu + (h * rest if dampened else h)
        d = v * mu + h if nesterov else v
        return w - d * rate, v

    @staticmethod
    def exact(n: Numbers, h: Hyperparameters, t: int, w: Number, g: Number, v: Number) -> Step:
        """Advance over the numbers of a context ``n``."""
        g = g + h.weight_decay * w
        if h.momentum == 0:
            return w - h.learning_rate * g, v
        v = h.momentum * v + (1 - h.dampening) * g
        d = g + h.momentum * v if h.nesterov else v
        return w - h.learning_rate * d, v
