"""The state of an optimizer: a tree of dictionaries, and where the slots of each parameter stand in it."""

from __future__ import annotations

import sys
import warnings
from collections import defaultdict
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any, NamedTuple, Self

import numpy as np

from mlx_optimizers import memory, trees
from mlx_optimizers.kinds import FloatArray, Key, Path, Shape, Slots, Tree
from mlx_optimizers.leaves import Leaf

__all__ = ["OptimizerState", "Slot"]

_COUNTERS = ("step", "learning_rate")


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

    def get(self, key: Key, default: Tree = None) -> Tree:
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
        return self.setdefault(key, default)

    def copy(self) -> OptimizerState:
        """A shallow copy."""
        return OptimizerState(self)

    __copy__ = copy

    def __or__(self, other: Tree) -> Tree:
        return OptimizerState({**self, **other}) if isinstance(other, dict) else NotImplemented

    def __ror__(self, other: Tree) -> Tree:
        return OptimizerState({**other, **self}) if isinstance(other, dict) else NotImplemented

    def __repr__(self) -> str:
        return dict.__repr__(self)

    def __reduce__(self) -> tuple[Any, ...]:
        return OptimizerState, (), None, None, iter(self.items())


class Slot(str):
    """The name of a state array of one parameter, with the shape that it has; it starts as zeros.

    Args:
        name: The name, under which it stands in the state.
        shape: Gets the parameter's shape and returns the slot's; by default it is the same.

    Example:
        >>> from mlx_optimizers.optimizer import Slot
        >>> row = Slot("row", shape=lambda s: s[:-1])
        >>> row, row.shape((4, 3)), Slot("v").shape((4, 3))
        ('row', (4,), (4, 3))
    """

    __slots__ = ("shape",)
    shape: Callable[[Shape], Shape]

    def __new__(cls, name: str, shape: Callable[[Shape], Shape] = lambda s: s) -> Self:  # noqa: D102 - the class says it
        slot = super().__new__(cls, name)
        slot.shape = shape
        return slot


class Declared(NamedTuple):
    """The slots that a class declares.

    Args:
        slots: The slots.
        of: The name of the class.
        complete: Whether these are all; a rule of one's own may put others into the state.
    """

    slots: tuple[Slot, ...]
    of: str
    complete: bool


def is_missing(found: Tree) -> bool:
    """Tell whether a key of a state has nothing, or what a look there leaves: an empty dictionary, or None."""
    return found is None or (isinstance(found, dict) and not found)


def copied(tree: Tree, path: Path = ()) -> Tree:
    """Copy a state with its arrays, which may be MLX's."""
    if isinstance(tree, dict):
        return OptimizerState({key: copied(child, (*path, key)) for key, child in tree.items()})
    if isinstance(tree, list | tuple):
        return [copied(child, (*path, index)) for index, child in enumerate(tree)]
    trees.refuse_container(tree, trees.label("state", path))
    trees.refuse_masked(tree, trees.label("state", path))
    return type(tree)(tree) if trees.is_mlx(tree) else np.array(tree)


def slots_at(state: OptimizerState, path: Path) -> Slots | None:
    """Return the slots at a path, or None; create nothing.

    Raises:
        ValueError: where the state has a list for a dictionary of the tree, or the other way about.
    """
    node: Tree = state
    if not path:
        return {key: value for key, value in node.items() if key not in _COUNTERS}
    for depth, key in enumerate(_state_path(path)):
        listed = isinstance(key, trees.Position) and depth > 0  # the state itself is a dictionary
        if node is None or (trees.is_node(node) and not node):
            return None
        if not isinstance(node, list if listed else dict):
            has = "dictionary" if isinstance(node, dict) else type(node).__name__
            needs = "list" if listed else "dictionary"
            raise ValueError(f"the state of {trees.name(path[:depth])} is a {has}, and its parameters need a {needs}")
        node = _below(node, key)
    if node is not None and not isinstance(node, dict):
        raise ValueError(f"the state of {trees.name(path)} is a {type(node).__name__}, not its slots")
    return node


def slots_of(state: OptimizerState, leaf: Leaf, init_single: Callable[[FloatArray, Slots], None]) -> Slots:
    """Return the slots of a parameter; create those that are missing."""
    node: Tree = state
    path = _state_path(leaf.path)
    for depth, key in enumerate(path):
        if isinstance(node, list):
            node.extend(OptimizerState() for _ in range(key + 1 - len(node)))
        if not _below(node, key):
            node[key] = [] if isinstance((*path, None)[depth + 1], trees.Position) else OptimizerState()
        node = node[key]
    if not slots_at(state, leaf.path):
        init_single(leaf.w, node)
    slots: Slots = node
    return slots


def require(
    state: OptimizerState,
    step: int,
    found: Sequence[Leaf],
    parameters: Tree,
    declared: Declared,
    shapes: Callable[[Shape], Mapping[str, Shape]],
    warned: Collection[Path],
    *,
    adding: bool = False,
) -> frozenset[Path]:
    """Refuse a state that does not fit, warn of parameters that start later than others, and return their paths.

    Args:
        state: The state.
        step: The number of updates done.
        found: The parameters.
        parameters: Their tree.
        declared: The slots that the class declares.
        shapes: Gets a parameter's shape, and names the slots that it should have with theirs.
        warned: The paths of those that a warning has named.
        adding: Whether this may add parameters while all of the state is new.
    """
    cold = []
    for leaf in found:
        there = slots_at(state, leaf.path)
        if there:
            _require_slots(leaf, there, declared, shapes(leaf.w.shape))
        else:
            cold.append(leaf)
    if not cold:
        return frozenset()
    entries = _entries(state, declared.slots)
    begun = not adding or step > 0 or any((array != 0).any() for array in entries.values())
    if entries and begun and len(cold) == len(found) and not _fits(state, parameters):
        raise ValueError(
            f"the state has {few(list(entries))}, and nothing for the parameters {few([leaf.name for leaf in cold])}; "
            "it must have their paths, without a prefix, as a tree (mlx.utils.tree_unflatten makes one)"
        )
    late = [leaf for leaf in cold if entries and step and leaf.path not in warned]
    if late:
        text = f"no state at step {step} for {few([leaf.name for leaf in late])}: new slots are made, while other "
        warnings.warn(text + "parameters go on with theirs", RuntimeWarning, stacklevel=_outside())
    return frozenset(leaf.path for leaf in late)


def _outside() -> int:
    """Find the call of the user: how many frames above the caller is one that is not of this package."""
    ours, level, frame = (__package__, "contextlib"), 0, sys._getframe(1)
    while frame.f_back is not None and frame.f_globals.get("__name__", "").partition(".")[0] in ours:
        level, frame = level + 1, frame.f_back
    return level + 1


def separate(places: Sequence[tuple[Slots, str]], parameters: Sequence[FloatArray]) -> None:
    """Copy the arrays of slots that share memory with a parameter, with another slot, or are not ours to change."""
    in_parameter = memory.shares(parameters)
    for state, slot in places:
        array = trees.to_numpy(state[slot], slot)
        ours = array is state[slot] and array.flags.writeable and not trees.views_mlx(array)
        if not ours or in_parameter(array) or memory.overlaps_itself(array):
            state[slot] = np.array(array)
    while (pair := memory.overlapping([state[slot] for state, slot in places])) is not None:
        state, slot = places[pair[1]]  # one array that was put into the state twice
        state[slot] = np.array(state[slot])


def few(names: Sequence[str]) -> str:
    """Join the first names of many."""
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")


def _require_slots(leaf: Leaf, there: Slots, declared: Declared, slots: Mapping[str, Shape]) -> None:
    """Refuse slots of another optimizer, or of another parameter."""
    _, of, complete = declared
    if set(slots) - set(there) or (len(there) > len(slots) and complete):
        has, should = (", ".join(map(str, names)) or "none" for names in (there, slots))
        raise ValueError(f"the state of {leaf.name} has the slots {has}; those of {of} are {should}")
    for slot, shape in slots.items():
        array = trees.to_numpy(there[slot], f"state {slot} of {leaf.name}")
        if array.shape != shape:
            raise ValueError(f"state {slot} of {leaf.name} has shape {array.shape}, not {shape}")
        if array.dtype != leaf.w.dtype:
            raise ValueError(f"state {slot} of {leaf.name} has dtype {array.dtype}, not {leaf.w.dtype}")


def _entries(state: OptimizerState, slots: Sequence[Slot]) -> dict[str, FloatArray]:
    """List the slots in the state by their names, with dots."""
    return {
        trees.name(path): leaf
        for path, leaf in trees.leaves(state)
        if isinstance(leaf, np.ndarray) or trees.is_mlx(leaf)
        if path[1:] or path[0] in slots or "." in str(path[0])
    }


def _below(node: Tree, key: Key) -> Tree:
    """Look up a key of a dictionary or list of the state, or None; create nothing."""
    if isinstance(node, dict):
        return dict.get(node, key)
    return node[key] if isinstance(node, list) and isinstance(key, int) and 0 <= key < len(node) else None


def _fits(state: Tree, parameters: Tree, *, top: bool = True) -> bool:
    """Tell whether anything in a state stands where a parameter does."""
    if is_missing(state) or not trees.is_node(parameters):
        return isinstance(state, dict) and not is_missing(state)
    children = parameters.items() if isinstance(parameters, dict) else enumerate(parameters)
    return any(
        _fits(_below(state, _state_path((key,))[0] if top else key), child, top=False) for key, child in children
    )


def _state_path(path: Path) -> Path:
    """Return where the state of a parameter stands: at its path, but apart from the counters."""
    first = path[0] if path else None
    if isinstance(first, str) and first.rstrip("_") in _COUNTERS:
        return (f"{first}_", *path[1:])
    return path
