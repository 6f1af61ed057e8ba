"""Our own fast path as a backend."""

from __future__ import annotations

import numpy as np

import mlx_optimizers
from mlx_optimizers.backends import Unavailable
from mlx_optimizers.catalog import CATALOG
from mlx_optimizers.conformance import Case, Outcome

__all__ = ["Reference"]

_CLASSES = {entry.name: entry.optimizer for entry in CATALOG}


class Reference:
    """The NumPy classes of this package, driven as a user drives them: a schedule, ``update``, the state."""

    name = "reference"
    version = mlx_optimizers.__version__

    def __init__(self, device: str = "cpu") -> None:
        if device != "cpu":
            raise Unavailable(f"the reference runs on the CPU alone, not on {device!r}")
        self.device = device

    def claim(self, optimizer: str) -> str:
        """The formula of the page."""
        return optimizer

    def run(self, case: Case) -> Outcome:
        """Compute a case."""
        rates = case.rates()
        # A schedule is asked once more than there are steps: at construction, for step 0.
        made = _CLASSES[case.optimizer](**{**case.hyperparameters, "learning_rate": lambda step: rates[step]})
        model = {"w": case.parameter.copy()}
        parameters, state = [], []
        with np.errstate(all="ignore"):
            for gradient in case.gradients:
                made.update(model, {"w": gradient})
                parameters.append(model["w"].copy())
                state.append({name: np.array(made.state["w"][name]) for name in made.slots})
        return Outcome(np.stack(parameters), {name: np.stack([row[name] for row in state]) for name in made.slots})
