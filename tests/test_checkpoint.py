"""Optimizers that are saved and go on: in this package, in MLX, and from one to the other."""

from __future__ import annotations

import copy
import json
import os
import resource
import struct
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest

import mlx_optimizers as optim
from mlx_optimizers import checkpoint
from tests.expected import each_class, each_class_of_eight
from tests.support import require

require("safetensors")


def _f(*values):
    return np.float32(values)


def model():
    return {"layers": [{"w": _f(1, -2), "b": np.float32(0.5)}, {}, {"w": np.ones((2, 3), np.float32)}], "s": _f(0.25)}


def gradients(seed):
    rng = np.random.default_rng(seed)

    def like(tree):
        if isinstance(tree, dict):
            return {key: like(child) for key, child in tree.items()}
        if isinstance(tree, list):
            return [like(child) for child in tree]
        return np.asarray(rng.normal(size=np.shape(tree)), np.float32)

    return like(model())


def bits(tree):
    if isinstance(tree, dict):
        return {key: bits(child) for key, child in tree.items()}
    if isinstance(tree, list):
        return [bits(child) for child in tree]
    return np.array(tree).dtype.name, np.shape(tree), np.array(tree).tobytes()


def trained(optimizer, steps, w=None):
    w = copy.deepcopy(model() if w is None else w)
    for step in steps:
        w = {**w, **optimizer.apply_gradients(gradients(step), w)}
    return w


@pytest.fixture
def path(tmp_path):
    return tmp_path / "optimizer.safetensors"


# There and back


@each_class
@pytest.mark.parametrize("given", [False, True])
def test_a_run_that_is_saved_and_resumed_ends_with_the_same_bits(made, given, path):
    whole, first, second = made(0.01), made(0.01), made(0.01)
    straight = trained(whole, range(6))
    w = trained(first, range(3))
    assert checkpoint.save(path, first) is None
    checkpoint.load(path, second, parameters=w if given else None)
    assert bits(second.state) == bits(first.state) and second.step == 3
    w = trained(second, range(3, 6), w)
    assert bits(w) == bits(straight) and bits(second.state) == bits(whole.state)


@each_class
def test_the_double_of_a_learning_rate_comes_back_and_a_schedule_stays(made, path):
    first = made(0.1)
    trained(first, range(2))
    first.learning_rate = 0.3
    checkpoint.save(path, first)
    second = made(0.1)
    checkpoint.load(path, second)
    assert second.learning_rate == 0.3 != float(np.float32(0.3))
    scheduled = made(lambda step: 0.5 / (1 + step))
    checkpoint.load(path, scheduled)
    assert scheduled.learning_rate == 0.3 and scheduled.step == 2
    trained(scheduled, [0], model())
    assert scheduled.learning_rate == 0.5 / 3


@pytest.mark.parametrize("several", [False, True])
def test_a_learning_rate_beyond_float32_comes_back(several, path):
    def made(rate):
        return optim.MultiOptimizer([optim.SGD(rate)]) if several else optim.SGD(rate)

    checkpoint.save(path, made(1e39))
    again = made(0.1)
    checkpoint.load(path, again)
    assert again.learning_rate == 1e39


def test_the_names_of_what_schedules_give_are_recorded(path):
    for optimizer, names in (
        (optim.Adam(lambda step: 0.1), ["learning_rate"]),
        (Decaying(0.1), ["learning_rate", "decay"]),
    ):
        checkpoint.save(path, optimizer)
        assert json.loads(parts(path)[0]["__metadata__"]["scheduled"]) == names


def test_the_file_has_mlxs_keys_and_the_class_with_its_hyperparameters(path):
    optimizer = optim.AdamW(0.1, betas=(0.5, 0.25), weight_decay=0.125)
    trained(optimizer, [0])
    checkpoint.save(path, optimizer)
    data = path.read_bytes()
    header = json.loads(data[8 : 8 + struct.unpack("<Q", data[:8])[0]])
    record = header.pop("__metadata__")
    names = [f"{name}.{slot}" for name in ("layers.0.w", "layers.0.b", "layers.2.w", "s") for slot in "mv"]
    assert sorted(header) == sorted([*names, "step", "learning_rate"])
    assert (header["step"]["dtype"], header["step"]["shape"]) == ("U64", [])
    assert (header["learning_rate"]["dtype"], header["learning_rate"]["shape"]) == ("F32", [])
    assert record.pop("format") == "mlx-optimizers-checkpoint/1" and record.pop("optimizer") == "AdamW"
    assert json.loads(record.pop("hyperparameters")) == {"betas": [0.5, 0.25], "eps": 1e-8, "weight_decay": 0.125}
    assert json.loads(record.pop("learning_rate")) == 0.1 and not record


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float64"])
def test_every_dtype_of_a_state(dtype, path):
    real = np.dtype(dtype if dtype != "bfloat16" else require("ml_dtypes").bfloat16)
    optimizer, w = optim.Adam(0.01), {"w": np.ones(3, real)}
    optimizer.update(w, {"w": np.ones(3, real)})
    checkpoint.save(path, optimizer)
    again = optim.Adam(0.01)
    checkpoint.load(path, again, parameters=w)
    assert bits(again.state) == bits(optimizer.state) and again.state["w"]["m"].dtype == real


@pytest.mark.parametrize(
    "w",
    [
        _f(1, 2),
        {"0": _f(1), "1": _f(2)},
        {"step": _f(1), "learning_rate": _f(2)},
        [_f(1), [_f(2), ()], {"a": _f(3)}],
        {"w": np.zeros((0, 3), np.float32)},
        {"a.b": _f(1), "a": {"c": _f(2)}},
    ],
    ids=["bare", "digits", "counters", "lists", "empty", "dots"],
)
def test_trees_of_every_kind(w, path):
    optimizer, again = optim.Adam(0.01), optim.Adam(0.01)
    optimizer.apply_gradients(w, w)
    checkpoint.save(path, optimizer)
    checkpoint.load(path, again, parameters=w)
    assert bits(again.state) == bits(optimizer.state)
    new = [each.apply_gradients(w, w) for each in (optimizer, again)]
    assert bits(new[0]) == bits(new[1])
    checkpoint.load(path, again)  # by the state that it has
    assert again.step == 1


def test_two_parameters_with_one_key_are_not_saved(path):
    optimizer, w = optim.Adam(0.01), {"a.b": _f(1), "a": {"b": _f(2)}}
    optimizer.apply_gradients(w, w)
    with pytest.raises(ValueError, match=r"two arrays under the key a\.b\.m"):
        checkpoint.save(path, optimizer)
    assert not path.exists()


def test_several_optimizers_are_one_file(path):
    def made():
        inner = optim.MultiOptimizer([optim.Lion(0.01), optim.Adam(0.02)], [lambda name, g: name == "s"])
        return optim.MultiOptimizer([optim.SGD(0.1, momentum=0.5), inner], [lambda name, g: name.endswith("b")])

    whole, first, second = made(), made(), made()
    straight, w = trained(whole, range(4)), trained(first, range(2))
    checkpoint.save(path, first)
    for parameters in (w, None):
        checkpoint.load(path, second, parameters=parameters)
        assert bits(second.state) == bits(first.state)
    assert bits(trained(second, [2, 3], w)) == bits(straight)
    other = optim.MultiOptimizer([optim.SGD(0.1, momentum=0.5), optim.SGD(0.1)], [lambda name, g: name.endswith("b")])
    with pytest.raises(ValueError, match="is of MultiOptimizer, and the optimizer is SGD"):
        checkpoint.load(path, other)
    other = made()
    other.optimizers[1].optimizers[1].betas = (0.5, 0.5)
    with pytest.raises(ValueError, match=r"betas of the Adam in .* is \[0.9, 0.999\], and here \[0.5, 0.5\]"):
        checkpoint.load(path, other)


def test_a_class_of_ones_own(path):
    class Mine(optim.Optimizer):
        def __init__(self, learning_rate, kept=None, function=len):
            super().__init__()
            self.learning_rate, self.kept, self.function = learning_rate, kept, function

        def init_single(self, parameter, state):
            state["count"] = np.zeros((), np.float32)

        def apply_single(self, gradient, parameter, state):
            state["count"] = state["count"] + np.float32(1)
            return parameter - self.learning_rate.astype(parameter.dtype) * gradient

    optimizer, w = Mine(0.5, kept=[1, 2]), {"w": _f(1)}
    optimizer.update(w, w)
    checkpoint.save(path, optimizer)
    again = Mine(0.5, kept=[1, 2])
    checkpoint.load(path, again, parameters=w)
    assert again.state["w"]["count"] == 1
    with pytest.raises(ValueError, match=r"kept of the Mine in .* is \[1, 2\], and here None"):
        checkpoint.load(path, Mine(0.5))


class Counting(optim.Optimizer):
    def __init__(self, dtype, kept=None):
        super().__init__()
        self.dtype, self.kept = dtype, kept

    def init_single(self, parameter, state):
        state["n"] = np.ones(parameter.shape, self.dtype)

    def apply_single(self, gradient, parameter, state):
        return parameter


@pytest.mark.parametrize("dtype", ["bool", *(f"{sign}int{bits}" for sign in ("", "u") for bits in (8, 16, 32, 64))])
def test_a_class_of_ones_own_may_keep_numbers_that_are_no_floats(dtype, path):
    optimizer, again = Counting(dtype), Counting(dtype)
    optimizer.init(model())
    checkpoint.save(path, optimizer)
    for parameters in (model(), None):
        checkpoint.load(path, again, parameters=parameters)
        assert bits(again.state) == bits(optimizer.state)


@pytest.mark.parametrize("dtype", ["complex64", "longdouble", "U3", "object", "M8[s]"])
def test_what_a_file_cannot_have_is_not_saved(dtype, path):
    optimizer = Counting(dtype)
    optimizer.state = {"w": {"n": np.zeros(2, np.float32)}}
    optimizer.state["w"]["n"] = np.zeros(2).astype(dtype)
    with pytest.raises(TypeError, match=r"state w\.n has dtype .*, which a checkpoint cannot have"):
        checkpoint.save(path, optimizer)
    assert not path.exists()


def test_nan_and_numbers_of_numpy_are_hyperparameters_too(path):
    kept = [float("nan"), np.float32(0.5), np.int64(3), np.True_]
    checkpoint.save(path, Counting("int8", kept))
    checkpoint.load(path, Counting("int8", [float("nan"), 0.5, 3, True]))
    with pytest.raises(ValueError, match=r"kept of the Counting in .* and here"):
        checkpoint.load(path, Counting("int8", [*kept[:2], np.int64(4), np.True_]))


class Decaying(optim.Optimizer):
    def __init__(self, learning_rate):
        super().__init__(schedulers={"learning_rate": lambda step: learning_rate, "decay": lambda step: 1 / (2 + step)})

    def init_single(self, parameter, state):
        state["v"] = np.zeros_like(parameter)

    def apply_single(self, gradient, parameter, state):
        state["v"] = state["v"] * np.float32(self.state["decay"]) + gradient
        return parameter - self.learning_rate.astype(parameter.dtype) * state["v"]


def _decaying(several):
    return (
        optim.MultiOptimizer([Decaying(0.5), Decaying(0.25)], [lambda name, g: name == "s"])
        if several
        else Decaying(0.5)
    )


@pytest.mark.parametrize("several", [False, True])
@pytest.mark.parametrize("before", [0, 2])
def test_a_number_that_a_schedule_gives_comes_back_or_is_made_at_the_first_step(several, before, path):
    whole, first = _decaying(several), _decaying(several)
    straight = trained(whole, range(before + 2))
    first.init(model())
    w = trained(first, range(before)) if before else model()
    checkpoint.save(path, first)
    for other in (_decaying(several), whole):
        checkpoint.load(path, other, parameters=w)
        assert bits(other.state) == bits(first.state)
        assert bits(trained(other, range(before, before + 2), w)) == bits(straight)


# MLX


def _mlx_run(made, theirs, steps, w, state=None):
    mx, utils = require("mlx.core"), require("mlx.utils")
    with mx.stream(mx.cpu):
        for step in steps:
            w = theirs.apply_gradients(utils.tree_map(mx.array, gradients(step)), w)
            mx.eval(w, theirs.state)
    return w


@each_class_of_eight
@pytest.mark.parametrize("numpy", [False, True])
def test_from_mlx_to_here_and_back_all_bits_are_those_of_mlx_alone(made, numpy, path, tmp_path):
    mx, theirs, utils = require("mlx.core"), require("mlx.optimizers"), require("mlx.utils")
    with mx.stream(mx.cpu):
        start = utils.tree_map(mx.array, model())
        whole, first, last = (getattr(theirs, made.__name__)(0.01) for _ in range(3))
        straight = _mlx_run(made, whole, range(6), start)
        w = _mlx_run(made, first, range(2), start)
        mx.save_safetensors(str(path), dict(utils.tree_flatten(first.state)))
        assert b'"__metadata__":null' in path.read_bytes()[:100]
        ours = made(0.01)
        if numpy:
            w = utils.tree_map(np.array, w)
        checkpoint.load(path, ours, parameters=w)
        for step in (2, 3):
            w = ours.apply_gradients(utils.tree_map(np.array if numpy else mx.array, gradients(step)), w)
        second = tmp_path / "ours.safetensors"
        checkpoint.save(second, ours)
        last.state = utils.tree_unflatten(list(mx.load(str(second)).items()))
        w = _mlx_run(made, last, (4, 5), utils.tree_map(mx.array, w))
        assert bits(w) == bits(straight) and bits(last.state) == bits(whole.state)


@each_class
def test_arrays_are_mlxs_where_the_parameters_are(made, path):
    mx, utils = require("mlx.core"), require("mlx.utils")
    w = utils.tree_map(mx.array, model())
    optimizer = made(0.01)
    optimizer.apply_gradients(w, w)
    checkpoint.save(path, optimizer)
    for parameters, kind in ((w, mx.array), (model(), np.ndarray), (None, np.ndarray)):
        again = made(0.01)
        checkpoint.load(path, again, parameters=parameters)
        slots = [leaf for name, leaf in utils.tree_flatten(again.state) if "." in name]
        assert slots and {type(leaf) for leaf in slots} == {kind}
    checkpoint.load(path, optimizer)
    assert isinstance(optimizer.state["s"][made.slots[0]], mx.array)


def test_the_script_that_goes_both_ways_finds_all_bits_or_an_error_within_rounding(tmp_path):
    require("mlx.core")
    sys.path.insert(0, str(Path(__file__).parents[1] / "scripts"))
    try:
        import resume_with_mlx as script
    finally:
        del sys.path[0]
    for made in (*optim.OPTIMIZERS, *optim.LATER):
        same, ratio = script.there_and_back(made, tmp_path)
        assert same == (made in optim.OPTIMIZERS) and ratio < 1


# What is refused


@pytest.fixture
def saved(path):
    optimizer = optim.Adam(0.01)
    trained(optimizer, range(2))
    checkpoint.save(path, optimizer)
    return path


def refused(path, optimizer, words, error=ValueError, **given):
    before = bits(optimizer.state), optimizer.learning_rate, int(optimizer.step)
    with pytest.raises(error, match=words):
        checkpoint.load(path, optimizer, **given)
    assert (bits(optimizer.state), optimizer.learning_rate, int(optimizer.step)) == before


def started():
    optimizer = optim.Adam(0.5)
    trained(optimizer, range(1))
    return optimizer


def parts(path):
    data = path.read_bytes()
    size = struct.unpack("<Q", data[:8])[0]
    return json.loads(data[8 : 8 + size]), data[8 + size :]


def written(path, header, data):
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + data)


@pytest.mark.parametrize("fresh", [True, False])
def test_a_file_that_is_cut_anywhere_or_goes_on_is_refused(saved, fresh):
    data, words = saved.read_bytes(), "is no whole safetensors file"
    optimizer = optim.Adam(0.5) if fresh else started()
    for end in (*range(12), *range(12, len(data), 37), len(data) - 1):
        saved.write_bytes(data[:end])
        refused(saved, optimizer, words)
    for more in (b"\0", b" ", data):
        saved.write_bytes(data + more)
        refused(saved, optimizer, words)


def test_holes_overlaps_and_sizes_that_do_not_fit_are_refused(saved):
    header, data = parts(saved)
    begin, end = header["s.m"]["data_offsets"]
    for changed in (
        {"data_offsets": [begin + 4, end + 4]},
        {"data_offsets": [begin, end + 4]},
        {"data_offsets": [end, begin]},
        {"data_offsets": [begin, 2**63]},
        {"shape": [2]},
        {"shape": [2**62, 4]},
        {"shape": [-1]},
        {"dtype": "F64"},
        {"dtype": "F99"},
        {"shape": "x"},
    ):
        written(saved, {**header, "s.m": {**header["s.m"], **changed}}, data)
        refused(saved, started(), "is no whole safetensors file")
    header["s.m"]["data_offsets"] = header["s.v"]["data_offsets"]
    written(saved, header, data)
    refused(saved, started(), "is no whole safetensors file")


def test_duplicate_keys_are_refused(saved):
    header, data = parts(saved)
    text = json.dumps(header)
    same = text.replace('"s.m"', '"s.v"')
    twice = text.replace('"format"', '"optimizer": "Adam", "format"')
    again = f'{text[:-1]}, "s.m": {json.dumps(header["s.m"])}}}'
    for changed in (same, again):
        written(saved, changed.encode(), data)
        refused(saved, started(), r"no whole safetensors file: .*")
    written(saved, again.encode(), data)
    refused(saved, started(), r"the key s\.m stands twice in its header")
    written(saved, twice.encode(), data)
    refused(saved, started(), "the key optimizer stands twice in its header")


@pytest.mark.parametrize(
    "head",
    [
        struct.pack("<Q", 2**63) + b"{}",
        struct.pack("<Q", 10**9) + b"{}",
        struct.pack("<Q", 0),
        struct.pack("<Q", 2) + b"[]",
        struct.pack("<Q", 200_000) + b'{"a":' + b"[" * 199_995,
        struct.pack("<Q", 7) + b'{"\xff":1}',
        b"\x80\x04K\x01.",
        b"PK\x03\x04" + b"\0" * 100,
    ],
    ids=["beyond the file", "a gigabyte", "nothing", "a list", "deep", "no text", "a pickle", "a zip"],
)
def test_an_absurd_header_is_refused(head, path):
    path.write_bytes(head)
    refused(path, started(), "is no whole safetensors file")


def test_a_pipe_a_device_and_a_folder_are_not_read(tmp_path):
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    for place in (pipe, Path("/dev/zero")):
        refused(place, started(), "is no regular file", OSError)
    refused(tmp_path, started(), "is no regular file|directory", OSError)
    refused(tmp_path / "none", started(), "none", FileNotFoundError)


def test_another_class_and_other_hyperparameters_are_refused_unless_asked_for(saved):
    for optimizer, words in (
        (optim.AdamW(0.01), "is of Adam, and the optimizer is AdamW"),
        (optim.BiasCorrectedAdam(0.01), "is of Adam, and the optimizer is BiasCorrectedAdam"),
        (
            optim.Adam(0.01, betas=(0.9, 0.99)),
            r"betas of the Adam in .* is \[0.9, 0.999\], and here \[0.9, 0.99\]; strict=F",
        ),
        (optim.Adam(0.01, eps=1e-6), "eps of the Adam in .* is 1e-08, and here 1e-06"),
    ):
        refused(saved, optimizer, words)
        checkpoint.load(saved, optimizer, strict=False)
        assert optimizer.step == 2
    refused(
        saved, optim.SGD(0.01, momentum=0.9), "lacks .*s.v|has the slots|does not fit", parameters=model(), strict=False
    )


def test_a_state_that_does_not_fit_the_parameters_is_refused_with_both_sides(saved):
    w = model()
    refused(
        saved,
        started(),
        "it lacks t.m, t.v, and has s.m, s.v besides",
        parameters={**w, "s": [], "t": w["s"]} | {"s": {}},
    )
    refused(saved, started(), "it lacks nothing, and has s.m, s.v besides", parameters={"layers": w["layers"]})
    refused(saved, started(), "it lacks more.m, more.v, and has nothing besides", parameters={**w, "more": _f(1)})
    refused(saved, started(), "it lacks model.layers.0.w.m, .*, and has layers.0.b.m", parameters={"model": w})
    refused(
        saved, started(), r"s.m in .* has shape \(1,\) and dtype float32, not \(2,\)", parameters={**w, "s": _f(1, 2)}
    )
    refused(saved, started(), "dtype float32, not .* float64", parameters={**w, "s": np.ones(1)})
    other = optim.Adam(0.01)
    other.update({"x": _f(1)}, {"x": _f(1)})
    refused(saved, other, "it lacks x.m, x.v, and has layers.0.b.m")


def test_a_missing_slot_and_one_too_many_are_refused(saved):
    header, data = parts(saved)
    first = [key for key in header if key != "__metadata__"]
    last = max(first, key=lambda key: header[key]["data_offsets"])
    begin, _ = header[last]["data_offsets"]
    written(saved, {key: value for key, value in header.items() if key != last}, data[:begin])
    refused(saved, started(), f"it lacks {last}, and has nothing besides", parameters=model())
    more = {"dtype": "F32", "shape": [1], "data_offsets": [len(data), len(data) + 4]}
    written(saved, {**header, "s.n": more}, data + b"\0" * 4)
    refused(saved, started(), "it lacks nothing, and has s.n besides", parameters=model())


def test_a_recorded_rate_that_is_not_that_of_the_state_counts_for_nothing(saved):
    header, data = parts(saved)
    for text in ("0.5", "1e300", "1e39"):
        written(saved, {**header, "__metadata__": {**header["__metadata__"], "learning_rate": text}}, data)
        optimizer = optim.Adam(0.5)
        checkpoint.load(saved, optimizer)
        assert optimizer.learning_rate == np.float64(np.float32(0.01))


def test_counters_that_mean_nothing_are_refused(saved):
    header, data = parts(saved)
    begin, end = header["step"]["data_offsets"]
    for value, words in (
        (struct.pack("<q", -1), "step must be at least 0|below 2"),
        (b"\xff" * 8, "at least 0|below 2"),
    ):
        for dtype in ("U64", "I64"):
            written(saved, {**header, "step": {**header["step"], "dtype": dtype}}, data[:begin] + value + data[end:])
            refused(saved, optim.Adam(0.5), words)
    begin, end = header["learning_rate"]["data_offsets"]
    for value in (-1.0, float("nan"), float("inf")):
        written(saved, header, data[:begin] + struct.pack("<f", value) + data[end:])
        refused(saved, optim.Adam(0.5), "learning_rate must be")


@pytest.mark.parametrize(
    "change",
    [
        {"hyperparameters": "{"},
        {"hyperparameters": "[]"},
        {"hyperparameters": "[" * 100_000},
        {"learning_rate": "-1"},
        {"learning_rate": '"x"'},
        {"parts": "3"},
        {"parts": "[3]"},
        {"optimizer": None},
    ],
    ids=str,
)
def test_metadata_that_cannot_be_read_are_refused(change, saved):
    header, data = parts(saved)
    record = {**header["__metadata__"], **change}
    written(saved, {**header, "__metadata__": {key: x for key, x in record.items() if x is not None}}, data)
    for strict in (True, False):
        refused(saved, started(), "the metadata of .* cannot be read", strict=strict)
    written(saved, {**header, "__metadata__": {"format": "mlx-optimizers-checkpoint/2"}}, data)
    refused(saved, started(), "has the format mlx-optimizers-checkpoint/2, and this version reads mlx-opt")


def test_keys_that_make_no_tree_are_refused_without_parameters(path):
    def of(*names):
        spec = {"dtype": "F32", "shape": [], "data_offsets": [0, 0]}
        rows = {name: {**spec, "data_offsets": [4 * i, 4 * i + 4]} for i, name in enumerate(names)}
        written(path, rows, b"\0" * (4 * len(names)))

    for names, words in (
        (("a", "a.b"), "a key has an array, and other keys go on from it"),
        ((f"l.{2**40}.w.m",), "lists of 1099511627777 entries; give parameters"),
        (tuple(f"l{n}.{2**19}.m" for n in range(3)), "lists of 1048578 entries; give parameters"),
        (("a." * 100_000 + "m",), "make no tree"),
    ):
        of(*names)
        refused(path, optim.Adam(0.5), words)
    of("i.w.m")
    path.write_bytes(path.read_bytes().replace(b"F32", b"I16", 1))
    refused(path, optim.Adam(0.5), "no whole safetensors")
    spec = {"dtype": "F8_E4M3", "shape": [0], "data_offsets": [0, 0]}
    written(path, {"i.m": spec}, b"")
    refused(path, optim.Adam(0.5), "i.m in .* has dtype F8_E4M3, which no state of an optimizer has")


def test_digits_in_keys_are_places_as_in_mlx_and_no_array_is_lost(path):
    mx, utils = require("mlx.core"), require("mlx.utils")
    for names in (("l.1.m", "l.01.m"), ("l.01.m",), ("l.2.m", "l.0.m"), ("l.0.m", "l.x.m"), ("l.00.m", "l.0.m")):
        mx.save_safetensors(str(path), {name: mx.array(float(n)) for n, name in enumerate(names)})
        optimizer = optim.Adam(0.5)
        checkpoint.load(path, optimizer)
        expected = utils.tree_unflatten(list(mx.load(str(path)).items()))
        assert bits(optimizer.state["l"]) == bits(expected["l"])


def test_keys_of_any_depth_are_taken_or_refused_in_our_own_words(path):
    taken, words = [], set()
    for depth in (*range(100, 300, 20), *range(300, 500)):  # on its way, each part of the work has too few frames
        written(path, {"a." * depth + "m": {"dtype": "F32", "shape": [], "data_offsets": [0, 4]}}, b"\0" * 4)
        optimizer = optim.Adam(0.5)
        try:
            checkpoint.load(path, optimizer)
        except ValueError as error:
            words.add(str(error).partition(": ")[0])
            assert set(optimizer.state) == {"step", "learning_rate"}
        else:
            taken.append(depth)
    assert 100 in taken and words == {f"the keys of {path} make no tree"}


def test_what_is_no_optimizer_is_refused(saved):
    for given in (None, {}, optim.Adam):
        with pytest.raises(TypeError, match="not an optimizer of this package"):
            checkpoint.save(saved, given)
        with pytest.raises(TypeError, match="not an optimizer of this package"):
            checkpoint.load(saved, given)
    optimizer = optim.Adam(0.1)
    optimizer.state["note"] = "text"
    with pytest.raises(TypeError, match="state note is 'text', a str, not an array"):
        checkpoint.save(saved, optimizer)


# Writing


def test_a_disk_that_is_full_leaves_the_old_file_and_nothing_beside_it(saved):
    before, optimizer = saved.read_bytes(), optim.SGD(0.1, momentum=0.5)
    optimizer.init({"w": np.ones(100_000, np.float32)})
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, limits[1]))
    try:
        with pytest.raises(OSError, match="File too large"):
            checkpoint.save(saved, optimizer)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert saved.read_bytes() == before and list(saved.parent.iterdir()) == [saved]


@pytest.mark.parametrize("name", ["fsync", "replace"])
def test_a_write_that_is_interrupted_leaves_the_old_file_and_nothing_beside_it(name, saved, monkeypatch):
    def interrupted(*args):
        raise KeyboardInterrupt

    before, optimizer = saved.read_bytes(), optim.SGD(0.1)
    monkeypatch.setattr(os if name == "fsync" else Path, name, interrupted)
    with pytest.raises(KeyboardInterrupt):
        checkpoint.save(saved, optimizer)
    assert saved.read_bytes() == before and list(saved.parent.iterdir()) == [saved]


def test_a_file_is_whole_at_any_time_for_whoever_reads_it(path):
    optimizer, seen, done = optim.SGD(0.1, momentum=0.5), [], threading.Event()
    optimizer.init({"w": np.ones(20_000, np.float32)})
    checkpoint.save(path, optimizer)

    def read():
        while not done.is_set():
            other = optim.SGD(0.1, momentum=0.5)
            checkpoint.load(path, other)
            seen.append(int(other.step))

    reader = threading.Thread(target=read)
    reader.start()
    try:
        for step in range(20):
            optimizer.state["step"] = np.uint64(step)
            checkpoint.save(path, optimizer)
    finally:
        done.set()
        reader.join()
    assert seen == sorted(seen) and seen


WITHOUT = """
import sys
sys.modules["safetensors"] = None
import mlx_optimizers as optim
from mlx_optimizers import checkpoint
for call in (lambda: checkpoint.save("x", optim.SGD(0.1)), lambda: checkpoint.load("x", optim.SGD(0.1))):
    try:
        call()
    except ImportError as error:
        print(error)
"""


def test_without_safetensors_the_error_says_what_to_install():
    run = subprocess.run([sys.executable, "-c", WITHOUT], capture_output=True, text=True, check=True)
    words = (
        "checkpoints need the package safetensors: pip install safetensors, or in a checkout of this project "
        "pip install '.[checkpoint]'"
    )
    assert run.stdout.splitlines() == [words] * 2


def test_without_ml_dtypes_the_error_says_what_to_install(path, monkeypatch):
    written(path, {"w.m": {"dtype": "BF16", "shape": [1], "data_offsets": [0, 2]}}, b"\0\0")
    monkeypatch.setitem(sys.modules, "ml_dtypes", None)
    refused(path, optim.Adam(0.1), "w.m in .* is bfloat16, which needs the package ml_dtypes: pip install", ImportError)
