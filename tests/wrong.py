"""Wrong programs, each made of a right step: what they do is wrong in some elements, for some numbers or settings."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np

from tests.expected import EXPECTED

Step = Callable[..., tuple[Any, ...]]
"""``step(h, t, w, g, *slots) -> (w, *slots)``"""

Make = Callable[[Step], Step]


def right(optimizer: str) -> Step:
    """The step that tests/expected.py states, in the parameter's dtype."""
    return lambda h, t, w, g, *slots: EXPECTED[optimizer].step(
        w.dtype.type, SimpleNamespace(**vars(h), step=t), w, g, *slots
    )


# Wrong programs, each made of a right step.


def left_out(where: Callable[[int], Any]) -> Callable[[Step], Step]:
    """Leave the elements that ``where`` chooses, by the size of the array, as they were."""

    def make(step: Step) -> Step:
        def wrong(h: Any, t: int, w: Any, g: Any, *slots: Any) -> tuple[Any, ...]:
            new = step(h, t, w, g, *slots)
            chosen = np.reshape(where(w.size), w.shape)
            return tuple(np.where(chosen, old, x) for old, x in zip((w, *slots), new, strict=True))

        return wrong

    return make


def before(change: Callable[..., tuple[Any, Any]]) -> Callable[[Step], Step]:
    """Change w and g before the step."""
    return lambda step: lambda h, t, w, g, *slots: step(h, t, *change(w, g), *slots)


def after(change: Callable[[Any], Any]) -> Callable[[Step], Step]:
    """Change what comes out of the step."""
    return lambda step: lambda *given: tuple(map(change, step(*given)))


def settings(**changes: Callable[[Any], Any]) -> Callable[[Step], Step]:
    """Change hyperparameters, those that the optimizer has."""

    def make(step: Step) -> Step:
        def wrong(h: Any, *rest: Any) -> tuple[Any, ...]:
            new = {name: change(getattr(h, name)) for name, change in changes.items() if hasattr(h, name)}
            return step(SimpleNamespace(**(vars(h) | new)), *rest)

        return wrong

    return make


def decays(change: Callable[[float], float]) -> Callable[[Step], Step]:
    """Change the decay of each running mean, and the momentum."""
    return settings(alpha=change, rho=change, momentum=change, betas=lambda betas: tuple(map(change, betas)))


def rates(change: Callable[[list[float]], float]) -> Callable[[Step], Step]:
    """Take another learning rate than the last one, from those of all steps so far."""

    def make(step: Step) -> Step:
        seen: list[float] = []

        def wrong(h: Any, t: int, *rest: Any) -> tuple[Any, ...]:
            seen[t - 1 :] = [h.learning_rate]
            return step(SimpleNamespace(**(vars(h) | {"learning_rate": change(seen)})), t, *rest)

        return wrong

    return make


def until_step(last: int, step: Step) -> Step:
    return lambda h, t, w, g, *slots: step(h, t, w, g, *slots) if t <= last else (w, *slots)


def few_axes_alone(step: Step) -> Step:
    return lambda h, t, w, g, *slots: step(h, t, w, g, *slots) if w.ndim < 5 else (w, *slots)


def as_if_contiguous(w: Any, g: Any) -> tuple[Any, Any]:
    return w, np.lib.stride_tricks.as_strided(g, strides=(g.itemsize,)) if g.ndim == 1 else g


def skips_zeros(step: Step) -> Step:
    return lambda h, t, w, g, *slots: step(h, t, w, g, *slots) if g.any() else (w, *slots)


def in_float32(step: Step) -> Step:
    return lambda h, t, *arrays: step(h, t, *map(np.float32, arrays))


def towards_zero(x: float) -> float:
    near = np.float32(x)
    return float(np.nextafter(near, np.float32(0)) if float(near) > x else near)
