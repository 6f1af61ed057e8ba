"""Properties of the fast path of every optimizer: layout makes no difference, symmetries are exact, the oracle agrees.

Layouts, splits and symmetries compare the fast path with itself. The oracle's interval, the values by hand and the
powers of two in tests/expected.py are independent of it.
"""

from __future__ import annotations

from itertools import pairwise
from unittest.mock import patch

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import mlx_optimizers as optim
from mlx_optimizers.oracle import Exact, trajectory
from tests.expected import (
    ABOVE_0,
    AT_LEAST_0,
    EXPECTED,
    FLAG,
    NAMES,
    PAIR_BELOW_1,
    SQUARING,
    UP_TO_1,
    each_class,
    record_of,
)
from tests.support import require

STEPS = 3

# Every float32 there is: NaN, infinities, subnormals, both zeros.
ANY = st.floats(width=32)
# Far from where float32 over- and underflows, squares and their products with coefficients included.
MIDDLE = st.builds(
    lambda sign, digits, exponent: sign * (1 + digits / 2**23) * 2.0**exponent,
    st.sampled_from([-1, 1]),
    st.integers(0, 2**23 - 1),
    st.integers(-10, 10),
)
DOMAIN = st.one_of(
    st.just(0.0),
    st.builds(
        lambda sign, digits, exponent: sign * (1 + digits / 2**23) * 2.0**exponent,
        st.sampled_from([-1, 1]),
        st.integers(0, 2**23 - 1),
        st.integers(-40, 39),
    ),
)
UNIT = st.one_of(st.sampled_from([0.0, 0.25, 0.5, 0.9, 0.99, 0.999]), st.floats(0, 0.9999999))
VALUES = {
    AT_LEAST_0: st.one_of(st.sampled_from([0.0, 1e-8, 1e-3, 0.1, 1.0]), st.floats(2.0**-40, 1.5)),
    ABOVE_0: st.one_of(st.sampled_from([1e-8, 1e-6, 1e-3, 1.0]), st.floats(2.0**-40, 1)),
    UP_TO_1: st.one_of(UNIT, st.just(1.0)),
    PAIR_BELOW_1: st.tuples(UNIT, UNIT),
    FLAG: st.booleans(),
}


def _settings(made, draw):
    """Draw hyperparameters of an optimizer, from everything that it takes."""
    expected = record_of(made)
    return expected.allowed({name: draw(VALUES[kind]) for name, kind in expected.ranges.items()})


@st.composite
def runs(draw, made, elements=ANY, most=12):
    """Draw hyperparameters, a parameter, the gradients of some steps."""
    n = draw(st.integers(1, most))
    floats = st.lists(elements, min_size=n, max_size=n)
    w = np.array(draw(floats), np.float32)
    g = np.array([draw(floats) for _ in range(STEPS)], np.float32)
    return _settings(made, draw), w, g


def _run(made, h, w, g):
    """Take the steps: the parameter and every slot after the last one, by name."""
    optimizer, model = made(**h), {"w": w.copy(order="K")}
    with np.errstate(all="ignore"):
        for gradient in g:
            optimizer.update(model, {"w": gradient})
    return {"w": model["w"], **optimizer.state["w"]}


def _same(left, right):
    """Compare bits, and NaN with NaN: which NaN a processor gives may depend on the lane."""
    assert left.keys() == right.keys()
    for name in left:
        a, b = np.asarray(left[name]), np.asarray(right[name])
        assert a.dtype == b.dtype and a.shape == b.shape
        bits = np.uint16 if a.dtype.itemsize == 2 else np.uint32
        nan = np.isnan(a.astype(np.float32)) & np.isnan(b.astype(np.float32))
        assert np.array_equal(a.view(bits)[~nan], b.view(bits)[~nan]), name


@each_class
@settings(max_examples=40)
@given(data=st.data())
def test_permuted_elements_give_permuted_results(made, data):
    h, w, g = data.draw(runs(made))
    order = np.array(data.draw(st.permutations(range(w.size))))
    straight = _run(made, h, w, g)
    _same({name: x[order] for name, x in straight.items()}, _run(made, h, w[order], g[:, order]))


@each_class
@settings(max_examples=40)
@given(data=st.data())
def test_the_size_of_blocks_changes_no_bit(made, data):
    h, w, g = data.draw(runs(made, most=24))
    rows = data.draw(st.sampled_from([k for k in range(1, w.size + 1) if w.size % k == 0]))
    shape = data.draw(st.sampled_from([w.shape, (rows, w.size // rows), (rows, 1, w.size // rows)]))
    w, g = w.reshape(shape), g.reshape(STEPS, *shape)
    size = data.draw(st.integers(1, w.size))
    order = data.draw(st.sampled_from("CF"))
    with patch("mlx_optimizers.execution.tuning.BLOCK", size):
        cut = _run(made, h, np.asarray(w, order=order), g)
    _same(_run(made, h, w, g), cut)


@each_class
def test_a_parameter_of_many_blocks_is_the_elements_of_it(made):
    """More than two blocks of the real size, and a rest: equal to the same data as many small leaves."""
    from mlx_optimizers.execution.tuning import BLOCK

    rng = np.random.default_rng(11)
    w = rng.standard_normal(2 * BLOCK + 101).astype(np.float32)
    g = rng.standard_normal((2, w.size)).astype(np.float32)
    whole = _run(made, {"learning_rate": 0.1}, w, g)
    ends = [0, 1, 7, BLOCK - 1, BLOCK + 2, w.size]
    parts = [_run(made, {"learning_rate": 0.1}, w[a:b], g[:, a:b]) for a, b in pairwise(ends)]
    _same(whole, {name: np.concatenate([part[name] for part in parts]) for name in whole})


@each_class
@settings(max_examples=30)
@given(data=st.data())
def test_an_array_split_into_leaves_gives_the_same_elements(made, data):
    h, w, g = data.draw(runs(made))
    cut = data.draw(st.integers(0, w.size))
    optimizer, model = made(**h), {"a": w[:cut].copy(), "b": [w[cut:].copy()]}
    with np.errstate(all="ignore"):
        for gradient in g:
            optimizer.update(model, {"a": gradient[:cut], "b": [gradient[cut:]]})
    state = optimizer.state
    joined = {name: np.concatenate([state["a"][name], state["b"][0][name]]) for name in made.slots}
    _same(_run(made, h, w, g), {"w": np.concatenate([model["a"], model["b"][0]]), **joined})


def _unaligned(a):
    """Make a writable copy that starts one byte off."""
    out = np.frombuffer(bytearray(a.nbytes + 1), a.dtype, offset=1).reshape(a.shape)
    out[...] = a
    return out


LAYOUTS = {
    "Fortran": np.asfortranarray,
    "strided": lambda a: np.repeat(a, 3, axis=-1)[..., ::3],
    "reversed": lambda a: np.ascontiguousarray(a[::-1, ::-1])[::-1, ::-1],
    "transposed": lambda a: np.ascontiguousarray(a.swapaxes(-1, -2)).swapaxes(-1, -2),
    "not aligned": _unaligned,
}


@each_class
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("which", ["parameter", "gradient", "both", "state"])
def test_memory_layout_changes_no_bit(made, layout, which):
    rng = np.random.default_rng(2)
    w = rng.standard_normal((5, 7)).astype(np.float32)
    g = rng.standard_normal((STEPS, 5, 7)).astype(np.float32)
    laid = LAYOUTS[layout]
    optimizer, model = made(0.1), {"w": laid(w) if which in ("parameter", "both") else w.copy()}
    optimizer.init(model)
    if which == "state":
        for slot in made.slots:
            optimizer.state["w"][slot] = laid(np.zeros_like(w))
    for gradient in g:
        optimizer.update(model, {"w": laid(gradient) if which in ("gradient", "both") else gradient})
    _same(_run(made, {"learning_rate": 0.1}, w, g), {"w": model["w"], **optimizer.state["w"]})


@each_class
def test_one_element_is_the_same_with_or_without_a_shape(made):
    w, g = np.float32([0.75]), np.float32([[-1.5], [0.3], [1e-3]])
    one = _run(made, {"learning_rate": 0.1}, w, g)
    scalar = _run(made, {"learning_rate": 0.1}, w.reshape(()), g.reshape(STEPS))
    cube = _run(made, {"learning_rate": 0.1}, w.reshape(1, 1, 1), g.reshape(STEPS, 1, 1, 1))
    for other, shape in ((scalar, ()), (cube, (1, 1, 1))):
        assert other["w"].shape == shape
        _same(one, {name: x.reshape(1) for name, x in other.items()})
    empty = _run(made, {"learning_rate": 0.1}, np.zeros((0, 3), np.float32), np.zeros((STEPS, 0, 3), np.float32))
    assert {name: x.shape for name, x in empty.items()} == dict.fromkeys(("w", *made.slots), (0, 3))


@each_class
@settings(max_examples=60)
@given(data=st.data())
def test_the_negated_problem_has_the_negated_result(made, data):
    h, w, g = data.draw(runs(made))
    plain, negated = _run(made, h, w, g), _run(made, h, -w, -g)
    odd = record_of(made).odd
    for name, x in plain.items():
        # The zero that x − x leaves is positive on both sides, so that zeros are compared as numbers.
        assert np.array_equal(-x if name in odd else x, negated[name], equal_nan=True), name


def _ordinary(kind, value):
    """Bring a coefficient to ordinary size, so that nothing becomes subnormal; 0 stays 0 where it may."""
    if kind == AT_LEAST_0:
        return value if value >= 2.0**-20 else 0.0
    if kind == ABOVE_0:
        return max(value, 2.0**-20)
    if kind == UP_TO_1:
        return value if value == 0 or value > 2.0**-10 else 0.5
    return tuple(b if b > 2.0**-10 else 0.0 for b in value) if kind == PAIR_BELOW_1 else value


@each_class
@settings(max_examples=60)
@given(data=st.data(), k=st.integers(-6, 6))
def test_scaling_by_a_power_of_two_is_exact(made, data, k):
    h, w, g = data.draw(runs(made, MIDDLE))
    expected = record_of(made)
    h = expected.allowed({name: _ordinary(kind, h[name]) for name, kind in expected.ranges.items()})
    of = {name: 2.0 ** (k * power) for name, power in expected.scaled.items()}
    scaled = {name: value * of[name] if name in of else value for name, value in h.items()}
    other = _run(made, scaled, w * np.float32(of["w"]), g * np.float32(of["g"]))
    plain = _run(made, h, w, g)
    _same({name: x * np.float32(2.0 ** (k * expected.scales[name])) for name, x in plain.items()}, other)


@each_class
@settings(max_examples=50)
@given(data=st.data())
def test_the_fast_path_lies_in_the_interval_of_the_oracle(made, data):
    """Random data and settings in the domain; β below ½ and 0 too, since the fast path never interpolates."""
    h, w, g = data.draw(runs(made, DOMAIN, most=5))
    if record_of(made).ranges.get("eps") == AT_LEAST_0 and data.draw(st.booleans()):
        h["eps"] = 0.0
    if h.get("weight_decay", 0) * h["learning_rate"] > 0.2:
        h["weight_decay"] = 0.2 / (2 * h["learning_rate"])
    optimizer, model = made(**h), {"w": w.copy()}
    exact = Exact()
    for entry, gradient in zip(trajectory(made, w, g, **h), g, strict=True):
        with np.errstate(all="ignore"):
            optimizer.update(model, {"w": gradient})
        for name, quantity in entry.quantities():
            got = model["w"] if name == "parameter" else optimizer.state["w"][name]
            known = np.isfinite(quantity.radius)
            inside = (quantity.low <= got) & (got <= quantity.high)
            assert inside[known].all(), (name, got, [exact.text(x) for x in quantity.exact])


def _one(made, w, g, dtype="float32", **h):
    """Follow one element over the steps: its values as Python floats."""
    optimizer, model, out = made(**h), {"w": np.array([w], dtype)}, []
    with np.errstate(all="ignore"):
        for gradient in g:
            optimizer.update(model, {"w": np.array([gradient], dtype)})
            out.append((float(model["w"][0]), *(float(optimizer.state["w"][slot][0]) for slot in made.slots)))
    return out


@pytest.mark.parametrize(("name", "h", "steps"), [(name, *given) for name in NAMES for given in EXPECTED[name].decays])
def test_decays_of_0_of_a_quarter_and_of_1_by_hand(name, h, steps):
    """From w = 1 with g = 2, then −4, λ = ½."""
    got = _one(getattr(optim, name), 1.0, [2.0, -4.0], learning_rate=0.5, **h)
    for values, wanted in zip(got, steps, strict=True):
        if wanted is not None:
            # Exact in binary; a quotient or a root is rounded, and so is the sum it stands in.
            assert values[1:] == pytest.approx(wanted[1:], rel=2.0**-23, abs=0)
            assert values[0] == pytest.approx(wanted[0], abs=2.0**-22)


LARGEST = 1.8446743e19
"""The largest float32 with a finite square; the next one is 2⁶⁴."""


@pytest.mark.parametrize("name", SQUARING)
def test_where_the_square_of_a_gradient_overflows_v_is_infinite_and_the_step_is_0_from_then_on(name):
    made = getattr(optim, name)
    below = _one(made, 1.0, [LARGEST], learning_rate=0.5)[0]
    slot = 1 + made.slots.index("v")
    assert np.isfinite(below[slot])
    h = {"weight_decay": 0.0} if EXPECTED[name].decay else {}
    assert np.nextafter(np.float32(LARGEST), np.float32(np.inf)) == 2.0**64
    beyond = _one(made, 1.0, [2.0**64, 1.0, -2.0], learning_rate=0.5, **h)
    assert [(values[0], values[slot]) for values in beyond] == [(1.0, np.inf)] * 3


@pytest.mark.parametrize("name", [name for name in NAMES if name not in SQUARING])
def test_those_that_do_not_square_go_on(name):
    values = _one(getattr(optim, name), 1.0, [1e30], learning_rate=0.5)[0]
    assert np.isfinite(values).all() and values[0] < 1.0


def test_where_the_square_underflows_the_gradient_counts_for_nothing_in_v():
    """Half the smallest subnormal is 2⁻¹⁵⁰: the square of 2⁻⁷⁵ rounds to 0, that of the next float does not."""
    edge = 2.0**-75
    after = float(np.nextafter(np.float32(edge), np.float32(1)))
    assert _one(optim.Adagrad, 0.0, [edge], learning_rate=1.0)[0][1] == 0.0
    assert _one(optim.Adagrad, 0.0, [after], learning_rate=1.0)[0][1] == 2.0**-149
    # With v = 0 the step is λg/ε.
    for made in (optim.RMSprop, optim.Adagrad):
        w, v = _one(made, 0.0, [edge], learning_rate=1.0, eps=2.0**-20)[0]
        assert (w, v) == (-(2.0**-55), 0.0)
    w, _, v = _one(optim.Adam, 0.0, [edge], learning_rate=1.0, betas=(0.5, 0.5), eps=2.0**-20)[0]
    assert (w, v) == (-(2.0**-56), 0.0)


@each_class
def test_float16_where_epsilon_rounds_to_0_a_zero_gradient_gives_0_over_0(made):
    lost = record_of(made).lost
    ((w, *_),) = _one(made, 0.5, [0.0], "float16", learning_rate=0.25)
    assert np.isnan(w) == lost
    if lost:
        ((w, *_),) = _one(made, 0.5, [0.0], "float16", learning_rate=0.25, eps=1e-3)
        assert np.isfinite(w)
        ((w, *_),) = _one(made, 0.5, [0.0], "float32", learning_rate=0.25)
        assert np.isfinite(w)


def test_bfloat16_where_a_decay_rounds_to_1_v_never_decays():
    bfloat16 = require("ml_dtypes").bfloat16
    for name, expected in EXPECTED.items():
        if expected.stuck:
            made, slot = getattr(optim, name), 1 + expected.slots.index("v")
            rows = [row[slot] for row in _one(made, 1.0, [4.0, *[0.0] * 50], bfloat16, learning_rate=0.0)]
            single = [row[slot] for row in _one(made, 1.0, [4.0, *[0.0] * 50], "float32", learning_rate=0.0)]
            assert len(set(rows)) == 1 and rows[0] > 0
            assert single[-1] < 0.96 * single[0]  # 0.999⁵⁰ is 0.951
    # A step below half an ulp of the parameter is lost, every time.
    assert _one(optim.SGD, 1.0, [1.0] * 20, bfloat16, learning_rate=1e-3)[-1][0] == 1.0
    assert _one(optim.SGD, 1.0, [1.0] * 20, "float32", learning_rate=1e-3)[-1][0] < 0.981


@settings(max_examples=50)
@given(data=st.data())
def test_without_momentum_there_is_no_buffer_and_no_dampening(data):
    h, w, g = data.draw(runs(optim.SGD))
    h |= {"momentum": 0.0, "nesterov": False}
    got = _run(optim.SGD, h, w, g)
    assert not got["v"].any()
    _same(got, _run(optim.SGD, {**h, "dampening": 0.0}, w, g))
    rate, kappa, expected = np.float32(h["learning_rate"]), np.float32(h["weight_decay"]), w.copy()
    with np.errstate(all="ignore"):
        for gradient in g:
            expected = expected - rate * (gradient + kappa * expected if kappa else gradient)
    _same({"w": got["w"]}, {"w": expected})


@settings(max_examples=50)
@given(data=st.data())
def test_sgd_with_momentum_and_a_rate_of_0_moves_the_buffer_alone(data):
    h, w, g = data.draw(runs(optim.SGD, MIDDLE))
    h |= {"learning_rate": 0.0, "momentum": 0.5, "dampening": 0.0, "weight_decay": 0.0}
    got = _run(optim.SGD, h, w, g)
    assert np.array_equal(got["w"], w)
    v = np.zeros_like(w)
    for gradient in g:
        v = np.float32(0.5) * v + gradient
    assert np.array_equal(got["v"], v)


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
def test_a_momentum_that_rounds_to_0_is_still_one(dtype):
    """The dampening counts and the buffer is kept, as in MLX and in the formula."""
    assert _one(optim.SGD, 0.0, [1.0, 1.0], dtype, learning_rate=1.0, momentum=1e-50, dampening=0.5) == [
        (-0.5, 0.5),
        (-1.0, 0.5),
    ]
