"""Schedules: functions from the number of updates done to a learning rate, with MLX's names and arguments."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from fractions import Fraction

import numpy as np

from mlx_optimizers.hyperparameters import at_least_one, at_least_zero, number
from mlx_optimizers.kinds import Schedule, Value
from mlx_optimizers.trees import is_mlx

__all__ = ["cosine_decay", "exponential_decay", "join_schedules", "linear_schedule", "step_decay"]


def exponential_decay(init: float, decay_rate: float) -> Schedule:
    r"""Make a schedule that multiplies by a constant at every step.

    .. math:: \lambda(s) = a\, r^s

    Here s is the number of updates done. :doc:`The guide </guides/schedules>` says what all schedules share.

    Args:
        init: a, the value at s = 0: a finite number.
        decay_rate: r, a number ≥ 0.

    Returns:
        The schedule. Its value is within 3 units in the last place of the exact one, as a power of the C library is
        within one, unless :math:`r^s` underflows; where the value overflows it is infinite.

    Raises:
        TypeError: for an argument that is no number.
        ValueError: for one that is not finite, or a negative ``decay_rate``.

    Example:
        >>> import mlx_optimizers as optim
        >>> schedule = optim.exponential_decay(0.5, 0.5)
        >>> [schedule(step).item() for step in range(4)]
        [0.5, 0.25, 0.125, 0.0625]
    """
    a, rate = number("init", init), at_least_zero("decay_rate", decay_rate)
    return _schedule(lambda step: _decayed(a, rate, step))


def step_decay(init: float, decay_rate: float, step_size: int) -> Schedule:
    r"""Make a schedule that multiplies by a constant after every so many steps.

    .. math:: \lambda(s) = a\, r^{\lfloor s / k \rfloor}

    Here s is the number of updates done. :doc:`The guide </guides/schedules>` says what all schedules share.

    Args:
        init: a, the value at s = 0: a finite number.
        decay_rate: r, a number ≥ 0.
        step_size: k ≥ 1, the number of steps between two multiplications.

    Returns:
        The schedule. Its value is within 3 units in the last place of the exact one, as a power of the C library is
        within one, unless the power underflows; where the value overflows it is infinite.

    Raises:
        TypeError: for an argument that is no number.
        ValueError: for one that is not finite, a negative ``decay_rate``, or a ``step_size`` below 1.

    Example:
        >>> import mlx_optimizers as optim
        >>> schedule = optim.step_decay(0.5, 0.5, step_size=2)
        >>> [schedule(step).item() for step in range(5)]
        [0.5, 0.5, 0.25, 0.25, 0.125]
    """
    a, rate, size = number("init", init), at_least_zero("decay_rate", decay_rate), at_least_one("step_size", step_size)
    return _schedule(lambda step: _decayed(a, rate, step // size))


def cosine_decay(init: float, decay_steps: int, end: float = 0.0) -> Schedule:
    r"""Make a schedule that goes from one value to another along half a wave of the cosine, and stays there.

    .. math:: \lambda(s) = b + \frac{a - b}{2} \left(1 + \cos \frac{\pi \min(s, n)}{n}\right)

    Here s is the number of updates done. :doc:`The guide </guides/schedules>` says what all schedules share.

    Args:
        init: a, the value at s = 0: a finite number.
        decay_steps: n ≥ 1, the number of steps to b.
        end: b, the value from s = n on: a finite number; default 0.

    Returns:
        The schedule. It computes :math:`b + (a - b) \sin^2 \frac{\pi (n - \min(s, n))}{2 n}`, which is the same, and
        loses nothing where the cosine is near −1. The square has a relative error below :math:`11 \cdot 2^{-53}`, as a
        sine of the C library is within a unit in the last place; the rest is rounded once, and both ends are exact.

    Raises:
        TypeError: for an argument that is no number.
        ValueError: for one that is not finite, or ``decay_steps`` below 1.

    Example:
        >>> import mlx_optimizers as optim
        >>> schedule = optim.cosine_decay(0.5, 4, end=0.25)
        >>> [round(schedule(step).item(), 6) for step in range(6)]
        [0.5, 0.463388, 0.375, 0.286612, 0.25, 0.25]
    """
    a, steps, b = number("init", init), at_least_one("decay_steps", decay_steps), number("end", end)

    def value(step: float) -> float:
        left = (steps - min(step, steps)) / steps
        return _between(b, a, Fraction(math.sin(math.pi / 2 * left) ** 2))

    return _schedule(value)


def linear_schedule(init: float, end: float, steps: int) -> Schedule:
    r"""Make a schedule that goes from one value to another along a line, and stays there.

    .. math:: \lambda(s) = a + (b - a) \frac{\min(s, n)}{n}

    Here s is the number of updates done. :doc:`The guide </guides/schedules>` says what all schedules share.

    Args:
        init: a, the value at s = 0: a finite number.
        end: b, the value from s = n on: a finite number.
        steps: n ≥ 1, the number of steps to b.

    Returns:
        The schedule. Its value is the double nearest to the exact one.

    Raises:
        TypeError: for an argument that is no number.
        ValueError: for one that is not finite, or ``steps`` below 1.

    Example:
        >>> import mlx_optimizers as optim
        >>> warmup = optim.linear_schedule(0, 0.5, steps=4)
        >>> [warmup(step).item() for step in range(6)]
        [0.0, 0.125, 0.25, 0.375, 0.5, 0.5]
    """
    a, b, n = number("init", init), number("end", end), at_least_one("steps", steps)
    return _schedule(lambda step: _between(a, b, Fraction(min(step, n)) / Fraction(n)))


def join_schedules(schedules: Sequence[Schedule], boundaries: Sequence[int]) -> Schedule:
    r"""Make a schedule of several, one after another.

    The first schedule gives the value below the first boundary. From each boundary on, the next schedule does, and
    counts from there: at the boundary it gets 0. Where boundaries are not in order, the last of those reached counts.
    Only the schedule that gives the value is called, with a step of the kind that came in, so that it never gets a
    negative one. :doc:`The guide </guides/schedules>` says what all schedules share.

    Args:
        schedules: One or more functions of the number of steps: of this module, MLX's, or your own.
        boundaries: The steps at which the next schedule begins, one fewer than there are schedules.

    Returns:
        The schedule. It rounds nothing that the schedules return, unless it is called with an array of MLX.

    Raises:
        TypeError: for a schedule that cannot be called, or a boundary that is no number.
        ValueError: for no schedule, or another number of boundaries.

    Example:
        >>> import mlx_optimizers as optim
        >>> warmup, decay = optim.linear_schedule(0, 0.5, steps=2), optim.exponential_decay(0.5, 0.5)
        >>> schedule = optim.join_schedules([warmup, decay], [2])
        >>> [schedule(step).item() for step in range(5)]
        [0.0, 0.25, 0.5, 0.25, 0.125]
    """
    parts, starts = list(schedules), list(boundaries)
    if not parts:
        raise ValueError("schedules must be at least one, not none")
    for index, part in enumerate(parts):
        if not callable(part):
            raise TypeError(f"schedules[{index}] must be callable, not {part!r}")
    if len(starts) != len(parts) - 1:
        raise ValueError(f"boundaries must be {len(parts) - 1}, one fewer than the schedules, not {len(starts)}")
    bounds = [number(f"boundaries[{index}]", start) for index, start in enumerate(starts)]

    def schedule(step: Value) -> Value:
        count, part, since = number("step", step), parts[0], step
        for bound, start, following in zip(bounds, starts, parts[1:], strict=True):
            if count >= bound:
                part, since = following, step - start
        return _like(step, number("the value of a schedule", part(since)))

    return schedule


def _schedule(value: Callable[[float], float]) -> Schedule:
    """Make a schedule of a function of a float."""
    return lambda step: _like(step, value(number("step", step)))


def _like(step: Value, value: float) -> Value:
    """Make a value an array of MLX, in float32, where the step is one, as its optimizers need; else NumPy's float64."""
    if not is_mlx(step):
        return np.float64(value)
    import mlx.core as mx

    return mx.array(value, mx.float32)


def _decayed(init: float, rate: float, times: float) -> float:
    """Multiply by a rate so many times; infinite where that is beyond the floats."""
    try:
        return init * math.pow(rate, times)
    except (OverflowError, ValueError):  # the latter for 0 to a negative power
        return math.copysign(math.inf, init) if init else 0.0


def _between(start: float, end: float, share: Fraction) -> float:
    """Go a share of the way from one number to another, and round once."""
    return float(Fraction(start) + (Fraction(end) - Fraction(start)) * share)
