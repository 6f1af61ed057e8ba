"""Several optimizers, each for a part of the parameters."""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import numpy as np

from mlx_optimizers import trees
from mlx_optimizers.hyperparameters import Hyperparameter, at_least_zero
from mlx_optimizers.kinds import Tree
from mlx_optimizers.leaves import Leaf
from mlx_optimizers.optimizer import Optimizer, Part
from mlx_optimizers.rates import LearningRate, Rates

__all__ = ["MultiOptimizer"]

Filter = Callable[[str, Tree], Any]
"""Gets the path of a parameter, with dots, and its gradient; tells whether an optimizer takes it."""


def _items(name: str, value: Any) -> tuple[Any, ...]:
    if isinstance(value, str | bytes | dict | set | frozenset) or not hasattr(value, "__iter__"):
        raise TypeError(f"{name} must be a list, not {value!r:.60}")
    return tuple(value)


def _optimizers(name: str, value: Any) -> tuple[Optimizer, ...]:
    """Require optimizers of this package, and none of them twice."""
    optimizers = _items(name, value)
    if not optimizers:
        raise ValueError(f"{name} must have at least one optimizer")
    for index, optimizer in enumerate(optimizers):
        if not isinstance(optimizer, Optimizer):
            kind = type(optimizer)
            raise TypeError(
                f"{name}[{index}] is a {kind.__module__}.{kind.__qualname__}, not an optimizer of this package"
            )
    known: set[int] = set()
    for optimizer in _single(optimizers):
        if id(optimizer) in known:
            raise ValueError(f"{name} has one {type(optimizer).__name__} twice, which would count each step twice")
        known.add(id(optimizer))
    return optimizers


def _filters(name: str, value: Any) -> tuple[Filter, ...]:
    """Require functions."""
    filters = _items(name, value)
    for index, function in enumerate(filters):
        if not callable(function):
            raise TypeError(f"{name}[{index}] must be a function of a path and a gradient, not {function!r:.60}")
    return filters


def _single(optimizers: Iterable[Optimizer]) -> Iterator[Optimizer]:
    """Yield the optimizers, and those within them in their place."""
    for optimizer in optimizers:
        if isinstance(optimizer, MultiOptimizer):
            yield from _single(optimizer.optimizers)
        else:
            yield optimizer


class MultiOptimizer(Optimizer):
    """Several optimizers in one: each parameter goes to the first whose filter takes it, or else to the last.

    Every parameter gets the bits that its optimizer alone would give it. A step is one step of all: what is refused
    is so before any part moves, and every optimizer counts it, also one that gets no gradient.

    Args:
        optimizers: The optimizers, each of them once; they may be of this class too.
        filters: A function for each but the last. It gets the path of a parameter with dots, such as
            ``layers.0.weight``, or an empty one for a bare array, and its gradient (in `init`, the parameter), and
            returns whether the optimizer takes it. Default: none, for one optimizer.

    State: ``{"states": [...]}``, each optimizer's in turn, as in MLX. ``step`` and ``learning_rate`` are the first's; a
    learning rate that is set is set for all. Raises `ValueError` for another number of filters, `TypeError` for what
    is no optimizer or no function.

    Example:
        >>> import numpy as np
        >>> import mlx_optimizers as optim
        >>> optimizer = optim.MultiOptimizer([optim.SGD(0.5), optim.Lion(0.25)], [lambda path, g: path == "a.w"])
        >>> model = {"a": {"w": np.float32([1]), "b": np.float32([1])}}
        >>> optimizer.update(model, {"a": {"w": np.float32([4]), "b": np.float32([4])}})
        >>> print(model["a"]["w"], model["a"]["b"], optimizer.step)
        [-1.] [0.75] 1
    """

    optimizers = Hyperparameter(_optimizers, "The optimizers, a tuple.")
    filters = Hyperparameter(_filters, "The filters of all but the last, a tuple.")

    def __init__(
        self,
        optimizers: Sequence[Optimizer],
        filters: Sequence[Filter] = [],  # MLX's default; it is never changed
    ) -> None:
        # Without that of the base class: the counters and arrays are those of the optimizers.
        self.optimizers = optimizers
        self.filters = filters

    def check_together(self) -> None:
        """Refuse another number of filters than one for each optimizer but the last."""
        optimizers, filters = map(vars(self).get, ("optimizers", "filters"))
        if optimizers and filters is not None and len(filters) != len(optimizers) - 1:
            raise ValueError(
                f"filters must be one fewer than optimizers, as the last of these takes the rest: "
                f"{len(optimizers) - 1}, not {len(filters)}"
            )

    @property
    def state(self) -> Tree:
        """The states of all optimizers, ``{"states": [...]}``. The next update changes them.

        Assigning such a tree gives each optimizer its part, as :attr:`Optimizer.state` does. It raises ValueError for a
        tree without ``states`` or with another number of them, and what that raises; all states then stay as they are.
        """
        return {"states": [optimizer.state for optimizer in self.optimizers]}

    @state.setter
    def state(self, state: Tree) -> None:
        self._require_state(state)
        for optimizer, part in zip(self.optimizers, state["states"], strict=True):
            optimizer.state = part

    def _require_state(self, state: Tree) -> None:
        if not isinstance(state, dict):
            raise TypeError(f"state must be a dictionary, not {type(state).__name__}")
        states = dict.get(state, "states")
        if not isinstance(states, list | tuple):
            raise ValueError(f"state must have a list of states under 'states', not {states!r:.60}")
        if len(states) != len(self.optimizers):
            raise ValueError(f"state must have a state for each optimizer: {len(self.optimizers)}, not {len(states)}")
        for optimizer, part in zip(self.optimizers, states, strict=True):
            optimizer._require_state(part)

    @property
    def learning_rate(self) -> np.float64:
        """The learning rate of the first optimizer. Assigning a number or a schedule sets that of all.

        It raises what :attr:`Optimizer.learning_rate` does, before any is set.
        """
        rate: np.float64 = self.optimizers[0].learning_rate
        return rate

    @learning_rate.setter
    def learning_rate(self, value: LearningRate) -> None:
        for optimizer in self.optimizers:
            at_least_zero("learning_rate", value(int(optimizer.step)) if callable(value) else value)
        for optimizer in self.optimizers:
            optimizer.learning_rate = value

    @property
    def _rates(self) -> Rates:  # type: ignore[override]  # the base class sets it, and is not initialized here
        rates: Rates = self.optimizers[0]._rates
        return rates

    @contextlib.contextmanager
    def _in_numpy(
        self, found: list[Leaf], parameters: Tree, *, adding: bool = False, among: Sequence[Leaf] = ()
    ) -> Iterator[list[Part]]:
        with contextlib.ExitStack() as stack:
            parts: list[Part] = []
            for optimizer, part in zip(self.optimizers, self._split(found), strict=True):
                inner = optimizer._in_numpy(part, parameters, adding=adding, among=among or found)
                parts += stack.enter_context(inner)
            yield parts

    def _split(self, found: list[Leaf]) -> list[list[Leaf]]:
        """Share out the leaves to the optimizers."""
        parts: list[list[Leaf]] = [[] for _ in self.optimizers]
        for leaf in found:
            path = trees.name(leaf.path) if leaf.path else ""
            takes = (index for index, function in enumerate(self.filters) if function(path, leaf.gradient))
            parts[next(takes, -1)].append(leaf)
        return parts

    def __getstate__(self) -> dict[str, Any]:
        return {"optimizers": tuple(map(copy.copy, self.optimizers)), "filters": self.filters}
