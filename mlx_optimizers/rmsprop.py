"""RMSprop."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from mlx_optimizers.blocks import blocks
from mlx_optimizers.hyperparameters import Hyperparameter, positive, unit
from mlx_optimizers.optimizer import LearningRate, Optimizer

__all__ = ["RMSprop"]


class RMSprop(Optimizer):
    r"""RMSprop [1]: the gradient over the root of a running mean of its square.

    .. math::

        \begin{aligned}
        v_t &= \alpha v_{t-1} + (1 - \alpha) g_t^2 \\
        w_t &= w_{t-1} - \lambda \frac{g_t}{\sqrt{v_t} + \epsilon}
        \end{aligned}

    The fast path squares g, multiplies by 1−α, adds to αv; takes the root, adds ε; multiplies g by λ and divides.

    Args:
        learning_rate: :math:`\lambda \ge 0`, a number, or a callable from the number of updates done to one.
        alpha: The smoothing constant :math:`\alpha` in [0, 1]; default 0.99.
        eps: :math:`\epsilon > 0`, added to the root; default 1e-8.

    State:
        ``v``: the running mean :math:`v_t` of squared gradients, zeros at first, of the parameter's shape and dtype.

    Raises:
        ValueError: for a hyperparameter out of range.
        TypeError: for a hyperparameter that is no number.

    Differences elsewhere:
        torch computes the same. optax and Keras put ε inside the root, :math:`\sqrt{v_t + \epsilon}`, by default.

    References:
        [1] T. Tieleman and G. Hinton, Lecture 6.5, RMSProp: Divide the gradient by a running average of its recent
        magnitude, Neural Networks for Machine Learning, 2012, :cite:p:`tieleman-hinton-2012`.

    Example:
        >>> import numpy as np
        >>> import mlx_optimizers as optim
        >>> w = {"w": np.float32([1.0])}
        >>> optimizer = optim.RMSprop(learning_rate=0.5, alpha=0.75, eps=1.0)
        >>> optimizer.update(w, {"w": np.float32([2.0])})  # v = 4/4, w = 1 − ½·2/(1 + 1)
        >>> print(w["w"], optimizer.state["w"]["v"])
        [0.5] [1.]

        The float32 result beside the exact value and the interval that rounding can explain:

        >>> from mlx_optimizers.oracle import trajectory
        >>> optim.RMSprop(0.01).apply_gradients(np.float32([3.0]), np.float32([1.0]))
        array([0.9], dtype=float32)
        >>> step, = trajectory("RMSprop", [1.0], [[3.0]], learning_rate=0.01)
        >>> print(f"{float(step.parameter.exact[0]):.16f} in {step.parameter.low} to {step.parameter.high}")
        0.9000000033333333 in [0.8999999] to [0.9000001]
    """

    slots = ("v",)

    alpha = Hyperparameter(unit, "Smoothing constant α in [0, 1].")
    eps = Hyperparameter(positive, "ε > 0.")

    def __init__(self, learning_rate: LearningRate, alpha: float = 0.99, eps: float = 1e-8) -> None:
        super().__init__()
        self.learning_rate = learning_rate
        self.alpha = alpha
        self.eps = eps

    def apply_single(
        self, gradient: npt.NDArray[Any], parameter: npt.NDArray[Any], state: dict[str, Any]
    ) -> npt.NDArray[Any]:
        """Advance one array in place and return it."""
        real = parameter.dtype.type
        rate, alpha, rest, eps = map(real, (self.learning_rate, self.alpha, 1 - self.alpha, self.eps))
        for w, g, v, a, d in blocks(parameter, gradient, state["v"], scratch=2):
            np.multiply(g, g, out=a)
            a *= rest
            v *= alpha
            v += a
            np.sqrt(v, out=d)
            d += eps
            np.multiply(g, rate, out=a)
            a /= d
            w -= a
        return parameter

    @staticmethod
    def exact(n: Any, h: Any, t: int, w: Any, g: Any, v: Any) -> tuple[Any, Any]:
        """Advance over the numbers of a context ``n``."""
        v = h.alpha * v + (1 - h.alpha) * g**2
        return w - h.learning_rate * g / (n.sqrt(v) + h.eps), v
