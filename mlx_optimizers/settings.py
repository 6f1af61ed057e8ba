"""What is set for the whole process: on how many threads a step runs, and whether in compiled loops."""

from __future__ import annotations

import importlib.util
import os
from functools import cache

import numpy as np

__all__ = ["set_compiled", "set_threads", "threads"]

_threads: int | None = None
_compiled: bool | None = None


def threads() -> int:
    """The number of threads that a large step is shared out to.

    It is what `set_threads` was given, or the environment variable ``MLX_OPTIMIZERS_THREADS``, or the number of
    processor cores that this process may use.

    Raises:
        ValueError: for a variable that is no whole number of at least 1.
    """
    if _threads is not None:
        return _threads
    given = os.environ.get("MLX_OPTIMIZERS_THREADS", "")
    if not given:
        return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else (os.cpu_count() or 1)
    if not given.isdecimal() or int(given) < 1:
        raise ValueError(f"MLX_OPTIMIZERS_THREADS must be a whole number of at least 1, not {given!r}")
    return int(given)


def set_threads(count: int | None) -> None:
    """Set the number of threads that a large step is shared out to. No number of them changes a bit.

    Args:
        count: At least 1, or None for what `threads` finds by itself.

    Raises:
        ValueError: for a count below 1.
        TypeError: for what is no whole number.

    Example:
        >>> from mlx_optimizers.settings import set_threads, threads
        >>> set_threads(3)
        >>> threads()
        3
        >>> set_threads(None)
    """
    global _threads  # noqa: PLW0603 - one setting for the process, as its cores are
    if count is not None and type(count) is not int:
        raise TypeError(f"count must be a whole number or None, not {count!r}")
    if count is not None and count < 1:
        raise ValueError(f"count must be at least 1, not {count!r}")
    _threads = count


def set_compiled(on: bool | None) -> None:
    """Choose between the compiled path and NumPy. Both give the same bits.

    Args:
        on: False for NumPy always; True for the compiled path for trees of any size; None for what the environment
            variable ``MLX_OPTIMIZERS_COMPILED`` says, 0 or 1, or else the compiled path for all but small trees
            where numba is installed.

    Raises:
        ImportError: for True where numba is not installed.

    Example:
        >>> from mlx_optimizers.settings import set_compiled
        >>> set_compiled(False)
        >>> set_compiled(None)
    """
    global _compiled  # noqa: PLW0603 - one setting for the process
    if on and not has_numba():
        raise ImportError("the compiled path needs numba: pip install '.[fast]' in a checkout, or pip install numba")
    _compiled = on


@cache
def has_numba() -> bool:
    """Tell whether numba is installed."""
    return importlib.util.find_spec("numba") is not None


def compiled() -> bool | None:
    """What is chosen: compiled loops for trees of any size, NumPy (False), or loops for all but small trees (None).

    Raises:
        ValueError: for an environment variable that is neither 0 nor 1.
    """
    on = _compiled
    if on is None and (text := os.environ.get("MLX_OPTIMIZERS_COMPILED", "")):
        if text not in ("0", "1"):
            raise ValueError(f"MLX_OPTIMIZERS_COMPILED must be 0 or 1, not {text!r}")
        on = text == "1"
    # A loop that is compiled neither raises nor calls what `numpy.errstate` asks for.
    return on if {*np.geterr().values()} <= {"ignore", "warn"} else False


def chosen() -> tuple[int, bool | None]:
    """All that decides on how a step is run besides its arrays: `threads` and `compiled`."""
    return threads(), compiled()
