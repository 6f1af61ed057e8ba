"""Adafactor beside MLX, its oracle in exact numbers, and wrong programs of it."""

from __future__ import annotations

import inspect
import math
import warnings

import mpmath
import numpy as np
import pytest

import mlx_optimizers as optim
from mlx_optimizers.adafactor import Adafactor
from mlx_optimizers.backends import open_backend
from mlx_optimizers.conformance import cases_of, check
from mlx_optimizers.conformance.cases import recast
from mlx_optimizers.conformance.frame import SIZES
from mlx_optimizers.conformance.verdict import can_decide, judge
from mlx_optimizers.optimizer import Whole
from mlx_optimizers.oracle import trajectory
from mlx_optimizers.oracle.formulas import parse, variants
from mlx_optimizers.testing import assert_conforms
from tests.programs import Nearest, Stepped
from tests.support import require

pytestmark = pytest.mark.usefixtures("remembered")

CASES = cases_of("Adafactor")
SETTINGS = {case.label: case.hyperparameters for case in CASES if case.regime == "plain"}
SHAPES = [(), (7,), (1,), (4, 6), (6, 4), (1, 5), (5, 1), (2, 3, 4), (2, 1, 3, 2)]


CLAIMS = {
    "torch": "Adafactor[eps=clamped,learning_rate=capped,weight_decay=learning_rate]",
    "optax": "Adafactor[weight_decay=unscaled]",
    "keras": "Adafactor[learning_rate=capped,weight_decay=first]",
}

LIBRARIES = {"mlx": "mlx.core", "keras": "mlx_optimizers.backends.keras"}  # alone, Keras would look for TensorFlow


def opened(name):
    library = name.partition("-")[0]
    if library != "reference":
        require(LIBRARIES.get(library, library))
    return open_backend(name)


def drawn(shape, steps=4, seed=0):
    rng = np.random.default_rng(seed)
    w, *gradients = (np.array(rng.normal(size=shape), np.float32) for _ in range(1 + steps))
    return w, gradients


def of_step(h, index):
    rate = h["learning_rate"]
    return {**h, "learning_rate": rate[index] if isinstance(rate, list) else rate}


# the formula, written out in mpmath element by element


def in_mpmath(h, w, gradients):
    """Follow the formula with loops over the elements of a matrix, or of a vector."""
    w = [[mpmath.mpf(float(x)) for x in row] for row in np.atleast_2d(w)]
    flat = np.ndim(gradients[0]) < 2
    rows, columns = range(len(w)), range(len(w[0]))
    row, column = [mpmath.mpf(0) for _ in rows], [mpmath.mpf(0) for _ in columns]
    v, m = [[[mpmath.mpf(0) for _ in columns] for _ in rows] for _ in range(2)]
    size = len(w) * len(w[0])

    def rms(x):
        return mpmath.sqrt(mpmath.fsum(x[i][j] ** 2 for i in rows for j in columns) / size)

    for index, gradient in enumerate(gradients):
        t, g = index + 1, [[mpmath.mpf(float(x)) for x in row] for row in np.atleast_2d(gradient)]
        values = of_step(h, index)
        first, second = map(mpmath.mpf, values["eps"])
        if values["relative_step"]:
            most = mpmath.mpf(1e-6) * t if values["warmup_init"] else mpmath.mpf(1e-2)
            rate = min(most, 1 / mpmath.sqrt(t))
        else:
            rate = mpmath.mpf(values["learning_rate"])
        if values["scale_parameter"]:
            rate *= max(second, rms(w))
        beta = 1 - mpmath.mpf(t) ** mpmath.mpf(values["decay_rate"])
        u = [[g[i][j] ** 2 + first for j in columns] for i in rows]
        if flat:
            v = [[beta * v[i][j] + (1 - beta) * u[i][j] for j in columns] for i in rows]
            x = [[g[i][j] / mpmath.sqrt(v[i][j]) for j in columns] for i in rows]
        else:
            row = [beta * row[i] + (1 - beta) * mpmath.fsum(u[i]) / len(columns) for i in rows]
            column = [beta * column[j] + (1 - beta) * mpmath.fsum(u[i][j] for i in rows) / len(rows) for j in columns]
            mean = mpmath.fsum(row) / len(rows)
            x = [[g[i][j] / mpmath.sqrt(row[i] * column[j] / mean) for j in columns] for i in rows]
        clip = max(mpmath.mpf(1), rms(x) / mpmath.mpf(values["clip_threshold"]))
        x = [[rate * x[i][j] / clip for j in columns] for i in rows]
        if values["beta_1"] is not None:
            b1 = mpmath.mpf(values["beta_1"])
            m = [[b1 * m[i][j] + (1 - b1) * x[i][j] for j in columns] for i in rows]
            x = m
        kappa = mpmath.mpf(values["weight_decay"])
        w = [[w[i][j] - kappa * rate * w[i][j] - x[i][j] for j in columns] for i in rows]
        yield w


@pytest.mark.parametrize("shape", [(4, 6), (5,), (1, 3)])
@pytest.mark.parametrize("h", SETTINGS.values(), ids=SETTINGS)
@pytest.mark.usefixtures("mpfr")
def test_the_oracle_is_the_formula(h, shape):
    w, gradients = drawn(shape, 8)
    with mpmath.workprec(300):
        entries = trajectory("Adafactor", w, gradients, **h)
        for entry, wanted in zip(entries, in_mpmath(h, w, gradients), strict=True):
            flat = [x for row in wanted for x in row]
            for x, y in zip(entry.parameter.exact.reshape(-1), flat, strict=True):
                assert abs(mpmath.mpf(str(x)) - y) < mpmath.mpf(2) ** -80 * max(1, abs(y))


# beside MLX


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("h", SETTINGS.values(), ids=SETTINGS)
@pytest.mark.usefixtures("mpfr")
def test_ours_and_mlx_lie_in_the_interval_in_every_shape(h, shape):
    mx = require("mlx.core")
    theirs_of = require("mlx.optimizers").Adafactor
    w, gradients = drawn(shape)
    rates = [of_step(h, index)["learning_rate"] for index in range(len(gradients))]
    if isinstance(h["learning_rate"], list):
        h = {**h, "learning_rate": h["learning_rate"][: len(gradients)]}
    ours, theirs = Adafactor(**of_step(h, 0)), theirs_of(**of_step(h, 0))
    mine, their = {"w": w.copy()}, {"w": mx.array(w)}
    wide, narrow = (trajectory("Adafactor", w, gradients, scalars=s, **h) for s in ("float32", "double"))
    for rate, g, loose, tight in zip(rates, gradients, wide, narrow, strict=True):
        if rate is not None:
            ours.learning_rate = theirs.learning_rate = rate
        ours.update(mine, {"w": g})
        their = theirs.apply_gradients({"w": mx.array(g)}, their)
        assert {*ours.state["w"]} == {*theirs.state["w"]} == {*tight.state}
        for name, quantity in tight.quantities():
            got = mine["w"] if name == "parameter" else ours.state["w"][name]
            assert ((got >= quantity.low) & (got <= quantity.high)).all(), name
        for name, quantity in loose.quantities():
            got = np.array(their["w"] if name == "parameter" else theirs.state["w"][name])
            assert got.shape == quantity.low.shape
            assert ((got >= quantity.low) & (got <= quantity.high)).all(), name


@pytest.mark.parametrize("name", ["reference", "mlx", "torch", "torch-foreach", "optax", "keras"])
@pytest.mark.usefixtures("mpfr")
def test_every_library_computes_what_it_claims(name):
    results = check(opened(name), CASES).results
    assert {r.word for r in results} <= {"conforms", "unsupported"}
    supported = {"reference": 57, "mlx": 57, "optax": 23, "keras": 26}.get(name, 14)
    assert sum(r.conforms for r in results) == supported
    assert {r.formula.name for r in results} == {parse(CLAIMS.get(name.partition("-")[0], "Adafactor")).name}
    for r in results:
        if r.conforms and name in ("reference", "mlx"):
            assert {*r.excesses} == {"parameter", *r.case.slots}
    by_shape = {r.case.regime for r in results if r.conforms}
    assert {"vector", "batch", "plain"} <= by_shape


@pytest.mark.parametrize("library", CLAIMS)
def test_a_library_held_to_the_formula_of_the_page_deviates_and_is_named(library):
    report = check(opened(library), CASES, formula="Adafactor")
    assert report.status == 1
    assert parse(CLAIMS[library]).name in report.diagnoses["Adafactor"].formulas or library == "torch"


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float64"])
@pytest.mark.parametrize("name", ["reference", "mlx"])
@pytest.mark.usefixtures("mpfr")
def test_other_dtypes(name, dtype):
    if name == "mlx":
        require("mlx.core")
    if dtype == "bfloat16":
        require("ml_dtypes")
    cases = [recast(case, dtype) for case in CASES if case.regime in ("plain", "vector", "batch")]
    results = check(open_backend(name), cases).results
    assert {r.word for r in results} == {"conforms"}


# wrong programs: one thing changed in the step below, which is right


def right(h, t, w, g, slots):
    beta = 1 - t ** h["decay_rate"]
    least = 1e-6 * t if h["warmup_init"] else 1e-2
    rho = min(least, 1 / math.sqrt(t)) if h["relative_step"] else h["learning_rate"]
    size = np.sqrt(np.mean(w * w))
    rate = rho * max(h["eps"][1], size) if h["scale_parameter"] else rho
    u = g * g + h["eps"][0]
    if w.ndim > 1:
        slots["exp_avg_sq_row"] = beta * slots["exp_avg_sq_row"] + (1 - beta) * u.mean(-1)
        slots["exp_avg_sq_col"] = beta * slots["exp_avg_sq_col"] + (1 - beta) * u.mean(-2)
        row, column = slots["exp_avg_sq_row"], slots["exp_avg_sq_col"]
        scale = row / row.mean(-1, keepdims=True)
        x = g / np.sqrt(scale[..., None]) / np.sqrt(column[..., None, :])
    else:
        slots["exp_avg_sq"] = beta * slots["exp_avg_sq"] + (1 - beta) * u
        x = g / np.sqrt(slots["exp_avg_sq"])
    x = x / max(1.0, np.sqrt(np.mean(x * x)) / h["clip_threshold"])
    x = rate * x
    if h["beta_1"] is not None:
        slots["exp_avg"] = h["beta_1"] * slots["exp_avg"] + (1 - h["beta_1"]) * x
        x = slots["exp_avg"]
    return w - h["weight_decay"] * rate * w - x


WRONG = {
    "steps counted from 2": ("def right(h, t, w, g, slots):", "def right(h, t, w, g, slots):\n    t = t + 1"),
    "decay 0.8 % off": ('t ** h["decay_rate"]', 't ** (1.008 * h["decay_rate"])'),
    "warm-up 1e-5": ("1e-6 * t", "1e-5 * t"),
    "step 1e-3": ("else 1e-2", "else 1e-3"),
    "ρ by 1/t": ("1 / math.sqrt(t)", "1e-2 / math.sqrt(t)"),
    "ε₁ for ε₂": ('max(h["eps"][1], size)', 'max(h["eps"][0], size)'),
    "ε₂ added": ('max(h["eps"][1], size)', '(h["eps"][1] + size)'),
    "norm for rms of w": ("np.sqrt(np.mean(w * w))", "np.sqrt(np.sum(w * w))"),
    "no scale": ('if h["scale_parameter"] else rho', "if False else rho"),
    "no ε₁": ('g * g + h["eps"][0]', "g * g"),
    "ε₁ after the mean of rows alone": ("(1 - beta) * u.mean(-1)", "(1 - beta) * (g * g).mean(-1)"),
    "rows and columns exchanged": ("row[..., None]) / np.sqrt(column[..., None, :])", ""),
    "mean over the batch": ("row.mean(-1, keepdims=True)", "row.mean()"),
    "no mean of rows": ("row / row.mean(-1, keepdims=True)", "row"),
    "1 − β swapped": ('beta * slots["exp_avg_sq_col"] + (1 - beta)', '(1 - beta) * slots["exp_avg_sq_col"] + beta'),
    "never factored": ("if w.ndim > 1", 'slots.setdefault("exp_avg_sq", w * 0)\n    if False'),
    "norm for rms of x": ("np.sqrt(np.mean(x * x)) / h", "np.sqrt(np.sum(x * x)) / h"),
    "no clip": ('max(1.0, np.sqrt(np.mean(x * x)) / h["clip_threshold"])', "1.0"),
    "clipped where below": ("x / max(1.0", "x / min(1.0"),
    "clip multiplied": ('np.mean(x * x)) / h["clip', 'np.mean(x * x)) * h["clip'),
    "mean before the step size": ("x = rate * x\n", "pass\n"),
    "no 1 − β₁": ('(1 - h["beta_1"]) * x', "x"),
    "decay without the step size": ('h["weight_decay"] * rate * w', 'h["weight_decay"] * w'),
    "decay by ρ": ('h["weight_decay"] * rate * w', 'h["weight_decay"] * rho * w'),
    "no decay": (' - h["weight_decay"] * rate * w', ""),
    "vector's mean": ("+ (1 - beta) * u\n        x", "+ (1 - beta) * u.mean()\n        x"),
}
WRONG["rows and columns exchanged"] = (
    'slots["exp_avg_sq_row"] + (1 - beta) * u.mean(-1)',
    'slots["exp_avg_sq_row"] + (1 - beta) * u.max(-1)',
)


@pytest.mark.parametrize("real", [np.float32, np.float64])
@pytest.mark.usefixtures("mpfr")
def test_a_right_program_conforms_in_either_precision(real):
    report = check(Stepped(right, real, state=True), CASES)
    assert report.status == 0


@pytest.mark.parametrize("name", WRONG)
@pytest.mark.usefixtures("mpfr")
def test_a_wrong_program_deviates(name):
    source, (old, new) = inspect.getsource(right), WRONG[name]
    assert source.count(old) == 1, name
    namespace = {"np": np, "math": math}
    exec(source.replace(old, new), namespace)  # noqa: S102 - the step above
    backend = Stepped(namespace["right"])
    wrong = (judge(backend.run(case), parse("Adafactor"), "float32") for case in CASES)
    assert any(verdict.word == "deviates" and verdict.first is not None for verdict in wrong)


def test_the_wrong_programs_are_many_enough():
    assert len(WRONG) >= 16


# every axis is seen, and named


VARIANTS = pytest.mark.parametrize("formula", list(variants("Adafactor", 1)), ids=lambda formula: formula.name)


@VARIANTS
@pytest.mark.usefixtures("mpfr")
def test_every_axis_is_seen(formula):
    backend = Nearest(formula)
    assert any(not judge(backend.run(case), parse("Adafactor"), "float32").conforms for case in CASES)


@pytest.mark.slow
@VARIANTS
@pytest.mark.usefixtures("mpfr")
def test_every_axis_is_named(formula):
    """A program of each variation deviates from the page, and the diagnosis has its name."""
    cases = [case for case in CASES if can_decide(case, formula)]
    report = check(Nearest(formula), cases, formula="Adafactor")
    assert report.status == 1
    found = report.diagnoses["Adafactor"].formulas
    assert formula.name in found


# the class


def test_it_is_of_whole_arrays_and_its_slots_go_by_the_shape():
    assert issubclass(Adafactor, Whole) and Adafactor in optim.LATER
    optimizer = Adafactor(beta_1=0.9)
    model = {"a": np.ones((2, 3, 4), np.float32), "b": np.ones(5, np.float32), "c": np.float32(1).reshape(())}
    optimizer.init(model)
    shapes = {name: {slot: x.shape for slot, x in optimizer.state[name].items()} for name in model}
    assert shapes == {
        "a": {"exp_avg_sq_row": (2, 3), "exp_avg_sq_col": (2, 4), "exp_avg": (2, 3, 4)},
        "b": {"exp_avg_sq": (5,), "exp_avg": (5,)},
        "c": {"exp_avg_sq": (), "exp_avg": ()},
    }


def test_a_state_of_another_shape_or_setting_is_refused():
    model, gradient = {"a": np.ones((2, 3), np.float32)}, {"a": np.ones((2, 3), np.float32)}
    optimizer = Adafactor()
    optimizer.update(model, gradient)
    before = model["a"].copy()
    optimizer.beta_1 = 0.9
    with pytest.raises(
        ValueError, match=r"state of a has the slots exp_avg_sq_row, exp_avg_sq_col; those of Adafactor"
    ):
        optimizer.update(model, gradient)
    optimizer.beta_1 = None
    optimizer.state["a"]["exp_avg_sq_row"] = np.zeros(3, np.float32)
    with pytest.raises(ValueError, match=r"state exp_avg_sq_row of a has shape \(3,\), not \(2,\)"):
        optimizer.update(model, gradient)
    assert np.array_equal(model["a"], before) and optimizer.step == 1


def test_a_rate_that_is_not_used_is_warned_of():
    with pytest.warns(UserWarning, match=r"Adafactor does not use learning_rate=1e-05 without relative_step=False"):
        optimizer = Adafactor(learning_rate=1e-5)
    w = optimizer.apply_gradients(np.ones((2, 2), np.float32), np.ones((2, 2), np.float32))
    assert np.allclose(1 - w, 1e-2, rtol=1e-5)  # a thousand times what was asked
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        Adafactor()
        Adafactor(learning_rate=0.1, relative_step=False)
        Adafactor(learning_rate=lambda step: 0.1, relative_step=False)


def test_a_step_size_is_needed_where_it_is_not_relative():
    with pytest.raises(ValueError, match="relative_step=False needs a learning_rate, not None"):
        Adafactor(relative_step=False)
    optimizer = Adafactor()
    with pytest.raises(ValueError, match="relative_step=False needs a learning_rate"):
        optimizer.relative_step = False
    assert optimizer.relative_step is True
    assert repr(optimizer).startswith("Adafactor(learning_rate=None, eps=(1e-30, 0.001), clip_threshold=1.0")


@pytest.mark.parametrize(
    ("given", "error", "words"),
    [
        ({"eps": 1e-3}, TypeError, "eps must be two numbers, not 0.001"),
        ({"eps": (1e-3,)}, ValueError, r"eps must be two numbers, not \(0.001,\)"),
        ({"eps": (1e-3, -1)}, ValueError, r"eps\[1\] must be at least 0, not -1.0"),
        ({"clip_threshold": 0}, ValueError, "clip_threshold must be >0, not 0.0"),
        ({"decay_rate": 0.8}, ValueError, "decay_rate must be at most 0, not 0.8"),
        ({"beta_1": 1}, ValueError, r"beta_1 must be in \[0, 1\), not 1.0"),
        ({"beta_1": "x"}, TypeError, "beta_1 must be a number, not 'x'"),
        ({"weight_decay": -1}, ValueError, "weight_decay must be at least 0"),
        ({"scale_parameter": 1}, TypeError, "scale_parameter must be True or False, not 1"),
        ({"learning_rate": -1, "relative_step": False}, ValueError, "learning_rate must be at least 0, not -1.0"),
    ],
    ids=str,
)
def test_what_is_refused(given, error, words):
    with pytest.raises(error, match=words):
        Adafactor(**given)


def test_the_arrays_of_the_caller_stay_as_they_are():
    w, (g,) = drawn((4, 6), 1)
    kept = g.copy()
    new = Adafactor(weight_decay=0.1).apply_gradients(g, w)
    assert np.array_equal(g, kept) and not np.array_equal(new, w)
    model = {"w": w.copy().T}  # in another order of memory
    Adafactor(weight_decay=0.1).update(model, {"w": g.T})
    (entry,) = trajectory("Adafactor", w.T, [g.T], weight_decay=0.1)
    assert ((model["w"] >= entry.parameter.low) & (model["w"] <= entry.parameter.high)).all()


@pytest.mark.parametrize("shape", [(0,), (0, 3), (3, 0), (2, 0, 3)], ids=str)
def test_an_empty_parameter_stays_empty(shape):
    model = {"w": np.zeros(shape, np.float32)}
    with np.errstate(all="ignore"):
        Adafactor(beta_1=0.9).update(model, {"w": np.zeros(shape, np.float32)})
    assert model["w"].shape == shape


@pytest.mark.usefixtures("mpfr")
def test_a_function_is_asked_for_the_shapes_of_the_cases():
    seen = set()

    def step(parameter, gradients, **h):
        seen.add(parameter.shape)
        rates = h.pop("learning_rate")
        rates = rates if isinstance(rates, list) else [rates] * len(gradients)
        optimizer = Adafactor(learning_rate=rates[0], **h)
        out = []
        for rate, gradient in zip(rates, gradients, strict=True):
            if rate is not None:
                optimizer.learning_rate = rate
            with np.errstate(all="ignore"):
                parameter = optimizer.apply_gradients(gradient, parameter)
            out.append(parameter)
        return np.stack(out)

    assert_conforms(step, "Adafactor")
    assert seen == {(24,), (4, 6), (2, 3, 4), (1, 2), (6,), *((size,) for size in SIZES)}
