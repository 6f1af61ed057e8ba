"""Adamax."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from mlx_optimizers.adam import Adam
from mlx_optimizers.blocks import blocks

__all__ = ["Adamax"]


class Adamax(Adam):
    r"""Adamax [1]: Adam with a running maximum of the gradient's size, without bias correction.

    .. math::

        \begin{aligned}
        m_t &= \beta_1 m_{t-1} + (1 - \beta_1) g_t \\
        v_t &= \max(\beta_2 v_{t-1}, |g_t|) \\
        w_t &= w_{t-1} - \lambda \frac{m_t}{v_t + \epsilon}
        \end{aligned}

    The fast path forms m as :class:`Adam` does; multiplies v by β₂ and takes the maximum with \|g\|; adds ε;
    multiplies m by λ and divides.

    Args:
        learning_rate: :math:`\lambda \ge 0`, a number, or a callable from the number of updates done to one.
        betas: The decays :math:`(\beta_1, \beta_2)`, each in [0, 1); default (0.9, 0.999).
        eps: :math:`\epsilon \ge 0`, added to the maximum; default 1e-8.

    State:
        ``m``: the running mean :math:`m_t` of gradients; ``v``: the decaying maximum :math:`v_t` of their sizes.
        Both start as zeros of the parameter's shape and dtype.

    Raises:
        ValueError: for a hyperparameter out of range, or another number of betas than two.
        TypeError: for a hyperparameter that is no number.

    Differences elsewhere:
        The paper, torch, optax and Keras correct the bias of m. The paper adds no ε; torch and optax add it to
        :math:`|g_t|` inside the maximum.

    References:
        [1] D. P. Kingma and J. Ba, Adam: A method for stochastic optimization, section 7.1, ICLR 2015,
        :cite:p:`kingma-ba-2015`.

    Example:
        >>> import numpy as np
        >>> import mlx_optimizers as optim
        >>> w = {"w": np.float32([1.0])}
        >>> optimizer = optim.Adamax(learning_rate=0.5, betas=(0.5, 0.75), eps=2.0)
        >>> optimizer.update(w, {"w": np.float32([-2.0])})  # m = −1, v = 2, w = 1 + ½·1/(2 + 2)
        >>> print(w["w"], optimizer.state["w"]["m"], optimizer.state["w"]["v"])
        [1.125] [-1.] [2.]

        The float32 result beside the exact value and the interval that rounding can explain:

        >>> from mlx_optimizers.oracle import trajectory
        >>> optim.Adamax(1e-3).apply_gradients(np.float32([3.0]), np.float32([1.0]))
        array([0.9999], dtype=float32)
        >>> step, = trajectory("Adamax", [1.0], [[3.0]], learning_rate=1e-3)
        >>> print(f"{float(step.parameter.exact[0]):.16f} in {step.parameter.low} to {step.parameter.high}")
        0.9999000000003333 in [0.9998999] to [0.99990004]
    """

    def apply_single(
        self, gradient: npt.NDArray[Any], parameter: npt.NDArray[Any], state: dict[str, Any]
    ) -> npt.NDArray[Any]:
        """Advance one array in place and return it."""
        b1, b2 = self.betas
        rate, b1, rest1, b2, eps = map(parameter.dtype.type, (self.learning_rate, b1, 1 - b1, b2, self.eps))
        for w, g, m, v, a, d in blocks(parameter, gradient, state["m"], state["v"], scratch=2):
            np.multiply(g, rest1, out=a)
            m *= b1
            m += a
            np.abs(g, out=a)
            v *= b2
            np.maximum(v, a, out=v)
            np.add(v, eps, out=d)
            np.multiply(m, rate, out=a)
            a /= d
            w -= a
        return parameter

    @staticmethod
    def exact(n: Any, h: Any, t: int, w: Any, g: Any, m: Any, v: Any) -> tuple[Any, Any, Any]:
        """Advance over the numbers of a context ``n``."""
        b1, b2 = h.betas
        m = b1 * m + (1 - b1) * g
        v = n.max(b2 * v, n.abs(g))
        return w - h.learning_rate * m / (v + h.eps), m, v
