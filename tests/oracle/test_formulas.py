"""Formula names, and formulas as axes.

The step of an entry of the catalog and the `exact` of a class are written apart, and compared bit for bit. The values
of the axes and their lists in tests/expected.py are written by hand, and are independent of both.
"""

from __future__ import annotations

import numpy as np
import pytest

import mlx_optimizers
from mlx_optimizers.catalog import entry_of
from mlx_optimizers.conformance import cases_of, matching, parse
from mlx_optimizers.oracle import Exact, Formula, Rounded, format_of, trajectory
from mlx_optimizers.oracle.formulas import AXES, in_words, name_of, split, variants, varied
from mlx_optimizers.oracle.trajectory import walk
from tests.expected import AXES_OF_WHOLE, EIGHT, EXPECTED, FLAG, LATER, PAIR_BELOW_1, each_name, each_of_eight
from tests.support import require

OPEN = {"ignored": "NAME:VALUE", "scaled": "NAME:FACTOR", "replaced": "NAME:EXPRESSION"}
"""The axes that take any value."""


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
@pytest.mark.norm("formulas.name", "formulas.further-names")
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


@each_of_eight
@pytest.mark.norm("formulas.ignored")
def test_every_hyperparameter_but_a_flag_may_be_ignored_for_any_finite_number(name):
    for argument, kind in EXPECTED[name].ranges.items():
        for number in ("0.375", "7", "3e300", "-7"):
            value = f"{argument}:{number}{',0.5' if kind == PAIR_BELOW_1 else ''}"
            if kind == FLAG:
                with pytest.raises(ValueError, match="unknown value"):
                    parse(f"{name}[ignored={value}]")
            else:
                assert split(parse(f"{name}[ignored={value}]").name) == (name, {"ignored": value})


@each_name
@pytest.mark.parametrize("library", ["mpmath", "gmpy2"])
def test_with_every_axis_at_its_default_a_formula_is_the_documented_one_bit_for_bit(name, library):
    if library == "gmpy2":
        require("gmpy2")
    documented = getattr(mlx_optimizers, name)
    n = Exact(library=library)
    for case in cases_of(name) if library == "gmpy2" else matching([name], "*/plain/*"):
        arguments = (n, case.parameter, list(case.gradients), case.hyperparameters)
        with n.active():
            as_axes = list(walk(varied(*split(name)), *arguments))
            as_class = list(walk(Formula(name, documented, documented.exact), *arguments))
            for left, right in zip(as_axes, as_class, strict=True):
                for x, y in zip(left, right, strict=True):
                    assert all(x.values == y.values)
        ours = trajectory(name, case.parameter, case.gradients, **case.hyperparameters)
        theirs = trajectory(varied(*split(name)), case.parameter, case.gradients, **case.hyperparameters)
        assert all(np.array_equal(a.parameter.low, b.parameter.low) for a, b in zip(ours, theirs, strict=True))


@pytest.mark.norm("formulas.axes")
def test_every_axis_of_the_interface_is_there():
    expected = {}
    axes = {**{name: EXPECTED[name].axes for name in EIGHT}, **AXES_OF_WHOLE}
    for name, those in axes.items():
        for axis, values in those.items():
            expected.setdefault(axis, {})[name] = values
    there = {axis.name: {name: " ".join(values) for name, values in axis.values.items()} for axis in AXES}
    everyone = {"ignored": set(axes), "scaled": set(EIGHT), "replaced": set(EIGHT)}
    assert {name: set(there[name]) for name in OPEN} == everyone
    assert {key: value for key, value in there.items() if key not in OPEN} == expected
    assert [axis.name for axis in AXES] == sorted(there)


@pytest.mark.parametrize("axis", AXES, ids=lambda axis: axis.name)
@pytest.mark.norm("formulas.axes")
def test_every_value_says_what_it_means_and_where_it_is_found(axis):
    for values in axis.values.values():
        for value in values[1:]:
            meaning = axis.meaning[OPEN.get(axis.name, value)]
            assert meaning.words and meaning.seen_in


@each_name
def test_variants_differ_in_as_many_axes_as_asked_and_can_be_parsed_back(name):
    assert [formula.name for formula in variants(name, 0)] == [name]
    for count in (1, 2):
        names = [formula.name for formula in variants(name, count)]
        assert len(set(names)) == len(names)
        for variant in names:
            optimizer, choice = split(variant)
            assert (optimizer, len(choice)) == (name, count)
            assert name_of(optimizer, choice) == parse(variant).name == variant
    if name not in LATER:  # they are variations themselves
        axes = entry_of(name).axes
        alone = [value for axis in axes for value in axis.values[1:] if axis.needs({axis.name: value}) is None]
        assert len(list(variants(name, 1))) == len(alone)


def _last(formula, w, g, **hyperparameters):
    gradients = [[each] for each in (g if isinstance(g, tuple) else (g,))]
    entry = trajectory(parse(formula), [w], gradients, dtype="float64", **hyperparameters)[-1]
    return float(entry.parameter.nearest[0])


@each_name
@pytest.mark.norm("formulas.trajectory")
def test_values_of_the_axes_by_hand(name):
    """Steps from zero state, with numbers that are exact in binary."""
    for axes, w, g, hyperparameters, new in EXPECTED[name].by_hand:
        assert _last(f"{name}[{axes}]" if axes else name, w, g, **hyperparameters) == new, axes


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
