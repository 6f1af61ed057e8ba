"""Blocks and threads: every element is visited once, in views that are small enough, by as many threads as are set."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
import tracemalloc

import numpy as np
import pytest

import mlx_optimizers as optim
from mlx_optimizers.execution import threads as sharing
from mlx_optimizers.execution import tuning
from mlx_optimizers.execution.blocks import Blocks
from mlx_optimizers.execution.threads import share
from mlx_optimizers.execution.tuning import BLOCK, SHARE
from mlx_optimizers.interrupts import Stopped
from mlx_optimizers.settings import set_threads
from tests.expected import each_class, record_of

SHAPES = [(), (1,), (7,), (20,), (3, 4), (1, 30), (30, 1), (2, 3, 5), (5, 0, 3), (0,), (9, 1, 4), (2, 11)]


class Called:
    """Stands for a program; calls a function with the places."""

    def __init__(self, scratch, run):
        self.scratch = scratch
        self.run = lambda places: run(*places)


def run_blocks(arrays, scratch, run):
    """Call a function with every block of one parameter, its gradient and its slots, and scratch."""
    program = Called(scratch, run)
    blocks = Blocks([arrays[0], *arrays[2:]])
    blocks.run(arrays, {np.dtype(kind): ((), program) for kind in ("float32", "float16")})


@pytest.fixture(autouse=True)
def threads_found_anew(monkeypatch):
    monkeypatch.delenv("MLX_OPTIMIZERS_THREADS", raising=False)
    set_threads(None)
    yield
    set_threads(None)


def shapes_of(array):
    """List the shapes of the blocks of one parameter."""
    seen = []
    set_threads(1)  # in order
    run_blocks([[array], [array]], 0, lambda w, g: seen.append(w.shape))
    return seen


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("size", [1, 4, 10, 1000])
@pytest.mark.parametrize("order", ["C", "F", "strided"])
def test_every_element_is_visited_once_in_all_arrays_together(monkeypatch, shape, size, order):
    monkeypatch.setattr(tuning, "BLOCK", size)
    count = int(np.prod(shape))
    if order == "strided" and shape:
        x = np.zeros((*shape, 2), np.float32)[..., 0]
    else:
        x = np.zeros(shape, np.float32, order="C" if order == "strided" else order)
    slot = np.zeros(shape, np.float32)  # C-contiguous, next to one that may not be
    names = np.arange(count, dtype=np.float32).reshape(shape)
    seen = []

    def run(w, g, v, a, b):
        assert w.shape == g.shape == v.shape == a.shape == b.shape
        assert w.size <= size
        assert a.dtype == b.dtype == np.float32
        assert not np.shares_memory(a, b)
        w += 1
        v += g
        a[...] = b[...] = 3
        seen.extend(g.ravel().tolist())

    run_blocks([[x], [names], [slot]], 2, run)
    assert sorted(seen) == list(range(count))
    assert (x == 1).all() and np.array_equal(slot, names)


def test_contiguous_arrays_are_gone_through_flat_in_blocks_of_a_like_size():
    assert shapes_of(np.zeros((3, BLOCK, 2), np.float32)) == [(BLOCK,)] * 6
    assert shapes_of(np.zeros(BLOCK + 2, np.float32)) == [(BLOCK // 2 + 16,), (BLOCK // 2 - 14,)]


def test_others_are_cut_along_the_leading_dimensions():
    assert shapes_of(np.zeros((4, BLOCK // 2), np.float32, order="F")) == [(2, BLOCK // 2)] * 2
    assert (
        shapes_of(np.zeros((2, BLOCK + 3), np.float32, order="F")) == [(1, BLOCK // 2 + 16), (1, BLOCK // 2 - 13)] * 2
    )


def test_what_fits_into_a_block_stays_whole():
    assert shapes_of(np.zeros((), np.float32)) == [()]
    assert shapes_of(np.zeros((2, 3), np.float32)) == [(2, 3)]
    assert shapes_of(np.zeros((0, 3), np.float32)) == []


def test_scratch_is_no_larger_than_a_block_or_the_largest_array():
    seen = []

    def run(w, g, a):
        seen.append((a.base.nbytes, a.dtype))

    small, large = np.zeros(5, np.float32), np.zeros(3 * BLOCK, np.float16)
    run_blocks([[small], [small]], 1, run)
    run_blocks([[large], [large]], 1, run)
    assert set(seen) == {(4 * 5, np.dtype(np.float32)), (2 * BLOCK, np.dtype(np.float16))}


@each_class
@pytest.mark.parametrize("count", [1, 2])
def test_a_step_needs_no_memory_but_state_and_two_blocks_a_thread(made, count):
    set_threads(count)
    w, g = np.ones(6 * BLOCK + 7, np.float32), np.ones(6 * BLOCK + 7, np.float32)
    optimizer = made(0.1)
    made(0.1).update(w[:3].copy(), g[:3])  # imports of a first step are not counted
    tracemalloc.start()
    try:
        for _ in range(3):
            optimizer.update(w, g)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    objects = 65536  # Python's own, of plan and threads: the size of the smallest block there is
    assert peak <= len(made.slots) * w.nbytes + count * 2 * 4 * BLOCK + objects


# Threads


def run_by(count, parts=40):
    """List the threads that take part in running some parts, each of which waits until all have begun."""
    seen, numbers, all_there = set(), set(), threading.Barrier(count)

    def run(thread, part):
        name = threading.current_thread().name
        numbers.add((thread, name))
        if name not in seen:
            seen.add(name)
            all_there.wait(timeout=30)

    share(parts, run, count)
    assert sorted(thread for thread, _ in numbers) == list(range(count))
    return seen


@pytest.mark.parametrize("count", [1, 2, 5])
def test_as_many_threads_take_part_as_are_asked_for_and_the_callers_is_one(count):
    names = run_by(count)
    assert len(names) == count and threading.current_thread().name in names


def test_no_more_threads_are_asked_for_than_there_are_parts():
    seen = set()
    share(1, lambda thread, part: seen.add(threading.current_thread().name), 8)
    assert seen == {threading.current_thread().name}


def test_threads_are_used_again_and_their_number_stays(monkeypatch):
    monkeypatch.setattr(sharing, "_workers", [])
    before = threading.active_count()
    for _ in range(300):
        share(3, lambda thread, part: None, 3)
    assert threading.active_count() == before + 2
    share(9, lambda thread, part: time.sleep(0.01), 5)
    assert threading.active_count() == before + 4


@pytest.mark.skipif(not hasattr(os, "sched_getaffinity"), reason="the system keeps no thread to a core")
def test_a_worker_may_run_everywhere_but_on_the_callers_core():
    allowed, seen, both = os.sched_getaffinity(0), {}, threading.Barrier(2)

    def run(thread, part):
        both.wait(timeout=30)
        seen[thread] = os.sched_getaffinity(0)

    share(2, run, 2)
    assert seen[0] == allowed
    assert len(allowed) - len(seen[1]) == (len(allowed) > 1) and seen[1] <= allowed


def test_a_thread_begins_with_a_stretch_of_its_own_and_then_helps():
    """The second thread waits at its first part until the first has done all others."""
    taken, first = {0: [], 1: []}, threading.Event()

    def run(thread, part):
        taken[thread].append(part)
        if thread == 1:
            assert first.wait(timeout=30)
        elif sum(map(len, taken.values())) == 8 and taken[1]:
            first.set()
        elif not taken[1]:
            time.sleep(0.001)

    for _ in range(20):  # until the second has begun before the first is done
        taken, first = {0: [], 1: []}, threading.Event()
        share(8, run, 2)
        if taken[1]:
            break
    assert taken == {0: [0, 1, 2, 3, 5, 6, 7], 1: [4]}


def test_what_no_thread_has_begun_is_done_by_the_one_that_asks(monkeypatch):
    monkeypatch.setattr(sharing, "_started", lambda count: [])
    done = []
    share(8, lambda thread, part: done.append((thread, part)), 3)
    assert sorted(done) == [(0, part) for part in range(8)]


def test_every_part_is_run_once():
    done = []
    share(10_000, lambda thread, part: done.append(part), 7)
    assert sorted(done) == list(range(10_000))


@pytest.mark.parametrize("count", [1, 4])
def test_after_an_exception_no_part_is_begun_and_each_is_accounted_for(count):
    done = []

    def run(thread, part):
        if part == 3:
            raise ArithmeticError("three")
        time.sleep(0.001)
        done.append(part)

    with pytest.raises(Stopped) as caught:
        share(500, run, count)
    cause = caught.value.__cause__
    assert isinstance(cause, ArithmeticError) and str(cause) == "three"
    assert caught.value.begun & caught.value.left == {3}
    assert sorted([*done, *caught.value.left]) == list(range(500))
    assert len(done) < 499


@pytest.mark.parametrize("count", [1, 2])
def test_what_ends_a_program_is_the_cause_too(count):
    def run(thread, part):
        raise KeyboardInterrupt

    with pytest.raises(Stopped) as caught:
        share(3, run, count)
    assert isinstance(caught.value.__cause__, KeyboardInterrupt)
    assert caught.value.left == {0, 1, 2}


def test_an_interrupt_while_others_work_waits_for_them():
    """The caller has done its part and waits when it is interrupted: nobody writes any more when it goes on."""
    begun, done, main = threading.Event(), [], threading.current_thread()
    usual = signal.signal(signal.SIGINT, signal.default_int_handler)

    def run(thread, part):
        if threading.current_thread() is main:
            begun.wait(timeout=30)
            return
        begun.set()
        for _ in range(2):  # the second finds it waiting once more
            time.sleep(0.1)
            signal.pthread_kill(main.ident, signal.SIGINT)
        time.sleep(0.1)
        done.append(part)

    try:
        with pytest.raises(Stopped) as caught:
            share(2, run, 2)
    finally:
        signal.signal(signal.SIGINT, usual)
    assert isinstance(caught.value.__cause__, KeyboardInterrupt)
    assert len(done) == 1
    assert (caught.value.begun, caught.value.left) == ({0, 1}, set())


def test_error_handling_of_numpy_is_the_callers_on_every_thread():
    seen = []
    with np.errstate(over="call"):
        share(200, lambda thread, part: (seen.append(np.geterr()["over"]), time.sleep(1e-4)), 3)
    assert seen == ["call"] * 200


def several(made, seed=0):
    """Make a tree that is large enough to be shared out, with a transposed and a small array, and a gradient."""
    rng = np.random.default_rng(seed)
    shapes = {"large": (5 * SHARE + 11,), "matrix": (600, 700), "small": (3,)}
    tree = {name: rng.standard_normal(shape).astype(np.float32) for name, shape in shapes.items()}
    return {**tree, "turned": np.asfortranarray(tree["matrix"])}


@each_class
def test_no_number_of_threads_and_no_size_of_blocks_changes_a_bit(made, monkeypatch):
    extra = record_of(made).full
    results = []
    for count, size in ((1, BLOCK), (2, BLOCK), (3, 70_000), (8, 65_536), (1, 10**9)):
        monkeypatch.setattr(tuning, "BLOCK", size)
        set_threads(count)
        model, optimizer = several(made), made(0.1, **extra)
        for seed in (1, 2):
            optimizer.update(model, several(made, seed))
        results.append({path: [w, *optimizer.state[path].values()] for path, w in model.items()})
    for other in results[1:]:
        for path, arrays in results[0].items():
            for left, right in zip(arrays, other[path], strict=True):
                assert np.array_equal(left.view(np.uint32), right.view(np.uint32)), path


def test_parts_are_handed_out_once_wherever_threads_are_switched():
    """The nearest there is to an interpreter without its lock: a switch after every few instructions."""
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        for _ in range(20):
            done = []
            share(2000, lambda thread, part, done=done: done.append(part), 6)
            assert sorted(done) == list(range(2000))
    finally:
        sys.setswitchinterval(interval)


def test_an_exception_on_another_thread_says_what_had_moved():
    set_threads(4)
    model = {"a": np.ones(2 * SHARE, np.float32), "b": np.ones(2 * SHARE, np.float32)}
    gradient = {name: np.ones_like(w) for name, w in model.items()}
    gradient["a"][5] = 2e38
    optimizer = optim.RMSprop(0.1)
    with np.errstate(over="raise"), pytest.raises(RuntimeError, match=r"the step failed at a.*FloatingPointError"):
        optimizer.update(model, gradient)
    assert int(optimizer.step) == 0


FORK = """
import multiprocessing
import threading

import numpy as np

import mlx_optimizers as optim
from mlx_optimizers.execution import tuning
from mlx_optimizers.settings import set_threads

def step():
    parameter = np.zeros(8 * tuning.SHARE, np.float32)
    optim.Adam(0.1).update(parameter, np.ones_like(parameter))
    return float(parameter[-1]), threading.active_count()

set_threads(3)
here = step()  # the threads of the parent run
context = multiprocessing.get_context("fork")
queue = context.SimpleQueue()
process = context.Process(target=lambda: queue.put(step()))
process.start()
process.join(timeout=60)
print(process.exitcode, here == queue.get(), here[1] > 1)
"""
"""In a process of its own, as other libraries that the tests have imported may not be forked."""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="the system has no fork")
def test_a_forked_child_has_threads_of_its_own():
    run = subprocess.run([sys.executable, "-c", FORK], capture_output=True, text=True, check=True, timeout=120)
    assert run.stdout == "0 True True\n"


def test_a_step_while_the_interpreter_ends_is_done_by_the_thread_that_asks():
    program = f"""
import atexit, numpy as np, mlx_optimizers as optim
from mlx_optimizers.settings import set_threads
set_threads(2)
w = np.zeros({4 * SHARE}, np.float32)
def late():
    optim.SGD(1.0).update(w, np.ones_like(w))
    print(w.min(), w.max())
atexit.register(late)
"""
    run = subprocess.run([sys.executable, "-W", "error", "-c", program], capture_output=True, text=True, check=False)
    assert (run.stdout, run.stderr) == ("-1.0 -1.0\n", "")
