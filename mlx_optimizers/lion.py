"""Lion."""

from __future__ import annotations

from typing import Any

import numpy as np

from mlx_optimizers.hyperparameters import Hyperparameter, at_least_zero, explained, pair_below_one
from mlx_optimizers.optimizer import Elementwise, LearningRate

__all__ = ["Lion"]


class Lion(Elementwise):
    r"""Lion [1]: steps of one size in the direction of an interpolated momentum, with decoupled weight decay.

    .. math::

        \begin{aligned}
        c_t &= \beta_1 m_{t-1} + (1 - \beta_1) g_t \\
        m_t &= \beta_2 m_{t-1} + (1 - \beta_2) g_t \\
        w_t &= (1 - \lambda \kappa) w_{t-1} - \lambda \operatorname{sign}(c_t)
        \end{aligned}

    Here :math:`w_t` is the parameter after step t, counted from 1, and :math:`g_t` its gradient. The sign of zero is 0.

    Args:
        learning_rate: :math:`\lambda`, a number ≥ 0, or a schedule: a callable from the number of updates done to one.
        betas: :math:`(\beta_1, \beta_2)`, the decays of c and m, each in [0, 1); default (0.9, 0.99).
        weight_decay: :math:`\kappa`, a number ≥ 0; the weight decay is decoupled, as the momentum does not see it;
            default 0.

    State:
        - ``m``, the momentum :math:`m_t`: zeros at first, of the parameter's shape and dtype.

    Raises:
        ValueError: for a hyperparameter out of range, or another number of betas than two, which MLX notices only at
            the first step.
        TypeError: for a hyperparameter that is no number.

    Note:
        The sign of NaN is NaN, so that it is seen; MLX's is 0, which leaves w as it was and m NaN for ever.
        :math:`1 - \lambda\kappa` is formed in the parameter's dtype, from λ and κ rounded to it, as MLX does.

    Differences elsewhere:
        optax and Keras compute the same; optax decays by ``1e-3`` by default. torch has no Lion. Before version 0.2.0
        MLX started from m = g.

    References:
        [1] X. Chen, C. Liang, D. Huang, E. Real, K. Wang, H. Pham, X. Dong, T. Luong, C.-J. Hsieh, Y. Lu and Q. V. Le,
        Symbolic discovery of optimization algorithms, Advances in Neural Information Processing Systems 36 (2023),
        arXiv:2302.06675, :cite:p:`chen-2023`.

    Example:
        From w = 1 with a gradient of 2: c = ½·2, m = ¼·2, w = (1 − ½·½)·1 − ½.

        >>> import numpy as np
        >>> import mlx_optimizers as optim
        >>> given = dict(learning_rate=0.5, betas=(0.5, 0.75), weight_decay=0.5)
        >>> optimizer = optim.Lion(**given)
        >>> w = np.float32([1.0])
        >>> optimizer.update(w, np.float32([2]))
        >>> print(w, optimizer.state["m"])
        [0.25] [0.5]

        What each hyperparameter does, from w = 1, the others as above:

        >>> def step(*gradients, **changed):
        ...     optimizer, w = optim.Lion(**(given | changed)), np.float32(1)
        ...     for g in gradients:
        ...         w = optimizer.apply_gradients(np.float32(g), w)
        ...     return w.item()
        >>> step(2, learning_rate=0.25)  # w = (1 − ¼·½)·1 − ¼
        0.625
        >>> step(2, weight_decay=0.0)
        0.5
        >>> step(2, -0.25, weight_decay=0.0)  # then ½·½ − ½·¼ > 0
        0.0
        >>> step(2, -0.25, betas=(0.25, 0.75), weight_decay=0.0)  # ¼·½ − ¾·¼ < 0
        1.0

        The float32 result with its bits, between the ends of the interval that rounding can explain; then the exact
        value:

        >>> from mlx_optimizers.oracle import Exact, trajectory
        >>> g, w = np.float32([[3], [1]])
        >>> new = optim.Lion(1e-4).apply_gradients(g, w)
        >>> entry, = trajectory("Lion", w, [g], learning_rate=1e-4)
        >>> for x in (entry.parameter.low, new, entry.parameter.high):
        ...     print(f"{x[0]:.9f} {x.view(np.uint32)[0]:08x}")
        0.999899864 3f7ff970
        0.999899983 3f7ff972
        0.999900162 3f7ff975
        >>> print(Exact().text(entry.parameter.exact[0]))
        0.999899999999999999995207826398

        The order of the float32 operations is that of `rule`, in plain NumPy. The class gives the same bits:

        >>> rng = np.random.default_rng(0)
        >>> w, m = np.zeros((2, 1000), np.float32)
        >>> optimizer = optim.Lion(1e-4, weight_decay=0.1)
        >>> c, new = optimizer.coefficients(np.float32), w
        >>> for g in np.float32(rng.normal(size=(5, 1000))):
        ...     w, m = optim.Lion.rule(c, w, g, m)
        ...     new = optimizer.apply_gradients(g, new)
        >>> np.array_equal([new, optimizer.state["m"]], [w, m])
        True
    """

    slots = ("m",)

    betas = Hyperparameter(pair_below_one, "Decays (β₁, β₂), each in [0, 1).")
    weight_decay = Hyperparameter(at_least_zero, "Decoupled weight decay κ ≥ 0.")

    @explained
    def __init__(
        self, learning_rate: LearningRate, betas: tuple[float, float] = (0.9, 0.99), weight_decay: float = 0.0
    ) -> None:
        super().__init__()
        self.learning_rate = learning_rate
        self.betas = betas
        self.weight_decay = weight_decay

    def coefficients(self, real: Any) -> tuple[Any, ...]:
        """λ, 1 − λκ, the betas and one less each, each rounded once to ``real``; whether there is weight decay."""
        b1, b2 = self.betas
        rate, kappa = real(self.learning_rate), real(self.weight_decay)
        keep = real(1) - rate * kappa
        return rate, keep, *map(real, (b1, 1 - b1, b2, 1 - b2)), bool(keep != 1)

    @staticmethod
    def rule(c: Any, w: Any, g: Any, m: Any) -> tuple[Any, Any]:
        """One step in floats, each operation rounded once."""
        rate, keep, b1, rest1, b2, rest2, decayed = c
        d = m * b1 + g * rest1
        m = m * b2 + g * rest2
        w = w * keep if decayed else w
        return w - np.sign(d) * rate, m

    @staticmethod
    def exact(n: Any, h: Any, t: int, w: Any, g: Any, m: Any) -> tuple[Any, Any]:
        """Advance over the numbers of a context ``n``."""
        b1, b2 = h.betas
        c = b1 * m + (1 - b1) * g
        m = b2 * m + (1 - b2) * g
        return (1 - n.lift(h.learning_rate) * h.weight_decay) * w - h.learning_rate * n.sign(c), m
