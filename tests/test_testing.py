"""`assert_conforms`: silent for a right function, and its message is the diagnosis of a wrong one."""

from __future__ import annotations

import re
from decimal import Decimal
from fractions import Fraction

import numpy as np
import pytest

import mlx_optimizers
from mlx_optimizers.conformance import parse
from mlx_optimizers.conformance.cases import STEPS
from mlx_optimizers.testing import assert_conforms
from tests.expected import NAMES, WHOLE
from tests.support import require

pytestmark = pytest.mark.usefixtures("remembered")


FRAME = 21
"""Cases of sizes, one of 300 steps, and one that looks at the gradients afterwards."""


def rmsprop(parameter, gradients, *, learning_rate, alpha, eps, inside=False):
    real = parameter.dtype.type
    rates = learning_rate if isinstance(learning_rate, list) else [learning_rate] * len(gradients)
    w, v, rows = parameter, np.zeros_like(parameter), []
    with np.errstate(all="ignore"):
        for rate, g in zip(rates, gradients, strict=True):
            v = real(alpha) * v + real(1 - alpha) * g * g
            w = w - real(rate) * g / (np.sqrt(v + real(eps)) if inside else np.sqrt(v) + real(eps))
            rows.append(w)
    return np.stack(rows)


def inside(parameter, gradients, **h):
    return rmsprop(parameter, gradients, **h, inside=True)


def test_a_right_function_passes_every_case():
    seen = []

    def recorded(parameter, gradients, **h):
        seen.append(h["learning_rate"])
        return rmsprop(parameter, gradients, **h)

    assert_conforms(recorded, "RMSprop")
    assert len(seen) == 35 + FRAME  # 20 usual ones, 9 of values, 6 special
    assert {len(rate) for rate in seen if isinstance(rate, list)} == {STEPS}


def test_the_message_is_the_diagnosis():
    with pytest.raises(AssertionError) as caught:
        assert_conforms(inside, "RMSprop")
    message = " ".join(str(caught.value).split())
    assert "RMSprop deviates in" in message
    assert "It computes RMSprop with ε inside the square root: RMSprop[eps=inside_sqrt]" in message
    assert "First seen in rmsprop/" in message and "accepted [" in message and "exact " in message


def test_a_function_can_be_held_to_another_formula():
    assert_conforms(inside, "RMSprop[eps=inside_sqrt]")
    with pytest.raises(AssertionError, match="held to"):
        assert_conforms(rmsprop, "RMSprop[eps=inside_sqrt]")


def test_given_hyperparameters_are_run_in_every_regime():
    seen = []

    def recorded(parameter, gradients, **h):
        seen.append(h)
        return rmsprop(parameter, gradients, **h)

    assert_conforms(recorded, "RMSprop", alpha=0.5, learning_rate=0.25)
    assert seen == [{"learning_rate": 0.25, "alpha": 0.5, "eps": 1e-8}] * (7 + FRAME)


def test_a_changing_learning_rate_may_be_given():
    rates = [0.5, 0.25, 0.125, 0.5, 0.25, 0.125, 0.5, 0.25]
    assert_conforms(rmsprop, "RMSprop", learning_rate=rates)

    def first_rate_kept(parameter, gradients, *, learning_rate, **h):
        return rmsprop(parameter, gradients, learning_rate=learning_rate[0], **h)

    with pytest.raises(AssertionError, match="deviates in 28 of 28 cases"):
        assert_conforms(first_rate_kept, "RMSprop", learning_rate=rates)


def test_hyperparameters_of_numpy_are_those_of_python():
    seen = []

    def recorded(parameter, gradients, **h):
        seen.append(h)
        return rmsprop(parameter, gradients, **h)

    assert_conforms(recorded, "RMSprop", learning_rate=np.full(STEPS, 0.5), alpha=np.float32(0.75))
    assert all(h == {"learning_rate": [0.5] * len(h["learning_rate"]), "alpha": 0.75, "eps": 1e-8} for h in seen)
    assert sorted(len(h["learning_rate"]) for h in seen) == [3] * 20 + [STEPS] * 7 + [300]
    assert {type(h["alpha"]) for h in seen} == {float}


@pytest.mark.parametrize("dtype", ["float64", "float32", "float16"])
def test_other_dtypes(dtype):
    seen = set()

    def recorded(parameter, gradients, **h):
        seen.update((parameter.dtype.name, gradients.dtype.name))
        return rmsprop(parameter, gradients, **h)

    assert_conforms(recorded, "RMSprop", dtype=dtype, eps=1e-3)
    assert seen == {dtype}
    with pytest.raises(AssertionError, match="deviates"):
        assert_conforms(inside, "RMSprop", dtype=dtype, eps=1e-3)


def test_coefficients_formed_in_float32_pass_unless_double_is_asked_for():
    def single(parameter, gradients, *, learning_rate, alpha, eps):
        one_minus = np.float32(1) - np.float32(alpha)  # 1 − 0.99 in float32 is wrong by 1e-6 of it
        w, v, rows = parameter, np.zeros_like(parameter), []
        for g in gradients:
            v = np.float32(alpha) * v + one_minus * g * g
            w = w - np.float32(learning_rate) * g / (np.sqrt(v) + np.float32(eps))
            rows.append(w)
        return np.stack(rows)

    assert_conforms(single, "RMSprop", alpha=0.999)
    with pytest.raises(AssertionError, match="deviates"):
        assert_conforms(single, "RMSprop", alpha=0.999, scalars="double")


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (lambda parameter, gradients, **h: parameter, "has shape"),
        (lambda parameter, gradients, **h: rmsprop(parameter, gradients, **h).astype(np.float64), "dtype float64"),
        (lambda parameter, gradients, **h: 1 / 0, "ZeroDivisionError"),
        (lambda parameter, gradients, learning_rate: None, "unexpected keyword argument"),
    ],
)
def test_a_function_that_fails_says_how(function, message):
    with pytest.raises(AssertionError) as caught:
        assert_conforms(function, "RMSprop", alpha=0.5)
    assert message in " ".join(str(caught.value).split())


def test_a_function_gets_copies():
    def careless(parameter, gradients, **h):
        out = rmsprop(parameter, gradients, **h)
        parameter[:] = np.nan
        gradients[:] = np.nan
        return out

    with pytest.raises(
        AssertionError, match=r"deviates in 1 of 56 cases(.|\n)*untouched/defaults, step 1, gradient\[0\]"
    ):
        assert_conforms(careless, "RMSprop")
    assert_conforms(rmsprop, "RMSprop")


@pytest.mark.parametrize(
    ("error", "formula", "given"),
    [
        (ValueError, "RMSProp", {}),
        (ValueError, "RMSprop[eps=nowhere]", {}),
        (ValueError, "RMSprop", {"eps": -1.0}),
        (ValueError, "RMSprop", {"eps": 1e-30}),
        (ValueError, "RMSprop", {"learning_rate": -0.1}),
        (ValueError, "RMSprop", {"learning_rate": [0.1, 0.2]}),
        (TypeError, "RMSprop", {"momentum": 0.9}),
        (TypeError, "RMSprop", {"dtype": "int32"}),
    ],
)
def test_what_cannot_be_asked_for_is_refused(error, formula, given):
    with pytest.raises(error):
        assert_conforms(rmsprop, formula, **given)


# Every dtype can be passed, and failed.


def own(optimizer, **changed):
    """Wrap a class of the package as a function; ``changed`` makes a wrong one."""

    def step(parameter, gradients, *, learning_rate, **h):
        rate = (lambda done: learning_rate[int(done)]) if isinstance(learning_rate, list) else learning_rate
        made = optimizer(**{"learning_rate": rate, **h, **changed})
        rows = []
        with np.errstate(all="ignore"):
            for gradient in gradients:
                parameter = made.apply_gradients(gradient, parameter)
                rows.append(parameter)
        return np.stack(rows)

    return step


@pytest.mark.usefixtures("mpfr")
@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float64"])
@pytest.mark.parametrize("optimizer", [*NAMES, *WHOLE])
def test_every_dtype_lets_a_right_program_pass(optimizer, dtype):
    if dtype == "bfloat16":
        require("ml_dtypes")
    assert_conforms(own(getattr(mlx_optimizers, optimizer)), optimizer, dtype=dtype)


def wrong_in():
    """Every optimizer in every dtype, in two of three in the slow tier, as a diagnosis takes seconds."""
    for number, name in enumerate((*NAMES, *WHOLE)):
        for dtype in ("float16", "bfloat16", "float64"):
            soon = dtype == ("float64", "bfloat16", "float16")[number % 3] and name != "Muon"  # which takes a minute
            yield pytest.param(name, dtype, marks=[] if soon else pytest.mark.slow)


@pytest.mark.usefixtures("mpfr")
@pytest.mark.parametrize(("optimizer", "dtype"), [*wrong_in()])
def test_every_dtype_lets_no_wrong_program_pass(optimizer, dtype):
    if dtype == "bfloat16":
        require("ml_dtypes")
    made = getattr(mlx_optimizers, optimizer)
    with pytest.raises(AssertionError, match=f"{parse(optimizer).optimizer.__name__} deviates in") as caught:
        assert_conforms(own(made, learning_rate=0.03), optimizer, dtype=dtype)
    agreeing = re.search(r"Nearest is \S+, in (\d+) of (\d+)\.", str(caught.value))
    assert agreeing is None or int(agreeing[1]) < int(agreeing[2])


def test_a_plain_program_passes_in_float16():
    assert_conforms(rmsprop, "RMSprop", dtype="float16")
    with pytest.raises(AssertionError, match=r"It computes RMSprop with ε inside the square root"):
        assert_conforms(inside, "RMSprop", dtype="float16")


def test_a_case_that_a_dtype_cannot_decide_is_not_run():
    seen = []

    def recorded(parameter, gradients, **h):
        seen.append(h)
        return rmsprop(parameter, gradients, **h)

    assert_conforms(recorded, "RMSprop", dtype="float16")
    assert FRAME < len(seen) < 29 + FRAME
    seen.clear()
    assert_conforms(recorded, "RMSprop", dtype="float16", eps=1e-6)  # rounds to a subnormal
    assert len(seen) == 4 + FRAME


@pytest.mark.parametrize("formula", ["SGD", "Adam", "Lion"])
def test_where_nothing_can_be_decided_nothing_runs(formula):
    """A learning rate beyond the range of float16 rounds to infinity."""
    with pytest.raises(
        ValueError, match=rf"with learning_rate=1000000.0 nothing of {formula} can be tested in float16"
    ):
        assert_conforms(never, formula, dtype="float16", learning_rate=1e6)
    with pytest.raises(AssertionError, match="deviates"):
        assert_conforms(own(getattr(mlx_optimizers, formula), learning_rate=2e6), formula, learning_rate=1e6)


def never(*data, **h):
    raise AssertionError("my_step was called")


# Arguments that are allowed, and those that are refused before the function is called.


@pytest.mark.parametrize("dtype", [np.float16, np.dtype("float16"), "float16", np.dtype(">f2")])
def test_a_dtype_may_be_given_as_numpy_takes_it(dtype):
    assert_conforms(own(mlx_optimizers.SGD), "SGD", dtype=dtype, learning_rate=0.5)
    with pytest.raises(AssertionError, match=r"sgd/plain/learning_rate=0.5/float16, step 1, parameter\["):
        assert_conforms(own(mlx_optimizers.SGD, learning_rate=0.25), "SGD", dtype=dtype, learning_rate=0.5)


def test_a_formula_may_be_given_as_a_class():
    assert_conforms(rmsprop, mlx_optimizers.RMSprop, alpha=0.5)
    with pytest.raises(AssertionError, match="held to RMSprop"):
        assert_conforms(inside, mlx_optimizers.RMSprop, eps=1e-3)


def test_numbers_of_other_kinds_become_floats():
    seen = []

    def recorded(parameter, gradients, **h):
        seen.append(h)
        return rmsprop(parameter, gradients, **h)

    given = {"learning_rate": range(1, STEPS + 1), "alpha": Fraction(3, 4), "eps": Decimal("0.001")}
    assert_conforms(recorded, "RMSprop", **given)
    whole = {"learning_rate": [1, 2, 3, 4, 5, 6, 7, 8], "alpha": 0.75, "eps": 0.001}
    assert [h for h in seen if len(h["learning_rate"]) == STEPS] == [whole] * 7
    assert {tuple(h["learning_rate"]) for h in seen if len(h["learning_rate"]) == 3} == {(1, 2, 3)}
    assert {type(h[name]) for h in seen for name in ("alpha", "eps")} == {float}


@pytest.mark.parametrize(
    ("given", "error", "words"),
    [
        ({"learning_rate": []}, ValueError, "learning_rate has 0 entries for 8 steps"),
        ({"learning_rate": np.zeros(0)}, ValueError, "learning_rate has 0 entries for 8 steps"),
        ({"learning_rate": [0.1, 0.2]}, ValueError, "learning_rate has 2 entries for 8 steps"),
        ({"learning_rate": [0.1] * 7 + [-1.0]}, ValueError, "learning_rate must be at least 0, not -1.0"),
        ({"learning_rate": [0.1] * 7 + [None]}, TypeError, "learning_rate must be a number, not None"),
        ({"learning_rate": [0.1] * 7 + ["0.1"]}, TypeError, "learning_rate must be a number, not '0.1'"),
        ({"learning_rate": np.full((STEPS, 1), 0.1)}, TypeError, r"learning_rate must be a number, not \(0.1,\)"),
        ({"learning_rate": "fast"}, TypeError, "learning_rate must be a number, not 'fast'"),
        ({"learning_rate": lambda step: 0.1}, TypeError, "learning_rate must be a number, or a list .*, not <function"),
        ({"learning_rate": {}}, TypeError, r"learning_rate must be a number, not \{\}"),
        ({"learning_rate": np.nan}, ValueError, "learning_rate must be finite, not nan"),
        ({"learning_rate": None}, TypeError, "learning_rate must be a number, not None"),
        ({"alpha": "0.9"}, TypeError, "alpha must be a number, not '0.9'"),
        ({"alpha": True}, TypeError, "alpha must be a number, not True"),
        ({"alpha": [0.9]}, TypeError, r"alpha must be a number, not \(0.9,\)"),
        ({"alpha": 2.0}, ValueError, r"alpha must be in \[0, 1\], not 2.0"),
        ({"eps": None}, TypeError, "eps must be a number, not None"),
        ({"eps": 0}, ValueError, "eps must be >0, not 0.0"),
        ({"momentum": 0.9}, TypeError, "RMSprop has no hyperparameter momentum"),
        ({"scalars": "x"}, ValueError, "scalars must be 'double', 'float32' or 'either', not 'x'"),
        ({"scalars": None}, ValueError, "scalars must be"),
        ({"dtype": "int32"}, TypeError, "dtype 'int32' is none of"),
        ({"dtype": np.int8}, TypeError, "dtype 'int8' is none of"),
        ({"dtype": "nonsense"}, TypeError, "dtype 'nonsense' is none of"),
        ({"formula": 3}, TypeError, "a formula is a name or one of the classes, not 3"),
        ({"formula": None}, TypeError, "a formula is a name or one of the classes, not None"),
        ({"formula": int}, ValueError, "unknown formula 'int'"),
        ({"formula": "Adam", "betas": 0.9}, TypeError, "betas must be two numbers, not 0.9"),
        ({"formula": "Adam", "betas": "ab"}, TypeError, "betas must be a number, not 'ab'"),
        ({"formula": "Adam", "betas": (0.9,)}, ValueError, "betas must be two numbers"),
        ({"formula": "Adam", "betas": (0.9, "x")}, TypeError, "betas must be a number, not 'x'"),
        ({"formula": "SGD", "nesterov": 1}, TypeError, "nesterov must be True or False, not 1"),
        ({"formula": "SGD", "nesterov": True}, ValueError, "nesterov needs momentum above 0"),
        ({"formula": "AdamW", "learning_rate": 1.0, "weight_decay": 1.0}, ValueError, r"is above 0\.2"),
    ],
)
def test_a_refusal_names_the_argument_and_the_value_before_my_step_is_called(given, error, words):
    with pytest.raises(error, match=words):
        assert_conforms(never, **{"formula": "RMSprop", **given})


@pytest.mark.parametrize(
    ("shape", "error", "words"),
    [
        ((6, 0), ValueError, r"shape must have elements: every axis is at least 1, not \(6, 0\)"),
        ((6, 1.5), TypeError, r"shape must be a tuple of whole numbers, not \(6, 1.5\)"),
        ("ab", TypeError, "shape must be a tuple of whole numbers, not 'ab'"),
        ((True,), TypeError, "shape must be a tuple of whole numbers"),
    ],
)
def test_a_shape_that_is_none_is_refused(shape, error, words):
    with pytest.raises(error, match=words):
        assert_conforms(never, "RMSprop", shape=shape)


@pytest.mark.parametrize("formula", ["RMSprop", "Adafactor", "Muon"])
def test_a_shape_is_asked_for_once(formula):
    seen = []

    def recorded(parameter, gradients, **h):
        seen.append(parameter.shape)
        return own(getattr(mlx_optimizers, formula))(parameter, gradients, **h)

    assert_conforms(recorded, formula, shape=(5, 2, 3))
    assert seen.count((5, 2, 3)) == 1


def test_what_is_wrong_around_the_formula_is_found():
    def without_tail(parameter, gradients, **h):
        out = rmsprop(parameter, gradients, **h)
        out[:, parameter.size // 8 * 8 :] = parameter[parameter.size // 8 * 8 :]
        return out

    def writes(parameter, gradients, **h):
        out = rmsprop(parameter, gradients, **h)
        gradients *= 2
        return out

    def stops(parameter, gradients, **h):
        out = rmsprop(parameter, gradients, **h)
        out[255:] = out[min(254, len(out) - 1)]
        return out

    for wrong, place in ((without_tail, "special/nan,"), (writes, "untouched/defaults,"), (stops, "long/defaults,")):
        with pytest.raises(AssertionError, match=rf"First seen in rmsprop/{place}"):
            assert_conforms(wrong, "RMSprop")


def test_my_step_is_a_function():
    with pytest.raises(TypeError, match="my_step must be a function, not 3"):
        assert_conforms(3, "SGD")


@pytest.mark.parametrize("error", [SystemExit(0), GeneratorExit()])
def test_what_ends_a_program_does_not_end_a_check(error):
    def ends(parameter, gradients, **h):
        raise error

    with pytest.raises(AssertionError, match=f"SGD failed in 28 of 28 cases(.|\n)*{type(error).__name__}"):
        assert_conforms(ends, "SGD", learning_rate=0.5)
