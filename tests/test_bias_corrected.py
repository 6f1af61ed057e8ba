"""Adam and AdamW with bias correction beside MLX's `bias_correction=True`, whose coefficients are float32."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest

import mlx_optimizers as optim
from mlx_optimizers.backends import open_backend
from mlx_optimizers.conformance import cases_of, check
from mlx_optimizers.oracle import Exact, trajectory
from tests.expected import LATER
from tests.support import require

PAIRS = pytest.mark.parametrize(
    ("name", "plain"), [(name, name.removeprefix("BiasCorrected")) for name in LATER if "Adam" in name]
)


def in_mlx(name, *arguments, **given):
    """Make the optimizer of MLX."""
    theirs = require("mlx.optimizers")
    return getattr(theirs, name.removeprefix("BiasCorrected"))(*arguments, bias_correction=True, **given)


@PAIRS
def test_the_signature_is_that_of_the_uncorrected(name, plain):
    corrected, uncorrected = getattr(optim, name)(1e-3), getattr(optim, plain)(1e-3)
    assert repr(corrected) == repr(uncorrected).replace(plain, name, 1)
    assert issubclass(getattr(optim, name), getattr(optim, plain))
    assert optim.LATER.index(getattr(optim, name)) >= 0


@PAIRS
def test_the_first_steps_by_hand(name, plain):
    """With g = 2, then 2, m̂ = 2 and v̂ = 4 in every step, whatever the betas."""
    for betas in ((0.0, 0.0), (0.5, 0.75), (0.9, 0.999)):
        optimizer, w = getattr(optim, name)(0.5, betas=betas, eps=2.0, **_no_decay(plain)), np.float32(1)
        for expected in (0.75, 0.5, 0.25):
            w = optimizer.apply_gradients(np.float32(2), w)
            assert w == pytest.approx(expected, abs=9 * 2.0**-24)  # in 3 steps each 10 of ¼, and one of w


def _no_decay(plain):
    return {"weight_decay": 0.0} if plain == "AdamW" else {}


@PAIRS
def test_the_coefficients_are_those_of_the_step_that_is_counted(name, plain):
    optimizer = getattr(optim, name)(0.1, betas=(0.5, 0.75))
    for t in range(4):
        first, second = optimizer.coefficients(np.float32)[-7:-5]
        c1, c2 = 1 - Fraction(1, 2) ** max(t, 1), 1 - Fraction(3, 4) ** max(t, 1)
        assert first == np.float32(0.1 / float(c1)) and second == np.float32(float(1 / c2) ** 0.5)
        optimizer.update({"w": np.float32([1])}, {"w": np.float32([1])})


@PAIRS
def test_a_parameter_that_starts_later_is_corrected_by_the_step_of_the_optimizer(name, plain):
    optimizer, model = getattr(optim, name)(0.5, **_no_decay(plain)), {"a": np.float32([0]), "b": np.float32([0])}
    for _ in range(9):
        optimizer.update(model, {"a": np.float32([1])})
    with pytest.warns(RuntimeWarning, match="no state at step 9 for b"):
        optimizer.update(model, {"b": np.float32([1])})
    # m = 1 − β₁ and v = 1 − β₂, as in a first step; the correction is that of the tenth
    root = ((1 - 0.999) / (1 - 0.999**10)) ** 0.5
    assert model["b"][0] == pytest.approx(-0.5 * (1 - 0.9) / (1 - 0.9**10) / root, rel=16 * 2.0**-24)  # 11 roundings


@PAIRS
@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16", "float64"])
def test_a_step_continues_from_any_count(name, plain, dtype):
    """A state that is put in goes on from its step: one step from it is within the interval of the formula."""
    real = np.dtype(dtype if dtype != "bfloat16" else require("ml_dtypes").bfloat16)
    optimizer = getattr(optim, name)(2.0**-10, eps=2.0**-10)
    rng, w = np.random.default_rng(1), np.zeros(50, real)
    gradients = rng.uniform(0.5, 2, (3, 50)).astype(real)
    for g in gradients:
        w = optimizer.apply_gradients(g, w)
    entry = trajectory(name, np.zeros(50), gradients, dtype=dtype, learning_rate=2.0**-10, eps=2.0**-10)[-1]
    assert ((entry.parameter.low <= w) & (w <= entry.parameter.high)).all()
    other = getattr(optim, name)(2.0**-10, eps=2.0**-10)
    other.state = {**optimizer.state, "step": np.array(3000, np.uint64)}
    assert other.coefficients(real.type)[-7:-5] != optimizer.coefficients(real.type)[-7:-5]
    after = other.apply_gradients(gradients[0], w)
    assert other.step == 3001 and np.isfinite(after.astype(float)).all()


@PAIRS
def test_mlx_conforms_with_coefficients_in_float32_and_not_in_double(name, plain):
    require("mlx.core")
    backend, cases = open_backend("mlx"), cases_of(name)
    single = check(backend, cases, scalars="float32")
    assert {result.word for result in single.results} == {"conforms"} and len(single.results) >= 20
    assert check(backend, cases, scalars="double").counts()["deviates"] >= 8


@PAIRS
def test_the_state_and_one_step_of_mlx_from_it(name, plain):
    """The state is MLX's bit for bit; the parameter differs by the coefficients alone."""
    mx = require("mlx.core")
    rng = np.random.default_rng(3)
    w, gradients = rng.standard_normal(1000).astype(np.float32), rng.standard_normal((5, 1000)).astype(np.float32)
    with mx.stream(mx.cpu):
        ours, theirs = getattr(optim, name)(1e-2), in_mlx(name, 1e-2)
        model, parameters = {"w": w.copy()}, {"w": mx.array(w)}
        for g in gradients:
            ours.update(model, {"w": g})
            parameters = theirs.apply_gradients({"w": mx.array(g)}, parameters)
            mx.eval(parameters, theirs.state)
            for slot in ours.slots:
                assert np.array(theirs.state["w"][slot]).tobytes() == ours.state["w"][slot].tobytes()
        assert set(theirs.state) == set(ours.state)
        ours.state = theirs.state
        assert ours.step == 5
        entry = trajectory(name, w, gradients, scalars="float32", learning_rate=1e-2)[-1].parameter
        for values in (np.array(parameters["w"]), model["w"]):
            assert ((entry.low <= values) & (values <= entry.high)).all()


@PAIRS
def test_the_first_step_of_mlx_is_fifty_eight_units_off(name, plain):
    """1 − 0.999 in float32 is 1.3e-5 off; with g = 1 and w = 0 the step is λ."""
    mx = require("mlx.core")
    with mx.stream(mx.cpu):
        optimizer = in_mlx(name, 1e-3)
        got = np.array(optimizer.apply_gradients({"w": mx.array([1.0])}, {"w": mx.array([0.0])})["w"])
    ours = getattr(optim, name)(1e-3).apply_gradients(np.float32([1]), np.float32([0]))
    exact = trajectory(name, [0.0], [[1.0]], learning_rate=1e-3)[0].parameter
    with Exact().active():
        near = np.float32(float(exact.exact[0]))

    def units(x):
        return int(x.view(np.int32)[0]) - int(near.view(np.int32))

    assert abs(units(got)) == 58
    assert abs(units(ours)) <= 1


@PAIRS
def test_16_bits_stay_what_they_are(name, plain):
    """MLX before 0.26.5 made them float32."""
    mx = require("mlx.core")
    for dtype in (mx.float16, mx.bfloat16):
        model = {"w": mx.ones(2, dtype)}
        getattr(optim, name)(1e-2).update(model, {"w": mx.ones(2, dtype)})
        assert model["w"].dtype == dtype
