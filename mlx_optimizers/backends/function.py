"""A plain function as a backend: the parameter after each step from the gradients of all steps."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import numpy as np

from mlx_optimizers.backends import Claims, Unavailable
from mlx_optimizers.conformance import Case, Run, Unsupported
from mlx_optimizers.trees import refuse_masked

__all__ = ["StepFunction"]


class StepFunction(Claims):
    """A function ``step(parameter, gradients, **hyperparameters)``.

    Args:
        function: Gets arrays of shape (n,) and (steps, n), in the cases that have others of their shape, and every
            hyperparameter by keyword; ``learning_rate`` is a list, one number a step, in the cases where it changes.
            Returns the parameter after each step, with an axis for the steps first.
        name: Name of the backend.
        device: ``"cpu"`` alone.
    """

    def __init__(self, function: Callable[..., Any], name: str = "function", device: str = "cpu") -> None:
        if device != "cpu":
            raise Unavailable(f"a Python function runs on the CPU alone, not on {device!r}")
        self.name = name
        self.version = "unknown"
        self.device = device
        self._function = function

    def run(self, case: Case) -> Run:
        """Compute a case; the function gets copies."""
        if case.leaves:
            raise Unsupported("a function gets one array")
        if case.state or case.saved:
            raise Unsupported("a function starts from a state of zeros")
        self._require_taken(case)
        gradients = np.stack([case.given(index) for index in range(len(case.gradients))])
        parameters = self._function(case.parameter.copy(), gradients, **case.hyperparameters)
        refuse_masked(parameters, "what the function returns")
        return Run(case, np.asarray(parameters), {}, gradients if case.gradient_dtype is None else None)

    def _require_taken(self, case: Case) -> None:
        try:
            signature = inspect.signature(self._function)
        except ValueError:  # a function written in C may have none
            return
        try:
            signature.bind(case.parameter, case.gradients, **case.hyperparameters)
        except TypeError as error:
            taken = ", ".join(case.hyperparameters)
            raise Unsupported(f"the function cannot be called with {taken} by keyword: {error}") from error
