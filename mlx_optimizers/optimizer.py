"""The base class: trees of parameters, steps, the learning rate, the state."""

from __future__ import annotations

import contextlib
import copy
import inspect
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from mlx_optimizers import trees
from mlx_optimizers.blocks import Blocks, Halted
from mlx_optimizers.hyperparameters import at_least_zero, explained
from mlx_optimizers.plan import Plan, Stopped
from mlx_optimizers.state import OptimizerState
from mlx_optimizers.trees import Path

__all__ = ["LearningRate", "Optimizer"]

LearningRate = float | Callable[[int], Any]
"""A learning rate λ: a number, or a schedule from the number of updates done to one."""

_COUNTERS = ("step", "learning_rate")


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


class Optimizer:
    """The base class of all optimizers: it applies a rule for one array to a tree of parameters.

    Parameters and gradients are nested dictionaries, lists and tuples of arrays, or one bare array; the gradients may
    cover a part of the parameters. The arrays are NumPy's or MLX's, of dtype float32, float64, float16 or bfloat16;
    each is computed in its own dtype, and keeps it. :meth:`update` changes a model, :meth:`apply_gradients` returns
    new parameters.

    State:
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

        One written as those of this package. It names its slots, which start as zeros, changes parameter and slots in
        place, and has its formula a second time, over the numbers of an oracle:

        >>> class Signum(optim.Optimizer):
        ...     slots = ("v",)
        ...     def __init__(self, learning_rate, momentum=0.5):
        ...         super().__init__()
        ...         self.learning_rate = learning_rate
        ...         self.momentum = float(momentum)
        ...     def apply_single(self, gradient, parameter, state):
        ...         real, v = parameter.dtype.type, state["v"]
        ...         v *= real(self.momentum)
        ...         v += gradient
        ...         parameter -= real(self.learning_rate) * np.sign(v)
        ...         return parameter
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
    """Names of the state arrays of one parameter; each starts as zeros of the parameter's shape and dtype."""

    advance: ClassVar[Callable[..., None]]
    """One step of a block in place; ``advance(n, w, g, *slots, *scratch)``, where ``n`` are its `coefficients`."""

    scratch: ClassVar[int] = 2
    """Number of scratch arrays that ``advance`` gets, of the shape and dtype of its block."""

    exact: ClassVar[Callable[..., Any]]
    """One step over the numbers of an oracle context; ``exact(n, h, t, w, g, *slots)`` returns the new w and slots."""

    @explained
    def __init__(self) -> None:
        self._state = OptimizerState(step=np.array(0, np.uint64))
        self._schedules: dict[str, Callable[[int], Any]] = {}
        self._rate = 0.0
        self._image: npt.NDArray[Any] | None = None
        self._plan: Plan | None = None

    # Hyperparameters

    @property
    def state(self) -> OptimizerState:
        """The state, which is the step, the learning rate, and the slots of every parameter as NumPy arrays.

        It is live: the next update changes its arrays. Assigning a tree of NumPy or MLX arrays copies it; keys that
        are not in it keep their values at ``step`` and ``learning_rate``, and are made anew elsewhere. A schedule
        stays, and goes on from the new step.

        Raises:
            TypeError: for what is no dictionary, and a step or a learning rate that is no number.
            ValueError: for a negative step or learning rate; the state is then as it was.
        """
        return self._state

    @state.setter
    def state(self, state: dict[str, Any]) -> None:
        if not isinstance(state, dict):
            raise TypeError(f"state must be a dictionary, not {type(state).__name__}")
        counters = {key: self._state[key] for key in _COUNTERS if key in self._state}
        new = OptimizerState({**counters, **_copied(state)})
        new["step"] = _step_of(new["step"])
        rate = self._rate_of(new["learning_rate"]) if "learning_rate" in new else None
        self._state, self._plan = new, None
        if rate is not None:
            self._set_rate(rate)

    @property
    def step(self) -> npt.NDArray[np.uint64]:
        """The number of updates done, a 0-d array."""
        step: npt.NDArray[np.uint64] = self._state["step"]
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
        if "learning_rate" not in self._state:
            raise AttributeError(f"{type(self).__name__} has no learning rate")
        self._read_rate()
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
        self._state["learning_rate"] = self._image = _single(self._rate)

    def _read_rate(self) -> None:
        """Take over a rate that was put into the state meanwhile; it ends a schedule, as setting the attribute does."""
        current = self._state["learning_rate"]
        if current is not self._image or current != _single(self._rate):
            self._set_rate(self._rate_of(current))
            self._schedules.pop("learning_rate", None)

    def _rate_of(self, found: Any) -> float:
        """The rate that is meant by what stands in a state: the image of the double that is kept means that double."""
        image = isinstance(found, np.ndarray) and found.dtype == np.float32
        if image and np.array_equal(found, _single(self._rate)):
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

    # The rule, to be extended: for an element that is moved by its own gradient alone, `coefficients` and `advance`;
    # for any other, `apply_single`.

    def coefficients(self, real: Any) -> tuple[Any, ...]:
        """The coefficients of one step, which `advance` gets first.

        Args:
            real: The dtype as a class, such as ``numpy.float32``, that rounds a number to it.
        """
        raise NotImplementedError(f"{type(self).__name__} has no coefficients")

    def init_single(self, parameter: npt.NDArray[Any], state: dict[str, Any]) -> None:
        """Put the slots of one parameter into its state.

        Args:
            parameter: The parameter w.
            state: The dictionary of its slots, empty so far.
        """
        for slot in self.slots:
            state[slot] = np.zeros(parameter.shape, parameter.dtype)

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
            NotImplementedError: where the class has neither this method nor `advance`.
        """
        if not hasattr(self, "advance"):
            raise NotImplementedError(f"{type(self).__name__} has no apply_single")
        changed = (parameter, *(state[slot] for slot in self.slots))
        flat = all(array.flags.c_contiguous for array in (gradient, *changed))
        coefficients = {parameter.dtype: self.coefficients(parameter.dtype.type)}
        try:
            Blocks([changed], [flat], self.scratch).run([gradient], self.advance, coefficients)
        except Halted as halted:
            raise (halted.__cause__ or halted) from None
        return parameter

    # Trees

    def init(self, parameters: Any) -> None:
        """Make the state of every parameter; optional, the first update makes what is missing.

        Args:
            parameters: A tree of arrays.

        Raises:
            TypeError, ValueError: as :meth:`update` raises them.
        """
        found = list(trees.leaves(parameters))
        ready = [
            _Leaf(path, given, w, w)
            for path, given in found
            for w in [trees.to_numpy(given, trees.label("parameter", path))]
        ]
        self._require_state(ready)
        for leaf in ready:
            self._slots_of(leaf)

    def update(self, model: Any, gradients: Any) -> None:
        """Apply gradients to the parameters of a model.

        Parameters that are NumPy arrays are changed in place. With others, such as the MLX arrays of an
        ``mlx.nn.Module``, the model is given new leaves of the kind that came in.

        Args:
            model: A tree of parameters, or a module with an ``update`` method that takes one.
            gradients: A tree of gradients of the same structure, or of a part of it; floating point arrays of their
                parameters' shapes. Another float dtype than the parameter's is cast to it.

        Raises:
            KeyError: for a gradient of a parameter that is not there.
            TypeError: for a leaf that is no array of floats, or one that cannot be changed in place.
            ValueError: for shapes that differ, a parameter that is read-only or a view of an MLX array, parameters that
                overlap, or a state that does not fit; parameters and state are then as they were.
            RuntimeError: when the step itself failed halfway; says what had moved.

        Example:
            >>> import numpy as np
            >>> import mlx_optimizers as optim
            >>> model = {"w": np.float32([1, 2]), "b": np.float32(0)}
            >>> optim.SGD(0.5).update(model, {"w": np.float32([2, -2])})
            >>> model["w"]
            array([0., 3.], dtype=float32)
        """
        if self._plan is not None:
            ready = self._plan.gradients(gradients, model, self._state)
            if ready is not None:
                with self._counted(self._scheduled()):
                    self._run(self._plan, ready)
                return
            self._plan = None
        found = self._found(gradients, model)
        if all(isinstance(leaf.given, np.ndarray) for leaf in found):
            self._require_writable(found)
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
            KeyError, TypeError, ValueError, RuntimeError: as :meth:`update` does.

        Example:
            >>> import numpy as np
            >>> import mlx_optimizers as optim
            >>> optim.SGD(0.5).apply_gradients({"w": np.float32([2])}, {"w": np.float32([1]), "b": np.float32([7])})
            {'w': array([0.], dtype=float32)}
        """
        found = self._found(gradients, parameters)
        new = self._applied(found)
        return trees.rebuilt(gradients, new.__getitem__)

    def _applied(self, found: list[_Leaf]) -> dict[Path, Any]:
        for leaf in found:
            leaf.w = np.array(leaf.w)
        self._advance(found)
        return {leaf.path: trees.like(leaf.given, leaf.w) for leaf in found}

    def _found(self, gradients: Any, parameters: Any) -> list[_Leaf]:
        """Every gradient with its parameter, converted and checked."""
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
        """The slots that stand at a path, or None; nothing is made."""
        node: Any = self._state
        for key in _state_path(path):
            if isinstance(node, dict):
                node = dict.get(node, key)
            else:
                node = node[key] if isinstance(node, list) and key < len(node) else None
        if node is not self._state:
            if node is not None and not isinstance(node, dict):
                raise ValueError(f"the state of {trees.name(path)} is a {type(node).__name__}, not its slots")
            return node
        return {key: value for key, value in node.items() if key not in _COUNTERS}

    def _require_state(self, found: Sequence[_Leaf]) -> None:
        """Refuse a state that does not fit; an empty one is made later."""
        for leaf in found:
            slots = self._slots_at(leaf.path)
            for slot in self.slots if slots else ():
                if slot not in slots:  # type: ignore[operator]
                    raise KeyError(f"the state of {leaf.name} has no {slot}")
                array = trees.to_numpy(slots[slot], f"state {slot} of {leaf.name}")  # type: ignore[index]
                if array.shape != leaf.w.shape:
                    raise ValueError(f"state {slot} of {leaf.name} has shape {array.shape}, not {leaf.w.shape}")
                if array.dtype != leaf.w.dtype:
                    raise ValueError(f"state {slot} of {leaf.name} has dtype {array.dtype}, not {leaf.w.dtype}")

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
        self._require_state(found)
        rates = self._scheduled()
        states = [self._slots_of(leaf) for leaf in found]
        self._separate(found, states)
        if type(self).apply_single is Optimizer.apply_single and hasattr(self, "advance"):
            return self._in_blocks(found, states, rates)
        before = [dict(state) for state in states]
        results: list[npt.NDArray[Any]] = []
        with self._counted(rates):
            try:
                for leaf, state in zip(found, states, strict=True):
                    # A copy of the gradient: what is written for MLX may change it, as MLX's own SGD does.
                    results.append(self._result(leaf, self.apply_single(leaf.g.copy(), leaf.w, state)))
            except Exception as error:
                self._restore(states, before)
                self._explain(found, results, error)
                raise
        for leaf, result in zip(found, results, strict=True):
            if result is not leaf.w:
                leaf.w[...] = result
        return None

    def _in_blocks(self, found: list[_Leaf], states: list[dict[str, Any]], rates: dict[str, Any]) -> Plan:
        """One step of a rule for single elements; its plan serves the next step of the same arrays."""
        parameters, gradients = [leaf.w for leaf in found], [leaf.g for leaf in found]
        with self._counted(rates):
            coefficients = {w.dtype: self.coefficients(w.dtype.type) for w in parameters}
            plan = Plan(
                [leaf.path for leaf in found],
                parameters,
                gradients,
                states,
                self.slots,
                self.advance,
                self.scratch,
                coefficients,
            )
            self._run(plan, gradients)
        return plan

    def _run(self, plan: Plan, gradients: list[npt.NDArray[Any]]) -> None:
        """One planned step."""
        try:
            plan.run(gradients, {dtype: self.coefficients(dtype.type) for dtype in plan.dtypes})
        except Stopped as stopped:
            names = [trees.name(path) for path in plan.paths]
            unmoved = {*stopped.partly, *stopped.still}
            raise _failure(
                [names[number] for number in stopped.partly],
                [name for number, name in enumerate(names) if number not in unmoved],
                [names[number] for number in stopped.still],
                stopped.__cause__,
            ) from stopped.__cause__

    def _scheduled(self) -> dict[str, Any]:
        """What the schedules give for the next step."""
        if "learning_rate" in self._state:
            self._read_rate()
        rates = {name: schedule(int(self.step)) for name, schedule in self._schedules.items()}
        if "learning_rate" in rates:
            at_least_zero("learning_rate", rates["learning_rate"])
        return rates

    @contextlib.contextmanager
    def _counted(self, rates: dict[str, Any]) -> Iterator[None]:
        """Count a step, with what the schedules gave; where it fails, it is as if it had not begun."""
        step, rate, image = self.step, self._rate, self._image
        others = {name: self._state[name] for name in rates if name != "learning_rate"}
        for name, value in rates.items():
            self._set_rate(value) if name == "learning_rate" else self._state.update({name: np.asarray(value)})
        self._state["step"] = np.array(int(step) + 1, np.uint64)
        try:
            yield
        except BaseException:
            self._state.update({**others, "step": step})
            if image is not None:
                self._rate, self._image = rate, image
                self._state["learning_rate"] = image
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
            if not ours or in_parameter(array):
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

    def _explain(self, found: list[_Leaf], results: list[npt.NDArray[Any]], error: Exception) -> None:
        """Say what had moved in place when a step failed; where nothing had, the error speaks for itself."""
        moved = [leaf.name for leaf, result in zip(found, results, strict=False) if result is leaf.w]
        if not moved and not self.slots:
            return
        left = [leaf.name for leaf in found[len(results) :]]
        raise _failure(left[:1], moved, left[1:], error) from error

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


def _failure(partly: list[str], moved: list[str], still: list[str], cause: BaseException | None) -> RuntimeError:
    """A step that ended early, by the names of the parameters."""
    at, moved_text, still_text = (", ".join(names) or "none" for names in (partly, moved, still))
    return RuntimeError(
        f"the step failed at {at}, which may have moved in part ({type(cause).__name__}: {cause}); "
        f"moved: {moved_text}; not moved: {still_text}"
    )


def _single(value: float) -> npt.NDArray[Any]:
    """A float32 0-d array; infinite where the double is beyond float32."""
    with np.errstate(over="ignore"):
        return np.array(value, np.float32)


def _step_of(found: Any) -> npt.NDArray[np.uint64]:
    """The number of updates that a state to be taken over names."""
    array = np.asarray(found)
    if array.ndim or array.dtype.kind not in "iu":
        raise TypeError(f"state step must be a whole number, not {found!r}")
    if array < 0:
        raise ValueError(f"state step must be at least 0, not {int(array)}")
    return array.astype(np.uint64)


def _tied(first: _Leaf, second: _Leaf) -> ValueError:
    return ValueError(
        f"parameters {first.name} and {second.name} share memory; sum their gradients and give one path, or use "
        "apply_gradients, which returns a new array for each"
    )


def _state_path(path: Path) -> Path:
    """Where the state of a parameter stands: at its path, but beside the counters."""
    first = path[0] if path else None
    if isinstance(first, str) and first.rstrip("_") in _COUNTERS:
        return (f"{first}_", *path[1:])
    return path


def _copied(tree: Any, path: Path = ()) -> Any:
    """A state with its own arrays, which may come from MLX."""
    if isinstance(tree, dict):
        return OptimizerState({key: _copied(child, (*path, key)) for key, child in tree.items()})
    if isinstance(tree, list | tuple):
        return [_copied(child, (*path, index)) for index, child in enumerate(tree)]
    trees.refuse_container(tree, trees.label("state", path))
    if trees.is_mlx(tree) and "float" in str(tree.dtype):
        return trees.to_numpy(tree, "state")
    return np.array(tree)
