"""Every combination of branches has cases that see each of its numbers; a wrong program in one of them deviates."""

from __future__ import annotations

import dataclasses
from functools import cache

import numpy as np
import pytest

import mlx_optimizers
from mlx_optimizers.backends import open_backend
from mlx_optimizers.conformance import Case, parse
from mlx_optimizers.conformance.cases import cases_of
from mlx_optimizers.conformance.verdict import judge
from mlx_optimizers.testing import assert_conforms
from tests.conformance.combinations import RATE, Table, Unreadable, values_of
from tests.expected import CLASSES, EXPECTED, NAMES

pytestmark = pytest.mark.usefixtures("remembered", "mpfr")

table = cache(Table)


@pytest.mark.parametrize("optimizer", CLASSES, ids=NAMES)
def test_every_combination_has_cases_with_two_values_of_each_number(optimizer):
    assert table(optimizer).gaps(cases_of(optimizer.__name__)) == []


# The table comes from the formula: a branch or a term that the cases do not reach is seen.


class Clipped(mlx_optimizers.Adam):
    """A branch on a value that no case has."""

    @staticmethod
    def exact(n, h, t, w, g, m, v):
        if h.eps > 7.5:
            return w - h.learning_rate * g, m, v
        return mlx_optimizers.Adam.exact(n, h, t, w, g, m, v)


class Late(mlx_optimizers.Adam):
    """A branch on a step that no case reaches, as a conditional expression."""

    @staticmethod
    def exact(n, h, t, w, g, m, v):
        rate = h.learning_rate if t < 1000 else 0.5 * h.learning_rate
        return w - rate * g, m, v


class Decayed(mlx_optimizers.Lion):
    """A new number whose zero takes a term away."""

    def __init__(self, learning_rate, betas=(0.9, 0.99), weight_decay=0.0, friction=0.0):
        super().__init__(learning_rate, betas, weight_decay)
        self.friction = friction

    @staticmethod
    def exact(n, h, t, w, g, m):
        c = g - h.friction * m
        return mlx_optimizers.Lion.exact(n, h, t, w, c, m)


@pytest.mark.parametrize(
    ("optimizer", "gap"),
    [
        (Clipped, "no case has h.eps > 7.5"),
        (Late, "no case has not (t < 1000)"),
        (Decayed, "no case has always"),
    ],
)
def test_a_new_branch_or_term_without_a_case_is_found(optimizer, gap):
    (base,) = optimizer.__bases__
    cases = [_as(case, optimizer) for case in cases_of(base.__name__)]
    assert gap in table(optimizer).gaps(cases)


def _as(case, optimizer):
    more = {"friction": 0.0} if optimizer is Decayed else {}
    return Case(**{**vars(case), "hyperparameters": {**case.hyperparameters, **more}})


def test_a_setting_that_is_taken_away_is_missed():
    sgd, usual = table(mlx_optimizers.SGD), {"defaults", *EXPECTED["SGD"].labels}
    cases = [case for case in cases_of("SGD") if case.regime == "plain" and case.label in usual]
    for left_out in cases:
        if left_out.label not in ("defaults", "dampening=1.0,momentum=0.9"):
            assert sgd.gaps([case for case in cases if case is not left_out]), left_out.label


class Hidden(mlx_optimizers.Adam):
    """A comparison outside a condition is a branch, too."""

    @staticmethod
    def exact(n, h, t, w, g, m, v):
        return w - h.learning_rate * (h.eps > 0.5) * g, m, v


class Data(mlx_optimizers.Adam):
    """A branch on the data."""

    @staticmethod
    def exact(n, h, t, w, g, m, v):
        return (w if g > h.eps else g), m, v


class Looped(mlx_optimizers.Adam):
    """A loop."""

    @staticmethod
    def exact(n, h, t, w, g, m, v):
        while h.eps > 0:
            w = w - g
        return w, m, v


@pytest.mark.parametrize("optimizer", [Hidden, Data, Looped])
def test_what_the_reader_does_not_understand_is_an_error(optimizer):
    with pytest.raises(Unreadable):
        Table(optimizer)


# The two values differ where it shows.


@pytest.mark.parametrize("optimizer", CLASSES, ids=NAMES)
def test_a_program_that_takes_another_value_in_one_combination_deviates(optimizer):
    for combination, cases in table(optimizer).cases(cases_of(optimizer.__name__)).items():
        for name in table(optimizer).parts[combination]:
            for value in values_of(cases, name):
                assert any(_deviates(case, name, value) for case in cases), (combination, name, value)


def _deviates(case, name, value):
    key, _, index = name.rstrip("]").partition("[")
    old = case.hyperparameters[key]
    new = tuple(value if int(index) == i else x for i, x in enumerate(old)) if index else value
    if new == old:
        return False
    changed = Case(**{**vars(case), "hyperparameters": {**case.hyperparameters, key: new}})
    run = dataclasses.replace(open_backend("reference").run(changed), case=case)
    return not any(judge(run, parse(case.optimizer), profile).conforms for profile in ("double", "float32"))


def sgd(parameter, gradients, *, wrong="", **h):
    """SGD in float32, right but for one thing."""
    rate, mu, kappa, tau, nesterov = (h[key] for key in (RATE, "momentum", "weight_decay", "dampening", "nesterov"))
    rates = rate if isinstance(rate, list) else [rate] * len(gradients)
    real, w, v, rows = np.float32, parameter, np.zeros_like(parameter), []
    if wrong == "κ dropped under momentum" and mu and not nesterov and not tau:
        kappa = 0.0
    if wrong == "κ dropped under Nesterov momentum" and nesterov and mu < 0.9:
        kappa = 0.0
    if wrong == "κ = 0.1 without momentum" and kappa and not mu and not tau:
        kappa = 0.1
    if wrong == "τ ignored without κ" and not kappa and tau < 1:
        tau = 0.0
    if wrong == "τ used without μ" and not mu and not kappa:
        rates = [real(rate) * real(1 - tau) for rate in rates]
    if wrong == "κ dropped where τ is not 0.3" and mu and tau not in (0, 0.3):
        kappa = 0.0
    if wrong == "the first rate is kept" and not (mu or kappa or tau):
        rates = rates[:1] * len(gradients)
    ahead = 0.9 if wrong == "0.9 for μ in the look-ahead" else mu
    for rate, g in zip(rates, gradients, strict=True):
        h = g + real(kappa) * w if kappa else g
        d = h
        if mu:
            v = real(mu) * v + real(1 - tau) * h
            d = h + real(ahead) * v if nesterov else v
        w = w - real(rate) * d
        rows.append(w)
    return np.stack(rows)


def test_a_right_sgd_conforms():
    assert_conforms(sgd, "SGD")


@pytest.mark.parametrize(
    "wrong",
    [
        "κ dropped under momentum",
        "κ dropped under Nesterov momentum",
        "κ = 0.1 without momentum",
        "τ ignored without κ",
        "τ used without μ",
        "κ dropped where τ is not 0.3",
        "the first rate is kept",
        "0.9 for μ in the look-ahead",
    ],
)
def test_a_wrong_sgd_deviates(wrong):
    with pytest.raises(AssertionError, match="SGD deviates in"):
        assert_conforms(lambda *data, **h: sgd(*data, wrong=wrong, **h), "SGD")


def adamw(parameter, gradients, *, learning_rate, betas, eps, weight_decay, wrong=""):
    """AdamW in float32, that keeps its own defaults where there is no weight decay."""
    if wrong and not weight_decay:
        betas, eps = ((0.9, 0.999), eps) if wrong == "betas" else (betas, 1e-6)
    rates = learning_rate if isinstance(learning_rate, list) else [learning_rate] * len(gradients)
    real, w, rows = np.float32, parameter, []
    m = v = np.zeros_like(parameter)
    (b1, b2), (rest1, rest2) = betas, (1 - beta for beta in betas)
    for rate, g in zip(rates, gradients, strict=True):
        m, v = real(b1) * m + real(rest1) * g, real(b2) * v + real(rest2) * (g * g)
        w = (real(1) - real(rate) * real(weight_decay)) * w - real(rate) * m / (np.sqrt(v) + real(eps))
        rows.append(w)
    return np.stack(rows)


@pytest.mark.parametrize("wrong", ["betas", "eps"])
def test_a_wrong_adamw_deviates(wrong):
    assert_conforms(adamw, "AdamW")
    with pytest.raises(AssertionError, match="AdamW deviates in"):
        assert_conforms(lambda *data, **h: adamw(*data, wrong=wrong, **h), "AdamW")


def test_a_wrong_lion_deviates():
    def lion(parameter, gradients, *, learning_rate, betas, weight_decay, wrong=True):
        b1, b2 = (0.9, 0.99) if wrong and not weight_decay else betas
        rates = learning_rate if isinstance(learning_rate, list) else [learning_rate] * len(gradients)
        real, w, m, rows = np.float32, parameter, np.zeros_like(parameter), []
        for rate, g in zip(rates, gradients, strict=True):
            c, m = real(b1) * m + real(1 - b1) * g, real(b2) * m + real(1 - b2) * g
            w = (real(1) - real(rate) * real(weight_decay)) * w - real(rate) * np.sign(c)
            rows.append(w)
        return np.stack(rows)

    assert_conforms(lambda *data, **h: lion(*data, wrong=False, **h), "Lion")
    with pytest.raises(AssertionError, match="Lion deviates in"):
        assert_conforms(lion, "Lion")
