"""Schedules: their values, what they take and return, MLX's beside them, and what an optimizer does with them.

The exact values are the oracle's, and the oracle is held to the formulas written here once more, over fractions or 400
bits. MLX itself is run where it is installed.
"""

from __future__ import annotations

import copy
import inspect
import math
from fractions import Fraction

import mpmath
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import mlx_optimizers as optim
from mlx_optimizers import schedulers
from mlx_optimizers.oracle import schedules as exact
from tests.expected import each_class, each_class_of_eight
from tests.support import require

U = 2.0**-53
"""Half a unit in the last place of 1, the relative error of one rounding to double."""

V = 2.0**-24
"""The same of float32."""

MAKE = {
    "exponential_decay": lambda of: of.exponential_decay(0.1, 0.9),
    "step_decay": lambda of: of.step_decay(0.1, 0.9, 3),
    "cosine_decay": lambda of: of.cosine_decay(0.1, 10, 0.01),
    "linear_schedule": lambda of: of.linear_schedule(0.1, 0.01, 7),
    "join_schedules": lambda of: of.join_schedules(
        [of.linear_schedule(0, 0.1, 5), of.cosine_decay(0.1, 10), of.exponential_decay(0.1, 0.9)], [5, 11]
    ),
}
each_schedule = pytest.mark.parametrize("name", MAKE)

finite = st.floats(-1e6, 1e6, allow_subnormal=False)
rates = st.floats(0, 1.5, allow_subnormal=False)
counts = st.integers(0, 5000)
lengths = st.integers(1, 4000)


def _f(*values):
    return np.array(values, np.float32)


def _off(got, true):
    """The distance of a float from a number of mpmath, which 200 bits hold."""
    return float(abs(true.context.mpf(float(got)) - true))


# Exact values


@given(init=finite, rate=rates, step=counts, size=lengths)
def test_the_oracle_of_the_decays_is_the_power_of_a_fraction(init, rate, step, size):
    step, decimal = step % 40, Fraction(rate).limit_denominator(1000)
    for made, times in (
        (exact.exponential_decay(init, decimal), step),
        (exact.step_decay(init, decimal, size), step // size),
    ):
        got = made(step)
        with mpmath.workprec(400):
            true = mpmath.mpf(1)
            for factor in [Fraction(init), *[decimal] * times]:
                true *= mpmath.mpf(factor.numerator) / factor.denominator
            assert abs(mpmath.mpf(got._mpf_) - true) <= 2 * (step + 2) * abs(true) * mpmath.mpf(2) ** -200


@given(init=finite, end=finite, step=counts, steps=lengths)
def test_the_oracle_of_the_lines_is_the_rule_of_three(init, end, step, steps):
    got = exact.linear_schedule(init, end, steps)(step)
    done = Fraction(min(step, steps), steps)
    true = (1 - done) * Fraction(init) + done * Fraction(end)
    size = abs(Fraction(init)) + abs(Fraction(end))
    sign, mantissa, exponent, _ = got._mpf_
    value = Fraction(-int(mantissa) if sign else int(mantissa)) * Fraction(2) ** exponent
    assert abs(value - true) <= size / 2**197


@given(init=finite, end=finite, step=counts, steps=lengths)
def test_the_oracle_of_the_cosine_is_what_400_bits_give(init, end, step, steps):
    got = exact.cosine_decay(init, steps, end)(step)
    with mpmath.workprec(400):
        true = mpmath.cos(mpmath.pi * min(step, steps) / steps)
        true = (mpmath.mpf(init) - end) * (1 + true) / 2 + end
        assert abs(mpmath.mpf(got._mpf_) - true) <= (abs(init) + abs(end)) * mpmath.mpf(2) ** -195


def test_the_oracle_takes_a_decimal_as_what_it_spells():
    assert exact.linear_schedule(0, "0.1", 1)(1) != exact.linear_schedule(0, 0.1, 1)(1)
    assert exact.exponential_decay("1/3", 1)(0) * 3 == 1


def test_values_by_hand():
    assert [optim.exponential_decay(3, 0.5)(s) for s in range(3)] == [3, 1.5, 0.75]
    assert [optim.step_decay(3, 0.5, 2)(s) for s in range(5)] == [3, 3, 1.5, 1.5, 0.75]
    assert [optim.linear_schedule(1, 5, 4)(s) for s in range(7)] == [1, 2, 3, 4, 5, 5, 5]
    assert [optim.cosine_decay(1, 2, 0.5)(s) for s in range(4)] == [1, 0.75, 0.5, 0.5]
    assert optim.cosine_decay(8.0, 3)(1) == pytest.approx(6, abs=8 * 12 * U)  # cos 60° is ½
    assert optim.cosine_decay(8.0, 3)(3) == 0


@given(init=finite, end=finite, step=counts, steps=lengths)
def test_a_line_is_the_nearest_double(init, end, step, steps):
    got, true = optim.linear_schedule(init, end, steps)(step), exact.linear_schedule(init, end, steps, bits=2300)(step)
    assert _off(got, true) <= min(_off(np.nextafter(got, side), true) for side in (-np.inf, np.inf))


@given(init=finite, end=finite, step=counts, steps=lengths)
def test_a_cosine_is_within_its_bound(init, end, step, steps):
    """Relative errors: n − s is exact, the quotient U, π/2 0.36 U, the product U; on them the sine depends by at most
    x cot x ≤ 1, and has 2 U of its own (a unit in the last place); squared, and U, or 2 U where that is a power: 10.8.
    """
    got, true = optim.cosine_decay(init, steps, end)(step), exact.cosine_decay(init, steps, end, bits=2300)(step)
    square = abs(true - end)
    assert _off(got, true) <= 11 * U * float(square) * (1 + 1e-9) + np.spacing(abs(got)) / 2


@pytest.mark.parametrize("steps", [1000, 4000, 10**7])
def test_a_cosine_keeps_its_digits_down_to_zero(steps):
    ours, true = optim.cosine_decay(0.1, steps), exact.cosine_decay(0.1, steps)
    for step in range(steps - 100, steps):
        assert _off(ours(step), true(step)) <= 12 * U * float(true(step)) * (1 + 1e-9)  # as above, and a rounding


@given(init=finite, rate=rates, step=counts, size=lengths)
def test_a_decay_is_within_its_bound(init, rate, step, size):
    """The power is within a unit in the last place, 2 U; the product adds U. Underflow is excluded."""
    for name, arguments in (("exponential_decay", ()), ("step_decay", (size,))):
        got, true = (getattr(of, name)(init, rate, *arguments)(step) for of in (optim, exact))
        if 1e-290 < abs(true) < 1e290 and 1e-290 < true / init < 1e290:
            assert _off(got, true) <= 3 * U * float(abs(true)) * (1 + 1e-9)


def test_a_decay_that_leaves_the_floats():
    assert optim.exponential_decay(0.1, 0.5)(10**6) == 0
    assert optim.exponential_decay(0.1, 2)(10**6) == math.inf
    assert optim.exponential_decay(-0.1, 2)(10**6) == -math.inf
    assert optim.exponential_decay(0, 2)(10**6) == 0
    assert optim.step_decay(0.1, 0, 2)(1) == 0.1  # 0⁰ = 1
    assert optim.step_decay(0.1, 0, 2)(2) == 0


@given(init=finite, end=finite, steps=lengths, beyond=counts)
def test_ends_are_exact(init, end, steps, beyond):
    for made in (optim.linear_schedule(init, end, steps), optim.cosine_decay(init, steps, end)):
        assert made(0) == init
        assert made(steps) == made(steps + beyond) == end


# Joined schedules


def test_at_a_boundary_the_next_schedule_gets_zero_and_none_gets_less():
    asked = []

    def part(letter):
        return lambda step: asked.append((letter, step)) or ord(letter)

    joined = optim.join_schedules([part("a"), part("b"), part("c")], [2, 4])
    assert [chr(int(joined(step))) for step in range(6)] == list("aabbcc")
    assert asked == [("a", 0), ("a", 1), ("b", 0), ("b", 1), ("c", 0), ("c", 1)]
    assert all(type(step) is int for _, step in asked)


def test_the_oracle_joins_as_the_schedules_do():
    joined = exact.join_schedules(
        [lambda step: ("a", step), lambda step: ("b", step), lambda step: ("c", step)], [2, 4]
    )
    assert [joined(step) for step in range(6)] == [(letter, step) for letter in "abc" for step in range(2)]
    ours, true = MAKE["join_schedules"](optim), MAKE["join_schedules"](exact)
    assert all(_off(ours(step), true(step)) <= 12 * U * float(true(step)) for step in range(40))


def test_of_boundaries_out_of_order_the_last_reached_counts():
    mx, theirs = require("mlx.core"), require("mlx.optimizers")
    for boundaries in ([4, 2], [3, 3], [0, 5], [-1, 2]):
        parts = [lambda step, n=n: mx.array(100 * n) + step for n in range(3)]
        ours, mlx = optim.join_schedules(parts, boundaries), theirs.join_schedules(parts, boundaries)
        assert [ours(s).item() for s in range(8)] == [mlx(s).item() for s in range(8)], boundaries


def test_what_is_joined_may_return_any_number():
    for value in (3, 3.0, np.float32(3), np.array(3), Fraction(3)):
        assert optim.join_schedules([lambda step, value=value: value], [])(0).item() == 3
    with pytest.raises(TypeError, match="the value of a schedule must be a number, not None"):
        optim.join_schedules([lambda step: None], [])(0)


# Arguments


def test_names_arguments_and_defaults_are_mlxs():
    theirs = require("mlx.optimizers")
    assert set(schedulers.__all__) == set(MAKE)
    for name in MAKE:
        signatures = (inspect.signature(getattr(of, name)).parameters for of in (schedulers, theirs.schedulers))
        ours, mlx = ([(p.name, p.default, p.kind) for p in parameters.values()] for parameters in signatures)
        assert ours == mlx
        assert getattr(optim, name) is getattr(schedulers, name)


def test_a_bad_argument_is_named():
    for make, error, match in (
        (lambda: optim.linear_schedule(0, 0.1, 0), ValueError, "steps must be at least 1, not 0.0"),
        (lambda: optim.step_decay(0.1, 0.9, 0), ValueError, "step_size must be at least 1, not 0.0"),
        (lambda: optim.cosine_decay(0.1, -3), ValueError, "decay_steps must be at least 1, not -3.0"),
        (lambda: optim.join_schedules([], []), ValueError, "schedules must be at least one"),
        (lambda: optim.join_schedules([abs], [3]), ValueError, "boundaries must be 0, one fewer .* not 1"),
        (lambda: optim.join_schedules([abs, abs], []), ValueError, "boundaries must be 1, one fewer .* not 0"),
        (lambda: optim.join_schedules([abs, 3], [1]), TypeError, r"schedules\[1\] must be callable, not 3"),
        (lambda: optim.join_schedules([abs, abs], ["x"]), TypeError, r"boundaries\[0\] must be a number, not 'x'"),
        (lambda: optim.exponential_decay(0.1, -1), ValueError, "decay_rate must be at least 0, not -1.0"),
        (lambda: optim.exponential_decay(math.nan, 1), ValueError, "init must be finite, not nan"),
        (lambda: optim.cosine_decay(0.1, 3, "0"), TypeError, "end must be a number, not '0'"),
        (lambda: optim.linear_schedule(0, 1, 3)(np.arange(3)), TypeError, "step must be a number, not array"),
        (lambda: optim.linear_schedule(0, 1, 3)(None), TypeError, "step must be a number, not None"),
        (lambda: optim.Optimizer(schedulers=3), TypeError, "schedulers must be a dictionary of callables, not 3"),
        (lambda: optim.Optimizer(schedulers={"a": 1}), TypeError, r"schedulers\['a'\] must be callable, not 1"),
        (lambda: optim.Optimizer(schedulers={"step": abs}), ValueError, "schedulers must not have the step"),
    ):
        with pytest.raises(error, match=match):
            make()


@each_schedule
def test_what_mlx_refuses_is_refused_with_the_same_error(name):
    theirs = require("mlx.optimizers")
    refused = {
        "exponential_decay": [],
        "step_decay": [(0.1, 0.9, 0), (0.1, 0.9, -1)],
        "cosine_decay": [(0.1, 0), (0.1, -1)],
        "linear_schedule": [(0, 0.1, 0), (0, 0.1, -1)],
        "join_schedules": [([], []), ([abs], [1]), ([abs, abs], [])],
    }
    for arguments in refused[name]:
        for of in (theirs, optim):
            with pytest.raises(ValueError, match=r"\w"):
                getattr(of, name)(*arguments)


# Kinds of steps and values


@each_schedule
def test_a_step_of_any_kind_gives_the_same_value(name):
    schedule = MAKE[name](optim)
    for step in range(15):
        value = schedule(step)
        assert isinstance(value, float)
        assert value.item() == value
        for kind in (np.uint64, np.int32, np.array, np.float32, float):
            assert schedule(kind(step)) == value


@each_schedule
def test_an_array_of_mlx_gives_the_nearest_float32_as_one(name):
    mx, schedule = require("mlx.core"), MAKE[name](optim)
    for step in range(15):
        for dtype in (mx.uint64, mx.int32, mx.float32):
            value = schedule(mx.array(step, dtype))
            assert (value.dtype, value.shape) == (mx.float32, ())
            assert value.item() == float(np.float32(schedule(step)))
    with pytest.raises(TypeError, match="step is a traced array, which has no value"):
        mx.compile(schedule)(mx.array(1))


# MLX's float32


@given(init=finite, rate=rates, step=counts, size=lengths)
def test_mlxs_decays_are_the_same_formula(init, rate, step, size):
    """Relative errors: the rate V at every power, init V, the power 2 V (a unit in the last place), the product V."""
    mx, theirs = require("mlx.core"), require("mlx.optimizers")
    for name, arguments, times in (("exponential_decay", (), step), ("step_decay", (size,), step // size)):
        true = getattr(exact, name)(init, rate, *arguments)(step)
        if 1e-30 < abs(true) < 1e30 and 1e-30 < true / init < 1e30:
            with mx.stream(mx.cpu):
                got = getattr(theirs, name)(init, rate, *arguments)(mx.array(step, mx.uint64)).item()
            assert _off(got, true) <= float(abs(true)) * ((1 + V) ** (times + 4) - 1 + 2 * times * U)


@given(init=finite, end=finite, step=counts, steps=lengths)
def test_mlxs_lines_and_cosines_are_the_same_formula(init, end, step, steps):
    """Of a line, in V: the slope and the product of the way, init, and the sum.

    Of a cosine, at an angle up to π: π/n and the product, 2π V; the cosine 2 V (a unit in the last place), 1 + cos 2 V.
    Half of that, 5.2 V, then the two factors of the way, init − end, and the sum with end.
    """
    mx, theirs = require("mlx.core"), require("mlx.optimizers")
    true, count = exact.linear_schedule(init, end, steps)(step), mx.array(step, mx.uint64)
    with mx.stream(mx.cpu):
        line = theirs.linear_schedule(init, end, steps)(count).item()
        wave = theirs.cosine_decay(init, steps, end)(count).item()
    way, least = abs(end - init), 1e-40
    assert _off(line, true) <= (2 * way + abs(init) + abs(line)) * V * (1 + 8 * V) + least
    true = exact.cosine_decay(init, steps, end)(step)
    assert _off(wave, true) <= ((5.2 + 2) * way + abs(end) + abs(wave)) * V * (1 + 16 * V) + least


@pytest.mark.parametrize(
    ("init", "end", "missed", "negative"), [(0, 1e-3, 171, 0), (1e-3, 1e-5, 399, 0), (0.1, 0, 91, 11)]
)
def test_how_often_a_line_of_mlx_misses_its_end(init, end, missed, negative):
    """What the guide counts, over the lengths 1 to 399."""
    mx, theirs = require("mlx.core"), require("mlx.optimizers")
    with mx.stream(mx.cpu):
        ends = _f(*[theirs.linear_schedule(init, end, n)(mx.array(n, mx.uint64)).item() for n in range(1, 400)])
    off = abs(ends.astype(float) - float(np.float32(end)))
    assert (np.count_nonzero(off), np.count_nonzero(ends < 0)) == (missed, negative)
    assert not negative or ends.min() == _f(-7.450580596923828e-09)
    if end == 1e-3:
        assert off.max() <= np.spacing(np.float32(end))  # one rounding
    assert all(optim.linear_schedule(init, end, n)(n) == end for n in range(1, 400))


# In optimizers


@each_class_of_eight
@each_schedule
def test_mlxs_schedules_give_the_same_bits_here(made, name):
    mx, theirs = require("mlx.core"), require("mlx.optimizers")
    schedule = MAKE[name](theirs)
    with mx.stream(mx.cpu):
        ours, mlx = made(schedule), getattr(theirs, made.__name__)(schedule)
        w, parameters = _f(1, 2), {"w": mx.array([1.0, 2.0])}
        for step in range(14):
            ours.update({"w": w}, {"w": _f(0.5, -1)})
            parameters = mlx.apply_gradients({"w": mx.array([0.5, -1.0])}, parameters)
            assert ours.learning_rate == mlx.learning_rate.item(), step
            assert w.tobytes() == np.array(parameters["w"]).tobytes(), step


@each_class_of_eight
@each_schedule
def test_ours_drive_mlxs_optimizers_with_the_nearest_float32(made, name):
    mx, theirs = require("mlx.core"), require("mlx.optimizers")
    schedule = MAKE[name](optim)
    with mx.stream(mx.cpu):
        mlx = getattr(theirs, made.__name__)(schedule)
        parameters = {"w": mx.array([1.0, 2.0])}
        for step in range(14):
            parameters = mlx.apply_gradients({"w": mx.array([0.5, -1.0])}, parameters)
            assert mlx.learning_rate.item() == float(np.float32(schedule(step)))
        mx.eval(parameters)


def test_a_joined_schedule_of_mlx_is_not_asked_for_less_than_nothing():
    mx, theirs = require("mlx.core"), require("mlx.optimizers")
    joined = theirs.join_schedules([theirs.linear_schedule(0, 0.1, 2000), theirs.exponential_decay(0.1, 0.5)], [2000])
    with pytest.raises(OverflowError):
        joined(0)
    assert joined(mx.array(0, mx.uint64)).item() == 0
    optimizer = optim.SGD(joined)
    optimizer.state["step"] = np.uint64(2001)
    optimizer.update(_f(1), _f(1))
    assert optimizer.learning_rate == float(np.float32(0.05))
    mixed = theirs.join_schedules([optim.linear_schedule(0, 0.1, 2000), optim.exponential_decay(0.1, 0.5)], [2000])
    assert [mixed(step).item() for step in (0, mx.array(2001, mx.uint64))] == [0, float(np.float32(0.05))]


def _of_kind(kind):
    if kind == "mlx":
        mx = require("mlx.core")
        return lambda step: mx.array(0.25 * (1 + step))
    if kind == "bfloat16":
        mx = require("mlx.core")
        return lambda step: mx.array(0.25 * (1 + step), mx.bfloat16)
    return lambda step: {"float": float, "scalar": np.float32, "array": np.array}[kind](0.25 * (1 + step))


each_kind = pytest.mark.parametrize("kind", ["float", "scalar", "array", "mlx", "bfloat16"])


@each_class
@each_kind
def test_a_rate_of_any_kind_gives_the_same_bits(made, kind):
    optimizers, models = (made(0.25), made(_of_kind(kind))), (_f(1, 2), _f(1, 2))
    for step in range(3):
        optimizers[0].learning_rate = 0.25 * (1 + step)
        for optimizer, w in zip(optimizers, models, strict=True):
            optimizer.update(w, _f(0.5, -1))
    assert models[0].tobytes() == models[1].tobytes()
    assert optimizers[1].learning_rate == 0.75


@each_class_of_eight
def test_a_schedule_that_returns_no_array_of_mlx_fails_there_and_works_here(made):
    mx, theirs = require("mlx.core"), require("mlx.optimizers")
    for value, error in ((0.1, AttributeError), (np.float64(0.1), TypeError)):
        with pytest.raises(error):
            getattr(theirs, made.__name__)(lambda step, value=value: value).apply_gradients(
                {"w": mx.array([1.0])}, {"w": mx.array([1.0])}
            )
        optimizer = made(lambda step, value=value: value)
        optimizer.apply_gradients({"w": mx.array([1.0])}, {"w": mx.array([1.0])})
        assert optimizer.learning_rate == 0.1


@each_class
def test_a_warm_up_from_zero_moves_moments_and_no_parameter(made):
    optimizer, w = made(optim.linear_schedule(0, 0.1, 4)), _f(1, 2)
    optimizer.update(w, _f(0.5, -1))
    assert w.tolist() == [1, 2]
    assert optimizer.step == 1
    moved = [slot for slot in optimizer.slots if optimizer.state[slot].any()]
    assert moved == [slot for slot in optimizer.slots if (made.__name__, slot) != ("SGD", "v")]  # without momentum


# Optimizer(schedulers=)


class Decaying(optim.Optimizer):
    """As one writes it for MLX."""

    def __init__(self, decay, rate=None):
        super().__init__(schedulers={"decay": decay} if rate is None else {"decay": decay, "learning_rate": rate})
        if rate is None:
            self.learning_rate = 0.5

    def apply_single(self, gradient, parameter, state):
        if gradient[0] == 7:
            raise FloatingPointError("seven")
        decay, rate = (np.asarray(x).astype(np.float32) for x in (self.state["decay"], self.learning_rate))
        return parameter * decay - rate * gradient


def test_schedulers_are_asked_before_each_step_and_not_at_construction_as_in_mlx():
    mx, theirs = require("mlx.core"), require("mlx.optimizers")

    class Mlx(theirs.Optimizer):
        def __init__(self, decay):
            super().__init__(schedulers={"decay": decay})

        def init_single(self, parameter, state):
            pass

        def apply_single(self, gradient, parameter, state):
            return parameter * self.state["decay"] - 0.5 * gradient

    asked = {"ours": [], "mlx": []}

    def decay(of):
        return lambda step: asked[of].append(int(step)) or mx.array(0.5 - 0.25 * int(step))

    ours, mlx = Decaying(decay("ours")), Mlx(decay("mlx"))
    assert ("decay" in ours.state, "decay" in mlx.state) == (False, False)
    model, parameters = {"w": _f(4)}, {"w": mx.array([4.0])}
    for step in range(3):
        ours.update(model, {"w": _f(2)})
        parameters = mlx.apply_gradients({"w": mx.array([2.0])}, parameters)
        assert model["w"].item() == parameters["w"].item()
        assert ours.state["decay"] == mlx.state["decay"].item()
        assert asked["ours"] == asked["mlx"] == [*range(step + 1)]


@each_kind
@pytest.mark.parametrize("library", ["numpy", "mlx"])
@pytest.mark.parametrize("bare", [False, True])
def test_a_scheduled_number_of_any_kind_stands_in_the_state(kind, library, bare):
    array = np.float32 if library == "numpy" else require("mlx.core").array
    optimizer, w = Decaying(_of_kind(kind), rate=_of_kind(kind)), array([4.0]) if bare else {"w": array([4.0])}
    for expected in (0.75, -0.125, -0.84375):  # d·w − d with d = ¼, ½, ¾
        gradient = array([1.0]) if bare else {"w": array([1.0])}
        w = optimizer.apply_gradients(gradient, w)
        found = w if bare else w["w"]
        assert found.item() == expected
    assert (optimizer.state["decay"].item(), optimizer.learning_rate) == (0.75, 0.75)


def test_a_first_step_that_fails_leaves_no_scheduled_number():
    optimizer, model = Decaying(lambda step: 0.5, rate=lambda step: 0.25), {"w": _f(4)}
    for _ in range(2):
        with pytest.raises(FloatingPointError, match="seven"):
            optimizer.update(model, {"w": _f(7)})
        assert {"decay", "learning_rate"}.isdisjoint(optimizer.state)
        assert (model["w"], optimizer.step) == (4, 0)
        with pytest.raises(AttributeError, match="no learning rate, which its schedule gives before the first step"):
            optimizer.learning_rate  # noqa: B018 - reading it is the test
    optimizer.update(model, {"w": _f(2)})
    assert (model["w"], optimizer.step, optimizer.learning_rate, optimizer.state["decay"]) == (1.5, 1, 0.25, 0.5)


def test_schedulers_are_kept_apart_from_what_was_given_and_copied():
    given = {"decay": lambda step: 0.5}
    base = optim.Optimizer(given)
    given.clear()
    optimizer = copy.deepcopy(base)
    optimizer.update({}, {})
    assert optimizer.state["decay"] == 0.5
    assert "decay" not in base.state
    assert repr(optim.Optimizer()) == "Optimizer(schedulers=None)"
    assert repr(base).startswith("Optimizer(schedulers={'decay': <function")
    assert repr(optim.Optimizer(schedulers={})) == "Optimizer(schedulers=None)"
