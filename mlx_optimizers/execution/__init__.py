"""How a step is run, never what it computes: `program`, `blocks`, `compiled`, `threads`, and the `plan` of a tree."""

from mlx_optimizers.execution.compiled import set_compiled
from mlx_optimizers.execution.threads import set_threads

__all__ = ["set_compiled", "set_threads"]
