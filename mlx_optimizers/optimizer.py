"""The base class of all optimizers, which steps trees of parameters, and the two kinds of them."""

from __future__ import annotations

import contextlib
import inspect
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from mlx_optimizers import leaves, state, trees
from mlx_optimizers.execution import compiled
from mlx_optimizers.execution.blocks import Columns
from mlx_optimizers.execution.plan import Plan
from mlx_optimizers.execution.program import Coefficients, bind
from mlx_optimizers.execution.threads import Stopped, threads
from mlx_optimizers.hyperparameters import explained
from mlx_optimizers.interrupts import Held
from mlx_optimizers.leaves import Leaf
from mlx_optimizers.rates import Counted, LearningRate, Rates
from mlx_optimizers.state import Declared, OptimizerState, Slot

__all__ = ["Elementwise", "LearningRate", "Optimizer", "Slot", "Whole"]

_Array = npt.NDArray[Any]


class Optimizer:
    """The base class of all optimizers: it applies a rule for one array to a tree of parameters.

    Parameters and gradients are nested dictionaries, lists and tuples of arrays, or one bare array; the gradients may
    cover a part of the parameters. The arrays are NumPy's or MLX's, of dtype float32, float64, float16 or bfloat16;
    each is computed in its own dtype, and keeps it. :meth:`update` changes a model, :meth:`apply_gradients` returns
    new parameters. :doc:`Own optimizers </guides/own_optimizer>` are written as for MLX, or as those of this package.

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

    exact: ClassVar[Callable[..., Any]]
    """One step over the numbers of an oracle context; ``exact(n, h, t, w, g, *slots)`` returns the new w and slots."""

    def __init_subclass__(cls, **arguments: Any) -> None:
        super().__init_subclass__(**arguments)
        own = vars(cls)
        rules = "init_single" in own or "apply_single" in own  # which may put other slots into the state
        complete = "slots" in own or (cls._declared.complete and not rules)
        slots = cls._declared.slots
        if "slots" in own:
            slots = tuple(slot if isinstance(slot, Slot) else Slot(slot) for slot in cls.slots)
            cls.slots = tuple(map(str, slots))
        cls._declared = Declared(slots, cls.__name__, complete)

    @explained
    def __init__(self) -> None:
        self._rates = Rates()
        self._cold: frozenset[trees.Path] = frozenset()  # parameters that a warning has named
        self._plan: Plan | None = None

    # Hyperparameters and state

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
        return self._rates.state

    @state.setter
    def state(self, state: dict[str, Any]) -> None:
        self._rates.replace(state)
        self._plan = None

    @property
    def step(self) -> npt.NDArray[np.uint64]:
        """The number of updates done, a 0-d array.

        Raises:
            TypeError, ValueError: where what stands in the state is no such number.
        """
        self._rates.step()
        step: npt.NDArray[np.uint64] = self._rates.state["step"]
        return step

    @property
    def learning_rate(self) -> np.float64:
        """The learning rate λ as the double that was given; ``state["learning_rate"]`` is its float32 image.

        Assigning a number to either replaces it, and a schedule with it; assigning a callable sets a schedule.

        Raises:
            ValueError: for a number that is negative or not finite.
            TypeError: for what is neither a number nor callable.
            AttributeError: when the optimizer has none.
        """
        rate = self._rates.rate()
        if rate is None:
            raise AttributeError(f"{type(self).__name__} has no learning rate")
        return np.float64(rate)

    @learning_rate.setter
    def learning_rate(self, value: LearningRate) -> None:
        self._rates.schedule("learning_rate", value)

    def _maybe_schedule(self, name: str, value: Any) -> None:
        """As in MLX: keep a hyperparameter in the state, on a schedule where it is callable."""
        self._rates.schedule(name, value)

    def check_together(self) -> None:
        """Raise ValueError where hyperparameters that are each allowed are not so together; to be extended."""

    # The rule, to be extended

    def init_single(self, parameter: _Array, state: dict[str, Any]) -> None:
        """Put the slots of one parameter into its state, which is an empty dictionary."""
        for slot in self._declared.slots:
            state[str(slot)] = np.zeros(slot.shape(parameter.shape), parameter.dtype)

    def apply_single(self, gradient: _Array, parameter: _Array, state: dict[str, Any]) -> _Array:
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
        found = leaves.unpaired(parameters)
        with self._in_numpy(found):
            self._require_state(found, parameters, adding=True)
            for leaf in found:
                state.slots_of(self.state, leaf, self.init_single)

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
            found = self._paired(gradients, model)
            if all(isinstance(leaf.given, np.ndarray) for leaf in found):
                leaves.require_writable(found)
                with self._in_numpy(found):
                    self._require_state(found, model)
                    self._plan = self._advance(found)
                return
            has_update = getattr(type(model), "update", dict.update) is not dict.update
            parents = leaves.require_replaceable(found, model, has_update=has_update)
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
            found = self._paired(gradients, parameters)
            with self._in_numpy(found):
                self._require_state(found, parameters)
                new = self._applied(found)
            return trees.rebuilt(gradients, new.__getitem__)

    # The step

    @staticmethod
    def _paired(gradients: Any, parameters: Any) -> list[Leaf]:
        threads(), compiled.choice()  # a setting that is none is found before anything else
        return leaves.paired(gradients, parameters)

    def _planned(self, gradients: Any, model: Any) -> bool:
        """One step by the plan of the last, if that serves it; says whether it did."""
        return False

    def _applied(self, found: list[Leaf]) -> dict[trees.Path, Any]:
        for leaf in found:
            leaf.w = np.array(leaf.w)
        self._advance(found)
        return {leaf.path: trees.like(leaf.given, leaf.w) for leaf in found}

    def _advance(self, found: list[Leaf]) -> Plan | None:
        """One step of all leaves: everything that can fail beforehand does, before anything moves."""
        due = self._rates.due()
        states = [state.slots_of(self.state, leaf, self.init_single) for leaf in found]
        state.separate(states, [leaf.w for leaf in found], self._declared.slots)
        return self._advance_all(found, states, due)

    def _advance_all(self, found: list[Leaf], states: list[dict[str, Any]], due: dict[str, Any]) -> Plan | None:
        """One step of all leaves, each by `apply_single`."""
        before = [dict(slots) for slots in states]
        results: list[_Array] = []
        with Counted(self._rates, due) as counted:
            counted.text = Counted.ANY
            try:
                for leaf, slots in zip(found, states, strict=True):
                    # A copy of the gradient: what is written for MLX may change it, as MLX's own SGD does.
                    results.append(leaf.result(self.apply_single(leaf.g.copy(), leaf.w, slots)))
                for leaf, result in zip(found, results, strict=True):
                    if result is not leaf.w:
                        leaf.w[...] = result
            except BaseException as error:
                for slots, old in zip(states, before, strict=True):
                    for key in set(slots) - set(old):
                        del slots[key]
                    slots.update(old)
                counted.text = ""
                moved = {place for place, result in enumerate(results) if result is found[place].w}
                left = {*range(len(found))} - moved
                # It failed in the rule that had not given its result; or then, between the new arrays of all.
                begun = moved | ({len(results)} if len(results) < len(found) else left)
                # An exception of a rule that had changed nothing in place speaks for itself.
                if moved or self.slots or not isinstance(error, Exception):
                    counted.close(error, [leaf.name for leaf in found], begun, left)
                raise
        return None

    def _require_state(self, found: Sequence[Leaf], parameters: Any, *, adding: bool = False) -> None:
        step = self._rates.step()
        late = state.require(self.state, step, found, parameters, self._declared, adding=adding)
        late = [leaf for leaf in late if leaf.path not in self._cold]
        if late:
            state.warn_of_late(late, step)
            self._cold |= {leaf.path for leaf in late}

    @contextlib.contextmanager
    def _in_numpy(self, found: Sequence[Leaf]) -> Iterator[None]:
        """Have NumPy arrays in the state while these parameters are advanced; then MLX's, where they are MLX's."""
        self._rates.step(), self._rates.rate()
        mlx = [leaf for leaf in found if trees.is_mlx(leaf.given)]
        afterwards = bool(mlx) if found else self._rates.mlx
        self._convert(found, mlx=False)
        try:
            yield
        finally:
            if afterwards:
                self._convert(mlx, mlx=True)
                self._plan = None  # a plan is of NumPy's arrays

    def _convert(self, found: Sequence[Leaf], *, mlx: bool) -> None:
        self._rates.convert((state.slots_at(self.state, leaf.path) or {} for leaf in found if leaf.path), mlx=mlx)

    @contextlib.contextmanager
    def _told(self, what: str) -> Iterator[None]:
        """Have an exception that comes when a step has been counted say what became of it."""
        before = self._rates.step()
        try:
            yield
        except BaseException as error:
            if self._rates.count != before:
                error.add_note(f"step {self._rates.count} is done in the state; {what}")
            raise

    # Copies and text

    def __copy__(self) -> Optimizer:
        made = type(self).__new__(type(self))
        made.__dict__.update(self.__dict__, _rates=self._rates.copy(), _plan=None)
        return made

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_plan": None}  # it is of the arrays of this one

    def __repr__(self) -> str:
        values = []
        for name in inspect.signature(type(self)).parameters:
            value = getattr(self, name, ...)
            if name == "learning_rate" and value is not ...:
                value = self._rates.schedules.get(name) or float(value)
            values.append(f"{name}={'…' if value is ... else repr(value)}")
        return f"{type(self).__name__}({', '.join(values)})"


class Elementwise(Optimizer):
    """An optimizer that moves each element by its own gradient alone.

    It is written as `coefficients`, `rule` and `exact`. No bit depends on how elements are spread over arrays, blocks
    and threads. A subclass that writes `apply_single` is advanced by that.
    """

    slots: ClassVar[tuple[str, ...]] = ()

    _by_array: ClassVar[bool] = False  # whether a subclass has an `apply_single` of its own

    def __init_subclass__(cls, **arguments: Any) -> None:
        super().__init_subclass__(**arguments)
        for slot in cls._declared.slots:
            if slot.shape((2, 3)) != (2, 3):
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

    def apply_single(self, gradient: _Array, parameter: _Array, state: dict[str, Any]) -> _Array:
        """Advance one parameter by one step, in place; see `Optimizer.apply_single`."""
        plan, columns = self._plan_of([()], [parameter], [state])
        gradients = plan.ready([np.broadcast_to(np.asarray(gradient, parameter.dtype), parameter.shape)])
        assert gradients is not None  # it is of the parameter's shape and dtype
        try:
            plan.run([columns[0], gradients, *columns[1:]], self._coefficients([parameter.dtype]))
        except Stopped as stopped:
            raise (stopped.__cause__ or stopped) from None
        return parameter

    def _coefficients(self, dtypes: Iterable[np.dtype[Any]]) -> Coefficients:
        rule, slots = type(self).rule, len(self.slots)
        return {dtype: bind(rule, tuple(self.coefficients(dtype.type)), slots) for dtype in dtypes}

    def _plan_of(
        self, paths: list[trees.Path], parameters: list[_Array], states: list[dict[str, Any]]
    ) -> tuple[Plan, Columns]:
        written = [parameters, *([slots[slot] for slots in states] for slot in self.slots)]
        coefficients = self._coefficients({w.dtype for w in parameters})
        return Plan(paths, written, self.slots, type(self).rule, coefficients), written

    def _planned(self, gradients: Any, model: Any) -> bool:
        plan = self._plan
        arrays = plan.arrays(gradients, model, self._rates.state) if plan is not None else None
        if plan is None or arrays is None:
            self._plan = None
            return False
        with Counted(self._rates, self._rates.due()) as counted:
            self._run(plan, arrays, counted)
        return True

    def _advance_all(self, found: list[Leaf], states: list[dict[str, Any]], due: dict[str, Any]) -> Plan | None:
        """One step of all leaves; its plan serves the next step of the same arrays."""
        if self._by_array:
            return super()._advance_all(found, states, due)
        with Counted(self._rates, due) as counted:
            parameters = [leaf.w for leaf in found]
            plan, (_, *slots) = self._plan_of([leaf.path for leaf in found], parameters, states)
            gradients = plan.ready([leaf.g for leaf in found])
            assert gradients is not None  # each was cast to its parameter's dtype
            self._run(plan, [parameters, gradients, *slots], counted)
        return plan

    def _run(self, plan: Plan, arrays: Columns, counted: Counted) -> None:
        """One planned step."""
        coefficients = self._coefficients(plan.dtypes)
        counted.text = Counted.ANY
        stopped = None
        try:
            plan.run(arrays, coefficients)
        except Stopped as error:
            stopped = error
        if stopped is not None:
            names = [trees.name(path) for path in plan.paths]
            counted.close(stopped.__cause__ or stopped, names, stopped.begun, stopped.left)


class Whole(Optimizer):
    """An optimizer whose rule needs a whole array: norms, products, sums along an axis.

    It is written as `apply_single`, which may change the parameter in place or return a new one, and `exact`. Its slots
    may have shapes of their own.
    """
