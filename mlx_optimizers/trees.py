"""Trees of arrays: nested dictionaries, lists and tuples; a bare array is a tree too."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import count, repeat

import numpy as np

from mlx_optimizers.kinds import Dtype, FloatArray, Path, Tree

FLOATS = ("float16", "bfloat16", "float32", "float64")
"""Names of the dtypes that can be optimized."""


class Position(int):
    """A step of a path into a list or tuple, told apart from the key of a dictionary that is a whole number too."""


def is_node(tree: Tree) -> bool:
    """Tell whether this is a dictionary, list or tuple, and so no leaf."""
    return isinstance(tree, dict | list | tuple)


def name(path: Path) -> str:
    """Write a path with dots, as MLX does: ``layers.0.weight``."""
    return ".".join(map(str, path)) if path else "the tree's only array"


def label(kind: str, path: Path) -> str:
    """Name a leaf in a message: ``gradient layers.0.weight``, or ``the gradient`` at the top."""
    return f"{kind} {name(path)}" if path else f"the {kind}"


def leaves(tree: Tree, path: Path = ()) -> Iterator[tuple[Path, Tree]]:
    """Yield every leaf with its path, in the order of the tree."""
    if not is_node(tree):
        yield path, tree
        return
    for key, child in tree.items() if isinstance(tree, dict) else zip(map(Position, count()), tree, strict=False):
        yield from leaves(child, (*path, key))


def at(tree: Tree, path: Path) -> Tree:
    """Look up the leaf at a path.

    Raises:
        KeyError: naming the path, where there is nothing.
        TypeError: where a container of another kind is on the way.
    """
    for depth, key in enumerate(path):
        if isinstance(tree, dict):
            known = key in tree
        elif isinstance(tree, list | tuple):
            known = isinstance(key, int) and 0 <= key < len(tree)
        else:
            refuse_container(tree, label("parameter", path[:depth]))
            known = False
        if not known:
            raise KeyError(f"there is no parameter {name(path)}")
        tree = tree[key]
    return tree


def rebuilt(tree: Tree, values: Callable[[Path], Tree], path: Path = ()) -> Tree:
    """Build a tree of the same structure with new leaves; dictionaries of any class become plain ones."""
    if not is_node(tree):
        return values(path)
    if isinstance(tree, dict):
        return {key: rebuilt(child, values, (*path, key)) for key, child in tree.items()}
    children = [rebuilt(child, values, (*path, index)) for index, child in enumerate(tree)]
    if isinstance(tree, list):
        return children
    return type(tree)(*children) if hasattr(tree, "_fields") else type(tree)(children)


def is_mlx(value: Tree) -> bool:
    """Tell whether this is an MLX array, without importing MLX."""
    return type(value).__module__ == "mlx.core" and type(value).__name__ == "array"


def in_mlx(dtype: Dtype) -> bool:
    """Tell whether MLX has arrays of this dtype."""
    return dtype.kind in "biu" or dtype.name in FLOATS


def views_mlx(array: FloatArray) -> bool:
    """Tell whether this lies in the memory of an MLX array, which never changes."""
    base: Tree = array
    while isinstance(base, np.ndarray):
        base = base.base
    return isinstance(base, memoryview) and is_mlx(base.obj)


def to_numpy(value: Tree, what: str) -> FloatArray:
    """Take a leaf as a NumPy array of a float dtype; copy an MLX array, never view it.

    An array of a subclass is a plain view of its elements, so that a matrix or a mapped file is computed as any other.

    Raises:
        TypeError: for anything else, with ``what``, the type or the dtype; and how to convert it, where that is known.
    """
    if is_mlx(value):
        value = from_mlx(value, what)
    elif isinstance(value, np.generic):
        value = np.asarray(value)
    elif not isinstance(value, np.ndarray):
        raise _foreign(value, what) or TypeError(f"{what} is {value!r:.60}, a {type(value).__name__}, not an array")
    if value.dtype.name not in FLOATS:
        raise TypeError(f"{what} has dtype {value.dtype}, not one of {', '.join(FLOATS)}")
    refuse_masked(value, what)
    array: FloatArray = value if type(value) is np.ndarray else np.ndarray.view(value, np.ndarray)
    return array


def refuse_masked(value: Tree, what: str) -> None:
    """Raise TypeError for a masked array, as no formula treats masked elements."""
    if isinstance(value, np.ma.MaskedArray):
        raise TypeError(
            f"{what} is a masked array, and no formula has elements that are masked; x.data are the elements under the "
            "mask, x.filled(value) has others in their place"
        )


def _conversion(value: Tree) -> str | None:
    """Say how to convert a container or an array of another library; None for what is neither."""
    kind = type(value)
    if any(base.__name__ == "Tracer" and base.__module__.partition(".")[0] == "jax" for base in kind.__mro__):
        return _TRACED
    if is_node(value):
        return None
    if isinstance(value, Mapping):
        return "dict(x) converts a level of it"
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return "give its fields as a dictionary, vars(x)"
    if isinstance(value, Sequence) and not isinstance(value, str | bytes):
        return "list(x) converts it"
    if any(base.__module__.partition(".")[0] == "torch" for base in kind.__mro__):
        tensor = "x.detach().cpu().numpy() converts it"
        module = "{name: w.detach().numpy() for name, w in x.named_parameters()} is one"
        return tensor if hasattr(value, "detach") else module
    if hasattr(value, "__array__"):
        return "numpy.asarray(x) converts it"
    return None


_TRACED = (
    "a traced array, which has no value: call the optimizer outside the function that is compiled or transformed, "
    "and let that return the gradients"
)


def refuse_container(value: Tree, what: str) -> None:
    """Raise TypeError, which says how to convert it, for a container that is no dictionary, list or tuple."""
    error = _foreign(value, what)
    if error is not None and not hasattr(value, "dtype"):
        raise error


def _foreign(value: Tree, what: str) -> TypeError | None:
    """Return an error that says how to convert a container or an array of another library; None for what is neither."""
    how, kind = _conversion(value), type(value)
    if how is None:
        return None
    if how is _TRACED:
        return TypeError(f"{what} is {how}")
    return TypeError(
        f"{what} is a {kind.__module__}.{kind.__qualname__}, but trees are made of dictionaries, lists and tuples "
        f"of NumPy or MLX arrays; {how}"
    )


def from_mlx(value: Tree, what: str) -> FloatArray:
    """A copy of an MLX array as NumPy's.

    Raises:
        TypeError: with ``what``, where an array has no value: inside ``mx.compile`` or ``mx.vmap``.
    """
    import mlx.core as mx

    try:
        if value.dtype == mx.bfloat16:  # NumPy cannot read MLX's bfloat16; the bits are the same
            import ml_dtypes

            return np.array(value.view(mx.uint16)).view(ml_dtypes.bfloat16)
        return np.array(value)
    except (RuntimeError, ValueError) as error:
        if "Attempting to eval" in str(error):
            raise TypeError(f"{what} is {_TRACED}") from None
        raise


def to_mlx(array: FloatArray) -> Tree:
    """Copy a NumPy array to MLX's, of the same dtype."""
    import mlx.core as mx

    if array.dtype.name == "bfloat16":
        return mx.array(array.view(np.uint16)).view(mx.bfloat16)
    return mx.array(array, getattr(mx, array.dtype.name))


def like(given: Tree, result: FloatArray) -> Tree:
    """Make a result the kind of leaf that came in: an MLX array for an MLX array, else NumPy."""
    return to_mlx(result) if is_mlx(given) else result


_NODES = (dict, list, tuple)  # as `is_node`, which takes three times as long


def together(gradients: Tree, parameters: Tree, state: Tree, found: list[tuple[Tree, Tree, Tree]]) -> bool:
    """Put (gradient, parameter, slots) of every leaf into ``found``; return False where the trees differ.

    Nothing is looked up that is not there, as the state would make it; slots that are not there are None.
    """
    if not isinstance(gradients, _NODES):
        found.append((gradients, parameters, state))
        return True
    rows: Iterable[tuple[Tree, Tree, Tree]]
    if isinstance(gradients, dict):
        if not (isinstance(parameters, dict) and isinstance(state, dict) and gradients.keys() <= parameters.keys()):
            return False
        given = map(parameters.__getitem__, gradients)
        rows = zip(gradients.values(), given, map(dict.get, repeat(state), gradients), strict=True)
    else:
        slots = map(dict.get, repeat(state), count()) if isinstance(state, dict) else state
        if not (isinstance(parameters, list | tuple) and isinstance(state, dict | list)):
            return False
        if len(gradients) > min(len(parameters), len(state)):
            return False
        rows = zip(gradients, parameters, slots, strict=False)
    for row in rows:
        if not isinstance(row[0], _NODES):
            found.append(row)
        elif not together(*row, found):
            return False
    return True
