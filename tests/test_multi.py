"""Several optimizers in one: each part has the bits of its optimizer alone, and a step is one step of all.

What MLX does is had from MLX itself, which runs beside; elsewhere an optimizer is compared with one that is alone.
"""

from __future__ import annotations

import copy
import inspect
import pickle

import numpy as np
import pytest

import mlx_optimizers as optim
from mlx_optimizers.optimizer import Optimizer
from tests.expected import EIGHT, each_class, each_of_eight
from tests.support import require


def _f(*values):
    return np.array(values, np.float32)


def _bits(tree):
    if isinstance(tree, dict):
        return {key: _bits(child) for key, child in tree.items()}
    if isinstance(tree, list | tuple):
        return [_bits(child) for child in tree]
    array = np.array(tree)
    return str(array.dtype), array.shape, array.tobytes()


def matrix(path, gradient):
    return gradient.ndim > 1


def first(path, gradient):
    return path.split(".")[0] == "a"


def _model(seed=0):
    rng = np.random.default_rng(seed)

    def w(*shape):
        return rng.standard_normal(shape).astype(np.float32)

    return {"layers": [{"weight": w(3, 2), "bias": w(3)}, {"weight": w(2, 3), "bias": w(2)}], "norm": {"scale": w(4)}}


def _part(tree, wanted):
    """The leaves of one part: places in lists are kept."""
    if isinstance(tree, list):
        return [_part(child, wanted) for child in tree]
    children = {key: _part(child, wanted) if isinstance(child, dict | list) else child for key, child in tree.items()}
    return {key: child for key, child in children.items() if isinstance(child, dict | list) or wanted("", child)}


def vector(path, gradient):
    return not matrix(path, gradient)


# What each part gets


@each_class
@pytest.mark.parametrize("method", ["update", "apply_gradients"])
def test_each_part_has_the_bits_of_its_optimizer_alone(made, method):
    whole, alone = _model(), _model()
    both = optim.MultiOptimizer([made(0.1), optim.SGD(0.5, momentum=0.9)], [matrix])
    parts = [(made(0.1), matrix), (optim.SGD(0.5, momentum=0.9), vector)]
    arrays = [layer["weight"] for layer in whole["layers"]]
    for seed in range(1, 5):
        gradients = _model(seed)
        if method == "update":
            both.update(whole, gradients)
        else:
            before = _bits(whole)
            new = both.apply_gradients(gradients, whole)
            assert _bits(whole) == before
            whole = new
        for optimizer, wanted in parts:
            optimizer.update(alone, _part(gradients, wanted))
        assert _bits(whole) == _bits(alone)
    assert _bits(both.state) == {"states": [_bits(optimizer.state) for optimizer, _ in parts]}
    if method == "update":
        assert all(layer["weight"] is array for layer, array in zip(whole["layers"], arrays, strict=True))


def test_the_first_filter_that_takes_a_parameter_has_it_and_the_last_optimizer_the_rest():
    model = {name: _f(0) for name in "abcd"}
    filters = [lambda path, g: path in "ab", lambda path, g: path in "bc"]
    optimizer = optim.MultiOptimizer([optim.SGD(1.0), optim.SGD(2.0), optim.SGD(4.0)], filters)
    optimizer.update(model, dict.fromkeys("abcd", _f(1)))
    assert {name: w.item() for name, w in model.items()} == {"a": -1, "b": -1, "c": -2, "d": -4}


def test_an_only_optimizer_takes_all():
    model = _f(1, 2)
    optim.MultiOptimizer([optim.SGD(1.0)]).update(model, _f(1, 1))
    assert model.tolist() == [0, 1]


def test_filters_get_the_path_with_dots_and_the_gradient_and_in_init_the_parameter():
    seen = []

    def look(path, array):
        seen.append((path, array.item(), array))
        return False

    optimizer = optim.MultiOptimizer([optim.SGD(1.0), optim.Adam(1.0)], [look])
    model, gradients = {"a": [{"w": _f(1)}, (_f(2), _f(3))]}, {"a": [{"w": _f(4)}, (_f(5), _f(6))]}
    optimizer.init(model)
    optimizer.update(model, gradients)
    optim.MultiOptimizer([optim.SGD(1.0), optim.Adam(1.0)], [look]).apply_gradients(_f(7), _f(8))
    assert [path for path, _, _ in seen] == 2 * ["a.0.w", "a.1.0", "a.1.1"] + [""]
    assert [value for _, value, _ in seen] == [1, 2, 3, 4, 5, 6, 7]
    assert seen[3][2] is gradients["a"][0]["w"]


def test_optimizers_of_this_kind_stand_in_each_other():
    model = {"a": {"w": _f(0), "b": _f(0)}, "c": _f(0)}
    inner = optim.MultiOptimizer([optim.SGD(1.0), optim.SGD(2.0)], [lambda path, g: path == "a.w"])
    outer = optim.MultiOptimizer([inner, optim.SGD(4.0)], [first])
    for step in range(1, 3):
        outer.update(model, {"a": {"w": _f(1), "b": _f(1)}, "c": _f(1)})
        assert (int(outer.step), int(inner.step)) == (step, step)
    assert (model["a"]["w"].item(), model["a"]["b"].item(), model["c"].item()) == (-2, -4, -8)
    assert list(outer.state["states"][0]) == ["states"]


def test_a_tree_of_lists_and_tuples_keeps_its_structure():
    optimizer = optim.MultiOptimizer([optim.SGD(1.0), optim.Adam(1.0)], [lambda path, g: path in ("0", "1.1")])
    given = [_f(1), (_f(1), _f(1))]
    new = optimizer.apply_gradients(given, given)
    assert type(new) is list and type(new[1]) is tuple
    assert (new[0].item(), new[1][1].item()) == (0, 0) != new[1][0].item()


@pytest.mark.parametrize("empty", [{}, [], ()])
def test_a_part_without_a_parameter_counts_the_step(empty):
    optimizer = optim.MultiOptimizer([optim.SGD(1.0), optim.Adam(1.0)], [lambda path, g: True])
    optimizer.update({"w": _f(1)}, {"w": _f(1)})
    assert optimizer.apply_gradients(empty, empty) == empty
    assert [int(part.step) for part in optimizer.optimizers] == [2, 2]
    assert set(optimizer.state["states"][1]) == {"step", "learning_rate"}


# Beside MLX


@pytest.fixture(scope="module")
def mlx():
    return require("mlx.core"), require("mlx.optimizers")


def _in_mlx(mx, tree):
    if isinstance(tree, dict):
        return {key: _in_mlx(mx, child) for key, child in tree.items()}
    if isinstance(tree, list | tuple):
        return [_in_mlx(mx, child) for child in tree]
    return mx.array(tree)


def _nested(kind, name):
    inner = kind.MultiOptimizer([kind.Adam(0.01), kind.Lion(0.02)], [lambda path, g: "bias" in path])
    return kind.MultiOptimizer([getattr(kind, name)(0.05), kind.SGD(0.1), inner], [matrix, lambda path, g: False])


def test_arguments_and_defaults_are_those_of_mlx(mlx):
    ours, theirs = (inspect.signature(kind.MultiOptimizer).parameters.values() for kind in (optim, mlx[1]))
    assert [(one.name, one.kind, one.default) for one in ours] == [(one.name, one.kind, one.default) for one in theirs]


@each_of_eight
def test_parameters_and_state_have_the_bits_and_the_layout_of_mlx(name, mlx):
    mx, theirs = mlx
    optimizer, reference = _nested(optim, name), _nested(theirs, name)
    model = _model()
    with mx.stream(mx.cpu):
        parameters, converted = _in_mlx(mx, model), _in_mlx(mx, model)
        for seed in range(1, 4):
            gradients = _in_mlx(mx, _model(seed))
            parameters = reference.apply_gradients(gradients, parameters)
            converted = optimizer.apply_gradients(gradients, converted)
            mx.eval(parameters, reference.state, optimizer.state)
            assert _bits(converted) == _bits(parameters)
            assert _bits(optimizer.state) == _bits(reference.state)


@pytest.mark.parametrize("way", ["from MLX", "to MLX"])
def test_a_run_goes_on_from_the_state_of_the_other_library(way, mlx):
    mx, theirs = mlx
    before, after = (theirs, optim) if way == "from MLX" else (optim, theirs)
    with mx.stream(mx.cpu):
        begun, goes_on = _nested(before, "RMSprop"), _nested(after, "RMSprop")
        parameters = begun.apply_gradients(_in_mlx(mx, _model(1)), _in_mlx(mx, _model()))
        mx.eval(parameters, begun.state)
        goes_on.state = copy.deepcopy(begun.state)
        new = goes_on.apply_gradients(_in_mlx(mx, _model(2)), parameters)
        assert _bits(new) == _bits(begun.apply_gradients(_in_mlx(mx, _model(2)), parameters))


def test_filters_get_what_they_get_in_mlx(mlx):
    mx, theirs = mlx
    seen = {optim: [], theirs: []}
    tree = _in_mlx(mx, {"a": [_f(1), {"w": _f(1, 2)}], "b": _f(3)})
    for kind, calls in seen.items():
        look = lambda path, array, calls=calls: calls.append((path, type(array), array.tolist()))  # noqa: E731
        optimizer = kind.MultiOptimizer([kind.SGD(1.0), kind.SGD(1.0)], [look])
        optimizer.init(tree)
        seen_in_init = len(calls)
        optimizer.apply_gradients(tree, tree)
    assert seen[optim][:seen_in_init] == seen[theirs][:seen_in_init]
    assert seen[optim][-3:] == seen[theirs][-3:]


def test_every_optimizer_of_mlx_counts_a_step_and_the_whole_has_no_count(mlx):
    mx, theirs = mlx
    optimizer = theirs.MultiOptimizer([theirs.SGD(1.0), theirs.Adam(1.0)], [lambda path, g: True])
    optimizer.apply_gradients({"w": mx.array([1.0])}, {"w": mx.array([1.0])})
    assert [int(part.step) for part in optimizer.optimizers] == [1, 1]
    with pytest.raises(KeyError):
        optimizer.step  # noqa: B018


def test_an_mlx_module_gets_new_arrays_and_mlx_evaluates_the_state(mlx):
    mx, nn = mlx[0], require("mlx.nn")
    model = nn.Sequential(nn.Linear(3, 2), nn.Linear(2, 1))
    before = _bits(model.parameters())
    optimizer = optim.MultiOptimizer([optim.SGD(1.0), optim.Adam(1.0), optim.Lion(1.0)], [matrix, vector])
    optimizer.update(model, model.parameters())
    mx.eval(model.parameters(), optimizer.state)
    after = _bits(model.parameters())
    assert all(after["layers"][n][name] != before["layers"][n][name] for n in (0, 1) for name in ("weight", "bias"))
    assert all(type(state["step"]) is mx.array for state in optimizer.state["states"])
    optimizer = optim.MultiOptimizer([optim.SGD(1.0), optim.Adam(1.0)], [matrix])
    optimizer.state = {"states": [{"step": mx.array(3)}, {"step": mx.array(3)}]}
    optimizer.update({"w": _f(1)}, {"w": _f(1)})
    assert all(type(state["step"]) is np.ndarray for state in optimizer.state["states"])


# The learning rate and the state


def test_the_learning_rate_is_the_firsts_and_a_new_one_that_of_all():
    optimizer = optim.MultiOptimizer([optim.SGD(1.0), optim.Adam(2.0)], [first])
    assert optimizer.learning_rate == 1
    optimizer.learning_rate = 0.1
    assert [float(part.learning_rate) for part in optimizer.optimizers] == [0.1, 0.1]
    optimizer.learning_rate = lambda step: 1 / (1 + step)
    model = {"a": _f(0), "b": _f(0)}
    optimizer.update(model, {"a": _f(1), "b": _f(1)})
    optimizer.update(model, {"a": _f(1), "b": _f(1)})
    assert model["a"].item() == -1.5
    assert [float(part.learning_rate) for part in optimizer.optimizers] == [0.5, 0.5]


@pytest.mark.parametrize(
    ("rate", "error"), [(-1.0, ValueError), ("x", TypeError), (lambda step: 1 - 2 * step, ValueError)]
)
def test_a_wrong_learning_rate_changes_none(rate, error):
    optimizer = optim.MultiOptimizer([optim.SGD(1.0), optim.Adam(2.0)], [first])
    optimizer.optimizers[1].state["step"] = np.array(5, np.uint64)  # where the schedule is negative
    with pytest.raises(error, match="learning_rate must be"):
        optimizer.learning_rate = rate
    assert [float(part.learning_rate) for part in optimizer.optimizers] == [1, 2]


def test_a_state_is_given_to_the_optimizers_as_a_copy():
    made = lambda: optim.MultiOptimizer([optim.SGD(1.0, momentum=0.5), optim.Adam(0.5)], [first])  # noqa: E731
    begun, goes_on = made(), made()
    model = {"a": _f(1), "b": _f(2)}
    begun.update(model, copy.deepcopy(model))
    goes_on.state = begun.state
    others = copy.deepcopy(model)
    for optimizer, each in ((begun, model), (goes_on, others)):
        optimizer.update(each, {"a": _f(3), "b": _f(4)})
    assert _bits(model) == _bits(others)
    assert int(goes_on.step) == 2


@pytest.mark.parametrize(
    ("state", "error", "match"),
    [
        ([], TypeError, "state must be a dictionary, not list"),
        ({}, ValueError, "state must have a list of states under 'states', not None"),
        ({"states": {}}, ValueError, "state must have a list of states under 'states', not {}"),
        ({"states": [{}]}, ValueError, "state must have a state for each optimizer: 2, not 1"),
        ({"states": [{"step": np.array(7)}, {"step": np.array(-1)}]}, ValueError, "state step must be at least 0"),
        ({"states": [{"step": np.array(7)}, 3]}, TypeError, "state must be a dictionary, not int"),
        ({"states": [{}, {"learning_rate": "x"}]}, TypeError, "learning_rate must be a number"),
    ],
)
def test_a_state_that_is_refused_changes_none(state, error, match):
    optimizer = optim.MultiOptimizer([optim.SGD(1.0), optim.Adam(2.0)], [first])
    optimizer.update({"a": _f(1)}, {"a": _f(1)})
    before = _bits(optimizer.state)
    with pytest.raises(error, match=match):
        optimizer.state = state
    assert _bits(optimizer.state) == before


# One step of all


class Fails(Optimizer):
    """An optimizer whose rule fails at parameters of 2."""

    def apply_single(self, gradient, parameter, state):
        if parameter[0] == 2:
            raise ArithmeticError("here")
        return parameter - gradient


def _two(second=None):
    return optim.MultiOptimizer([optim.SGD(1.0, momentum=0.5), second or optim.Adam(1.0)], [first])


def _negative(step):
    return -float(step)


@pytest.mark.parametrize("method", ["update", "apply_gradients"])
@pytest.mark.parametrize(
    ("gradients", "error", "match"),
    [
        ({"a": _f(1), "b": _f(1, 2)}, ValueError, r"gradient b has shape \(2,\), its parameter \(1,\)"),
        ({"a": _f(1), "b": None}, TypeError, "gradient b is None"),
        ({"a": _f(1), "b": np.array([1])}, TypeError, "gradient b has dtype int64"),
        ({"a": _f(1), "c": _f(1)}, KeyError, "there is no parameter c"),
    ],
)
def test_a_wrong_gradient_of_the_second_part_leaves_the_first_as_it_was(method, gradients, error, match):
    _untouched(_two(), method, gradients, error, match)


@pytest.mark.parametrize("method", ["update", "apply_gradients"])
def test_what_a_second_optimizer_refuses_leaves_the_first_part_as_it_was(method):
    gradients = {"a": _f(1), "b": _f(1)}
    optimizer = _two()
    optimizer.optimizers[1].state["b"]["v"] = _f(1)
    _untouched(optimizer, method, gradients, ValueError, "the state of b has the slots v; those of Adam are m, v")
    optimizer = _two(optim.SGD(_negative))
    optimizer.optimizers[1].state["step"] = np.array(1, np.uint64)
    _untouched(optimizer, method, gradients, ValueError, "learning_rate must be at least 0, not -1.0")
    optimizer = _two(optim.MultiOptimizer([optim.SGD(1.0), optim.SGD(1.0)], [lambda path, g: 1 / 0]))
    _untouched(optimizer, method, gradients, ZeroDivisionError, "division by zero")


def _untouched(optimizer, method, gradients, error, match):
    model = {"a": _f(1), "b": _f(1)}
    before = _bits(model), _bits(optimizer.state)
    with pytest.raises(error, match=match):
        getattr(optimizer, method)(*((model, gradients) if method == "update" else (gradients, model)))
    assert (_bits(model), _bits(optimizer.state)) == before


def test_a_rule_that_fails_says_what_the_parts_before_it_did_and_no_part_counts():
    optimizer = optim.MultiOptimizer([optim.SGD(1.0), Fails(), optim.SGD(1.0)], [first, lambda path, g: path != "d"])
    model = {"a": _f(1), "b": _f(2), "c": _f(3), "d": _f(4)}
    with pytest.raises(RuntimeError) as caught:
        optimizer.update(model, {name: _f(1) for name in model})
    assert str(caught.value) == "the step failed (ArithmeticError: here); moved: a; not moved: b, c, d"
    assert [w.item() for w in model.values()] == [0, 2, 3, 4]
    assert [int(part.step) for part in optimizer.optimizers] == [0, 0, 0]


def test_a_rule_that_fails_before_anything_moves_speaks_for_itself():
    optimizer = optim.MultiOptimizer([Fails(), optim.SGD(1.0)], [first])
    model = {"a": _f(2), "b": _f(2)}
    with pytest.raises(ArithmeticError, match=r"^here$"):
        optimizer.update(model, {name: _f(1) for name in model})
    assert [w.item() for w in model.values()] == [2, 2]


def test_arrays_that_two_parts_share():
    base = _f(1, 2, 3)
    for model in ({"a": base, "b": base}, {"a": base[:2], "b": base[1:]}):
        gradients = {name: np.ones_like(w) for name, w in model.items()}
        with pytest.raises(ValueError, match="parameters a and b share memory; sum their gradients"):
            _two().update(model, gradients)
        new = _two().apply_gradients(gradients, model)
        assert new["a"].tolist() == [w - 1 for w in model["a"].tolist()]
    assert base.tolist() == [1, 2, 3]


@pytest.mark.parametrize("second", [optim.SGD, optim.Adagrad])
def test_a_gradient_that_the_other_part_changes_counts_as_it_was(second):
    """Where it is a parameter, or an array of the state."""
    optimizer, model = _two(second(1.0)), {"a": _f(4), "b": _f(8)}
    optimizer.update(model, {"a": _f(2), "b": _f(3)})
    expected, alone = copy.deepcopy(model), copy.deepcopy(optimizer.optimizers[1])
    alone.update(expected, {"b": model["a"].copy()})
    optimizer.update(model, {"a": _f(2), "b": model["a"]})
    assert model["b"] == expected["b"]
    slot = optimizer.optimizers[0].state["a"]["v"]
    alone.update(expected, {"b": slot.copy()})
    optimizer.update(model, {"a": _f(2), "b": slot})
    assert model["b"] == expected["b"]


def test_an_array_that_was_put_into_two_states():
    optimizer = optim.MultiOptimizer([optim.SGD(1.0, momentum=0.5), optim.SGD(1.0, momentum=0.5)], [first])
    model = {"a": _f(0), "b": _f(0)}
    optimizer.init(model)
    states = optimizer.state["states"]
    states[1]["b"]["v"] = states[0]["a"]["v"]
    optimizer.update(model, {"a": _f(1), "b": _f(1)})
    assert (states[0]["a"]["v"].item(), states[1]["b"]["v"].item()) == (1, 1)


def test_a_parameter_that_starts_late_is_warned_of_where_the_user_calls():
    optimizer = optim.MultiOptimizer([optim.SGD(1.0), optim.MultiOptimizer([optim.Adam(1.0)])], [first])
    model = {"b": _f(1), "c": _f(1)}
    optimizer.update(model, {"b": _f(1)})
    with pytest.warns(RuntimeWarning, match="no state at step 1 for c:") as caught:
        optimizer.update(model, copy.deepcopy(model))
    assert [one.filename for one in caught] == [__file__]


# Making, copying and showing one


@pytest.mark.parametrize(
    ("optimizers", "filters", "error", "match"),
    [
        (None, [], TypeError, "optimizers must be a list, not None"),
        (optim.SGD(1.0), [], TypeError, "optimizers must be a list, not SGD"),
        ([], [], ValueError, "optimizers must have at least one optimizer"),
        ([optim.SGD(1.0), optim.SGD], [first], TypeError, r"optimizers\[1\] is a builtins.type, not an optimizer"),
        ([optim.SGD(1.0), None], [first], TypeError, r"optimizers\[1\] is a builtins.NoneType, not an optimizer"),
        ([optim.SGD(1.0)], None, TypeError, "filters must be a list, not None"),
        ([optim.SGD(1.0)], first, TypeError, "filters must be a list, not <function first"),
        ([optim.SGD(1.0), optim.SGD(1.0)], ["a"], TypeError, r"filters\[0\] must be a function.*, not 'a'"),
        ([optim.SGD(1.0), optim.SGD(1.0)], [], ValueError, "one fewer than optimizers, .*: 1, not 0"),
        ([optim.SGD(1.0)], [first], ValueError, "one fewer than optimizers, .*: 0, not 1"),
        (2 * [optim.SGD(1.0)], [first], ValueError, "optimizers has one SGD twice, which would count each step twice"),
    ],
)
def test_arguments_that_are_refused(optimizers, filters, error, match):
    with pytest.raises(error, match=match):
        optim.MultiOptimizer(optimizers, filters)


def test_an_optimizer_that_stands_within_and_beside_another_is_refused():
    adam = optim.Adam(1.0)
    with pytest.raises(ValueError, match="optimizers has one Adam twice"):
        optim.MultiOptimizer([optim.MultiOptimizer([adam]), adam], [first])


def test_an_optimizer_of_mlx_is_refused(mlx):
    with pytest.raises(TypeError, match=r"optimizers\[0\] is a mlx\.optimizers\.optimizers\.SGD, not an optimizer"):
        optim.MultiOptimizer([mlx[1].SGD(1.0)])


def test_attributes_are_checked_when_they_are_set():
    optimizer = _two()
    before = optimizer.optimizers
    with pytest.raises(ValueError, match="one fewer than optimizers"):
        optimizer.optimizers = [optim.SGD(1.0)]
    with pytest.raises(ValueError, match="one fewer than optimizers"):
        optimizer.filters = []
    assert optimizer.optimizers is before and optimizer.filters == (first,)
    optimizer.filters = [matrix]
    assert optimizer.filters == (matrix,)


def test_lists_that_are_given_and_the_default_do_not_change():
    optimizers, filters = [optim.SGD(1.0), optim.SGD(2.0)], [first]
    optim.MultiOptimizer(optimizers, filters)
    optim.MultiOptimizer([optim.SGD(1.0)])
    assert (len(optimizers), filters) == (2, [first])
    assert inspect.signature(optim.MultiOptimizer).parameters["filters"].default == []


@pytest.mark.parametrize("copied", [copy.copy, copy.deepcopy, lambda x: pickle.loads(pickle.dumps(x))])  # noqa: S301 - our own
def test_a_copy_goes_on_by_itself(copied):
    optimizer, model = _two(), {"a": _f(1), "b": _f(2)}
    optimizer.update(model, copy.deepcopy(model))
    other, others = copied(optimizer), copy.deepcopy(model)
    optimizer.update(model, {"a": _f(1), "b": _f(2)})
    assert [int(part.step) for part in (*optimizer.optimizers, *other.optimizers)] == [2, 2, 1, 1]
    other.update(others, {"a": _f(1), "b": _f(2)})
    assert _bits(others) == _bits(model)
    assert _bits(other.state) == _bits(optimizer.state)


def test_it_shows_what_it_is_made_of():
    shown = repr(optim.MultiOptimizer([optim.Adagrad(0.5), optim.SGD(1.0)], [max]))
    sgd = "SGD(learning_rate=1.0, momentum=0.0, weight_decay=0.0, dampening=0.0, nesterov=False)"
    assert shown == (
        f"MultiOptimizer(optimizers=(Adagrad(learning_rate=0.5, eps=1e-08), {sgd}), filters=(<built-in function max>,))"
    )


def test_it_is_an_optimizer_and_none_of_the_eight():
    assert isinstance(_two(), optim.Optimizer)
    assert optim.MultiOptimizer not in optim.OPTIMIZERS
    assert len(optim.OPTIMIZERS) == len(EIGHT)
