"""The state of an optimizer: a dictionary whose missing keys are dictionaries of the same kind."""

from __future__ import annotations

from collections import defaultdict
from typing import Any

__all__ = ["OptimizerState"]


class OptimizerState(defaultdict[Any, Any]):
    """A recursively defined :class:`collections.defaultdict`: a missing key is an ``OptimizerState``.

    Reading a key that is not there makes it, and so does :meth:`get`, unlike a plain dictionary's.

    Args:
        *args: What ``dict`` takes: a mapping, or pairs of key and value.
        **kwargs: Further keys.

    Example:
        >>> from mlx_optimizers import OptimizerState
        >>> state = OptimizerState()
        >>> state["layer"]["weight"]
        {}
        >>> state.get("step", 3)
        3
        >>> state
        {'layer': {'weight': {}}, 'step': 3}

        Asking whether a key is there makes nothing, and the dictionaries within are of the same kind:

        >>> "bias" in state["layer"], type(state["layer"]["weight"]).__name__
        (False, 'OptimizerState')
        >>> state == {"layer": {"weight": {}}, "step": 3}
        True
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(OptimizerState, *args, **kwargs)

    def get(self, key: Any, default: Any = None) -> Any:
        """The value of a key; the default is stored first where the key is missing.

        Args:
            key: The key.
            default: What a missing key is set to; default None.

        Returns:
            The value that now stands under the key.

        Example:
            >>> from mlx_optimizers import OptimizerState
            >>> state = OptimizerState(a=1)
            >>> state.get("a", 5), state.get("b", 5), state["b"]
            (1, 5, 5)
        """
        if key not in self:
            self[key] = default
        return self[key]

    def copy(self) -> OptimizerState:
        """A shallow copy."""
        return OptimizerState(self)

    __copy__ = copy

    def __or__(self, other: Any) -> Any:
        return OptimizerState({**self, **other}) if isinstance(other, dict) else NotImplemented

    def __ror__(self, other: Any) -> Any:
        return OptimizerState({**other, **self}) if isinstance(other, dict) else NotImplemented

    def __repr__(self) -> str:
        return dict.__repr__(self)

    def __reduce__(self) -> Any:
        return OptimizerState, (), None, None, iter(self.items())
