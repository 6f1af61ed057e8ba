"""Our own fast path as a backend."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np

import mlx_optimizers
from mlx_optimizers.backends import Claims, Unavailable
from mlx_optimizers.catalog import entry_of
from mlx_optimizers.conformance import Case, Run
from mlx_optimizers.kinds import FloatArray

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
            return Run.from_steps(case, _steps(case))


def _steps(case: Case) -> Iterator[tuple[FloatArray, Mapping[str, FloatArray]]]:
    rates = case.rates()
    # A schedule is asked once more than there are steps: at construction, for step 0.
    schedule = None if rates[0] is None else lambda step: rates[step]
    hyperparameters = {**case.hyperparameters, "learning_rate": schedule}
    optimizer = entry_of(case.optimizer).optimizer(**hyperparameters)
    model = {"w": case.parameter.copy()}
    for gradient in case.gradients:
        optimizer.update(model, {"w": gradient})
        yield model["w"], {name: optimizer.state["w"][name] for name in case.slots}
