"""Trees: leaves and paths, what stands at a path, and rebuilding."""

from __future__ import annotations

from collections import OrderedDict, namedtuple

import numpy as np
import pytest

from mlx_optimizers import trees

TREE = {"layers": [{"w": 1, "b": (2, 3)}, {}], "out": 4, 5: 6}
LEAVES = [
    (("layers", 0, "w"), 1),
    (("layers", 0, "b", 0), 2),
    (("layers", 0, "b", 1), 3),
    (("out",), 4),
    ((5,), 6),
]


def test_leaves_come_with_their_paths_in_the_order_of_the_tree():
    assert list(trees.leaves(TREE)) == LEAVES
    assert list(trees.leaves(7)) == [((), 7)]
    assert list(trees.leaves({})) == list(trees.leaves([])) == list(trees.leaves({"a": {"b": ()}})) == []


def test_names_are_written_with_dots():
    assert [trees.name(path) for path, _ in LEAVES] == ["layers.0.w", "layers.0.b.0", "layers.0.b.1", "out", "5"]
    assert trees.name(()) == "the tree's only array"


def test_at_finds_every_leaf_and_every_node():
    for path, leaf in LEAVES:
        assert trees.at(TREE, path) == leaf
    assert trees.at(TREE, ("layers", 1)) == {}
    assert trees.at(TREE, ()) is TREE


@pytest.mark.parametrize(
    ("path", "name"),
    [
        (("x",), "x"),
        (("layers", 2), "layers.2"),
        (("layers", -1), "layers.-1"),
        (("layers", 0, "b", 2), "layers.0.b.2"),
        (("out", "w"), "out.w"),
        (("out", 0), "out.0"),
    ],
)
def test_at_names_the_path_where_there_is_nothing(path, name):
    with pytest.raises(KeyError, match=f"there is no parameter {name}"):
        trees.at(TREE, path)


def test_at_makes_nothing_in_a_dictionary_that_makes_what_is_missing():
    from mlx_optimizers import OptimizerState

    tree = OptimizerState()
    with pytest.raises(KeyError):
        trees.at(tree, ("a",))
    assert tree == {}


def test_a_tree_is_rebuilt_with_the_same_structure():
    new = trees.rebuilt(TREE, trees.name)
    assert new == {
        "layers": [{"w": "layers.0.w", "b": ("layers.0.b.0", "layers.0.b.1")}, {}],
        "out": "out",
        5: "5",
    }
    assert list(trees.leaves(trees.rebuilt(TREE, dict(LEAVES).__getitem__))) == LEAVES
    assert trees.rebuilt(1, lambda path: path) == ()


def test_named_tuples_stay_and_other_dictionaries_become_plain():
    Pair = namedtuple("Pair", "w b")  # noqa: PYI024 - the untyped kind is what callers have
    made = trees.rebuilt(OrderedDict(p=Pair(1, 2)), lambda path: path[-1])
    assert type(made) is dict
    assert type(made["p"]) is Pair
    assert made["p"] == (0, 1)


def test_numpy_scalars_are_arrays_and_nothing_else_is():
    assert trees.to_numpy(np.float32(1.5), "w").shape == ()
    array = np.zeros(2, np.float64)
    assert trees.to_numpy(array, "w") is array
    for value, kind in ((1.5, "float"), ([1.0], "list"), (None, "NoneType")):
        with pytest.raises(TypeError, match=f"gradient w is .*, a {kind}, not an array"):
            trees.to_numpy(value, "gradient w")
    with pytest.raises(TypeError, match="w has dtype int64, not one of float16, bfloat16, float32, float64"):
        trees.to_numpy(np.array([1], np.int64), "w")


def test_a_long_leaf_is_cut_short_in_the_message():
    with pytest.raises(TypeError) as caught:
        trees.to_numpy("x" * 1000, "w")
    assert len(str(caught.value)) < 120


def test_what_is_no_mlx_array_is_not_taken_for_one():
    class array:  # noqa: N801 - the name is the point
        pass

    assert not trees.is_mlx(array())
    assert trees.like(np.float32([1]), array) is array
