"""Adam."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from mlx_optimizers.blocks import blocks
from mlx_optimizers.hyperparameters import Hyperparameter, at_least_zero, pair_below_one
from mlx_optimizers.optimizer import LearningRate, Optimizer

__all__ = ["Adam"]


class Adam(Optimizer):
    r"""Adam [1]: a running mean of the gradient over the root of one of its square, without bias correction.

    .. math::

        \begin{aligned}
        m_t &= \beta_1 m_{t-1} + (1 - \beta_1) g_t \\
        v_t &= \beta_2 v_{t-1} + (1 - \beta_2) g_t^2 \\
        w_t &= w_{t-1} - \lambda \frac{m_t}{\sqrt{v_t} + \epsilon}
        \end{aligned}

    The fast path forms βm, (1−β)g and their sum, with 1−β from the doubles; g is squared before it is multiplied by
    1−β₂; it takes the root, adds ε; multiplies m by λ and divides.

    Args:
        learning_rate: :math:`\lambda \ge 0`, a number, or a callable from the number of updates done to one.
        betas: The decays :math:`(\beta_1, \beta_2)`, each in [0, 1); default (0.9, 0.999).
        eps: :math:`\epsilon \ge 0`, added to the root; default 1e-8.

    State:
        ``m``: the running mean :math:`m_t` of gradients; ``v``: the running mean :math:`v_t` of squared gradients.
        Both start as zeros of the parameter's shape and dtype.

    Raises:
        ValueError: for a hyperparameter out of range, or another number of betas than two.
        TypeError: for a hyperparameter that is no number.

    Differences elsewhere:
        The paper, torch, optax and Keras correct the bias of both moments, so that their first steps are longer;
        MLX does with ``bias_correction=True``. Keras adds ε before the correction. Before version 0.2.0 MLX started
        from m = g and v = g².

    References:
        [1] D. P. Kingma and J. Ba, Adam: A method for stochastic optimization, ICLR 2015, :cite:p:`kingma-ba-2015`.

    Example:
        >>> import numpy as np
        >>> import mlx_optimizers as optim
        >>> w = {"w": np.float32([1.0])}
        >>> optimizer = optim.Adam(learning_rate=0.5, betas=(0.5, 0.75), eps=1.0)
        >>> optimizer.update(w, {"w": np.float32([2.0])})  # m = 1, v = 1, w = 1 − ½·1/(1 + 1)
        >>> print(w["w"], optimizer.state["w"]["m"], optimizer.state["w"]["v"])
        [0.75] [1.] [1.]

        The float32 result beside the exact value and the interval that rounding can explain:

        >>> from mlx_optimizers.oracle import trajectory
        >>> optim.Adam(1e-3).apply_gradients(np.float32([3.0]), np.float32([1.0]))
        array([0.99683774], dtype=float32)
        >>> step, = trajectory("Adam", [1.0], [[3.0]], learning_rate=1e-3)
        >>> print(f"{float(step.parameter.exact[0]):.16f} in {step.parameter.low} to {step.parameter.high}")
        0.9968377226731649 in [0.9968377] to [0.9968378]
    """

    slots = ("m", "v")

    betas = Hyperparameter(pair_below_one, "Decays (β₁, β₂), each in [0, 1).")
    eps = Hyperparameter(at_least_zero, "ε ≥ 0.")

    def __init__(
        self, learning_rate: LearningRate, betas: tuple[float, float] = (0.9, 0.999), eps: float = 1e-8
    ) -> None:
        super().__init__()
        self.learning_rate = learning_rate
        self.betas = betas
        self.eps = eps

    def apply_single(
        self, gradient: npt.NDArray[Any], parameter: npt.NDArray[Any], state: dict[str, Any]
    ) -> npt.NDArray[Any]:
        """Advance one array in place and return it."""
        b1, b2 = self.betas
        numbers = (self.learning_rate, b1, 1 - b1, b2, 1 - b2, self.eps)
        rate, b1, rest1, b2, rest2, eps = map(parameter.dtype.type, numbers)
        for w, g, m, v, a, d in blocks(parameter, gradient, state["m"], state["v"], scratch=2):
            np.multiply(g, rest1, out=a)
            m *= b1
            m += a
            np.multiply(g, g, out=a)
            a *= rest2
            v *= b2
            v += a
            np.sqrt(v, out=d)
            d += eps
            np.multiply(m, rate, out=a)
            a /= d
            w -= a
        return parameter

    @staticmethod
    def exact(n: Any, h: Any, t: int, w: Any, g: Any, m: Any, v: Any) -> tuple[Any, Any, Any]:
        """Advance over the numbers of a context ``n``."""
        b1, b2 = h.betas
        m = b1 * m + (1 - b1) * g
        v = b2 * v + (1 - b2) * g**2
        return w - h.learning_rate * m / (n.sqrt(v) + h.eps), m, v
