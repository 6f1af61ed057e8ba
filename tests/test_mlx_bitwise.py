"""The bits of MLX on the CPU: parameters and state, every hyperparameter varied.

MLX is installed and run, and shares nothing with the package; the settings of the runs come from tests/expected.py.
"""

from __future__ import annotations

import numpy as np
import pytest

import mlx_optimizers
from tests.expected import EIGHT, EXPECTED, each_name, each_of_eight
from tests.support import require

mx = require("mlx.core")
theirs = require("mlx.optimizers")

STEPS, ELEMENTS = 20, 20_000


CONFIGURATIONS = [(name, given) for name, expected in EXPECTED.items() for given in expected.bitwise]


def _data(seed):
    rng = np.random.default_rng(seed)
    gradients = np.exp(rng.uniform(np.log(1e-6), np.log(1e1), (STEPS, ELEMENTS))) * rng.choice(
        [-1, 1], (STEPS, ELEMENTS)
    )
    gradients[:, 0] = 0
    return rng.standard_normal(ELEMENTS).astype(np.float32), gradients.astype(np.float32)


def _bits(array):
    return np.array(array).view(np.uint32)


def test_every_hyperparameter_is_varied():
    assert len(CONFIGURATIONS) >= 64
    for expected in map(EXPECTED.__getitem__, EIGHT):
        for argument in expected.ranges:
            assert len({repr(given[argument]) for given in expected.bitwise}) > 1, argument


@pytest.mark.parametrize(("name", "hyperparameters"), CONFIGURATIONS)
def test_parameters_and_state_are_bitwise_equal(name, hyperparameters):
    w, gradients = _data(len(name))
    ours = getattr(mlx_optimizers, name)(**hyperparameters)
    mlx = getattr(theirs, name)(**hyperparameters)
    model = {"w": w.copy()}
    with mx.stream(mx.cpu), np.errstate(invalid="ignore"):  # 0/0 where ε = 0, in both
        parameters = {"w": mx.array(w)}
        for gradient in gradients:
            ours.update(model, {"w": gradient})
            parameters = mlx.apply_gradients({"w": mx.array(gradient)}, parameters)
            mx.eval(parameters, mlx.state)
            assert np.array_equal(_canonical(model["w"]), _canonical(parameters["w"]))
            for slot in ours.slots:
                assert np.array_equal(_bits(ours.state["w"][slot]), _bits(mlx.state["w"][slot])), slot


def _canonical(array):
    """Read the bits, with one pattern for every NaN: the sign of 0/0 is the processor's choice."""
    values = np.array(array)
    return np.where(np.isnan(values), np.uint32(0x7FC00000), values.view(np.uint32))


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
@pytest.mark.parametrize(("name", "hyperparameters"), [CONFIGURATIONS[i] for i in range(0, len(CONFIGURATIONS), 3)])
def test_in_half_precision_too(name, hyperparameters, dtype):
    """Where ε or 1−β₂ rounds to 0 MLX goes wrong in the same elements, and by the same bits."""
    real = np.dtype(dtype if dtype == "float16" else require("ml_dtypes").bfloat16)

    def to_mlx(array):
        return mx.array(array.view(np.uint16)).view(getattr(mx, dtype))

    def same(ours, mlx):
        left, right = ours, np.array(mlx.view(mx.uint16)).view(real)
        nan = np.isnan(left)
        return np.array_equal(nan, np.isnan(right)) and left[~nan].tobytes() == right[~nan].tobytes()

    w, gradients = (array.astype(real) for array in _data(len(name)))
    ours = getattr(mlx_optimizers, name)(**hyperparameters)
    mlx = getattr(theirs, name)(**hyperparameters)
    model = {"w": w[:2000].copy()}
    with mx.stream(mx.cpu), np.errstate(all="ignore"):
        parameters = {"w": to_mlx(w[:2000])}
        for gradient in gradients[:8, :2000]:
            ours.update(model, {"w": gradient})
            parameters = mlx.apply_gradients({"w": to_mlx(gradient)}, parameters)
            mx.eval(parameters, mlx.state)
            assert same(model["w"], parameters["w"])
            assert all(same(ours.state["w"][slot], mlx.state["w"][slot]) for slot in ours.slots)


@each_of_eight
def test_a_schedule_of_mlx_drives_both_alike(name):
    w, gradients = _data(7)
    with mx.stream(mx.cpu):
        schedule = theirs.cosine_decay(0.1, STEPS)
        ours, mlx = getattr(mlx_optimizers, name)(schedule), getattr(theirs, name)(schedule)
        model, parameters = {"w": w.copy()}, {"w": mx.array(w)}
        for gradient in gradients:
            ours.update(model, {"w": gradient})
            parameters = mlx.apply_gradients({"w": mx.array(gradient)}, parameters)
            mx.eval(parameters, mlx.state)
        assert np.array_equal(_bits(model["w"]), _bits(parameters["w"]))


@each_of_eight
def test_updating_a_module_gives_what_mlx_gives(name):
    nn = require("mlx.nn")
    mx.random.seed(3)
    with mx.stream(mx.cpu):
        models = [nn.Sequential(nn.Linear(5, 4), nn.ReLU(), nn.Linear(4, 3)) for _ in range(2)]
        models[1].update(models[0].parameters())
        x, y = mx.random.normal((8, 5)), mx.random.normal((8, 3))
        optimizers = [getattr(module, name)(0.05) for module in (mlx_optimizers, theirs)]
        for model, optimizer in zip(models, optimizers, strict=True):
            step = nn.value_and_grad(model, lambda m: ((m(x) - y) ** 2).mean())
            for _ in range(5):
                _, gradients = step(model)
                optimizer.update(model, gradients)
                mx.eval(model.parameters())
        for key in ("weight", "bias"):
            for layer in (0, 2):
                left, right = (model["layers"][layer][key] for model in models)
                assert isinstance(left, mx.array)
                assert np.array_equal(_bits(left), _bits(right))
        keys = [set(optimizer.state) for optimizer in optimizers]
        assert keys[0] == keys[1]


@each_name
def test_bfloat16_arrays_of_mlx_come_back_as_such(name):
    require("ml_dtypes")
    ours = getattr(mlx_optimizers, name)(0.05)
    model = {"w": mx.zeros(2, mx.bfloat16)}
    ours.update(model, {"w": mx.array([0.5, 0.25], mx.bfloat16)})
    assert model["w"].dtype == mx.bfloat16
    assert ours.state["w"][ours.slots[0]].dtype == mx.bfloat16
    assert not np.array_equal(np.array(model["w"].astype(mx.float32)), [0.0, 0.0])


@each_of_eight
@pytest.mark.norm("inputs.mlx")
def test_a_view_of_an_mlx_array_is_never_written_to(name):
    given, gradient = mx.array([1.0, 2.0]), mx.array([1.0, -1.0])
    model, expected = {"w": given}, {"w": mx.array([1.0, 2.0])}
    getattr(mlx_optimizers, name)(0.5).update(model, {"w": gradient})
    with mx.stream(mx.cpu):
        expected = getattr(theirs, name)(0.5).apply_gradients({"w": gradient}, expected)
    assert (given.tolist(), gradient.tolist()) == ([1.0, 2.0], [1.0, -1.0])
    assert model["w"].tolist() == expected["w"].tolist() != [1.0, 2.0]


@pytest.mark.norm("inputs.mlx-view")
def test_nor_to_one_that_is_given_as_a_parameter_or_a_slot():
    array = mx.array([1.0, 2.0])
    view = np.asarray(array)
    assert np.shares_memory(view, np.asarray(array)) and view.flags.writeable
    gradient = np.float32([1.0, 1.0])
    for part in (view, view[::-1]):
        with pytest.raises(ValueError, match="parameter w is a view of an MLX array, which is never written to"):
            mlx_optimizers.SGD(0.5).update({"w": part}, {"w": gradient})
        new = mlx_optimizers.SGD(0.5).apply_gradients({"w": gradient}, {"w": part})
        assert new["w"].tolist() == (part - 0.5).tolist()
    optimizer, model = mlx_optimizers.SGD(1.0, momentum=0.5), {"w": np.zeros(2, np.float32)}
    optimizer.state["w"]["v"] = view
    optimizer.update(model, {"w": gradient})
    assert optimizer.state["w"]["v"].tolist() == [1.5, 2.0]
    assert array.tolist() == [1.0, 2.0]


def test_mlx_state_can_be_taken_over():
    w, gradients = _data(11)
    with mx.stream(mx.cpu):
        mlx, parameters = theirs.AdamW(0.01), {"w": mx.array(w)}
        for gradient in gradients[:10]:
            parameters = mlx.apply_gradients({"w": mx.array(gradient)}, parameters)
        ours, model = mlx_optimizers.AdamW(0.01), {"w": np.array(parameters["w"])}
        ours.state = mlx.state
        assert ours.step == 10
        for gradient in gradients[10:]:
            parameters = mlx.apply_gradients({"w": mx.array(gradient)}, parameters)
            ours.update(model, {"w": gradient})
        assert np.array_equal(_bits(model["w"]), _bits(parameters["w"]))


@each_of_eight
@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_both_recipes_for_gradients_in_16_bits_give_all_bits(name, dtype):
    """MLX with gradients that are cast, and this package with steps from zero, as in the guide to half precision."""
    require("ml_dtypes")
    real = getattr(mx, dtype)
    w, values = _data(5)
    settings = [{"weight_decay": 0.0}, {"weight_decay": 0.3}] if name in ("AdamW", "Lion") else [{}]
    with mx.stream(mx.cpu), np.errstate(all="ignore"):
        start, gradients = mx.array(w), [mx.array(row).astype(real) for row in values]
        for given in settings:
            plain, cast, ours, steps = (
                getattr(module, name)(0.05, **given) for module in (theirs, theirs, *[mlx_optimizers] * 2)
            )
            keep = 1 - mx.array(0.05, real) * given.get("weight_decay", 0.0)
            mixed, recast, here, added = {"w": start}, {"w": start}, {"w": start}, start
            for g in gradients:
                mixed = plain.apply_gradients({"w": g}, mixed)
                recast = cast.apply_gradients({"w": g.astype(mx.float32)}, recast)
                here = ours.apply_gradients({"w": g}, here)
                added = added * keep + steps.apply_gradients({"w": g}, {"w": mx.zeros_like(g)})["w"]
                mx.eval(mixed, recast, here, added, plain.state, cast.state)
            assert np.array_equal(_canonical(recast["w"]), _canonical(here["w"]))
            assert np.array_equal(_canonical(added), _canonical(mixed["w"]))
            assert not np.array_equal(_canonical(added), _canonical(here["w"]))


@pytest.mark.parametrize("given", [{}, {"momentum": 0.9}, {"momentum": 0.9, "nesterov": True}])
def test_sgd_with_weight_decay_has_float32_gradients_in_both(given):
    w, values = _data(6)
    with mx.stream(mx.cpu):
        optimizers = [module.SGD(0.05, weight_decay=0.1, **given) for module in (theirs, mlx_optimizers)]
        models = [{"w": mx.array(w)}, {"w": mx.array(w)}]
        for row in values:
            g = {"w": mx.array(row).astype(mx.bfloat16)}
            models = [optimizer.apply_gradients(g, model) for optimizer, model in zip(optimizers, models, strict=True)]
            mx.eval(models, optimizers[0].state)
        assert np.array_equal(_bits(models[0]["w"]), _bits(models[1]["w"]))
