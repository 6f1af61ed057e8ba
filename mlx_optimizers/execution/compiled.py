"""The compiled path: numba's loops where it is installed, bit for bit what NumPy computes."""

from __future__ import annotations

import warnings
import weakref

import numpy as np

from mlx_optimizers import settings
from mlx_optimizers.execution import tuning
from mlx_optimizers.execution.program import Coefficients
from mlx_optimizers.kinds import FloatArray, Loop, Rule

DTYPES = ("float32", "float64")
"""What is compiled; the processor computes in these by itself."""

_loops: weakref.WeakKeyDictionary[Rule, Loop | None] = weakref.WeakKeyDictionary()
"""The loop of each rule that was asked for; None where numba cannot compile it."""


def computes(array: FloatArray) -> bool:
    """Tell whether a loop can go through an array: it has elements, of `DTYPES`, in the processor's order of bytes."""
    return array.dtype.name in DTYPES and array.dtype.isnative and array.size > 0


def loop_for(rule: Rule, slots: int, size: int, coefficients: Coefficients) -> Loop | None:
    """Return the compiled loop of a rule with ``slots`` state arrays, or None where NumPy computes a tree of ``size``.

    Compile it for those of the dtypes of the coefficients that are in `DTYPES`.
    """
    on = settings.compiled()
    if on is False or not settings.has_numba() or (size < tuning.LEAST and not on):
        return None
    try:
        if rule not in _loops:
            from mlx_optimizers.execution import loops

            _loops[rule] = loops.loop_of(rule, slots) if loops.knows(rule) else None
        loop = _loops[rule]
        for dtype, (c, _) in coefficients.items():
            if loop is not None and computes(np.empty(1, dtype)):
                loop(c, dtype.type(1), np.empty(0, np.int64), np.empty((0, 2 + slots), np.int64))
    except Exception as error:
        _loops[rule] = loop = None
        reason = f"{type(error).__name__}: {error}".splitlines()[0]
        text = f"numba cannot compile {rule.__qualname__}, NumPy computes instead ({reason})"
        warnings.warn(text, RuntimeWarning, stacklevel=2)
    return loop
