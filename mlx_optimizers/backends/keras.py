"""Keras, on jax, or on torch where jax is not installed."""

from __future__ import annotations

import contextlib
import importlib.util
import os
from collections.abc import Iterator
from typing import Any

if "KERAS_BACKEND" not in os.environ:  # Keras reads it once, when it is imported
    os.environ["KERAS_BACKEND"] = "jax" if importlib.util.find_spec("jax") else "torch"

import keras
import numpy as np

from mlx_optimizers.backends import CHECKED, Claims, Unavailable, counterpart, relative, require_matrix
from mlx_optimizers.conformance import Case, Run, Unsupported
from mlx_optimizers.conformance.verdict import Computed
from mlx_optimizers.kinds import FloatArray

__all__ = ["Keras"]

_HYPERPARAMETERS = {"alpha": "rho", "eps": "epsilon"}


class Keras(Claims):
    """The optimizers of Keras, eagerly."""

    name = "keras"
    library = "keras"
    checked = CHECKED["keras"]

    def __init__(self, device: str = "cpu") -> None:
        self._where = f"{device}:0"
        try:
            with keras.device(self._where):
                keras.ops.zeros(())
        except (AssertionError, RuntimeError, ValueError) as error:
            raise Unavailable(f"Keras on {keras.backend.backend()} has no device {device!r} here") from error
        self.version = f"{keras.__version__} on {keras.backend.backend()}"
        self.device = device

    def run(self, case: Case) -> Run:
        """Compute a case."""
        with keras.device(self._where), _precise() if case.dtype == "float64" else contextlib.nullcontext():
            return Run.of_tree(case, _steps(case, self))

    def unclaimed(self, case: Case) -> str | None:
        """Say why a case with gradients of another dtype is not claimed on torch, for which Keras has other code."""
        mixed = case.gradient_dtype is not None and keras.backend.backend() == "torch"
        return "Keras on torch computes with a gradient in the gradient's own dtype" if mixed else None


@contextlib.contextmanager
def _precise() -> Iterator[None]:
    """Let Keras keep the learning rate in float64, and jax compute it."""
    before = keras.config.floatx()
    with contextlib.ExitStack() as stack:
        if keras.backend.backend() == "jax":
            import jax

            stack.enter_context(jax.enable_x64(True))
        stack.callback(keras.config.set_floatx, before)
        keras.config.set_floatx("float64")
        yield


def _made(case: Case) -> keras.optimizers.Optimizer:
    """Make the optimizer of a case."""
    return getattr(keras.optimizers, counterpart("keras", case.optimizer).name)(**_arguments(case))


def _steps(case: Case, backend: Keras) -> Iterator[list[Computed]]:
    optimizer = _made(case)
    tree = [keras.Variable(leaf.parameter, dtype=case.dtype) for leaf in case.each]
    if case.state:
        optimizer.build(tree)
        optimizer.iterations.assign(case.step)
        for number, leaf in enumerate(case.each):
            for name, variable in _variables(leaf, optimizer, backend, number).items():
                values = leaf.state[name]
                variable.assign(-values if case.optimizer == "SGD" else values)
    for index, rate in enumerate(case.rates()):
        if index == case.saved:
            # As save_own_variables does, which NumPy 2 warns of.
            store = {str(number): _to_numpy(variable) for number, variable in enumerate(optimizer.variables)}
            optimizer = _made(case)
            optimizer.build(tree)
            optimizer.load_own_variables(store)
        if rate is not None:
            optimizer.learning_rate = rate
        dtype = case.gradient_dtype or case.dtype
        gradients = [keras.ops.convert_to_tensor(leaf.given(index), dtype=dtype) for leaf in case.each]
        optimizer.apply(gradients, tree)
        yield [
            (_to_numpy(w), _state(leaf, optimizer, backend, number), np.array(keras.ops.convert_to_numpy(gradient)))
            for number, (w, leaf, gradient) in enumerate(zip(tree, case.each, gradients, strict=True))
        ]


def _arguments(case: Case) -> dict[str, Any]:
    """Rename all hyperparameters to the names that Keras has for them."""
    if case.optimizer == "Muon":
        require_matrix(case, "keras.optimizers.Muon")
    if case.optimizer == "Adafactor":
        h = relative(case, "keras.optimizers.Adafactor", beta_1=None, scale_parameter=True, warmup_init=False)
        firsts = [np.atleast_2d(leaf.gradients[0]) for leaf in case.each]
        if not all(first.any(-1).all() or first.any(-2).all() for first in firsts if first.size):
            raise Unsupported("keras.optimizers.Adafactor multiplies two means of ε₁, which is 0: 0/0 for a 0 gradient")
        (h["epsilon_1"], h["epsilon_2"]), h["beta_2_decay"] = h.pop("eps"), h.pop("decay_rate")
        return h
    h = case.at_step(0)
    if h.pop("dampening", 0):
        raise Unsupported("keras.optimizers.SGD has no dampening")
    if "betas" in h:
        h["beta_1"], h["beta_2"] = h.pop("betas")
    if case.optimizer == "Lion" and not h["beta_1"]:
        raise Unsupported("keras.optimizers.Lion takes no β₁ of 0")
    return {_HYPERPARAMETERS.get(name, name): value for name, value in h.items()}


def _variables(
    case: Case, optimizer: keras.optimizers.Optimizer, backend: Keras, number: int
) -> dict[str, keras.Variable]:
    """Look up the variables of the slots of one parameter, under our names."""
    if case.optimizer == "SGD" and not case.hyperparameters["momentum"]:
        return {}  # the buffer is there with momentum alone
    return {ours: getattr(optimizer, theirs)[number] for theirs, ours in backend.slots(case).items()}


def _state(case: Case, optimizer: keras.optimizers.Optimizer, backend: Keras, number: int) -> dict[str, FloatArray]:
    """Copy the slots of one parameter. The buffer of SGD holds what is added to the parameter."""
    shown = {name: _to_numpy(x) for name, x in _variables(case, optimizer, backend, number).items()}
    return {name: -values for name, values in shown.items()} if case.optimizer == "SGD" else shown


def _to_numpy(variable: keras.Variable) -> FloatArray:
    return np.array(keras.ops.convert_to_numpy(variable.value))
