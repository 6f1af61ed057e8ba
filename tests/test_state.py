"""OptimizerState: a recursive default dictionary."""

from __future__ import annotations

import collections
import copy
import pickle

import pytest

from mlx_optimizers import OptimizerState


def test_it_is_a_defaultdict_of_itself():
    state = OptimizerState()
    assert isinstance(state, collections.defaultdict)
    assert isinstance(state, dict)
    assert isinstance(state["a"]["b"], OptimizerState)
    assert state == {"a": {"b": {}}}


def test_get_stores_the_default():
    state = OptimizerState()
    assert state.get("k", 3) == 3
    assert state == {"k": 3}
    assert state.get("k", 4) == 3
    assert state.get("none") is None
    assert "none" in state


def test_it_prints_as_a_dictionary():
    assert str(OptimizerState({"a": OptimizerState(b=1)})) == repr(OptimizerState(a={"b": 1})) == "{'a': {'b': 1}}"


def test_it_takes_what_a_dictionary_takes():
    assert OptimizerState([("a", 1)], b=2) == {"a": 1, "b": 2}
    with pytest.raises(TypeError):
        OptimizerState(1)


@pytest.mark.parametrize("duplicate", [copy.deepcopy, lambda state: pickle.loads(pickle.dumps(state))])  # noqa: S301 – our own
def test_deep_copies_are_of_the_same_kind_and_independent(duplicate):
    state = OptimizerState(a=OptimizerState(b=[1]))
    other = duplicate(state)
    assert other == state
    assert type(other) is type(other["a"]) is OptimizerState
    other["a"]["b"].append(2)
    assert state["a"]["b"] == [1]
    assert isinstance(other["new"], OptimizerState)


@pytest.mark.parametrize("duplicate", [copy.copy, OptimizerState.copy])
def test_shallow_copies(duplicate):
    state = OptimizerState(a=OptimizerState())
    other = duplicate(state)
    assert type(other) is OptimizerState
    assert other["a"] is state["a"]
    other["b"] = 1
    assert "b" not in state


def test_a_union_with_a_dictionary_is_of_the_same_kind():
    state = OptimizerState(a=1, b=2)
    for union, expected in (
        (state | {"b": 3}, {"a": 1, "b": 3}),
        ({"b": 3} | state, {"a": 1, "b": 2}),
        (state | OptimizerState(c=4), {"a": 1, "b": 2, "c": 4}),
        (collections.defaultdict(int, b=3) | state, {"a": 1, "b": 2}),
    ):
        assert union == expected
        assert type(union) is OptimizerState
    assert state == {"a": 1, "b": 2}
    for wrong in (lambda: state | 1, lambda: 1 | state, lambda: state | [("a", 1)]):
        with pytest.raises(TypeError, match="unsupported operand"):
            wrong()


def test_in_does_not_make_a_key():
    state = OptimizerState()
    assert "a" not in state
    assert not state
