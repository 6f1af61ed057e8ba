"""An update that is interrupted anywhere finishes first, or says what has moved."""

import gc
import os
import signal
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest

import mlx_optimizers as optim
from mlx_optimizers import interrupts, settings
from mlx_optimizers.execution import tuning
from mlx_optimizers.interrupts import Held


@pytest.fixture(autouse=True)
def usual_handler():
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


PACKAGE = str(Path(optim.__file__).parent)


class Ended(BaseException):
    """A signal's handler of somebody's own may raise this, or another thread."""


class InPlace(optim.Optimizer):
    """A rule written as those of this package, without blocks."""

    slots = ("v",)

    def __init__(self):
        super().__init__()
        self.learning_rate = 1

    def apply_single(self, gradient, parameter, state):
        state["v"] += gradient
        parameter -= gradient
        return parameter


class New(InPlace):
    """A rule that returns a new array, as one for MLX does."""

    def apply_single(self, gradient, parameter, state):
        state["v"] = state["v"] + gradient
        return parameter - gradient


def tree(size=4, convert=np.asarray):
    wide = np.zeros((2, size), np.float32)
    return {"a": convert(wide[0].copy()), "b": [convert(wide) if convert is not np.asarray else wide[:, ::-1]]}


def leaves(model):
    return {"a": np.array(model["a"]), "b.0": np.array(model["b"][0])}


def interrupt():
    signal.raise_signal(signal.SIGINT)


def at_event(number, fire, function, *arguments):
    """Call a function, and ``fire`` where Python handles signals: where a function begins, or a built-in one has ended.

    Tell whether it came to so many such places in the package.
    """
    events = iter(range(number))
    fired = False

    def profile(frame, event, argument):
        nonlocal fired
        if event not in ("call", "c_return") or not frame.f_code.co_filename.startswith(PACKAGE):
            return
        if not fired and next(events, None) is None:
            fired = True
            fire()

    before = sys.getprofile()
    sys.setprofile(profile)
    try:
        function(*arguments)
    finally:
        sys.setprofile(before)
    return fired


def sgd():
    return optim.SGD(1.0, momentum=0.5)


def two():
    return optim.MultiOptimizer([sgd(), InPlace()], [lambda path, gradient: path == "a"])


def count_of(optimizer):
    """The number of updates done, which is the same for each of several optimizers."""
    (count,) = {int(part.step) for part in getattr(optimizer, "optimizers", [optimizer])}
    return count


PATHS = {
    "plan": (sgd, {}),
    "first": (sgd, {"first": True}),
    "compiled": (sgd, {"compiled": True, "size": 100}),
    "threads": (sgd, {"threads": 3, "size": 50}),
    "compiled threads": (sgd, {"threads": 3, "size": 50, "compiled": True}),
    "in place": (InPlace, {}),
    "new arrays": (New, {}),
    "mlx": (sgd, {"mlx": True}),
    "two optimizers": (two, {}),
    "two optimizers, mlx": (two, {"mlx": True}),
}


@pytest.fixture(params=PATHS)
def made(request, monkeypatch):
    """Return a function that makes an optimizer, a model and its gradients; all numbers are whole."""
    rule, how = PATHS[request.param]
    convert = pytest.importorskip("mlx.core").array if "mlx" in how else np.asarray
    if "compiled" in how:
        pytest.importorskip("numba")
        monkeypatch.setattr(settings, "_compiled", True)
        monkeypatch.setattr(tuning, "ROW", 32)
        monkeypatch.setattr(tuning, "SHARE_COMPILED", 32)
    else:
        monkeypatch.setattr(settings, "_compiled", False)
    if "threads" in how:
        monkeypatch.setattr(settings, "_threads", how["threads"])
        for name, value in {"BLOCK": 16, "SHARE": 16, "THREADED": 1}.items():
            monkeypatch.setattr(tuning, name, value)

    def make():
        optimizer, model = rule(), tree(how.get("size", 4), convert)
        gradients = {key: convert(np.ones(leaf.shape, np.float32)) for key, leaf in leaves(model).items()}
        gradients = {"a": gradients["a"], "b": [gradients["b.0"]]}
        if "first" not in how:
            optimizer.update(model, gradients)
        return optimizer, model, gradients

    return make


def test_ctrl_c_anywhere_finds_whole_steps(made):
    optimizer, model, gradients = made()
    finished = 0
    for number in range(10_000):
        before, count = leaves(model), count_of(optimizer)
        try:
            fired = at_event(number, interrupt, optimizer.update, model, gradients)
        except KeyboardInterrupt:
            fired = True
        else:
            assert not fired
        moved = {bool((leaf != before[name]).all()) for name, leaf in leaves(model).items()}
        assert {bool((leaf != before[name]).any()) for name, leaf in leaves(model).items()} == moved
        assert moved == {count_of(optimizer) > count}
        finished += count_of(optimizer) - count
        if not fired:
            break
        optimizer, model, gradients = made()
    assert finished > 0.9 * number  # it raises before the step only in the first calls
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("error", [Ended, TimeoutError])
def test_any_other_end_says_what_has_moved(made, error):
    told = 0

    def fire():
        raise error("now")

    for number in range(10_000):
        optimizer, model, gradients = made()
        before, count, cause = leaves(model), count_of(optimizer), None
        try:
            fired = at_event(number, fire, optimizer.update, model, gradients)
        except BaseException as caught:
            fired = True
            kind, cause = type(caught), type(caught.__cause__)
            text = " ".join([str(caught), *getattr(caught, "__notes__", [])])
        else:
            kind = error
            text = "which Python ignored, at the end of a generator"
            assert count_of(optimizer) == count + 1
            if not fired:
                break
        assert kind is (RuntimeError if cause is error else error), number
        with pytest.raises(KeyboardInterrupt):
            interrupt()
        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler, number
        moved = {name for name, leaf in leaves(model).items() if (leaf != before[name]).any()}
        if count_of(optimizer) > count:
            assert len(moved) == 2 or "the model may not have its new parameters" in text, number
            continue
        told += bool(moved)
        still = text.rpartition("not moved: ")[2].split(", ") if "not moved: " in text else []
        assert not moved.intersection(still), number
        if "any parameter" not in text:
            assert all(name in text for name in moved), (number, text)
    assert told or "mlx" in str(type(model["a"])) or type(optimizer) is New  # nothing is called between two new arrays
    assert number > 20


@pytest.mark.parametrize("path", ["compiled", "plan"])
def test_many_interrupts_from_outside(path, monkeypatch):
    if path == "compiled":
        pytest.importorskip("numba")
    monkeypatch.setattr(settings, "_compiled", path == "compiled")
    model = {str(number): np.zeros(200, np.float32) for number in range(40)}
    gradients = {key: np.ones(200, np.float32) for key in model}
    optimizer = optim.SGD(1.0)
    optimizer.update(model, gradients)
    ended, allowed = threading.Event(), threading.Event()

    def fire():
        pause = np.random.default_rng(0)
        while not ended.is_set():
            time.sleep(pause.uniform(2e-4, 2e-3))
            if allowed.is_set():
                allowed.clear()
                os.kill(os.getpid(), signal.SIGINT)

    thread, interval = threading.Thread(target=fire), sys.getswitchinterval()
    thread.start()
    sys.setswitchinterval(1e-5)  # else the loops, which give up the lock for an instant, keep it for long

    def train():
        allowed.set()
        while True:
            optimizer.update(model, gradients)

    try:
        for _ in range(100):
            with pytest.raises(KeyboardInterrupt):
                train()
            assert {float(value) for w in model.values() for value in (w[0], w[-1])} == {-float(optimizer.step)}
    finally:
        sys.setswitchinterval(interval)
        ended.set()
        thread.join()


def test_a_rule_that_fails_is_named_though_those_before_it_gave_new_arrays():
    class Mixed(InPlace):
        def apply_single(self, gradient, parameter, state):
            if parameter[0] == 2:
                raise Ended("here")
            return super().apply_single(gradient, parameter, state) if parameter[0] else parameter - gradient

    model = {name: np.float32([number]) for number, name in enumerate("abcd")}
    with pytest.raises(Ended) as caught:
        Mixed().update(model, {name: np.float32([1]) for name in model})
    assert caught.value.__notes__ == [
        "the step was interrupted at c, which may have moved in part; moved: b; not moved: a, d"
    ]
    assert [float(w[0]) for w in model.values()] == [0, 0, 2, 3]


def test_new_parameters_that_an_interrupt_loses_are_told():
    optimizer, parameter = optim.SGD(1.0), np.float32([1, 2])

    signal.signal(signal.SIGINT, signal.SIG_IGN)
    optimizer.learning_rate = lambda count: signal.raise_signal(signal.SIGINT) or 1.0
    signal.signal(signal.SIGINT, signal.default_int_handler)
    with pytest.raises(KeyboardInterrupt) as caught:
        optimizer.apply_gradients(np.float32([1, 1]), parameter)
    assert caught.value.__notes__ == ["step 1 is done in the state; its new parameters are lost"]
    assert int(optimizer.step) == 1 and parameter.tolist() == [1, 2]


def test_a_model_that_refuses_its_new_parameters_is_told():
    mx = pytest.importorskip("mlx.core")

    class Model(dict):
        def update(self, parameters):
            raise OSError("no")

    optimizer = optim.SGD(1.0)
    with pytest.raises(OSError, match="no") as caught:
        optimizer.update(Model(w=mx.array([1.0])), {"w": mx.array([1.0])})
    assert caught.value.__notes__ == ["step 1 is done in the state; the model may not have its new parameters"]


@pytest.fixture
def only_new_objects():
    """The garbage collector looks only at what the test makes, and so not at all that earlier tests have loaded."""
    gc.collect()
    gc.freeze()
    yield
    gc.unfreeze()


@pytest.mark.usefixtures("only_new_objects")
def test_an_exception_that_is_kept_undoes_nothing_later():
    optimizer, w, g = optim.SGD(1.0), np.float32([0]), np.float32([1])
    kept = []

    def fire():
        raise Ended("now")

    for number in range(1000):
        w[...], count = 0, int(optimizer.step)
        try:
            if not at_event(number, fire, optimizer.update, w, g):
                break
        except Ended as caught:
            kept.append(caught)
        assert -w[0] == optimizer.step - count or kept[0].__notes__
        count = int(optimizer.step)
        optimizer.update(w, g)
        while kept:
            kept.pop()
        gc.collect()
        assert int(optimizer.step) == count + 1
    assert number > 10


# Holding the signal back


def test_a_second_interrupt_is_not_held_for_long(monkeypatch):
    monkeypatch.setattr(interrupts, "PATIENCE", 0.05)
    reached = []

    def work():
        with Held():
            interrupt()
            interrupt()
            reached.append("at once")
            time.sleep(0.1)
            interrupt()
            reached.append("later")

    with pytest.raises(KeyboardInterrupt):
        work()
    assert reached == ["at once"]
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_a_second_interrupt_that_passes_keeps_its_note(monkeypatch):
    monkeypatch.setattr(interrupts, "PATIENCE", 0.05)

    class Slow(InPlace):
        def apply_single(self, gradient, parameter, state):
            parameter -= gradient
            interrupt()
            time.sleep(0.1)
            interrupt()
            return parameter

    with pytest.raises(KeyboardInterrupt) as caught:
        Slow().update({"w": np.float32([1])}, {"w": np.float32([1])})
    assert caught.value.__notes__ == [
        "the step was interrupted at w, which may have moved in part; moved: none; not moved: none"
    ]


@pytest.mark.parametrize("usual", [signal.SIG_IGN, signal.SIG_DFL])
def test_what_no_function_handles_stays(usual):
    signal.signal(signal.SIGINT, usual)
    with Held():
        assert signal.getsignal(signal.SIGINT) is usual
    assert signal.getsignal(signal.SIGINT) is usual


def test_a_handler_that_is_set_meanwhile_stays():
    def other(number, frame):
        pass

    with Held():
        signal.signal(signal.SIGINT, other)
    assert signal.getsignal(signal.SIGINT) is other


def test_an_update_within_a_rule_is_held_with_it():
    done = []

    def work():
        def generate():  # its frame has none below it when the inner block is over
            interrupt()
            yield
            yield

        with Held():
            with Held():
                generated = generate()
                next(generated)
            done.append("the outer block")

    with pytest.raises(KeyboardInterrupt):
        work()
    assert done == ["the outer block"]


def test_another_thread_holds_nothing():
    seen = []

    def run():
        with Held():
            seen.append(signal.getsignal(signal.SIGINT))

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    assert seen == [signal.default_int_handler]
