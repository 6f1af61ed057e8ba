"""Each kind of input and its answer, for every optimizer.

The values in each dtype come from the steps of tests/expected.py, which are independent of the package: they share no
line with `rule`, `coefficients` or the executors. Elsewhere a class is compared with itself, on other inputs.
"""

from __future__ import annotations

import collections
import copy
import tempfile
import types
from dataclasses import dataclass

import numpy as np
import pytest

import mlx_optimizers as optim
from mlx_optimizers import settings
from mlx_optimizers.execution.tuning import BLOCK
from mlx_optimizers.oracle import trajectory
from tests.expected import SQUARING, each_class, record_of
from tests.support import require


def _f(*values):
    return np.array(values, np.float32)


def _same(left, right):
    if isinstance(left, dict):
        return left.keys() == right.keys() and all(_same(left[key], right[key]) for key in left)
    if isinstance(left, list | tuple):
        return len(left) == len(right) and all(map(_same, left, right))
    return left.dtype == right.dtype and left.shape == right.shape and left.tobytes() == right.tobytes()


def _refused(made, error, match, model, gradients, method="update"):
    """Check that the update is refused with this message, and that parameters and state stay bit for bit."""
    optimizer = made(0.1)
    optimizer.init({"other": _f(1)})
    state, rate = copy.deepcopy(dict(optimizer.state)), float(optimizer.learning_rate)
    items = model.items() if type(model) is dict else ()
    arrays = {key: value for key, value in items if type(value) is np.ndarray}
    kept = {key: value.copy() for key, value in arrays.items()}
    with pytest.raises(error, match=match):
        getattr(optimizer, method)(*((model, gradients) if method == "update" else (gradients, model)))
    assert _same(dict(optimizer.state), state)
    assert float(optimizer.learning_rate) == rate
    assert _same(arrays, kept)


@each_class
@pytest.mark.parametrize(("w", "g"), [((4,), (1,)), ((4,), ()), ((2, 3), (3, 2)), ((2, 3), (6,)), ((1,), (4,))])
@pytest.mark.norm("inputs.shape", "inputs.path")
def test_shapes_that_differ(made, w, g):
    model = {"a": _f(1), "layer": {"w": np.ones(w, np.float32)}}
    gradients = {"a": _f(1), "layer": {"w": np.ones(g, np.float32)}}
    with pytest.raises(ValueError, match="layer") as caught:
        made(0.1).update(model, gradients)
    assert str(caught.value) == f"gradient layer.w has shape {g}, its parameter {w}"
    assert model["a"] == 1


@each_class
@pytest.mark.norm("inputs.no-parameter", "inputs.path", "inputs.untouched")
def test_a_gradient_without_a_parameter(made):
    _refused(made, KeyError, "no parameter b", {"a": _f(1)}, {"a": _f(1), "b": _f(1)})
    _refused(made, KeyError, r"no parameter layers\.1\.w", {"layers": [{"w": _f(1)}]}, {"layers": [{}, {"w": _f(1)}]})
    _refused(made, KeyError, r"no parameter a\.b", {"a": _f(1)}, {"a": {"b": _f(1)}})


@each_class
@pytest.mark.parametrize("dtype", ["int32", "uint8", "bool", "complex64", "object", "longdouble", "U3"])
@pytest.mark.parametrize("method", ["update", "apply_gradients"])
@pytest.mark.norm("inputs.no-float", "inputs.path")
def test_arrays_of_no_float_dtype(made, dtype, method):
    odd = np.array([1], dtype)
    match = rf"layer\.w has dtype {odd.dtype}, not one of float16, bfloat16, float32, float64"
    for w, g in ((odd, _f(1)), (_f(1), odd)):
        with pytest.raises(TypeError, match=match.replace("<", "[<]")):
            _call(made(0.1), method, {"layer": {"w": w}}, {"layer": {"w": g}})


def _call(optimizer, method, model, gradients):
    return optimizer.update(model, gradients) if method == "update" else optimizer.apply_gradients(gradients, model)


@each_class
@pytest.mark.parametrize("leaf", [None, 1.0, 1, "x", {1.0}])
@pytest.mark.parametrize("method", ["update", "apply_gradients"])
@pytest.mark.norm("inputs.no-array", "inputs.path")
def test_leaves_that_are_no_arrays(made, leaf, method):
    for w, g in ((leaf, _f(1)), (_f(1), leaf)):
        with pytest.raises(TypeError, match=rf"a\.0 is .*, a {type(leaf).__name__}, not an array"):
            _call(made(0.1), method, {"a": [w]}, {"a": [g]})


@each_class
@pytest.mark.norm("inputs.none", "inputs.path", "inputs.untouched")
def test_a_gradient_that_is_none_is_to_be_left_out_of_the_tree(made):
    for method in ("update", "apply_gradients"):
        match = r"gradient a\.0 is None.*; leave it out of the tree"
        _refused(made, TypeError, match, {"a": [_f(1)], "b": _f(1)}, {"a": [None], "b": _f(1)}, method)
    optimizer, model = made(0.1), {"a": [_f(1)], "b": _f(1)}
    optimizer.update(model, {"b": _f(1)})
    assert model["a"][0] == 1 != model["b"]


@dataclass
class Weights:
    x: object


class FrozenDict(collections.abc.Mapping):
    """As flax' one: a mapping that is no dictionary."""

    def __init__(self, **items):
        self._items = items

    def __getitem__(self, key):
        return self._items[key]

    def __iter__(self):
        return iter(self._items)

    def __len__(self):
        return len(self._items)


CONTAINERS = [
    (FrozenDict(x=_f(1)), "FrozenDict", r"dict\(x\)"),
    (types.MappingProxyType({"x": _f(1)}), "builtins.mappingproxy", r"dict\(x\)"),
    (collections.UserDict(x=_f(1)), "collections.UserDict", r"dict\(x\)"),
    (collections.ChainMap({"x": _f(1)}), "collections.ChainMap", r"dict\(x\)"),
    (Weights(_f(1)), "Weights", r"vars\(x\)"),
    (collections.UserList([_f(1)]), "collections.UserList", r"list\(x\)"),
    (collections.deque([_f(1)]), "collections.deque", r"list\(x\)"),
]


def _refused_everywhere(odd, kind, how, inner="x"):
    """Check it as the tree of gradients or parameters, within one, and where gradients go on into it."""
    words = rf"a [\w.]*{kind}, but trees are made of dictionaries, lists and tuples of NumPy or MLX arrays; .*{how}"
    for method in ("update", "apply_gradients"):
        for made in (optim.SGD, optim.Adam):
            _refused(made, TypeError, f"the gradient is {words}", {"x": _f(1)}, odd, method)
            _refused(made, TypeError, rf"gradient a\.0 is {words}", {"a": [_f(1)]}, {"a": [odd]}, method)
            _refused(made, TypeError, rf"parameter a\.0 is {words}", {"a": [odd]}, {"a": [_f(1)]}, method)
            if not hasattr(odd, "dtype"):
                _refused(made, TypeError, f"the parameter is {words}", odd, {inner: _f(1)}, method)
                _refused(made, TypeError, f"parameter a is {words}", {"a": odd}, {"a": {inner: _f(1)}}, method)


@pytest.mark.parametrize(("odd", "kind", "how"), CONTAINERS, ids=lambda value: value if isinstance(value, str) else "")
@pytest.mark.norm("inputs.containers")
def test_containers_of_another_kind_are_refused_with_what_trees_are_made_of(odd, kind, how):
    _refused_everywhere(odd, kind, how)
    state = {"layer": odd}
    optimizer = optim.SGD(0.1)
    with pytest.raises(TypeError, match=f"state layer is a .*{kind}, but trees are made of"):
        optimizer.state = state


@pytest.mark.norm("inputs.containers")
def test_arrays_of_torch_are_refused_with_how_to_convert_them():
    torch = require("torch")
    detached = r"x\.detach\(\)\.cpu\(\)\.numpy\(\)"
    _refused_everywhere(torch.ones(1), "torch.Tensor", detached)
    _refused_everywhere(torch.nn.Parameter(torch.ones(1)), "torch.nn.parameter.Parameter", detached)
    linear = torch.nn.Linear(1, 1)
    with pytest.raises(TypeError, match=r"the parameter is a torch.*Linear, but trees.*x\.named_parameters\(\)"):
        optim.SGD(0.1).update(linear, {"weight": np.ones((1, 1), np.float32)})
    # The message's advice: the arrays share the tensors' memory.
    expected = linear.weight.detach().numpy() - np.float32(0.5)
    model = {name: w.detach().numpy() for name, w in linear.named_parameters()}
    optim.SGD(0.5).update(model, {"weight": np.ones((1, 1), np.float32)})
    assert linear.weight.detach().numpy().tobytes() == expected.tobytes()


@pytest.mark.norm("inputs.containers")
def test_arrays_of_jax_are_refused_with_how_to_convert_them():
    _refused_everywhere(require("jax").numpy.ones(1), "ArrayImpl", r"numpy\.asarray\(x\)")


@pytest.mark.norm("inputs.traced")
def test_a_tracer_of_jax_has_no_value():
    jax = require("jax")
    words = "is a traced array, which has no value: call the optimizer outside the function"
    for transform in (jax.jit, jax.grad, jax.vmap):
        for name, call in (
            ("gradient", lambda x: optim.SGD(0.1).apply_gradients({"w": x}, {"w": _f(1)})["w"].sum()),
            ("parameter", lambda x: optim.SGD(0.1).apply_gradients({"w": _f(1)}, {"w": x})["w"].sum()),
        ):
            with pytest.raises(TypeError, match=f"^{name} w {words}"):
                transform(call)(_f(1))


@pytest.mark.norm("inputs.trees")
def test_named_tuples_are_tuples():
    Pair = collections.namedtuple("Pair", "w b")  # noqa: PYI024 - the untyped kind is what callers have
    new = optim.SGD(0.5).apply_gradients(Pair(_f(1), _f(2)), Pair(_f(1), _f(2)))
    assert type(new) is Pair
    assert (new.w, new.b) == (0.5, 1)


@each_class
@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32", "float64"])
@pytest.mark.norm("inputs.dtypes")
def test_every_float_dtype_is_computed_in_and_kept(made, dtype):
    if dtype == "bfloat16":
        dtype = pytest.importorskip("ml_dtypes").bfloat16
    rng = np.random.default_rng(1)
    w, g = rng.standard_normal(50).astype(dtype), (1 + rng.random((4, 50))).astype(dtype)
    optimizer, model = made(0.05), {"w": w.copy()}
    wanted, state = w.copy(), [np.zeros_like(w) for _ in made.slots]
    for gradient in g:
        optimizer.update(model, {"w": gradient})
        wanted, *state = _stepwise(optimizer, wanted, gradient, *state)
    assert model["w"].dtype == wanted.dtype == np.dtype(dtype)
    assert model["w"].tobytes() == wanted.tobytes()
    for slot, values in zip(made.slots, state, strict=True):
        assert optimizer.state["w"][slot].dtype == np.dtype(dtype)
        assert optimizer.state["w"][slot].tobytes() == values.tobytes()


def _stepwise(optimizer, w, g, *state):
    """Take one step by tests/expected.py, every operation rounded to the dtype on its own, scalars included."""
    return record_of(type(optimizer)).step(w.dtype.type, optimizer, w, g, *state)


@each_class
@pytest.mark.norm("inputs.cast")
def test_a_gradient_of_another_float_dtype_is_cast_to_the_parameters(made):
    g = np.array([0.1, 0.2])
    left, right = made(0.1), made(0.1)
    wide = left.apply_gradients({"w": g}, {"w": _f(1, 2)})["w"]
    narrow = right.apply_gradients({"w": g.astype(np.float32)}, {"w": _f(1, 2)})["w"]
    assert wide.dtype == np.float32
    assert wide.tobytes() == narrow.tobytes()


VIEWS = {
    "slice": lambda a: a[::2, 1:-1],
    "transpose": lambda a: a.T,
    "reversed": lambda a: a[::-1, ::-1],
}


@each_class
@pytest.mark.parametrize("view", VIEWS)
@pytest.mark.parametrize("shape", [(6, 8), (300, 200)])
@pytest.mark.norm("inputs.strided")
def test_a_parameter_that_is_not_contiguous_is_updated_in_place(made, view, shape):
    rng = np.random.default_rng(5)
    base = rng.standard_normal(shape).astype(np.float32)
    whole = base.copy()
    part = VIEWS[view](whole)
    optimizer, reference = made(0.1), made(0.1)
    flat = {"w": np.ascontiguousarray(part)}
    model = {"w": part}
    for _ in range(3):
        g = rng.standard_normal(part.shape).astype(np.float32)
        optimizer.update(model, {"w": g})
        reference.update(flat, {"w": g})
    assert model["w"] is part
    assert np.array_equal(part, flat["w"])
    mask = np.zeros(shape, bool)
    VIEWS[view](mask)[...] = True
    assert np.array_equal(whole[~mask], base[~mask])


@each_class
@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
@pytest.mark.norm("inputs.byte-order")
def test_arrays_of_the_other_byte_order(made, dtype):
    """As read from a file of another machine: they are updated in place and keep their order."""
    rng = np.random.default_rng(4)
    native = {"w": rng.standard_normal(6000).astype(dtype)}
    swapped = {"w": native["w"].astype(native["w"].dtype.newbyteorder())}
    given, optimizer, same = swapped["w"], made(0.1), made(0.1)
    for _ in range(3):
        g = (1 + rng.random(6000)).astype(dtype)
        optimizer.update(swapped, {"w": g.astype(given.dtype)})
        same.update(native, {"w": g})
    assert swapped["w"] is given and not given.dtype.isnative
    assert np.array_equal(given, native["w"])


@each_class
@pytest.mark.norm("inputs.read-only", "inputs.path", "inputs.untouched")
def test_a_read_only_parameter(made):
    w = _f(1, 2)
    w.flags.writeable = False
    _refused(made, ValueError, r"parameter w is read-only", {"w": w}, {"w": _f(1, 1)})
    new = made(0.1).apply_gradients({"w": _f(1, 1)}, {"w": w})["w"]
    assert new.flags.writeable
    assert new.tolist() != w.tolist()


@each_class
@pytest.mark.norm("inputs.shared")
def test_a_gradient_that_shares_memory(made):
    size = 3 * BLOCK + 5
    base = np.random.default_rng(0).standard_normal(size + 1).astype(np.float32)

    def run(share):
        buffer = base.copy()
        optimizer, w = made(0.1), buffer[1:]
        for gradient in (w, buffer[:-1], None):
            if gradient is None:  # the gradient is the state
                optimizer.init({"w": w})
                gradient = optimizer.state["w"][made.slots[0]]
            optimizer.update({"w": w}, {"w": gradient if share else gradient.copy()})
        return buffer

    assert run(share=True).tobytes() == run(share=False).tobytes()


@each_class
@pytest.mark.norm("inputs.shared")
def test_a_gradient_that_shares_memory_with_another_parameter(made):
    a, b = _f(1, 2), _f(3, 4)
    expected = made(0.1).apply_gradients({"a": b.copy(), "b": a.copy()}, {"a": a, "b": b})
    made(0.1).update({"a": a, "b": b}, {"a": b, "b": a})
    assert (a.tolist(), b.tolist()) == (expected["a"].tolist(), expected["b"].tolist())


@pytest.mark.norm("inputs.shared")
def test_a_gradient_that_a_rule_for_one_array_changes():
    """The rule has changed a parameter, or its slot, before it gets to the gradient that lies in the same memory."""

    class InPlace(optim.Optimizer):
        slots = ("v",)

        def apply_single(self, gradient, parameter, state):
            state["v"] += gradient
            parameter -= gradient
            return parameter

    optimizer, a, b = InPlace(), _f(4), _f(8)
    optimizer.update({"a": a, "b": b}, {"a": _f(1), "b": a})
    assert (a.item(), b.item()) == (3, 4)
    optimizer.update({"a": a, "b": b}, {"a": _f(1), "b": optimizer.state["a"]["v"]})
    assert (a.item(), b.item()) == (2, 3)


@each_class
@pytest.mark.norm("inputs.slots")
def test_slots_that_share_memory(made):
    """One array put into the state under several names, as can be done with the arrays of MLX, which never change."""
    size = BLOCK + 5
    zeros = np.zeros(size + 1, np.float32)
    shared, apart = made(0.1), made(0.1)
    models = [{name: np.ones(size, np.float32) for name in "abc"} for _ in range(2)]
    for optimizer, model in zip((shared, apart), models, strict=True):
        optimizer.init(model)
    for name, array in (("a", zeros[:-1]), ("b", zeros[1:]), ("c", zeros[:-1])):
        shared.state[name].update(dict.fromkeys(made.slots, array))
    rng = np.random.default_rng(2)
    for _ in range(3):
        gradients = {name: rng.standard_normal(size).astype(np.float32) for name in "abc"}
        for optimizer, model in zip((shared, apart), models, strict=True):
            optimizer.update(model, gradients)
    assert _same(*models)
    assert all(_same(dict(shared.state[name]), dict(apart.state[name])) for name in "abc")


@each_class
@pytest.mark.norm("inputs.small")
def test_small_and_empty_things(made):
    for w in (np.array(1.0, np.float32), np.zeros((0,), np.float32), np.zeros((3, 0, 2), np.float32)):
        model, g = {"w": w.copy()}, np.ones_like(w)
        made(0.1).update(model, {"w": g})
        assert model["w"].shape == w.shape
        assert made(0.1).apply_gradients({"w": g}, {"w": w})["w"].tobytes() == model["w"].tobytes()
    optimizer = made(0.1)
    optimizer.update({}, {})
    assert optimizer.apply_gradients({}, {"a": _f(1)}) == {}
    assert optimizer.step == 2


@each_class
@pytest.mark.norm("inputs.small")
def test_a_bare_array_is_a_tree(made):
    w, optimizer, same = _f(1, 2), made(0.1), made(0.1)
    model = {"w": w.copy()}
    for _ in range(3):
        optimizer.update(w, _f(1, -1))
        same.update(model, {"w": _f(1, -1)})
    assert w.tobytes() == model["w"].tobytes()
    assert set(optimizer.state) == {"step", "learning_rate", *made.slots}
    new = made(0.1).apply_gradients(np.float32(1.0), np.float32(2.0))
    assert (new.shape, new.dtype) == ((), np.float32)


@each_class
@pytest.mark.norm("inputs.names")
def test_parameters_named_as_the_counters_are(made):
    names = ("step", "learning_rate", "step_", "w")
    model = {name: _f(1, 2) for name in names}
    optimizer, plain = made(0.1), made(0.1)
    other = {"w": _f(1, 2)}
    for _ in range(3):
        optimizer.update(model, {name: _f(1, -1) for name in names})
        plain.update(other, {"w": _f(1, -1)})
    assert all(value.tobytes() == other["w"].tobytes() for value in model.values())
    assert optimizer.step == 3
    assert float(optimizer.state["learning_rate"]) == np.float32(0.1)
    assert {"step_", "learning_rate_", "step__", "w"} < set(optimizer.state)


@each_class
@pytest.mark.norm("inputs.trees")
def test_keys_of_a_dictionary_that_are_whole_numbers(made):
    model, plain = {"layers": {0: _f(1), "b": _f(1), -1: _f(1), 10**9: [_f(1)]}}, {"w": _f(1)}
    optimizer, same = made(0.1), made(0.1)
    for g in (1, -2, 3):
        optimizer.update(model, {"layers": {0: _f(g), "b": _f(g), -1: _f(g), 10**9: [_f(g)]}})
        same.update(plain, {"w": _f(g)})
    layers, state = model["layers"], optimizer.state["layers"]
    assert list(state) == [0, "b", -1, 10**9]
    for w, slots in (*((layers[key], state[key]) for key in (0, "b", -1)), (layers[10**9][0], state[10**9][0])):
        assert w.tobytes() == plain["w"].tobytes()
        assert _same(dict(slots), dict(same.state["w"]))


@each_class
@pytest.mark.norm("inputs.tied", "inputs.path", "inputs.untouched")
def test_one_array_under_two_paths(made):
    w = _f(1, 2, 3, 4)
    for model in (
        {"a": w, "b": w},
        {"a": w[:3], "b": w[2:]},
        {"a": w[::2], "b": w[:3]},
        {"x": _f(1), "a": w, "b": w.reshape(2, 2)},
    ):
        gradients = {name: np.ones_like(value) for name, value in model.items()}
        match = "parameters a and b share memory; sum their gradients and give one path, or use apply_gradients"
        _refused(made, ValueError, match, model, gradients)
        new = made(0.1).apply_gradients(gradients, model)
        assert new["a"].shape == model["a"].shape
    made(0.1).update({"a": w[::2], "b": w[1::2]}, {"a": _f(1, 1), "b": _f(1, 1)})  # side by side is fine


@each_class
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.norm("inputs.nan")
def test_a_nan_or_infinity_stays_in_its_element(made, bad):
    rng = np.random.default_rng(3)
    w = rng.standard_normal(2 * BLOCK + 7).astype(np.float32)
    clean, spoiled = {"w": w.copy()}, {"w": w.copy()}
    left, right = made(0.1), made(0.1)
    position = BLOCK + 3
    with np.errstate(invalid="ignore", over="ignore"):
        for step in range(4):
            g = rng.standard_normal(w.size).astype(np.float32)
            left.update(clean, {"w": g})
            h = g.copy()
            if step == 1:
                h[position] = bad
            right.update(spoiled, {"w": h})
    others = np.arange(w.size) != position
    assert clean["w"][others].tobytes() == spoiled["w"][others].tobytes()
    if np.isnan(bad):
        assert np.isnan(spoiled["w"][position])
    for slot in made.slots:
        assert left.state["w"][slot][others].tobytes() == right.state["w"][slot][others].tobytes()


@each_class
@pytest.mark.norm("inputs.halfway")
def test_an_exception_halfway_says_what_had_moved(made):
    class Failing(made):
        def apply_single(self, gradient, parameter, state):
            if gradient[0] == 7:
                raise FloatingPointError("seven")
            return super().apply_single(gradient, parameter, state)

    optimizer = Failing(0.1)
    model = {"a": _f(1), "b": _f(2), "c": _f(3)}
    with pytest.raises(RuntimeError, match=r"failed at b.*FloatingPointError: seven.*moved: a; not moved: c") as caught:
        optimizer.update(model, {"a": _f(1), "b": _f(7), "c": _f(1)})
    assert isinstance(caught.value.__cause__, FloatingPointError)
    assert model["c"] == 3
    assert optimizer.step == 0


@pytest.mark.parametrize("name", SQUARING)
def test_an_overflow_that_the_user_wants_raised_is(name):
    with np.errstate(over="raise"), pytest.raises(RuntimeError, match="overflow"):
        getattr(optim, name)(0.1).update({"a": _f(1)}, {"a": _f(1e30)})


@each_class
@pytest.mark.norm("inputs.new-tree", "inputs.without-gradient")
def test_the_callers_trees_are_left_alone(made):
    model, gradients = {"a": [_f(1), (_f(2),)], "b": _f(5)}, {"a": [_f(1), (_f(2),)]}
    kept = copy.deepcopy((model, gradients))
    new = made(0.1).apply_gradients(gradients, model)
    assert _same(model, kept[0]) and _same(gradients, kept[1])
    assert isinstance(new["a"], list) and isinstance(new["a"][1], tuple) and list(new) == ["a"]
    optimizer = made(0.1)
    optimizer.update(model, gradients)
    assert _same(gradients, kept[1])
    assert model["b"] == 5


# Subclasses of NumPy's arrays


class Unknown(np.ndarray):
    """A subclass whose operations are its own; they are not asked."""

    def __array_ufunc__(self, *given, **how):
        raise NotImplementedError


def mapped(values):
    with tempfile.TemporaryFile() as file:
        made = np.memmap(file, np.float32, shape=values.shape)
    made[...] = values
    return made


SUBCLASSES = {
    "matrix": lambda values: values.copy().view(np.matrix),
    "recarray": lambda values: values.copy().view(np.recarray),
    "memmap": mapped,
    "unknown": lambda values: values.copy().view(Unknown),
}


@each_class
@pytest.mark.parametrize("on", [False, True])
@pytest.mark.parametrize("kind", SUBCLASSES)
@pytest.mark.norm("inputs.subclass")
def test_a_subclass_is_computed_as_the_plain_array(made, kind, on, monkeypatch):
    if on:
        require("numba")
    monkeypatch.setattr(settings, "_compiled", on)
    subclass = SUBCLASSES[kind]
    start, gradient = _f([1, 2], [3, 4]), _f([0.5, -1], [2, 0])
    results = []
    for convert in (np.array, subclass):
        optimizer, model = made(0.1), {"w": convert(start)}
        given = model["w"]
        for _ in range(3):
            optimizer.update(model, {"w": convert(gradient)})
        state = optimizer.state["w"]
        for slot in optimizer.slots:  # a slot of this kind, put there by hand
            state[slot] = convert(np.asarray(state[slot]))
        optimizer.update(model, {"w": convert(gradient)})
        new = optimizer.apply_gradients({"w": convert(gradient)}, model)["w"]
        assert model["w"] is given and type(new) is np.ndarray
        assert {type(array) for array in optimizer.state["w"].values()} == {np.ndarray}
        results.append([np.asarray(array).tobytes() for array in (given, new, *optimizer.state["w"].values())])
    assert results[0] == results[1]


@each_class
@pytest.mark.parametrize("method", ["update", "apply_gradients"])
@pytest.mark.norm("inputs.masked", "inputs.path", "inputs.untouched")
def test_a_masked_array_is_refused_with_its_path(made, method):
    masked = np.ma.array(_f(1, 2), mask=[False, True])
    words = r"masked array, and no formula has elements that are masked; x\.data .*, x\.filled\(value\)"
    _refused(
        made,
        TypeError,
        f"^parameter layer.w is a {words}",
        {"layer": {"w": masked}},
        {"layer": {"w": _f(1, 1)}},
        method,
    )
    _refused(made, TypeError, f"^gradient w is a {words}", {"w": _f(1, 1)}, {"w": masked}, method)
    optimizer, model = made(0.1), {"w": _f(1, 1)}
    optimizer.update(model, {"w": _f(1, 1)})
    slot = optimizer.slots[0]
    with pytest.raises(TypeError, match=f"^state w.{slot} is a {words}"):
        optimizer.state = {"w": {slot: masked}}
    optimizer.state["w"][slot] = masked
    with pytest.raises(TypeError, match=f"^state {slot} of w is a {words}"):
        getattr(optimizer, method)(*([model, {"w": _f(1, 1)}] if method == "update" else [{"w": _f(1, 1)}, model]))


def test_a_masked_array_is_refused_by_the_oracle():
    masked = np.ma.array([1.0, 2.0], mask=[False, True])
    with pytest.raises(TypeError, match="parameter is a masked array"):
        trajectory("SGD", masked, [[1.0, 1.0]], learning_rate="0.1")
    with pytest.raises(TypeError, match="gradient of step 2 is a masked array"):
        trajectory("SGD", [1.0, 2.0], [[1.0, 1.0], masked], learning_rate="0.1")


# Arrays that overlap themselves


@each_class
@pytest.mark.parametrize(("shape", "strides"), [((4,), (0,)), ((2, 3), (4, 4)), ((3,), (2,)), ((2, 2), (8, -8))])
@pytest.mark.norm("inputs.overlaps-itself")
def test_a_parameter_that_overlaps_itself(made, shape, strides):
    memory = np.arange(1, 9, dtype=np.float32)
    w = np.lib.stride_tricks.as_strided(memory[4:], shape, strides)
    g = np.ones(shape, np.float32)
    _refused(
        made, ValueError, r"^parameter w overlaps itself: elements of shape \(.*share memory; app", {"w": w}, {"w": g}
    )
    with np.errstate(all="ignore"):  # of elements that are in between two others
        new = made(0.1).apply_gradients({"w": g}, {"w": w})["w"]
        alone = made(0.1).apply_gradients({"w": g}, {"w": w.copy()})["w"]
    assert new.tobytes() == alone.tobytes()


@each_class
@pytest.mark.norm("inputs.slots")
def test_a_state_that_overlaps_itself_is_copied(made):
    optimizers, w = [made(0.1), made(0.1)], [_f(1, 2, 3), _f(1, 2, 3)]
    for optimizer, parameter in zip(optimizers, w, strict=True):
        optimizer.update({"w": parameter}, {"w": _f(1, 1, 1)})
    for slot in optimizers[0].slots:
        wide = np.lib.stride_tricks.as_strided(_f(0.5), (3,), (0,))
        optimizers[0].state["w"][slot], optimizers[1].state["w"][slot] = wide, wide.copy()
    for optimizer, parameter in zip(optimizers, w, strict=True):
        optimizer.update({"w": parameter}, {"w": _f(1, 2, -3)})
    assert w[0].tobytes() == w[1].tobytes()
    assert _same(dict(optimizers[0].state), dict(optimizers[1].state))
