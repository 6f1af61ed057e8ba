"""AdamW."""

from __future__ import annotations

from typing import Any

import numpy as np

from mlx_optimizers.adam import Adam
from mlx_optimizers.hyperparameters import Hyperparameter, at_least_zero, explained
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

    Here :math:`w_t` is the parameter after step t, counted from 1, and :math:`g_t` its gradient.

    Args:
        learning_rate: :math:`\lambda`, a number ≥ 0, or a schedule: a callable from the number of updates done to one.
        betas: :math:`(\beta_1, \beta_2)`, the decays of m and v, each in [0, 1); default (0.9, 0.999).
        eps: :math:`\epsilon`, a number ≥ 0, added to the root; default ``1e-8``.
        weight_decay: :math:`\kappa`, a number ≥ 0; the weight decay is decoupled, as the gradient and its means do
            not see it; default 0.01.

    State:
        - ``m``, the running mean :math:`m_t` of gradients: zeros at first, of the parameter's shape and dtype.
        - ``v``, the running mean :math:`v_t` of squared gradients: zeros at first, of the parameter's shape and dtype.

    Raises:
        ValueError: for a hyperparameter out of range, or another number of betas than two, which MLX notices only at
            the first step.
        TypeError: for a hyperparameter that is no number.

    Note:
        :math:`1 - \lambda\kappa` is formed in the parameter's dtype, from λ and κ rounded to it, as MLX does.
        In float32, :math:`g^2` overflows where \|g\| > ``1.8446743e19``; v is infinite then, and the quotient 0 ever
        after. Where \|g\| < ``2.65e-23``, it underflows to 0. In float16 the default ε rounds to 0, so that a gradient
        of zero gives 0/0 = NaN. In bfloat16 the default β₂ rounds to 1, so that v never decays.

    Differences elsewhere:
        torch, optax and Keras correct the bias of both moments, and Keras adds ε before the correction. The default
        weight decay is 0.01 in torch too, ``1e-4`` in optax, 0.004 in Keras.

    References:
        [1] I. Loshchilov and F. Hutter, Decoupled weight decay regularization, 7th International Conference on
        Learning Representations, 2019, arXiv:1711.05101, :cite:p:`loshchilov-hutter-2019`.

    Example:
        From w = 1 with a gradient of 2: m = ½·2, v = ¼·4, w = (1 − ½·½)·1 − ½·1/(1 + 1).

        >>> import numpy as np
        >>> import mlx_optimizers as optim
        >>> given = dict(learning_rate=0.5, betas=(0.5, 0.75), eps=1.0,
        ...              weight_decay=0.5)
        >>> optimizer = optim.AdamW(**given)
        >>> w = np.float32([1.0])
        >>> optimizer.update(w, np.float32([2]))
        >>> print(w, optimizer.state["m"], optimizer.state["v"])
        [0.5] [1.] [1.]

        What each hyperparameter does, from w = 1 with a gradient of 2, the others as above:

        >>> def step(*gradients, **changed):
        ...     optimizer, w = optim.AdamW(**(given | changed)), np.float32(1)
        ...     for g in gradients:
        ...         w = optimizer.apply_gradients(np.float32(g), w)
        ...     return w.item()
        >>> step(2, learning_rate=1.0)  # w = (1 − ½)·1 − 1·1/(1 + 1)
        0.0
        >>> step(2, betas=(0.0, 0.75))  # m = 2
        0.25
        >>> step(2, eps=3.0)  # w = ¾ − ½·1/(1 + 3)
        0.625
        >>> step(2, weight_decay=0.0)  # as Adam
        0.75

        The float32 result with its bits, between the ends of the interval that rounding can explain; then the exact
        value:

        >>> from mlx_optimizers.oracle import Exact, trajectory
        >>> g, w = np.float32([[3], [1]])
        >>> new = optim.AdamW(1e-3).apply_gradients(g, w)
        >>> entry, = trajectory("AdamW", w, [g], learning_rate=1e-3)
        >>> for x in (entry.parameter.low, new, entry.parameter.high):
        ...     print(f"{x[0]:.9f} {x.view(np.uint32)[0]:08x}")
        0.996827483 3f7f3016
        0.996827722 3f7f301a
        0.996827960 3f7f301e
        >>> print(Exact().text(entry.parameter.exact[0]))
        0.996827722673164920905174960992

        The order of the float32 operations is that of `rule`, in plain NumPy. The class gives the same bits:

        >>> rng = np.random.default_rng(0)
        >>> w, m, v = np.zeros((3, 1000), np.float32)
        >>> optimizer = optim.AdamW(1e-3)
        >>> c, new = optimizer.coefficients(np.float32), w
        >>> for g in np.float32(rng.normal(size=(5, 1000))):
        ...     w, m, v = optim.AdamW.rule(c, w, g, m, v)
        ...     new = optimizer.apply_gradients(g, new)
        >>> np.array_equal([new, optimizer.state["m"], optimizer.state["v"]], [w, m, v])
        True
    """

    weight_decay = Hyperparameter(at_least_zero, "Decoupled weight decay κ ≥ 0.")

    @explained
    def __init__(
        self,
        learning_rate: LearningRate,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.01,
    ) -> None:
        super().__init__(learning_rate, betas, eps)
        self.weight_decay = weight_decay

    def coefficients(self, real: Any) -> tuple[Any, ...]:
        """The coefficients of one step, 1 − λκ first, each rounded once to the dtype ``real``."""
        keep = real(1) - real(self.learning_rate) * real(self.weight_decay)
        return keep, *super().coefficients(real)

    @staticmethod
    def rule(c: Any, w: Any, g: Any, m: Any, v: Any) -> tuple[Any, Any, Any]:
        """One step in floats, each operation rounded once."""
        keep, rate, b1, rest1, b2, rest2, eps = c
        m = m * b1 + g * rest1
        v = v * b2 + (g * g) * rest2
        return w * keep - (m * rate) / (np.sqrt(v) + eps), m, v

    @staticmethod
    def exact(n: Any, h: Any, t: int, w: Any, g: Any, m: Any, v: Any) -> tuple[Any, Any, Any]:
        """Advance over the numbers of a context ``n``."""
        return Adam.exact(n, h, t, (1 - n.lift(h.learning_rate) * h.weight_decay) * w, g, m, v)
