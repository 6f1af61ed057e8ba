"""Lion."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from mlx_optimizers.blocks import blocks
from mlx_optimizers.hyperparameters import Hyperparameter, at_least_zero, pair_below_one
from mlx_optimizers.optimizer import LearningRate, Optimizer

__all__ = ["Lion"]


class Lion(Optimizer):
    r"""Lion [1]: steps of one size in the direction of an interpolated momentum, with decoupled weight decay.

    .. math::

        \begin{aligned}
        c_t &= \beta_1 m_{t-1} + (1 - \beta_1) g_t \\
        m_t &= \beta_2 m_{t-1} + (1 - \beta_2) g_t \\
        w_t &= (1 - \lambda \kappa) w_{t-1} - \lambda \operatorname{sign}(c_t)
        \end{aligned}

    The sign of zero is 0, that of NaN is NaN, so that a NaN is seen; MLX's sign of NaN is 0. The fast path forms c,
    then m, from products rounded before they are added; multiplies w by :math:`1 - \lambda\kappa`, which is formed in
    the parameter's dtype from λ and κ rounded to it, unless κ = 0; and subtracts λ sign(c).

    Args:
        learning_rate: :math:`\lambda \ge 0`, a number, or a callable from the number of updates done to one.
        betas: The decays :math:`(\beta_1, \beta_2)`, each in [0, 1); default (0.9, 0.99).
        weight_decay: :math:`\kappa \ge 0`; default 0.

    State:
        ``m``: the momentum :math:`m_t`, zeros at first, of the parameter's shape and dtype.

    Raises:
        ValueError: for a hyperparameter out of range, or another number of betas than two.
        TypeError: for a hyperparameter that is no number.

    Differences elsewhere:
        optax and Keras compute the same; optax decays by 1e-3 by default. torch has no Lion. Before version 0.2.0
        MLX started from m = g.

    References:
        [1] X. Chen et al., Symbolic discovery of optimization algorithms, NeurIPS 2023, arXiv:2302.06675,
        :cite:p:`chen-2023`.

    Example:
        >>> import numpy as np
        >>> import mlx_optimizers as optim
        >>> w = {"w": np.float32([1.0])}
        >>> optimizer = optim.Lion(learning_rate=0.5, betas=(0.5, 0.75), weight_decay=0.5)
        >>> optimizer.update(w, {"w": np.float32([2.0])})  # c = 1, w = (1 − ½·½)·1 − ½, m = ½
        >>> print(w["w"], optimizer.state["w"]["m"])
        [0.25] [0.5]

        The float32 result beside the exact value and the interval that rounding can explain:

        >>> from mlx_optimizers.oracle import trajectory
        >>> optim.Lion(1e-4).apply_gradients(np.float32([3.0]), np.float32([1.0]))
        array([0.9999], dtype=float32)
        >>> step, = trajectory("Lion", [1.0], [[3.0]], learning_rate=1e-4)
        >>> print(f"{float(step.parameter.exact[0]):.16f} in {step.parameter.low} to {step.parameter.high}")
        0.9999000000000000 in [0.99989986] to [0.99990016]
    """

    slots = ("m",)

    betas = Hyperparameter(pair_below_one, "Decays (β₁, β₂), each in [0, 1).")
    weight_decay = Hyperparameter(at_least_zero, "Decoupled weight decay κ ≥ 0.")

    def __init__(
        self, learning_rate: LearningRate, betas: tuple[float, float] = (0.9, 0.99), weight_decay: float = 0.0
    ) -> None:
        super().__init__()
        self.learning_rate = learning_rate
        self.betas = betas
        self.weight_decay = weight_decay

    def apply_single(
        self, gradient: npt.NDArray[Any], parameter: npt.NDArray[Any], state: dict[str, Any]
    ) -> npt.NDArray[Any]:
        """Advance one array in place and return it."""
        real = parameter.dtype.type
        b1, b2 = self.betas
        rate, kappa = real(self.learning_rate), real(self.weight_decay)
        keep = real(1) - rate * kappa
        b1, rest1, b2, rest2 = map(real, (b1, 1 - b1, b2, 1 - b2))
        for w, g, m, a, c in blocks(parameter, gradient, state["m"], scratch=2):
            np.multiply(m, b1, out=c)
            np.multiply(g, rest1, out=a)
            c += a
            np.multiply(g, rest2, out=a)
            m *= b2
            m += a
            if kappa:
                w *= keep
            np.sign(c, out=c)
            c *= rate
            w -= c
        return parameter

    @staticmethod
    def exact(n: Any, h: Any, t: int, w: Any, g: Any, m: Any) -> tuple[Any, Any]:
        """Advance over the numbers of a context ``n``."""
        b1, b2 = h.betas
        c = b1 * m + (1 - b1) * g
        m = b2 * m + (1 - b2) * g
        return (1 - n.lift(h.learning_rate) * h.weight_decay) * w - h.learning_rate * n.sign(c), m
