"""Adagrad."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from mlx_optimizers.blocks import blocks
from mlx_optimizers.hyperparameters import Hyperparameter, positive
from mlx_optimizers.optimizer import LearningRate, Optimizer

__all__ = ["Adagrad"]


class Adagrad(Optimizer):
    r"""Adagrad [1]: the gradient over the root of the sum of all its squares.

    .. math::

        \begin{aligned}
        v_t &= v_{t-1} + g_t^2 \\
        w_t &= w_{t-1} - \lambda \frac{g_t}{\sqrt{v_t} + \epsilon}
        \end{aligned}

    The fast path squares g and adds it to v; takes the root, adds ε; multiplies g by λ and divides.

    Args:
        learning_rate: :math:`\lambda \ge 0`, a number, or a callable from the number of updates done to one.
        eps: :math:`\epsilon > 0`, added to the root; default 1e-8.

    State:
        ``v``: the sum :math:`v_t` of squared gradients, zeros at first, of the parameter's shape and dtype.

    Raises:
        ValueError: for a hyperparameter out of range.
        TypeError: for a hyperparameter that is no number.

    Differences elsewhere:
        torch computes the same, with ε = 1e-10 by default. optax and Keras start v at 0.1 and put ε inside the root.

    References:
        [1] J. Duchi, E. Hazan and Y. Singer, Adaptive subgradient methods for online learning and stochastic
        optimization, Journal of Machine Learning Research 12 (2011), :cite:p:`duchi-2011`.

    Example:
        >>> import numpy as np
        >>> import mlx_optimizers as optim
        >>> w = {"w": np.float32([1.0])}
        >>> optimizer = optim.Adagrad(learning_rate=0.5, eps=1.0)
        >>> optimizer.update(w, {"w": np.float32([3.0])})  # v = 9, w = 1 − ½·3/(3 + 1)
        >>> print(w["w"], optimizer.state["w"]["v"])
        [0.625] [9.]

        The float32 result beside the exact value and the interval that rounding can explain:

        >>> from mlx_optimizers.oracle import trajectory
        >>> optim.Adagrad(0.01).apply_gradients(np.float32([3.0]), np.float32([1.0]))
        array([0.99], dtype=float32)
        >>> step, = trajectory("Adagrad", [1.0], [[3.0]], learning_rate=0.01)
        >>> print(f"{float(step.parameter.exact[0]):.16f} in {step.parameter.low} to {step.parameter.high}")
        0.9900000000333333 in [0.98999995] to [0.99000007]
    """

    slots = ("v",)

    eps = Hyperparameter(positive, "ε > 0.")

    def __init__(self, learning_rate: LearningRate, eps: float = 1e-8) -> None:
        super().__init__()
        self.learning_rate = learning_rate
        self.eps = eps

    def apply_single(
        self, gradient: npt.NDArray[Any], parameter: npt.NDArray[Any], state: dict[str, Any]
    ) -> npt.NDArray[Any]:
        """Advance one array in place and return it."""
        rate, eps = map(parameter.dtype.type, (self.learning_rate, self.eps))
        for w, g, v, a, d in blocks(parameter, gradient, state["v"], scratch=2):
            np.multiply(g, g, out=a)
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
        v = v + g**2
        return w - h.learning_rate * g / (n.sqrt(v) + h.eps), v
