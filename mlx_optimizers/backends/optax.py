"""optax, jitted, and transformations of the user's own."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from importlib.metadata import version
from operator import attrgetter
from typing import Any

import jax
import jax.numpy as jnp
import optax
import optax.contrib

from mlx_optimizers.backends import CHECKED, Claims, Unavailable, counterpart, relative, require_matrix
from mlx_optimizers.conformance import Case, Run, Unsupported

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
        if case.dtype == "float64" and not jax.config.jax_enable_x64:
            raise Unsupported("jax computes float64 only when it is started with jax_enable_x64")
        with jax.default_device(self._device):
            return Run.from_steps(case, self._steps(case))

    def _steps(self, case: Case) -> Iterator[tuple[jax.Array, dict[str, jax.Array]]]:
        transformation = self.transformation(case)

        @jax.jit  # type: ignore[untyped-decorator]
        def step(gradient: Any, state: Any, parameter: Any) -> Any:
            updates, state = transformation.update(gradient, state, parameter)
            return optax.apply_updates(parameter, updates), state

        w = jnp.asarray(case.parameter)
        state = transformation.init(w)
        for gradient in case.gradients:
            w, state = step(jnp.asarray(gradient), state, w)
            shown = {ours: optax.tree.get_all_with_path(state, theirs) for theirs, ours in self.slots(case).items()}
            found = {
                name: [value for _, value in values if isinstance(value, jax.Array)] for name, values in shown.items()
            }
            yield w, {name: values[0] for name, values in found.items() if values}


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


def _rate(case: Case) -> Any:
    """Return a number, or a schedule over optax' count of updates."""
    rate = case.hyperparameters["learning_rate"]
    if not isinstance(rate, list):
        return rate
    rates = jnp.asarray(rate, jnp.float32)
    return lambda count: rates[count]


def _adafactor(case: Case) -> dict[str, Any]:
    """Rename the hyperparameters of Adafactor; a case of few elements is factored all the same."""
    h = relative(case, "optax.adafactor", relative_step=False, warmup_init=False)
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
