"""Hyperparameters: the values that each check lets through, their types, and that a refused value changes nothing."""

from __future__ import annotations

from decimal import Decimal
from fractions import Fraction

import numpy as np
import pytest

import mlx_optimizers as optim
from mlx_optimizers.hyperparameters import (
    Hyperparameter,
    at_least_zero,
    number,
    pair_below_one,
    positive,
    switch,
    unit,
)
from tests.expected import ABOVE_0, CLASSES, EXPECTED, NAMES


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (1, 1.0),
        (0.25, 0.25),
        (Fraction(1, 4), 0.25),
        (Decimal("0.25"), 0.25),
        (np.float32(0.1), float(np.float32(0.1))),
        (np.float64(0.1), 0.1),
        (np.array(0.5), 0.5),
        (np.int64(2), 2.0),
        (-0.0, 0.0),
        (5e-324, 5e-324),
    ],
)
def test_a_number_becomes_a_float(value, expected):
    got = number("eps", value)
    assert type(got) is float
    assert got == expected


NUMPYS = [
    *(np.array(value) for value in ("0.1", b"0.1", True, 1j, 1 + 0j)),
    *(np.str_("0.1"), np.bool_(True), np.complex64(1), np.timedelta64(1), np.array("0.1", object)),
]


@pytest.mark.parametrize(
    "value", ["0.1", b"0.1", True, False, 1j, None, [0.1], np.array([0.1]), {}, Ellipsis, *NUMPYS], ids=repr
)
def test_what_is_no_number_is_a_type_error_with_the_name(value):
    for check in (number, at_least_zero, positive, unit):
        with pytest.raises(TypeError, match="rho must be a number, not "):
            check("rho", value)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf"), np.float32("nan")])
def test_what_is_not_finite_is_a_value_error(value):
    for check in (number, at_least_zero, positive, unit):
        with pytest.raises(ValueError, match="rho must be finite, not "):
            check("rho", value)


@pytest.mark.parametrize("value", [10**400, -(10**400), Fraction(10**400, 3), Decimal("1e400")], ids=lambda x: "")
def test_what_is_too_large_for_a_float_is_a_value_error(value):
    with pytest.raises(ValueError, match="rho must be finite, not "):
        number("rho", value)


@pytest.mark.parametrize(
    ("check", "allowed", "refused", "words"),
    [
        (at_least_zero, [0, 5e-324, 1e300], [-5e-324, -1], "at least 0"),
        (positive, [5e-324, 1e300], [0, -0.0, -5e-324], ">0"),
        (unit, [0, 0.5, 1], [-5e-324, np.nextafter(1.0, 2.0)], r"in \[0, 1\]"),
    ],
)
def test_ranges_to_their_ends(check, allowed, refused, words):
    assert [check("x", value) for value in allowed] == allowed
    for value in refused:
        with pytest.raises(ValueError, match=f"x must be {words}, not {float(value)!r}"):
            check("x", value)


def test_pairs():
    largest = float(np.nextafter(1.0, 0.0))
    for given in ((0, largest), [0, largest], np.array([0, largest]), iter([0, largest])):
        assert pair_below_one("betas", given) == (0.0, largest)
    assert [type(x) for x in pair_below_one("betas", np.float32([0.5, 0.25]))] == [float, float]
    for given in (0.9, None, "ab", b"ab", {0.9, 0.99}, frozenset({0.9}), {0.9: 1, 0.99: 2}):  # no order, or no pair
        with pytest.raises(TypeError, match="betas must be two numbers, not "):
            pair_below_one("betas", given)
    for given in ((), (0.9,), (0.9, 0.9, 0.9)):
        with pytest.raises(ValueError, match="betas must be two numbers, not "):
            pair_below_one("betas", given)
    with pytest.raises(ValueError, match=r"betas\[0\] must be in \[0, 1\), not 1\.0"):
        pair_below_one("betas", (1, 0.5))
    with pytest.raises(ValueError, match=r"betas\[1\] must be in \[0, 1\), not -0\.5"):
        pair_below_one("betas", (0.5, -0.5))
    with pytest.raises(TypeError, match=r"betas\[1\] must be a number, not 'x'"):
        pair_below_one("betas", (0.5, "x"))


def test_a_switch_is_true_or_false_alone():
    assert switch("nesterov", True) is True
    assert switch("nesterov", False) is False
    for value in (1, 0, "yes", None, np.True_):
        with pytest.raises(TypeError, match="nesterov must be True or False, not "):
            switch("nesterov", value)


def test_a_descriptor_has_its_text_and_says_when_it_was_never_set():
    assert isinstance(optim.Adam.eps, Hyperparameter)
    assert optim.Adam.eps.__doc__ == "ε ≥ 0."
    with pytest.raises(AttributeError, match="Adam has no eps yet"):
        optim.Adam.__new__(optim.Adam).eps  # noqa: B018 - reading it is the test


def test_two_optimizers_do_not_share_values():
    first, second = optim.Adam(0.1), optim.Adam(0.1)
    first.eps, first.betas = 1.0, (0.5, 0.5)
    assert (second.eps, second.betas) == (1e-8, (0.9, 0.999))


def test_what_is_refused_together_leaves_everything_as_it_was():
    optimizer = optim.SGD(0.1, momentum=0.9, nesterov=True)
    with pytest.raises(ValueError, match="nesterov needs momentum above 0"):
        optimizer.momentum = 0.0
    assert (optimizer.momentum, optimizer.nesterov) == (0.9, True)
    optimizer.nesterov = False
    optimizer.momentum = 0.0
    with pytest.raises(ValueError, match=r"not momentum 0\.0 and dampening 0\.0"):
        optimizer.nesterov = True
    assert optimizer.nesterov is False


@pytest.mark.parametrize("name", [name for name in NAMES if EXPECTED[name].ranges.get("eps") == ABOVE_0])
def test_an_epsilon_that_must_not_be_zero_is_said_to_be_above_it(name):
    """In MLX's words, which its own tests look for: its accumulators start at zero, and 0/0 is NaN."""
    for value in (0.0, -1.0):
        with pytest.raises(ValueError, match=rf"^eps must be >0, not {value}$"):
            getattr(optim, name)(0.1, eps=value)


@pytest.mark.parametrize("name", ["Adam", "AdamW"])
@pytest.mark.parametrize("value", [True, False])
@pytest.mark.norm("inputs.later")
def test_bias_correction_is_another_formula(name, value):
    words = rf"{name} has no argument bias_correction: .*{name}\[bias_correction=true\], is BiasCorrected{name}'s$"
    with pytest.raises(TypeError, match=words):
        getattr(optim, name)(1e-3, bias_correction=value)
    positional = {"Adam": (1e-3, (0.9, 0.999), 1e-8, value), "AdamW": (1e-3, (0.9, 0.999), 1e-8, 0.01, value)}[name]
    with pytest.raises(TypeError, match=words):  # as MLX takes it too
        getattr(optim, name)(*positional)
    assert getattr(optim, f"BiasCorrected{name}")(1e-3).slots == ("m", "v")


@pytest.mark.parametrize("made", CLASSES, ids=lambda made: made.__name__)
@pytest.mark.norm("inputs.later")
def test_schedulers_are_given_in_another_way(made):
    for kind in (made, type("Mine", (made,), {})):
        with pytest.raises(TypeError, match=f"{made.__name__} has no argument schedulers: give a callable as learning"):
            kind(0.1, schedulers={})
        with pytest.raises(TypeError, match="unexpected keyword argument 'foo'"):
            kind(0.1, foo=1)


def test_a_class_of_ones_own_may_have_the_arguments_that_ours_have_not():
    class Mine(optim.Adam):
        def __init__(self, learning_rate, bias_correction=False):
            super().__init__(learning_rate)
            self.bias_correction = bias_correction

    assert Mine(0.1, bias_correction=True).bias_correction is True
