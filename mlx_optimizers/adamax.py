"""Adamax."""

from __future__ import annotations

from typing import Any

import numpy as np

from mlx_optimizers.adam import Adam

__all__ = ["Adamax"]


class Adamax(Adam):
    r"""Adamax [1]: Adam with a running maximum of the gradient's size, without bias correction.

    .. math::

        \begin{aligned}
        m_t &= \beta_1 m_{t-1} + (1 - \beta_1) g_t \\
        v_t &= \max(\beta_2 v_{t-1}, |g_t|) \\
        w_t &= w_{t-1} - \lambda \frac{m_t}{v_t + \epsilon}
        \end{aligned}

    Here :math:`w_t` is the parameter after step t, counted from 1, and :math:`g_t` its gradient.

    Args:
        learning_rate: :math:`\lambda`, a number ≥ 0, or a schedule: a callable from the number of updates done to one.
        betas: :math:`(\beta_1, \beta_2)`, the decays of m and v, each in [0, 1); default (0.9, 0.999).
        eps: :math:`\epsilon`, a number ≥ 0, added to the maximum; default ``1e-8``.

    State:
        - ``m``, the running mean :math:`m_t` of gradients: zeros at first, of the parameter's shape and dtype.
        - ``v``, the decaying maximum :math:`v_t` of their sizes: zeros at first, of the parameter's shape and dtype.

    Raises:
        ValueError: for a hyperparameter out of range, or another number of betas than two, which MLX notices only at
            the first step.
        TypeError: for a hyperparameter that is no number.

    Note:
        In float16 the default ε rounds to 0, so that a gradient of zero gives 0/0 = NaN. In bfloat16 the default β₂
        rounds to 1, so that v never falls.

    Differences elsewhere:
        The paper, torch, optax and Keras correct the bias of m. The paper adds no ε; torch and optax add it to
        :math:`|g_t|` inside the maximum.

    References:
        [1] D. P. Kingma and J. Ba, Adam: A method for stochastic optimization, section 7.1, 3rd International
        Conference on Learning Representations, 2015, arXiv:1412.6980, :cite:p:`kingma-ba-2015`.

    Example:
        From w = 1 with a gradient of −2: m = −½·2, v = 2, w = 1 + ½·1/(2 + 2).

        >>> import numpy as np
        >>> import mlx_optimizers as optim
        >>> given = dict(learning_rate=0.5, betas=(0.5, 0.75), eps=2.0)
        >>> optimizer = optim.Adamax(**given)
        >>> w = np.float32([1.0])
        >>> optimizer.update(w, np.float32([-2]))
        >>> print(w, optimizer.state["m"], optimizer.state["v"])
        [1.125] [-1.] [2.]

        What each hyperparameter does, from w = 1 with a gradient of −2, the others as above:

        >>> def step(*gradients, **changed):
        ...     optimizer, w = optim.Adamax(**(given | changed)), np.float32(1)
        ...     for g in gradients:
        ...         w = optimizer.apply_gradients(np.float32(g), w)
        ...     return w.item()
        >>> step(-2, learning_rate=1.0)
        1.25
        >>> step(-2, betas=(0.0, 0.75))  # m = −2
        1.25
        >>> step(-2, eps=6.0)  # w = 1 + ½·1/(2 + 6)
        1.0625

        The float32 result with its bits, between the ends of the interval that rounding can explain; then the exact
        value:

        >>> from mlx_optimizers.oracle import Exact, trajectory
        >>> g, w = np.float32([[3], [1]])
        >>> new = optim.Adamax(1e-3).apply_gradients(g, w)
        >>> entry, = trajectory("Adamax", w, [g], learning_rate=1e-3)
        >>> for x in (entry.parameter.low, new, entry.parameter.high):
        ...     print(f"{x[0]:.9f} {x.view(np.uint32)[0]:08x}")
        0.999899924 3f7ff971
        0.999899983 3f7ff972
        0.999900043 3f7ff973
        >>> print(Exact().text(entry.parameter.exact[0]))
        0.999900000000333333352345014487

        The order of the float32 operations is that of `rule`, in plain NumPy. The class gives the same bits:

        >>> rng = np.random.default_rng(0)
        >>> w, m, v = np.zeros((3, 1000), np.float32)
        >>> optimizer = optim.Adamax(2e-3)
        >>> c, new = optimizer.coefficients(np.float32), w
        >>> for g in np.float32(rng.normal(size=(5, 1000))):
        ...     w, m, v = optim.Adamax.rule(c, w, g, m, v)
        ...     new = optimizer.apply_gradients(g, new)
        >>> np.array_equal([new, optimizer.state["m"], optimizer.state["v"]], [w, m, v])
        True
    """

    def coefficients(self, real: Any) -> tuple[Any, ...]:
        """The coefficients of one step, each rounded once to the dtype ``real``."""
        b1, b2 = self.betas
        return tuple(map(real, (self.learning_rate, b1, 1 - b1, b2, self.eps)))

    @staticmethod
    def rule(c: Any, w: Any, g: Any, m: Any, v: Any) -> tuple[Any, Any, Any]:
        """One step in floats, each operation rounded once."""
        rate, b1, rest1, b2, eps = c
        m = m * b1 + g * rest1
        v = np.maximum(v * b2, np.abs(g))
        return w - (m * rate) / (v + eps), m, v

    @staticmethod
    def exact(n: Any, h: Any, t: int, w: Any, g: Any, m: Any, v: Any) -> tuple[Any, Any, Any]:
        """Advance over the numbers of a context ``n``."""
        b1, b2 = h.betas
        m = b1 * m + (1 - b1) * g
        v = n.max(b2 * v, n.abs(g))
        return w - h.learning_rate * m / (v + h.eps), m, v
