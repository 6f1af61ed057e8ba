"""AdamW."""

from __future__ import annotations

from typing import Any

import numpy.typing as npt

from mlx_optimizers.adam import Adam
from mlx_optimizers.blocks import blocks
from mlx_optimizers.hyperparameters import Hyperparameter, at_least_zero
from mlx_optimizers.optimizer import LearningRate

__all__ = ["AdamW"]


class AdamW(Adam):
    r"""AdamW [1]: Adam with decoupled weight decay, without bias correction.

    .. math::

        \begin{aligned}
        m_t &= \beta_1 m_{t-1} + (1 - \beta_1) g_t \\
        v_t &= \beta_2 v_{t-1} + (1 - \beta_2) g_t^2 \\
        w_t &= (1 - \lambda \kappa) w_{t-1} - \lambda \frac{m_t}{\sqrt{v_t} + \epsilon}
        \end{aligned}

    The fast path multiplies w by :math:`1 - \lambda\kappa` first, which is formed in the parameter's dtype from λ and
    κ rounded to it, as MLX does; the rest is :class:`Adam`.

    Args:
        learning_rate: :math:`\lambda \ge 0`, a number, or a callable from the number of updates done to one.
        betas: The decays :math:`(\beta_1, \beta_2)`, each in [0, 1); default (0.9, 0.999).
        eps: :math:`\epsilon \ge 0`, added to the root; default 1e-8.
        weight_decay: :math:`\kappa \ge 0`; default 0.01.

    State:
        ``m``: the running mean :math:`m_t` of gradients; ``v``: the running mean :math:`v_t` of squared gradients.
        Both start as zeros of the parameter's shape and dtype.

    Raises:
        ValueError: for a hyperparameter out of range, or another number of betas than two.
        TypeError: for a hyperparameter that is no number.

    Differences elsewhere:
        torch, optax and Keras correct the bias of both moments, and Keras adds ε before the correction. The default
        weight decay is 0.01 in torch too, 1e-4 in optax, 0.004 in Keras.

    References:
        [1] I. Loshchilov and F. Hutter, Decoupled weight decay regularization, ICLR 2019,
        :cite:p:`loshchilov-hutter-2019`.

    Example:
        >>> import numpy as np
        >>> import mlx_optimizers as optim
        >>> w = {"w": np.float32([1.0])}
        >>> optimizer = optim.AdamW(learning_rate=0.5, betas=(0.5, 0.75), eps=1.0, weight_decay=0.5)
        >>> optimizer.update(w, {"w": np.float32([2.0])})  # w = (1 − ½·½)·1 − ½·1/(1 + 1)
        >>> print(w["w"], optimizer.state["w"]["m"], optimizer.state["w"]["v"])
        [0.5] [1.] [1.]

        The float32 result beside the exact value and the interval that rounding can explain:

        >>> from mlx_optimizers.oracle import trajectory
        >>> optim.AdamW(1e-3).apply_gradients(np.float32([3.0]), np.float32([1.0]))
        array([0.9968277], dtype=float32)
        >>> step, = trajectory("AdamW", [1.0], [[3.0]], learning_rate=1e-3)
        >>> print(f"{float(step.parameter.exact[0]):.16f} in {step.parameter.low} to {step.parameter.high}")
        0.9968277226731649 in [0.9968275] to [0.99682796]
    """

    weight_decay = Hyperparameter(at_least_zero, "Decoupled weight decay κ ≥ 0.")

    def __init__(
        self,
        learning_rate: LearningRate,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.01,
    ) -> None:
        super().__init__(learning_rate, betas, eps)
        self.weight_decay = weight_decay

    def apply_single(
        self, gradient: npt.NDArray[Any], parameter: npt.NDArray[Any], state: dict[str, Any]
    ) -> npt.NDArray[Any]:
        """Advance one array in place and return it."""
        real = parameter.dtype.type
        keep = real(1) - real(self.learning_rate) * real(self.weight_decay)
        for (w,) in blocks(parameter):
            w *= keep
        return super().apply_single(gradient, parameter, state)

    @staticmethod
    def exact(n: Any, h: Any, t: int, w: Any, g: Any, m: Any, v: Any) -> tuple[Any, Any, Any]:
        """Advance over the numbers of a context ``n``."""
        return Adam.exact(n, h, t, (1 - n.lift(h.learning_rate) * h.weight_decay) * w, g, m, v)
