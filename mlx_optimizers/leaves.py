"""The parameters of one step with their gradients: taken from the trees, converted, checked and advanced."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from mlx_optimizers import memory, trees
from mlx_optimizers.interrupts import Stopped
from mlx_optimizers.kinds import FloatArray, Path, Slots, Tree


@dataclass(eq=False)
class Leaf:
    """One parameter in one step.

    Args:
        path: Where it stands.
        given: The leaf of the caller's tree.
        w: The array that is advanced.
        g: Its gradient.
        gradient: The leaf of the caller's tree of gradients.
    """

    path: Path
    given: Tree
    w: FloatArray
    g: FloatArray
    gradient: Tree = None

    @property
    def name(self) -> str:
        """The path as text."""
        return trees.name(self.path)

    def result(self, new: Tree) -> FloatArray:
        """Take the result of a rule as an array of the parameter's dtype.

        Raises:
            TypeError: for what is no array of floats.
            ValueError: for another shape.
        """
        array = self.w if new is self.w else trees.to_numpy(new, f"the new {self.name}")
        if array.shape != self.w.shape:
            raise ValueError(f"the new {self.name} has shape {array.shape}, the parameter {self.w.shape}")
        return array.astype(self.w.dtype, copy=False)


def given_gradients(tree: Tree) -> Iterator[tuple[Path, Tree, str]]:
    """Yield every gradient with its path, and what it is called in a message.

    Raises:
        TypeError: for None.
    """
    for path, gradient in trees.leaves(tree):
        called = trees.label("gradient", path)
        if gradient is None:
            raise TypeError(f"{called} is None, a NoneType, not an array; leave it out of the tree")
        yield path, gradient, called


def paired(gradients: Tree, parameters: Tree) -> list[Leaf]:
    """Pair every gradient with its parameter.

    Raises:
        KeyError: for a gradient without a parameter.
        TypeError: for a leaf that is no array of floats.
        ValueError: for a gradient of another shape than its parameter's.
    """
    out = []
    for path, gradient, called in given_gradients(gradients):
        g = trees.to_numpy(gradient, called)
        given = trees.at(parameters, path)
        w = trees.to_numpy(given, trees.label("parameter", path))
        if g.shape != w.shape:
            raise ValueError(f"{called} has shape {g.shape}, its parameter {w.shape}")
        out.append(Leaf(path, given, w, g.astype(w.dtype, copy=False), gradient))
    return out


def unpaired(parameters: Tree) -> list[Leaf]:
    """List every parameter, with itself for a gradient."""
    arrays = [
        (path, given, trees.to_numpy(given, trees.label("parameter", path))) for path, given in trees.leaves(parameters)
    ]
    return [Leaf(path, given, w, w, given) for path, given, w in arrays]


def keep_gradients(found: Sequence[Leaf], slots: Sequence[FloatArray]) -> None:
    """Copy the gradients that share memory with what a step changes: a parameter, or an array of a slot."""
    changes = memory.shares([*(leaf.w for leaf in found), *slots])
    for leaf in found:
        if changes(leaf.g):
            leaf.g = np.array(leaf.g)


def advance(
    found: Sequence[Leaf],
    states: Sequence[Slots],
    apply_single: Callable[[FloatArray, FloatArray, Slots], FloatArray],
    *,
    in_place: bool,
) -> None:
    """Advance each parameter by a rule for one array; those of new arrays change when all rules are done.

    Args:
        found: The parameters.
        states: The slots of each, which are as before where the step fails.
        apply_single: The rule.
        in_place: Whether the rule may change the arrays of slots in place.

    Raises:
        Stopped: from the exception that ends it, with places in ``found``; none begun where nothing can have moved.
    """
    before = [dict(slots) for slots in states]
    results: list[FloatArray] = []
    try:
        for leaf, slots in zip(found, states, strict=True):
            # A copy of the gradient: a rule written for MLX may change it, as MLX's SGD did before 0.32.3.
            results.append(leaf.result(apply_single(leaf.g.copy(), leaf.w, slots)))
        for leaf, result in zip(found, results, strict=True):
            if result is not leaf.w:
                leaf.w[...] = result
    except BaseException as error:
        for slots, old in zip(states, before, strict=True):
            for key in set(slots) - set(old):
                del slots[key]
            slots.update(old)
        moved = {place for place, result in enumerate(results) if result is found[place].w}
        left = {*range(len(found))} - moved
        # It failed in the rule that gave no result; or then, between the new arrays of all.
        begun = moved | ({len(results)} if len(results) < len(found) else left)
        raise Stopped(begun if moved or in_place or not isinstance(error, Exception) else (), left) from error


def require_writable(found: Sequence[Leaf]) -> None:
    """Refuse parameters that cannot be changed in place one by one.

    Raises:
        ValueError: for one that is read-only, a view of an MLX array, or shares memory with itself or another.
    """
    for leaf in found:
        if not leaf.w.flags.writeable:
            raise ValueError(f"parameter {leaf.name} is read-only; apply_gradients returns a new one")
        if trees.views_mlx(leaf.w):
            raise ValueError(f"parameter {leaf.name} is a view of an MLX array, which is never written to")
        if memory.overlaps_itself(leaf.w):
            raise ValueError(
                f"parameter {leaf.name} overlaps itself: elements of shape {leaf.w.shape} and strides "
                f"{leaf.w.strides} share memory; apply_gradients returns a new one"
            )
    _require_apart(found)


def replacement(found: Sequence[Leaf], model: Tree, gradients: Tree) -> Callable[[dict[Path, Tree]], None]:
    """Refuse parameters that cannot each get a new array; return what gives the model all of these, by their paths.

    Raises:
        TypeError: for a number as a parameter, or a tuple that holds one, where the model has no ``update``.
        ValueError: for one array under two paths.
    """
    first: dict[int, Leaf] = {}
    for leaf in found:
        other = first.setdefault(id(leaf.given), leaf)
        if other is not leaf:
            raise _tied(other, leaf)
    _require_apart(found)
    for leaf in found:
        if isinstance(leaf.given, np.generic) or not leaf.path:
            raise TypeError(f"parameter {leaf.name} is a {type(leaf.given).__name__}: it cannot be updated in place")
    if getattr(type(model), "update", dict.update) is not dict.update:
        return lambda new: model.update(trees.rebuilt(gradients, new.__getitem__))
    parents = [trees.at(model, leaf.path[:-1]) for leaf in found]
    for leaf, parent in zip(found, parents, strict=True):
        if isinstance(parent, tuple):
            raise TypeError(f"parameter {leaf.name} stands in a tuple, which cannot be given a new one")

    def replace(new: dict[Path, Tree]) -> None:
        for leaf, parent in zip(found, parents, strict=True):
            parent[leaf.path[-1]] = new[leaf.path]

    return replace


def _require_apart(found: Sequence[Leaf]) -> None:
    pair = memory.overlapping([leaf.w for leaf in found])
    if pair is not None:
        raise _tied(*(found[index] for index in pair))


def _tied(first: Leaf, second: Leaf) -> ValueError:
    return ValueError(
        f"parameters {first.name} and {second.name} share memory; sum their gradients and give one path, or use "
        "apply_gradients, which returns a new array for each"
    )
