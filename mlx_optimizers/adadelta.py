"""AdaDelta."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from mlx_optimizers.blocks import blocks
from mlx_optimizers.hyperparameters import Hyperparameter, positive, unit
from mlx_optimizers.optimizer import LearningRate, Optimizer

__all__ = ["AdaDelta"]


class AdaDelta(Optimizer):
    r"""AdaDelta with a learning rate [1]: steps in proportion to the running size of the steps before.

    .. math::

        \begin{aligned}
        v_t &= \rho v_{t-1} + (1 - \rho) g_t^2 \\
        d_t &= \frac{\sqrt{u_{t-1} + \epsilon}}{\sqrt{v_t + \epsilon}} g_t \\
        u_t &= \rho u_{t-1} + (1 - \rho) d_t^2 \\
        w_t &= w_{t-1} - \lambda d_t
        \end{aligned}

    The fast path updates v, takes both roots, divides the one by the other, multiplies by g; updates u with the
    square of that; and multiplies by λ. The paper has no λ, which is λ = 1 here.

    Args:
        learning_rate: :math:`\lambda \ge 0`, a number, or a callable from the number of updates done to one.
        rho: The decay :math:`\rho` of both running means, in [0, 1]; default 0.9.
        eps: :math:`\epsilon > 0`, inside both roots; default 1e-6.

    State:
        ``v``: the running mean :math:`v_t` of squared gradients; ``u``: the running mean :math:`u_t` of squared
        steps. Both start as zeros of the parameter's shape and dtype.

    Raises:
        ValueError: for a hyperparameter out of range.
        TypeError: for a hyperparameter that is no number.

    Differences elsewhere:
        torch and optax compute the same. Keras does too, with ρ = 0.95 and ε = 1e-7 by default. Until version
        0.0.11 MLX never updated u.

    References:
        [1] M. D. Zeiler, ADADELTA: An adaptive learning rate method, arXiv:1212.5701, 2012, :cite:p:`zeiler-2012`.

    Example:
        >>> import numpy as np
        >>> import mlx_optimizers as optim
        >>> w = {"w": np.float32([1.0])}
        >>> optimizer = optim.AdaDelta(learning_rate=1.0, rho=0.75, eps=1.0)
        >>> optimizer.update(w, {"w": np.float32([0.0])})
        >>> print(w["w"], optimizer.state["w"]["v"], optimizer.state["w"]["u"])
        [1.] [0.] [0.]

        The float32 result beside the exact value and the interval that rounding can explain:

        >>> from mlx_optimizers.oracle import trajectory
        >>> optim.AdaDelta(1.0).apply_gradients(np.float32([3.0]), np.float32([1.0]))
        array([0.99683774], dtype=float32)
        >>> step, = trajectory("AdaDelta", [1.0], [[3.0]], learning_rate=1.0)
        >>> print(f"{float(step.parameter.exact[0]):.16f} in {step.parameter.low} to {step.parameter.high}")
        0.9968377240966511 in [0.9968377] to [0.9968378]
    """

    slots = ("v", "u")

    rho = Hyperparameter(unit, "Decay ρ in [0, 1].")
    eps = Hyperparameter(positive, "ε > 0.")

    def __init__(self, learning_rate: LearningRate, rho: float = 0.9, eps: float = 1e-6) -> None:
        super().__init__()
        self.learning_rate = learning_rate
        self.rho = rho
        self.eps = eps

    def apply_single(
        self, gradient: npt.NDArray[Any], parameter: npt.NDArray[Any], state: dict[str, Any]
    ) -> npt.NDArray[Any]:
        """Advance one array in place and return it."""
        rate, rho, rest, eps = map(parameter.dtype.type, (self.learning_rate, self.rho, 1 - self.rho, self.eps))
        for w, g, v, u, a, d in blocks(parameter, gradient, state["v"], state["u"], scratch=2):
            np.multiply(g, g, out=a)
            a *= rest
            v *= rho
            v += a
            np.add(u, eps, out=d)
            np.sqrt(d, out=d)
            np.add(v, eps, out=a)
            np.sqrt(a, out=a)
            d /= a
            d *= g
            np.multiply(d, d, out=a)
            a *= rest
            u *= rho
            u += a
            d *= rate
            w -= d
        return parameter

    @staticmethod
    def exact(n: Any, h: Any, t: int, w: Any, g: Any, v: Any, u: Any) -> tuple[Any, Any, Any]:
        """Advance over the numbers of a context ``n``."""
        v = h.rho * v + (1 - h.rho) * g**2
        d = n.sqrt(u + h.eps) / n.sqrt(v + h.eps) * g
        u = h.rho * u + (1 - h.rho) * d**2
        return w - h.learning_rate * d, v, u
