"""Statements of the pages that no example runs: each test finds one there, and holds it."""

from __future__ import annotations

import dataclasses
import inspect
import json
import os
import re
from pathlib import Path

import numpy as np
import pytest

import mlx_optimizers
from mlx_optimizers.backends import CHECKED, open_backend
from mlx_optimizers.catalog import CATALOG, entry_of
from mlx_optimizers.conformance import matching, parse
from mlx_optimizers.oracle import trajectory
from tests.docs.copies import ROOT
from tests.expected import ABOVE_0, AT_LEAST_0, EIGHT, EXPECTED, PAIR_BELOW_1, UP_TO_1, each_name, each_of_eight
from tests.support import require


def pages(*more: str) -> list[Path]:
    """List the files with prose: the README, the changelog, the pages; and those of further patterns."""
    found = [path for pattern in ("*.md", "docs/**/*.md", "docs/*.rst", *more) for path in ROOT.glob(pattern)]
    return [path for path in found if "generated" not in path.parts]


def says(page: str, sentence: str) -> None:
    """Assert that a page under docs has a sentence, in its source, however its lines are broken."""
    assert sentence in " ".join((ROOT / "docs" / page).read_text("utf-8").split())


def table(guide: str, heading: str) -> list[list[str]]:
    """Read the first table below a heading of a guide, row by row."""
    text = (ROOT / "docs" / "guides" / f"{guide}.md").read_text("utf-8")
    below = re.split(rf"^#+ {re.escape(heading)}$", text, flags=re.MULTILINE)[1]
    lines = re.search(r"(?:^\|.*\|\n)+", below, re.MULTILINE)[0].splitlines()
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[2:]]


# MLX's history: docs/guides/mlx_history.md, and the pages that quote it

RELEASES = """
    0.0.2 0.0.3 0.0.4 0.0.5 0.0.6 0.0.7 0.0.9 0.0.10 0.0.11 0.1.0 0.2.0 0.3.0 0.4.0 0.5.0 0.5.1 0.6.0 0.7.0 0.8.0
    0.8.1 0.9.0 0.9.1 0.10.0 0.11.0 0.11.1 0.12.0 0.12.1 0.12.2 0.13.0 0.13.1 0.14.0 0.14.1 0.15.0 0.15.1 0.15.2
    0.16.0 0.16.1 0.16.2 0.16.3 0.17.0 0.17.1 0.17.2 0.17.3 0.18.0 0.18.1 0.19.0 0.19.1 0.19.2 0.19.3 0.20.0 0.21.0
    0.21.1 0.22.0 0.22.1 0.23.0 0.23.1 0.23.2 0.24.0 0.24.1 0.24.2 0.25.0 0.25.1 0.25.2 0.26.0 0.26.1 0.26.2 0.26.3
    0.26.5 0.27.1 0.28.0 0.29.0 0.29.1 0.29.2 0.29.3 0.29.4 0.30.0 0.30.1 0.30.3 0.30.4 0.30.5 0.30.6 0.31.0 0.31.1
    0.31.2 0.32.0 0.32.1 0.32.2 0.32.3 0.32.4
"""
"""The tags of MLX's repository, and the last versions of its index of packages."""

CHANGED = {
    (440, 473): "before 0.1.0",
    (603,): "before 0.1.0",
    (473, 629): "from 0.1.0, before 0.2.0",
    (629,): "before 0.2.0",
    (1259, 1264): "from 0.2.0, before 0.16.1",
    (1640, 2350): "from 0.21.1, before 0.26.5",
    (2416,): "before 0.27.1",
    (2557,): "before 0.29.1",
    (3652,): "before 0.32.0",
    (3712,): "before 0.32.0",
    (4426,): "before 0.32.3",
    (): f"still in {CHECKED['mlx']}",
}
"""The versions by thread: of 4426 by what 0.32.2 and 0.32.3 contain, else by the first tag that contains the commit."""

EVENTS = list(dict.fromkeys(event for entry in CATALOG for event in entry.history))


@pytest.mark.parametrize("event", EVENTS, ids=[event.what for event in EVENTS])
def test_every_row_of_the_history_says_before_the_first_version_without_it(event):
    says("guides/mlx_history.md", '"Before" a version means that this version is the first without it.')
    assert event.versions == CHANGED[event.threads]
    assert re.fullmatch(r"(from \d+\.\d+\.\d+, )?before \d+\.\d+\.\d+|still in \d+\.\d+\.\d+", event.versions)
    found = re.findall(r"[\d.]+", event.versions)
    assert set(found) <= set(RELEASES.split())


def test_no_page_says_until_a_version_of_mlx():
    """The pages and the catalog say "before", where the first version without it stands."""
    for path in pages("mlx_optimizers/**/*.py"):
        assert not re.search(r"\b(until|up to)\s+(MLX\s+|version\s+)?\d+\.\d+", path.read_text("utf-8")), path


def test_what_the_history_says_of_todays_mlx_is_so():
    """ "Before 0.29.1", "before 0.32.0" and "before 0.32.3": fixed here; "still in 0.32.4": not yet."""
    mx, theirs = require("mlx.core"), require("mlx.optimizers")
    said = {
        name: " ".join(getattr(theirs, name).__doc__.split()) for name in ("SGD", "AdaDelta", "Adam", "AdamW", "Lion")
    }
    assert "Default: ``0.01``" in said["AdamW"]
    assert "Default: ``1e-6``" in said["AdaDelta"]
    assert r"\sqrt{v_{t+1}} + \epsilon" in said["Adam"]
    gradients = {"w": mx.array([1.0])}
    theirs.SGD(0.1, weight_decay=0.5).apply_gradients(gradients, {"w": mx.array([1.0])})
    assert gradients["w"].tolist() == [1.0]
    assert r"v_{t+1} &= \mu v_t + (1 - \tau) g_t \\ w_{t+1} &= w_t - \lambda v_{t+1} Args" in said["SGD"]
    assert r"c_{t + 1} &= " in said["Lion"]
    assert r"\text{sign}(c_t)" in said["Lion"]


# The dtypes of state, λ and result, in docs/guides/half_precision.md

ONE = {
    "SGD": {"momentum": 0.9},
    "RMSprop": {"alpha": 0.0, "eps": 1e-30},
    "Adagrad": {"eps": 1e-30},
    "AdaDelta": {"rho": 1.0},
    "Adam": {"betas": (0.0, 0.0), "eps": 0.0},
    "AdamW": {"betas": (0.0, 0.0), "eps": 0.0, "weight_decay": 0.0},
    "Adamax": {"betas": (0.0, 0.0), "eps": 0.0},
    "Lion": {"betas": (0.0, 0.0)},
}
"""Hyperparameters under which the first step from w = 0 with g = −1 is λ."""

ROUNDED = {"float32": 0.10000000149011612, "bfloat16": 0.10009765625, "float16": 0.0999755859375}
"""0.1, rounded by hand to 24, 8 and 11 significant bits."""

DTYPES = [(w, g) for w in ROUNDED for g in ROUNDED]


def stepped(module, name, given, w, g, initial=False):
    """Return the dtypes of the state and of the new parameter after one step, and the new parameter."""
    mx = require("mlx.core")
    with mx.stream(mx.cpu):
        parameters, gradients = {"w": mx.array([0.0], getattr(mx, w))}, {"w": mx.array([-1.0], getattr(mx, g))}
        optimizer = getattr(module, name)(0.1, **given)
        if initial:
            optimizer.init(parameters)
        new = optimizer.apply_gradients(gradients, parameters)["w"]
        (state,) = {str(slot.dtype) for slot in optimizer.state["w"].values()}
        return state.removeprefix("mlx.core."), str(new.dtype).removeprefix("mlx.core."), new.item()


@each_of_eight
def test_the_table_of_two_dtypes_holds_in_both_packages(name):
    says("guides/half_precision.md", "So does MLX, where the gradient [has it too](#gradients-of-another-dtype).")
    says("guides/half_precision.md", "So the results here are MLX's bits where parameter and gradient have one dtype.")
    says("guides/coming_from.md", "Where a gradient has its parameter's dtype, the results are MLX's bits on the CPU")
    says("guides/decisions.md", "It holds where a gradient has its parameter's dtype")
    theirs = require("mlx.optimizers")
    shown = {tuple(row[:2]): row[2:] for row in table("half_precision", "Gradients of another dtype")}
    assert list(shown) == DTYPES
    for (w, g), (state, after_init, rate, result, here) in shown.items():
        got = stepped(theirs, name, ONE[name], w, g)
        assert got[:2] == (state, result), (w, g)
        assert got[2] == ROUNDED[rate], "the λ of MLX"
        assert stepped(theirs, name, ONE[name], w, g, initial=True)[0] == after_init, (w, g)
        for initial in (False, True):
            assert stepped(mlx_optimizers, name, ONE[name], w, g, initial) == (here, here, ROUNDED[here])


def test_mlxs_sgd_with_weight_decay_has_state_and_rate_in_the_dtype_of_the_result():
    says(
        "guides/half_precision.md", "it adds κw to the gradient first, so that state and λ get the dtype of the result."
    )
    theirs = require("mlx.optimizers")
    for row in table("half_precision", "Gradients of another dtype"):
        w, g, result = row[0], row[1], row[5]
        got = stepped(theirs, "SGD", {"momentum": 0.9, "weight_decay": 0.5}, w, g)
        assert got == (result, result, ROUNDED[result])


# Hyperparameters out of range, in docs/guides/coming_from.md

INFINITY, NAN = float("inf"), float("nan")
OUTSIDE = {
    AT_LEAST_0: ([-1.0], [INFINITY], [NAN]),
    ABOVE_0: ([-1.0, 0.0], [INFINITY], [NAN]),
    UP_TO_1: ([-1.0], [2.0, INFINITY], [NAN]),
    PAIR_BELOW_1: ([(-0.1, 0.9), (0.9, -0.1)], [(1.0, 0.9), (0.9, 1.0), (0.9, INFINITY)], [(NAN, 0.9), (0.9, NAN)]),
}
"""Values below a range, above it, and NaN."""


def answer(module, name, given):
    """Tell when an optimizer says that a hyperparameter is out of range: "refused", "at the first step", "accepted"."""
    mx = require("mlx.core")
    try:
        optimizer = getattr(module, name)(**{"learning_rate": 0.1, **given})
    except ValueError:
        return "refused"
    try:
        mx.eval(optimizer.apply_gradients({"w": mx.array([1.0])}, {"w": mx.array([1.0])}))
    except ValueError:
        return "at the first step"
    return "accepted"


def test_mlx_answers_to_numbers_out_of_range_as_the_table_says():
    says(
        "guides/coming_from.md",
        f"This is what MLX {CHECKED['mlx']} does with numbers out of the ranges that hold here.",
    )
    theirs = require("mlx.optimizers")
    shown = {}
    for argument, names, *answers in table("coming_from", "Out of range"):
        shown |= {(name, argument.strip("`")): answers for name in names.split(", ")}
    expected = {
        (name, argument): values
        for name in EIGHT
        for argument, values in EXPECTED[name].ranges.items()
        if values in OUTSIDE
    }
    assert set(shown) == set(expected)
    for (name, argument), answers in shown.items():
        for values, said in zip(OUTSIDE[expected[name, argument]], answers, strict=True):
            for value in values:
                assert answer(theirs, name, {argument: value}) == said, (name, argument, value)
                assert answer(mlx_optimizers, name, {argument: value}) == "refused", (name, argument, value)


def test_what_differs_from_mlx_is_so_in_mlx():
    """The rows on Lion, shapes, shared arrays, states and `mx.grad` in the table of what differs from MLX."""
    for row in (
        "| the sign of NaN in Lion | 0, so that w stays | NaN, so that it is seen |",
        "| a gradient of another shape | broadcast | `ValueError` with both shapes and the path |",
        "| one array under two paths | both get an array of their own | `ValueError` from `update` with both paths |",
        "| a state without the parameters of a step | `KeyError`, or slots of zeros |",
        "| `update` inside `mx.grad` | differentiated |",
    ):
        says("guides/coming_from.md", row)
    mx, theirs = require("mlx.core"), require("mlx.optimizers")
    with mx.stream(mx.cpu):
        one, many = mx.ones(1), mx.ones(4)
        assert theirs.Lion(0.5).apply_gradients({"w": mx.array([NAN])}, {"w": one})["w"].tolist() == [1.0]
        assert theirs.SGD(0.5).apply_gradients({"w": one}, {"w": many})["w"].tolist() == [0.5] * 4
        new = theirs.SGD(0.5).apply_gradients({"a": one, "b": 2 * one}, {"a": one, "b": one})
        assert (new["a"].tolist(), new["b"].tolist()) == ([0.5], [0.0])
        started = theirs.Adam(0.5)
        started.init({"other": one})
        with pytest.raises(KeyError):
            started.apply_gradients({"w": one}, {"w": one})
        loaded = theirs.Adam(0.5, betas=(0.5, 0.5))
        loaded.state = started.state
        loaded.apply_gradients({"w": one}, {"w": one})
        assert loaded.state["w"]["m"].tolist() == [0.5], "from zeros"
        moved = mx.grad(lambda g: theirs.SGD(0.5).apply_gradients({"w": g}, {"w": one})["w"].sum())
        assert moved(one).tolist() == [-0.5]


def test_nesterov_is_refused_by_both_and_the_number_of_betas_is_found_late_by_mlx():
    says("guides/coming_from.md", "Both refuse Nesterov momentum without momentum, or with dampening.")
    says("guides/coming_from.md", "is refused here, and raises a `ValueError` at the first step in MLX.")
    theirs = require("mlx.optimizers")
    for given in ({}, {"momentum": 0.9, "dampening": 0.5}):
        for module in (theirs, mlx_optimizers):
            assert answer(module, "SGD", {"nesterov": True, **given}) == "refused"
    for name in ("Adam", "AdamW", "Adamax", "Lion"):
        for betas in ((0.9,), (0.9, 0.9, 0.9)):
            assert answer(theirs, name, {"betas": betas}) == "at the first step"
            assert answer(mlx_optimizers, name, {"betas": betas}) == "refused"


# What torch and this package keep, in docs/guides/coming_from.md


def test_torchs_step_takes_at_most_a_closure_and_our_optimizer_keeps_hyperparameters_and_state():
    says("guides/coming_from.md", "its `step()` takes neither, but at most a closure that evaluates the loss again.")
    says(
        "guides/coming_from.md",
        "Here the optimizer keeps its hyperparameters and its state, the learning rate and the step",
    )
    parameters = inspect.signature(require("torch").optim.SGD.step).parameters
    assert [(name, parameter.default) for name, parameter in parameters.items()][1:] == [("closure", None)]
    optimizer, w = mlx_optimizers.SGD(0.5, momentum=0.25), np.float32([1.0])
    optimizer.update({"w": w}, {"w": np.float32([1.0])})
    assert (optimizer.momentum, optimizer.learning_rate, optimizer.step) == (0.25, 0.5, 1)
    assert set(optimizer.state) == {"step", "learning_rate", "w"}
    assert set(optimizer.state["w"]) == {"v"}


# What other libraries compute, on the pages of the optimizers and in docs/guides/frameworks.md


@pytest.fixture(scope="module")
def keras():
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("KERAS_BACKEND", os.environ.get("KERAS_BACKEND", "jax"))
        yield require("keras")


def test_a_change_of_the_learning_rate_never_reaches_old_gradients_in_keras(keras):
    says("optimizers/sgd.md", "so that a change of the learning rate never reaches old gradients")
    says("optimizers/sgd.md", "stops w here, but not in Keras")
    w, ours = keras.Variable(np.float32([0.0])), np.float32([0.0])
    theirs = keras.optimizers.SGD(0.5, momentum=0.5)
    optimizer = mlx_optimizers.SGD(0.5, momentum=0.5)
    found = []
    for gradient, rate in ((1.0, 0.5), (0.0, 0.0), (0.0, 0.0)):
        theirs.learning_rate = optimizer.learning_rate = rate
        theirs.apply([keras.ops.convert_to_tensor(np.float32([gradient]))], [w])
        optimizer.update(ours, np.float32([gradient]))
        found.append((float(np.asarray(w)[0]), float(ours[0])))
    assert found == [(-0.5, -0.5), (-0.75, -0.5), (-0.875, -0.5)]


def test_nesterov_momentum_here_is_torchs_also_after_a_change_of_the_learning_rate():
    says("optimizers/sgd.md", "Bengio rewrote it so that this point is the parameter.")
    says("optimizers/sgd.md", "Here, as in torch, the learning rate is taken out of the velocity as well.")
    says("optimizers/sgd.md", "Nesterov momentum in this form: Y. Bengio, N. Boulanger-Lewandowski and R. Pascanu")
    says("optimizers/sgd.md", "arXiv:1212.0901, {cite:p}`bengio-2013`")
    torch = require("torch")
    w, velocity = torch.ones(1, requires_grad=True), 0.0
    theirs = torch.optim.SGD([w], lr=0.5, momentum=0.5, nesterov=True)
    optimizer, ours, bengio = mlx_optimizers.SGD(0.5, momentum=0.5, nesterov=True), np.float32([1.0]), 1.0
    found = []
    for rate in (0.5, 0.25, 0.25):  # the gradient of w²/2 is w
        theirs.param_groups[0]["lr"] = optimizer.learning_rate = rate
        w.grad = w.detach().clone()
        theirs.step()
        optimizer.update(ours, ours.copy())
        bengio, velocity = bengio + 0.25 * velocity - 1.5 * rate * bengio, 0.5 * velocity - rate * bengio
        found.append((w.item(), ours.item(), bengio))
    assert found == [(0.25, 0.25, 0.25), (0.09375, 0.09375, 0.03125), (0.01171875, 0.01171875, -0.05859375)]


def test_optax_has_a_switch_for_the_eps_of_rmsprop_and_keras_has_none(keras):
    says("optimizers/rmsprop.md", "optax has a switch, `eps_in_sqrt=False`, which puts it outside, and Keras has none.")
    optax, jnp = require("optax"), require("jax.numpy")
    assert not any("sqrt" in name for name in inspect.signature(keras.optimizers.RMSprop).parameters)
    w, g = jnp.zeros(1), jnp.full(1, 0.5)
    moved = []
    for switch in ({}, {"eps_in_sqrt": True}, {"eps_in_sqrt": False}):
        rule = optax.rmsprop(1.0, decay=0.0, eps=0.75, **switch)
        moved.append(float(rule.update(g, rule.init(w))[0][0]))
    assert moved == [-0.5, -0.5, float(np.float32(-0.4))]  # ½/√(¼ + ¾) and ½/(½ + ¾)
    variable = keras.Variable(np.float32([0.0]))
    keras.optimizers.RMSprop(1.0, rho=0.0, epsilon=0.75).apply(
        [keras.ops.convert_to_tensor(np.float32([0.5]))], [variable]
    )
    assert float(np.asarray(variable)[0]) == -0.5


def test_the_decay_of_adamw_is_scaled_by_the_whole_learning_rate_in_every_library(keras):
    says("optimizers/adamw.md", "In MLX, torch, optax and Keras it is scaled by the whole learning rate λ = ηα.")
    mx, torch, optax, jnp = require("mlx.core"), require("torch"), require("optax"), require("jax.numpy")
    new = require("mlx.optimizers").AdamW(0.25, weight_decay=0.5).apply_gradients({"w": mx.zeros(1)}, {"w": mx.ones(1)})
    w = torch.ones(1, requires_grad=True)
    w.grad = torch.zeros(1)
    torch.optim.AdamW([w], lr=0.25, weight_decay=0.5).step()
    rule = optax.adamw(0.25, weight_decay=0.5)
    update = rule.update(jnp.zeros(1), rule.init(jnp.ones(1)), jnp.ones(1))[0]
    variable = keras.Variable(np.float32([1.0]))
    zero = keras.ops.convert_to_tensor(np.float32([0.0]))
    keras.optimizers.AdamW(0.25, weight_decay=0.5).apply([zero], [variable])
    assert [new["w"].item(), w.item(), 1 + float(update[0]), float(np.asarray(variable)[0])] == [0.875] * 4


def adafactors(keras):
    """Each library's first step of Adafactor, as a function of w, g and its own hyperparameters."""
    mx, torch, optax, jnp = require("mlx.core"), require("torch"), require("optax"), require("jax.numpy")

    def of_mlx(w, g, **given):
        rule = require("mlx.optimizers").Adafactor(**given)
        return np.array(rule.apply_gradients({"w": mx.array(g)}, {"w": mx.array(w)})["w"])

    def of_torch(w, g, **given):
        parameter = torch.tensor(w, requires_grad=True)
        parameter.grad = torch.tensor(g)
        torch.optim.Adafactor([parameter], **given).step()
        return parameter.detach().numpy()

    def of_optax(w, g, **given):
        rule, w = optax.adafactor(**given), jnp.asarray(w)
        return np.asarray(w + rule.update(jnp.asarray(g), rule.init(w), w)[0])

    def of_keras(w, g, **given):
        variable = keras.Variable(w)
        keras.optimizers.Adafactor(**given).apply([keras.ops.convert_to_tensor(g)], [variable])
        return np.asarray(variable)

    return of_mlx, of_torch, of_optax, of_keras


def test_what_the_page_says_of_the_adafactors_of_others_is_so(keras):
    of_mlx, of_torch, of_optax, of_keras = adafactors(keras)
    zero, one = np.float32([0.0]), np.float32([1.0])
    page = "optimizers/adafactor.md"

    says(page, "torch's ε₁ is no summand but a bound from below: of the mean of R, and squared under the root.")
    eps = {"lr": 0.5, "eps": (0.25, 1e-3)}
    assert of_torch(one, one / 8, **eps) == 1 - 0.5 * 0.125 / 0.25  # √max(¼², ⅛²)
    assert of_torch(one, one / 2, **eps) == 0.5  # and ½ alone
    square = np.float32([[0.25, 0.25], [0.25, 0.25]])  # the mean of R, 1/16, is less than ε₁ = ¼
    assert np.allclose(of_torch(square * 4, square, d=2.0, **eps), 1 - 0.5)  # √max(1/16, 1/16²/¼) = ¼
    says(page, r"λ is capped by $1/\sqrt t$, there is no other relative step, and w decays by λκ before the step.")
    assert of_torch(one, one, lr=5.0) == 0.0
    assert of_torch(one, zero, lr=5.0, eps=(1e-3, 1e-3), weight_decay=0.125) == 1 - 5 * 0.125
    says(page, "It takes no clip_threshold below 1, and has neither `beta_1` nor `scale_parameter`.")
    with pytest.raises(ValueError, match="d should be >= 1"):
        of_torch(one, one, d=0.5)
    names = set(inspect.signature(require("torch").optim.Adafactor).parameters)
    assert names == {"params", "lr", "beta2_decay", "eps", "d", "weight_decay", "foreach", "maximize"}

    says(page, r"Keras caps λ by $1/\sqrt t$ with `relative_step=False` too, though its documentation has the cap for")
    assert [of_keras(one, one, learning_rate=5.0, relative_step=on)[0] for on in (True, False)] == [0.0, 0.0]
    assert "and `relative_step=True`, learning rate will be adjusted" in " ".join(
        keras.optimizers.Adafactor.__doc__.split()
    )
    says(page, "w decays by λκ before all else.")
    assert of_keras(one, one, learning_rate=0.5, weight_decay=0.5) == 0.75 - 0.5 * 0.75
    says(page, "where an element in a zero row and a zero column is ε₁², which is 0: NaN.")
    ones, corner, row = np.ones((2, 2), np.float32), np.float32([[0, 0], [0, 1]]), np.float32([[0, 0], [1, 1]])
    assert np.isnan(of_keras(ones, corner, learning_rate=0.5)).all()
    assert np.isfinite(of_keras(ones, row, learning_rate=0.5)).all()
    assert np.isfinite(of_mlx(ones, corner)).all()

    says(page, "optax has no relative step: without a learning rate it takes α = max(ε₂, rms(w)).")
    assert (of_optax(one, one), of_optax(2 * one, one)) == (0.0, 0.0)
    says(page, "ε₂ is 1e-3 alone, κ is not multiplied by a learning rate,")
    assert of_optax(zero, one, learning_rate=0.5) == np.float32(-0.5e-3)
    assert of_optax(one, zero, learning_rate=0.5, weight_decay_rate=0.25) == 0.75
    says(page, "by default arrays are factored only where two axes have 128 elements each.")
    assert inspect.signature(require("optax").adafactor).parameters["min_dim_size_to_factor"].default == 128

    says(page, "MLX's own documentation says max(ε₁, rms(w)), and its code computes max(ε₂, rms(w));")
    documented = " ".join(require("mlx.optimizers").Adafactor.__doc__.split())
    assert r"scaled by :math:`\max(\epsilon_1, \text{RMS}(w_{t-1}))`" in documented
    assert of_mlx(zero, one, eps=(1e-30, 0.25)) == np.float32(-0.0025)


def muons(keras):
    """Each library's steps of Muon, as a function of w, its gradients and its own hyperparameters: w, and the slots."""
    mx, torch, optax, jnp = require("mlx.core"), require("torch"), require("optax"), require("jax.numpy")
    muon = require("optax.contrib").muon

    def of_mlx(w, *gradients, **given):
        rule, w = require("mlx.optimizers").Muon(**given), mx.array(w)
        with mx.stream(mx.cpu):
            for g in gradients:
                w = rule.apply_gradients({"w": mx.array(g)}, {"w": w})["w"]
            return np.array(w), {"v": np.array(rule.state["w"]["v"])}

    def of_torch(w, *gradients, **given):
        w = torch.tensor(w, requires_grad=True)
        rule = torch.optim.Muon([w], **given)
        for g in gradients:
            w.grad = torch.tensor(g)
            rule.step()
        return w.detach().numpy(), {name: np.asarray(value) for name, value in rule.state[w].items()}

    def of_optax(w, *gradients, **given):
        rule, w = muon(**given), jnp.asarray(w)
        state = rule.init(w)
        for g in gradients:
            updates, state = rule.update(jnp.asarray(g), state, w)
            w = optax.apply_updates(w, updates)
        found = {"mu": optax.tree.get_all_with_path(state, "mu"), "nu": optax.tree.get_all_with_path(state, "nu")}
        slots = {name: [x for _, x in pairs if hasattr(x, "shape")] for name, pairs in found.items()}
        return np.asarray(w), {name: np.asarray(values[0]) for name, values in slots.items() if values}

    def of_keras(w, *gradients, called="w", **given):
        variable = keras.Variable(w, name=called)
        rule = keras.optimizers.Muon(**{"weight_decay": None, "adam_weight_decay": None, **given})
        for g in gradients:
            rule.apply([keras.ops.convert_to_tensor(g)], [variable])
        velocity = rule.adam_velocities[0]
        slots = {"momentums": np.asarray(rule.momentums[0])}
        return np.asarray(variable), slots | ({} if velocity is None else {"velocities": np.asarray(velocity)})

    return of_mlx, of_torch, of_optax, of_keras


def along(x):
    """The direction of a matrix."""
    return x / np.linalg.norm(x)


def test_what_the_page_says_of_the_muons_of_others_is_so(keras):
    of_mlx, of_torch, of_optax, of_keras = muons(keras)
    page, torch = "optimizers/muon.md", require("torch")
    zero, one = np.zeros((2, 2), np.float32), np.ones((2, 2), np.float32)
    g, h = np.float32([[1, 2], [3, -1]]), np.float32([[-2, 1], [0.5, 3]])
    plain = {"nesterov": False, "ns_steps": 0}

    says(page, "torch, optax and Keras decouple the decay: w loses λκw, whatever the step is.")
    for step, rate in ((of_torch, "lr"), (of_optax, "learning_rate"), (of_keras, "learning_rate")):
        assert (step(one, zero, weight_decay=0.25, **{rate: 0.5})[0] == 1 - 0.5 * 0.25).all()
    says(page, "MLX adds κw to the gradient before Newton–Schulz, so that κ turns a step and does not lengthen it.")
    little, much = (of_mlx(one, zero, learning_rate=0.5, weight_decay=decay, **plain)[0] for decay in (0.5, 2.0))
    assert np.allclose(little, much, atol=1e-6)
    assert np.allclose(little, 1 - 0.5 * 0.5, atol=1e-6)  # all ones, over its norm of 2

    says(page, "torch takes arrays of two axes alone,")
    for shape in ((), (3,), (2, 3, 4)):
        with pytest.raises(ValueError, match="only supports 2D"):
            of_torch(np.zeros(shape, np.float32), lr=0.1)
    says(page, "computes Newton–Schulz in bfloat16, whatever dtype the parameter has.")
    moved, _ = of_torch(np.zeros((2, 2)), g.astype(np.float64), lr=1.0)
    assert moved.dtype == np.float64
    assert (torch.tensor(moved).bfloat16().double().numpy() == moved).all()
    says(page, "ε is no summand of the norm but a bound from below.")
    corner = np.float32([[0.25, 0], [0, 0]])
    lengths = [of_torch(zero, corner, lr=1.0, momentum=0.0, eps=eps, **plain)[0][0, 0] for eps in (0.125, 1.0)]
    assert lengths == [-1.0, -0.25]  # ¼/max(¼, ε)
    says(page, r"Its documentation has the buffer $B_t = \mu B_{t-1} + g_t$,")
    assert r"B_t \leftarrow \mu B_{t-1} + g_t" in torch.optim.Muon.__doc__
    says(page, "after one step with the default μ of 0.95 it is a twentieth of that.")
    _, slots = of_torch(zero, g, lr=1.0)
    assert np.allclose(slots["momentum_buffer"], g / 20, rtol=1e-6)
    says(page, "The direction is the same, until the norm is as small as ε.")
    given = {"lr": 1.0, "momentum": 0.5, "ns_steps": 0, "weight_decay": 0.0}
    moved = of_torch(zero, g, h, **given)[0] - of_torch(zero, g, **given)[0]
    documented = h + 0.5 * (0.5 * g + h)
    assert np.allclose(moved, -along(documented), atol=0.01)  # in bfloat16
    assert np.abs(along(documented) - along(h)).max() > 0.1

    says(page, r"optax corrects the bias, with $1 - \mu^{t+1}$ for the buffer and $1 - \mu^t$ for the gradient,")
    assert np.array_equal(of_optax(zero, g, learning_rate=1.0)[1]["mu"], np.float32(1 - 0.95) * g)
    first, second = (of_optax(zero, *x, learning_rate=1.0, beta=0.5, ns_steps=0)[0] for x in ((g,), (g, h)))
    v = 0.5 * 0.5 * g + 0.5 * h
    assert np.allclose(first, -along(g), atol=1e-6)
    assert np.allclose(second - first, -along(0.5 * v / (1 - 0.5**3) + 0.5 * h / (1 - 0.5**2)), atol=1e-6)
    assert not np.allclose(second - first, -along(0.5 * v + 0.5 * h), atol=1e-2)
    says(page, "ε is 1e-8.")
    assert inspect.signature(require("optax.contrib").muon).parameters["eps"].default == 1e-8
    says(page, r"Its rows are inputs, so that the scale is $\sqrt{\max(1, c/r)}$.")
    for shape, scales in (((8, 2), (2.0, 1.0, 0.2 * 8**0.5)), ((2, 8), (1.0, 2.0, 0.2 * 8**0.5))):
        tall = np.random.default_rng(0).normal(size=shape).astype(np.float32)
        nothing, none = np.zeros(shape, np.float32), {"learning_rate": 1.0, "ns_steps": 0}
        moved = (
            of_mlx(nothing, tall, weight_decay=0.0, **none),
            of_optax(nothing, tall, **none),
            of_keras(nothing, tall, **none),
        )
        assert np.allclose([np.linalg.norm(w) for w, _ in moved], scales, rtol=1e-5)
    says(page, "By default an array of another number of axes than two goes to AdamW, with Nesterov momentum.")
    for shape in ((2,), (1, 2, 1)):
        moved, slots = of_optax(np.zeros(shape, np.float32), np.ones(shape, np.float32), learning_rate=0.5)
        assert "nu" in slots and "nu" not in of_optax(zero, g, learning_rate=0.5)[1]
        assert np.allclose(moved, -0.5 * (0.9 * 0.1 / (1 - 0.9**2) + 1))

    says(page, r"Keras adds up: $m_t = \mu m_{t-1} + g_t$, and looks ahead to $g_t + \mu m_t$.")
    given = {"learning_rate": 1.0, "ns_steps": 0, "momentum": 0.5, "rms_rate": None}
    (first, _), (second, slots) = of_keras(zero, g, **given), of_keras(zero, g, h, **given)
    assert np.array_equal(slots["momentums"], 0.5 * g + h)
    assert np.allclose(second - first, -along(h + 0.5 * (0.5 * g + h)), atol=1e-6)
    says(page, r"The scale is $0.2\sqrt{\max(r, c)}$.")
    says(page, 'An array of another number of axes than two, or with "embedding" in its path, goes to Adam,')
    says(page, "goes to Adam, which adds ε to a root that is not corrected yet.")
    small = 0.5 * 1e-3 / (1e-3 + 1e-5 / 0.001**0.5)
    for shape, called in (((2,), "w"), ((1, 2, 1), "w"), ((2, 2), "my_Embedding")):
        gradient = np.full(shape, 1e-3, np.float32)
        moved, slots = of_keras(np.zeros(shape, np.float32), gradient, called=called, learning_rate=0.5, epsilon=1e-5)
        assert "velocities" in slots and np.allclose(moved, -small, rtol=1e-4)
    assert "velocities" not in of_keras(zero, g, learning_rate=0.5)[1]


def test_some_optimizers_of_the_same_name_compute_the_documented_formula():
    reports = {
        library: json.loads((ROOT / "docs" / "reports" / f"{library}.json").read_text("utf-8"))["results"]
        for library in ("torch", "optax", "keras")
    }
    held = {
        (library, name): result["formula"] == name
        for library, results in reports.items()
        for result in results
        for name in EIGHT
        if result["verdict"] == "conforms" and result["case"].startswith(f"{name.lower()}/")
    }
    count = f"Of the {len(held)} in torch, optax and Keras that have the name of one of the eight, {sum(held.values())}"
    says("guides/frameworks.md", f"{count} compute the documented formula.")
    known = {(library, name) for library in reports for name in EIGHT if EXPECTED[name].claims[library] is not None}
    assert set(held) == known
    assert {pair for pair, same in held.items() if same} == {
        (lib, one) for lib, one in known if EXPECTED[one].claims[lib] == one
    }


def test_the_sgd_of_optax_has_no_weight_decay_and_is_held_to_the_formula_in_a_chain():
    says(
        "results.md",
        "`optax.sgd` has no weight decay, so the SGD of optax is a chain: `add_decayed_weights`, then `sgd`.",
    )
    optax, jnp = require("optax"), require("jax.numpy")
    assert not any("decay" in name for name in inspect.signature(optax.sgd).parameters)
    given = {"learning_rate": 0.5, "momentum": 0.0, "weight_decay": 0.5, "dampening": 0.0, "nesterov": False}
    case = dataclasses.replace(matching(["SGD"])[0], hyperparameters=given)
    rule = open_backend("optax").transformation(case)
    chain = optax.chain(optax.add_decayed_weights(0.5), optax.sgd(0.5))
    w, g = jnp.ones(1), jnp.ones(1)
    moved = [float(one.update(g, one.init(w), w)[0][0]) for one in (rule, chain)]
    assert moved == [-0.75, -0.75]


# Guides


@each_name
def test_each_module_computes_its_formula_in_two_ways_that_share_nothing(name):
    says("guides/the_oracle.md", "Each optimizer module computes its formula in two ways.")
    says("guides/the_oracle.md", "shares nothing with `rule`")
    optimizer = getattr(mlx_optimizers, name)
    assert {"rule", "exact"} <= set(vars(optimizer))
    source = inspect.getsource(optimizer.exact).partition('"""')[2].partition('"""')[2]
    assert not re.search(r"\bnp\.|\brule\b|coefficients", source)


def test_an_mlx_module_is_trained_where_first_steps_says():
    says("guides/first_steps.md", "[Optimizers](../optimizers.rst) trains one from end to end;")
    says("guides/first_steps.md", "[Train on the digits](train_on_the_digits.md) does so with NumPy arrays.")
    says("optimizers.rst", "class MLP(nn.Module)")
    assert "mlx.nn" not in (ROOT / "docs" / "guides" / "train_on_the_digits.md").read_text("utf-8")


def test_this_processor_computes_in_the_usual_mode():
    says("guides/decisions.md", "in its usual mode, which rounds to nearest and flushes no subnormal number to zero.")
    one, half = np.float32([1.0]), np.float32([2.0**-24])
    assert [(one + half)[0], (one + 3 * half)[0]] == [1.0, 1.0 + 2.0**-22], "ties go to the even one"
    assert (np.float32([2.0**-126]) * np.float32([2.0**-23]))[0] == 2.0**-149


def test_the_sign_of_the_updated_momentum_is_called_signum():
    (axis,) = (axis for axis in entry_of("Lion").axes if axis.name == "sign")
    assert axis.meaning["momentum"].seen_in == "ports that mix Lion up with Signum"
    formula, given = parse("Lion[sign=momentum]"), {"learning_rate": 1.0, "betas": (0.0, 0.5)}
    steps = trajectory(formula, [0.0], [[1.0], [-0.25]], **given)  # m = ½, then ⅛; signSGD goes back to 0
    assert [float(step.parameter.exact[0]) for step in steps] == [-1.0, -2.0]
