"""Adafactor."""

from __future__ import annotations

import math
import warnings
from typing import Any

import numpy as np

from mlx_optimizers import hyperparameters as check
from mlx_optimizers.hyperparameters import Hyperparameter
from mlx_optimizers.kinds import FloatArray, Hyperparameters, Number, Numbers, Shape, Slots, Step
from mlx_optimizers.optimizer import Whole
from mlx_optimizers.rates import LearningRate

__all__ = ["Adafactor"]


class Adafactor(Whole):
    r"""Adafactor [1]: the running mean of the squared gradient is kept by its rows and columns.

    .. math::
        \begin{aligned}
        s_t &= \begin{cases} 10^{-6} t & \text{if warmup\_init} \\ 10^{-2} & \text{otherwise} \end{cases} \\
        \rho_t &= \begin{cases} \min(s_t, 1/\sqrt{t}) & \text{if relative\_step} \\
            \lambda & \text{otherwise} \end{cases} \\
        \alpha_t &= \begin{cases} \rho_t \max(\epsilon_2, \operatorname{rms}(w_{t-1})) & \text{if scale\_parameter} \\
            \rho_t & \text{otherwise} \end{cases} \\
        \beta_t &= 1 - t^\gamma \\
        V_t &= \beta_t V_{t-1} + (1 - \beta_t) (g_t^2 + \epsilon_1) \\
        R_t &= \beta_t R_{t-1} + (1 - \beta_t) \operatorname{mean}_j(g_t^2 + \epsilon_1) \\
        C_t &= \beta_t C_{t-1} + (1 - \beta_t) \operatorname{mean}_i(g_t^2 + \epsilon_1) \\
        x_t &= \begin{cases} g_t/\sqrt{R_t C_t/\operatorname{mean}_i(R_t)} & \text{if } n \ge 2 \\
            g_t/\sqrt{V_t} & \text{otherwise} \end{cases} \\
        u_t &= \alpha_t x_t/\max(1, \operatorname{rms}(x_t)/d) \\
        m_t &= \begin{cases} \beta_1 m_{t-1} + (1 - \beta_1) u_t & \text{with } \beta_1 \\
            u_t & \text{otherwise} \end{cases} \\
        w_t &= w_{t-1} - \kappa \alpha_t w_{t-1} - m_t
        \end{aligned}

    n is the number of axes of w. The last but one is that of rows, i, and the last that of columns, j; those before
    them are a batch, but to rms, the root mean square of all elements. From two axes on there is no V.

    Args:
        learning_rate: :math:`\lambda`, a number ≥ 0 or a schedule; needed without relative_step, else not used.
        eps: :math:`(\epsilon_1, \epsilon_2)`, numbers ≥ 0; default (1e-30, 1e-3).
        clip_threshold: :math:`d`, where the root mean square of x is clipped, a number > 0; default 1.
        decay_rate: :math:`\gamma`, a number ≤ 0; default −0.8.
        beta_1: :math:`\beta_1`, in [0, 1), or None for no running mean of the update; default None.
        weight_decay: :math:`\kappa`, a number ≥ 0; default 0.
        scale_parameter: Whether the step is scaled by the root mean square of the parameter; default True.
        relative_step: Whether ρ follows t; default True.
        warmup_init: Whether it grows from 1e-6; default False.

    State: ``exp_avg_sq_row`` and ``exp_avg_sq_col``, R and C, or ``exp_avg_sq``, V; with beta_1 ``exp_avg``, m.
    Raises `ValueError` for a number out of range, `TypeError` for another type. Warns of a λ that is not used.

    Example:
        >>> import numpy as np
        >>> import mlx_optimizers as optim
        >>> optimizer = optim.Adafactor(0.5, relative_step=False)  # x = 1, and the root mean square of w is 2
        >>> print(optimizer.apply_gradients(np.float32([[3, 3]]), np.float32([[2, 2]])))
        [[1. 1.]]
        >>> print(optimizer.state["exp_avg_sq_row"], optimizer.state["exp_avg_sq_col"])
        [9.] [9. 9.]
    """

    slots = ("exp_avg_sq_row", "exp_avg_sq_col", "exp_avg_sq", "exp_avg")

    eps = Hyperparameter(check.pair_at_least_zero, "(ε₁, ε₂), each ≥ 0.")
    clip_threshold = Hyperparameter(check.positive, "Clipping threshold d > 0.")
    decay_rate = Hyperparameter(check.at_most_zero, "Exponent γ ≤ 0 of the decay.")
    beta_1 = Hyperparameter(check.below_one_or_none, "Decay β₁ of the update's mean, in [0, 1), or None.")
    weight_decay = Hyperparameter(check.at_least_zero, "Weight decay κ ≥ 0.")
    scale_parameter = Hyperparameter(check.switch, "Whether the parameter's size scales the step.")
    relative_step = Hyperparameter(check.switch, "Whether the step size follows t instead of λ.")
    warmup_init = Hyperparameter(check.switch, "Whether the relative step size starts small.")

    @check.explained
    def __init__(
        self,
        learning_rate: LearningRate | None = None,
        eps: tuple[float, float] = (1e-30, 1e-3),
        clip_threshold: float = 1.0,
        decay_rate: float = -0.8,
        beta_1: float | None = None,
        weight_decay: float = 0.0,
        scale_parameter: bool = True,
        relative_step: bool = True,
        warmup_init: bool = False,
    ) -> None:
        super().__init__()
        if learning_rate is not None:
            self.learning_rate = learning_rate
        self.eps, self.clip_threshold, self.decay_rate, self.beta_1 = eps, clip_threshold, decay_rate, beta_1
        self.weight_decay, self.scale_parameter, self.warmup_init = weight_decay, scale_parameter, warmup_init
        self.relative_step = relative_step
        if learning_rate is not None and relative_step:
            text = f"Adafactor does not use learning_rate={learning_rate!r} without relative_step=False"
            warnings.warn(text, UserWarning, stacklevel=3)

    def check_together(self) -> None:
        """Refuse a step size that is neither relative nor given."""
        if vars(self).get("relative_step") is False and self._rates.rate() is None and not self._rates.schedules:
            raise ValueError("relative_step=False needs a learning_rate, not None")

    @classmethod
    def slot_shapes(cls, hyperparameters: Any, shape: Shape) -> dict[str, Shape]:
        """Name the slots of a parameter with their shapes: by rows and columns from two axes on."""
        factored = {"exp_avg_sq_row": shape[:-1], "exp_avg_sq_col": (*shape[:-2], *shape[-1:])}
        mean = {} if hyperparameters.beta_1 is None else {"exp_avg": shape}
        return {**(factored if len(shape) > 1 else {"exp_avg_sq": shape}), **mean}

    def apply_single(self, gradient: FloatArray, parameter: FloatArray, state: Slots) -> FloatArray:
        """Advance one parameter by one step, in place."""
        w, g, real, t = parameter, gradient, parameter.dtype.type, int(self.step)
        rate = min(1e-6 * t if self.warmup_init else 1e-2, 1 / math.sqrt(t)) if self.relative_step else None
        rate = float(self.learning_rate) if rate is None else rate
        if self.scale_parameter:
            rate *= max(_rms(w), self.eps[1])  # in this order a NaN stays
        rest = float(t) ** self.decay_rate
        old, new = real(1 - rest), real(rest)
        x = np.multiply(g, g, out=np.empty_like(w))
        x += real(self.eps[0])
        if w.ndim > 1:
            row, column = state["exp_avg_sq_row"], state["exp_avg_sq_col"]
            row[...] = row * old + _mean(x, -1) * new
            column[...] = column * old + _mean(x, -2) * new
            across = real(1) / np.sqrt(row / _mean(row, -1, keepdims=True))
            np.multiply(across[..., None], (real(1) / np.sqrt(column))[..., None, :], out=x)
        else:
            v = state["exp_avg_sq"]
            v[...] = v * old + x * new
            np.divide(real(1), np.sqrt(v), out=x)
        x *= g
        x *= real(rate / max(_rms(x) / self.clip_threshold, 1.0))
        if self.beta_1 is not None:
            m = state["exp_avg"]
            m[...] = m * real(self.beta_1) + x * real(1 - self.beta_1)
            x = m
        if self.weight_decay:
            w -= w * real(self.weight_decay * rate)
        w -= x
        return w

    @staticmethod
    def exact(n: Numbers, h: Hyperparameters, t: int, w: Number, g: Number, *slots: Number) -> Step:
        """Advance over the numbers of a context ``n``."""
        least = n.number(1e-6) * t if h.warmup_init else n.number(1e-2)
        rate = n.lift(n.min(least, 1 / n.sqrt(n.number(t))) if h.relative_step else h.learning_rate)
        if h.scale_parameter:
            rate = n.max(h.eps[1], n.sqrt(n.mean(w**2))) * rate
        rest = n.cast(n.power(t, h.decay_rate))
        b2, x = 1 - rest, g**2 + h.eps[0]
        if len(slots) - (h.beta_1 is not None) == 2:
            row = b2 * slots[0] + (1 - b2) * n.mean(x, -1)
            column = b2 * slots[1] + (1 - b2) * n.mean(x, -2)
            across, down = (1 / n.sqrt(v) for v in (row / n.mean(row, -1, keep=True), column))
            kept, x = [row, column], n.expand(across, -1) * n.expand(down, -2) * g
        else:
            v = b2 * slots[0] + (1 - b2) * x
            kept, x = [v], 1 / n.sqrt(v) * g
        x = rate * (x / n.max(1, n.sqrt(n.mean(x**2)) / h.clip_threshold))
        if h.beta_1 is not None:
            x = h.beta_1 * slots[-1] + (1 - h.beta_1) * x
            kept = [*kept, x]
        return w - h.weight_decay * rate * w - x, *kept


def _rms(x: FloatArray) -> float:
    """Take the root mean square of all elements, their sum in float32 or float64; 0 of none."""
    wide = np.asarray(x, np.result_type(x, np.float32)).reshape(-1)
    return math.sqrt(float(np.vdot(wide, wide)) / max(x.size, 1))


def _mean(x: FloatArray, axis: int, *, keepdims: bool = False) -> FloatArray:
    """Take the mean along an axis, the sum in float32 or float64, in the dtype of the elements."""
    total = np.sum(x, axis=axis, dtype=np.result_type(x, np.float32), keepdims=keepdims)
    out: FloatArray = (total / total.dtype.type(x.shape[axis])).astype(x.dtype)
    return out
