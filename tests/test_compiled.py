"""The compiled path gives the bits of NumPy's, is used by itself where numba is, and is never in the way.

Both paths run one rule, so that these tests see the executors and not the rule. At the end of the first part the tests
of the rule, whose values are independent of it, run on the compiled path.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import mlx_optimizers as optim
from mlx_optimizers.conformance.vectors import vectors_of
from mlx_optimizers.elementwise import Elementwise
from mlx_optimizers.execution import blocks, compiled, tuning
from mlx_optimizers.execution.tuning import LEAST
from mlx_optimizers.settings import set_compiled, set_threads
from tests.expected import ABOVE_0, AT_LEAST_0, FLAG, PAIR_BELOW_1, UP_TO_1, each_class, record_of
from tests.support import require

require("numba")

ROOT = Path(__file__).parents[1]


@pytest.fixture(autouse=True)
def by_itself(monkeypatch):
    monkeypatch.delenv("MLX_OPTIMIZERS_COMPILED", raising=False)
    set_compiled(None)
    yield
    set_compiled(None)
    set_threads(None)


@pytest.fixture
def loops(monkeypatch):
    """List the rules that ran as loops."""
    ran, real = [], blocks.Blocks.run

    def run(self, *given):
        ran.extend([self._loop.__name__] if self._looped else [])
        return real(self, *given)

    monkeypatch.setattr(blocks.Blocks, "run", run)
    return ran


def same_bits(left, right):
    """Compare bits, and NaN with NaN: IEEE 754 leaves its payload and sign to the processor."""
    left, right = (np.asarray(array) for array in (left, right))
    bits = np.dtype(f"u{left.dtype.itemsize}")
    return left.dtype == right.dtype and bool(
        ((left.view(bits) == right.view(bits)) | (np.isnan(left) & np.isnan(right))).all()
    )


def run(made, hyperparameters, w, gradients, on):
    """Run one path: the parameter and the slots after every step."""
    set_compiled(on)
    optimizer, model = made(**hyperparameters), w.copy()
    out = []
    with np.errstate(all="ignore"):
        for gradient in gradients:
            optimizer.update(model, gradient)
            out += [model.copy(), *(np.array(optimizer.state[slot]) for slot in made.slots)]
    return out


@each_class
def test_every_published_vector_gives_the_same_bits(made, loops):
    count = 0
    for vector in vectors_of(made.__name__):
        if vector.form.name not in compiled.DTYPES:
            continue
        count += 1
        with np.errstate(over="ignore", under="ignore"):
            w, gradients = (x.astype(vector.form.name) for x in (vector.parameter, vector.gradients))
        rates = np.broadcast_to(vector.hyperparameters["learning_rate"], len(gradients)).tolist()
        given = {**vector.hyperparameters, "learning_rate": lambda step, rates=rates: rates[min(step, len(rates) - 1)]}
        both = [run(made, given, w, gradients, on) for on in (False, True)]
        assert all(map(same_bits, *both)), vector.id
    assert count > 20
    assert set(loops) == {f"{made.__name__}.rule"}


def every_exponent(dtype, seed, size):
    """Draw numbers of every exponent, subnormals, both zeros, infinities and NaN among them."""
    rng = np.random.default_rng(seed)
    bits = rng.integers(0, 2 ** (8 * dtype.itemsize), size, dtype=f"u{dtype.itemsize}", endpoint=False)
    out = bits.view(dtype)
    out[:8] = [0.0, -0.0, np.inf, -np.inf, np.nan, 1.0, np.finfo(dtype).smallest_subnormal, np.finfo(dtype).max]
    return rng.permutation(out)


@each_class
@pytest.mark.parametrize("dtype", compiled.DTYPES)
@pytest.mark.filterwarnings("ignore:overflow encountered in cast")
def test_numbers_of_every_exponent_give_the_same_bits(made, dtype, loops):
    dtype = np.dtype(dtype)
    for number, extra in enumerate(record_of(made).settings):
        for middle in (False, True):
            w, *gradients = (every_exponent(dtype, 10 * number + step, 20_011) for step in range(4))
            if middle:  # near 1, so that every operation rounds and nothing overflows
                rng = np.random.default_rng(number)
                w, *gradients = rng.standard_normal((4, 20_011)).astype(dtype)
            both = [run(made, {"learning_rate": 0.1, **extra}, w, gradients, on) for on in (False, True)]
            assert all(map(same_bits, *both)), (extra, middle)
    assert set(loops) == {f"{made.__name__}.rule"}


HARD = [0.0, 1e-320, 1e-60, 1e-45, 1e-30, 1e-8, 0.1, 0.3, 0.5, 0.9, 1 - 1e-12]
"""Coefficients: subnormals, and numbers that float32 rounds to 0 or to 1."""
COEFFICIENT = st.sampled_from(HARD)
HARD_VALUES = {
    AT_LEAST_0: st.sampled_from([*HARD, 1.0, 1e30, 1e38, 1e300]),
    ABOVE_0: st.sampled_from([*HARD[1:], 1.0, 1e30, 1e300]),
    UP_TO_1: st.sampled_from([*HARD, 1.0]),
    PAIR_BELOW_1: st.tuples(COEFFICIENT, COEFFICIENT),
    FLAG: st.booleans(),
}


def hard_numbers(dtype, seed, size):
    """Draw few different ones, so that they meet: both zeros and infinities, NaN, the ends of the range, its middle."""
    info = np.finfo(dtype)
    ends = [0, 1, 0.1, 3, np.inf, np.nan, info.max, info.max / 2, info.tiny, info.smallest_subnormal, info.eps]
    pool = np.array([*ends, info.tiny - info.smallest_subnormal, np.sqrt(info.max), np.sqrt(info.tiny)], dtype)
    rng = np.random.default_rng(seed)
    return np.copysign(rng.choice(pool, size), rng.choice([-1, 1], size)).astype(dtype)


@each_class
@pytest.mark.parametrize("dtype", compiled.DTYPES)
@pytest.mark.filterwarnings("ignore:overflow encountered in cast")
@settings(max_examples=60)
@given(st.data())
def test_hard_numbers_give_the_same_bits(made, dtype, data):
    """Under coefficients that are as hard, from a state of any numbers, with and without a rest of the vector width."""
    dtype = np.dtype(dtype)
    expected = record_of(made)
    drawn = st.fixed_dictionaries({name: HARD_VALUES[kind] for name, kind in expected.ranges.items()})
    chosen = data.draw(drawn.map(expected.allowed), "hyperparameters")
    size, seed = data.draw(st.integers(1, 70), "size"), data.draw(st.integers(0, 10**6), "seed")
    w, *gradients = (hard_numbers(dtype, (seed, step), size) for step in range(4))
    both = []
    for on in (False, True):
        set_compiled(on)
        optimizer, model = made(**chosen), w.copy()
        state = {slot: hard_numbers(dtype, (seed, 9, number), size) for number, slot in enumerate(made.slots)}
        optimizer.state = state
        out = []
        with np.errstate(all="ignore"):
            for gradient in gradients:
                optimizer.update(model, gradient)
                out += [model.copy(), *(np.array(optimizer.state[slot]) for slot in made.slots)]
        both.append(out)
    assert all(map(same_bits, *both))


def test_the_tests_of_the_fast_path_pass_on_the_compiled_one():
    """Those that compare with MLX, with the oracle and with themselves: layouts, splits, symmetries, inputs, plans."""
    names = ["properties", "mlx_bitwise", "plan", "inputs", "optimizer", "wrong_steps"]
    files = [f"tests/test_{name}.py" for name in names]
    environment = {**os.environ, "MLX_OPTIMIZERS_COMPILED": "1"}
    # The command's words on a wrong step depend on the step's numbers, and another test there looks at those.
    command = [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", "-n", "0", *files]
    command += ["-k", "not the_command_says_so"]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-2000:]


# When it is used


@pytest.mark.parametrize(("size", "used"), [(LEAST - 1, False), (LEAST, True)])
def test_it_is_used_by_itself_for_trees_that_are_not_small(size, used, loops):
    optim.Adam(0.1).update({"w": np.zeros(size, np.float32)}, {"w": np.ones(size, np.float32)})
    assert loops == ["Adam.rule"] * used


@pytest.mark.parametrize(("text", "size", "used"), [("0", 2 * LEAST, False), ("1", 5, True), ("", 2 * LEAST, True)])
def test_an_environment_variable_turns_it_off_and_on(text, size, used, loops, monkeypatch):
    monkeypatch.setenv("MLX_OPTIMIZERS_COMPILED", text)
    optim.Lion(0.1).update(np.zeros(size, np.float32), np.ones(size, np.float32))
    assert loops == ["Lion.rule"] * used


@pytest.mark.parametrize(("on", "size", "used"), [(False, 2 * LEAST, False), (True, 5, True), (None, 5, False)])
def test_so_does_the_argument_which_counts_before_the_variable(on, size, used, loops, monkeypatch):
    if on is not None:
        monkeypatch.setenv("MLX_OPTIMIZERS_COMPILED", str(int(not on)))
    set_compiled(on)
    optim.SGD(0.1).update(np.zeros(size, np.float32), np.ones(size, np.float32))
    assert loops == ["SGD.rule"] * used


def test_another_value_of_the_variable_is_refused(monkeypatch):
    monkeypatch.setenv("MLX_OPTIMIZERS_COMPILED", "yes")
    optimizer, w = optim.SGD(0.1), np.zeros(3, np.float32)
    with pytest.raises(ValueError, match="MLX_OPTIMIZERS_COMPILED must be 0 or 1, not 'yes'"):
        optimizer.update(w, np.ones(3, np.float32))
    assert int(optimizer.step) == 0 and not w.any()


def test_a_choice_made_between_two_steps_counts(loops):
    optimizer, w, g = optim.Adagrad(0.1), np.zeros(LEAST, np.float32), np.ones(LEAST, np.float32)
    for on in (None, False, True):
        set_compiled(on)
        optimizer.update(w, g)
    assert loops == ["Adagrad.rule"] * 2


def test_what_it_cannot_compute_numpy_does_in_the_same_step(loops):
    def tree(seed):
        rng = np.random.default_rng(seed)
        numbers = rng.standard_normal((4, 60, 70))
        return {
            "single": np.float32(numbers[0]),
            "double": numbers[1],
            "half": np.float16(numbers[2]),
            "big": numbers[1].astype(">f4"),
            "little": numbers[2].astype("<f4"),
            "turned": np.asfortranarray(np.float32(numbers[3])),
            "empty": np.zeros((0, 3), np.float32),
        }

    results = []
    for on in (True, False):
        set_compiled(on)
        model, optimizer = tree(0), optim.AdaDelta(0.1)
        optimizer.update(model, tree(1))
        optimizer.update(model, tree(2))
        results.append([array for name, w in model.items() for array in (w, *optimizer.state[name].values())])
    assert all(map(same_bits, *results))
    assert loops == ["AdaDelta.rule"] * 2


@pytest.mark.parametrize("count", [1, 2, 5])
def test_no_number_of_threads_changes_a_bit(count):
    size = 3 * tuning.SHARE_COMPILED + 17
    results = []
    for threads in (1, count):
        set_threads(threads)
        w, g = np.linspace(-1, 1, size, dtype=np.float32), np.linspace(3, -2, size, dtype=np.float32)
        optim.Adam(0.1).update([w, w[:5].copy()], [g, g[:5].copy()])
        results.append(w)
    assert same_bits(*results)


@pytest.mark.parametrize("dtype", compiled.DTYPES)
def test_wherever_an_array_begins_each_element_is_computed_once(dtype, monkeypatch, loops):
    """Rows are cut where lines of the cache begin: at other elements for each place in a line."""
    monkeypatch.setattr(tuning, "ROW", 32)
    item = np.dtype(dtype).itemsize
    for start in range(0, tuning.LINE, item):
        for size in (1, 15, 16, 17, 64, 101):
            room = np.zeros(size + 2 * tuning.LINE, dtype)
            first = -room.ctypes.data % tuning.LINE // item + start // item
            w = room[first : first + size]
            set_compiled(True)
            optim.SGD(1.0).update(w, np.arange(1, size + 1).astype(dtype))
            assert w.tolist() == [-float(n) for n in range(1, size + 1)]
            assert np.count_nonzero(room) == size
    assert {*loops} == {"SGD.rule"}


def test_where_numpy_is_to_raise_numpy_computes(loops):
    optimizer, w = optim.RMSprop(0.1), np.zeros(LEAST, np.float32)
    with np.errstate(over="raise"), pytest.raises(RuntimeError, match="FloatingPointError"):
        optimizer.update(w, np.full(LEAST, 3e38, np.float32))
    assert loops == []


def test_a_subclass_with_a_rule_of_its_own_has_a_loop_of_its_own(loops):
    class Half(optim.SGD):
        @staticmethod
        def rule(c, w, g, v):
            return w - w * c[0], g

    class Slower(optim.SGD):
        """Only the coefficients differ."""

        def coefficients(self, real):
            rate, *rest = super().coefficients(real)
            return rate / 2, *rest

    for on in (None, False):
        set_compiled(on)
        w, optimizer = np.ones(LEAST, np.float32), Half(0.5)
        optimizer.update(w, np.full(LEAST, 3, np.float32))
        assert w[-1] == 0.5 and optimizer.state["v"][-1] == 3
    set_compiled(None)
    w = np.ones(LEAST, np.float32)
    Slower(0.5).update(w, np.ones(LEAST, np.float32))
    assert w[-1] == 0.75
    assert [name.rpartition(".")[0].rpartition(".")[2] for name in loops] == ["Half", "SGD"]


HALF = 0.5


def helped(x):
    return x * x


@pytest.mark.parametrize(
    "rule",
    [
        lambda c, w, g: (w - np.tanh(g) * c[0],),  # its bits may differ from NumPy's
        lambda c, w, g: (w - helped(g) * c[0],),
        lambda c, w, g: (w - max([g]) * c[0],),
    ],
    ids=["function", "helper", "builtin"],
)
def test_a_rule_that_numba_may_compute_otherwise_is_numpys(rule, loops):
    class Own(Elementwise):
        def __init__(self, learning_rate):
            super().__init__()
            self.learning_rate = learning_rate

        def coefficients(self, real):
            return (real(self.learning_rate),)

    Own.rule = staticmethod(rule)
    w, g = np.ones(LEAST, np.float32), np.full(LEAST, 0.5, np.float32)
    Own(0.5).update(w, g)
    assert loops == [] and np.array_equal(w, rule((np.float32(0.5),), np.ones(LEAST, np.float32), g)[0])


# When it cannot be


@pytest.fixture
def broken(monkeypatch):
    from mlx_optimizers.execution import loops

    real = loops.loop_of

    def loop_of(rule, slots):
        if rule is optim.SGD.rule:
            raise RuntimeError("no locator available\nfor this file")
        return real(rule, slots)

    monkeypatch.setattr(loops, "loop_of", loop_of)
    monkeypatch.setattr(compiled, "_loops", {})


def test_when_it_cannot_compile_numpy_computes_and_one_warning_says_so(broken):
    w, g = np.zeros(LEAST, np.float32), np.ones(LEAST, np.float32)
    words = r"numba cannot compile SGD\.rule, NumPy computes instead \(RuntimeError: no locator available\)$"
    with pytest.warns(RuntimeWarning, match=words):
        optim.SGD(0.5).update(w, g)
    optim.SGD(0.5).update(w, g)  # another warning were an error
    assert (w == -1).all()


def test_what_cannot_be_compiled_concerns_one_optimizer(broken, loops):
    w, g = np.zeros(LEAST, np.float32), np.ones(LEAST, np.float32)
    with pytest.warns(RuntimeWarning, match="cannot compile SGD"):
        optim.SGD(0.5).update(w, g)
    optim.Adam(0.5).update(w, g)
    assert loops == ["Adam.rule"]


def test_without_numba_numpy_computes_without_a_word(monkeypatch):
    monkeypatch.setattr("mlx_optimizers.settings.has_numba", lambda: False)
    w = np.zeros(LEAST, np.float32)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        optim.SGD(0.5).update(w, np.ones(LEAST, np.float32))
    assert (w == -0.5).all()
    with pytest.raises(ImportError, match="numba"):
        set_compiled(True)


# When it is compiled


PROGRAM = """
import json, sys
import numpy as np
import mlx_optimizers as optim
before = [name for name in ("numba", "mlx_optimizers.execution.loops") if name in sys.modules]
optim.Lion(0.1).update(np.zeros(9000, np.float32), np.ones(9000, np.float32))
from mlx_optimizers.execution.compiled import _loops
(loop,) = _loops.values()
print(json.dumps([before, sum(loop.stats.cache_hits.values()), sum(loop.stats.cache_misses.values())]))
"""


def test_it_is_compiled_once_for_all_processes_and_never_at_import(tmp_path):
    environment = {**os.environ, "NUMBA_CACHE_DIR": str(tmp_path)}
    runs = [
        subprocess.run([sys.executable, "-c", PROGRAM], env=environment, capture_output=True, text=True, check=True)
        for _ in range(2)
    ]
    assert [json.loads(run.stdout) for run in runs] == [[[], 0, 1], [[], 1, 0]]
