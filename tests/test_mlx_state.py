"""State of MLX arrays where the parameters are: kinds, saving and resuming by MLX's own idiom, tracing, copies."""

from __future__ import annotations

import copy
import pickle
from functools import partial

import numpy as np
import pytest

import mlx_optimizers as optim
from tests.expected import each_class, each_class_of_eight
from tests.support import require

mx = require("mlx.core")
nn = require("mlx.nn")
theirs = require("mlx.optimizers")
utils = require("mlx.utils")


@pytest.fixture(autouse=True)
def _on_the_cpu():
    before = mx.default_device()
    mx.set_default_device(mx.cpu)
    yield
    mx.set_default_device(before)


def _f(*values):
    return np.array(values, np.float32)


def _kinds(optimizer):
    """Read the class and the dtype of every leaf of the state."""
    leaves = dict(utils.tree_flatten(optimizer.state))
    return {
        key: ("mlx" if isinstance(leaf, mx.array) else type(leaf).__name__, leaf.dtype) for key, leaf in leaves.items()
    }


def _bits(tree):
    flat = dict(utils.tree_flatten(tree))
    views = {mx.bfloat16: mx.uint16}
    return {key: np.array(leaf.view(views.get(leaf.dtype, leaf.dtype))).tobytes() for key, leaf in flat.items()}


def _pickled(given):
    return pickle.loads(pickle.dumps(given))  # noqa: S301 - our own


def _model():
    mx.random.seed(5)
    model = nn.Sequential(nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, 2))
    mx.eval(model.parameters())
    return model


def _train(optimizer, model, steps, seed=0):
    """Take some steps with gradients that depend on the model and the step."""
    x, y = (mx.array(np.random.default_rng(seed).standard_normal((8, n)).astype(np.float32)) for n in (4, 2))
    step = nn.value_and_grad(model, lambda model: ((model(x) - y) ** 2).mean())
    for _ in range(steps):
        optimizer.update(model, step(model)[1])
        mx.eval(model.parameters(), optimizer.state)


@each_class
@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32", "float64"])
@pytest.mark.norm("inputs.mlx")
def test_leaves_are_mlxs_where_the_parameters_are(made, dtype):
    if dtype == "bfloat16":
        require("ml_dtypes")
    real = getattr(mx, dtype)
    model = {"l": [{"w": mx.ones((2, 3), real)}, {}, {"w": mx.ones(2, real)}], "s": mx.array(1.0, real)}
    for call in ("init", "update", "apply_gradients"):
        optimizer = made(0.1)
        given = {"init": (model,), "update": (model, model), "apply_gradients": (model, model)}[call]
        getattr(optimizer, call)(*copy.deepcopy(given))
        kinds = _kinds(optimizer)
        assert kinds.pop("step") == ("mlx", mx.uint64)
        assert kinds.pop("learning_rate") == ("mlx", mx.float32)
        assert kinds == {f"{path}.{slot}": ("mlx", real) for path in ("l.0.w", "l.2.w", "s") for slot in made.slots}
        assert optimizer.step == (call != "init")
    new = optimizer.apply_gradients(model, model)
    assert all(leaf.dtype == real for _, leaf in utils.tree_flatten(new)), "float64 too, which mx.array makes float32"


@each_class
def test_numpy_parameters_have_numpy_state_as_ever(made):
    optimizer, model = made(0.1), {"w": _f(1, 2)}
    for _ in range(3):
        optimizer.update(model, {"w": _f(1, 1)})
        kinds = _kinds(optimizer)
        assert {kind for kind, _ in kinds.values()} == {"ndarray"}
        assert (kinds["step"][1], kinds["learning_rate"][1]) == (np.uint64, np.float32)
    assert optimizer._plan is not None


@each_class
def test_state_follows_the_kind_of_the_parameters_from_step_to_step(made):
    optimizer, same = made(0.1), made(0.1)
    model, plain = {"w": _f(1, 2)}, {"w": _f(1, 2)}
    for kind in (np.array, np.array, mx.array, mx.array, np.array, mx.array, np.array, np.array):
        model = {"w": kind(np.array(model["w"]))}
        optimizer.update(model, {"w": mx.array([1.0, -1.0])})
        same.update(plain, {"w": _f(1, -1)})
        assert isinstance(model["w"], mx.array) == (kind is mx.array)
        assert {name for name, _ in _kinds(optimizer).values()} == {"mlx" if kind is mx.array else "ndarray"}
        assert np.array(model["w"]).tobytes() == plain["w"].tobytes()
        optimizer.update({}, {})  # a step of nothing leaves the kinds
        same.update({}, {})
        assert {name for name, _ in _kinds(optimizer).values()} == {"mlx" if kind is mx.array else "ndarray"}


def test_a_tree_of_both_kinds_has_both():
    optimizer, model = optim.SGD(0.5, momentum=0.5), {"a": mx.array([1.0]), "b": _f(1)}
    optimizer.update(model, {"a": mx.array([1.0]), "b": _f(1)})
    kinds = {key: kind for key, (kind, _) in _kinds(optimizer).items()}
    assert kinds == {"step": "mlx", "learning_rate": "mlx", "a.v": "mlx", "b.v": "ndarray"}
    assert (model["a"].item(), model["b"].item()) == (0.5, 0.5)


@each_class
@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32"])
def test_a_run_resumes_bit_for_bit_from_what_mlx_saved(made, dtype, tmp_path):
    if dtype == "bfloat16":
        require("ml_dtypes")
    path = str(tmp_path / "state.safetensors")
    whole, first, model, half = made(0.01), made(0.01), _model(), _model()
    for each in (model, half):
        each.set_dtype(getattr(mx, dtype))
    with np.errstate(all="ignore"):
        _train(whole, model, 6)
        _train(first, half, 3)
        mx.save_safetensors(path, dict(utils.tree_flatten(first.state)))
        second = made(0.01)
        second.state = utils.tree_unflatten(list(mx.load(path).items()))
        assert _bits(second.state) == _bits(first.state)
        assert _kinds(second) == _kinds(first)
        assert second.learning_rate == 0.01, "the float32 image means the double that was given"
        _train(second, half, 3)
    assert _bits(half.parameters()) == _bits(model.parameters())
    assert _bits(second.state) == _bits(whole.state)
    mx.save_safetensors(path, dict(utils.tree_flatten(second.state)))


@each_class_of_eight
def test_a_state_goes_to_mlxs_optimizer_and_back(made):
    """Ours, theirs, ours: the bits of a run that is ours throughout."""
    model, same = _model(), _model()
    ours, whole, mlx = made(0.125), made(0.125), getattr(theirs, made.__name__)(0.125)
    _train(whole, same, 6)
    _train(ours, model, 2)
    mlx.state = utils.tree_unflatten(utils.tree_flatten(ours.state))
    _train(mlx, model, 2)
    back = made(0.5)
    back.state = mlx.state
    assert (back.step, back.learning_rate) == (4, 0.125)
    _train(back, model, 2)
    assert _bits(model.parameters()) == _bits(same.parameters())
    assert _bits(back.state) == _bits(whole.state)


def test_an_assigned_state_is_a_copy_of_the_same_kind():
    given = {"step": mx.array(3, mx.uint64), "w": {"v": mx.array([1.0, 2.0])}}
    optimizer = optim.SGD(0.1, momentum=0.5)
    optimizer.state = given
    assert {kind for kind, _ in _kinds(optimizer).values()} == {"mlx"}
    given["w"]["v"][0] = 7
    assert optimizer.state["w"]["v"].tolist() == [1, 2]
    optimizer.update({"w": _f(1, 1)}, {"w": _f(1, 1)})
    assert optimizer.state["w"]["v"].tolist() == [1.5, 2]
    assert {kind for kind, _ in _kinds(optimizer).values()} == {"ndarray"}


def test_counters_of_mlx_are_read_and_set_as_numpys_are():
    optimizer, model = optim.SGD(0.1), {"w": mx.array([1.0])}
    optimizer.update(model, {"w": mx.array([0.0])})
    optimizer.learning_rate = 0.3
    assert (optimizer.learning_rate, optimizer.state["learning_rate"].item()) == (0.3, float(np.float32(0.3)))
    optimizer.state["learning_rate"] = mx.array(0.3)
    assert optimizer.learning_rate == 0.3, "the image of the double that is kept"
    optimizer.state["learning_rate"] = mx.array(0.25)
    assert optimizer.learning_rate == 0.25
    optimizer.state["learning_rate"][...] = 0.5
    assert optimizer.learning_rate == 0.5
    optimizer.state["step"] = mx.array(7)
    assert optimizer.step == 7
    del optimizer.state["step"], optimizer.state["learning_rate"]
    assert (optimizer.step, optimizer.learning_rate) == (7, 0.5)
    assert _kinds(optimizer)["step"] == ("mlx", mx.uint64)
    assert {kind for kind, _ in _kinds(optimizer).values()} == {"mlx"}
    optimizer.learning_rate = mx.array(0.75)
    optimizer.update(model, {"w": mx.array([1.0])})
    assert (model["w"].item(), optimizer.step) == (0.25, 8)
    for wrong, error, match in (
        (mx.array([1, 2]), TypeError, "state step must be a whole number, not array"),
        (mx.array(1.0), TypeError, "state step must be a whole number, not array"),
        (mx.array(-1), ValueError, "state step must be at least 0, not -1"),
    ):
        optimizer.state["step"] = wrong
        with pytest.raises(error, match=match):
            optimizer.update(model, {"w": mx.array([1.0])})
        assert model["w"].item() == 0.25
    for wrong in (mx.array([0.1]), mx.array(True)):
        with pytest.raises(TypeError, match="learning_rate must be a number, not array"):
            optimizer.learning_rate = wrong


@each_class_of_eight
def test_a_schedule_drives_mlx_parameters_as_it_drives_mlx(made):
    schedule = theirs.exponential_decay(0.1, 0.5)
    optimizers, models = (made(schedule), getattr(theirs, made.__name__)(schedule)), (_model(), _model())
    for optimizer, model in zip(optimizers, models, strict=True):
        _train(optimizer, model, 4)
    assert _bits(models[0].parameters()) == _bits(models[1].parameters())
    assert _bits(optimizers[0].state) == _bits(optimizers[1].state)
    optimizers[0].state["learning_rate"] = mx.array(0.5)  # ends the schedule
    _train(optimizers[0], models[0], 2)
    assert optimizers[0].learning_rate == 0.5


@each_class
@pytest.mark.parametrize("duplicate", [copy.copy, copy.deepcopy, _pickled])
def test_copies_go_on_alike_and_apart(made, duplicate):
    optimizer, model = made(0.1), _model()
    _train(optimizer, model, 2)
    other, before = duplicate(optimizer), _bits(optimizer.state)
    models = [_model() for _ in range(2)]
    for each in models:
        each.update(model.parameters())
    _train(other, models[0], 2)
    assert _bits(optimizer.state) == before
    _train(optimizer, models[1], 2)
    assert _bits(models[0].parameters()) == _bits(models[1].parameters())
    assert _bits(optimizer.state) == _bits(other.state)
    assert other.learning_rate == 0.1


def test_a_rule_of_ones_own_sees_numpy_arrays_alone():
    class Decaying(optim.Optimizer):
        def __init__(self, rate):
            super().__init__()
            self._maybe_schedule("learning_rate", rate)
            self._maybe_schedule("decay", 0.5)

        def init_single(self, parameter, state):
            state["v"] = np.zeros_like(parameter)

        def apply_single(self, gradient, parameter, state):
            seen.extend([gradient, parameter, state["v"], self.state["decay"], self.state["step"], self.step])
            state["v"] = self.state["decay"] * state["v"] + gradient
            return parameter - self.learning_rate * state["v"]

    seen = []
    optimizer, model = Decaying(lambda step: 1.0), {"w": mx.array([8.0])}
    for expected in (7.0, 5.5):  # v = 1, then ½ + 1
        optimizer.update(model, {"w": mx.array([1.0])})
        assert model["w"].item() == expected
        assert {kind for kind, _ in _kinds(optimizer).values()} == {"mlx"}
    assert {type(value) for value in seen} == {np.ndarray}


def test_a_step_that_fails_leaves_mlx_leaves():
    class Failing(optim.Adam):
        def apply_single(self, gradient, parameter, state):
            raise FloatingPointError("seven")

    optimizer, model = Failing(0.1), {"w": mx.array([8.0])}
    with pytest.raises(RuntimeError, match="seven"):
        optimizer.update(model, {"w": mx.array([1.0])})
    assert {kind for kind, _ in _kinds(optimizer).values()} == {"mlx"}
    assert (model["w"].item(), optimizer.step) == (8, 0)


# Tracing

TRACED = (
    "is a traced array, which has no value: call the optimizer outside the function that is compiled or transformed"
)


@each_class
@pytest.mark.parametrize("transform", [mx.compile, mx.vmap, partial(mx.compile, shapeless=True)])
@pytest.mark.norm("inputs.traced")
def test_an_array_that_is_traced_has_no_value(made, transform):
    w = mx.array([1.0])
    for what, call in (
        ("gradient w", lambda optimizer, x: optimizer.update({"w": w}, {"w": x})),
        ("gradient w", lambda optimizer, x: optimizer.apply_gradients({"w": x}, {"w": x})),
        ("parameter w", lambda optimizer, x: optimizer.apply_gradients({"w": w}, {"w": x})),
        ("parameter w", lambda optimizer, x: optimizer.init({"w": x})),
        ("state step", lambda optimizer, x: setattr(optimizer, "state", {"step": x})),
        ("learning_rate", lambda optimizer, x: setattr(optimizer, "learning_rate", x)),
        ("learning_rate", lambda optimizer, x: setattr(optimizer, "state", {"learning_rate": x})),
        ("learning_rate", lambda optimizer, x: made(x)),
    ):
        optimizer = made(0.1)
        with pytest.raises(TypeError, match=f"^{what} {TRACED}"):
            transform(partial(call, optimizer))(w)
        assert dict(optimizer.state) == {"step": 0, "learning_rate": np.float32(0.1)}
        optimizer.update({"w": w}, {"w": w})


def test_a_module_that_is_updated_inside_compile_is_said_to_be_traced():
    model, optimizer = _model(), optim.Adam(0.1)
    loss = nn.value_and_grad(model, lambda model, x: model(x).sum())
    before = _bits(model.parameters())

    @mx.compile
    def step(x):
        value, gradients = loss(model, x)
        optimizer.update(model, gradients)
        return value

    with pytest.raises(TypeError, match=rf"gradient layers\.0\.weight {TRACED}"):
        step(mx.ones((1, 4)))
    assert _bits(model.parameters()) == before
    # The message's advice: the compiled function returns the gradients.
    _, gradients = mx.compile(partial(loss, model))(mx.ones((1, 4)))
    optimizer.update(model, gradients)
    assert optimizer.step == 1


@each_class
@pytest.mark.norm("inputs.tied")
def test_one_mlx_array_under_two_paths(made):
    w, model = mx.array([1.0, 2.0]), nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
    model.layers[1].weight = model.layers[0].weight
    words = "share memory; sum their gradients and give one path, or use apply_gradients"
    for tree, first, second in (
        ({"a": w, "b": w}, "a", "b"),
        ({"x": mx.array([1.0]), "l": [w, w]}, r"l\.0", r"l\.1"),
        (model, r"layers\.0\.weight", r"layers\.1\.weight"),
    ):
        given = tree.parameters() if isinstance(tree, nn.Module) else dict(tree)
        before, optimizer = _bits(given), made(0.1)
        with pytest.raises(ValueError, match=f"parameters {first} and {second} {words}"):
            optimizer.update(tree, given)
        assert _bits(tree.parameters() if isinstance(tree, nn.Module) else tree) == before
        assert optimizer.step == 0
        new = optimizer.apply_gradients(given, given)
        assert all(isinstance(leaf, mx.array) for _, leaf in utils.tree_flatten(new))
