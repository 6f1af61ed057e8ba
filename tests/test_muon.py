"""Muon: its steps by hand and beside MLX's, every kind of shape, and what MLX does that surprises."""

from __future__ import annotations

import dataclasses
import inspect
import itertools
import math

import numpy as np
import pytest

import mlx_optimizers as optim
from mlx_optimizers import checkpoint
from mlx_optimizers.backends import open_backend
from mlx_optimizers.conformance import Run, cases_of, check
from mlx_optimizers.conformance.cases import recast
from mlx_optimizers.conformance.check import _verdict
from mlx_optimizers.conformance.verdict import can_decide, judge
from mlx_optimizers.muon import Muon, scale
from mlx_optimizers.newton_schulz import COEFFICIENTS, EPS, newton_schulz
from mlx_optimizers.oracle import Double, Rounded, format_of
from mlx_optimizers.oracle.formulas import parse, variants
from mlx_optimizers.oracle.newton_schulz import CONSISTENT, certified
from tests.programs import Nearest, Stepped
from tests.support import require

pytestmark = pytest.mark.usefixtures("remembered")

SHAPES = [
    (), (1,), (7,), (1, 1), (1, 6), (6, 1), (2, 3), (6, 4), (16, 16), (40, 8), (2, 6, 3), (2, 50, 3), (5, 1, 1),
    (8, 3, 3, 3), (3, 2, 2, 2), (2, 1, 2, 1, 3),
]  # fmt: skip


def in_double(matrix, steps=5):
    """Newton–Schulz as the guide has it, in float64."""
    if matrix.shape[0] > matrix.shape[1]:
        return in_double(matrix.T, steps).T
    a, b, c = COEFFICIENTS
    x = matrix / (math.sqrt((matrix**2).sum()) + EPS)
    for _ in range(steps):
        x = a * x + (b * (x @ x.T) + c * (x @ x.T @ x @ x.T)) @ x
    return x


# Newton–Schulz


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("shape", [(1, 1), (1, 6), (6, 1), (2, 3), (6, 4), (16, 16), (3, 40)])
def test_newton_schulz_is_within_its_bound(shape, dtype):
    for seed, steps in itertools.product(range(3), (0, 1, 5, 8)):
        d = np.random.default_rng(seed).normal(size=shape).astype(dtype)
        before, got = d.copy(), newton_schulz(d, steps)
        assert got.dtype == dtype and got.shape == shape and np.array_equal(d, before)
        expected = in_double(d.astype(np.float64), steps)
        _, radius = certified(Double(), format_of(dtype), d.astype(np.float64), np.zeros(shape), steps)
        # in_double has float64's own error, which certified grants the centre
        assert np.linalg.norm(got - expected) <= radius


def test_a_layout_does_not_change_newton_schulz():
    d = np.random.default_rng(0).normal(size=(12, 18)).astype(np.float32)
    expected = newton_schulz(d[::2, ::3].copy())
    for view in (d[::2, ::3], np.asfortranarray(d[::2, ::3])):
        assert np.allclose(newton_schulz(view), expected, rtol=0, atol=1e-5)
    assert np.allclose(newton_schulz(d[::2, ::3].T), expected.T, rtol=0, atol=1e-5)


def test_newton_schulz_of_zero_and_of_nothing():
    for shape in ((2, 3), (3, 2), (0, 3), (3, 0), (0, 0)):
        for dtype in (np.float32, np.float16):
            got = newton_schulz(np.zeros(shape, dtype))
            assert got.shape == shape and got.dtype == dtype and not got.any()


def test_newton_schulz_needs_two_axes():
    for shape in ((), (3,), (2, 2, 2)):
        with pytest.raises(ValueError, match="needs an array of two axes, not of shape"):
            newton_schulz(np.ones(shape, np.float32))


def test_what_is_no_number_fills_the_matrix():
    d = np.ones((2, 3), np.float32)
    d[0, 0] = np.nan
    assert np.isnan(newton_schulz(d)).all()
    d[0, 0] = 2e19  # whose square is infinite: the others are divided by it
    assert not newton_schulz(d).any()


# The class


def test_the_signature_is_that_of_mlx():
    theirs = inspect.signature(require("mlx.optimizers").Muon).parameters
    ours = inspect.signature(Muon).parameters
    assert [(x.name, x.default) for x in ours.values()] == [(x.name, x.default) for x in theirs.values()]


def test_the_representation_and_the_attributes():
    optimizer = Muon(0.5)
    assert repr(optimizer) == "Muon(learning_rate=0.5, momentum=0.95, weight_decay=0.01, nesterov=True, ns_steps=5)"
    optimizer.ns_steps = np.int64(3)
    assert optimizer.ns_steps == 3 and type(optimizer.ns_steps) is int


@pytest.mark.parametrize(
    ("given", "error", "words"),
    [
        ({"momentum": -0.1}, ValueError, "momentum must be at least 0, not -0.1"),
        ({"momentum": math.nan}, ValueError, "momentum must be finite, not nan"),
        ({"weight_decay": -1}, ValueError, "weight_decay must be at least 0, not -1.0"),
        ({"nesterov": 1}, TypeError, "nesterov must be True or False, not 1"),
        ({"ns_steps": -1}, ValueError, "ns_steps must be a whole number, at least 0, not -1"),
        ({"ns_steps": 2.5}, ValueError, "ns_steps must be a whole number, at least 0, not 2.5"),
        ({"ns_steps": True}, TypeError, "ns_steps must be a number, not True"),
        ({"ns_steps": "5"}, TypeError, "ns_steps must be a number, not '5'"),
        ({"learning_rate": -1}, ValueError, "learning_rate must be at least 0, not -1.0"),
    ],
)
def test_what_is_refused(given, error, words):
    with pytest.raises(error, match=words):
        Muon(**{"learning_rate": 0.1, **given})
    optimizer = Muon(0.1)
    for name, value in given.items():
        with pytest.raises(error, match=words):
            setattr(optimizer, name, value)
    assert repr(optimizer) == repr(Muon(0.1))


@pytest.mark.parametrize("nesterov", [True, False])
def test_without_axes_the_step_is_momentum_by_hand(nesterov):
    """μ = ½ and κ = ½, with w = 2 and then w₁: every number is exact."""
    optimizer, w = Muon(0.25, momentum=0.5, weight_decay=0.5, nesterov=nesterov), np.float32([2])
    optimizer.update(w, np.float32([3]))  # h = 3 + ½·2 = 4, v = ½·4 = 2
    d = 0.5 * 4 + 0.5 * 2 if nesterov else 2
    assert optimizer.state["v"] == 2 and w == 2 - 0.25 * d
    first = w.item()
    optimizer.update(w, np.float32([1]))
    h = 1 + 0.5 * first
    v = 0.5 * 2 + 0.5 * h
    assert optimizer.state["v"] == v and w == first - 0.25 * (0.5 * h + 0.5 * v if nesterov else v)


@pytest.mark.parametrize("nesterov", [True, False])
@pytest.mark.parametrize("shape", [shape for shape in SHAPES if len(shape) >= 2])
def test_a_step_is_within_its_bound(shape, nesterov):
    """The direction has an exact value here, so that only Newton–Schulz and the last two operations round."""
    rng = np.random.default_rng(1)
    g = rng.integers(-8, 9, shape) + 0.5
    optimizer = Muon(0.5, momentum=0.5, weight_decay=0.0, nesterov=nesterov)
    w = optimizer.apply_gradients(np.float32(g), np.zeros(shape, np.float32))
    d = 0.5 * g + 0.25 * g if nesterov else 0.5 * g
    matrix = d.reshape(shape[0], -1)
    x, radius = certified(Double(), format_of("float32"), matrix, np.zeros(matrix.shape))
    rate = 0.5 * max(1, shape[-2] / shape[-1]) ** 0.5
    error = np.linalg.norm(w.reshape(matrix.shape) + rate * x)
    assert error <= rate * (radius + 3 * 1.5 * 2.0**-24 * (np.linalg.norm(x) + radius))  # √, λ times it, and times X


def compare(shape, steps=3, dtype="float32", **given):
    """Step ours and MLX's from one start; yield both after each step, as float64, and the states."""
    mx, theirs = require("mlx.core"), require("mlx.optimizers")
    real = np.dtype(dtype if dtype != "bfloat16" else require("ml_dtypes").bfloat16)

    def to_mlx(array):
        return mx.array(array.astype(np.float32)).astype(getattr(mx, dtype))

    def to_numpy(array):
        return np.array(array.astype(mx.float32)).astype(np.float64)

    with mx.stream(mx.cpu):
        rng = np.random.default_rng(len(shape))
        w = rng.normal(size=shape).astype(real)
        ours, other = Muon(0.02, **given), theirs.Muon(0.02, **given)
        mine, their = {"w": w}, {"w": to_mlx(w)}
        for _ in range(steps):
            g = rng.normal(size=shape).astype(real)
            mine = ours.apply_gradients({"w": g}, mine)
            their = other.apply_gradients({"w": to_mlx(g)}, their)
            yield mine["w"].astype(np.float64), to_numpy(their["w"]), ours.state["w"]["v"], other.state["w"]["v"]


@pytest.mark.parametrize("nesterov", [True, False])
@pytest.mark.parametrize("weight_decay", [0.0, 0.1])
@pytest.mark.parametrize("shape", [(), (1,), (7,)])
def test_without_axes_the_bits_are_those_of_mlx(shape, weight_decay, nesterov):
    for ours, theirs, v, their_v in compare(shape, weight_decay=weight_decay, nesterov=nesterov):
        assert np.array_equal(ours, theirs) and np.array_equal(v, np.array(their_v))


@pytest.mark.parametrize("nesterov", [True, False])
@pytest.mark.parametrize("weight_decay", [0.0, 0.1])
@pytest.mark.parametrize("shape", [shape for shape in SHAPES if len(shape) >= 2])
def test_both_are_within_the_bound_of_a_step_from_one_state(shape, weight_decay, nesterov):
    """Each step starts from MLX's parameter and momentum, which ours then has bit for bit."""
    mx, theirs = require("mlx.core"), require("mlx.optimizers")
    form, rng = format_of("float32"), np.random.default_rng(len(shape))
    w = rng.normal(size=shape).astype(np.float32)
    given = {"weight_decay": weight_decay, "nesterov": nesterov}
    with mx.stream(mx.cpu):
        other, v = theirs.Muon(0.02, **given), np.zeros_like(w)
        for t in range(3):
            g, ours = rng.normal(size=shape).astype(np.float32), Muon(0.02, **given)
            ours.state = {"v": v, "step": t, "learning_rate": np.float32(0.02)}
            mine = ours.apply_gradients(g, w)
            their = np.array(other.apply_gradients({"w": mx.array(g)}, {"w": mx.array(w)})["w"])
            n = Rounded(form, Double())
            with n.active():
                old, rest = n.array(v), n.number(1 - 0.95)
                h = n.array(g) + n.number(weight_decay) * n.array(w)
                new = n.number(0.95) * old + rest * h
                d = rest * h + n.number(0.95) * new if nesterov else new
            matrix = (shape[0], -1)
            centre, radius = certified(Double(), form, *(x.reshape(matrix) for x in (d.centre.values, d.radius)))
            rate, u = 0.02 * scale(shape), form.roundoff
            exact = w.reshape(matrix).astype(np.float64) - rate * centre
            # λ, √ and both products round, and then the difference
            own = 4 * u * rate * (np.linalg.norm(centre) + radius) + u * (np.linalg.norm(exact) + 2 * rate * radius)
            for got in (mine, their):
                assert np.linalg.norm(got.reshape(matrix) - exact) <= rate * radius + own
            w, v = their, np.array(other.state["w"]["v"])
            assert np.array_equal(ours.state["v"], v)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
@pytest.mark.parametrize("shape", SHAPES)
def test_16_bits_are_those_of_mlx(shape, dtype):
    """Also the products of matrices, which add exact products of 16 bits in float32, and round the sum once."""
    for nesterov in (True, False):
        for ours, theirs, v, their_v in compare(shape, dtype=dtype, nesterov=nesterov):
            assert np.array_equal(ours, theirs)
            assert np.array_equal(v.astype(np.float32), np.array(their_v.astype(require("mlx.core").float32)))


@pytest.mark.parametrize("ns_steps", [0, 1, 7])
def test_other_numbers_of_steps_have_the_bits_of_mlx_in_16_bits(ns_steps):
    for ours, theirs, _, _ in compare((4, 6), dtype="float16", ns_steps=ns_steps):
        assert np.array_equal(ours, theirs)


def test_more_axes_are_one_matrix_with_the_scale_of_the_last_two():
    """(2, 50, 3) is 2 × 150 for Newton–Schulz, and scaled by √(50/3): in MLX too."""
    assert scale((2, 50, 3)) == (50 / 3) ** 0.5 and scale((2, 3, 50)) == 1
    g = np.random.default_rng(0).normal(size=(2, 50, 3)).astype(np.float32)
    given = {"momentum": 0.0, "nesterov": False, "weight_decay": 0.0}
    w = Muon(1.0, **given).apply_gradients(g, np.zeros_like(g))
    flat = Muon(1.0, **given).apply_gradients(g.reshape(2, 150), np.zeros((2, 150), np.float32))
    assert np.allclose(w.reshape(2, 150), flat * 4.0824829, rtol=1e-5, atol=0)


@pytest.mark.parametrize("shape", [(0,), (3, 0), (0, 3), (2, 0, 3), (2, 3, 0), (0, 2, 3)])
def test_empty_arrays_stay(shape):
    optimizer, empty = Muon(0.1), np.zeros(shape, np.float32)
    w = optimizer.apply_gradients(empty, empty)
    assert w.shape == shape and w.dtype == np.float32 and optimizer.state["v"].shape == shape


def test_mlx_fails_on_some_empty_arrays():
    mx, theirs = require("mlx.core"), require("mlx.optimizers")
    with pytest.raises(ZeroDivisionError):
        theirs.Muon(0.1).apply_gradients({"w": mx.zeros((3, 0))}, {"w": mx.zeros((3, 0))})


@pytest.mark.parametrize("name", ["float16", "bfloat16", "float32", "float64"])
def test_dtypes_are_kept(name):
    real = np.dtype(name if name != "bfloat16" else require("ml_dtypes").bfloat16)
    optimizer, model = Muon(0.1), {"a": np.ones((2, 3), real), "b": np.ones(3, real), "c": np.ones((), real)}
    optimizer.update(model, {key: value * real.type(2) for key, value in model.items()})
    assert {value.dtype for value in model.values()} == {real}
    assert all(optimizer.state[key]["v"].dtype == real for key in model)
    assert all((value < 1).any() for value in model.values())


def test_the_length_of_a_gradient_plays_no_part():
    g = np.random.default_rng(2).normal(size=(4, 6)).astype(np.float32)
    steps = [Muon(0.1).apply_gradients(g * np.float32(factor), np.zeros_like(g)) for factor in (1, 2.0**10, 2.0**20)]
    for step in steps[1:]:
        assert np.allclose(step, steps[0], rtol=1e-4, atol=1e-6)


def test_it_changes_parameters_in_place_whatever_their_layout():
    g = np.random.default_rng(3).normal(size=(4, 6)).astype(np.float32)
    expected = Muon(0.1).apply_gradients(g, np.ones((4, 6), np.float32))
    for w in (np.ones((4, 6), np.float32), np.ones((6, 4), np.float32).T, np.ones((8, 12), np.float32)[::2, ::2]):
        before = g.copy()
        Muon(0.1).update(w, g)
        assert np.array_equal(w, expected) and np.array_equal(g, before)


def test_an_alias_of_the_gradient_gives_the_same():
    expected = Muon(0.1).apply_gradients(np.eye(3, dtype=np.float32), np.eye(3, dtype=np.float32))
    w = np.eye(3, dtype=np.float32)
    Muon(0.1).update(w, w)
    assert np.array_equal(w, expected)


def test_what_is_no_number_stays_in_its_parameter():
    model = {"a": np.ones((2, 2), np.float32), "b": np.ones((2, 2), np.float32)}
    Muon(0.1).update(model, {"a": np.float32([[np.nan, 1], [1, 1]]), "b": np.ones((2, 2), np.float32)})
    assert np.isnan(model["a"]).all() and np.isfinite(model["b"]).all()


def test_a_schedule_and_a_copy():
    optimizer = Muon(lambda updates: 0.5 if int(updates) == 0 else 0.25, momentum=0.0, weight_decay=0.0)
    w, g = np.zeros(1, np.float32), np.ones(1, np.float32)
    steps = [optimizer.apply_gradients(g, w).item() for _ in range(2)]
    assert steps == [-0.5, -0.25] and optimizer.step == 2


def test_it_goes_on_from_a_checkpoint(tmp_path):
    require("safetensors")
    rng = np.random.default_rng(4)
    model, optimizer = {"layer": [rng.normal(size=(4, 6)).astype(np.float32)]}, Muon(0.1)
    gradients = [{"layer": [rng.normal(size=(4, 6)).astype(np.float32)]} for _ in range(4)]
    for g in gradients[:2]:
        optimizer.update(model, g)
    checkpoint.save(tmp_path / "muon.safetensors", optimizer)
    other, start = Muon(0.1), {"layer": [model["layer"][0].copy()]}
    checkpoint.load(tmp_path / "muon.safetensors", other)
    for g in gradients[2:]:
        optimizer.update(model, g)
        other.update(start, g)
    assert np.array_equal(model["layer"][0], start["layer"][0]) and other.step == 4


def test_it_updates_a_model_of_mlx():
    mx, nn = require("mlx.core"), require("mlx.nn")
    with mx.stream(mx.cpu):
        model = nn.Linear(6, 4)
        before = np.array(model.weight)
        ours = Muon(0.1)
        ours.update(model, {"weight": mx.ones((4, 6)), "bias": mx.ones(4)})
        assert isinstance(model.weight, mx.array) and not np.array_equal(np.array(model.weight), before)
        assert isinstance(ours.state["weight"]["v"], mx.array)


def test_it_takes_matrices_and_another_takes_the_rest():
    model = {"w": np.ones((2, 3), np.float32), "b": np.ones(3, np.float32)}
    both = optim.MultiOptimizer([Muon(0.1), optim.SGD(0.5)], [lambda path, parameter: parameter.ndim >= 2])
    both.update(model, {"w": np.ones((2, 3), np.float32), "b": np.ones(3, np.float32)})
    assert np.array_equal(model["b"], np.float32([0.5] * 3)) and (model["w"] < 1).all()


def test_torch_has_another_formula():
    """Decoupled weight decay, and Newton–Schulz in bfloat16: the same direction, and no more."""
    torch = require("torch")
    d = np.random.default_rng(5).normal(size=(4, 6)).astype(np.float32)
    w = torch.nn.Parameter(torch.zeros(4, 6))
    w.grad = torch.tensor(d)
    torch.optim.Muon([w], lr=1.0, weight_decay=0.0).step()
    ours = Muon(1.0, weight_decay=0.0).apply_gradients(d, np.zeros_like(d))
    apart = np.linalg.norm(w.detach().numpy() - ours) / np.linalg.norm(ours)
    assert 1e-4 < apart < 0.15


# The checker: libraries

CASES = cases_of("Muon")
MATRICES = [case for case in CASES if case.parameter.ndim == 2]
CLAIMS = {
    "torch": "Muon[eps=least,precision=bfloat16,weight_decay=decoupled]",
    "optax": "Muon[bias_correction=true,eps=1e-08,scale=columns,weight_decay=decoupled]",
    "keras": "Muon[buffer=sum,scale=rms,weight_decay=decoupled]",
}
LIBRARIES = {"mlx": "mlx.core", "keras": "mlx_optimizers.backends.keras"}  # alone, Keras would look for TensorFlow


def opened(name):
    if name != "reference":
        require(LIBRARIES.get(name, name))
    return open_backend(name)


@pytest.mark.parametrize("name", ["reference", "mlx"])
@pytest.mark.usefixtures("mpfr")
def test_every_case_conforms(name):
    results = check(opened(name), CASES).results
    assert [r.case.id for r in results if not r.conforms] == []
    assert all({*r.excesses} == {"parameter", "v"} for r in results)
    normwise = [r.norm for r in results if r.norm is not None]
    still = [case for case in CASES if case.hyperparameters["learning_rate"] == 0]  # the parameter stays as it is
    assert len(normwise) == len([case for case in CASES if case.parameter.ndim > 1]) - len(still)
    assert all(0 <= norm["got"] < norm["bound"] for norm in normwise)


@pytest.mark.parametrize("name", ["optax", "keras"])
def test_optax_and_keras_compute_what_they_claim(name):
    results = check(opened(name), CASES).results
    assert {r.formula.name for r in results} == {CLAIMS[name]}
    told = {r.case.id for r in results if r.conforms or r.informative}  # Keras adds to its buffer what it takes off
    assert told == {case.id for case in MATRICES}
    assert {r.case.label for r in results if r.informative} <= {"momentum=0.0"}
    assert {r.word for r in results} == {"conforms", "unsupported"}


def test_torch_is_consistent_with_what_it_claims_and_never_conforms():
    results = check(opened("torch"), CASES).results
    assert {r.word for r in results} == {"unsupported"} and {r.formula.name for r in results} == {CLAIMS["torch"]}
    measured = [r for r in results if r.distance is not None]
    assert len(measured) >= 20 and all(r.reason.startswith("consistent: ") for r in measured)
    assert max(r.distance for r in measured) <= CONSISTENT


@pytest.mark.slow
@pytest.mark.parametrize("name", ["torch", "keras"])
def test_torch_and_keras_held_to_the_formula_of_the_page_deviate_and_are_named(name):
    report = check(opened(name), CASES, formula="Muon")
    assert report.status == 1
    assert report.diagnoses["Muon"].formulas == [CLAIMS[name]]


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
@pytest.mark.parametrize("name", ["reference", "mlx"])
@pytest.mark.usefixtures("mpfr")
def test_in_16_bits_a_right_program_is_consistent(name, dtype):
    if dtype == "bfloat16":
        require("ml_dtypes")
    for r in check(opened(name), [recast(case, dtype) for case in CASES]).results:
        if r.case.regime == "vector":
            assert r.conforms
            continue
        outside = ("tiny", "wide", "small", "large")  # their squares are 0 or infinite
        untold = dtype == "float16" and r.case.regime in outside
        told = "nothing can be told: squares leave the range" if untold else "consistent: "
        if r.case.hyperparameters["learning_rate"] == 0 and not untold:
            told = "nothing can be told: no step has a matrix of full rank"  # it does not move
        assert r.word == "unsupported" and r.reason.startswith(told), (r.case.id, r.reason)


@pytest.mark.usefixtures("mpfr")
def test_in_float64_all_conforms():
    cases = [recast(case, "float64") for case in CASES if case.regime in ("plain", "tall", "stack", "vector")]
    assert check(opened("reference"), cases).status == 0


@pytest.mark.usefixtures("mpfr")
def test_a_wrong_program_in_16_bits_is_not_consistent_and_deviates_where_it_is_asked_for():
    cases = [recast(case, "float16") for case in CASES if case.regime == "plain"]

    class Longer:
        name, version, device = "longer", "1", "cpu"

        def claim(self, optimizer):
            return optimizer

        def run(self, case):
            more = {**case.hyperparameters, "ns_steps": case.hyperparameters["ns_steps"] + 1}
            made = open_backend("reference").run(dataclasses.replace(case, hyperparameters=more))
            return Run(case, made.parameters, made.state)

    told = check(Longer(), cases).results
    assert all(r.word == "unsupported" and r.reason.startswith("not consistent: ") for r in told)
    answer = Longer().run(cases[0]), parse("Muon")
    assert _verdict(answer, ("double",), asked=True).word == "deviates"


# The checker: wrong programs, one thing changed in the step below, which is right


def right(h, t, w, g, slots):
    mu = h["momentum"]
    g = g + h["weight_decay"] * w
    v = mu * slots["v"] + (1 - mu) * g
    slots["v"] = v
    d = (1 - mu) * g + mu * v if h["nesterov"] else v
    rate = h["learning_rate"]
    if w.ndim > 1:
        x = d.reshape(w.shape[0], -1)
        x = x.T if x.shape[0] > x.shape[1] else x
        turned = x.shape[1] == w.shape[0] and x.shape[0] != w.shape[0]
        x = x / (np.sqrt(np.sum(x * x)) + 1e-7)
        for _ in range(h["ns_steps"]):
            a = x @ x.T
            x = 3.4445 * x + (-4.7750 * a + 2.0315 * (a @ a)) @ x
        d = (x.T if turned else x).reshape(w.shape)
        rate = rate * max(1, w.shape[-2] / w.shape[-1]) ** 0.5
    return w - rate * d


WRONG = {
    "a = 3.4": ("3.4445", "3.4"),
    "b off by 0.1 %": ("-4.7750", "-4.7798"),
    "c to one decimal": ("2.0315", "2.0"),
    "c for b": ("(-4.7750 * a + 2.0315 * (a @ a))", "(-4.7750 * (a @ a) + 2.0315 * a)"),
    "a step more": ('range(h["ns_steps"])', 'range(h["ns_steps"] + 1)'),
    "a step less": ('range(h["ns_steps"])', 'range(h["ns_steps"] - 1)'),
    "always five steps": ('range(h["ns_steps"])', "range(5)"),
    "ε 1e-8": ("+ 1e-7", "+ 1e-8"),
    "no ε": (" + 1e-7", ""),
    "ε inside the root": ("np.sqrt(np.sum(x * x)) + 1e-7", "np.sqrt(np.sum(x * x) + 1e-14)"),
    "spectral norm": ("np.sqrt(np.sum(x * x))", "np.linalg.norm(x, 2)"),
    "root mean square": ("np.sum(x * x)", "np.mean(x * x)"),
    "not turned back": ("x.T if turned else x)", "x)"),
    "the last axes flattened": ("d.reshape(w.shape[0], -1)", "d.reshape(-1, w.shape[-1])"),
    "columns over rows": ("w.shape[-2] / w.shape[-1]", "w.shape[-1] / w.shape[-2]"),
    "the flattened scale": ("w.shape[-2] / w.shape[-1]", "w.shape[0] / (w.size / w.shape[0])"),
    "no scale": (" * max(1, w.shape[-2] / w.shape[-1]) ** 0.5", ""),
    "no root in the scale": (") ** 0.5", ")"),
    "the scale below 1 too": ("max(1, w.shape[-2] / w.shape[-1])", "(w.shape[-2] / w.shape[-1])"),
    "scale of Moonlight": ("max(1, w.shape[-2] / w.shape[-1]) ** 0.5", "0.2 * max(w.shape) ** 0.5"),
    "no look-ahead": (' if h["nesterov"] else v', " if False else v"),
    "look-ahead by g": ("(1 - mu) * g + mu * v if", "g + mu * v if"),
    "a sum": ("+ (1 - mu) * g\n", "+ g\n"),
    "decoupled decay": ("return w - rate * d", 'return (1 - h["learning_rate"] * h["weight_decay"]) * w - rate * d'),
    "no decay": ('g + h["weight_decay"] * w', "g"),
    "decay after the momentum": ("g = g + h", "d = g + h"),
    "never orthogonal": ("w.ndim > 1", "w.ndim > 9"),
}
WRONG["decoupled decay"] = (
    '    g = g + h["weight_decay"] * w',
    '    w = w - h["learning_rate"] * h["weight_decay"] * w',
)
del WRONG["decay after the momentum"]


@pytest.mark.parametrize("real", [np.float32, np.float64])
@pytest.mark.usefixtures("mpfr")
def test_a_right_program_conforms_in_either_precision(real):
    assert check(Stepped(right, real, state=True), CASES).status == 0


@pytest.mark.parametrize("name", WRONG)
@pytest.mark.usefixtures("mpfr")
def test_a_wrong_program_deviates(name):
    source, (old, new) = inspect.getsource(right), WRONG[name]
    assert source.count(old) == 1, name
    namespace = {"np": np}
    exec(source.replace(old, new), namespace)  # noqa: S102 - the step above

    def verdicts():
        backend = Stepped(namespace["right"])
        for case in CASES:
            try:
                run = backend.run(case)
            except (ValueError, IndexError):
                continue  # a shape with which the wrong program cannot do anything
            yield judge(run, parse("Muon"), "float32")

    assert any(verdict.word == "deviates" and verdict.first is not None for verdict in verdicts())


def test_the_wrong_programs_are_many_enough():
    assert len(WRONG) >= 12


VARIANTS = pytest.mark.parametrize(
    "formula",
    [formula for formula in variants("Muon", 1) if "precision" not in formula.name],
    ids=lambda formula: formula.name,
)


@VARIANTS
@pytest.mark.usefixtures("mpfr")
def test_every_axis_is_seen(formula):
    backend = Nearest(formula)
    assert any(not judge(backend.run(case), parse("Muon"), "float32").conforms for case in CASES)


@pytest.mark.slow
@VARIANTS
@pytest.mark.usefixtures("mpfr")
def test_every_axis_is_named(formula):
    cases = [case for case in CASES if can_decide(case, formula)]
    report = check(Nearest(formula), cases, formula="Muon")
    assert report.status == 1
    assert formula.name in report.diagnoses["Muon"].formulas
