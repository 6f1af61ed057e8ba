"""How a step is run, never what it computes.

- `program` records an optimizer's ``step`` as calls of NumPy's functions that write in place.
- `blocks` runs a program over arrays, block by block; `compiled` runs loops that numba compiles from the same ``step``.
- `threads` shares the work out, `plan` keeps what one step found out for the next, `tuning` has the constants.
"""

from mlx_optimizers.execution.compiled import set_compiled
from mlx_optimizers.execution.threads import set_threads

__all__ = ["set_compiled", "set_threads"]
