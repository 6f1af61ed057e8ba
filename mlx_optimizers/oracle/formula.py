"""A formula that can be evaluated."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import mlx_optimizers
from mlx_optimizers.kinds import Step

__all__ = ["Formula"]


@dataclass(frozen=True)
class Formula:
    """A formula that can be evaluated: a name, the hyperparameters' class, and one step over numbers.

    Args:
        name: The name that reports print.
        optimizer: The class whose hyperparameters it takes.
        exact: One step, ``exact(n, h, t, w, g, *slots) -> (w, *slots)``.
        initial: The slots before the first step from the first gradient; by default zeros.
    """

    name: str
    optimizer: type[mlx_optimizers.Optimizer]
    exact: Callable[..., Step]
    initial: Callable[..., Step] | None = None

    @property
    def slots(self) -> tuple[str, ...]:
        """Names of the state slots, in the order that ``exact`` takes them."""
        return self.optimizer.slots
