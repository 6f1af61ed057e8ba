"""The schedules a second time, over numbers of mpmath: exact up to a working precision.

Each function has the name and the arguments of one in ``mlx_optimizers.schedulers``, and ``bits``, the working
precision, by default 200. The schedule that it returns takes the number of updates done and returns a number of mpmath.
A float is the number that it is, and a string or a Fraction the decimal or ratio that it spells. They take nothing from
the schedules in floats, and write the formulas as MLX defines them.

Example:
    >>> from mlx_optimizers import schedulers
    >>> from mlx_optimizers.oracle import Exact, schedules
    >>> Exact(library="mpmath").text(schedules.cosine_decay(1, 3000)(2999), 25)
    '2.74155652754260097101938E-7'
    >>> f"{schedulers.cosine_decay(1, 3000)(2999):.14e}"
    '2.74155652754260e-07'
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from fractions import Fraction
from typing import Any

from mlx_optimizers.oracle.exact import Exact

__all__ = ["cosine_decay", "exponential_decay", "join_schedules", "linear_schedule", "step_decay"]

Number = float | str | Fraction

ExactSchedule = Callable[[int], Any]
"""From the number of updates done to a number of mpmath."""


def exponential_decay(init: Number, decay_rate: Number, *, bits: int = 200) -> ExactSchedule:
    r"""Make the exact schedule :math:`a\, r^s`."""
    a, r = _numbers(bits, init, decay_rate)
    return lambda step: a * r**step


def step_decay(init: Number, decay_rate: Number, step_size: int, *, bits: int = 200) -> ExactSchedule:
    r"""Make the exact schedule :math:`a\, r^{\lfloor s / k \rfloor}`."""
    a, r = _numbers(bits, init, decay_rate)
    return lambda step: a * r ** (step // step_size)


def cosine_decay(init: Number, decay_steps: int, end: Number = 0.0, *, bits: int = 200) -> ExactSchedule:
    r"""Make the exact schedule :math:`b + \frac{a - b}{2} \left(1 + \cos \frac{\pi \min(s, n)}{n}\right)`."""
    a, b, n = _numbers(bits, init, end, decay_steps)

    def schedule(step: int) -> Any:
        cosine = n.context.cospi(min(step, decay_steps) / n)
        return b + (a - b) * (1 + cosine) / 2

    return schedule


def linear_schedule(init: Number, end: Number, steps: int, *, bits: int = 200) -> ExactSchedule:
    r"""Make the exact schedule :math:`a + (b - a) \frac{\min(s, n)}{n}`."""
    a, b, n = _numbers(bits, init, end, steps)
    return lambda step: min(step, steps) * (b - a) / n + a


def join_schedules(schedules: Sequence[ExactSchedule], boundaries: Sequence[int]) -> ExactSchedule:
    """Join exact schedules: each begins at its boundary, and counts from there."""

    def schedule(step: int) -> Any:
        reached = [index for index, boundary in enumerate(boundaries) if boundary <= step]
        if not reached:
            return schedules[0](step)
        return schedules[reached[-1] + 1](step - boundaries[reached[-1]])

    return schedule


def _numbers(bits: int, *values: Number) -> tuple[Any, ...]:
    n = Exact(bits, "mpmath")
    return tuple(n.number(value) for value in values)
