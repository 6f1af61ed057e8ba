"""The state as it is met: counters that are spoiled or gone, lists for dictionaries, checkpoints that do not fit."""

from __future__ import annotations

import copy
import pickle
import warnings

import numpy as np
import pytest

import mlx_optimizers as optim
from tests.expected import CLASSES, each_class, each_class_of_eight, record_of


def _f(*values):
    return np.array(values, np.float32)


def _bits(tree):
    if isinstance(tree, dict):
        return {key: _bits(child) for key, child in tree.items()}
    return [_bits(child) for child in tree] if isinstance(tree, list) else (tree.dtype.name, tree.shape, tree.tobytes())


def _trained(made, model, steps=1):
    optimizer = made(0.1)
    for _ in range(steps):
        optimizer.update(model, copy.deepcopy(model))
    return optimizer


def _refused(optimizer, model, match, error=ValueError, gradients=None):
    """Check that both methods refuse the step, twice, and that parameters and state stay bit for bit."""
    slots, before = {key: value for key, value in optimizer.state.items() if key != "step"}, _bits(model)
    kept, step = _bits(slots), optimizer.state["step"]
    gradients = copy.deepcopy(model) if gradients is None else gradients
    for _ in range(2):
        with pytest.raises(error, match=match):
            optimizer.update(model, gradients)
        with pytest.raises(error, match=match):
            optimizer.apply_gradients(gradients, model)
    assert _bits(model) == before
    assert _bits({key: value for key, value in optimizer.state.items() if key != "step"}) == kept
    assert optimizer.state["step"] is step


# Counters

SPOILED = [
    ("x", TypeError, "state step must be a whole number, not 'x'"),
    (1.0, TypeError, r"state step must be a whole number, not 1\.0"),
    (True, TypeError, "state step must be a whole number, not True"),
    (np.zeros(1, np.uint64), TypeError, r"state step must be a whole number, not array\(\[0\]"),
    (np.zeros(2, np.uint64), TypeError, r"state step must be a whole number, not array\(\[0, 0\]"),
    ([[1], [1, 2]], TypeError, r"state step must be a whole number, not \[\[1\]"),
    (np.array(1.0), TypeError, "state step must be a whole number, not array"),
    (np.array(1, object), TypeError, "state step must be a whole number, not array"),
    (-1, ValueError, "state step must be at least 0, not -1"),
    (np.array(-1), ValueError, "state step must be at least 0, not -1"),
    (np.uint64(2**64 - 1), ValueError, r"state step must be below 2\*\*64 - 1, .*not 18446744073709551615"),
    (2**64, ValueError, r"state step must be below 2\*\*64 - 1, .*not 18446744073709551616"),
]


@pytest.mark.parametrize(("step", "error", "match"), SPOILED, ids=[repr(step) for step, *_ in SPOILED])
@pytest.mark.parametrize("scheduled", [False, True])
def test_a_spoiled_step_is_refused_and_nothing_moves(step, error, match, scheduled):
    optimizer = optim.Adam((lambda step: 0.1) if scheduled else 0.1)
    model = {"w": _f(1, 2)}
    optimizer.update(model, {"w": _f(1, 1)})
    optimizer.state["step"] = step
    _refused(optimizer, model, match, error)
    with pytest.raises(error, match=match):
        optimizer.step  # noqa: B018 - reading it is the test
    with pytest.raises(error, match=match):
        optimizer.state = {"step": step}
    optimizer.state["step"] = 7
    optimizer.update(model, {"w": _f(1, 1)})
    assert optimizer.step == 8


@pytest.mark.parametrize("step", [7, np.int8(7), np.array(7), np.array(7, np.uint64)], ids=repr)
def test_any_whole_number_is_a_step_and_becomes_uint64(step):
    optimizer = optim.SGD(0.1)
    optimizer.state["step"] = step
    assert (optimizer.step, optimizer.step.dtype, optimizer.step.shape) == (7, np.uint64, ())
    assert optimizer.step is optimizer.state["step"]


@each_class
def test_counters_that_are_gone_come_back_with_their_values(made):
    asked = []

    def schedule(step):
        asked.append(step)
        return 0.1

    for rate in (0.1, schedule):
        optimizer, same = made(rate), made(0.1)
        models = {"w": _f(1, 2)}, {"w": _f(1, 2)}
        for number in range(4):
            for key in ("step", "learning_rate") if number else ():
                if number < 3:
                    del optimizer.state[key]
                assert optimizer.state.get(key) == (number if key == "step" else np.float32(0.1)) or number < 3
            for chosen, model in zip((optimizer, same), models, strict=True):
                chosen.update(model, {"w": _f(1, -1)})
        assert _bits(models[0]) == _bits(models[1])
        assert _bits(optimizer.state["step"]) == _bits(same.state["step"])
        assert _bits(optimizer.state["learning_rate"]) == _bits(same.state["learning_rate"])
    assert asked == [0, 0, 1, 2, 3]
    del optimizer.state["step"], optimizer.state["learning_rate"]
    assert (optimizer.step, optimizer.learning_rate) == (4, 0.1)
    del optimizer.state["step"], optimizer.state["learning_rate"]
    assert optimizer.state["step"] == {}, "reading makes an empty dictionary"
    assert optimizer.step == 4


def test_a_failing_step_leaves_a_counter_that_is_then_deleted():
    class Failing(optim.SGD):
        def apply_single(self, gradient, parameter, state):
            raise FloatingPointError("seven")

    optimizer = Failing(0.1)
    with pytest.raises(RuntimeError, match="seven"):
        optimizer.update({"w": _f(1)}, {"w": _f(1)})
    del optimizer.state["step"]
    assert optimizer.step == 0


def test_a_state_reads_back_as_it_was_assigned():
    """As MLX's own test has it; missing counters come back when they are needed."""
    optimizer, model = optim.SGD(0.1), {"w": _f(1)}
    optimizer.state["hello"] = "world"
    assert optimizer.state["hello"] == "world"
    optimizer.update(model, {"w": _f(1)})
    optimizer.state = {0: 1}
    assert optimizer.state == {0: 1}
    assert (optimizer.step, optimizer.learning_rate) == (1, 0.1)
    optimizer.state = {0: 1}
    optimizer.update(model, {"w": _f(1)})
    assert optimizer.state["step"] == 2
    assert optimizer.state["learning_rate"] == np.float32(0.1)
    for duplicate in (copy.copy, copy.deepcopy, lambda given: pickle.loads(pickle.dumps(given))):  # noqa: S301 – our own
        optimizer.state = {0: 1}
        assert (duplicate(optimizer).step, duplicate(optimizer).learning_rate) == (2, 0.1)


# Trees that change

LISTS = {
    "a list that became a dictionary": ({"l": [_f(1)]}, {"l": {"w": _f(1)}}, "the state of l is a list"),
    "a dictionary that became a list": ({"l": {"w": _f(1)}}, {"l": [_f(1)]}, "the state of l is a dictionary"),
    "the key -1": ({"l": [_f(1), _f(2)]}, {"l": {-1: _f(1)}}, "the state of l is a list"),
    "the key 0": ({"l": [_f(1), _f(2)]}, {"l": {0: _f(1)}}, "the state of l is a list"),
    "whole numbers that became a list": ({"l": {0: _f(1)}}, {"l": [_f(1)]}, "the state of l is a dictionary"),
    "deeper": ({"a": [{"l": [_f(1)]}]}, {"a": [{"l": {"w": _f(1)}}]}, r"the state of a\.0\.l is a list"),
    "in a part of the tree": (
        {"a": _f(1), "l": [_f(1)]},
        {"a": _f(1), "l": {"w": _f(1)}},
        "the state of l is a list, and its parameters need a dictionary",
    ),
    "an array that became a dictionary": ({"l": _f(1)}, {"l": {"w": _f(1)}}, r"the state has l\.., .*nothing .* l\.w"),
    "a dictionary that became an array": ({"l": {"w": _f(1)}}, {"l": _f(1)}, "the state of l has the slots w; those"),
    "a list that became an array": ({"l": [_f(1)]}, {"l": _f(1)}, "the state of l is a list, not its slots"),
    "the tree became an array": ({"w": _f(1)}, _f(1), "the state of the tree's only array has the slots w; those"),
    "an array became the tree": (_f(1), {"w": _f(1)}, "the state has ., .*and nothing for the parameters w;"),
    "a list at the top": ([_f(1), _f(2)], {-1: _f(1)}, r"the state has 0\.., .*and nothing for the parameters -1;"),
}


@pytest.mark.parametrize("made", [optim.Adam, optim.AdaDelta])
@pytest.mark.parametrize("case", LISTS)
@pytest.mark.norm("inputs.state")
def test_a_tree_of_another_structure_is_refused_with_the_path(made, case):
    first, second, match = copy.deepcopy(LISTS[case])
    _refused(_trained(made, first), second, match)


@each_class
def test_keys_of_every_kind_beside_each_other(made):
    keys = (0, 1, -1, 10**9, "0", "a", (1, 2), True)  # True is 1
    model = {"l": {key: _f(1) for key in keys}, "m": [_f(1), {0: _f(1)}]}
    plain = {"w": _f(1)}
    _trained(made, model, 3), _trained(made, plain, 3)
    assert all(w.tobytes() == plain["w"].tobytes() for w in (*model["l"].values(), model["m"][0], model["m"][1][0]))


# Checkpoints that do not fit

MODEL = {"layers": [{"w": _f(1, 2), "b": _f(3)}, {"w": _f(4)}]}


def _flat(tree, path=()):
    if isinstance(tree, dict | list):
        items = tree.items() if isinstance(tree, dict) else enumerate(tree)
        return {name: leaf for key, child in items for name, leaf in _flat(child, (*path, str(key))).items()}
    return {".".join(path): tree}


WRONG = {
    "under a prefix": lambda state: {"model": {"layers": state["layers"]}, "step": state["step"]},
    "all under a prefix": lambda state: {"optimizer": state},
    "flat": _flat,
    "flat under a prefix": lambda state: {f"model.{key}": leaf for key, leaf in _flat(state).items()},
    "of another model": lambda state: {"encoder": state["layers"]},
}


@each_class
@pytest.mark.parametrize("wrong", WRONG)
@pytest.mark.norm("inputs.state")
def test_a_state_with_nothing_for_any_parameter_is_refused_with_keys_of_both(made, wrong):
    state = WRONG[wrong](_trained(made, copy.deepcopy(MODEL)).state)
    optimizer, model = made(0.1), copy.deepcopy(MODEL)
    optimizer.state = state
    optimizer.step, optimizer.learning_rate  # noqa: B018 - puts them back
    key = {"of another model": "encoder.0.w", "all under a prefix": "optimizer."}.get(wrong, "layers.0.w")
    match = (
        rf"the state has .*{key}.*, and nothing for the parameters layers\.0\.w, layers\.0\.b, layers\.1\.w; it must"
    )
    _refused(optimizer, model, match)
    if not record_of(made).idle:  # zeros are what a new state has, too
        with pytest.raises(ValueError, match=match):
            optimizer.init(model)


def test_a_state_may_be_made_part_by_part():
    optimizer, model = optim.Adam(0.1), {"a": _f(1), "b": _f(2)}
    for name, w in model.items():
        optimizer.init({name: w})
    optimizer.update(model, copy.deepcopy(model))
    assert set(optimizer.state) == {"step", "learning_rate", "a", "b"}
    with pytest.raises(ValueError, match=r"the state has a\.m, .*, and nothing for the parameters c;"):
        optimizer.init({"c": _f(3)})


def test_only_a_few_keys_are_named():
    optimizer = optim.Adam(0.1)
    optimizer.state = {"model": {f"w{number}": {"m": _f(1), "v": _f(1)} for number in range(50)}}
    model = {f"w{number}": _f(1) for number in range(100)}
    with pytest.raises(ValueError, match=r"has model\.w0\.m, .* and 97 more, and .*w0, w1, w2 and 97 more;") as caught:
        optimizer.update(model, copy.deepcopy(model))
    assert len(str(caught.value)) < 250


@each_class
@pytest.mark.norm("inputs.cold")
def test_one_parameter_that_starts_cold_is_warned_of_once(made):
    state = _trained(made, copy.deepcopy(MODEL), 2).state
    optimizer, model = made(0.1), copy.deepcopy(MODEL)
    optimizer.state = {**state, "layers": [{"w": state["layers"][0]["w"]}, state["layers"][1]]}
    with pytest.warns(RuntimeWarning) as caught:
        optimizer.update(model, copy.deepcopy(MODEL))
    assert [str(one.message) for one in caught] == [
        "no state at step 2 for layers.0.b: new slots are made, while other parameters go on with theirs"
    ]
    assert caught[0].filename == __file__, "it points at the caller's line"
    optimizer.update(model, copy.deepcopy(MODEL))
    optimizer.state["layers"][0]["b"].clear()
    optimizer.update(model, copy.deepcopy(MODEL))  # said once


@each_class_of_eight
@pytest.mark.norm("inputs.cold")
def test_a_parameter_that_starts_cold_moves_as_in_a_first_step(made):
    optimizer, model, fresh = made(0.1), {"a": _f(1), "b": _f(2)}, {"b": _f(2)}
    optimizer.update(model, {"a": _f(1)})
    with pytest.warns(RuntimeWarning, match="no state at step 1 for b"):
        optimizer.update(model, {"b": _f(3)})
    made(0.1).update(fresh, {"b": _f(3)})
    assert _bits(model["b"]) == _bits(fresh["b"])


@pytest.mark.parametrize("method", ["init", "update", "apply_gradients"])
def test_a_warning_that_is_an_error_leaves_everything_as_it_was(method):
    optimizer, model = optim.Adam(0.1), {"a": _f(1), "b": _f(2)}
    optimizer.update(model, {"a": _f(1)})
    before = _bits(model), _bits(dict(optimizer.state))
    given = {"init": (model,), "update": (model, model), "apply_gradients": (model, model)}[method]
    for _ in range(2):
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            with pytest.raises(RuntimeWarning, match="no state at step 1 for b: new slots"):
                getattr(optimizer, method)(*copy.deepcopy(given))
    assert (_bits(model), _bits(dict(optimizer.state))) == before
    with pytest.warns(RuntimeWarning, match="no state at step 1 for b: new slots") as caught:
        getattr(optimizer, method)(*copy.deepcopy(given))
    assert caught[0].filename == __file__


@each_class
@pytest.mark.parametrize("method", ["update", "apply_gradients"])
def test_two_parts_of_a_model_may_be_trained_in_turn(made, method):
    """The gradients of one step have no parameter in common with those of the next; each part starts once."""
    optimizer, model = made(0.1), {"a": [_f(1), _f(2)], "b": {"w": _f(3), "v": _f(4)}}
    parts = [{"a": [_f(1), _f(1)]}, {"b": {"w": _f(1), "v": _f(1)}}]

    def train():
        for part in 3 * parts:
            getattr(optimizer, method)(*((model, part) if method == "update" else (part, model)))

    with pytest.warns(RuntimeWarning) as caught:
        train()
    assert len(caught) == 1
    assert "no state at step 1 for b.w, b.v: new slots" in str(caught[0].message)
    assert optimizer.step == 6


def test_fresh_starts_are_not_warned_of():
    for state in ({"step": 5}, {0: 1}, {"step": 5, "hello": "world"}):
        optimizer, model = optim.Adam(0.1), {"a": _f(1), "b": _f(2)}
        optimizer.state = state
        optimizer.update(model, copy.deepcopy(model))  # all start together
    optimizer = optim.Adam(0.1)
    optimizer.init({"a": _f(1)})
    optimizer.update(model, copy.deepcopy(model))  # at step 0 all are new
    sign = type("Sign", (optim.Optimizer,), {"apply_single": lambda self, g, w, state: w - np.sign(g)})()
    sign.update(model, {"a": _f(1)})
    sign.update(model, {"b": _f(1)})  # it has no state at all


# Slots

OTHERS = [(left, right) for left in CLASSES for right in CLASSES if left.slots != right.slots]


@pytest.mark.parametrize(("left", "right"), OTHERS, ids=[f"{a.__name__}-{b.__name__}" for a, b in OTHERS])
@pytest.mark.norm("inputs.state")
def test_the_state_of_another_optimizer_is_refused_with_the_slots_of_both(left, right):
    state = _trained(left, {"a": _f(1), "b": [_f(2)]}).state
    for model in ({"a": _f(1), "b": [_f(2)]}, {"b": [_f(2)]}):
        optimizer = right(0.1)
        optimizer.state = state
        has, should = ", ".join(left.slots), ", ".join(right.slots)
        name = "a" if "a" in model else r"b\.0"
        _refused(optimizer, model, f"the state of {name} has the slots {has}; those of {right.__name__} are {should}$")
    bare = right(0.1)
    bare.state = _trained(left, _f(1)).state
    _refused(bare, _f(1), f"the state of the tree's only array has the slots {has}; those of {right.__name__}")


def test_a_class_whose_rule_adds_slots_has_them():
    class Counting(optim.Adam):
        def apply_single(self, gradient, parameter, state):
            state["n"] = state.get("n", 0) + 1
            return super().apply_single(gradient, parameter, state)

    class Signum(optim.Optimizer):
        slots = ("v",)

        def __init__(self, rate):
            super().__init__()
            self.learning_rate = rate

        def apply_single(self, gradient, parameter, state):
            state["v"] += gradient
            parameter -= np.sign(state["v"])
            return parameter

    counting, model = Counting(0.1), {"w": _f(1)}
    for _ in range(3):
        counting.update(model, {"w": _f(1)})
    assert counting.state["w"]["n"] == 3
    signum = Signum(0.1)
    signum.state = _trained(optim.Adam, {"w": _f(1)}).state
    _refused(signum, {"w": _f(1)}, "the state of w has the slots m, v; those of Signum are v")
