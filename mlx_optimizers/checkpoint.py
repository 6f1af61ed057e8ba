"""Save an optimizer, and go on from what was saved: in safetensors, as MLX's own idiom does."""

from __future__ import annotations

import copy
import inspect
import json
import os
import stat
from collections.abc import Iterator, Mapping
from operator import itemgetter
from pathlib import Path
from typing import Any, NoReturn

import numpy as np

from mlx_optimizers import trees
from mlx_optimizers.files import replacing
from mlx_optimizers.hyperparameters import at_least_zero
from mlx_optimizers.interrupts import ENDING, held
from mlx_optimizers.kinds import FloatArray, Tree
from mlx_optimizers.kinds import Path as Place
from mlx_optimizers.multi import MultiOptimizer
from mlx_optimizers.optimizer import Optimizer
from mlx_optimizers.state import few

__all__ = ["load", "save"]

FORMAT = "mlx-optimizers-checkpoint/1"

_DTYPES = {
    "F64": "float64",
    "F32": "float32",
    "F16": "float16",
    "BF16": "bfloat16",
    "BOOL": "bool",
    **{f"I{bits}": f"int{bits}" for bits in (8, 16, 32, 64)},
    **{f"U{bits}": f"uint{bits}" for bits in (8, 16, 32, 64)},
}
"""The dtypes that an array of a state may have, by safetensors' names."""

_COUNTERS = ("step", "learning_rate")
_RECORDED = ("hyperparameters", "learning_rate", "parts")  # as JSON, in the metadata

_MOST = 2**20
"""Lists of more entries than this, all together, are taken for damage where nothing says what the lists are."""


def save(path: str | os.PathLike[str], optimizer: Optimizer) -> None:
    """Save the state of an optimizer, with its class and hyperparameters, as a safetensors file.

    The keys are MLX's: ``layers.0.weight.m``, ``step``, ``learning_rate``. MLX loads the file by its own idiom,
    ``optimizer.state = tree_unflatten(list(mx.load(path).items()))``. A file that is there is replaced at once, when
    the new one is whole and synced, or stays as it was.

    Hyperparameters are recorded as JSON where they are numbers, strings, booleans, None, or lists of these. What is a
    function is not; of what schedules give, the names are.

    Args:
        path: The file.
        optimizer: An optimizer of this package, a class of your own or a `MultiOptimizer` too.

    Raises:
        TypeError: for what is no optimizer of this package, or a state that has more than arrays of numbers.
        ValueError: for two arrays of the state whose paths give one key, as ``{"a.b": …}`` and ``{"a": {"b": …}}``.
        OSError: where the file cannot be written.
        ImportError: without the package safetensors; says how to install it.

    Example:
        >>> import tempfile
        >>> import numpy as np
        >>> import mlx_optimizers as optim
        >>> from mlx_optimizers import checkpoint
        >>> optimizer, model = optim.Adam(0.1), {"w": np.float32([1])}
        >>> optimizer.update(model, {"w": np.float32([2])})
        >>> with tempfile.NamedTemporaryFile() as file:
        ...     checkpoint.save(file.name, optimizer)
        ...     again = optim.Adam(0.1)
        ...     checkpoint.load(file.name, again, parameters=model)
        >>> print(again.step, again.state["w"]["m"] == optimizer.state["w"]["m"])
        1 [ True]
    """
    library = _safetensors()
    _require_optimizer(optimizer)
    arrays: dict[str, FloatArray] = {}
    for name, value in _flat(_state(optimizer)):
        if name in arrays:
            raise ValueError(f"the state has two arrays under the key {name}; rename one of its parameters")
        if trees.is_mlx(value):
            value = trees.from_mlx(value, f"state {name}")
        elif not isinstance(value, np.ndarray | np.generic):
            raise TypeError(f"state {name} is {value!r:.60}, a {type(value).__name__}, not an array")
        if value.dtype.name not in _DTYPES.values():
            raise TypeError(f"state {name} has dtype {value.dtype}, which a checkpoint cannot have")
        arrays[name] = np.asarray(value, order="C")
    metadata = {"format": FORMAT, **{key: _text(value) for key, value in _record(optimizer).items()}}
    with replacing(Path(path)) as file:
        file.write(library.numpy.save(arrays, metadata))


def load(path: str | os.PathLike[str], optimizer: Optimizer, *, parameters: Tree = None, strict: bool = True) -> None:
    """Put the state of a file into an optimizer, which then goes on from there; on an error nothing changes.

    The file is one of `save`, or one that MLX wrote by its own idiom,
    ``mx.save_safetensors(path, dict(tree_flatten(optimizer.state)))``, which records no class. The learning rate is
    taken from the file: the double that `save` recorded, or else MLX's float32. A schedule of the optimizer stays.

    Args:
        path: The file.
        optimizer: Changes in place.
        parameters: The parameters that the state is for, as a tree or as what ``model.trainable_parameters()``
            returns. Their paths, shapes and dtypes are compared with the file's at once. Without them, they are
            compared with the optimizer's state where it has one, and otherwise at the next step.
        strict: Whether the file must be of the optimizer's class and hyperparameters; those of a file that records
            none are not compared.

    Raises:
        ValueError: for a damaged file: cut, with holes, overlaps, sizes that do not fit, duplicate keys, an absurd
            header or trailing bytes; for keys, shapes or dtypes that do not fit the parameters, with the names of both
            sides; for another class or other hyperparameters, with both.
        TypeError: for what is no optimizer of this package, or a step or a learning rate that is no number.
        OSError: for a file that cannot be read, or is no regular file.
        ImportError: without the package safetensors, or ml_dtypes for bfloat16; says how to install it.
    """
    _require_optimizer(optimizer)
    arrays, metadata = _read(Path(path))
    record = _recorded(path, metadata)
    if strict and record is not None:
        _require_same(path, record, _record(optimizer))
    template = _template(optimizer, parameters)
    if template is None:
        state = _tree_of(path, arrays)
    else:
        # What a schedule gives is in the state from the first step on; it is no matter where it is not.
        scheduled = {key for key in (*template, *arrays) if key.rpartition(".")[2] in set(_scheduled(optimizer))}
        _require_fit(path, arrays, template, scheduled)
        mlx = any(trees.is_mlx(value) for value in template.values())
        state = _filled(_state(optimizer if parameters is None else _started(optimizer, parameters)), arrays, mlx=mlx)
        for key in scheduled:
            _place(state, key.split("."), arrays.get(key))
    if record is not None:
        _put_doubles(state, record)

    def put() -> None:
        optimizer.state = state

    try:
        held(put, ENDING)
    except RecursionError as error:
        _no_tree(path, error)


# What is saved


def _require_optimizer(optimizer: Any) -> None:
    if not isinstance(optimizer, Optimizer):
        kind = type(optimizer)
        raise TypeError(f"optimizer is a {kind.__module__}.{kind.__qualname__}, not an optimizer of this package")


def _safetensors() -> Any:
    """Import the library."""
    try:
        import safetensors
        import safetensors.numpy
    except ImportError as error:
        raise ImportError(
            "checkpoints need the package safetensors: pip install safetensors, or in a checkout of this project "
            "pip install '.[checkpoint]'"
        ) from error
    return safetensors


def _parts(optimizer: Optimizer) -> tuple[Optimizer, ...]:
    """List the optimizers within one of several; none for any other."""
    return optimizer.optimizers if isinstance(optimizer, MultiOptimizer) else ()


def _scheduled(optimizer: Optimizer) -> Iterator[str]:
    """Yield the names of the numbers that schedules give."""
    for each in _parts(optimizer):
        yield from _scheduled(each)
    yield from optimizer._rates.schedules


def _state(optimizer: Optimizer) -> Tree:
    """Return the state with its counters, which come back when they are read."""
    for each in _parts(optimizer):
        _state(each)
    _ = optimizer.step, getattr(optimizer, "learning_rate", None)
    return optimizer.state


def _flat(state: Tree) -> Iterator[tuple[str, Tree]]:
    """Yield the leaves of a state by MLX's keys; an empty dictionary is none."""
    return ((trees.name(path), value) for path, value in trees.leaves(state))


def _record(optimizer: Optimizer) -> dict[str, Any]:
    """Describe an optimizer: class, hyperparameters, and the learning rate as a double."""
    if parts := _parts(optimizer):
        return {"optimizer": type(optimizer).__name__, "parts": [_record(part) for part in parts]}
    values = {name: getattr(optimizer, name, ...) for name in inspect.signature(type(optimizer)).parameters}
    known = {name: value for name, value in values.items() if name != "learning_rate" and _plain(value)}
    record: dict[str, Any] = {"optimizer": type(optimizer).__name__, "hyperparameters": known}
    if scheduled := list(_scheduled(optimizer)):
        record["scheduled"] = scheduled
    if optimizer._rates.rate() is not None:
        record["learning_rate"] = float(optimizer.learning_rate)
    return record


def _plain(value: Any) -> bool:
    """Tell whether JSON keeps a hyperparameter."""
    if isinstance(value, tuple | list):
        return all(map(_plain, value))
    return value is None or isinstance(value, bool | int | float | str | np.bool | np.integer | np.floating)


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, default=np.generic.item)


# What is read


def _damaged(path: str | os.PathLike[str], why: object) -> NoReturn:
    raise ValueError(f"{os.fspath(path)} is no whole safetensors file: {why}")


def _read(path: Path) -> tuple[dict[str, FloatArray], Mapping[str, str]]:
    """Read the arrays and the metadata of a file, which is copied first: a file that is cut while mapped kills us."""
    library = _safetensors()
    with os.fdopen(os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0)), "rb") as file:
        if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
            raise OSError(f"{path} is no regular file")
        data = file.read()
    try:
        found = library.deserialize(data)
    except library.SafetensorError as error:
        _damaged(path, str(error).removeprefix("Error while deserializing: "))

    def single(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        names = [name for name, _ in pairs]
        if len(set(names)) < len(names):
            twice = next(name for name in names if names.count(name) > 1)
            _damaged(path, f"the key {twice} stands twice in its header")
        return dict(pairs)

    header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")], object_pairs_hook=single)
    arrays = {name: _array(path, name, spec) for name, spec in sorted(found, key=itemgetter(0))}
    return arrays, header.get("__metadata__") or {}


def _array(path: Path, name: str, spec: Mapping[str, Any]) -> FloatArray:
    """Make an array of the bytes of one."""
    kind = _DTYPES.get(spec["dtype"])
    if kind is None:
        raise ValueError(f"{name} in {path} has dtype {spec['dtype']}, which no state of an optimizer has")
    if kind == "bfloat16":
        try:
            import ml_dtypes
        except ImportError as error:
            raise ImportError(
                f"{name} in {path} is bfloat16, which needs the package ml_dtypes: pip install ml_dtypes"
            ) from error
        dtype = np.dtype(ml_dtypes.bfloat16)
    else:
        dtype = np.dtype(kind).newbyteorder("<")
    return np.frombuffer(spec["data"], dtype).reshape(spec["shape"])


def _recorded(path: str | os.PathLike[str], metadata: Mapping[str, str]) -> dict[str, Any] | None:
    """Read what `save` recorded; None in a file of MLX."""
    form = metadata.get("format")
    if form != FORMAT:
        if form is not None and form.startswith("mlx-optimizers-checkpoint/"):
            raise ValueError(f"{os.fspath(path)} has the format {form}, and this version reads {FORMAT}")
        return None
    try:
        texts = {key: text for key, text in metadata.items() if key in _RECORDED}
        record = {**metadata, **{key: json.loads(text) for key, text in texts.items()}}
        _require_record(record)
    except (TypeError, ValueError, RecursionError) as error:
        raise ValueError(f"the metadata of {os.fspath(path)} cannot be read: {error}") from error
    return record


def _require_record(record: Any) -> None:
    """Refuse what is no description of an optimizer."""
    if not isinstance(record, dict) or not isinstance(record.get("optimizer"), str):
        raise TypeError("it names no optimizer")
    if not isinstance(record.get("hyperparameters", {}), dict) or not isinstance(record.get("parts", []), list):
        raise TypeError("hyperparameters are no object, or parts no list")
    if "learning_rate" in record:
        at_least_zero("learning_rate", record["learning_rate"])
    for part in record.get("parts", []):
        _require_record(part)


def _put_doubles(state: Tree, record: Mapping[str, Any]) -> None:
    """Put each learning rate that was recorded in the place of its float32 image, so that one assignment takes it."""
    states = state.get("states") if isinstance(state, dict) else None
    if isinstance(states, list):
        for part, of_part in zip(states, record.get("parts", []), strict=False):
            _put_doubles(part, of_part)
    image: Tree = state.get("learning_rate") if isinstance(state, dict) else None
    if "learning_rate" in record and (trees.is_mlx(image) or isinstance(image, np.ndarray)) and image.shape == ():
        rate = np.array(record["learning_rate"], np.float64)
        with np.errstate(over="ignore"):
            if image.item() == rate.astype(np.float32):
                state["learning_rate"] = rate


def _require_same(path: str | os.PathLike[str], theirs: Mapping[str, Any], ours: Mapping[str, Any]) -> None:
    """Refuse another class or other hyperparameters."""
    name = os.fspath(path)
    if theirs["optimizer"] != ours["optimizer"]:
        raise ValueError(f"{name} is of {theirs['optimizer']}, and the optimizer is {ours['optimizer']}")
    parts, own = theirs.get("parts", []), ours.get("parts", [])
    if len(parts) != len(own):
        raise ValueError(f"{name} is of {len(parts)} optimizers, and the optimizer has {len(own)}")
    for part, mine in zip(parts, own, strict=True):
        _require_same(path, part, mine)
    was, now = theirs.get("hyperparameters", {}), json.loads(_text(ours.get("hyperparameters", {})))
    for key in sorted({*was, *now}):
        if key not in was or key not in now or not _equal(was[key], now[key]):
            here, there = (repr(x[key]) if key in x else "not there" for x in (now, was))
            raise ValueError(
                f"{key} of the {ours['optimizer']} in {name} is {there}, and here {here}; strict=False takes the state "
                "all the same"
            )


def _equal(was: Any, now: Any) -> bool:
    """Compare hyperparameters that JSON has; NaN equals itself."""
    return bool(was == now) or json.dumps(was) == json.dumps(now)


# Where it goes


def _started(optimizer: Optimizer, parameters: Tree) -> Optimizer:
    """Make an optimizer like this one with the state of a first step."""
    fresh = copy.deepcopy(optimizer)
    _emptied(fresh)
    fresh.init(parameters)
    return fresh


def _emptied(optimizer: Optimizer) -> None:
    for each in _parts(optimizer):
        _emptied(each)
    if not _parts(optimizer):
        optimizer.state = {key: optimizer.state[key] for key in _COUNTERS if key in optimizer.state}


def _template(optimizer: Optimizer, parameters: Tree) -> dict[str, Tree] | None:
    """Return what the state must have, by key: of the parameters, or of the optimizer's present state; else None."""
    if parameters is not None:
        return dict(_flat(_state(_started(optimizer, parameters))))
    present = dict(_flat(_state(optimizer)))
    return present if any(name.rpartition(".")[2] not in _COUNTERS for name in present) else None


def _require_fit(
    path: str | os.PathLike[str], arrays: Mapping[str, FloatArray], wanted: Mapping[str, Tree], scheduled: set[str]
) -> None:
    """Refuse missing and further keys, and other shapes and dtypes."""
    name = os.fspath(path)
    lacking, further = (
        [key for key in left if key not in right and key not in scheduled]
        for left, right in ((wanted, arrays), (arrays, wanted))
    )
    if lacking or further:
        raise ValueError(
            f"{name} does not fit the parameters: it lacks {few(lacking) or 'nothing'}, and has "
            f"{few(further) or 'nothing'} besides"
        )
    for key, value in wanted.items():
        if key in scheduled:
            continue
        array, expected = arrays[key], trees.from_mlx(value, key) if trees.is_mlx(value) else np.asarray(value)
        if key.rpartition(".")[2] in _COUNTERS and not array.shape:
            continue  # what they may be, the state says
        if array.shape != expected.shape or array.dtype != expected.dtype:
            raise ValueError(
                f"{key} in {name} has shape {array.shape} and dtype {array.dtype}, "
                f"not {expected.shape} and {expected.dtype}"
            )


def _filled(tree: Tree, arrays: Mapping[str, FloatArray], *, mlx: bool) -> Tree:
    """Build a state of the structure of another with the arrays of a file."""

    def value(path: Place) -> Tree:
        array = arrays.get(trees.name(path))  # None for a scheduled number
        return trees.to_mlx(array) if mlx and array is not None else array

    return trees.rebuilt(tree, value)


def _place(state: Tree, path: list[str], array: FloatArray | None) -> None:
    """Put a scheduled number into a state, or take it out where the file has none."""
    *above, last = path
    for key in above:
        state = state[int(key) if isinstance(state, list) else key]
    if array is None:
        state.pop(last, None)
    else:
        state[last] = array


def _tree_of(path: str | os.PathLike[str], arrays: Mapping[str, FloatArray]) -> Tree:
    """Build a tree from keys with dots as MLX does: where all below one are whole numbers, they make a list."""
    entries = 0

    def built(arrays: Mapping[str, FloatArray]) -> Tree:
        nonlocal entries
        if len(arrays) == 1 and "" in arrays:
            return arrays[""]
        below: dict[str, dict[str, FloatArray]] = {}
        for key, array in arrays.items():
            first, _, rest = key.partition(".")
            if not first:
                raise ValueError(f"a key has an array, and other keys go on from it: {few(list(arrays))}")
            below.setdefault(first, {})[rest] = array
        children = {key: built(inner) for key, inner in below.items()}
        positions = {int(key): child for key, child in children.items() if key.isascii() and key.isdigit()}
        if not children or len(positions) < len(children):  # as with 1 and 01, which MLX takes for no list
            return children
        entries += max(positions) + 1
        if entries > _MOST:
            raise ValueError(f"lists of {entries} entries; give parameters, whose structure is then taken")
        return [positions.get(index, {}) for index in range(max(positions) + 1)]

    try:
        return built(arrays)
    except (ValueError, RecursionError) as error:
        _no_tree(path, error)


def _no_tree(path: str | os.PathLike[str], error: Exception) -> NoReturn:
    raise ValueError(f"the keys of {os.fspath(path)} make no tree: {error}") from error
