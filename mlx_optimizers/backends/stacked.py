"""Collects what a backend shows after each step."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from mlx_optimizers.conformance import Outcome

__all__ = ["Stacked"]


class Stacked:
    """Parameters and state slots, one row a step."""

    def __init__(self) -> None:
        self._parameters: list[npt.NDArray[Any]] = []
        self._state: dict[str, list[npt.NDArray[Any]]] = {}

    def add(self, parameter: npt.NDArray[Any], state: Mapping[str, npt.NDArray[Any]]) -> None:
        """Keep what one step left; the arrays are not copied."""
        self._parameters.append(parameter)
        for name, values in state.items():
            self._state.setdefault(name, []).append(values)

    def outcome(self) -> Outcome:
        """Everything so far, each quantity of shape (steps, n)."""
        return Outcome(np.stack(self._parameters), {name: np.stack(rows) for name, rows in self._state.items()})
