"""Hold a function of your own to a documented formula, in your own test suite."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

import mlx_optimizers
from mlx_optimizers.backends.function import StepFunction
from mlx_optimizers.catalog import entry_of
from mlx_optimizers.conformance import check
from mlx_optimizers.conformance.case import default_rate
from mlx_optimizers.conformance.cases import STEPS, VALUES, cases_of, make_case, recast
from mlx_optimizers.conformance.check import Profile
from mlx_optimizers.conformance.formats.summary import details
from mlx_optimizers.conformance.frame import family
from mlx_optimizers.conformance.special import special_of
from mlx_optimizers.conformance.verdict import can_decide, decidable
from mlx_optimizers.kinds import Shape
from mlx_optimizers.oracle import format_of
from mlx_optimizers.oracle.trajectory import settings

__all__ = ["assert_conforms"]


def assert_conforms(
    my_step: Callable[..., Any],
    formula: str | type[mlx_optimizers.Optimizer],
    *,
    dtype: npt.DTypeLike = "float32",
    scalars: Profile = "either",
    shape: Shape | None = None,
    **hyperparameters: Any,
) -> None:
    """Assert that a function computes a documented formula, within what rounding can explain.

    Args:
        my_step: ``my_step(parameter, gradients, **hyperparameters)`` gets arrays of shape (n,) and (steps, n) and
            every hyperparameter of the optimizer by keyword, and returns the parameter after each step, of shape
            (steps, n). ``learning_rate`` is a list, one number a step, in the cases where it changes.
        formula: A formula's name, such as ``"Adam"`` or ``"Adam[bias_correction=true]"``, or an optimizer class.
        dtype: dtype of the arrays: float32 (default), float16, bfloat16 or float64.
        scalars: The precision of coefficients such as 1−β: ``"double"``, ``"float32"``, or ``"either"`` (default).
        shape: A further shape, such as ``(6, 4)``, of which the function gets arrays in one case more.
        **hyperparameters: With any, all regimes of data run with these and the defaults of the others; with
            none, every case of the suite runs, in float32 also those with NaN and infinities. So do arrays of 1 to
            4,097 elements, 300 steps, and a look at whether the gradients are as they were. Cases in which the dtype
            lets nothing of the parameter be tested, as many with small gradients in float16, are left out. Where a
            correct program may lie outside the interval, nothing follows: see `Case.reason`.

    Raises:
        AssertionError: when a case deviates or the function fails; the message is the diagnosis.
        ValueError: for an unknown formula, or one without a value in any case; for hyperparameters out of range,
            outside the domain of the proof, or with which the dtype lets nothing be tested; for a shape without
            elements.
        TypeError: for an unknown hyperparameter or dtype, a hyperparameter or a shape of another kind.

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
        AssertionError: SGD deviates in 28 of 28 cases, held to SGD.
          It computes SGD with a state that is never kept: SGD[state=dropped]
          or, by these cases: SGD[ignored=momentum:0]
          or, by these cases: SGD[replaced=momentum:dampening]
          or, by these cases: SGD[replaced=momentum:weight_decay]
          First seen in sgd/plain/momentum=0.9, step 2, parameter[14]:
            got -0.40553185 (becfa1df), accepted [-0.2391578, -0.2391574]
            exact -0.239157594442367536833609620193, 8e+05 times the accepted distance
    """
    if not callable(my_step):
        raise TypeError(f"my_step must be a function, not {my_step!r}")
    meant, form, shapes = decidable(formula), format_of(dtype), () if shape is None else (_shape(shape),)
    name, values = meant.optimizer.__name__, None
    if hyperparameters:
        values = _checked(meant.optimizer, hyperparameters)
        regimes = (*entry_of(name).regimes, *VALUES)
        cases = [make_case(meant.optimizer, regime, values, form.name) for regime in regimes]
    else:
        cases = [recast(case, form.name) for case in cases_of(name)]
        cases += special_of(name) if form.name == "float32" else ()
    for frame in ("sizes", "shapes", "long", "untouched"):
        cases += family(name, frame, values, form.name, shapes)
    cases = [case for case in cases if can_decide(case, meant)]
    if not cases:
        text = ", ".join(f"{key}={value!r}" for key, value in hyperparameters.items())
        raise ValueError(f"with {text} nothing of {meant.name} can be tested in {form.name}: any answer would pass")
    report = check(StepFunction(my_step), cases, formula=meant, scalars=scalars)
    if report.status != 0:
        raise AssertionError("\n".join(details(report)))


def _shape(shape: Any) -> Shape:
    """Check a shape."""
    axes = tuple(shape) if isinstance(shape, tuple | list) else (shape,)
    if not all(isinstance(axis, int) and not isinstance(axis, bool) for axis in axes):
        raise TypeError(f"shape must be a tuple of whole numbers, not {shape!r}")
    if not all(axis > 0 for axis in axes):
        raise ValueError(f"shape must have elements: every axis is at least 1, not {shape!r}")
    return axes


def _checked(optimizer: type[mlx_optimizers.Optimizer], hyperparameters: Mapping[str, Any]) -> dict[str, Any]:
    """Validate hyperparameters by the class, and convert them to Python's own types, as cases have them."""
    values = {name: _of_python(name, value) for name, value in hyperparameters.items()}
    settings(optimizer, {"learning_rate": default_rate(optimizer.__name__), **values}, STEPS)
    return {name: _as_float(value) for name, value in values.items()}


def _of_python(name: str, value: Any) -> Any:
    """Convert NumPy's types to Python's, and a list to a tuple. Refuse text, which the oracle would read."""
    if isinstance(value, np.ndarray | np.generic):
        value = value.tolist()
    if isinstance(value, str | bytes):
        raise TypeError(f"{name} must be a number, not {value!r}")
    return tuple(_of_python(name, item) for item in value) if isinstance(value, Sequence) else value


def _as_float(value: Any) -> Any:
    """Convert a number of another kind, a Fraction or a Decimal, to a float."""
    if isinstance(value, tuple):
        return tuple(map(_as_float, value))
    return value if isinstance(value, int | float) else float(value)
