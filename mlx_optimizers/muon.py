"""Muon."""

from __future__ import annotations

from fractions import Fraction

import numpy as np

from mlx_optimizers.hyperparameters import Hyperparameter, at_least_zero, explained, switch, whole
from mlx_optimizers.kinds import FloatArray, Hyperparameters, Number, Numbers, Shape, Slots, Step
from mlx_optimizers.newton_schulz import newton_schulz
from mlx_optimizers.optimizer import Whole
from mlx_optimizers.rates import LearningRate

__all__ = ["Muon", "scale"]


def scale(shape: Shape) -> float:
    r"""Return what the learning rate of an array of two and more axes is multiplied by.

    It is :math:`\sqrt{\max(1, r/c)}` with the last two axes r and c of the array, though Newton–Schulz works on another
    matrix where there are more axes: (2, 50, 3) has 2 rows and 150 columns there, and is scaled by 4.08 all the same.

    Args:
        shape: The shape of an array that is not empty.

    Example:
        >>> from mlx_optimizers.muon import scale
        >>> scale((8, 2)), scale((2, 8)), round(scale((2, 50, 3)), 2)
        (2.0, 1.0, 4.08)
    """
    return float(max(1.0, shape[-2] / shape[-1]) ** 0.5)


class Muon(Whole):
    r"""Muon: momentum, made orthogonal by Newton–Schulz.

    .. math::
        \begin{aligned}
        h_t &= g_t + \kappa w_{t-1} \\
        v_t &= \mu v_{t-1} + (1 - \mu) h_t \\
        d_t &= \begin{cases} (1 - \mu) h_t + \mu v_t & \text{if nesterov} \\ v_t & \text{otherwise} \end{cases} \\
        w_t &= \begin{cases} w_{t-1} - \lambda \sqrt{\max(1, r/c)} \, N_k(d_t) & \text{if } n \ge 2 \\
            w_{t-1} - \lambda d_t & \text{otherwise} \end{cases}
        \end{aligned}

    n is the number of axes of w, and r and c are the last two. N is :func:`Newton–Schulz
    <mlx_optimizers.newton_schulz.newton_schulz>`, of a matrix that has the first axis of w for its rows and all others
    for its columns.

    Muon is meant for the matrices of hidden layers. Embeddings, the last layer, and parameters of one axis or none
    belong to another optimizer, such as AdamW; :class:`~mlx_optimizers.MultiOptimizer` gives each its own.

    Args:
        learning_rate: :math:`\lambda`, a number ≥ 0, or a schedule: a function of the number of updates done so far.
        momentum: :math:`\mu`, a number ≥ 0; default 0.95.
        weight_decay: :math:`\kappa`, a number ≥ 0, coupled: it goes into the gradient; default 0.01.
        nesterov: Whether to look ahead along the momentum; default True.
        ns_steps: :math:`k`, the number of steps of Newton–Schulz, a whole number ≥ 0; default 5.

    Parameters have any shape, and one of the dtypes float32, float64, float16 and bfloat16, in which all is computed. A
    parameter without elements stays as it is, also where MLX divides by an axis of 0, or cannot reshape.

    State: ``v``, zeros at first, of the shape and dtype of its parameter. Raises `ValueError` for a number out of
    range, `TypeError` for another type.

    Source: Keller Jordan, `Muon: An optimizer for hidden layers in neural networks
    <https://kellerjordan.github.io/posts/muon/>`_, with the running mean, the coupled weight decay and the scale of
    `MLX's Muon <https://ml-explore.github.io/mlx/build/html/python/optimizers/_autosummary/mlx.optimizers.Muon.html>`_.

    Example:
        A step has the length of its matrix, whatever the gradient's: here all gradients are a thousandth.

        >>> import numpy as np
        >>> import mlx_optimizers as optim
        >>> from mlx_optimizers.muon import Muon
        >>> model = {"hidden": np.zeros((2, 2), np.float32), "bias": np.zeros(2, np.float32)}
        >>> gradients = {
        ...     "hidden": np.float32([[1, 0], [0, 2]]) / 1000,
        ...     "bias": np.float32([1, 2]) / 1000,
        ... }
        >>> optimizer = Muon(learning_rate=0.5, momentum=0.5, nesterov=False)
        >>> optimizer.update(model, gradients)
        >>> print(model["hidden"].round(2))  # −½ of nearly the identity
        [[-0.56  0.  ]
         [ 0.   -0.34]]
        >>> print(model["bias"] * 1000)  # −½·v
        [-0.25 -0.5 ]
        >>> print(optimizer.state["bias"]["v"] * 1000)  # v = ½·g
        [0.5 1. ]
        >>> apart = optim.MultiOptimizer(
        ...     [Muon(0.02), optim.AdamW(1e-3)],
        ...     [lambda path, parameter: parameter.ndim >= 2],
        ... )
        >>> apart.update(model, gradients)
        >>> sorted(apart.state["states"][1]["bias"])
        ['m', 'v']
    """

    slots = ("v",)

    momentum = Hyperparameter(at_least_zero, "Momentum μ ≥ 0.")
    weight_decay = Hyperparameter(at_least_zero, "Weight decay κ ≥ 0.")
    nesterov = Hyperparameter(switch, "Whether Nesterov momentum is used.")
    ns_steps = Hyperparameter(whole, "The number of steps of Newton–Schulz.")

    @explained
    def __init__(
        self,
        learning_rate: LearningRate,
        momentum: float = 0.95,
        weight_decay: float = 0.01,
        nesterov: bool = True,
        ns_steps: int = 5,
    ) -> None:
        super().__init__()
        self.learning_rate = learning_rate
        self.momentum = momentum
        self.weight_decay = weight_decay
        self.nesterov = nesterov
        self.ns_steps = ns_steps

    def apply_single(self, gradient: FloatArray, parameter: FloatArray, state: Slots) -> FloatArray:
        """Advance one parameter by one step, in place; see `Optimizer.apply_single`."""
        w, v, real = parameter, state["v"], parameter.dtype.type
        if w.size == 0:
            return w
        mu, rest, rate = (real(x) for x in (self.momentum, 1 - self.momentum, self.learning_rate))
        with np.errstate(all="ignore"):
            h = gradient + real(self.weight_decay) * w if self.weight_decay else gradient
            v *= mu
            v += rest * h
            d = h * rest + v * mu if self.nesterov else v
            if w.ndim >= 2:
                rate *= real(scale(w.shape))
                d = newton_schulz(d.reshape(w.shape[0], -1), self.ns_steps).reshape(w.shape)
            w -= rate * d
        return w

    @staticmethod
    def exact(n: Numbers, h: Hyperparameters, t: int, w: Number, g: Number, v: Number) -> Step:
        """Advance over the numbers of a context ``n``."""
        shape, rate = n.shape(w), n.lift(h.learning_rate)
        if 0 in shape:
            return w, v
        g = g + h.weight_decay * w
        v = h.momentum * v + (1 - h.momentum) * g
        d = (1 - h.momentum) * g + h.momentum * v if h.nesterov else v
        if len(shape) > 1:
            d = n.orthogonalized(d, int(h.ns_steps))
            rate = rate * n.sqrt(n.number(max(Fraction(1), Fraction(*shape[-2:]))))
        return w - rate * d, v
