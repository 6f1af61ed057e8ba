"""A formula that can be evaluated."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import mlx_optimizers
from mlx_optimizers.kinds import Shape, Step

__all__ = ["Formula"]


@dataclass(frozen=True)
class Formula:
    """A formula that can be evaluated: a name, the hyperparameters' class, and one step over numbers.

    Args:
        name: The name that reports print.
        optimizer: The class whose hyperparameters it takes.
        exact: One step, ``exact(n, h, t, w, g, *slots) -> (w, *slots)``.
        initial: The slots before the first step from the first gradient; by default zeros.
        more: The number of arrays that a step keeps besides the slots, zeros at first; they come behind them.
    """

    name: str
    optimizer: type[mlx_optimizers.Optimizer]
    exact: Callable[..., Step]
    initial: Callable[..., Step] | None = None
    more: int = 0

    @property
    def slots(self) -> tuple[str, ...]:
        """Names of all state slots that there may be."""
        return self.optimizer.slots

    def slot_shapes(self, hyperparameters: Mapping[str, Any], shape: Shape) -> dict[str, Shape]:
        """Name the state slots of a parameter with their shapes, in the order that ``exact`` takes them."""
        return self.optimizer.slot_shapes(SimpleNamespace(**hyperparameters), shape)
