"""The base class: signatures, learning rates and schedules, state, subclasses, copies."""

from __future__ import annotations

import copy
import inspect
from fractions import Fraction

import numpy as np
import pytest

import mlx_optimizers as optim
from tests.expected import (
    ABOVE_0,
    AT_LEAST_0,
    CLASSES,
    EIGHT,
    EXPECTED,
    FLAG,
    NAMES,
    PAIR_BELOW_1,
    UP_TO_1,
    each_class,
    record_of,
)


def _f(*values):
    return np.array(values, np.float32)


def _run(optimizer, model, steps, seed=0, skip=0):
    rng = np.random.default_rng(seed)
    for step in range(steps):
        gradients = {name: rng.standard_normal(w.shape).astype(w.dtype) for name, w in model.items()}
        if step >= skip:
            optimizer.update(model, gradients)


def test_signatures_are_those_of_the_table():
    shown = {made.__name__: str(inspect.signature(made)).replace("'", "") for made in CLASSES}
    names = {name: text.split(" ->")[0] for name, text in shown.items()}
    import re

    plain = {name: re.sub(r": (tuple\[[^\]]*\]|\w+)", "", text).replace(" = ", "=") for name, text in names.items()}
    assert plain == {name: expected.signature for name, expected in EXPECTED.items()}
    (later,) = inspect.signature(optim.Optimizer).parameters.values()  # as MLX has it since; its row shows "()"
    assert (later.name, later.default) == ("schedulers", None)


def test_the_names_of_the_table_come_first():
    assert optim.__all__[:10] == [
        "OptimizerState",
        "Optimizer",
        *EIGHT,
    ]


@each_class
def test_a_schedule_is_asked_once_at_construction_and_before_every_update(made):
    asked = []

    def schedule(step):
        asked.append(step)
        return 0.1 / (1 + step)

    optimizer = made(schedule)
    assert asked == [0]
    model = {"w": _f(1, 2)}
    for _ in range(3):
        optimizer.update(model, {"w": _f(1, 1)})
    assert asked == [0, 0, 1, 2]
    assert all(type(step) is int for step in asked)
    assert optimizer.learning_rate == 0.1 / 3


@each_class
def test_a_schedule_gives_what_setting_the_rate_gives(made):
    rates = [0.1, 0.05, 0.3]
    left, right = made(lambda step: np.array(rates[step])), made(rates[0])
    models = {"w": _f(1, 2)}, {"w": _f(1, 2)}
    for rate in rates:
        right.learning_rate = rate
        for optimizer, model in zip((left, right), models, strict=True):
            optimizer.update(model, {"w": _f(0.5, -1)})
    assert models[0]["w"].tobytes() == models[1]["w"].tobytes()


@pytest.mark.parametrize("value", [-0.1, float("nan"), float("inf")])
def test_a_schedule_that_goes_wrong_leaves_everything_as_it_was(value):
    optimizer = optim.Adam(lambda step: 0.1 if step < 1 else value)
    model = {"w": _f(1)}
    optimizer.update(model, {"w": _f(1)})
    before = model["w"].copy(), copy.deepcopy(dict(optimizer.state))
    with pytest.raises(ValueError, match="learning_rate must be"):
        optimizer.update(model, {"w": _f(1)})
    assert model["w"].tobytes() == before[0].tobytes()
    assert optimizer.step == before[1]["step"] == 1
    assert optimizer.state["w"]["m"].tobytes() == before[1]["w"]["m"].tobytes()


@each_class
def test_the_learning_rate_is_kept_as_a_double(made):
    optimizer = made(0.1)
    assert optimizer.learning_rate == 0.1
    assert isinstance(optimizer.learning_rate, float)
    image = optimizer.state["learning_rate"]
    assert (image.dtype, image.shape, image) == (np.float32, (), np.float32(0.1))
    optimizer.learning_rate = 0.3
    assert optimizer.state["learning_rate"] == np.float32(0.3)
    optimizer.state["learning_rate"] = 0.7
    assert optimizer.learning_rate == 0.7
    optimizer.state["learning_rate"] = np.float32(0.2)
    assert optimizer.learning_rate == float(np.float32(0.2))
    optimizer.state["learning_rate"][...] = 0.5
    assert optimizer.learning_rate == 0.5
    optimizer.learning_rate = Fraction(1, 4)
    assert optimizer.learning_rate == 0.25


def test_setting_a_number_ends_a_schedule_and_setting_a_callable_begins_one():
    optimizer, model = optim.SGD(lambda step: 1.0), {"w": _f(0)}
    optimizer.learning_rate = 0.5
    optimizer.update(model, {"w": _f(1)})
    assert model["w"] == -0.5
    optimizer.learning_rate = lambda step: 0.25 * step
    assert optimizer.learning_rate == 0.25
    optimizer.update(model, {"w": _f(1)})
    assert model["w"] == -0.75


@pytest.mark.parametrize("read", [False, True])
def test_a_number_put_into_the_state_ends_a_schedule_too(read):
    optimizer, model = optim.SGD(lambda step: 1.0), {"w": _f(0)}
    optimizer.state["learning_rate"] = 0.5
    if read:
        assert optimizer.learning_rate == 0.5
    for expected in (-0.5, -1.0):
        optimizer.update(model, {"w": _f(1)})
        assert model["w"] == expected
    assert "learning_rate=0.5" in repr(optimizer)


def test_a_state_that_is_taken_over_leaves_a_schedule_to_go_on_from_its_step():
    rates = [0.5, 0.25, 2.0]
    first, model = optim.SGD(lambda step: rates[step]), {"w": _f(0)}
    for _ in range(2):
        first.update(model, {"w": _f(1)})
    second = optim.SGD(lambda step: rates[step])
    second.state = first.state
    assert second.learning_rate == 0.25
    second.update(model, {"w": _f(1)})
    assert model["w"] == -2.75


def test_a_rate_put_into_the_state_outlives_a_step_that_fails():
    class Failing(optim.SGD):
        def apply_single(self, gradient, parameter, state):
            raise FloatingPointError("seven")

    optimizer, model = Failing(0.1), {"w": _f(1)}
    optimizer.state["learning_rate"] = 0.5
    with pytest.raises(RuntimeError, match="seven"):
        optimizer.update(model, {"w": _f(1)})
    assert optimizer.learning_rate == 0.5
    optimizer.state["learning_rate"] = -1.0
    with pytest.raises(ValueError, match=r"learning_rate must be at least 0, not -1\.0"):
        optimizer.update(model, {"w": _f(1)})
    assert (optimizer.step, optimizer.state["learning_rate"]) == (0, -1)


def test_only_a_float32_image_in_the_state_stands_for_the_double_that_was_given():
    image = np.array(0.1, np.float32)
    optimizer = optim.SGD(0.1)
    optimizer.state["learning_rate"] = image.copy()  # as in a state that was saved and loaded
    assert optimizer.learning_rate == 0.1
    optimizer.state["learning_rate"] = np.array(0.1 + 1e-12)
    assert optimizer.learning_rate == 0.1 + 1e-12
    optimizer.learning_rate = image
    assert optimizer.learning_rate == float(image)
    huge, other = optim.SGD(1e300), optim.SGD(1e300)
    other.state = huge.state
    assert other.learning_rate == 1e300


@pytest.mark.parametrize(
    ("state", "error", "match"),
    [
        ({"step": -1}, ValueError, "state step must be at least 0, not -1"),
        ({"step": "x"}, TypeError, "state step must be a whole number"),
        ({"step": 0.5}, TypeError, "state step must be a whole number"),
        ({"step": np.zeros(1, np.uint64)}, TypeError, "state step must be a whole number"),
        ({"learning_rate": -1.0}, ValueError, r"learning_rate must be at least 0, not -1\.0"),
        ({"step": 5, "learning_rate": np.nan}, ValueError, "learning_rate must be finite"),
        ({"learning_rate": "x"}, TypeError, "learning_rate must be a number"),
    ],
)
def test_a_state_with_a_wrong_counter_is_refused_and_leaves_the_old_one(state, error, match):
    optimizer, model = optim.SGD(0.1, momentum=0.5), {"w": _f(1, 2)}
    optimizer.update(model, {"w": _f(1, 1)})
    before = optimizer.state
    with pytest.raises(error, match=match):
        optimizer.state = {"w": {"v": _f(7, 7)}, **state}
    assert optimizer.state is before
    assert (optimizer.step, optimizer.learning_rate) == (1, 0.1)
    assert optimizer.state["w"]["v"].tolist() == [1, 1]


def test_a_double_rate_acts_as_one_on_float64():
    model = {"w": np.array([0.0])}
    optim.SGD(0.1).update(model, {"w": np.array([1.0])})
    assert model["w"][0] == -0.1


@each_class
@pytest.mark.parametrize(
    ("value", "error"),
    [
        (-1.0, ValueError),
        (float("nan"), ValueError),
        (float("inf"), ValueError),
        ("0.1", TypeError),
        (None, TypeError),
        (True, TypeError),
        (1j, TypeError),
        ([0.1], TypeError),
    ],
)
@pytest.mark.norm("inputs.range", "inputs.path")
def test_a_bad_learning_rate_is_refused(made, value, error):
    with pytest.raises(error, match="learning_rate"):
        made(value)
    optimizer = made(0.1)
    with pytest.raises(error, match="learning_rate"):
        optimizer.learning_rate = value
    assert optimizer.learning_rate == 0.1


RATE = "learning_rate"
"""It has tests of its own."""

BAD = {
    AT_LEAST_0: [-0.1, -1e-8, float("nan"), float("inf")],
    ABOVE_0: [0.0, -1e-8, float("nan"), float("inf")],
    UP_TO_1: [-0.1, 1.1, 1.5, float("nan")],
    PAIR_BELOW_1: [(0.9,), (0.9, 0.9, 0.9), (1.0, 0.9), (0.9, -0.1), (0.9, float("nan"))],
    FLAG: [],
}
ENDS = {
    AT_LEAST_0: (0, 0.0),
    ABOVE_0: (1e-300, 1e300),
    UP_TO_1: (0.0, 1),
    PAIR_BELOW_1: ([0.0, np.float32(0.5)], (0, 0)),
}


@pytest.mark.parametrize(
    ("name", "argument", "value"),
    [(n, a, value) for n in NAMES for a, kind in EXPECTED[n].ranges.items() if a != RATE for value in BAD[kind]],
)
@pytest.mark.norm("inputs.range", "inputs.path")
def test_hyperparameters_out_of_range(name, argument, value):
    made = getattr(optim, name)
    with pytest.raises(ValueError, match=argument) as caught:
        made(0.1, **{argument: value})
    if not isinstance(value, tuple):
        assert repr(value) in str(caught.value)
    optimizer = made(0.1)
    before = getattr(optimizer, argument)
    with pytest.raises(ValueError, match=argument):
        setattr(optimizer, argument, value)
    assert getattr(optimizer, argument) == before


@each_class
def test_hyperparameters_of_the_wrong_type(made):
    for argument, parameter in inspect.signature(made).parameters.items():
        for value in ("0.9", None, 1j, object()):
            with pytest.raises(TypeError, match=argument):
                made(**{"learning_rate": 0.1, argument: value})
        assert argument in dir(made(0.1)) and parameter.name == argument


@each_class
def test_the_ends_of_the_ranges_are_allowed(made):
    kinds = {name: kind for name, kind in record_of(made).ranges.items() if name != RATE and kind != FLAG}
    for end in (0, 1):
        given = {name: ENDS[kind][end] for name, kind in kinds.items()}
        optimizer = made(0, **given)
        assert optimizer.learning_rate == 0
        for name, value in given.items():
            got = getattr(optimizer, name)
            assert type(got) is (tuple if kinds[name] == PAIR_BELOW_1 else float)
            assert np.array_equal(got, value)


def test_nesterov_needs_momentum_and_no_dampening():
    for given in ({}, {"momentum": 0.9, "dampening": 0.1}):
        with pytest.raises(ValueError, match="nesterov needs momentum above 0 and dampening 0"):
            optim.SGD(0.1, nesterov=True, **given)
    optimizer = optim.SGD(0.1, momentum=0.9, nesterov=True)
    for name, value in (("momentum", 0), ("dampening", 0.5)):
        with pytest.raises(ValueError, match="nesterov"):
            setattr(optimizer, name, value)
    assert (optimizer.momentum, optimizer.dampening, optimizer.nesterov) == (0.9, 0.0, True)
    with pytest.raises(TypeError, match="nesterov must be True or False"):
        optim.SGD(0.1, momentum=0.9, nesterov=1)


@each_class
def test_state_has_the_layout_of_mlx(made):
    optimizer = made(0.1)
    assert set(optimizer.state) == {"step", "learning_rate"}
    optimizer.init({"layers": [{"weight": np.ones((2, 3), np.float32)}, {"bias": (_f(1),)}], "b": _f(2)})
    assert optimizer.state["step"].dtype == np.uint64
    assert optimizer.step == 0
    for slots, shape in (
        (optimizer.state["layers"][0]["weight"], (2, 3)),
        (optimizer.state["layers"][1]["bias"][0], (1,)),
        (optimizer.state["b"], (1,)),
    ):
        assert tuple(slots) == made.slots
        assert all(slots[slot].shape == shape and not slots[slot].any() for slot in made.slots)


@each_class
def test_a_list_can_be_the_whole_tree(made):
    optimizer, model = made(0.1), [_f(1), [_f(2)]]
    optimizer.update(model, [_f(1), [_f(1)]])
    assert optimizer.state[0][made.slots[0]].shape == (1,)
    assert optimizer.state[1][0][made.slots[0]].shape == (1,)
    assert model[0] != 1


@each_class
def test_init_changes_nothing_that_follows(made):
    left, right = made(0.1), made(0.1)
    models = {"a": _f(1, 2), "b": _f(3)}, {"a": _f(1, 2), "b": _f(3)}
    left.init(models[0])
    for optimizer, model in zip((left, right), models, strict=True):
        _run(optimizer, model, 3)
        optimizer.init(model)
    assert all(models[0][name].tobytes() == models[1][name].tobytes() for name in models[0])


@each_class
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_a_run_resumes_bit_for_bit_from_its_state(made, dtype):
    def fresh():
        return {"a": np.arange(1, 6).astype(dtype), "b": np.ones((2, 2), dtype)}

    whole, model = made(0.1), fresh()
    _run(whole, model, 6)
    first, half = made(0.1), fresh()
    _run(first, half, 3)
    saved = copy.deepcopy(dict(first.state))
    second = made(0.1)
    second.state = saved
    before = {name: array.tobytes() for name, array in saved["a"].items()}
    _run(second, half, 6, skip=3)
    assert all(half[name].tobytes() == model[name].tobytes() for name in model)
    assert second.step == 6
    assert {name: array.tobytes() for name, array in saved["a"].items()} == before  # the checkpoint is not touched


@each_class
@pytest.mark.norm("inputs.state", "inputs.slot", "inputs.path")
def test_a_state_that_does_not_fit_is_refused(made):
    slot = made.slots[-1]
    for change, error, match in (
        (lambda slots: slots.pop(slot), ValueError, f"the state of w has the slots .; those of {made.__name__} are"),
        (lambda slots: slots.update({slot: _f(1)}), ValueError, rf"state {slot} of w has shape \(1,\), not \(2,\)"),
        (lambda slots: slots.update({slot: np.zeros(2)}), ValueError, f"{slot} of w has dtype float64, not float32"),
        (lambda slots: slots.update({slot: "x"}), TypeError, f"state {slot} of w is 'x'"),
    ):
        optimizer, model = made(0.1), {"w": _f(1, 2)}
        optimizer.init(model)
        change(optimizer.state["w"])
        if slot in optimizer.state["w"] or len(made.slots) > 1:
            with pytest.raises(error, match=match):
                optimizer.update(model, {"w": _f(1, 1)})
            assert model["w"].tolist() == [1, 2]
            assert optimizer.step == 0
    optimizer.state["w"] = _f(1)
    with pytest.raises(ValueError, match="the state of w is a ndarray, not its slots"):
        optimizer.update(model, {"w": _f(1, 1)})
    with pytest.raises(TypeError, match="state must be a dictionary"):
        optimizer.state = [1]


class LikeMlx(optim.Optimizer):
    """A subclass as one writes it for MLX: new arrays, a slot in the state, no ``slots``."""

    def __init__(self, learning_rate, momentum=0.5):
        super().__init__()
        self._maybe_schedule("learning_rate", learning_rate)
        self.momentum = momentum

    def init_single(self, parameter, state):
        state["v"] = np.zeros_like(parameter)

    def apply_single(self, gradient, parameter, state):
        lr = self.learning_rate.astype(gradient.dtype)
        v = self.momentum * state["v"] + gradient
        if gradient.flat[0] == 7:
            raise FloatingPointError("seven")
        state["v"] = v
        return parameter - lr * v


def test_a_subclass_written_as_for_mlx_works_unchanged():
    ours, theirs = optim.SGD(0.25, momentum=0.5), LikeMlx(lambda step: 0.25)
    models = {"a": _f(1, 2), "b": [_f(3)]}, {"a": _f(1, 2), "b": [_f(3)]}
    held = models[1]["a"]
    for _ in range(3):
        for optimizer, model in zip((ours, theirs), models, strict=True):
            optimizer.update(model, {"a": _f(1, 1), "b": [_f(2)]})
    assert held is models[1]["a"]
    assert held.tolist() == models[0]["a"].tolist()
    assert held.dtype == np.float32
    assert theirs.state["b"][0]["v"].tolist() == ours.state["b"][0]["v"].tolist()


def test_a_subclass_that_changes_its_gradient_leaves_the_callers_alone():
    class Decaying(LikeMlx):
        def apply_single(self, gradient, parameter, state):
            gradient += 0.5 * parameter  # a line of MLX's SGD
            return super().apply_single(gradient, parameter, state)

    gradients, model = {"a": _f(1, 2)}, {"a": _f(2, 4)}
    gradients["a"].flags.writeable = False
    new = Decaying(0.5).apply_gradients(gradients, model)
    Decaying(0.5).update(model, gradients)
    assert gradients["a"].tolist() == [1, 2]
    assert new["a"].tolist() == model["a"].tolist() == [1, 2]  # w − ½(g + ½w)


class Scheduled(optim.Optimizer):
    """Keeps another hyperparameter in the state, under a name of its own, as MLX allows."""

    def __init__(self, lr, decay):
        super().__init__()
        self._maybe_schedule("learning_rate", lr)
        self._maybe_schedule("decay", decay)

    def apply_single(self, gradient, parameter, state):
        if gradient[0] == 7:
            raise FloatingPointError("seven")
        return parameter * self.state["decay"] - self.learning_rate * gradient


def test_another_hyperparameter_on_a_schedule_is_as_before_when_a_step_fails():
    optimizer, model = Scheduled(0.5, lambda step: 0.5 - 0.25 * step), {"w": _f(4)}
    optimizer.update(model, {"w": _f(2)})
    assert model["w"] == 1
    with pytest.raises(FloatingPointError, match="seven"):
        optimizer.update(model, {"w": _f(7)})
    assert (model["w"], optimizer.step, optimizer.state["decay"]) == (1, 1, 0.5)
    optimizer.update(model, {"w": _f(2)})
    assert (model["w"], optimizer.step, optimizer.state["decay"]) == (-0.75, 2, 0.25)


def test_repr_of_what_a_subclass_does_not_keep():
    assert repr(Scheduled(0.5, 0.25)) == "Scheduled(lr=…, decay=…)"


def test_when_such_a_subclass_fails_everything_is_as_before():
    optimizer, model = LikeMlx(0.5), {"a": _f(1), "b": _f(2)}
    optimizer.update(model, {"a": _f(1), "b": _f(1)})
    before = model["a"].copy(), optimizer.state["a"]["v"].copy()
    with pytest.raises(FloatingPointError, match="seven"):
        optimizer.update(model, {"a": _f(1), "b": _f(7)})
    assert (model["a"], optimizer.state["a"]["v"]) == before
    assert optimizer.step == 1


def test_a_subclass_that_returns_the_wrong_thing_is_told_so():
    class Wrong(LikeMlx):
        def apply_single(self, gradient, parameter, state):
            return np.ones(3, np.float32) if gradient[0] > 0 else None

    for gradient, error, match in (
        (1, ValueError, r"the new a has shape \(3,\)"),
        (-1, TypeError, "the new a is None"),
    ):
        with pytest.raises(error, match=match):
            Wrong(0.5).update({"a": _f(1)}, {"a": _f(gradient)})


def test_the_base_class_has_no_rule_and_no_rate():
    optimizer = optim.Optimizer()
    with pytest.raises(AttributeError, match="Optimizer has no learning rate"):
        optimizer.learning_rate  # noqa: B018 - reading it is the test
    with pytest.raises(NotImplementedError, match="no apply_single"):
        optimizer.update({"a": _f(1)}, {"a": _f(1)})


@each_class
def test_repr_and_copies(made):
    optimizer = made(0.1)
    assert repr(optimizer).startswith(f"{made.__name__}(learning_rate=0.1")
    assert repr(eval(repr(optimizer), vars(optim))) == repr(optimizer)  # noqa: S307 - our own text
    model = {"w": _f(1, 2)}
    _run(optimizer, model, 2)
    for duplicate in (copy.copy, copy.deepcopy):
        other, same = duplicate(optimizer), {"w": model["w"].copy()}
        twin, expected = duplicate(optimizer), {"w": model["w"].copy()}
        _run(other, same, 3)
        assert optimizer.step == 2
        assert twin.step == 2
        _run(twin, expected, 3)
        assert same["w"].tobytes() == expected["w"].tobytes()
        assert other.learning_rate == 0.1


def test_repr_of_a_schedule():
    assert "learning_rate=<function" in repr(optim.Adam(lambda step: 0.1))


def test_containers_of_other_kinds():
    class Model(dict):
        def update(self, tree):
            self.given = tree

    mixed = Model(w=np.float32([1.0]))
    optim.SGD(0.5).update(mixed, {"w": _f(1)})
    assert mixed["w"] == 0.5  # all leaves NumPy: in place
    with pytest.raises(TypeError, match="w is a float32: it cannot be updated in place"):
        optim.SGD(0.5).update({"w": np.float32(1)}, {"w": _f(1)[0]})
