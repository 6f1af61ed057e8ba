"""The step and the learning rate of an optimizer: the double, its float32 image in the state, and the schedules."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Mapping, Sequence
from types import TracebackType
from typing import Self

import numpy as np

from mlx_optimizers import trees
from mlx_optimizers.hyperparameters import at_least_zero
from mlx_optimizers.interrupts import Stopped
from mlx_optimizers.kinds import FloatArray, Path, Schedule, Tree, Value
from mlx_optimizers.state import OptimizerState, copied, is_missing, slots_at

LearningRate = float | Schedule
"""A learning rate λ: a number, or a schedule from the number of updates done to one."""

Due = dict[str, Value]
"""What the schedules gave for a step, by the names of the hyperparameters."""

_LAST_STEP = 2**64 - 1


class Rates:
    """The counters in the state of an optimizer, with what they mean.

    Attributes:
        state: The state, in which both stand, as NumPy's arrays or MLX's.
        mlx: Whether they are MLX's.
        schedules: What gives the learning rate, or another number that a subclass keeps in the state.
    """

    def __init__(self) -> None:
        self.state = OptimizerState()
        self.mlx = False
        self.schedules: dict[str, Schedule] = {}
        self._rate = 0.0
        self._image: Tree = None  # the array that stands for the rate; another in its place is a new rate
        self._single = 0.0  # its value
        self.set_step(0)

    def copy(self) -> Rates:
        """Copy all but the schedules themselves."""
        made = copy.copy(self)
        made.state, made._image, made._step = copy.deepcopy((self.state, self._image, self._step))
        made.schedules = dict(self.schedules)
        return made

    def replace(self, state: Tree) -> None:
        """Take a copy of a tree as the state; a counter that is not in it keeps its value, and comes back when read."""
        if not isinstance(state, dict):
            raise TypeError(f"state must be a dictionary, not {type(state).__name__}")
        step, rate = dict.get(state, "step"), dict.get(state, "learning_rate")
        count = None if is_missing(step) else _step_of(step)
        rate = None if is_missing(rate) else self._rate_of(rate)
        new = copied(state)
        self.state, self.mlx = new, any(trees.is_mlx(leaf) for _, leaf in trees.leaves(new))
        if count is not None:
            self.set_step(count)
        if rate is not None:
            self.set_rate(rate)

    def convert(self, paths: Iterable[Path], *, mlx: bool) -> None:
        """Make the top of the state, the counters with it, and the slots at paths arrays of MLX or of NumPy."""
        self.mlx = mlx
        image = self._image is not None and dict.get(self.state, "learning_rate") is self._image
        for node in (self.state, *(slots_at(self.state, path) or {} for path in paths if path)):
            for key, value in node.items():
                if trees.is_mlx(value) and not mlx:
                    node[key] = trees.from_mlx(value, f"state {key}")
                elif mlx and isinstance(value, np.ndarray) and trees.in_mlx(value.dtype):
                    node[key] = trees.to_mlx(value)
        if image:
            self._image = self.state["learning_rate"]

    def _array(self, array: FloatArray) -> Tree:
        return trees.to_mlx(array) if self.mlx else array

    # The step

    def set_step(self, count: int) -> None:
        """Set the number of updates done."""
        self.count = count
        self._step = self.state["step"] = self._array(np.array(count, np.uint64))

    def step(self) -> int:
        """Return the number of updates done: one that was put into the state counts, a missing one comes back."""
        found = dict.get(self.state, "step")
        if found is not self._step or self.mlx or found.item() != self.count:
            count = self.count if is_missing(found) else _step_of(found)
            kept = trees.is_mlx(found) if self.mlx else isinstance(found, np.ndarray) and found.dtype == np.uint64
            if count != self.count or not kept:
                self.set_step(count)
        return self.count

    # The learning rate

    def set_rate(self, value: Value) -> None:
        """Set the learning rate; a schedule stays."""
        self._rate = at_least_zero("learning_rate", value)
        image = _single(self._rate)
        self._single = image.item()
        self.state["learning_rate"] = self._image = self._array(image)

    def rate(self) -> float | None:
        """Return the learning rate as the double that was set, or None.

        One that was put into the state counts, and ends a schedule; a missing one comes back.
        """
        current = dict.get(self.state, "learning_rate")
        if is_missing(current):
            if self._image is not None:
                self.set_rate(self._rate)
        elif current is not self._image or self.mlx or current.item() != self._single:
            rate = self._rate_of(current)
            if current is not self._image or rate != self._rate:
                self.set_rate(rate)
                self.schedules.pop("learning_rate", None)
        return None if self._image is None else self._rate

    def _rate_of(self, found: Tree) -> float:
        """Resolve a rate read from the state: the image of the double that is kept means that double."""
        if trees.is_mlx(found):
            found = trees.from_mlx(found, "learning_rate")
        image = isinstance(found, np.ndarray) and found.dtype == np.float32 and found.ndim == 0
        return self._rate if image and found == _single(self._rate) else at_least_zero("learning_rate", found)

    def set(self, name: str, value: Value) -> None:
        """Set the learning rate or another number of the state; a schedule stays."""
        if name == "learning_rate":
            self.set_rate(value)
        else:
            self.state[name] = trees.from_mlx(value, name) if trees.is_mlx(value) else np.asarray(value)

    def schedule(self, name: str, value: LearningRate) -> None:
        """Set the learning rate or another number of the state, by a schedule where the value is callable.

        It is called at once, with the number of updates done, as in MLX, and then before each step.
        """
        self.set(name, _called(value, self.step()) if callable(value) else value)
        self.schedules.pop(name, None)
        if callable(value):
            self.schedules[name] = value

    def keep(self, schedules: Mapping[str, Schedule]) -> None:
        """Keep schedules, each of which is called for the first time before the next step, as in MLX."""
        if not isinstance(schedules, Mapping):
            raise TypeError(f"schedulers must be a dictionary of callables, not {schedules!r:.60}")
        if "step" in schedules:
            raise ValueError("schedulers must not have the step, which counts the updates")
        for name, schedule in schedules.items():
            if not callable(schedule):
                raise TypeError(f"schedulers[{name!r}] must be callable, not {schedule!r:.60}")
        self.schedules.update(schedules)

    def due(self) -> Due:
        """Call the schedules for the next step."""
        count = self.step()
        self.rate()
        rates = {name: _called(schedule, count) for name, schedule in self.schedules.items()}
        if "learning_rate" in rates:
            at_least_zero("learning_rate", rates["learning_rate"])
        return rates


class Counted:
    """Counts a step, with what the schedules gave; where it fails it is not counted, and the error says what moved.

    A class, as a generator would be ended at any time, and undo what came later, where an interrupt leaves it open.

    Args:
        counters: Those of each optimizer that takes the step, with what its schedules gave.
    """

    ANY = "the step was interrupted, and any parameter may have moved in part"

    def __init__(self, counters: Sequence[tuple[Rates, Due]]) -> None:
        self.text = ""  # what an exception has to say; nothing as long as nothing has moved
        self._counters = counters
        self._before = [(rates.step(), rates._rate, rates._single, rates._image) for rates, _ in counters]
        self._others = [
            {name: dict.get(rates.state, name) for name in due if name != "learning_rate"} for rates, due in counters
        ]

    def __enter__(self) -> Self:
        try:
            for rates, due in self._counters:
                for name, value in due.items():
                    rates.set(name, value)
                rates.set_step(rates.count + 1)
        except BaseException:
            self._undo()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is not None:
            self._undo()
            if self.text:
                error.add_note(self.text)

    def _undo(self) -> None:
        for (rates, _), before, others in zip(self._counters, self._before, self._others, strict=True):
            step, rates._rate, rates._single, rates._image = before
            rates.set_step(step)
            for name, value in (*others.items(), ("learning_rate", rates._image)):
                if value is not None:
                    rates.state[name] = value
                else:  # the first call of a schedule put it there
                    rates.state.pop(name, None)

    def run(self, step: Callable[[], None], paths: Sequence[Path]) -> None:
        """Run a step; where it stops early, raise why, with what has moved: an interrupt as it is, else a RuntimeError.

        Args:
            step: Raises `Stopped` with places in ``paths``; with none that begun, its cause speaks for itself.
            paths: The paths of all parameters.
        """
        self.text, stopped = self.ANY, None
        try:
            step()
        except Stopped as error:
            stopped = error
        if stopped is None:
            return
        self.text, cause, begun, left = "", stopped.__cause__ or stopped, stopped.begun, stopped.left
        if not begun:
            raise cause
        at, moved, still = (
            ", ".join(trees.name(path) for n, path in enumerate(paths) if (n in begun, n in left) == which) or "none"
            for which in ((True, True), (True, False), (False, True))
        )
        at = "" if at == "none" else f" at {at}, which may have moved in part"
        rest = f"; moved: {moved}; not moved: {still}"
        if isinstance(cause, Exception):
            raise RuntimeError(f"the step failed{at} ({type(cause).__name__}: {cause}){rest}") from cause
        self.text = f"the step was interrupted{at}{rest}"
        raise cause


def _called(schedule: Schedule, count: int) -> Value:
    """Call a schedule with the number of updates done.

    One of MLX's own gets it as MLX's optimizers give it: it then returns the same bits, and where a joined one goes
    below a boundary, the step wraps in uint64 and what comes of it is dropped; with an int it might overflow.
    """
    if getattr(schedule, "__module__", None) != "mlx.optimizers.schedulers":
        return schedule(count)
    import mlx.core as mx

    return schedule(mx.array(count, mx.uint64))


def _single(value: float) -> FloatArray:
    """Round a double to a float32 0-d array, infinite where it is beyond float32."""
    with np.errstate(over="ignore"):
        return np.array(value, np.float32)


def _step_of(found: Tree) -> int:
    """Read the number of updates from a state."""
    if trees.is_mlx(found):
        found = trees.from_mlx(found, "state step")
    kind = "i" if type(found) is int else getattr(getattr(found, "dtype", None), "kind", "O")
    if kind not in ("i", "u") or np.ndim(found):
        raise TypeError(f"state step must be a whole number, not {found!r:.60}")
    count = int(found)
    if count < 0:
        raise ValueError(f"state step must be at least 0, not {count}")
    if count >= _LAST_STEP:
        raise ValueError(f"state step must be below 2**64 - 1, so that a step can follow in uint64, not {count}")
    return count
