"""Keras, on jax, or on torch where jax is not installed."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Iterator, Mapping
from typing import Any

if "KERAS_BACKEND" not in os.environ:  # Keras reads it once, when it is imported
    os.environ["KERAS_BACKEND"] = "jax" if importlib.util.find_spec("jax") else "torch"

import keras
import numpy as np

from mlx_optimizers.backends import CHECKED, Claims, Unavailable, counterpart, relative, require_matrix
from mlx_optimizers.conformance import Case, Run, Unsupported
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
        if case.dtype == "float64":
            raise Unsupported("Keras keeps the learning rate in float32")
        with keras.device(self._where):
            return Run.from_steps(case, _steps(case, self.slots(case)))


def _steps(case: Case, slots: Mapping[str, str]) -> Iterator[tuple[FloatArray, dict[str, FloatArray]]]:
    optimizer = getattr(keras.optimizers, counterpart("keras", case.optimizer).name)(**_arguments(case))
    w = keras.Variable(case.parameter, dtype=case.dtype)
    for rate, gradient in zip(case.rates(), case.gradients, strict=True):
        if rate is not None:
            optimizer.learning_rate = rate
        optimizer.apply([keras.ops.convert_to_tensor(gradient, dtype=case.dtype)], [w])
        yield _to_numpy(w), _state(case, optimizer, slots)


def _arguments(case: Case) -> dict[str, Any]:
    """Rename all hyperparameters to the names that Keras has for them."""
    if case.optimizer == "Muon":
        require_matrix(case, "keras.optimizers.Muon")
    if case.optimizer == "Adafactor":
        h = relative(case, "keras.optimizers.Adafactor", beta_1=None, scale_parameter=True, warmup_init=False)
        first = np.atleast_2d(case.gradients[0])
        if not (first.any(-1).all() or first.any(-2).all()):
            raise Unsupported("keras.optimizers.Adafactor multiplies two means of ε₁, which is 0: 0/0 for a 0 gradient")
        (h["epsilon_1"], h["epsilon_2"]), h["beta_2_decay"] = h.pop("eps"), h.pop("decay_rate")
        return h
    h = case.at_step(0)
    if h.pop("dampening", 0):
        raise Unsupported("keras.optimizers.SGD has no dampening")
    if "betas" in h:
        h["beta_1"], h["beta_2"] = h.pop("betas")
    return {_HYPERPARAMETERS.get(name, name): value for name, value in h.items()}


def _state(case: Case, optimizer: keras.optimizers.Optimizer, slots: Mapping[str, str]) -> dict[str, FloatArray]:
    if case.optimizer == "SGD":
        # The buffer is there with momentum alone, and holds what is added to the parameter.
        return {"v": -_to_numpy(optimizer.momentums[0])} if case.hyperparameters["momentum"] else {}
    return {ours: _to_numpy(getattr(optimizer, theirs)[0]) for theirs, ours in slots.items()}


def _to_numpy(variable: keras.Variable) -> FloatArray:
    return np.array(keras.ops.convert_to_numpy(variable.value))
