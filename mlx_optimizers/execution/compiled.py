"""The compiled path: numba's loops where it is installed, bit for bit what NumPy computes."""

from __future__ import annotations

import importlib.util
import os
import warnings
import weakref
from collections.abc import Callable
from functools import cache

import numpy as np

from mlx_optimizers.execution import tuning
from mlx_optimizers.execution.program import Coefficients, Rule
from mlx_optimizers.kinds import FloatArray

DTYPES = ("float32", "float64")
"""What is compiled; the processor computes in these by itself."""

Loop = Callable[..., None]

_loops: weakref.WeakKeyDictionary[Rule, Loop | None] = weakref.WeakKeyDictionary()
"""The loop of each rule that was asked for; None where numba cannot compile it."""

_wanted: bool | None = None


def set_compiled(on: bool | None) -> None:
    """Choose between the compiled path and NumPy. Both give the same bits.

    Args:
        on: False for NumPy always; True for the compiled path for trees of any size; None for what the environment
            variable ``MLX_OPTIMIZERS_COMPILED`` says, 0 or 1, or else the compiled path for all but small trees
            where numba is installed.

    Raises:
        ImportError: for True where numba is not installed.

    Example:
        >>> from mlx_optimizers.execution import set_compiled
        >>> set_compiled(False)
        >>> set_compiled(None)
    """
    global _wanted  # noqa: PLW0603 - one setting for the process
    if on and not _installed():
        raise ImportError("the compiled path needs numba: pip install '.[fast]' in a checkout, or pip install numba")
    _wanted = on


@cache
def _installed() -> bool:
    return importlib.util.find_spec("numba") is not None


def choice() -> tuple[bool | None, bool]:
    """What decides on the compiled path besides the arrays: the setting, and whether NumPy is to raise nothing.

    Raises:
        ValueError: for an environment variable that is neither 0 nor 1.
    """
    on = _wanted
    if on is None and (text := os.environ.get("MLX_OPTIMIZERS_COMPILED", "")):
        if text not in ("0", "1"):
            raise ValueError(f"MLX_OPTIMIZERS_COMPILED must be 0 or 1, not {text!r}")
        on = text == "1"
    # A loop that is compiled neither raises nor calls what `numpy.errstate` asks for.
    return on, all(kind in ("ignore", "warn") for kind in np.geterr().values())


def computes(array: FloatArray) -> bool:
    """Tell whether a loop can go through an array: it has elements, of `DTYPES`, in the processor's order of bytes."""
    return array.dtype.name in DTYPES and array.dtype.isnative and array.size > 0


def loop_for(rule: Rule, slots: int, size: int, coefficients: Coefficients) -> Loop | None:
    """Return the compiled loop of a rule with ``slots`` state arrays, or None where NumPy computes a tree of ``size``.

    Compile it for those of the dtypes of the coefficients that are in `DTYPES`.
    """
    on, quiet = choice()
    if on is False or not quiet or not _installed() or (size < tuning.LEAST and not on):
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
        name = getattr(rule, "__qualname__", "a rule")
        warnings.warn(f"numba cannot compile {name}, NumPy computes instead ({reason})", RuntimeWarning, stacklevel=2)
    return loop
