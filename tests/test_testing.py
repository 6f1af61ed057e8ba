"""`assert_conforms`: silent for what is right, and its message is the diagnosis of what is not."""

from __future__ import annotations

import numpy as np
import pytest

from mlx_optimizers.conformance.cases import STEPS
from mlx_optimizers.testing import assert_conforms


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
    assert len(seen) == 20
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
    assert seen == [{"learning_rate": 0.25, "alpha": 0.5, "eps": 1e-8}] * 4


def test_a_changing_learning_rate_may_be_given():
    rates = [0.5, 0.25, 0.125, 0.5, 0.25, 0.125, 0.5, 0.25]
    assert_conforms(rmsprop, "RMSprop", learning_rate=rates)

    def first_rate_kept(parameter, gradients, *, learning_rate, **h):
        return rmsprop(parameter, gradients, learning_rate=learning_rate[0], **h)

    with pytest.raises(AssertionError, match="deviates in 4 of 4 cases"):
        assert_conforms(first_rate_kept, "RMSprop", learning_rate=rates)


def test_hyperparameters_of_numpy_are_those_of_python():
    seen = []

    def recorded(parameter, gradients, **h):
        seen.append(h)
        return rmsprop(parameter, gradients, **h)

    assert_conforms(recorded, "RMSprop", learning_rate=np.full(STEPS, 0.5), alpha=np.float32(0.75))
    assert seen == [{"learning_rate": [0.5] * STEPS, "alpha": 0.75, "eps": 1e-8}] * 4
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
