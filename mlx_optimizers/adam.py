"""Adam."""

from __future__ import annotations

from typing import Any

import numpy as np

from mlx_optimizers.hyperparameters import Hyperparameter, at_least_zero, explained, pair_below_one
from mlx_optimizers.optimizer import Elementwise, LearningRate

__all__ = ["Adam"]


class Adam(Elementwise):
    r"""Adam [1]: a running mean of the gradient over the root of one of its square, without bias correction.

    .. math::

        \begin{aligned}
        m_t &= \beta_1 m_{t-1} + (1 - \beta_1) g_t \\
        v_t &= \beta_2 v_{t-1} + (1 - \beta_2) g_t^2 \\
        w_t &= w_{t-1} - \lambda \frac{m_t}{\sqrt{v_t} + \epsilon}
        \end{aligned}

    Here :math:`w_t` is the parameter after step t, counted from 1, and :math:`g_t` its gradient.

    Args:
        learning_rate: :math:`\lambda`, a number ≥ 0, or a schedule: a callable from the number of updates done to one.
        betas: :math:`(\beta_1, \beta_2)`, the decays of m and v, each in [0, 1); default (0.9, 0.999).
        eps: :math:`\epsilon`, a number ≥ 0, added to the root; default ``1e-8``.

    State:
        - ``m``, the running mean :math:`m_t` of gradients: zeros at first, of the parameter's shape and dtype.
        - ``v``, the running mean :math:`v_t` of squared gradients: zeros at first, of the parameter's shape and dtype.

    Raises:
        ValueError: for a hyperparameter out of range, or another number of betas than two, which MLX notices only at
            the first step.
        TypeError: for a hyperparameter that is no number.

    Note:
        In float32, :math:`g^2` overflows where \|g\| > ``1.8446743e19``; v is infinite then, and the quotient 0 ever
        after. Where \|g\| < ``2.65e-23``, it underflows to 0. In float16 the default ε rounds to 0, so that a gradient
        of zero gives 0/0 = NaN. In bfloat16 the default β₂ rounds to 1, so that v never decays.

    Differences elsewhere:
        The paper, torch, optax and Keras correct the bias of both moments, which makes the first step shorter with
        the defaults; MLX does so with ``bias_correction=True``. Keras adds ε before the correction. Before version
        0.2.0 MLX started from m = g and v = g².

    References:
        [1] D. P. Kingma and J. Ba, Adam: A method for stochastic optimization, 3rd International Conference on
        Learning Representations, 2015, arXiv:1412.6980, :cite:p:`kingma-ba-2015`.

    Example:
        From w = 1 with a gradient of 2: m = ½·2, v = ¼·4, w = 1 − ½·1/(1 + 1).

        >>> import numpy as np
        >>> import mlx_optimizers as optim
        >>> given = dict(learning_rate=0.5, betas=(0.5, 0.75), eps=1.0)
        >>> optimizer = optim.Adam(**given)
        >>> w = np.float32([1.0])
        >>> optimizer.update(w, np.float32([2]))
        >>> print(w, optimizer.state["m"], optimizer.state["v"])
        [0.75] [1.] [1.]

        What each hyperparameter does, from w = 1 with a gradient of 2, the others as above:

        >>> def step(*gradients, **changed):
        ...     optimizer, w = optim.Adam(**(given | changed)), np.float32(1)
        ...     for g in gradients:
        ...         w = optimizer.apply_gradients(np.float32(g), w)
        ...     return w.item()
        >>> step(2, learning_rate=1.0)
        0.5
        >>> step(2, betas=(0.0, 0.75))  # m = 2
        0.5
        >>> step(2, eps=3.0)  # w = 1 − ½·1/(1 + 3)
        0.875

        The float32 result with its bits, between the ends of the interval that rounding can explain; then the exact
        value:

        >>> from mlx_optimizers.oracle import Exact, trajectory
        >>> g, w = np.float32([[3], [1]])
        >>> new = optim.Adam(1e-3).apply_gradients(g, w)
        >>> entry, = trajectory("Adam", w, [g], learning_rate=1e-3)
        >>> for x in (entry.parameter.low, new, entry.parameter.high):
        ...     print(f"{x[0]:.9f} {x.view(np.uint32)[0]:08x}")
        0.996837676 3f7f30c1
        0.996837735 3f7f30c2
        0.996837795 3f7f30c3
        >>> print(Exact().text(entry.parameter.exact[0]))
        0.996837722673164920905591294626

        The order of the float32 operations is that of `rule`, in plain NumPy. The class gives the same bits:

        >>> rng = np.random.default_rng(0)
        >>> w, m, v = np.zeros((3, 1000), np.float32)
        >>> optimizer = optim.Adam(1e-3)
        >>> c, new = optimizer.coefficients(np.float32), w
        >>> for g in np.float32(rng.normal(size=(5, 1000))):
        ...     w, m, v = optim.Adam.rule(c, w, g, m, v)
        ...     new = optimizer.apply_gradients(g, new)
        >>> np.array_equal([new, optimizer.state["m"], optimizer.state["v"]], [w, m, v])
        True
    """

    slots = ("m", "v")

    betas = Hyperparameter(pair_below_one, "Decays (β₁, β₂), each in [0, 1).")
    eps = Hyperparameter(at_least_zero, "ε ≥ 0.")

    @explained
    def __init__(
        self, learning_rate: LearningRate, betas: tuple[float, float] = (0.9, 0.999), eps: float = 1e-8
    ) -> None:
        super().__init__()
        self.learning_rate = learning_rate
        self.betas = betas
        self.eps = eps

    def coefficients(self, real: Any) -> tuple[Any, ...]:
        """The coefficients of one step, each rounded once to the dtype ``real``."""
        b1, b2 = self.betas
        return tuple(map(real, (self.learning_rate, b1, 1 - b1, b2, 1 - b2, self.eps)))

    @staticmethod
    def rule(c: Any, w: Any, g: Any, m: Any, v: Any) -> tuple[Any, Any, Any]:
        """One step in floats, each operation rounded once."""
        rate, b1, rest1, b2, rest2, eps = c
        m = m * b1 + g * rest1
        v = v * b2 + (g * g) * rest2
        return w - (m * rate) / (np.sqrt(v) + eps), m, v

    @staticmethod
    def exact(n: Any, h: Any, t: int, w: Any, g: Any, m: Any, v: Any) -> tuple[Any, Any, Any]:
        """Advance over the numbers of a context ``n``."""
        b1, b2 = h.betas
        m = b1 * m + (1 - b1) * g
        v = b2 * v + (1 - b2) * g**2
        return w - h.learning_rate * m / (n.sqrt(v) + h.eps), m, v
