"""Adagrad."""

from __future__ import annotations

from typing import Any

import numpy as np

from mlx_optimizers.hyperparameters import Hyperparameter, explained, positive
from mlx_optimizers.optimizer import Elementwise, LearningRate

__all__ = ["Adagrad"]


class Adagrad(Elementwise):
    r"""Adagrad [1]: the gradient over the root of the sum of all its squares.

    .. math::

        \begin{aligned}
        v_t &= v_{t-1} + g_t^2 \\
        w_t &= w_{t-1} - \lambda \frac{g_t}{\sqrt{v_t} + \epsilon}
        \end{aligned}

    Here :math:`w_t` is the parameter after step t, counted from 1, and :math:`g_t` its gradient.

    Args:
        learning_rate: :math:`\lambda`, a number ≥ 0, or a schedule: a callable from the number of updates done to one.
        eps: :math:`\epsilon`, a number > 0, added to the root; default ``1e-8``.

    State:
        - ``v``, the sum :math:`v_t` of squared gradients: zeros at first, of the parameter's shape and dtype.

    Raises:
        ValueError: for a hyperparameter out of range.
        TypeError: for a hyperparameter that is no number.

    Note:
        In float32, :math:`g^2` overflows where \|g\| > ``1.8446743e19``; v is infinite then, and the quotient 0 ever
        after. Where \|g\| < ``2.65e-23``, it underflows to 0. In float16 the default ε rounds to 0, so that a gradient
        of zero gives 0/0 = NaN.

    Differences elsewhere:
        torch computes the same, with ε = ``1e-10`` by default. optax and Keras start v at 0.1 and put ε inside the
        root.

    References:
        [1] J. Duchi, E. Hazan and Y. Singer, Adaptive subgradient methods for online learning and stochastic
        optimization, Journal of Machine Learning Research 12 (2011), 2121–2159, :cite:p:`duchi-2011`.

    Example:
        From w = 1 with gradients of 3 and 4: w = 1 − ½·3/(3 + 3), then less ½·4/(5 + 3).

        >>> import numpy as np
        >>> import mlx_optimizers as optim
        >>> given = dict(learning_rate=0.5, eps=3.0)
        >>> optimizer = optim.Adagrad(**given)
        >>> w = np.float32([1.0])
        >>> for g in (3, 4):
        ...     optimizer.update(w, np.float32([g]))
        ...     print(w, optimizer.state["v"])
        [0.75] [9.]
        [0.5] [25.]

        What each hyperparameter does, from w = 1 with a gradient of 3, the others as above:

        >>> def step(*gradients, **changed):
        ...     optimizer, w = optim.Adagrad(**(given | changed)), np.float32(1)
        ...     for g in gradients:
        ...         w = optimizer.apply_gradients(np.float32(g), w)
        ...     return w.item()
        >>> step(3, learning_rate=1.0)
        0.5
        >>> step(3, eps=1.0)  # w = 1 − ½·3/(3 + 1)
        0.625

        The float32 result with its bits, between the ends of the interval that rounding can explain; then the exact
        value:

        >>> from mlx_optimizers.oracle import Exact, trajectory
        >>> g, w = np.float32([[3], [1]])
        >>> new = optim.Adagrad(0.01).apply_gradients(g, w)
        >>> entry, = trajectory("Adagrad", w, [g], learning_rate=0.01)
        >>> for x in (entry.parameter.low, new, entry.parameter.high):
        ...     print(f"{x[0]:.9f} {x.view(np.uint32)[0]:08x}")
        0.989999950 3f7d70a3
        0.990000010 3f7d70a4
        0.990000069 3f7d70a5
        >>> print(Exact().text(entry.parameter.exact[0]))
        0.990000000033333333014055406867

        The order of the float32 operations is that of `rule`, in plain NumPy. The class gives the same bits:

        >>> rng = np.random.default_rng(0)
        >>> w, v = np.zeros((2, 1000), np.float32)
        >>> optimizer = optim.Adagrad(0.01)
        >>> c, new = optimizer.coefficients(np.float32), w
        >>> for g in np.float32(rng.normal(size=(5, 1000))):
        ...     w, v = optim.Adagrad.rule(c, w, g, v)
        ...     new = optimizer.apply_gradients(g, new)
        >>> np.array_equal([new, optimizer.state["v"]], [w, v])
        True
    """

    slots = ("v",)

    eps = Hyperparameter(positive, "ε > 0.")

    @explained
    def __init__(self, learning_rate: LearningRate, eps: float = 1e-8) -> None:
        super().__init__()
        self.learning_rate = learning_rate
        self.eps = eps

    def coefficients(self, real: Any) -> tuple[Any, ...]:
        """The coefficients of one step, each rounded once to the dtype ``real``."""
        return real(self.learning_rate), real(self.eps)

    @staticmethod
    def rule(c: Any, w: Any, g: Any, v: Any) -> tuple[Any, Any]:
        """One step in floats, each operation rounded once."""
        rate, eps = c
        v = v + g * g
        return w - (g * rate) / (np.sqrt(v) + eps), v

    @staticmethod
    def exact(n: Any, h: Any, t: int, w: Any, g: Any, v: Any) -> tuple[Any, Any]:
        """Advance over the numbers of a context ``n``."""
        v = v + g**2
        return w - h.learning_rate * g / (n.sqrt(v) + h.eps), v
