"""Stochastic gradient descent."""

from __future__ import annotations

from typing import Any

from mlx_optimizers.hyperparameters import Hyperparameter, at_least_zero, explained, switch, unit
from mlx_optimizers.optimizer import Elementwise, LearningRate

__all__ = ["SGD"]


class SGD(Elementwise):
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

        The order of the float32 operations is that of `rule`, in plain NumPy. The class gives the same bits:

        >>> rng = np.random.default_rng(0)
        >>> w, v = np.zeros((2, 1000), np.float32)
        >>> optimizer = optim.SGD(0.1, momentum=0.9, weight_decay=0.01, dampening=0.5)
        >>> c, new = optimizer.coefficients(np.float32), w
        >>> for g in np.float32(rng.normal(size=(5, 1000))):
        ...     w, v = optim.SGD.rule(c, w, g, v)
        ...     new = optimizer.apply_gradients(g, new)
        >>> np.array_equal([new, optimizer.state["v"]], [w, v])
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
        """λ, μ, κ and 1 − τ, each rounded once to ``real``; whether there is weight decay, momentum, dampening."""
        rate, mu, kappa, rest = map(real, (self.learning_rate, self.momentum, self.weight_decay, 1 - self.dampening))
        # μ and τ count as they were given: what they round to may be 0.
        return rate, mu, kappa, rest, bool(kappa), self.momentum > 0, self.dampening > 0, self.nesterov

    @staticmethod
    def rule(c: Any, w: Any, g: Any, v: Any) -> tuple[Any, Any]:
        """One step in floats, each operation rounded once."""
        rate, mu, kappa, rest, decayed, buffered, dampened, nesterov = c
        h = w * kappa + g if decayed else g
        if not buffered:
            return w - h * rate, v
        v = v * mu + (h * rest if dampened else h)
        d = v * mu + h if nesterov else v
        return w - d * rate, v

    @staticmethod
    def exact(n: Any, h: Any, t: int, w: Any, g: Any, v: Any) -> tuple[Any, Any]:
        """Advance over the numbers of a context ``n``."""
        g = g + h.weight_decay * w
        if h.momentum == 0:
            return w - h.learning_rate * g, v
        v = h.momentum * v + (1 - h.dampening) * g
        d = g + h.momentum * v if h.nesterov else v
        return w - h.learning_rate * d, v
