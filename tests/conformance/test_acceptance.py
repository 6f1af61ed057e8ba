"""Which numbers are accepted: the interval to its ends, which elements are not tested, and NaN."""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
import pytest

from mlx_optimizers.conformance import Case, Run, cases_of, parse, verdict
from mlx_optimizers.conformance.cases import recast
from mlx_optimizers.conformance.verdict import judge
from mlx_optimizers.oracle import trajectory
from tests.expected import FORMULAS
from tests.support import require

pytestmark = pytest.mark.usefixtures("remembered")

SGD = {"learning_rate": 0.1, "momentum": 0.5, "weight_decay": 0.0, "dampening": 0.0, "nesterov": False}
ADAM = {"learning_rate": 0.1, "betas": (0.9, 0.999), "eps": 1e-8}


def _case(optimizer, hyperparameters, w, g, dtype="float32"):
    real = np.dtype(dtype) if dtype != "bfloat16" else require("ml_dtypes").bfloat16
    w, g = np.array(w, real), np.array(g, real)
    return Case("sgd/plain/by_hand", optimizer, "plain", "by hand", dtype, hyperparameters, w, g)


def _nearest(case, formula=None):
    """Make the correctly rounded outcome."""
    entries = trajectory(
        formula or case.optimizer, case.parameter, case.gradients, dtype=case.dtype, **case.hyperparameters
    )
    state = {name: np.stack([entry.state[name].nearest for entry in entries]) for name in entries[0].state}
    return entries, Run(case, np.stack([entry.parameter.nearest for entry in entries]), state)


CASE = _case("SGD", SGD, [1.0, -2.0, 3.0], [[0.5, 1.0, -1.5], [0.25, 3.0, 1.0]])


def _judge(case, outcome, formula=None, scalars="double"):
    return judge(Run(case, outcome.parameters, outcome.state), parse(formula or case.optimizer), scalars)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32", "float64"])
def test_the_correctly_rounded_values_conform(dtype):
    case = _case("SGD", SGD, [1.0, -2.0, 3.0], [[0.5, 1.0, -1.5], [0.25, 3.0, 1.0]], dtype)
    judgement = _judge(case, _nearest(case)[1])
    assert judgement.conforms and judgement.first is None
    assert (judgement.tested, judgement.untested) == (12, 0)
    assert judgement.worst.excess <= 1 / 1.5  # one rounding at most, where 1.5 times that is granted


@pytest.mark.parametrize("quantity", ["parameter", "v"])
@pytest.mark.parametrize("end", ["low", "high"])
def test_the_ends_are_accepted_and_the_next_floats_are_not(quantity, end):
    entries, outcome = _nearest(CASE)
    values = outcome.parameters if quantity == "parameter" else outcome.state["v"]
    interval = dict(entries[1].quantities())[quantity]
    limit = getattr(interval, end)[2]
    values[1, 2] = limit
    judgement = _judge(CASE, outcome)
    assert judgement.conforms and judgement.worst.excess <= 1
    values[1, 2] = np.nextafter(limit, np.float32(-np.inf if end == "low" else np.inf))
    judgement = _judge(CASE, outcome)
    assert not judgement.conforms
    assert judgement.worst == judgement.first
    assert (judgement.worst.quantity, judgement.worst.step, judgement.worst.index) == (quantity, 2, 2)
    assert judgement.worst.excess > 1


def test_the_worst_element_is_told_in_full():
    case = _case("SGD", {**SGD, "learning_rate": 0.5, "momentum": 0.0}, [1.0], [[1.0]])
    outcome = Run(case, np.float32([[0.75]]), {})
    worst = _judge(case, outcome).worst
    # λg: ½ with radius ½u + η, times an exact g: ½u(1 + u) + …; then w − λg rounds once more.
    u, eta = 1.5 * 2.0**-24, 1.5 * 2.0**-126
    product = (0.5 * u + eta) + u * (0.5 + 0.5 * u + eta) + eta
    radius = product + u * (0.5 + product) + eta
    assert worst.excess == pytest.approx(0.25 / radius, rel=1e-12)  # radii are sums of a few doubles
    assert (worst.got, worst.nearest, worst.exact) == ("3f400000", "3f000000", "0.5")
    low, high = (np.array([int(bits, 16)], np.uint32).view(np.float32)[0] for bits in (worst.low, worst.high))
    assert Fraction(float(low)) >= Fraction(0.5) - Fraction(radius) > Fraction(float(np.nextafter(low, np.float32(0))))
    assert Fraction(float(high)) <= Fraction(0.5) + Fraction(radius) < Fraction(float(np.nextafter(high, high + 1)))


def test_the_first_deviation_is_by_step_and_the_worst_by_excess():
    _, outcome = _nearest(CASE)
    outcome.parameters[0, 1] += np.float32(1e-3)
    outcome.parameters[1, 2] += np.float32(1.0)
    judgement = _judge(CASE, outcome)
    assert (judgement.first.step, judgement.first.index) == (1, 1)
    assert (judgement.worst.step, judgement.worst.index) == (2, 2)
    assert judgement.worst.excess > judgement.first.excess > 1


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_a_nan_or_an_infinity_deviates_infinitely(bad):
    _, outcome = _nearest(CASE)
    outcome.parameters[0, 1] = bad
    judgement = _judge(CASE, outcome)
    assert not judgement.conforms
    assert judgement.worst.excess == math.inf
    assert (judgement.worst.step, judgement.worst.index) == (1, 1)
    assert judgement.worst.got == {"nan": "7fc00000", "inf": "7f800000", "-inf": "ff800000"}[str(bad)]


@pytest.mark.norm("interval.untested")
@pytest.mark.parametrize("got", [np.nan, np.inf, -np.inf, 0.0, 17.0])
def test_where_nothing_can_be_bounded_any_answer_passes(got):
    """g² overflows in the first element alone."""
    case = _case("Adam", ADAM, [1.0, 1.0], [[1e30, 1.0], [1.0, 1.0]])
    _, outcome = _nearest(case)
    for values in (outcome.parameters, outcome.state["v"]):
        values[:, 0] = got
    judgement = _judge(case, outcome)
    assert judgement.conforms
    assert (judgement.tested, judgement.untested) == (8, 4)  # m is bounded, v and w of that element are not
    assert judgement.worst.index == 1 or judgement.worst.quantity == "m"
    outcome.parameters[0, 1] += np.float32(0.5)
    judgement = _judge(case, outcome)
    assert not judgement.conforms and judgement.worst.index == 1


@pytest.mark.norm("interval.untested-case")
@pytest.mark.parametrize("got", [np.nan, 1.0])
def test_where_nothing_at_all_can_be_tested_a_case_does_not_conform(got):
    case = _case("RMSprop", {"learning_rate": 0.1, "alpha": 0.9, "eps": 1e-8}, [1.0, 2.0], [[1e30, -1e30]] * 2)
    values = np.full((2, 2), got, np.float32)
    judgement = _judge(case, Run(case, values, {"v": values}))
    assert not judgement.conforms
    assert (judgement.worst, judgement.first) == (None, None)
    assert (judgement.tested, judgement.untested) == (0, 8)


def test_where_only_zero_is_accepted_either_zero_is_and_nothing_else():
    case = _case("Adam", ADAM, [0.0], [[0.0]])
    zero = np.float32([[-0.0]])
    assert _judge(case, Run(case, zero, {"m": zero, "v": zero})).conforms
    smallest = np.float32([[1e-45]])
    judgement = _judge(case, Run(case, smallest, {}))
    assert not judgement.conforms
    assert judgement.worst.excess == math.inf
    assert (judgement.worst.low, judgement.worst.high, judgement.worst.got) == ("00000000", "00000000", "00000001")


def test_state_is_held_to_the_interval_where_it_is_given_and_only_there():
    _, outcome = _nearest(CASE)
    assert _judge(CASE, Run(CASE, outcome.parameters, {})).tested == 6
    wrong = {"v": outcome.state["v"] * np.float32(1.001)}
    judgement = _judge(CASE, Run(CASE, outcome.parameters, wrong))
    assert not judgement.conforms
    assert judgement.worst.quantity == "v"


@pytest.mark.parametrize(
    ("parameters", "state", "message"),
    [
        (np.zeros((2, 2), np.float32), {}, r"parameter has shape \(2, 2\), the case asks for \(2, 3\)"),
        (np.zeros((1, 3), np.float32), {}, r"parameter has shape \(1, 3\)"),
        (np.zeros((2, 3)), {}, "parameter has dtype float64, the case asks for float32"),
        (np.zeros((2, 3), np.int32), {}, "parameter has dtype int32"),
        (np.zeros((2, 3), np.float32), {"m": np.zeros((2, 3), np.float32)}, "'m' is no state slot of SGD"),
        (np.zeros((2, 3), np.float32), {"v": np.zeros((2, 3), np.float16)}, "v has dtype float16"),
        (np.zeros((2, 3), np.float32), {"v": np.zeros((3,), np.float32)}, r"v has shape \(3,\)"),
    ],
)
def test_an_outcome_that_is_not_what_was_asked_for(parameters, state, message):
    with pytest.raises(ValueError, match=message):
        _judge(CASE, Run(CASE, parameters, state))


def test_another_formula_is_held_to_its_own_interval():
    case = _case("Adam", ADAM, [0.0, 0.0], [[1e-6, -1e-5]])
    formula = "Adam[eps=inside_sqrt]"
    _, outcome = _nearest(case, parse(formula))
    assert _judge(case, outcome, formula).conforms
    assert not _judge(case, outcome).conforms


def test_lists_of_numbers_are_as_good_as_arrays():
    case = _case("SGD", SGD, [1.0], [[0.5]], "float64")
    _, outcome = _nearest(case)
    lists = Run(CASE, outcome.parameters.tolist(), {"v": outcome.state["v"].tolist()})
    assert _judge(case, lists).to_json() == _judge(case, outcome).to_json()


# The profiles


@pytest.mark.usefixtures("mpfr")
@pytest.mark.norm("interval.wider-profile")
@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32", "float64"])
@pytest.mark.parametrize("name", FORMULAS)
def test_the_interval_of_the_float32_profile_holds_the_one_of_double(name, dtype):
    """So that a case that passes under the first profile tried would pass under the second: nothing passes by turns."""
    if dtype == "bfloat16":
        require("ml_dtypes")
    formula = parse(name)
    for case in (recast(case, dtype) for case in cases_of(formula.optimizer.__name__)):
        data = formula, case.parameter, list(case.gradients)
        double, single = (
            verdict.tracks(*data, dtype=dtype, scalars=profile, given=case.hyperparameters)
            for profile in ("double", "float32")
        )
        for name, inner in double.items():
            outer = single[name].all
            assert (outer.low <= inner.all.low).all() and (inner.all.high <= outer.high).all(), case.id
