"""Our own fast path as a backend."""

from __future__ import annotations

import copy
from collections.abc import Iterator

import numpy as np

import mlx_optimizers
from mlx_optimizers.backends import Claims, Unavailable
from mlx_optimizers.catalog import entry_of
from mlx_optimizers.conformance import Case, Run
from mlx_optimizers.conformance.verdict import Computed

__all__ = ["Reference"]


class Reference(Claims):
    """The NumPy classes of this package, driven as a user drives them: a schedule, ``update``, the state."""

    name = "reference"
    version = mlx_optimizers.__version__

    def __init__(self, device: str = "cpu") -> None:
        if device != "cpu":
            raise Unavailable(f"the reference runs on the CPU alone, not on {device!r}")
        self.device = device

    def run(self, case: Case) -> Run:
        """Compute a case."""
        with np.errstate(all="ignore"):
            return Run.of_tree(case, _steps(case))


def _made(case: Case) -> mlx_optimizers.Optimizer:
    """Make the optimizer of a case. Its schedule is asked once more than there are steps: at construction, for 0."""
    rates = case.rates()
    schedule = None if rates[0] is None else lambda step: rates[max(step - case.step, 0)]
    return entry_of(case.optimizer).optimizer(**{**case.hyperparameters, "learning_rate": schedule})


def _steps(case: Case) -> Iterator[list[Computed]]:
    model, optimizer = {"w": [leaf.parameter.copy() for leaf in case.each]}, _made(case)
    if case.state:
        optimizer.init(model)
        slots = [{name: values.copy() for name, values in leaf.state.items()} for leaf in case.each]
        optimizer.state = {**optimizer.state, "step": np.uint64(case.step), "w": slots}
    for index in range(len(case.gradients)):
        if index == case.saved:
            state, optimizer = copy.deepcopy(optimizer.state), _made(case)
            optimizer.state = state
        gradients = [leaf.given(index) for leaf in case.each]
        optimizer.update(model, {"w": gradients})
        yield list(zip(model["w"], optimizer.state["w"], gradients, strict=True))
