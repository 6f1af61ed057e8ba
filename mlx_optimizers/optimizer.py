"""The base class of all optimizers, which steps trees of parameters, and those that need whole arrays."""

from __future__ import annotations

import contextlib
import copy
import inspect
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from mlx_optimizers import leaves, settings, state, trees
from mlx_optimizers.execution.plan import Plan
from mlx_optimizers.hyperparameters import explained
from mlx_optimizers.interrupts import Held, Stopped
from mlx_optimizers.kinds import FloatArray, Path, Schedule, Shape, Slots, Step, Tree
from mlx_optimizers.leaves import Leaf
from mlx_optimizers.rates import Counted, LearningRate, Rates
from mlx_optimizers.state import Declared, OptimizerState, Slot

__all__ = ["LearningRate", "Optimizer", "Slot", "Whole"]


class Optimizer:
    """The base class of all optimizers: it applies a rule for one array to a tree of parameters.

    Parameters and gradients are nested dictionaries, lists and tuples of arrays, or one bare array; the gradients may
    cover a part of the parameters. The arrays are NumPy's or MLX's, of dtype float32, float64, float16 or bfloat16;
    each is computed in its own dtype, and keeps it. :meth:`update` changes a model, :meth:`apply_gradients` returns
    new parameters. :doc:`Own optimizers </guides/own_optimizer>` are written as for MLX, or as those of this package.

    Args:
        schedulers: For a class of your own, as in MLX: :doc:`schedules </guides/schedules>` by the names under which
            their values stand in the state. Each is called first before the first step; default None.

    State:
        Its arrays are NumPy's, or MLX's where the parameters are, so that MLX saves and loads it.

        - ``step``: the number of updates done, 0-d, uint64.
        - ``learning_rate``: the learning rate λ, 0-d, float32; :attr:`learning_rate` is the double that was given.
        - Under the path of each parameter, such as ``state["layers"][0]["weight"]``: its slots, of its shape and dtype.
          Where the tree is a bare array the slots stand at the top. A parameter at the top whose own name is ``step``
          or ``learning_rate`` has its slots under that name with an underscore behind it.

    Example:
        >>> import numpy as np
        >>> import mlx_optimizers as optim
        >>> optimizer = optim.SGD(learning_rate=0.5, momentum=0.5)
        >>> model = {"w": np.float32([1, 2]), "rest": [np.float32([3])]}
        >>> optimizer.update(model, {"w": np.float32([1, 1])})
        >>> model
        {'w': array([0.5, 1.5], dtype=float32), 'rest': [array([3.], dtype=float32)]}
        >>> optimizer.state["w"]
        {'v': array([1., 1.], dtype=float32)}
        >>> optimizer.state["step"], optimizer.state["learning_rate"]
        (array(1, dtype=uint64), array(0.5, dtype=float32))
    """

    slots: ClassVar[tuple[str, ...]] = ()
    """Names of the state arrays of one parameter; a `Slot` where the shape is not the parameter's."""

    _declared: ClassVar[Declared] = Declared((), "Optimizer", complete=True)

    exact: ClassVar[Callable[..., Step]]
    """One step over the numbers of a context; ``exact(n, h, t, w, g, *slots)`` returns the new w and slots."""

    def __init_subclass__(cls, **arguments: Any) -> None:
        super().__init_subclass__(**arguments)
        if "slots" in vars(cls):
            slots = tuple(slot if isinstance(slot, Slot) else Slot(slot) for slot in cls.slots)
            cls.slots, cls._declared = tuple(map(str, slots)), Declared(slots, cls.__name__, complete=True)
        else:  # a rule of its own may put other slots into the state
            complete = cls._declared.complete and not {"init_single", "apply_single"} & {*vars(cls)}
            cls._declared = Declared(cls._declared.slots, cls.__name__, complete)

    @explained
    def __init__(self, schedulers: Mapping[str, Schedule] | None = None) -> None:
        self._rates = Rates()
        self._rates.keep(schedulers or {})
        self._cold: frozenset[Path] = frozenset()  # parameters that a warning has named
        self._plan: Plan | None = None

    @property
    def state(self) -> OptimizerState:
        """The state with the step, the learning rate, and the slots of every parameter. The next update changes it.

        Assigning a tree of NumPy's or MLX's arrays copies it. A step or a learning rate that is not in it keeps its
        value, and comes back with the next update, or when :attr:`step` or :attr:`learning_rate` is read; slots that
        are not in it start as new ones. A schedule stays, and goes on from the new step. It raises TypeError for what
        is no dictionary, contains a container of another kind, or has a step or a learning rate that is no number, and
        ValueError for a negative one, or a step that no other can follow in uint64; the state then stays as it is.
        """
        return self._rates.state

    @state.setter
    def state(self, state: Tree) -> None:
        self._rates.replace(state)
        self._plan = None

    def _require_state(self, state: Tree) -> None:
        """Raise what assigning a state does."""
        copy.copy(self._rates).replace(state)

    @property
    def step(self) -> npt.NDArray[np.uint64]:
        """The number of updates done, a 0-d array. Raises TypeError or ValueError for another thing in the state."""
        self._rates.step()
        step: npt.NDArray[np.uint64] = self._rates.state["step"]
        return step

    @property
    def learning_rate(self) -> np.float64:
        """The learning rate λ as the double that was given; ``state["learning_rate"]`` is its float32 image.

        Assigning a number to either replaces it, and a schedule with it; assigning a callable sets a schedule. It
        raises ValueError for a number that is negative or not finite, TypeError for what is neither a number nor
        callable, and AttributeError where the optimizer has none.
        """
        rate = self._rates.rate()
        if rate is None:
            later = ", which its schedule gives before the first step" * ("learning_rate" in self._rates.schedules)
            raise AttributeError(f"{type(self).__name__} has no learning rate{later}")
        return np.float64(rate)

    @learning_rate.setter
    def learning_rate(self, value: LearningRate) -> None:
        self._rates.schedule("learning_rate", value)

    def _maybe_schedule(self, name: str, value: LearningRate) -> None:
        """As in MLX: keep a hyperparameter in the state, on a schedule where it is callable."""
        self._rates.schedule(name, value)

    def check_together(self) -> None:
        """Raise ValueError where hyperparameters that are each allowed are not so together; to be extended."""

    @classmethod
    def slot_shapes(cls, hyperparameters: Any, shape: Shape) -> dict[str, Shape]:
        """Name the slots of a parameter with their shapes; to be extended where not every parameter has all.

        Args:
            hyperparameters: What has them as attributes: an optimizer, or a namespace.
            shape: The shape of the parameter.
        """
        return {str(slot): slot.shape(shape) for slot in cls._declared.slots}

    def init_single(self, parameter: FloatArray, state: Slots) -> None:
        """Put the slots of one parameter into its state, which is an empty dictionary."""
        for name, shape in self.slot_shapes(self, parameter.shape).items():
            state[name] = np.zeros(shape, parameter.dtype)

    def apply_single(self, gradient: FloatArray, parameter: FloatArray, state: Slots) -> FloatArray:
        """Advance one parameter by one step, and return it: the same array or a new one.

        Args:
            gradient: The gradient g, of the parameter's shape and dtype.
            parameter: The parameter w; the optimizers of this package change it in place.
            state: Its slots, which change in place.
        """
        raise NotImplementedError(f"{type(self).__name__} has no apply_single")

    def init(self, parameters: Tree) -> None:
        """Make the state of a tree of parameters, as the first :meth:`update` does otherwise; refuse what that does."""
        found = leaves.unpaired(parameters)
        with self._in_numpy(found, parameters, adding=True) as parts:
            for optimizer, part in parts:
                for leaf in part:
                    state.slots_of(optimizer.state, leaf, optimizer.init_single)

    def update(self, model: Tree, gradients: Tree) -> None:
        """Apply gradients to the parameters of a model.

        NumPy arrays change in place. Of others, such as those of an ``mlx.nn.Module``, the model gets new ones.

        Ctrl-C waits for the end of the step; a second one, more than a second later, does not. Where that, or the
        handler of an alarm, ends a step halfway, the step does not count, and a note says what has moved.

        Args:
            model: A tree of parameters, or a module with an ``update`` method that takes one.
            gradients: A tree of gradients of the same structure, or of a part of it; floating point arrays of their
                parameters' shapes. Another float dtype than the parameter's is cast to it.

        Raises:
            KeyError: for a gradient of a parameter that is not there.
            TypeError: for a leaf that is no array of floats, is masked, or cannot change in place; for a container or
                an array of another library, with how to convert it; inside ``mx.compile`` or ``mx.vmap``, where an
                array has no value.
            ValueError: for shapes that differ, a parameter that is read-only or a view of an MLX array, one array under
                two paths, parameters that overlap each other or themselves, or a state that does not fit: of another
                optimizer, with lists for dictionaries, or with nothing for any of the parameters; for an invalid
                setting. Parameters and state then stay as they are.
            RuntimeError: from an exception of the step itself that ends it halfway; says what has moved.

        Warns:
            RuntimeWarning: once for a parameter without state at a later step than the first, where others have some.

        Example:
            >>> import numpy as np
            >>> import mlx_optimizers as optim
            >>> model = {"w": np.float32([1, 2]), "b": np.float32(0)}
            >>> optim.SGD(0.5).update(model, {"w": np.float32([2, -2])})
            >>> model["w"]
            array([0., 3.], dtype=float32)
        """
        with Held():
            if self._planned(gradients, model):
                return
            found = leaves.paired(gradients, model)
            if all(isinstance(leaf.given, np.ndarray) for leaf in found):
                leaves.require_writable(found)
                with self._in_numpy(found, model) as parts:
                    self._plan = _advance(parts)
                return
            replace = leaves.replacement(found, model, gradients)
            with self._told("the model may not have its new parameters"):
                with self._in_numpy(found, model) as parts:
                    new = _applied(parts)
                replace(new)

    def apply_gradients(self, gradients: Tree, parameters: Tree) -> Tree:
        """Return the parameters after one step, and leave those before it as they are.

        Args:
            gradients: A tree of gradients; see :meth:`update`. The new arrays, of the kind that came in, stand in one
                of the same structure.
            parameters: A tree of parameters; the gradients may cover a part of them.

        Raises:
            KeyError, TypeError, ValueError, RuntimeError: as :meth:`update` does; but parameters that are read-only or
                share memory are fine. What ends it after the step, such as a Ctrl-C that waited, has a note: the state
                has moved, and the parameters are lost.

        Example:
            >>> import numpy as np
            >>> import mlx_optimizers as optim
            >>> optim.SGD(0.5).apply_gradients({"w": np.float32([2])}, {"w": np.float32([1]), "b": np.float32([7])})
            {'w': array([0.], dtype=float32)}
        """
        with self._told("its new parameters are lost"), Held():
            found = leaves.paired(gradients, parameters)
            with self._in_numpy(found, parameters) as parts:
                new = _applied(parts)
            return trees.rebuilt(gradients, new.__getitem__)

    def _planned(self, gradients: Tree, model: Tree) -> bool:
        """Advance by the plan of the last step where it serves this one, and tell whether it does."""
        return False

    def _names(self, leaf: Leaf) -> Iterable[str]:
        """Name the slots of a parameter that the class declares."""
        return self.slot_shapes(self, leaf.w.shape)

    def _step_of(self, found: list[Leaf], states: list[Slots]) -> tuple[Plan | None, Callable[[], None]]:
        """Return what advances all leaves, each by `apply_single`, and may raise `Stopped`."""
        kept = [slots[name] for leaf, slots in zip(found, states, strict=True) for name in self._names(leaf)]
        leaves.keep_gradients(found, kept)
        return None, partial(leaves.advance, found, states, self.apply_single, in_place=bool(self.slots))

    @contextlib.contextmanager
    def _in_numpy(
        self, found: list[Leaf], parameters: Tree, *, adding: bool = False, among: Sequence[Leaf] = ()
    ) -> Iterator[list[Part]]:
        """Have a state that fits, of NumPy's arrays, while parameters advance; then MLX's, where they are MLX's.

        It yields each optimizer that takes part with its leaves. Where there is none, those that it is among decide.
        """
        step, _ = self._rates.step(), self._rates.rate()
        mlx = [leaf.path for leaf in found if trees.is_mlx(leaf.given)]
        afterwards = any(trees.is_mlx(leaf.given) for leaf in found or among) if found or among else self._rates.mlx
        self._rates.convert([leaf.path for leaf in found], mlx=False)
        try:
            of = partial(self.slot_shapes, self)
            required = found, parameters, self._declared, of, self._cold
            self._cold |= state.require(self.state, step, *required, adding=adding)
            yield [(self, found)]
        finally:
            if afterwards:
                self._rates.convert(mlx, mlx=True)
                self._plan = None  # a plan is of NumPy's arrays

    @contextlib.contextmanager
    def _told(self, what: str) -> Iterator[None]:
        """Note on an exception that comes after a step was counted what becomes of it."""
        before = self._rates.step()
        try:
            yield
        except BaseException as error:
            if self._rates.count != before:
                error.add_note(f"step {self._rates.count} is done in the state; {what}")
            raise

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_rates": self._rates.copy(), "_plan": None}  # which is of the arrays of this one

    def __repr__(self) -> str:
        values = []
        for name, parameter in inspect.signature(type(self)).parameters.items():
            default, value = parameter.default, getattr(self, name, ...)
            if name == "learning_rate" and value is not ...:
                value = self._rates.schedules.get(name) or float(value)
            elif name == "learning_rate" and default is None:
                value = None
            elif name == "schedulers" and value is ...:
                value = self._rates.schedules or None
            values.append(f"{name}={'…' if value is ... else repr(value)}")
        return f"{type(self).__name__}({', '.join(values)})"


Part = tuple[Optimizer, list[Leaf]]
"""An optimizer, and the leaves that it advances."""


def _applied(parts: list[Part]) -> dict[Path, Tree]:
    """Advance copies of all leaves; return them as what came in, by their paths."""
    found = [leaf for _, part in parts for leaf in part]
    for leaf in found:
        leaf.w = np.array(leaf.w)
    _advance(parts)
    return {leaf.path: trees.like(leaf.given, leaf.w) for leaf in found}


def _advance(parts: list[Part]) -> Plan | None:
    """Advance all leaves; what can fail beforehand does, before anything moves. Return the plan of an only part."""
    settings.chosen()  # an invalid setting raises before anything moves
    due = [(optimizer._rates, optimizer._rates.due()) for optimizer, _ in parts]
    states = [[state.slots_of(by.state, leaf, by.init_single) for leaf in part] for by, part in parts]
    places = [
        (slots, name)
        for (by, part), each in zip(parts, states, strict=True)
        for leaf, slots in zip(part, each, strict=True)
        for name in by._names(leaf)
    ]
    found = [leaf for _, part in parts for leaf in part]
    state.separate(places, [leaf.w for leaf in found])
    if len(parts) > 1:
        leaves.keep_gradients(found, [slots[slot] for slots, slot in places])

    with Counted(due) as counted:
        planned = [by._step_of(part, each) for (by, part), each in zip(parts, states, strict=True)]
        steps = [(step, len(part)) for (_, step), (_, part) in zip(planned, parts, strict=True)]
        counted.run(partial(_in_turn, steps), [leaf.path for leaf in found])
    return planned[0][0] if len(parts) == 1 else None


def _in_turn(steps: Sequence[tuple[Callable[[], None], int]]) -> None:
    """Run steps, each of a number of leaves.

    Raises:
        Stopped: from the exception that ends it, with places in the leaves of all.
    """
    done, total = 0, sum(size for _, size in steps)
    for step, size in steps:
        try:
            step()
        except Stopped as error:
            begun, left = ([done + place for place in places] for places in (error.begun, error.left))
            stopped = Stopped([*range(done), *begun], [*left, *range(done + size, total)])
            raise stopped from (error.__cause__ or error)
        done += size


class Whole(Optimizer):
    """An optimizer whose rule needs a whole array: norms, products, sums along an axis.

    It is written as `apply_single`, which may change the parameter in place or return a new one, and `exact`. Its slots
    may have shapes of their own.
    """
