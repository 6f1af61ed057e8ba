"""For the test suites of others: hold a function of one's own to a documented formula."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from mlx_optimizers.backends.function import StepFunction
from mlx_optimizers.conformance import check, matching, parse
from mlx_optimizers.conformance.cases import REGIMES, make_case, recast
from mlx_optimizers.conformance.check import Profile
from mlx_optimizers.conformance.human import details
from mlx_optimizers.oracle.trajectory import settings

__all__ = ["assert_conforms"]


def assert_conforms(
    my_step: Callable[..., Any],
    formula: str,
    *,
    dtype: str = "float32",
    scalars: Profile = "either",
    **hyperparameters: Any,
) -> None:
    """Assert that a function computes a documented formula, within what rounding can explain.

    Args:
        my_step: ``my_step(parameter, gradients, **hyperparameters)`` gets arrays of shape (n,) and (steps, n) and
            every hyperparameter of the optimizer by keyword, and returns the parameter after each step, of shape
            (steps, n). ``learning_rate`` is a list, one number a step, in the cases where it changes.
        formula: A formula's name, such as ``"Adam"`` or ``"Adam[bias_correction=true]"``.
        dtype: dtype of the arrays: float32 (default), float16, bfloat16 or float64.
        scalars: Where the function may form 1−β and its like: ``"double"``, ``"float32"``, or ``"either"`` (default).
        **hyperparameters: If any is given, all regimes of data run with those, the rest at their defaults; with
            none, every case of the suite runs.

    Raises:
        AssertionError: when a case deviates or the function fails; the message is the diagnosis.
        ValueError: for an unknown formula, hyperparameter values out of range, or outside the domain of the proof.
        TypeError: for an unknown hyperparameter or dtype.

    Example:
        >>> import numpy as np
        >>> from mlx_optimizers.testing import assert_conforms
        >>> def sgd(parameter, gradients, *, learning_rate, momentum, weight_decay, dampening, nesterov):
        ...     rate = np.float32(learning_rate)
        ...     return parameter - rate * np.cumsum(gradients, axis=0)
        >>> assert_conforms(sgd, "SGD", learning_rate=0.5)
        >>> assert_conforms(sgd, "SGD", momentum=0.9)
        Traceback (most recent call last):
            ...
        AssertionError: SGD deviates in 4 of 4 cases, held to SGD.
          It computes SGD with momentum left at 0: SGD[ignored=momentum:0]
          First seen in sgd/plain/momentum=0.9, step 2, parameter[14]:
            got -0.40553185 (becfa1df), accepted [-0.2391578, -0.2391574]
            exact -0.239157594442367536833609620193, 8e+05 times the accepted distance
    """
    optimizer = parse(formula).optimizer
    if hyperparameters:
        given = {name: _of_python(value) for name, value in hyperparameters.items()}
        regimes = [regime for regime in REGIMES if regime != "edge" or optimizer.__name__ == "Lion"]
        cases = [make_case(optimizer, regime, given, dtype) for regime in regimes]
        settings(optimizer, cases[0].hyperparameters, len(cases[0].gradients))  # refuses what the class refuses
    else:
        cases = [recast(case, dtype) for case in matching([optimizer.__name__])]
    report = check(StepFunction(my_step), cases, formula=formula, scalars=scalars)
    if report.status != 0:
        raise AssertionError("\n".join(details(report)))


def _of_python(value: Any) -> Any:
    """A hyperparameter without NumPy's types, of which a case has none, and a list as a tuple."""
    plain = value.tolist() if isinstance(value, np.ndarray | np.generic) else value
    return tuple(plain) if isinstance(plain, list) else plain
