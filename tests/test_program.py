"""A recorded rule gives the bits of the rule itself, in the places and with the calls that one by hand would have.

The results are compared with the same rule on plain arrays, so that these tests see the recorder and not the rule. The
numbers of calls are counted by hand from the steps of tests/expected.py.
"""

from __future__ import annotations

import gc
import warnings
import weakref

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import mlx_optimizers as optim
from mlx_optimizers.elementwise import Elementwise
from mlx_optimizers.execution.program import bind, program_of
from mlx_optimizers.optimizer import Slot, Whole
from tests.expected import CLASSES, each_class, record_of


def run(rule, c, arrays):
    """Run the program of a rule on copies of the arrays: the parameter and the slots after it, and its calls."""
    _, program = bind(rule, c, len(arrays) - 2)
    copies = [array.copy() for array in arrays]
    copies[1].flags.writeable = False  # the gradient
    scratch = [np.empty_like(arrays[0]) for _ in range(program.scratch)]
    program.run([*c, *copies, *scratch])
    return [copies[0], *copies[2:]], program


@each_class
@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
@pytest.mark.parametrize("shape", [(), (1,), (50,), (4, 5)])
def test_the_program_gives_the_bits_of_the_rule(made, dtype, shape):
    real = np.dtype(dtype).type
    for number, hyperparameters in enumerate(record_of(made).settings):
        rng = np.random.default_rng(number)
        arrays = [np.asarray(np.abs(rng.normal(size=shape)), dtype) for _ in range(2 + len(made.slots))]
        arrays[1] = np.asarray(rng.normal(size=shape), dtype)
        c = tuple(made(0.1, **hyperparameters).coefficients(real))
        got, program = run(made.rule, c, arrays)
        wanted = made.rule(c, *arrays)
        assert all(a.tobytes() == np.asarray(b, dtype).tobytes() for a, b in zip(got, wanted, strict=True))
        assert program.scratch <= 2


@each_class
def test_a_step_has_no_call_more_than_its_rule_has_operations(made):
    c = made(0.1, **record_of(made).full).coefficients(np.float32)
    assert len(bind(made.rule, tuple(c), len(made.slots))[1].calls) == record_of(made).calls


ZERO = np.float32([0, -0.0, np.nan, np.inf, -np.inf, 1, -1])


def test_the_sign_without_branches_is_numpys():
    def rule(c, w, g):
        return (np.sign(g),)

    for x in (ZERO, ZERO[ZERO == ZERO], np.float32(-3), np.zeros((0, 2), np.float16), np.float64([[1, -2]])):
        x = np.asarray(x)
        (got,), _ = run(rule, (), [np.zeros_like(x), x])
        assert got.tobytes() == np.asarray(np.sign(x)).tobytes()


def swapped(c, w, g, u, v):
    return w - u, v, u


def repeated(c, w, g, u, v):
    m = u + g
    return m, m, m


def gradients(c, w, g, u, v):
    return g, w, g


def kept(c, w, g, u, v):
    return w, u, v


def late(c, w, g, u, v):
    new = u * c[0]  # stands where u does, unless u is read again
    return w - new - u, new, v + u


def numbers(c, w, g, u, v):
    return w * c[0], c[1] * u, np.maximum(v, np.minimum(g, u))


def wide(c, w, g, u, v):
    a, b, d, e = w * u, w * v, g * u, g * v
    return (a + b) * (d + e) - (a - e) * (b - d), a * e - b * d, np.sqrt(np.abs(a * b * d * e))


def unused(c, w, g, u, v):
    _ = np.sqrt(w) * v
    return w - g, u, g * v


@pytest.mark.parametrize("rule", [swapped, repeated, gradients, kept, late, numbers, wide, unused])
def test_results_stand_where_they_belong_wherever_they_come_from(rule):
    rng = np.random.default_rng(0)
    arrays = list(np.float32(rng.uniform(0.5, 2, size=(4, 30))))
    c = tuple(np.float32([0.3, -0.7]))
    got, _ = run(rule, c, arrays)
    assert [a.tobytes() for a in got] == [b.tobytes() for b in rule(c, *arrays)]


@settings(max_examples=200)
@given(
    st.lists(st.tuples(st.integers(0, 5), st.integers(0, 99), st.integers(0, 99)), max_size=14), st.integers(0, 10**6)
)
def test_any_rule_has_its_own_bits_as_a_program(lines, seed):
    """Write a rule of random lines; each reads any values that are there, and any three of all are the results."""
    kinds = [np.add, np.subtract, np.multiply, np.maximum, np.absolute, np.sign]

    def rule(c, w, g, u, v):
        values = [w, g, u, v, *c]
        for kind, left, right in lines:
            operands = (values[left % len(values)], values[right % len(values)])[: kinds[kind].nin]
            values.append(kinds[kind](*operands))
        arrays = [*values[:4], *values[6:]]
        return tuple(arrays[(seed // 100**k) % len(arrays)] for k in range(3))

    arrays = list(np.float32(np.random.default_rng(seed).integers(-3, 4, size=(4, 20))))
    c = (np.float32(0.5), np.float32(-2))
    got, _ = run(rule, c, arrays)
    for a, b in zip(got, rule(c, *arrays), strict=True):
        assert a.tobytes() == np.broadcast_to(b, a.shape).tobytes()


@pytest.mark.parametrize(
    ("rule", "words"),
    [
        (lambda c, w, g: (w - 2 * g,), "every number in a rule is one of its coefficients: 2 is not"),
        (lambda c, w, g: (w - np.where(g, w, g),), "where is none"),
        (lambda c, w, g: (w - np.sum(g),), "element by element"),
        (lambda c, w, g: (w - np.add.reduce(g),), "add is not called so"),
        (lambda c, w, g: (np.subtract(w, g, out=w),), "subtract is not called so"),
        (lambda c, w, g: (w @ g,), "matmul is not called so"),
        (lambda c, w, g: (np.modf(w)[0],), "modf is not called so"),
        (lambda c, w, g: (w if g else g,), "no branch on its numbers"),
        (lambda c, w, g: (w if c[0] > c[0] else g,), "no branch on its numbers"),
        (lambda c, w, g: (w.sum(),), "has no attribute 'sum'"),
        (lambda c, w, g: w - g, "must return 1 new arrays"),
        (lambda c, w, g: (w, g), "must return 1 new arrays"),
        (lambda c, w, g: (1.0,), "must return 1 new arrays"),
    ],
)
def test_what_is_no_rule_is_refused(rule, words):
    with pytest.raises((TypeError, AttributeError), match=words):
        program_of(rule, (None,), 0)


def own(**members):
    """An optimizer of one's own."""

    def coefficients(self, real):
        return (real(self.learning_rate),)

    def init(self, learning_rate=0.5):
        Elementwise.__init__(self)
        self.learning_rate = learning_rate

    return type("Own", (Elementwise,), {"__init__": init, "coefficients": coefficients, **members})


def test_a_rule_that_is_none_is_refused_before_anything_moves():
    optimizer, model = own(rule=staticmethod(lambda c, w, g: (w - 2 * g,)))(), {"w": np.float32([1])}
    with pytest.raises(TypeError, match="2 is not"):
        optimizer.update(model, {"w": np.float32([1])})
    assert model["w"] == 1 and optimizer.step == 0


def test_a_flag_that_turns_later_chooses_another_program():
    optimizer, w = optim.SGD(0.5), np.float32([0])
    optimizer.update(w, np.float32([1]))
    optimizer.momentum, optimizer.weight_decay = 0.5, 1.0
    optimizer.update(w, np.float32([1]))  # h = 1 − ½, v = ½
    assert w == -0.75 and optimizer.state["v"] == 0.5


def test_a_program_is_kept_and_its_arrays_are_not():
    w, g = np.float32([1, 2]), np.float32([3, 4])
    held = weakref.ref(w)
    optimizer = optim.RMSprop(0.1)
    optimizer.update(w, g)
    assert bind(optim.RMSprop.rule, tuple(optimizer.coefficients(np.float32)), 1)[1] is program_of(
        optim.RMSprop.rule, (None,) * 4, 1
    )
    del w
    gc.collect()
    assert held() is None


# The two kinds


def test_slots_have_the_shapes_that_they_declare():
    class Rows(Whole):
        slots = ("m", Slot("row", shape=lambda s: s[:-1]), Slot("product", shape=lambda s: ()))

        def __init__(self, learning_rate):
            super().__init__()
            self.learning_rate = learning_rate

        def apply_single(self, gradient, parameter, state):
            state["m"] += gradient
            state["row"] += gradient.sum(axis=-1)
            state["product"] += 1
            parameter -= gradient
            return parameter

    optimizer, model = Rows(0.1), {"w": np.zeros((2, 3), np.float32)}
    optimizer.init(model)
    assert [optimizer.state["w"][slot].shape for slot in Rows.slots] == [(2, 3), (2,), ()]
    optimizer.update(model, {"w": np.ones((2, 3), np.float32)})
    assert optimizer.state["w"]["row"].tolist() == [3, 3] and optimizer.state["w"]["product"] == 1
    optimizer.state["w"]["row"] = np.zeros(3, np.float32)
    with pytest.raises(ValueError, match=r"state row of w has shape \(3,\), not \(2,\)"):
        optimizer.update(model, {"w": np.ones((2, 3), np.float32)})


def test_an_elementwise_optimizer_has_slots_of_its_parameters_shape():
    with pytest.raises(TypeError, match="slot row of Own must have the shape of its parameter"):
        own(slots=(Slot("row", shape=lambda s: s[:-1]),))


def test_an_apply_single_counts_wherever_it_stands():
    class Mixin:
        def apply_single(self, gradient, parameter, state):
            return super().apply_single(2 * gradient, parameter, state)

    class Mixed(Mixin, optim.SGD):
        pass

    class Below(Mixed):
        pass

    for made, wanted in ((optim.SGD, -1), (Mixed, -2), (Below, -2)):
        w = np.float32([0])
        made(1.0).update(w, np.float32([1]))
        assert w == wanted


@pytest.mark.parametrize("gradient", [np.float64([2, -2, 0]), np.float16(0.5), 0.5, np.float32([[1], [2]])])
def test_a_call_of_apply_single_takes_what_numpy_takes(gradient):
    parameter = np.zeros((2, 3), np.float32)
    state = {"v": np.zeros((2, 3), np.float32)}
    result = optim.SGD(1.0, momentum=0.5).apply_single(gradient, parameter, state)
    assert result is parameter
    assert np.array_equal(parameter, -np.broadcast_to(gradient, (2, 3))) and np.array_equal(state["v"], -parameter)


def test_an_elementwise_optimizer_without_its_parts_says_so():
    with pytest.raises(NotImplementedError, match="Bare has no coefficients"):
        type("Bare", (Elementwise,), {})().update(np.float32([1]), np.float32([1]))
    with pytest.raises(NotImplementedError, match="has no rule"):
        own()().update(np.float32([1]), np.float32([1]))


def test_no_call_of_numpy_is_one_that_it_warns_of():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for made in CLASSES:
            made(0.1).update(np.float32([1]), np.float32([1]))
