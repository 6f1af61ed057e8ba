"""A plan is kept while a tree is the same; after any change in between, the step is that of a new optimizer."""

from __future__ import annotations

import copy
import gc
import weakref
from contextlib import nullcontext
from unittest.mock import patch

import numpy as np
import pytest

import mlx_optimizers as optim
from mlx_optimizers import settings
from mlx_optimizers.execution import plan
from mlx_optimizers.execution.plan import Plan
from tests.expected import each_class
from tests.support import require


def tree():
    return {"a": np.float32([1, 2, 3]), "b": [np.float32([[4, 5], [6, 7]]), np.array(8, np.float32)]}


def gradients(scale=1.0):
    return {
        "a": np.float32([0.5, -1, 2]) * np.float32(scale),
        "b": [np.float32([[1, -2], [3, 4]]), np.array(-1, np.float32)],
    }


class Counted(Plan):
    """Count the plans that are built."""

    made = 0

    def __init__(self, *given):
        type(self).made += 1
        super().__init__(*given)


@pytest.fixture
def plans():
    Counted.made = 0
    with patch("mlx_optimizers.elementwise.Plan", Counted):
        yield Counted


def same(left, right):
    if isinstance(left, dict):
        return left.keys() == right.keys() and all(same(left[key], right[key]) for key in left)
    if isinstance(left, list):
        return len(left) == len(right) and all(map(same, left, right))
    return left.dtype == right.dtype and np.array_equal(left, right)


@each_class
def test_one_plan_serves_all_steps_of_a_tree(made, plans):
    optimizer, w = made(0.1), tree()
    for scale in (1, 2, 3):
        optimizer.update(w, gradients(scale))
    assert plans.made == 1
    unplanned, new = made(0.1), tree()
    for scale in (1, 2, 3):
        unplanned._plan = None
        unplanned.update(new, gradients(scale))
    assert plans.made == 4
    assert same(w, new) and same(optimizer.state, unplanned.state)


def test_hyperparameters_count_as_they_are_at_every_step():
    optimizer, w = optim.RMSprop(1.0, alpha=0.5, eps=1.0), np.float32([0])
    optimizer.update(w, np.float32([0]))
    optimizer.alpha, optimizer.eps, optimizer.learning_rate = 0.75, 2.0, 4.0
    optimizer.update(w, np.float32([4]))  # v = ¼·16, w = −4·4/(2 + 2)
    assert optimizer.state["v"].item() == 4 and w.item() == -4


def test_a_schedule_counts_at_every_step():
    rates = [0.5, 0.25, 0.125]
    scheduled, w = optim.SGD(lambda step: rates[step]), np.float32([0.0])
    for _ in rates:
        scheduled.update(w, np.float32([1]))
    assert w.item() == -sum(rates)


def replaced_leaf(optimizer, w, g):
    w["a"] = w["a"].copy()


def replaced_slot(optimizer, w, g):
    optimizer.state["a"]["v"] = optimizer.state["a"]["v"] + np.float32(1)


def replaced_slots(optimizer, w, g):
    optimizer.state["a"] = optim.OptimizerState(v=np.float32([1, 1, 1]))


def replaced_state(optimizer, w, g):
    optimizer.state = copy.deepcopy(optimizer.state)


def turned_slot(optimizer, w, g):
    optimizer.state["b"][0]["v"] = np.asfortranarray(optimizer.state["b"][0]["v"])


def read_only_slot(optimizer, w, g):
    optimizer.state["a"]["v"].flags.writeable = False


def deleted_slots(optimizer, w, g):
    del optimizer.state["a"]


def subset(optimizer, w, g):
    del g["a"]


def shorter_list(optimizer, w, g):
    g["b"] = g["b"][:1]


def other_dtype(optimizer, w, g):
    g["a"] = g["a"].astype(np.float64)


def turned_gradient(optimizer, w, g):
    g["b"][0] = np.asfortranarray(g["b"][0])


def strided_gradient(optimizer, w, g):
    g["a"] = np.repeat(g["a"], 2)[::2]


def scalar_gradient(optimizer, w, g):
    g["b"][1] = np.float32(3)


def gradient_is_parameter(optimizer, w, g):
    g["a"] = w["a"]


def gradient_is_view_of_parameter(optimizer, w, g):
    g["a"] = w["a"][::-1]


def gradient_is_slot(optimizer, w, g):
    g["a"] = optimizer.state["a"]["v"]


CHANGES = [
    replaced_leaf,
    replaced_slot,
    replaced_slots,
    replaced_state,
    turned_slot,
    read_only_slot,
    deleted_slots,
    subset,
    shorter_list,
    other_dtype,
    turned_gradient,
    strided_gradient,
    scalar_gradient,
    gradient_is_parameter,
    gradient_is_view_of_parameter,
    gradient_is_slot,
]


@pytest.mark.parametrize("change", CHANGES, ids=lambda change: change.__name__)
def test_whatever_changes_between_two_steps_is_seen(change):
    results = []
    for planned in (True, False):
        optimizer, w = optim.RMSprop(0.1), tree()
        optimizer.update(w, gradients())
        assert optimizer._plan is not None
        g = gradients(2)
        change(optimizer, w, g)
        if not planned:
            optimizer._plan = None
        cold = pytest.warns(RuntimeWarning, match="for a: new slots") if change is deleted_slots else nullcontext()
        with cold:
            optimizer.update(w, g)
        results.append((w, optimizer.state))
    assert same(*(w for w, _ in results)) and same(*(state for _, state in results))


@pytest.mark.parametrize(
    ("change", "error", "words"),
    [
        (lambda w, g: w["a"].setflags(write=False), ValueError, "parameter a is read-only"),
        (lambda w, g: g.update(a=g["a"][:2]), ValueError, r"gradient a has shape \(2,\), its parameter \(3,\)"),
        (lambda w, g: g.update(a=g["a"].astype(int)), TypeError, "gradient a"),
        (lambda w, g: g.update(a=None), TypeError, "gradient a"),
        (lambda w, g: g.update(c=g["a"]), KeyError, "c"),
        (lambda w, g: w.pop("a"), KeyError, "a"),
        (lambda w, g: w.update(b=w["b"][0]), (KeyError, TypeError, ValueError), "b"),
    ],
)
@pytest.mark.norm("inputs.untouched")
def test_what_is_refused_at_the_first_step_is_refused_at_the_second(change, error, words):
    optimizer, w = optim.RMSprop(0.1), tree()
    optimizer.update(w, gradients())
    g = gradients()
    change(w, g)
    before, state = copy.deepcopy(w), copy.deepcopy(optimizer.state)
    with pytest.raises(error, match=words):
        optimizer.update(w, g)
    assert same(w, before) and same(optimizer.state, state)


@pytest.mark.parametrize("on", [False, True])
@pytest.mark.parametrize("which", ["parameter", "slot"])
def test_an_array_that_has_moved_in_memory_is_not_written_to_where_it_was(on, which, monkeypatch):
    if on:
        require("numba")
    monkeypatch.setattr(settings, "_compiled", on)
    size = 50_000  # large enough to have pages of its own, which go back to the system
    optimizer, w, g = optim.SGD(1.0, momentum=0.5), np.zeros(size, np.float32), np.ones(size, np.float32)
    optimizer.update(w, g)
    moved = w if which == "parameter" else optimizer.state["v"]
    before, values = moved.ctypes.data, moved.copy()
    others = []
    while moved.ctypes.data == before:
        moved.resize(1, refcheck=False)  # the rest of its pages is free
        others += [np.zeros(4 * size // 5, np.float32) for _ in range(50)]  # some of them there
        moved.resize(size, refcheck=False)
        assert len(others) < 5000
    moved[...] = values
    optimizer.update(w, g)
    assert (w == -2.5).all() and (optimizer.state["v"] == 1.5).all()
    assert not any(other.any() for other in others)


@pytest.mark.parametrize("name", ["MLX_OPTIMIZERS_THREADS", "MLX_OPTIMIZERS_COMPILED"])
@pytest.mark.parametrize("steps", [0, 1])
@pytest.mark.parametrize("size", [4, 2_000_000])
def test_an_invalid_setting_is_found_before_anything_moves(name, steps, size, monkeypatch):
    monkeypatch.setattr(settings, "_compiled", None)
    monkeypatch.setenv("MLX_OPTIMIZERS_COMPILED", "0")
    optimizer = optim.SGD(1.0, momentum=0.5)
    w = {"half": np.zeros(4, np.float16), "w": np.zeros(size, np.float32)}
    g = {key: np.ones_like(leaf) for key, leaf in w.items()}
    for _ in range(steps):
        optimizer.update(w, g)
    before, state = copy.deepcopy(w), copy.deepcopy(optimizer.state)
    monkeypatch.setenv(name, "x")
    with pytest.raises(ValueError, match=f"{name} must be .*, not 'x'"):
        optimizer.update(w, g)
    assert same(w, before) and same(optimizer.state, state)


def test_two_models_in_turn_keep_their_own():
    optimizer, first, second = optim.SGD(0.5), np.float32([1, 2]), np.float32([1, 2])
    for _ in range(2):
        optimizer.update(first, np.float32([1, 1]))
        optimizer.update(second, np.float32([-1, -1]))
    assert first.tolist() == [0, 1] and second.tolist() == [2, 3]


@pytest.mark.parametrize("copied", [copy.copy, copy.deepcopy])
def test_a_copy_has_no_plan_of_the_original(copied):
    optimizer, w = optim.SGD(0.5, momentum=0.5), np.float32([1])
    optimizer.update(w, np.float32([1]))
    other = copied(optimizer)
    other.update(w, np.float32([1]))
    assert optimizer.state["v"].item() == 1 and other.state["v"].item() == 1.5


@pytest.mark.parametrize("on", [False, True])
@pytest.mark.parametrize("size", [3, 600_000])
def test_a_plan_keeps_no_array_that_its_user_has_dropped(on, size, monkeypatch):
    if on:
        require("numba")
    monkeypatch.setattr(settings, "_compiled", on)
    optimizer, w = optim.Adam(0.1), {"a": np.zeros(size, np.float32), "b": np.zeros((2, size), np.float32)[:, ::-1]}
    optimizer.update(w, {"a": np.ones(size, np.float32), "b": np.ones((2, size), np.float32)})
    arrays = [w["a"], w["b"].base, *optimizer.state["a"].values(), *optimizer.state["b"].values()]
    held = [weakref.ref(array) for array in arrays]
    assert optimizer._plan is not None
    del arrays, w, optimizer.state["a"], optimizer.state["b"]
    gc.collect()
    assert [reference() for reference in held] == [None] * 6


@pytest.mark.parametrize("make", [lambda: np.zeros(3, np.float32), lambda: np.zeros((3, 2), np.float32)[:, 1]])
def test_an_array_in_the_place_of_one_that_is_gone_is_advanced_as_any(make):
    optimizer, w = optim.SGD(1.0, momentum=0.5), {"w": make()}
    g = {"w": np.ones(3, np.float32)}
    optimizer.update(w, g)
    for _ in range(50):  # CPython gives the identity, and the memory, of the last one again
        w["w"] = None
        w["w"] = make()
        optimizer.state["w"] = optim.OptimizerState(v=np.zeros(3, np.float32))
        optimizer.update(w, g)
        assert w["w"].tolist() == [-1, -1, -1]


@pytest.mark.norm("inputs.halfway")
def test_what_moved_and_what_did_not_is_said_when_a_planned_step_fails():
    optimizer = optim.RMSprop(0.1)
    w = {"a": np.ones(3, np.float32), "b": np.ones(3, np.float32), "c": np.ones(3, np.float32)}
    ones = {name: np.ones(3, np.float32) for name in w}
    optimizer.update(w, ones)
    before = copy.deepcopy(w)
    words = r"failed at b, which may have moved in part \(FloatingPointError: .*\); moved: a; not moved: c"
    with np.errstate(over="raise"), pytest.raises(RuntimeError, match=words):
        optimizer.update(w, {**ones, "b": np.float32([1, 3e38, 1])})
    assert not np.array_equal(w["a"], before["a"]) and np.array_equal(w["c"], before["c"])
    assert int(optimizer.step) == 1


def test_a_plan_is_not_asked_for_by_optimizers_of_ones_own():
    class Plain(optim.Optimizer):
        def __init__(self):
            super().__init__()
            self.learning_rate = 0.5

        def apply_single(self, gradient, parameter, state):
            return parameter - self.learning_rate.astype(parameter.dtype) * gradient

    optimizer, w = Plain(), np.float32([1])
    with patch.object(plan.Plan, "__init__", side_effect=AssertionError("planned")):
        optimizer.update(w, np.float32([1]))
        optimizer.update(w, np.float32([1]))
    assert w.item() == 0
