"""AdaDelta."""

from __future__ import annotations

from typing import Any

import numpy as np

from mlx_optimizers.hyperparameters import Hyperparameter, explained, positive, unit
from mlx_optimizers.optimizer import Elementwise, LearningRate

__all__ = ["AdaDelta"]


class AdaDelta(Elementwise):
    r"""AdaDelta with a learning rate [1]: steps in proportion to the running size of the steps before.

    .. math::

        \begin{aligned}
        v_t &= \rho v_{t-1} + (1 - \rho) g_t^2 \\
        d_t &= \frac{\sqrt{u_{t-1} + \epsilon}}{\sqrt{v_t + \epsilon}} g_t \\
        u_t &= \rho u_{t-1} + (1 - \rho) d_t^2 \\
        w_t &= w_{t-1} - \lambda d_t
        \end{aligned}

    Here :math:`w_t` is the parameter after step t, counted from 1, and :math:`g_t` its gradient. The paper has no λ,
    which is λ = 1 here.

    Args:
        learning_rate: :math:`\lambda`, a number ≥ 0, or a schedule: a callable from the number of updates done to one.
        rho: :math:`\rho`, the decay of both running means, in [0, 1]; default 0.9.
        eps: :math:`\epsilon`, a number > 0, inside both roots; default ``1e-6``.

    State:
        - ``v``, the running mean :math:`v_t` of squared gradients: zeros at first, of the parameter's shape and dtype.
        - ``u``, the running mean :math:`u_t` of squared steps: zeros at first, of the parameter's shape and dtype.

    Raises:
        ValueError: for a hyperparameter out of range.
        TypeError: for a hyperparameter that is no number.

    Note:
        In float32, :math:`g^2` overflows where \|g\| > ``1.8446743e19``; v is infinite then, and the quotient 0 ever
        after. Where \|g\| < ``2.65e-23``, it underflows to 0.

    Differences elsewhere:
        torch and optax compute the same. Keras does too, with ρ = 0.95 and ε = ``1e-7`` by default. Until version
        0.0.11 MLX never updated u.

    References:
        [1] M. D. Zeiler, ADADELTA: An adaptive learning rate method, 2012, arXiv:1212.5701, :cite:p:`zeiler-2012`.

    Example:
        From w = 1 with a gradient of 2: v = ¾·4, d = √1/√4·2, u = ¾·1.

        >>> import numpy as np
        >>> import mlx_optimizers as optim
        >>> given = dict(learning_rate=1.0, rho=0.25, eps=1.0)
        >>> optimizer = optim.AdaDelta(**given)
        >>> w = np.float32([1.0])
        >>> optimizer.update(w, np.float32([2]))
        >>> print(w, optimizer.state["v"], optimizer.state["u"])
        [0.] [3.] [0.75]

        What each hyperparameter does, from w = 1, the others as above:

        >>> def step(*gradients, **changed):
        ...     optimizer, w = optim.AdaDelta(**(given | changed)), np.float32(1)
        ...     for g in gradients:
        ...         w = optimizer.apply_gradients(np.float32(g), w)
        ...     return w.item()
        >>> step(2, learning_rate=0.5)
        0.5
        >>> step(2, rho=1.0)  # v and u stay 0, and d = g
        -1.0
        >>> step(4, eps=4.0)  # v = ¾·16, d = √4/√16·4
        -1.0

        The float32 result with its bits, between the ends of the interval that rounding can explain; then the exact
        value:

        >>> from mlx_optimizers.oracle import Exact, trajectory
        >>> g, w = np.float32([[3], [1]])
        >>> new = optim.AdaDelta(1.0).apply_gradients(g, w)
        >>> entry, = trajectory("AdaDelta", w, [g], learning_rate=1.0)
        >>> for x in (entry.parameter.low, new, entry.parameter.high):
        ...     print(f"{x[0]:.9f} {x.view(np.uint32)[0]:08x}")
        0.996837676 3f7f30c1
        0.996837735 3f7f30c2
        0.996837795 3f7f30c3
        >>> print(Exact().text(entry.parameter.exact[0]))
        0.996837724096651078688154345811

        The order of the float32 operations is that of `rule`, in plain NumPy. The class gives the same bits:

        >>> rng = np.random.default_rng(0)
        >>> w, v, u = np.zeros((3, 1000), np.float32)
        >>> optimizer = optim.AdaDelta(0.5)
        >>> c, new = optimizer.coefficients(np.float32), w
        >>> for g in np.float32(rng.normal(size=(5, 1000))):
        ...     w, v, u = optim.AdaDelta.rule(c, w, g, v, u)
        ...     new = optimizer.apply_gradients(g, new)
        >>> np.array_equal([new, optimizer.state["v"], optimizer.state["u"]], [w, v, u])
        True
    """

    slots = ("v", "u")

    rho = Hyperparameter(unit, "Decay ρ in [0, 1].")
    eps = Hyperparameter(positive, "ε > 0.")

    @explained
    def __init__(self, learning_rate: LearningRate, rho: float = 0.9, eps: float = 1e-6) -> None:
        super().__init__()
        self.learning_rate = learning_rate
        self.rho = rho
        self.eps = eps

    def coefficients(self, real: Any) -> tuple[Any, ...]:
        """The coefficients of one step, each rounded once to the dtype ``real``."""
        return tuple(map(real, (self.learning_rate, self.rho, 1 - self.rho, self.eps)))

    @staticmethod
    def rule(c: Any, w: Any, g: Any, v: Any, u: Any) -> tuple[Any, Any, Any]:
        """One step in floats, each operation rounded once."""
        rate, rho, rest, eps = c
        v = v * rho + (g * g) * rest
        d = np.sqrt(u + eps) / np.sqrt(v + eps) * g
        u = u * rho + (d * d) * rest
        return w - d * rate, v, u

    @staticmethod
    def exact(n: Any, h: Any, t: int, w: Any, g: Any, v: Any, u: Any) -> tuple[Any, Any, Any]:
        """Advance over the numbers of a context ``n``."""
        v = h.rho * v + (1 - h.rho) * g**2
        d = n.sqrt(u + h.eps) / n.sqrt(v + h.eps) * g
        u = h.rho * u + (1 - h.rho) * d**2
        return w - h.learning_rate * d, v, u
