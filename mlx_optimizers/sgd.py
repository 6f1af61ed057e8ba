"""Stochastic gradient descent."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from mlx_optimizers.blocks import blocks
from mlx_optimizers.hyperparameters import Hyperparameter, at_least_zero, switch, unit
from mlx_optimizers.optimizer import LearningRate, Optimizer

__all__ = ["SGD"]


class SGD(Optimizer):
    r"""Stochastic gradient descent, with momentum and coupled weight decay.

    .. math::

        \begin{aligned}
        h_t &= g_t + \kappa w_{t-1} \\
        v_t &= \begin{cases}
            v_{t-1} & \text{if } \mu = 0 \\
            \mu v_{t-1} + (1 - \tau) h_t & \text{otherwise}
            \end{cases} \\
        d_t &= \begin{cases}
            h_t & \text{if } \mu = 0 \\
            h_t + \mu v_t & \text{if nesterov} \\
            v_t & \text{otherwise}
            \end{cases} \\
        w_t &= w_{t-1} - \lambda d_t
        \end{aligned}

    The dampening τ plays no part without momentum. The fast path forms :math:`\kappa w`, adds g, then
    :math:`\mu v`, then :math:`(1 - \tau) h` (h itself where τ = 0), then :math:`\lambda d`; every product is rounded
    before it is added. Weight decay is left out where κ = 0.

    Args:
        learning_rate: :math:`\lambda \ge 0`, a number, or a callable from the number of updates done to one.
        momentum: :math:`\mu \ge 0`; default 0.
        weight_decay: :math:`\kappa \ge 0`, added to the gradient as κw; default 0.
        dampening: :math:`\tau` in [0, 1]; default 0.
        nesterov: Whether to look ahead along the momentum; needs μ > 0 and τ = 0; default False.

    State:
        ``v``: the momentum buffer :math:`v_t`, zeros at first, of the parameter's shape and dtype.

    Raises:
        ValueError: for a hyperparameter out of range, or Nesterov momentum without momentum or with dampening.
        TypeError: for a hyperparameter that is no number.

    Differences elsewhere:
        torch's first buffer is the gradient itself, whatever τ is. Keras keeps λ inside the buffer, so that a change
        of the learning rate reaches old gradients late, and decouples the weight decay. optax has no dampening.

    References:
        H. Robbins and S. Monro, A stochastic approximation method, Annals of Mathematical Statistics 22 (1951),
        :cite:p:`robbins-monro-1951`; momentum: B. T. Polyak, Some methods of speeding up the convergence of
        iteration methods (1964), :cite:p:`polyak-1964`; Nesterov momentum in this form: I. Sutskever et al., On the
        importance of initialization and momentum in deep learning, ICML 2013, :cite:p:`sutskever-2013`.

    Example:
        >>> import numpy as np
        >>> import mlx_optimizers as optim
        >>> w = {"w": np.float32([1.0])}
        >>> optimizer = optim.SGD(learning_rate=0.5, momentum=0.5)
        >>> for gradient in (1.0, 1.0):
        ...     optimizer.update(w, {"w": np.float32([gradient])})
        ...     print(w["w"], optimizer.state["w"]["v"])
        [0.5] [1.]
        [-0.25] [1.5]

        The float32 result beside the exact value and the interval that rounding can explain:

        >>> from mlx_optimizers.oracle import trajectory
        >>> optim.SGD(0.1).apply_gradients(np.float32([1.0]), np.float32([1.0]))
        array([0.9], dtype=float32)
        >>> step, = trajectory("SGD", [1.0], [[1.0]], learning_rate=0.1)
        >>> print(f"{float(step.parameter.exact[0]):.16f} in {step.parameter.low} to {step.parameter.high}")
        0.9000000000000000 in [0.8999999] to [0.9000001]
    """

    slots = ("v",)

    momentum = Hyperparameter(at_least_zero, "Momentum μ ≥ 0.")
    weight_decay = Hyperparameter(at_least_zero, "Weight decay κ ≥ 0.")
    dampening = Hyperparameter(unit, "Dampening τ in [0, 1].")
    nesterov = Hyperparameter(switch, "Whether Nesterov momentum is used.")

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

    def apply_single(
        self, gradient: npt.NDArray[Any], parameter: npt.NDArray[Any], state: dict[str, Any]
    ) -> npt.NDArray[Any]:
        """Advance one array in place and return it."""
        real = parameter.dtype.type
        rate, mu, kappa, rest = map(real, (self.learning_rate, self.momentum, self.weight_decay, 1 - self.dampening))
        for w, g, v, a, b in blocks(parameter, gradient, state["v"], scratch=2):
            if kappa:
                np.multiply(w, kappa, out=b)
                b += g
                g = b
            if mu:
                v *= mu
                v += g if rest == 1 else np.multiply(g, rest, out=a)
                if self.nesterov:
                    np.multiply(v, mu, out=a)
                    a += g
                    a *= rate
                else:
                    np.multiply(v, rate, out=a)
            else:
                np.multiply(g, rate, out=a)
            w -= a
        return parameter

    @staticmethod
    def exact(n: Any, h: Any, t: int, w: Any, g: Any, v: Any) -> tuple[Any, Any]:
        """Advance over the numbers of a context ``n``."""
        g = g + h.weight_decay * w
        if h.momentum == 0:
            return w - h.learning_rate * g, v
        v = h.momentum * v + (1 - h.dampening) * g
        d = g + h.momentum * v if h.nesterov else v
        return w - h.learning_rate * d, v
