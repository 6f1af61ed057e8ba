"""RMSprop."""

from __future__ import annotations

from typing import Any

import numpy as np

from mlx_optimizers.hyperparameters import Hyperparameter, explained, positive, unit
from mlx_optimizers.optimizer import Elementwise, LearningRate

__all__ = ["RMSprop"]


class RMSprop(Elementwise):
    r"""RMSprop [1]: the gradient over the root of a running mean of its square.

    .. math::

        \begin{aligned}
        v_t &= \alpha v_{t-1} + (1 - \alpha) g_t^2 \\
        w_t &= w_{t-1} - \lambda \frac{g_t}{\sqrt{v_t} + \epsilon}
        \end{aligned}

    Here :math:`w_t` is the parameter after step t, counted from 1, and :math:`g_t` its gradient.

    Args:
        learning_rate: :math:`\lambda`, a number ≥ 0, or a schedule: a callable from the number of updates done to one.
        alpha: :math:`\alpha`, the decay of the running mean, in [0, 1]; default 0.99.
        eps: :math:`\epsilon`, a number > 0, added to the root; default ``1e-8``.

    State:
        - ``v``, the running mean :math:`v_t` of squared gradients: zeros at first, of the parameter's shape and dtype.

    Raises:
        ValueError: for a hyperparameter out of range.
        TypeError: for a hyperparameter that is no number.

    Note:
        In float32, :math:`g^2` overflows where \|g\| > ``1.8446743e19``; v is infinite then, and the quotient 0 ever
        after. Where \|g\| < ``2.65e-23``, it underflows to 0. In float16 the default ε rounds to 0, so that a gradient
        of zero gives 0/0 = NaN.

    Differences elsewhere:
        torch computes the same. optax and Keras put ε inside the root, :math:`\sqrt{v_t + \epsilon}`, by default.

    References:
        [1] T. Tieleman and G. Hinton, Lecture 6.5, RMSProp: Divide the gradient by a running average of its recent
        magnitude, COURSERA: Neural Networks for Machine Learning, 2012, :cite:p:`tieleman-hinton-2012`.

    Example:
        From w = 1 with a gradient of 2: v = ¼·4, w = 1 − ½·2/(1 + 1).

        >>> import numpy as np
        >>> import mlx_optimizers as optim
        >>> given = dict(learning_rate=0.5, alpha=0.75, eps=1.0)
        >>> optimizer = optim.RMSprop(**given)
        >>> w = np.float32([1.0])
        >>> optimizer.update(w, np.float32([2]))
        >>> print(w, optimizer.state["v"])
        [0.5] [1.]

        What each hyperparameter does, from w = 1 with a gradient of 2, the others as above:

        >>> def step(*gradients, **changed):
        ...     optimizer, w = optim.RMSprop(**(given | changed)), np.float32(1)
        ...     for g in gradients:
        ...         w = optimizer.apply_gradients(np.float32(g), w)
        ...     return w.item()
        >>> step(2, learning_rate=1.0)
        0.0
        >>> step(2, alpha=1.0)  # v stays 0
        0.0
        >>> step(2, eps=3.0)  # w = 1 − ½·2/(1 + 3)
        0.75

        The float32 result with its bits, between the ends of the interval that rounding can explain; then the exact
        value:

        >>> from mlx_optimizers.oracle import Exact, trajectory
        >>> g, w = np.float32([[3], [1]])
        >>> new = optim.RMSprop(0.01).apply_gradients(g, w)
        >>> entry, = trajectory("RMSprop", w, [g], learning_rate=0.01)
        >>> for x in (entry.parameter.low, new, entry.parameter.high):
        ...     print(f"{x[0]:.9f} {x.view(np.uint32)[0]:08x}")
        0.899999917 3f666665
        0.899999976 3f666666
        0.900000095 3f666668
        >>> print(Exact().text(entry.parameter.exact[0]))
        0.900000003333333264549475918296

        The order of the float32 operations is that of `rule`, in plain NumPy. The class gives the same bits:

        >>> rng = np.random.default_rng(0)
        >>> w, v = np.zeros((2, 1000), np.float32)
        >>> optimizer = optim.RMSprop(0.01)
        >>> c, new = optimizer.coefficients(np.float32), w
        >>> for g in np.float32(rng.normal(size=(5, 1000))):
        ...     w, v = optim.RMSprop.rule(c, w, g, v)
        ...     new = optimizer.apply_gradients(g, new)
        >>> np.array_equal([new, optimizer.state["v"]], [w, v])
        True
    """

    slots = ("v",)

    alpha = Hyperparameter(unit, "Smoothing constant α in [0, 1].")
    eps = Hyperparameter(positive, "ε > 0.")

    @explained
    def __init__(self, learning_rate: LearningRate, alpha: float = 0.99, eps: float = 1e-8) -> None:
        super().__init__()
        self.learning_rate = learning_rate
        self.alpha = alpha
        self.eps = eps

    def coefficients(self, real: Any) -> tuple[Any, ...]:
        """The coefficients of one step, each rounded once to the dtype ``real``."""
        return tuple(map(real, (self.learning_rate, self.alpha, 1 - self.alpha, self.eps)))

    @staticmethod
    def rule(c: Any, w: Any, g: Any, v: Any) -> tuple[Any, Any]:
        """One step in floats, each operation rounded once."""
        rate, alpha, rest, eps = c
        v = v * alpha + (g * g) * rest
        return w - (g * rate) / (np.sqrt(v) + eps), v

    @staticmethod
    def exact(n: Any, h: Any, t: int, w: Any, g: Any, v: Any) -> tuple[Any, Any]:
        """Advance over the numbers of a context ``n``."""
        v = h.alpha * v + (1 - h.alpha) * g**2
        return w - h.learning_rate * g / (n.sqrt(v) + h.eps), v
