"""Formula names, and formulas as axes."""

from __future__ import annotations

import numpy as np
import pytest

import mlx_optimizers
from mlx_optimizers.conformance import matching, parse
from mlx_optimizers.oracle import Exact, Formula, Rounded, format_of, trajectory
from mlx_optimizers.oracle.formulas import AXES, axes_of, in_words, name_of, split, variants
from mlx_optimizers.oracle.trajectory import walk
from tests.expected import EIGHT, each_name
from tests.support import require


@pytest.mark.parametrize(
    ("typed", "printed"),
    [
        ("Adam", "Adam"),
        ("BiasCorrectedAdam", "Adam[bias_correction=true]"),
        ("BiasCorrectedAdamW", "AdamW[bias_correction=true]"),
        ("AdamW[eps=inside_sqrt,bias_correction=true]", "AdamW[bias_correction=true,eps=inside_sqrt]"),
        ("Adam[eps=outside_sqrt]", "Adam"),
        ("Adam[ignored=betas:0.9,0.999,eps=inside_sqrt]", "Adam[eps=inside_sqrt,ignored=betas:0.9,0.999]"),
        ("SGD[ignored=learning_rate:1]", "SGD[ignored=learning_rate:1]"),
        ("Adagrad[initial=0.1,eps=inside_sqrt]", "Adagrad[eps=inside_sqrt,initial=0.1]"),
        ("Adam[ignored=eps:3e-5]", "Adam[ignored=eps:3e-5]"),
    ],
)
def test_names_are_printed_with_sorted_keys_and_without_defaults(typed, printed):
    assert parse(typed).name == printed


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("Adan", "unknown formula 'Adan'"),
        ("adam", "unknown formula 'adam'"),
        ("", "unknown formula ''"),
        ("Adam[]", "unknown formula"),
        ("Adam[eps]", "unknown value '' of axis 'eps'"),
        ("Adam[epsilon=inside_sqrt]", "unknown axis 'epsilon' of Adam"),
        ("Adam[eps=inside]", "unknown value 'inside' of axis 'eps'"),
        ("SGD[eps=inside_sqrt]", "unknown axis 'eps' of SGD"),
        ("Adam[eps=inside_sqrt,eps=inside_sqrt]", "stands twice"),
        ("Adam[step=t-1]", "means nothing without a bias correction"),
        ("Adam[eps=before_correction]", "before the correction"),
        ("Adam[bias_correction=first,eps=before_correction]", "before the correction"),
        ("Adam[ignored=momentum:1]", "unknown value"),
        ("Adam[ignored=eps:one]", "unknown value"),
        ("Adam[ignored=betas:0.9]", "unknown value"),
        ("SGD[ignored=nesterov:1]", "unknown value"),
        ("Adam[ignored=eps:1e400]", "unknown value"),
        ("Adam[ignored=eps:\u0661]", "unknown value"),  # a digit, but no ASCII one
    ],
)
def test_a_wrong_name_is_refused_and_says_what_there_is(name, message):
    with pytest.raises(ValueError, match=message.replace("[", r"\[")):
        parse(name)


@each_name
@pytest.mark.parametrize("library", ["mpmath", "gmpy2"])
def test_with_every_axis_at_its_default_a_formula_is_the_documented_one_bit_for_bit(name, library):
    if library == "gmpy2":
        require("gmpy2")
    documented = next(o for o in mlx_optimizers.OPTIMIZERS if o.__name__ == name)
    n = Exact(library=library)
    for case in matching([name], "*" if library == "gmpy2" else "*/plain/*"):
        arguments = (n, case.parameter, list(case.gradients), case.hyperparameters)
        with n.active():
            as_axes = list(walk(parse(name), *arguments))
            as_class = list(walk(Formula(name, documented, documented.exact), *arguments))
            for left, right in zip(as_axes, as_class, strict=True):
                for x, y in zip(left, right, strict=True):
                    assert all(x.values == y.values)
        ours = trajectory(name, case.parameter, case.gradients, **case.hyperparameters)
        theirs = trajectory(parse(name), case.parameter, case.gradients, **case.hyperparameters)
        assert all(np.array_equal(a.parameter.low, b.parameter.low) for a, b in zip(ours, theirs, strict=True))


def test_every_axis_of_the_interface_is_there():
    expected = {
        "bias_correction": {
            **dict.fromkeys(("Adam", "AdamW"), "false true first second"),
            "Adamax": "false true",
        },
        "initial": {"Adam": "zero gradient", "AdamW": "zero gradient", "Lion": "zero gradient", "Adagrad": "zero 0.1"},
        "weight_decay": {
            "SGD": "coupled decoupled after unscaled ignored momentum_only",
            "AdamW": "decoupled coupled after unscaled ignored",
            "Lion": "decoupled coupled after unscaled ignored",
        },
        "step": dict.fromkeys(("Adam", "AdamW", "Adamax"), "t t-1 t+1"),
        "dampening": {"SGD": "always not_first ignored"},
        "nesterov": {"SGD": "given ignored"},
        "buffer": {"SGD": "plain scaled"},
        "betas": dict.fromkeys(("Adam", "AdamW", "Adamax", "Lion"), "given swapped"),
        "sign": {"Lion": "direction momentum"},
        "u": {"AdaDelta": "updated frozen"},
        "eps": {
            "RMSprop": "outside_sqrt inside_sqrt",
            "Adagrad": "outside_sqrt inside_sqrt",
            "AdaDelta": "outside_sqrt denominator_only",
            "Adam": "outside_sqrt inside_sqrt before_correction",
            "AdamW": "outside_sqrt inside_sqrt before_correction",
            "Adamax": "outside_sqrt inside_max",
        },
    }
    there = {axis.name: {name: " ".join(values) for name, values in axis.values.items()} for axis in AXES}
    assert {name: set(there["ignored"]) for name in ("ignored",)} == {"ignored": set(EIGHT)}
    assert {key: value for key, value in there.items() if key != "ignored"} == expected
    assert [axis.name for axis in AXES] == sorted(there)


@pytest.mark.parametrize("axis", AXES, ids=lambda axis: axis.name)
def test_every_value_says_what_it_means_and_where_it_is_found(axis):
    for values in axis.values.values():
        for value in values[1:]:
            meaning = axis.meaning["NAME:VALUE" if axis.name == "ignored" else value]
            assert meaning.words and meaning.found


@each_name
def test_variants_differ_in_as_many_axes_as_asked_and_can_be_parsed_back(name):
    assert list(variants(name, 0)) == [name]
    for count in (1, 2):
        names = list(variants(name, count))
        assert len(set(names)) == len(names)
        for variant in names:
            optimizer, choice = split(variant)
            assert (optimizer, len(choice)) == (name, count)
            assert name_of(optimizer, choice) == parse(variant).name == variant
    assert len(list(variants(name, 1))) >= sum(len(values) - 1 for values in axes_of(name).values()) - 3


def _one_step(formula, w, g, **hyperparameters):
    entry = trajectory(parse(formula), [w], [[g]], dtype="float64", **hyperparameters)[0]
    return float(entry.parameter.nearest[0])


def test_values_of_the_axes_by_hand():
    """One step from zero state, with numbers that are exact in binary."""
    half = {"learning_rate": 0.5, "betas": (0.5, 0.75), "eps": 0.25}
    # m = g/2, v = g²/4: for g = 2, m = 1, √v = 1.
    assert _one_step("Adam", 0.0, 2.0, **half) == -0.5 / 1.25
    assert _one_step("Adam[eps=inside_sqrt]", 0.0, 2.0, **half) == pytest.approx(-0.5 / 1.25**0.5, rel=1e-15)
    assert _one_step("Adam[bias_correction=true]", 0.0, 2.0, **half) == pytest.approx(-1 / 2.25, rel=1e-15)
    assert _one_step("Adam[bias_correction=first]", 0.0, 2.0, **half) == -1 / 1.25
    assert _one_step("Adam[bias_correction=second]", 0.0, 2.0, **half) == pytest.approx(-0.5 / 2.25, rel=1e-15)
    assert _one_step("Adam[bias_correction=true,eps=before_correction]", 0.0, 2.0, **half) == -0.5 / 1.25
    assert _one_step("Adam[betas=swapped]", 0.0, 2.0, **half) == pytest.approx(-0.25 / (2**0.5 + 0.25), rel=1e-15)
    assert _one_step("Adam[initial=gradient]", 0.0, 2.0, **half) == pytest.approx(-1 / 2.25, rel=1e-15)
    assert _one_step("Adam[ignored=eps:1]", 0.0, 2.0, **half) == -0.25
    t_plus = _one_step("Adam[bias_correction=true,step=t+1]", 0.0, 2.0, **half)
    assert t_plus == pytest.approx(-0.5 / 0.75 / (1 / (1 - 0.5625) ** 0.5 + 0.25), rel=1e-15)
    # Adamax: m = 1, v = 2
    assert _one_step("Adamax", 0.0, 2.0, **half) == pytest.approx(-0.5 / 2.25)
    assert _one_step("Adamax[eps=inside_max]", 0.0, 2.0, **half) == pytest.approx(-0.5 / 2.25)
    assert _one_step("Adamax[bias_correction=true]", 0.0, 2.0, **half) == pytest.approx(-1 / 2.25)
    # decay: w = 1, λ = 1/2, κ = 1/4
    decay = {"learning_rate": 0.5, "weight_decay": 0.25}
    assert _one_step("SGD", 1.0, 1.0, **decay) == 1 - 0.5 * 1.25
    assert _one_step("SGD[weight_decay=decoupled]", 1.0, 1.0, **decay) == 0.875 - 0.5
    assert _one_step("SGD[weight_decay=after]", 1.0, 1.0, **decay) == 0.875 * 0.5
    assert _one_step("SGD[weight_decay=unscaled]", 1.0, 1.0, **decay) == 0.75 - 0.5
    assert _one_step("SGD[weight_decay=ignored]", 1.0, 1.0, **decay) == 0.5
    assert _one_step("SGD[weight_decay=momentum_only]", 1.0, 1.0, **decay) == 0.5
    assert _one_step("SGD[weight_decay=momentum_only]", 1.0, 1.0, momentum=0.5, **decay) == 1 - 0.5 * 1.25
    assert _one_step("SGD[dampening=not_first]", 0.0, 1.0, learning_rate=0.5, momentum=0.5, dampening=0.5) == -0.5
    assert _one_step("SGD", 0.0, 1.0, learning_rate=0.5, momentum=0.5, dampening=0.5) == -0.25
    assert _one_step("SGD[nesterov=ignored]", 0.0, 1.0, learning_rate=0.5, momentum=0.5, nesterov=True) == -0.5
    assert _one_step("SGD[buffer=scaled]", 0.0, 1.0, learning_rate=0.5, momentum=0.5, nesterov=True) == -0.75
    assert _one_step("Lion[weight_decay=coupled]", -1.0, 0.125, **decay) == -0.5
    assert _one_step("Lion", -1.0, 0.125, **decay) == -0.875 - 0.5
    assert _one_step("Adagrad[initial=0.1]", 0.0, 0.0, learning_rate=1.0) == 0.0
    assert _one_step("AdaDelta[eps=denominator_only]", 0.0, 1.0, learning_rate=1.0) == 0.0
    root = (1e-6 / (0.1 + 1e-6)) ** 0.5
    assert _one_step("AdaDelta[u=frozen]", 0.0, 1.0, learning_rate=1.0) == pytest.approx(-root, rel=1e-14)


def test_keras_buffer_keeps_the_old_learning_rate():
    """λ .1, .1, .01, .01, g = 1, μ = .9: w ends at −0.644 with λ in the buffer, at −0.351 without."""
    rates, ones = [0.1, 0.1, 0.01, 0.01], [[1.0]] * 4
    scaled = trajectory(parse("SGD[buffer=scaled]"), [0.0], ones, learning_rate=rates, momentum=0.9)
    plain = trajectory("SGD", [0.0], ones, learning_rate=rates, momentum=0.9)
    assert round(float(scaled[-1].parameter.nearest[0]), 3) == -0.644
    assert round(float(plain[-1].parameter.nearest[0]), 3) == -0.351


def test_a_step_counted_from_zero_has_no_value():
    formula = parse("Adam[bias_correction=true,step=t-1]")
    entries = trajectory(formula, [1.0], [[1.0], [1.0]], learning_rate=0.1)
    assert [bool(np.isinf(entry.parameter.radius[0])) for entry in entries] == [True, True]
    assert np.isfinite(entries[-1].state["m"].radius).all()


def test_words():
    assert in_words("Adam") == "Adam as documented"
    assert in_words("RMSprop[eps=inside_sqrt]") == "RMSprop with ε inside the square root"
    assert (
        in_words("Adagrad[eps=inside_sqrt,initial=0.1]")
        == "Adagrad with ε inside the square root and an accumulator that starts at 0.1"
    )


def test_the_fast_search_model_takes_formulas_too():
    from mlx_optimizers.oracle import Double

    n = Rounded(format_of("float32"), Double())
    with n.active():
        balls = list(walk(parse("Adam"), n, np.float32([1.0]), [np.float32([1.0])], {"learning_rate": 0.1}))
    assert np.isfinite(balls[0][0].radius).all()
