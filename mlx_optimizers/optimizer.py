"""The base class: trees of parameters, steps, the learning rate, the state."""

from __future__ import annotations

import contextlib
import copy
import inspect
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Any, ClassVar, NoReturn, Self

import numpy as np
import numpy.typing as npt

from mlx_optimizers import trees
from mlx_optimizers.execution import compiled
from mlx_optimizers.execution.blocks import Blocks, Columns
from mlx_optimizers.execution.plan import Plan, Stopped
from mlx_optimizers.execution.program import Coefficients, bind
from mlx_optimizers.execution.threads import Halted, threads
from mlx_optimizers.hyperparameters import at_least_zero, explained
from mlx_optimizers.interrupts import Held
from mlx_optimizers.state import OptimizerState
from mlx_optimizers.trees import Path

__all__ = ["Elementwise", "LearningRate", "Optimizer", "Slot", "Whole"]

LearningRate = float | Callable[[int], Any]
"""A learning rate λ: a number, or a schedule from the number of updates done to one."""

_COUNTERS = ("step", "learning_rate")


class Slot(str):
    """The name of a state array of one parameter, with the shape that it has; it starts as zeros.

    Args:
        name: The name, under which it stands in the state.
        shape: Gets the parameter's shape and returns the slot's; by default it is the same.

    Example:
        >>> from mlx_optimizers.optimizer import Slot
        >>> row = Slot("row", shape=lambda s: s[:-1])
        >>> row, row.shape((4, 3)), Slot("v").shape((4, 3))
        ('row', (4,), (4, 3))
    """

    __slots__ = ("shape",)
    shape: Callable[[tuple[int, ...]], tuple[int, ...]]

    def __new__(cls, name: str, shape: Callable[[tuple[int, ...]], tuple[int, ...]] | None = None) -> Self:  # noqa: D102
        slot = super().__new__(cls, name)
        slot.shape = _same if shape is None else shape
        return slot


def _same(shape: tuple[int, ...]) -> tuple[int, ...]:
    return shape


@dataclass(eq=False)
class _Leaf:
    """One parameter in one update.

    ``given`` is the leaf of the caller's tree, ``w`` the array that is advanced, ``g`` its gradient.
    """

    path: Path
    given: Any
    w: npt.NDArray[Any]
    g: npt.NDArray[Any]

    @property
    def name(self) -> str:
        return trees.name(self.path)


_ANY = "the step was interrupted, and any parameter may have moved in part"


class _Account:
    """Counts a step, with what the schedules gave; where it fails it is not counted, and the error says what moved.

    A class, as a generator would be ended at any time, and undo what came later, where an interrupt leaves it open.

    Args:
        optimizer: Whose step it is.
        rates: What the schedules gave.
    """

    def __init__(self, optimizer: Optimizer, rates: dict[str, Any]) -> None:
        self.text = ""  # what an exception has to say; nothing as long as nothing has moved
        self._optimizer = optimizer
        self._rates = rates
        self._before = optimizer._counters()
        self._others = {name: optimizer._state[name] for name in rates if name != "learning_rate"}

    def __enter__(self) -> Self:
        try:
            self._optimizer._count_on(self._rates)
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
        self._optimizer._state.update(self._others)
        self._optimizer._count_back(*self._before)

    def close(self, cause: BaseException, partly: list[str], moved: list[str], still: list[str]) -> NoReturn:
        """Raise what ended the step, with the names of the parameters: an interrupt as it is, else a RuntimeError."""
        at, moved_text, still_text = (", ".join(names) or "none" for names in (partly, moved, still))
        at = f"at {at}, which may have moved in part"
        rest = f"; moved: {moved_text}; not moved: {still_text}"
        if isinstance(cause, Exception):
            self.text = ""
            raise RuntimeError(f"the step failed {at} ({type(cause).__name__}: {cause}){rest}") from cause
        self.text = f"the step was interrupted {at}{rest}"
        raise cause


class Optimizer:
    """The base class of all optimizers: it applies a rule for one array to a tree of parameters.

    Parameters and gradients are nested dictionaries, lists and tuples of arrays, or one bare array; the gradients may
    cover a part of the parameters. The arrays are NumPy's or MLX's, of dtype float32, float64, float16 or bfloat16;
    each is computed in its own dtype, and keeps it. :meth:`update` changes a model, :meth:`apply_gradients` returns
    new parameters.

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

        What does not fit is refused with the path, and nothing has moved:

        >>> for gradients in ({"rest": [None]}, {"rest": {"w": np.float32([1])}}, {"w": np.float64([1])}):
        ...     try:
        ...         optimizer.update(model, gradients)
        ...     except (KeyError, TypeError, ValueError) as error:
        ...         print(f"{type(error).__name__}: {error.args[0]}")
        TypeError: gradient rest.0 is None, a NoneType, not an array; leave it out of the tree
        KeyError: there is no parameter rest.w
        ValueError: gradient w has shape (1,), its parameter (2,)

        An optimizer of one's own, written as for MLX: it returns the new array. It gets NumPy arrays, whatever the
        model holds.

        >>> class SignSGD(optim.Optimizer):
        ...     def __init__(self, learning_rate):
        ...         super().__init__()
        ...         self.learning_rate = learning_rate
        ...     def apply_single(self, gradient, parameter, state):
        ...         rate = self.learning_rate.astype(parameter.dtype)
        ...         return parameter - rate * np.sign(gradient)
        >>> model = {"w": np.float32([1, 2])}
        >>> SignSGD(0.5).update(model, {"w": np.float32([3, -4])})
        >>> model
        {'w': array([0.5, 2.5], dtype=float32)}

        One written as those of this package: each element is moved by its own gradient alone. It names its slots,
        which start as zeros, and has its formula twice, in floats over arrays that it does not change, and over the
        numbers of an oracle:

        >>> from mlx_optimizers.optimizer import Elementwise
        >>> class Signum(Elementwise):
        ...     slots = ("v",)
        ...     def __init__(self, learning_rate, momentum=0.5):
        ...         super().__init__()
        ...         self.learning_rate = learning_rate
        ...         self.momentum = float(momentum)
        ...     def coefficients(self, real):
        ...         return real(self.learning_rate), real(self.momentum)
        ...     @staticmethod
        ...     def rule(c, w, g, v):
        ...         rate, mu = c
        ...         v = v * mu + g
        ...         return w - np.sign(v) * rate, v
        ...     @staticmethod
        ...     def exact(n, h, t, w, g, v):
        ...         v = h.momentum * v + g
        ...         return w - h.learning_rate * n.sign(v), v
        >>> w = np.float32([1, 2])
        >>> gradients = np.float32([[3, -4], [-1, 4]])
        >>> optimizer = Signum(0.1)
        >>> for gradient in gradients:  # v = [3, −4], then [½, 2]
        ...     w = optimizer.apply_gradients(gradient, w)
        >>> print(w, optimizer.state["v"])
        [0.79999995 1.9999999 ] [0.5 2. ]

        The oracle then says where the float32 result may lie:

        >>> from mlx_optimizers.oracle import Formula, trajectory
        >>> formula = Formula("Signum", Signum, Signum.exact)
        >>> steps = trajectory(formula, [1, 2], gradients, learning_rate=0.1)
        >>> low, high = steps[-1].parameter.low, steps[-1].parameter.high
        >>> print(low, high)
        [0.79999983 1.9999996 ] [0.80000013 2.0000002 ]
        >>> bool(np.all((low <= w) & (w <= high)))
        True
    """

    slots: ClassVar[tuple[str, ...]] = ()
    """Names of the state arrays of one parameter; a `Slot` where the shape is not the parameter's."""

    _complete: ClassVar[bool] = True  # whether `slots` are all there are

    exact: ClassVar[Callable[..., Any]]
    """One step over the numbers of an oracle context; ``exact(n, h, t, w, g, *slots)`` returns the new w and slots."""

    def __init_subclass__(cls, **arguments: Any) -> None:
        super().__init_subclass__(**arguments)
        own = vars(cls)
        if "slots" in own:
            cls.slots = tuple(name if isinstance(name, Slot) else Slot(name) for name in cls.slots)
            cls._complete = True
        elif "init_single" in own or "apply_single" in own:  # which may have others
            cls._complete = False

    @explained
    def __init__(self) -> None:
        self._state = OptimizerState()
        self._mlx = False  # whether the counters in the state are MLX arrays
        self._set_step(0)
        self._schedules: dict[str, Callable[[int], Any]] = {}
        self._rate = 0.0
        self._image: Any = None
        self._cold: frozenset[Path] = frozenset()  # parameters that a warning has named
        self._plan: Plan | None = None

    # Hyperparameters

    @property
    def state(self) -> OptimizerState:
        """The state, which is the step, the learning rate, and the slots of every parameter.

        It is live: the next update changes it. Its arrays are NumPy's, or MLX's where the parameters are. Assigning a
        tree of either copies it. A step or a learning rate that is not in it keeps its value, and comes back with the
        next update, or when :attr:`step` or :attr:`learning_rate` is read; slots that are not in it start as new ones.
        A schedule stays, and goes on from the new step.

        Raises:
            TypeError: for what is no dictionary, has a container of another kind in it, or a step or a learning rate
                that is no number.
            ValueError: for a negative step or learning rate, and a step that cannot be followed by another in uint64;
                the state is then as it was.
        """
        return self._state

    @state.setter
    def state(self, state: dict[str, Any]) -> None:
        if not isinstance(state, dict):
            raise TypeError(f"state must be a dictionary, not {type(state).__name__}")
        step, rate = dict.get(state, "step"), dict.get(state, "learning_rate")
        count = None if _is_missing(step) else _step_of(step)
        rate = None if _is_missing(rate) else self._rate_of(rate)
        new = _copied(state)
        self._state, self._plan = new, None
        self._mlx = any(trees.is_mlx(leaf) for _, leaf in trees.leaves(new))
        if count is not None:
            self._set_step(count)
        if rate is not None:
            self._set_rate(rate)

    @property
    def step(self) -> npt.NDArray[np.uint64]:
        """The number of updates done, a 0-d array.

        Raises:
            TypeError, ValueError: where what stands in the state is no such number.
        """
        self._read_step()
        step: npt.NDArray[np.uint64] = self._state["step"]
        return step

    def _set_step(self, count: int) -> None:
        self._count = count
        self._state["step"] = self._counter(np.array(count, np.uint64))

    def _read_step(self) -> int:
        """Take over a step that was put into the state meanwhile, and put it back where it is missing."""
        found = dict.get(self._state, "step")
        count = self._count if _is_missing(found) else _step_of(found)
        kept = trees.is_mlx(found) if self._mlx else isinstance(found, np.ndarray) and found.dtype == np.uint64
        if count != self._count or not kept:
            self._set_step(count)
        return count

    def _counter(self, array: npt.NDArray[Any]) -> Any:
        """A counter as the kind of array that the state has."""
        return trees.to_mlx(array) if self._mlx else array

    @property
    def learning_rate(self) -> np.float64:
        """The learning rate λ as the double that was given; ``state["learning_rate"]`` is its float32 image.

        Assigning a number to either replaces it, and a schedule with it; assigning a callable sets a schedule.

        Raises:
            ValueError: for a number that is negative or not finite.
            TypeError: for what is neither a number nor callable.
            AttributeError: when the optimizer has none.
        """
        self._read_rate()
        if self._image is None:
            raise AttributeError(f"{type(self).__name__} has no learning rate")
        return np.float64(self._rate)

    @learning_rate.setter
    def learning_rate(self, value: LearningRate) -> None:
        # Asked at construction as well, with the number of updates done, as in MLX.
        self._set_rate(value(int(self.step)) if callable(value) else value)
        self._schedules.pop("learning_rate", None)
        if callable(value):
            self._schedules["learning_rate"] = value

    def _set_rate(self, value: Any) -> None:
        self._rate = at_least_zero("learning_rate", value)
        self._state["learning_rate"] = self._image = self._counter(_single(self._rate))

    def _read_rate(self) -> None:
        """Take over a rate that was put into the state meanwhile; it ends a schedule, as setting the attribute does.

        One that is missing is put back.
        """
        current = dict.get(self._state, "learning_rate")
        if _is_missing(current):
            if self._image is not None:
                self._set_rate(self._rate)
            return
        rate = self._rate_of(current)
        if current is not self._image or rate != self._rate:
            self._set_rate(rate)
            self._schedules.pop("learning_rate", None)

    def _rate_of(self, found: Any) -> float:
        """The rate that is meant by what stands in a state: the image of the double that is kept means that double."""
        if trees.is_mlx(found):
            found = trees.from_mlx(found, "learning_rate")
        image = isinstance(found, np.ndarray) and found.dtype == np.float32 and found.ndim == 0
        if image and found == _single(self._rate):
            return self._rate
        return at_least_zero("learning_rate", found)

    def _maybe_schedule(self, name: str, value: Any) -> None:
        """As in MLX: keep a hyperparameter in the state, on a schedule where it is callable."""
        if name == "learning_rate":
            self.learning_rate = value
            return
        if callable(value):
            self._schedules[name] = value
            value = value(int(self.step))
        self._state[name] = np.asarray(value)

    def check_together(self) -> None:
        """Raise ValueError where hyperparameters that are each allowed are not so together; to be extended."""

    # The rule, to be extended

    def init_single(self, parameter: npt.NDArray[Any], state: dict[str, Any]) -> None:
        """Put the slots of one parameter into its state.

        Args:
            parameter: The parameter w.
            state: The dictionary of its slots, empty so far.
        """
        for slot in self.slots:
            state[slot] = np.zeros(_shape(slot, parameter.shape), parameter.dtype)

    def apply_single(
        self, gradient: npt.NDArray[Any], parameter: npt.NDArray[Any], state: dict[str, Any]
    ) -> npt.NDArray[Any]:
        """Advance one parameter by one step.

        Args:
            gradient: The gradient g, of the parameter's shape and dtype.
            parameter: The parameter w; the optimizers of this package change it in place.
            state: Its slots, which are changed.

        Returns:
            The parameter after the step, as the same array or a new one.

        Raises:
            NotImplementedError: where the class has no rule.
        """
        raise NotImplementedError(f"{type(self).__name__} has no apply_single")

    # Trees

    def init(self, parameters: Any) -> None:
        """Make the state of every parameter; optional, the first update makes what is missing.

        Args:
            parameters: A tree of arrays.

        Raises:
            TypeError, ValueError: as :meth:`update` raises them.
        """
        found = []
        for path, given in trees.leaves(parameters):
            w = trees.to_numpy(given, trees.label("parameter", path))
            found.append(_Leaf(path, given, w, w))
        with self._in_numpy(found):
            self._require_state(found, parameters, adding=True)
            for leaf in found:
                self._slots_of(leaf)

    def update(self, model: Any, gradients: Any) -> None:
        """Apply gradients to the parameters of a model.

        Parameters that are NumPy arrays are changed in place. With others, such as the MLX arrays of an
        ``mlx.nn.Module``, the model is given new leaves of the kind that came in.

        Ctrl-C waits for the end of the step; a second one, more than a second later, does not. Where that, or what the
        handler of an alarm raises, ends a step halfway, the step is not counted, and a note on the exception says what
        has moved; or it becomes the cause of a RuntimeError that does, as an Exception of the step itself.

        Args:
            model: A tree of parameters, or a module with an ``update`` method that takes one.
            gradients: A tree of gradients of the same structure, or of a part of it; floating point arrays of their
                parameters' shapes. Another float dtype than the parameter's is cast to it.

        Raises:
            KeyError: for a gradient of a parameter that is not there.
            TypeError: for a leaf that is no array of floats, is masked, or cannot be changed in place; for a container
                or an array of another library, with how to convert it; inside ``mx.compile`` or ``mx.vmap``, where an
                array has no value.
            ValueError: for shapes that differ, a parameter that is read-only or a view of an MLX array, one array under
                two paths, parameters that overlap each other or themselves, or a state that does not fit: of another
                optimizer, with lists for dictionaries, or with nothing for any of the parameters; for a setting that
                is none. Parameters and state are then as they were.
            RuntimeError: when the step itself failed halfway; says what had moved.

        Warns:
            RuntimeWarning: once for a parameter that has no state at a later step than the first, while others have;
                its slots start as new ones.

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
            found = self._found(gradients, model)
            if all(isinstance(leaf.given, np.ndarray) for leaf in found):
                self._require_writable(found)
                with self._in_numpy(found):
                    self._require_state(found, model)
                    self._plan = self._advance(found)
                return
            self._require_untied(found)
            for leaf in found:
                if isinstance(leaf.given, np.generic) or not leaf.path:
                    kind = type(leaf.given).__name__
                    raise TypeError(f"parameter {leaf.name} is a {kind}: it cannot be updated in place")
            parents = [trees.at(model, leaf.path[:-1]) for leaf in found]
            has_update = getattr(type(model), "update", dict.update) is not dict.update
            for leaf, parent in zip(found, parents, strict=True):
                if isinstance(parent, tuple) and not has_update:
                    raise TypeError(f"parameter {leaf.name} stands in a tuple, which cannot be given a new one")
            with self._told("the model may not have its new parameters"):
                with self._in_numpy(found):
                    self._require_state(found, model)
                    new = self._applied(found)
                if has_update:
                    model.update(trees.rebuilt(gradients, new.__getitem__))
                    return
                for leaf, parent in zip(found, parents, strict=True):
                    parent[leaf.path[-1]] = new[leaf.path]

    def apply_gradients(self, gradients: Any, parameters: Any) -> Any:
        """The parameters after one step, as a new tree; what is given stays as it is.

        Args:
            gradients: A tree of gradients; see :meth:`update`.
            parameters: A tree of parameters, of which the gradients may cover a part.

        Returns:
            A tree of the structure of the gradients, with new arrays of the kind that came in.

        Raises:
            KeyError, TypeError, ValueError, RuntimeError: as :meth:`update` does, but for what cannot be changed in
                place: parameters that are read-only or share memory are fine here. What ends it when the step is done,
                such as a Ctrl-C that waited for that, has a note: the state has moved, and the parameters are lost.

        Example:
            >>> import numpy as np
            >>> import mlx_optimizers as optim
            >>> optim.SGD(0.5).apply_gradients({"w": np.float32([2])}, {"w": np.float32([1]), "b": np.float32([7])})
            {'w': array([0.], dtype=float32)}
        """
        with self._told("its new parameters are lost"), Held():
            found = self._found(gradients, parameters)
            with self._in_numpy(found):
                self._require_state(found, parameters)
                new = self._applied(found)
            return trees.rebuilt(gradients, new.__getitem__)

    def _applied(self, found: list[_Leaf]) -> dict[Path, Any]:
        for leaf in found:
            leaf.w = np.array(leaf.w)
        self._advance(found)
        return {leaf.path: trees.like(leaf.given, leaf.w) for leaf in found}

    def _found(self, gradients: Any, parameters: Any) -> list[_Leaf]:
        """Every gradient with its parameter, converted and checked, once the settings have been."""
        threads(), compiled.choice()
        out = []
        for path, gradient in trees.leaves(gradients):
            called = trees.label("gradient", path)
            if gradient is None:
                raise TypeError(f"{called} is None, a NoneType, not an array; leave it out of the tree")
            g = trees.to_numpy(gradient, called)
            given = trees.at(parameters, path)
            w = trees.to_numpy(given, trees.label("parameter", path))
            if g.shape != w.shape:
                raise ValueError(f"{called} has shape {g.shape}, its parameter {w.shape}")
            out.append(_Leaf(path, given, w, g.astype(w.dtype, copy=False)))
        return out

    def _require_writable(self, found: list[_Leaf]) -> None:
        for leaf in found:
            if not leaf.w.flags.writeable:
                raise ValueError(f"parameter {leaf.name} is read-only; apply_gradients returns a new one")
            if trees.views_mlx(leaf.w):
                raise ValueError(f"parameter {leaf.name} is a view of an MLX array, which is never written to")
            if trees.overlaps_itself(leaf.w):
                raise ValueError(
                    f"parameter {leaf.name} overlaps itself: elements of shape {leaf.w.shape} and strides "
                    f"{leaf.w.strides} share memory; apply_gradients returns a new one"
                )
        pair = trees.overlapping([leaf.w for leaf in found])
        if pair is not None:
            raise _tied(*(found[index] for index in pair))

    def _require_untied(self, found: list[_Leaf]) -> None:
        """Refuse one array under two paths, of which each would be given a new one."""
        first: dict[int, _Leaf] = {}
        for leaf in found:
            other = first.setdefault(id(leaf.given), leaf)
            if other is not leaf:
                raise _tied(other, leaf)
        pair = trees.overlapping([leaf.w for leaf in found])
        if pair is not None:
            raise _tied(*(found[index] for index in pair))

    # State

    def _slots_at(self, path: Path) -> dict[str, Any] | None:
        """The slots that stand at a path, or None; nothing is made.

        Raises:
            ValueError: where the state has a list for a dictionary of the tree, or the other way about.
        """
        node: Any = self._state
        if not path:
            return {key: value for key, value in node.items() if key not in _COUNTERS}
        for depth, key in enumerate(_state_path(path)):
            listed = isinstance(key, trees.Position) and depth > 0  # the state itself is a dictionary
            if node is None or (trees.is_node(node) and not node):
                return None
            if not isinstance(node, list if listed else dict):
                has = "dictionary" if isinstance(node, dict) else type(node).__name__
                needs = "list" if listed else "dictionary"
                raise ValueError(
                    f"the state of {trees.name(path[:depth])} is a {has}, and its parameters need a {needs}"
                )
            node = _below(node, key)
        if node is not None and not isinstance(node, dict):
            raise ValueError(f"the state of {trees.name(path)} is a {type(node).__name__}, not its slots")
        return node

    def _require_state(self, found: Sequence[_Leaf], parameters: Any, *, adding: bool = False) -> None:
        """Refuse a state that does not fit, and warn of parameters that start later than others; theirs is made later.

        It stands two calls below the user's. What is ``adding`` parameters may do so while all of the state is new.
        """
        cold = []
        for leaf in found:
            slots = self._slots_at(leaf.path)
            if slots:
                self._require_slots(leaf, slots)
            else:
                cold.append(leaf)
        if not cold:
            return
        count, entries = self._read_step(), self._entries()
        begun = not adding or count > 0 or any((array != 0).any() for array in entries.values())
        if entries and begun and len(cold) == len(found) and not _fits(self._state, parameters):
            raise ValueError(
                f"the state has {_few(list(entries))}, and nothing for the parameters "
                f"{_few([leaf.name for leaf in cold])}; it must have their paths, without a prefix, as a tree "
                "(mlx.utils.tree_unflatten makes one)"
            )
        late = [leaf for leaf in cold if leaf.path not in self._cold] if entries and count else []
        if late:
            warnings.warn(
                f"no state at step {count} for {_few([leaf.name for leaf in late])}: new slots are made, while other "
                "parameters go on with theirs",
                RuntimeWarning,
                stacklevel=3,
            )
            self._cold |= {leaf.path for leaf in late}

    def _require_slots(self, leaf: _Leaf, slots: dict[str, Any]) -> None:
        """Refuse slots of another optimizer, or of another parameter."""
        missing = set(self.slots) - set(slots)
        if missing or (len(slots) > len(self.slots) and self._complete):
            has, should = (", ".join(map(str, names)) or "none" for names in (slots, self.slots))
            kind = type(self).__name__
            raise ValueError(f"the state of {leaf.name} has the slots {has}; those of {kind} are {should}")
        for slot in self.slots:
            array = trees.to_numpy(slots[slot], f"state {slot} of {leaf.name}")
            shape = _shape(slot, leaf.w.shape)
            if array.shape != shape:
                raise ValueError(f"state {slot} of {leaf.name} has shape {array.shape}, not {shape}")
            if array.dtype != leaf.w.dtype:
                raise ValueError(f"state {slot} of {leaf.name} has dtype {array.dtype}, not {leaf.w.dtype}")

    def _entries(self) -> dict[str, Any]:
        """The slots in the state by their names, with dots."""
        return {
            trees.name(path): leaf
            for path, leaf in trees.leaves(self._state)
            if isinstance(leaf, np.ndarray) or trees.is_mlx(leaf)
            if path[1:] or path[0] in self.slots or "." in str(path[0])
        }

    @contextlib.contextmanager
    def _in_numpy(self, found: Sequence[_Leaf]) -> Iterator[None]:
        """Have NumPy arrays in the state while these parameters are advanced; then MLX's, where they are MLX's."""
        self._read_step()
        self._read_rate()
        mlx = [leaf for leaf in found if trees.is_mlx(leaf.given)]
        afterwards = bool(mlx) if found else self._mlx
        self._convert(found, mlx=False)
        try:
            yield
        finally:
            if afterwards:
                self._convert(mlx, mlx=True)

    def _convert(self, found: Sequence[_Leaf], *, mlx: bool) -> None:
        """Convert the state at its top, and the slots of these parameters; a plan is of NumPy's alone."""
        self._mlx = mlx
        if mlx:
            self._plan = None
        image = dict.get(self._state, "learning_rate") is self._image
        nodes: list[dict[Any, Any]] = [self._state]
        nodes.extend(self._slots_at(leaf.path) or {} for leaf in found if leaf.path)
        for node in nodes:
            for key, value in node.items():
                if trees.is_mlx(value) and not mlx:
                    node[key] = trees.from_mlx(value, f"state {key}")
                elif mlx and isinstance(value, np.ndarray) and _is_numeric(value):
                    node[key] = trees.to_mlx(value)
        if image:
            self._image = self._state["learning_rate"]

    def _slots_of(self, leaf: _Leaf) -> dict[str, Any]:
        """The slots of a parameter, made where they are missing."""
        node: Any = self._state
        path = _state_path(leaf.path)
        for depth, key in enumerate(path):
            below: Any = [] if isinstance((*path, None)[depth + 1], trees.Position) else OptimizerState()
            if isinstance(node, list):
                node.extend(OptimizerState() for _ in range(key + 1 - len(node)))
            if (key not in node or not node[key]) if isinstance(node, dict) else not node[key]:
                node[key] = below
            node = node[key]
        if not self._slots_at(leaf.path):
            self.init_single(leaf.w, node)
        slots: dict[str, Any] = node
        return slots

    # The step

    def _advance(self, found: list[_Leaf]) -> Plan | None:
        """One step of all leaves: everything that can fail beforehand does, before anything moves."""
        rates = self._scheduled()
        states = [self._slots_of(leaf) for leaf in found]
        self._separate(found, states)
        return self._advance_all(found, states, rates)

    def _advance_all(self, found: list[_Leaf], states: list[dict[str, Any]], rates: dict[str, Any]) -> Plan | None:
        """One step of all leaves, each by `apply_single`."""
        before = [dict(state) for state in states]
        results: list[npt.NDArray[Any]] = []
        with _Account(self, rates) as account:
            account.text = _ANY
            try:
                for leaf, state in zip(found, states, strict=True):
                    # A copy of the gradient: what is written for MLX may change it, as MLX's own SGD does.
                    results.append(self._result(leaf, self.apply_single(leaf.g.copy(), leaf.w, state)))
                for leaf, result in zip(found, results, strict=True):
                    if result is not leaf.w:
                        leaf.w[...] = result
            except BaseException as error:
                self._restore(states, before)
                account.text = ""
                places = range(len(found))
                moved = [place for place, result in enumerate(results) if result is found[place].w]
                # It failed in the rule that had not given its result; or then, between the new arrays of all.
                partly = [len(results)] if len(results) < len(found) else sorted({*places} - {*moved})
                still = sorted({*places} - {*moved} - {*partly})
                # An exception of a rule that had changed nothing in place speaks for itself.
                if moved or self.slots or not isinstance(error, Exception):
                    account.close(error, *([found[place].name for place in some] for some in (partly, moved, still)))
                raise
        return None

    def _planned(self, gradients: Any, model: Any) -> bool:
        """One step by the plan of the last, if that serves it; says whether it did."""
        return False

    def _scheduled(self) -> dict[str, Any]:
        """What the schedules give for the next step."""
        count = self._read_step()
        self._read_rate()
        rates = {name: schedule(count) for name, schedule in self._schedules.items()}
        if "learning_rate" in rates:
            at_least_zero("learning_rate", rates["learning_rate"])
        return rates

    def _counters(self) -> tuple[int, float, Any]:
        return self._read_step(), self._rate, self._image

    def _count_on(self, rates: dict[str, Any]) -> None:
        for name, value in rates.items():
            self._set_rate(value) if name == "learning_rate" else self._state.update({name: np.asarray(value)})
        self._set_step(self._count + 1)

    def _count_back(self, step: int, rate: float, image: Any) -> None:
        self._set_step(step)
        if image is not None:
            self._rate, self._image = rate, image
            self._state["learning_rate"] = image

    @contextlib.contextmanager
    def _told(self, what: str) -> Iterator[None]:
        """Have an exception that comes when a step has been counted say what became of it."""
        before = self._read_step()
        try:
            yield
        except BaseException as error:
            if self._count != before:
                error.add_note(f"step {self._count} is done in the state; {what}")
            raise

    def _result(self, leaf: _Leaf, result: Any) -> npt.NDArray[Any]:
        array = leaf.w if result is leaf.w else trees.to_numpy(result, f"the new {leaf.name}")
        if array.shape != leaf.w.shape:
            raise ValueError(f"the new {leaf.name} has shape {array.shape}, the parameter {leaf.w.shape}")
        return array.astype(leaf.w.dtype, copy=False)

    def _separate(self, found: list[_Leaf], states: list[dict[str, Any]]) -> None:
        """Copy what shares memory with an array that is about to change: slots, then gradients."""
        in_parameter = trees.shares([leaf.w for leaf in found])
        places = [(state, slot) for state in states for slot in self.slots]
        for state, slot in places:
            array = trees.to_numpy(state[slot], slot)
            ours = array is state[slot] and array.flags.writeable and not trees.views_mlx(array)
            if not ours or in_parameter(array) or trees.overlaps_itself(array):
                state[slot] = np.array(array)
        while (pair := trees.overlapping([state[slot] for state, slot in places])) is not None:
            state, slot = places[pair[1]]  # one array that was put into the state twice
            state[slot] = np.array(state[slot])
        in_slot = trees.shares([state[slot] for state, slot in places])
        for leaf in found:
            if in_parameter(leaf.g) or in_slot(leaf.g):
                leaf.g = leaf.g.copy()

    def _restore(self, states: list[dict[str, Any]], slots: list[dict[str, Any]]) -> None:
        for state, before in zip(states, slots, strict=True):
            for key in set(state) - set(before):
                del state[key]
            state.update(before)

    # Copies and text

    def __copy__(self) -> Optimizer:
        made = type(self).__new__(type(self))
        made.__dict__.update(self.__dict__)
        made._state, made._image = copy.deepcopy((self._state, self._image))
        made._schedules = dict(self._schedules)
        made._plan = None
        return made

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_plan": None}  # it is of the arrays of this one

    def __repr__(self) -> str:
        values = []
        for name in inspect.signature(type(self)).parameters:
            value = getattr(self, name, ...)
            if name == "learning_rate" and value is not ...:
                value = self._schedules.get(name) or float(value)
            values.append(f"{name}={'…' if value is ... else repr(value)}")
        return f"{type(self).__name__}({', '.join(values)})"


class Elementwise(Optimizer):
    """An optimizer that moves each element by its own gradient alone.

    It is written as `coefficients`, `rule` and `exact`. No bit depends on how elements are spread over arrays, blocks
    and threads. A subclass that writes `apply_single` is advanced by that.
    """

    _by_array: ClassVar[bool] = False  # whether a subclass has an `apply_single` of its own

    def __init_subclass__(cls, **arguments: Any) -> None:
        super().__init_subclass__(**arguments)
        for slot in cls.slots:
            if _shape(slot, (2, 3)) != (2, 3):
                raise TypeError(f"slot {slot} of {cls.__name__} must have the shape of its parameter")
        below = cls.__mro__[: cls.__mro__.index(Elementwise)]
        cls._by_array = any("apply_single" in vars(kind) for kind in below)

    def coefficients(self, real: Any) -> tuple[Any, ...]:
        """The coefficients of one step, which `rule` gets first: numbers, each rounded once, and flags.

        Args:
            real: The dtype as a class, such as ``numpy.float32``, that rounds a number to it.
        """
        raise NotImplementedError(f"{type(self).__name__} has no coefficients")

    @staticmethod
    def rule(c: Any, w: Any, g: Any, /, *slots: Any) -> tuple[Any, ...]:
        """One step in floats, made of operators and NumPy's functions of one or two arrays, element by element.

        It states the order in which the results are rounded. Where it has a branch, a flag chooses.

        Args:
            c: The `coefficients`.
            w: The parameter; neither it nor any other array is changed.
            g: The gradient.
            slots: The state arrays, in the order of `slots`.

        Returns:
            The new parameter and slots.
        """
        raise NotImplementedError("the optimizer has no rule")

    def apply_single(
        self, gradient: npt.NDArray[Any], parameter: npt.NDArray[Any], state: dict[str, Any]
    ) -> npt.NDArray[Any]:
        """Advance one parameter by one step, in place; see `Optimizer.apply_single`."""
        arrays = [[parameter], [gradient], *([state[slot]] for slot in self.slots)]
        flat = all(array.flags.c_contiguous for (array,) in arrays)
        try:
            Blocks([parameter], [flat]).run(arrays, self._coefficients([parameter.dtype]))
        except Halted as halted:
            raise (halted.__cause__ or halted) from None
        return parameter

    def _coefficients(self, dtypes: Iterable[np.dtype[Any]]) -> Coefficients:
        rule, slots = type(self).rule, len(self.slots)
        return {dtype: bind(rule, tuple(self.coefficients(dtype.type)), slots) for dtype in dtypes}

    def _planned(self, gradients: Any, model: Any) -> bool:
        plan = self._plan
        arrays = plan.arrays(gradients, model, self._state) if plan is not None else None
        if plan is None or arrays is None:
            self._plan = None
            return False
        with _Account(self, self._scheduled()) as account:
            self._run(plan, arrays, account)
        return True

    def _advance_all(self, found: list[_Leaf], states: list[dict[str, Any]], rates: dict[str, Any]) -> Plan | None:
        """One step of all leaves; its plan serves the next step of the same arrays."""
        if self._by_array:
            return super()._advance_all(found, states, rates)
        slots = ([state[slot] for state in states] for slot in self.slots)
        arrays = [[leaf.w for leaf in found], [leaf.g for leaf in found], *slots]
        with _Account(self, rates) as account:
            coefficients = self._coefficients({leaf.w.dtype for leaf in found})
            plan = Plan([leaf.path for leaf in found], arrays, self.slots, type(self).rule, coefficients)
            self._run(plan, arrays, account)
        return plan

    def _run(self, plan: Plan, arrays: Columns, account: _Account) -> None:
        """One planned step."""
        coefficients = self._coefficients(plan.dtypes)
        account.text = _ANY
        stopped = None
        try:
            plan.run(arrays, coefficients)
        except Stopped as error:
            stopped = error
        if stopped is not None:
            names = [trees.name(path) for path in plan.paths]
            unmoved = {*stopped.partly, *stopped.still}
            account.close(
                stopped.reason,
                [names[number] for number in stopped.partly],
                [name for number, name in enumerate(names) if number not in unmoved],
                [names[number] for number in stopped.still],
            )


class Whole(Optimizer):
    """An optimizer whose rule needs a whole array: norms, products, sums along an axis.

    It is written as `apply_single`, which may change the parameter in place or return a new one, and `exact`. Its slots
    may have shapes of their own.

    Example:
        >>> import numpy as np
        >>> from mlx_optimizers.optimizer import Slot, Whole
        >>> class Rows(Whole):
        ...     slots = (Slot("v", shape=lambda s: s[:-1]),)
        ...     def __init__(self, learning_rate):
        ...         super().__init__()
        ...         self.learning_rate = learning_rate
        ...     def apply_single(self, gradient, parameter, state):
        ...         state["v"] += np.sum(gradient * gradient, axis=-1)
        ...         rate = np.float32(self.learning_rate)
        ...         return parameter - rate * gradient / np.sqrt(state["v"])[..., None]
        >>> optimizer, w = Rows(0.5), np.zeros((1, 2), np.float32)
        >>> optimizer.update(w, np.float32([[3, 4]]))  # v = 25
        >>> print(w, optimizer.state["v"])
        [[-0.3 -0.4]] [25.]
    """


def _shape(slot: str, shape: tuple[int, ...]) -> tuple[int, ...]:
    """The shape of a slot of a parameter of this shape."""
    return slot.shape(shape) if isinstance(slot, Slot) else shape


def _single(value: float) -> npt.NDArray[Any]:
    """A float32 0-d array; infinite where the double is beyond float32."""
    with np.errstate(over="ignore"):
        return np.array(value, np.float32)


def _is_missing(found: Any) -> bool:
    """Whether nothing stands at a key of a state, or what a look there makes: an empty dictionary, or None."""
    return found is None or (isinstance(found, dict) and not found)


def _step_of(found: Any) -> int:
    """The number of updates that a state names."""
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


_LAST_STEP = 2**64 - 1


def _is_numeric(array: npt.NDArray[Any]) -> bool:
    """Whether MLX has arrays of this dtype."""
    return array.dtype.kind in "biu" or array.dtype.name in trees.FLOATS


def _few(names: Sequence[str]) -> str:
    """The first names of many."""
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")


def _tied(first: _Leaf, second: _Leaf) -> ValueError:
    return ValueError(
        f"parameters {first.name} and {second.name} share memory; sum their gradients and give one path, or use "
        "apply_gradients, which returns a new array for each"
    )


def _below(node: Any, key: Any) -> Any:
    """What stands in a dictionary or list of the state, or None; nothing is made."""
    if isinstance(node, dict):
        return dict.get(node, key)
    return node[key] if isinstance(node, list) and isinstance(key, int) and 0 <= key < len(node) else None


def _fits(state: Any, parameters: Any, *, top: bool = True) -> bool:
    """Whether anything in a state stands where a parameter does."""
    if _is_missing(state) or not trees.is_node(parameters):
        return isinstance(state, dict) and not _is_missing(state)
    children = parameters.items() if isinstance(parameters, dict) else enumerate(parameters)
    return any(
        _fits(_below(state, _state_path((key,))[0] if top else key), child, top=False) for key, child in children
    )


def _state_path(path: Path) -> Path:
    """Where the state of a parameter stands: at its path, but beside the counters."""
    first = path[0] if path else None
    if isinstance(first, str) and first.rstrip("_") in _COUNTERS:
        return (f"{first}_", *path[1:])
    return path


def _copied(tree: Any, path: Path = ()) -> Any:
    """A state with its own arrays, which may be MLX's."""
    if isinstance(tree, dict):
        return OptimizerState({key: _copied(child, (*path, key)) for key, child in tree.items()})
    if isinstance(tree, list | tuple):
        return [_copied(child, (*path, index)) for index, child in enumerate(tree)]
    trees.refuse_container(tree, trees.label("state", path))
    trees.refuse_masked(tree, trees.label("state", path))
    return type(tree)(tree) if trees.is_mlx(tree) else np.array(tree)
