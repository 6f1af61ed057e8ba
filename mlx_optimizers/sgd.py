"""Stochastic gradient descent."""

from __future__ import annotations

from typing import Any

import numpy as np

from mlx_optimizers.hyperparameters import Hyperparameter, at_least_zero, explained, switch, unit
from mlx_optimizers.optimizer import LearningRate, Optimizer

__all__ = ["SGD"]


class SGD(Optimizer):
    r"""Stochastic gradient descent, with momentum and coupled weight decay.

    .. math::

        \begin{aligned}
        h_t &= g_t + \kappa w_{t-1} \\
        v_t &= \begin{cases}
            v_{t-1} & \text{if } \mu = 0 \\
            \mu v_{t-1} + (1 - \tau) h_t & \text{otherwise}
            \end{cases} \\
        d_t &= \begin{cases}
            h_t & \text{if } \mu = 0 \\
            h_t + \mu v_t & \text{if nesterov} \\
            v_t & \text{otherwise}
            \end{cases} \\
        w_t &= w_{t-1} - \lambda d_t
        \end{aligned}

    Here :math:`w_t` is the parameter after step t, counted from 1, and :math:`g_t` its gradient. Without momentum the
    dampening plays no part. Of several cases that hold, the first counts.

    Args:
        learning_rate: :math:`\lambda`, a number ≥ 0, or a schedule: a callable from the number of updates done to one.
        momentum: :math:`\mu`, a number ≥ 0; default 0.
        weight_decay: :math:`\kappa`, a number ≥ 0; the weight decay is coupled, as it goes into the gradient;
            default 0.
        dampening: :math:`\tau`, a number in [0, 1]; default 0.
        nesterov: Whether to look ahead along the momentum; needs μ > 0 and τ = 0; default False.

    State:
        - ``v``, the momentum buffer :math:`v_t`: zeros at first, of the parameter's shape and dtype.

    Raises:
        ValueError: for a hyperparameter out of range, or Nesterov momentum without momentum or with dampening. MLX
            accepts negative momentum and weight decay, and dampening outside [0, 1].
        TypeError: for a hyperparameter that is no number.

    Differences elsewhere:
        torch's first buffer is the gradient itself, whatever τ is. Keras keeps λ inside the buffer, so that a change
        of the learning rate reaches old gradients late, and decouples the weight decay. optax has no dampening.

    References:
        H. Robbins and S. Monro, A stochastic approximation method, Annals of Mathematical Statistics 22 (1951),
        400–407, :cite:p:`robbins-monro-1951`.

        Momentum: B. T. Polyak, Some methods of speeding up the convergence of iteration methods, USSR Computational
        Mathematics and Mathematical Physics 4 (1964), 1–17, :cite:p:`polyak-1964`.

        Nesterov momentum in this form: I. Sutskever, J. Martens, G. Dahl and G. Hinton, On the importance of
        initialization and momentum in deep learning, ICML 2013, 1139–1147, :cite:p:`sutskever-2013`.

    Example:
        From w = 1 with gradients of 1 and 1: v = 1, then ½·1 + 1.

        >>> import numpy as np
        >>> import mlx_optimizers as optim
        >>> given = dict(learning_rate=0.5, momentum=0.5)
        >>> optimizer = optim.SGD(**given)
        >>> w = np.float32([1.0])
        >>> for g in (1, 1):
        ...     optimizer.update(w, np.float32([g]))
        ...     print(w, optimizer.state["v"])
        [0.5] [1.]
        [-0.25] [1.5]

        What each hyperparameter does, from w = 1 with gradients of 1, the others as above:

        >>> def step(*gradients, **changed):
        ...     optimizer, w = optim.SGD(**(given | changed)), np.float32(1)
        ...     for g in gradients:
        ...         w = optimizer.apply_gradients(np.float32(g), w)
        ...     return w.item()
        >>> step(1, 1, learning_rate=0.25)  # v = 1, then 1½
        0.375
        >>> step(1, 1, learning_rate=lambda updates: 0.5 / 2**updates)
        0.125
        >>> step(1, 1, momentum=0.0)
        0.0
        >>> step(1, weight_decay=0.5)  # h = 1 + ½·1
        0.25
        >>> step(1, 1, dampening=0.5)  # v = ½, then ¼ + ½
        0.375
        >>> step(1, nesterov=True)  # d = 1 + ½·1
        0.25

        The float32 result with its bits, between the ends of the interval that rounding can explain; then the exact
        value:

        >>> from mlx_optimizers.oracle import Exact, trajectory
        >>> g, w = np.float32([[3], [1]])
        >>> new = optim.SGD(0.1).apply_gradients(g, w)
        >>> entry, = trajectory("SGD", w, [g], learning_rate=0.1)
        >>> for x in (entry.parameter.low, new, entry.parameter.high):
        ...     print(f"{x[0]:.9f} {x.view(np.uint32)[0]:08x}")
        0.699999928 3f333332
        0.699999988 3f333333
        0.700000107 3f333335
        >>> print(Exact().text(entry.parameter.exact[0]))
        0.699999999999999983346654630623

        The order of the float32 operations, each rounded once. The class gives the same bits:

        >>> numbers = [0.1, 0.9, 0.01, 1 - 0.5]
        >>> rate, mu, kappa, rest = np.float32(numbers)
        >>> def in_order(w, g, v):
        ...     h = kappa * w + g  # g itself where κ = 0
        ...     v = mu * v + rest * h  # h itself where τ = 0
        ...     d = v  # h where μ = 0; mu * v + h with Nesterov momentum
        ...     w = w - rate * d
        ...     return w, v
        >>> rng = np.random.default_rng(0)
        >>> w, v = np.zeros((2, 1000), np.float32)
        >>> optimizer = optim.SGD(0.1, momentum=0.9, weight_decay=0.01, dampening=0.5)
        >>> new = w
        >>> for g in np.float32(rng.normal(size=(5, 1000))):
        ...     w, v = in_order(w, g, v)
        ...     new = optimizer.apply_gradients(g, new)
        >>> state = optimizer.state
        >>> np.array_equal([new, state["v"]], [w, v])
        True
    """

    slots = ("v",)

    momentum = Hyperparameter(at_least_zero, "Momentum μ ≥ 0.")
    weight_decay = Hyperparameter(at_least_zero, "Weight decay κ ≥ 0.")
    dampening = Hyperparameter(unit, "Dampening τ in [0, 1].")
    nesterov = Hyperparameter(switch, "Whether Nesterov momentum is used.")

    @explained
    def __init__(
        self,
        learning_rate: LearningRate,
        momentum: float = 0.0,
        weight_decay: float = 0.0,
        dampening: float = 0.0,
        nesterov: bool = False,
    ) -> None:
        super().__init__()
        self.learning_rate = learning_rate
        self.momentum = momentum
        self.weight_decay = weight_decay
        self.dampening = dampening
        self.nesterov = nesterov

    def check_together(self) -> None:
        """Refuse Nesterov momentum without momentum, or with dampening."""
        if vars(self).get("nesterov") and (self.momentum == 0 or self.dampening != 0):
            raise ValueError(
                f"nesterov needs momentum above 0 and dampening 0, not momentum {self.momentum!r} "
                f"and dampening {self.dampening!r}"
            )

    def coefficients(self, real: Any) -> tuple[Any, ...]:
        """The coefficients of one step, each rounded once to the dtype ``real``."""
        rounded = map(real, (self.learning_rate, self.momentum, self.weight_decay, 1 - self.dampening))
        # Whether there is momentum, however small: what it rounds to may be 0.
        return *rounded, self.momentum > 0, self.dampening > 0, self.nesterov

    @staticmethod
    def advance(n: Any, w: Any, g: Any, v: Any, a: Any, b: Any) -> None:
        """Advance one block in place; ``a`` and ``b`` are scratch."""
        rate, mu, kappa, rest, buffered, dampened, nesterov = n
        if kappa:
            np.multiply(w, kappa, out=b)
            b += g
            g = b
        if buffered:
            v *= mu
            v += np.multiply(g, rest, out=a) if dampened else g
            if nesterov:
                np.multiply(v, mu, out=a)
                a += g
                a *= rate
            else:
                np.multiply(v, rate, out=a)
        else:
            np.multiply(g, rate, out=a)
        w -= a

    @staticmethod
    def exact(n: Any, h: Any, t: int, w: Any, g: Any, v: Any) -> tuple[Any, Any]:
        """Advance over the numbers of a context ``n``."""
        g = g + h.weight_decay * w
        if h.momentum == 0:
            return w - h.learning_rate * g, v
        v = h.momentum * v + (1 - h.dampening) * g
        d = g + h.momentum * v if h.nesterov else v
        return w - h.learning_rate * d, v
