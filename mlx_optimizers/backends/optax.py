"""optax, jitted, and transformations of the user's own."""

from __future__ import annotations

import contextlib
import inspect
from collections.abc import Callable, Iterator, Mapping
from importlib.metadata import version
from operator import attrgetter
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import optax.contrib

from mlx_optimizers.backends import CHECKED, Claims, Unavailable, counterpart, relative, require_matrix
from mlx_optimizers.catalog import entry_of
from mlx_optimizers.conformance import Case, Run, Unsupported
from mlx_optimizers.conformance.verdict import Computed
from mlx_optimizers.kinds import Shape

__all__ = ["Optax", "OptaxFunction"]


class OptaxFunction(Claims):
    """Any function that returns a gradient transformation, with its update jitted.

    Args:
        function: Returns the transformation; it takes a learning rate or a schedule.
        name: Name of the backend.
        device: ``"cpu"`` or ``"gpu"``.
    """

    def __init__(self, function: Callable[..., Any], name: str, device: str) -> None:
        try:
            self._device = jax.devices(device)[0]
        except RuntimeError as error:
            raise Unavailable(f"jax has no device {device!r} here") from error
        self.name = name
        self.version = version("optax")
        self.device = device
        self._function = function

    def transformation(self, case: Case) -> Any:
        """Build the transformation for a case."""
        return _called(self._function, case)

    def run(self, case: Case) -> Run:
        """Compute a case."""
        precise = jax.enable_x64(True) if case.dtype == "float64" else contextlib.nullcontext()
        with precise, jax.default_device(self._device):
            return Run.of_tree(case, self._steps(case))

    def unclaimed(self, case: Case) -> str | None:
        """Say why a case with gradients of another dtype is not claimed."""
        return "optax computes (1 − β)g in the dtype of the gradient" if case.gradient_dtype else None

    def _steps(self, case: Case) -> Iterator[list[Computed]]:
        step = self._jitted(case)
        tree = [jnp.asarray(leaf.parameter) for leaf in case.each]
        state = self.transformation(case).init(tree)
        if case.state:
            state = self._resumed(case, state)
        for index in range(len(case.gradients)):
            if index == case.saved:
                step = self._jitted(case)
            gradients = [jnp.asarray(leaf.given(index)) for leaf in case.each]
            tree, state = step(gradients, state, tree)
            yield [
                (w, self._shown(state, number, leaf), gradients[number])
                for number, (w, leaf) in enumerate(zip(tree, case.each, strict=True))
            ]

    def _jitted(self, case: Case) -> Any:
        """Make a fresh transformation, and jit a step of it."""
        transformation = self.transformation(case)

        @jax.jit  # type: ignore[untyped-decorator]
        def step(gradients: Any, state: Any, tree: Any) -> Any:
            updates, state = transformation.update(gradients, state, tree)
            return optax.apply_updates(tree, updates), state

        return step

    def _shown(self, state: Any, number: int, case: Case) -> dict[str, jax.Array]:
        """Collect the slots of a parameter that are known, under our names."""
        shown = {ours: optax.tree.get_all_with_path(state, theirs) for theirs, ours in self.slots(case).items()}
        found = {name: [tree[number] for _, tree in values if isinstance(tree, list)] for name, values in shown.items()}
        arrays = {name: [x for x in values if isinstance(x, jax.Array)] for name, values in found.items()}
        return {name: values[0] for name, values in arrays.items() if values}

    def _resumed(self, case: Case, state: Any) -> Any:
        """Set the state of a case by its names, which are optax' or ours.

        Raises:
            Unsupported: where it has no such names, or a count has another than ``count``.
        """
        for path, leaf in jax.tree_util.tree_leaves_with_path(state):
            name = str(getattr(path[-1], "name", getattr(path[-1], "key", "")))
            if name != "count" and jnp.ndim(leaf) == 0 and jnp.issubdtype(jnp.result_type(leaf), jnp.integer):
                raise Unsupported(f"what the state of {self.name} counts as {name or 'a number'} is not known")
        record = entry_of(case.optimizer).elsewhere.get("optax")
        theirs = {ours: name for name, ours in record.slots.items()} if record else {}
        values: dict[str, Any] = {}
        for ours in case.state:
            name = theirs.get(ours, ours)
            found = [tree for _, tree in optax.tree.get_all_with_path(state, name, _is_of_arrays)]
            if found:
                pairs = zip(case.each, found[0], strict=True)
                values[name] = [jnp.asarray(leaf.state[ours]).reshape(x.shape) for leaf, x in pairs]
            elif self._keeps(ours, case):
                raise Unsupported(f"the state of {self.name} shows no {name}")
        state = optax.tree.set(state, _is_of_arrays, **values)
        counted = optax.tree.get_all_with_path(state, "count")
        return optax.tree.set(state, count=jnp.asarray(case.step, jnp.int32)) if counted else state

    def _keeps(self, slot: str, case: Case) -> bool:
        """Say whether a slot plays a part: SGD has one with momentum alone."""
        return case.optimizer != "SGD" or bool(case.hyperparameters["momentum"])


def _is_of_arrays(path: Any, tree: Any) -> bool:
    """Say whether a part of a state has an array for each parameter; one of a group may have none for some."""
    return isinstance(tree, list) and all(isinstance(x, jax.Array) for x in tree)


class Optax(OptaxFunction):
    """The optimizers of optax.

    Args:
        device: ``"cpu"`` or ``"gpu"``.
    """

    library = "optax"
    checked = CHECKED["optax"]

    def __init__(self, device: str = "cpu") -> None:
        super().__init__(optax.sgd, "optax", device)

    def transformation(self, case: Case) -> Any:
        """Build the transformation for a case; SGD has its weight decay chained before it, as optax documents."""
        if case.optimizer == "SGD":
            h = case.hyperparameters
            if h["dampening"]:
                raise Unsupported("optax.sgd has no dampening")
            decay = optax.add_decayed_weights(h["weight_decay"])
            # Without momentum there is no buffer; 0 would keep one that is the gradient.
            return optax.chain(decay, optax.sgd(_rate(case), momentum=h["momentum"] or None, nesterov=h["nesterov"]))
        if case.optimizer == "Adafactor":
            return optax.adafactor(**_adafactor(case))
        if case.optimizer == "Muon":
            require_matrix(case, "optax.contrib.muon")
        return _called(attrgetter(counterpart("optax", case.optimizer).name)(optax), case)

    def slots(self, case: Case) -> Mapping[str, str]:
        """Map optax' names of the state arrays to ours: its rows run along the longer of two axes."""
        slots = dict(super().slots(case))
        if case.optimizer == "Adafactor" and _longest(case.parameter.shape)[1:] == [case.parameter.ndim - 2]:
            slots["v_row"], slots["v_col"] = slots["v_col"], slots["v_row"]
        return slots


def _longest(shape: Shape) -> list[int]:
    """List the two longest axes of a shape, the longer last, as optax.adafactor chooses them."""
    axes: list[int] = np.argsort(shape)[-2:].tolist()
    return axes


def _rate(case: Case) -> Any:
    """Return a number, or a schedule over optax' count of updates."""
    rate = case.hyperparameters["learning_rate"]
    if not isinstance(rate, list):
        return rate
    rates = jnp.asarray(rate, float)  # float32, or float64 where jax computes that
    return lambda count: rates[count]


def _adafactor(case: Case) -> dict[str, Any]:
    """Rename the hyperparameters of Adafactor; a case of few elements is factored all the same."""
    h = relative(case, "optax.adafactor", relative_step=False, warmup_init=False)
    for leaf in case.each:
        last = list(range(leaf.parameter.ndim))[-2:]
        if sorted(_longest(leaf.parameter.shape)) != last:
            raise Unsupported("optax.adafactor takes its means along the two longest axes, not the last two")
    eps, least = h["eps"]
    if h["scale_parameter"] and least != 1e-3:
        raise Unsupported("optax.adafactor has an ε₂ of 1e-3 alone")
    return {
        "learning_rate": _rate(case),
        "min_dim_size_to_factor": 1,
        "decay_rate": -h["decay_rate"],
        "multiply_by_parameter_scale": h["scale_parameter"],
        "clipping_threshold": h["clip_threshold"],
        "momentum": h["beta_1"],
        "weight_decay_rate": h["weight_decay"] or None,
        "eps": eps,
    }


def _called(function: Callable[..., Any], case: Case) -> Any:
    """Call a function with all hyperparameters, by the names that it has for them."""
    parameters = inspect.signature(function).parameters
    anything = any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters.values())
    out = {}
    for name, value in {**case.hyperparameters, "learning_rate": _rate(case)}.items():
        if name in parameters or anything:
            out[name] = value
        elif name == "betas" and {"b1", "b2"} <= set(parameters):
            out["b1"], out["b2"] = value
        elif name == "alpha" and "decay" in parameters:
            out["decay"] = value
        elif name == "momentum" and "beta" in parameters:
            out["beta"] = value
        else:
            raise Unsupported(f"{getattr(function, '__name__', function)} takes no {name}")
    return function(**out)
