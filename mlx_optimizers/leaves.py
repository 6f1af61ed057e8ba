"""The parameters of one step with their gradients: found in the trees, converted and checked."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from mlx_optimizers import trees


@dataclass(eq=False)
class Leaf:
    """One parameter in one step.

    Args:
        path: Where it stands.
        given: The leaf of the caller's tree.
        w: The array that is advanced.
        g: Its gradient.
    """

    path: trees.Path
    given: Any
    w: npt.NDArray[Any]
    g: npt.NDArray[Any]

    @property
    def name(self) -> str:
        """The path as text."""
        return trees.name(self.path)

    def result(self, new: Any) -> npt.NDArray[Any]:
        """What a rule returned, as an array of the parameter's dtype.

        Raises:
            TypeError: for what is no array of floats.
            ValueError: for another shape.
        """
        array = self.w if new is self.w else trees.to_numpy(new, f"the new {self.name}")
        if array.shape != self.w.shape:
            raise ValueError(f"the new {self.name} has shape {array.shape}, the parameter {self.w.shape}")
        return array.astype(self.w.dtype, copy=False)


def paired(gradients: Any, parameters: Any) -> list[Leaf]:
    """Find the parameter of every gradient.

    Raises:
        KeyError: for a gradient without a parameter.
        TypeError: for a leaf that is no array of floats.
        ValueError: for a gradient of another shape than its parameter's.
    """
    out = []
    for path, gradient in trees.leaves(gradients):
        called = trees.label("gradient", path)
        if gradient is None:
            raise TypeError(f"{called} is None, a NoneType, not an array; leave it out of the tree")
        g = trees.to_numpy(gradient, called)
        given = trees.at(parameters, path)
        w = trees.to_numpy(given, trees.label("parameter", path))
        if g.shape != w.shape:
            raise ValueError(f"{called} has shape {g.shape}, its parameter {w.shape}")
        out.append(Leaf(path, given, w, g.astype(w.dtype, copy=False)))
    return out


def unpaired(parameters: Any) -> list[Leaf]:
    """Every parameter, with itself for a gradient."""
    arrays = [
        (path, given, trees.to_numpy(given, trees.label("parameter", path))) for path, given in trees.leaves(parameters)
    ]
    return [Leaf(path, given, w, w) for path, given, w in arrays]


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
        if trees.overlaps_itself(leaf.w):
            raise ValueError(
                f"parameter {leaf.name} overlaps itself: elements of shape {leaf.w.shape} and strides "
                f"{leaf.w.strides} share memory; apply_gradients returns a new one"
            )
    _require_apart(found)


def require_replaceable(found: Sequence[Leaf], model: Any, *, has_update: bool) -> list[Any]:
    """Refuse parameters that cannot each be given a new array; return the containers that they stand in.

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
    parents = [trees.at(model, leaf.path[:-1]) for leaf in found]
    for leaf, parent in zip(found, parents, strict=True):
        if isinstance(parent, tuple) and not has_update:
            raise TypeError(f"parameter {leaf.name} stands in a tuple, which cannot be given a new one")
    return parents


def _require_apart(found: Sequence[Leaf]) -> None:
    pair = trees.overlapping([leaf.w for leaf in found])
    if pair is not None:
        raise _tied(*(found[index] for index in pair))


def _tied(first: Leaf, second: Leaf) -> ValueError:
    return ValueError(
        f"parameters {first.name} and {second.name} share memory; sum their gradients and give one path, or use "
        "apply_gradients, which returns a new array for each"
    )
