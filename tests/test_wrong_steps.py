"""A wrong step in any optimizer is seen: each small change of a formula makes `check` say `deviates`.

The steps below are plain NumPy, with the changes as branches, in subclasses with an `apply_single`. Without a change
they conform, so that it is the change that is seen.
"""

from __future__ import annotations

import json

import numpy as np
import pytest

import mlx_optimizers as optim
from mlx_optimizers.backends import open_backend, reference
from mlx_optimizers.cli import main
from mlx_optimizers.conformance import check, matching, parse
from mlx_optimizers.conformance.verdict import judge

pytestmark = pytest.mark.usefixtures("remembered")

f = np.float32


def _mean(change, name, decay, old, new):
    """β·old + (1−β)·new, or with the two swapped."""
    keep, rest = (1 - decay, decay) if change == f"1−{name} for {name}" else (decay, 1 - decay)
    return f(keep) * old + f(rest) * new


def _divisor(change, v, eps):
    """√v + ε."""
    if change == "ε in the root":
        return np.sqrt(v + f(eps))
    if change == "no root":
        return v + f(eps)
    return np.sqrt(v) if change == "no ε" else np.sqrt(v) + f(eps)


def _rate(change, h):
    return f(float(h.learning_rate) * (1.001 if change == "λ +0.1 %" else 1))


def _decayed(change, h, w, before):
    """(1−λκ)w before the step, or after it."""
    kappa = f(h.weight_decay * (1.001 if change == "κ +0.1 %" else 1))
    if (change != "decay after the step") != before or change == "no decay":
        return w
    return (f(1) - f(h.learning_rate) * kappa) * w


def sgd(change, h, w, g, v):
    after = change == "decay after the step"
    if not after and change != "no decay":
        g = g + f(h.weight_decay * (1.001 if change == "κ +0.1 %" else 1)) * w
    d = g
    if h.momentum:
        damped = h.dampening if change == "τ for 1−τ" else 1 - h.dampening
        v = f(h.momentum) * v + f(damped) * g
        d = g + f(h.momentum) * v if h.nesterov and change != "no look ahead" else v
    w = w - _rate(change, h) * d
    return (w - f(h.learning_rate) * f(h.weight_decay) * w if after else w), v


def rmsprop(change, h, w, g, v):
    v = _mean(change, "α", h.alpha, v, g * g)
    return w - _rate(change, h) * g / _divisor(change, v, h.eps), v


def adagrad(change, h, w, g, v):
    v = v + (np.abs(g) if change == "no square" else g * g)
    return w - _rate(change, h) * g / _divisor(change, v, h.eps), v


def adadelta(change, h, w, g, v, u):
    v, eps = _mean(change, "ρ", h.rho, v, g * g), f(h.eps)
    above, below = np.sqrt(u + eps), np.sqrt(v + eps)
    if change == "ε outside the roots":
        above, below = np.sqrt(u) + eps, np.sqrt(v) + eps
    if change == "ε below alone":
        above = np.sqrt(u)
    if change == "no root above":
        above = u + eps
    if change == "no root below":
        below = v + eps
    d = above / below * g
    return w - _rate(change, h) * d, v, u if change == "u never updated" else _mean(change, "ρ", h.rho, u, d * d)


def adam(change, h, w, g, m, v):
    b1, b2 = h.betas[::-1] if change == "betas swapped" else h.betas
    m = _mean(change, "β₁", b1, m, g)
    v = _mean(change, "β₂", b2, v, g * g)
    return w - _rate(change, h) * m / _divisor(change, v, h.eps), m, v


def adamw(change, h, w, g, m, v):
    w, m, v = adam(change, h, _decayed(change, h, w, before=True), g, m, v)
    return _decayed(change, h, w, before=False), m, v


def adamax(change, h, w, g, m, v):
    b1, b2 = h.betas[::-1] if change == "betas swapped" else h.betas
    m = _mean(change, "β₁", b1, m, g)
    size, eps = g if change == "no absolute value" else np.abs(g), f(h.eps)
    decay = f(1 - b2 if change == "1−β₂ for β₂" else b2)
    v = np.maximum(decay * v, size + eps if change == "ε in the maximum" else size)
    d = v if change in ("ε in the maximum", "no ε") else v + eps
    return w - _rate(change, h) * m / d, m, v


def lion(change, h, w, g, m):
    b1, b2 = h.betas[::-1] if change == "betas swapped" else h.betas
    c, m = _mean(change, "β₁", b1, m, g), _mean(change, "β₂", b2, m, g)
    w = _decayed(change, h, w, before=True)
    w = w - _rate(change, h) * (c if change == "no sign" else np.sign(m if change == "sign of m" else c))
    return _decayed(change, h, w, before=False), m


DECAY = ("decay after the step", "no decay", "κ +0.1 %")
BETAS = ("1−β₁ for β₁", "1−β₂ for β₂", "betas swapped")
ROOT = ("ε in the root", "no ε", "no root")

WRONG = {
    "SGD": (sgd, ("τ for 1−τ", "no look ahead", *DECAY)),
    "RMSprop": (rmsprop, ("1−α for α", *ROOT)),
    "Adagrad": (adagrad, ("no square", *ROOT)),
    "AdaDelta": (
        adadelta,
        (
            "1−ρ for ρ",
            "ε outside the roots",
            "ε below alone",
            "no root above",
            "no root below",
            "u never updated",
        ),
    ),
    "Adam": (adam, (*BETAS, *ROOT)),
    "AdamW": (adamw, (*BETAS, *ROOT, *DECAY)),
    "Adamax": (adamax, (*BETAS, "ε in the maximum", "no ε", "no absolute value")),
    "Lion": (lion, (*BETAS, "sign of m", "no sign", *DECAY)),
}
EACH = [(name, change) for name, (_, changes) in WRONG.items() for change in ("λ +0.1 %", *changes)]


@pytest.fixture
def replaced(monkeypatch):
    """Puts a step in the place of an optimizer's own."""

    def replace(name, change):
        step, _ = WRONG[name]

        def apply_single(self, gradient, parameter, state):
            slots = [state[slot] for slot in self.slots]
            parameter[...], *new = step(change, self, parameter.copy(), gradient, *slots)
            for slot, values in zip(slots, new, strict=True):
                slot[...] = values
            return parameter

        wrong = type(name, (getattr(optim, name),), {"apply_single": apply_single})
        monkeypatch.setitem(reference._CLASSES, name, wrong)

    return replace


def test_every_optimizer_is_there():
    assert list(WRONG) == [made.__name__ for made in optim.OPTIMIZERS]


@pytest.mark.parametrize("name", WRONG)
def test_the_step_without_a_change_conforms(replaced, name):
    replaced(name, None)
    report = check(open_backend("reference"), matching([name]))
    assert {result.word for result in report.results} == {"conforms"}


@pytest.mark.parametrize(("name", "change"), EACH)
def test_a_changed_step_deviates(replaced, name, change):
    replaced(name, change)
    backend = open_backend("reference")
    # The wider profile: what falls out of it falls out of both.
    assert not all(judge(backend.run(case), parse(name), "float32").conforms for case in matching([name]))


@pytest.mark.parametrize(("name", "change"), [(name, changes[-1]) for name, (_, changes) in WRONG.items()])
def test_the_command_says_so(replaced, capsys, name, change):
    replaced(name, change)
    status = main(["check", "reference", "--optimizer", name, "--format", "json"])
    assert status == 1
    report = json.loads(capsys.readouterr().out)
    assert report["summary"]["deviates"] > 0
    assert {result["optimizer"] for result in report["results"]} == {name}
