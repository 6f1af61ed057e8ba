"""The suite of cases: what must be there, and that the data stay what they are."""

from __future__ import annotations

import hashlib
import subprocess
import sys

import numpy as np
import pytest

import mlx_optimizers
from mlx_optimizers.catalog.axes import CHANGING
from mlx_optimizers.conformance import Case, all_cases, cases_of, check, matching
from mlx_optimizers.conformance.case import DOMAIN
from mlx_optimizers.conformance.cases import ELEMENTS, STEPS, VALUES, make_case, recast
from tests.expected import EIGHT, EXPECTED, LATER, NAMES, WHOLE, each_name
from tests.programs import Program, formula_cases

CASES = {case.id: case for case in formula_cases()}
"""Those of the formulas; tests/conformance/test_frame.py has the others."""


def test_there_are_enough_and_no_two_share_an_identifier():
    assert len(CASES) == len(formula_cases()) >= 150
    assert len({case.id for case in all_cases()}) == len(all_cases()) >= 700
    assert [case.id for name in (*NAMES, *WHOLE) for case in cases_of(name)] == list(CASES)


@each_name
def test_the_settings_that_a_review_found_sufficient_are_there(name):
    regimes = EXPECTED[name].regimes
    for regime in regimes:
        for label in ("defaults", *EXPECTED[name].labels):
            assert f"{name.lower()}/{regime}/{label}" in CASES
    assert {case.regime for case in CASES.values() if case.optimizer == name} == {*regimes, *VALUES}


@pytest.mark.norm("interval.domain", "check_your_port.hyperparameters", "check_your_port.no-defaults")
@pytest.mark.parametrize("case", formula_cases(), ids=lambda case: case.id)
def test_a_case_is_whole_and_inside_the_domain(case):
    assert case.parameter.size == ELEMENTS
    assert case.parameter.ndim == 1 or case.optimizer in WHOLE
    assert case.gradients.shape == (STEPS, *case.parameter.shape)
    assert case.parameter.dtype == case.gradients.dtype == np.float32
    optimizer = getattr(mlx_optimizers, case.optimizer)
    rates = [rate for rate in case.rates() if rate is not None]
    made = optimizer(**case.at_step(0))
    assert set(case.hyperparameters) == set(vars_of(made))
    eps = np.atleast_1d(case.hyperparameters.get("eps", 0))[-1]  # Adafactor's ε₁ is no part of a sum that decides
    for values in (case.parameter, case.gradients, rates, eps):
        sizes = np.abs(np.asarray(values, np.float64))
        assert np.all((sizes == 0) | ((sizes >= DOMAIN[0]) & (sizes <= DOMAIN[1])))
    assert max(rates, default=0) * case.hyperparameters.get("weight_decay", 0) <= 0.2
    decays = [case.hyperparameters.get(name) for name in ("alpha", "rho", "betas", "beta_1")]
    decays += [case.hyperparameters["momentum"]] if case.optimizer == "Muon" else []
    inside = all(beta > 0.5 for decay in decays if decay is not None for beta in np.atleast_1d(decay))
    assert case.level == ("required" if inside else "informative")
    assert (case.reason is None) == inside


@pytest.mark.norm("interval.eight-steps")
def test_a_case_has_eight_steps():
    assert {len(case.gradients) for case in formula_cases()} == {8}


def vars_of(optimizer):
    import inspect

    return inspect.signature(type(optimizer)).parameters


def _sizes(regime, optimizer="Adam", label="defaults"):
    sizes = np.abs(CASES[f"{optimizer.lower()}/{regime}/{label}"].gradients)
    return sizes[sizes > 0]


def test_the_regimes_are_what_they_are_called():
    assert _sizes("plain").min() >= 0.25 and _sizes("plain").max() < 4
    assert 2**-27 <= _sizes("tiny").min() < 1e-7 and 5e-7 < _sizes("tiny").max() < 2**-19
    assert _sizes("tiny", "AdaDelta").min() < 5e-4 and _sizes("tiny", "AdaDelta").max() > 5e-3
    assert _sizes("wide").min() < 2**-28 and _sizes("wide").max() > 2**17
    mantissas, _ = np.frexp(CASES["adam/wide/defaults"].gradients)
    assert (np.abs(mantissas[:, ::2]) == 0.5).all() and (np.abs(mantissas[:, 1::2]) != 0.5).any()
    zeros = CASES["adam/zeros/defaults"].gradients == 0
    assert zeros[:, 0].all() and zeros[:4, 3].all() and 0.3 < zeros.mean() < 0.7
    for regime in ("tiny", "zeros"):
        assert not CASES[f"adam/{regime}/defaults"].parameter.any()


def test_the_edge_regime_brings_lions_direction_next_to_zero():
    case = CASES["lion/edge/defaults"]
    b1, b2 = case.hyperparameters["betas"]
    m = np.zeros(ELEMENTS)
    for step, g in enumerate(case.gradients.astype(np.float64)):
        if step % 2:
            closeness = np.abs(b1 * m + (1 - b1) * g) / (b1 * np.abs(m))
            assert ((closeness > 2.0**-19.6) & (closeness < 2.0**-11.9)).all()
        m = b2 * m + (1 - b2) * g


@pytest.mark.norm("vectors.id", "check_your_port.same-bits")
def test_the_data_are_the_same_on_every_machine_and_release():
    """The digest of every bit of every case, in order. A change of it is a change of the suite: say so in CHANGELOG."""
    for names, expected in ((EIGHT, "1a7f63d6a26f7475"), (LATER, "0edd91c71cec874c")):
        digest = hashlib.sha256()
        for case in formula_cases():
            if case.optimizer in names:
                digest.update(case.id.encode())
                digest.update(case.parameter.astype("<f4").tobytes())
                digest.update(case.gradients.astype("<f4").tobytes())
        assert digest.hexdigest()[:16] == expected


def test_the_data_do_not_depend_on_the_hash_seed():
    program = "from mlx_optimizers.conformance import all_cases; print([float(c.gradients.sum()) for c in all_cases()])"
    outputs = {
        subprocess.run(
            [sys.executable, "-c", program], env={"PYTHONHASHSEED": seed}, capture_output=True, text=True, check=True
        ).stdout
        for seed in ("1", "2")
    }
    assert len(outputs) == 1


def test_a_pattern_matches_the_whole_identifier_and_crosses_slashes():
    assert [case.id for case in matching(pattern="adam/tiny/defaults")] == ["adam/tiny/defaults"]
    assert {case.optimizer for case in matching(pattern="*/tiny/*")} == {*NAMES, *WHOLE}
    assert matching(pattern="adam") == []
    assert len(matching(pattern="*changing*")) == len([i for i in CASES if "changing" in i])
    assert {case.optimizer for case in matching(["Adam", "Lion"])} == {"Adam", "Lion"}


def test_changing_learning_rates():
    case = CASES["adam/wide/learning_rate=changing"]
    assert case.hyperparameters["learning_rate"] == list(CHANGING) == case.rates()
    assert case.at_step(2)["learning_rate"] == 0.05
    assert CASES["adam/wide/defaults"].rates() == [1e-3] * STEPS


@pytest.mark.norm("interval.domain")
def test_a_case_of_ones_own_is_judged_outside_the_domain_too():
    w, hyperparameters = np.float32([2.0**100]), CASES["sgd/plain/defaults"].hyperparameters
    case = Case("sgd/plain/huge", "SGD", "plain", "huge", "float32", hyperparameters, w, w[None])
    for wrong, word in ((False, "conforms"), (True, "deviates")):
        program = Program(lambda h, t, w, g, v, wrong=wrong: (w - h.learning_rate * g * (2 if wrong else 1), v))
        assert [result.word for result in check(program, [case]).results] == [word]


@pytest.mark.norm("interval.domain")
def test_what_lies_outside_the_domain_is_refused():
    adamw = mlx_optimizers.AdamW
    with pytest.raises(ValueError, match=r"above 0\.2"):
        make_case(adamw, "plain", {"learning_rate": 0.5, "weight_decay": 0.5})
    for given in ({"eps": 1e-20}, {"learning_rate": 1e-13}, {"learning_rate": 2e12, "weight_decay": 0.0}):
        with pytest.raises(ValueError, match="outside"):
            make_case(adamw, "plain", given)
    with pytest.raises(TypeError, match="no hyperparameter momentum"):
        make_case(adamw, "plain", {"momentum": 0.9})
    with pytest.raises(TypeError, match="int8"):
        make_case(adamw, "plain", {}, "int8")


@pytest.mark.parametrize("dtype", ["float16", "float64"])
def test_other_dtypes_append_their_name(dtype):
    case = recast(CASES["adam/wide/learning_rate=changing"], dtype)
    assert case.id == f"adam/wide/learning_rate=changing/{dtype}"
    assert case.gradients.dtype == case.parameter.dtype == np.dtype(dtype)
    assert np.isfinite(case.gradients).all()
    assert (np.abs(case.gradients[case.gradients != 0]) >= np.finfo(dtype).tiny).all()
