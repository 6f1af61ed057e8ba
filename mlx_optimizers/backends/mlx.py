"""``mlx.optimizers``."""

from __future__ import annotations

from importlib.metadata import version
from typing import Any

import mlx.core as mx
import mlx.optimizers
import numpy as np
import numpy.typing as npt

from mlx_optimizers.backends import CHECKED, Unavailable
from mlx_optimizers.conformance import Case, Outcome

__all__ = ["Mlx"]


class Mlx:
    """The optimizers of MLX on one device."""

    name = "mlx"
    checked = CHECKED["mlx"]

    def __init__(self, device: str = "cpu") -> None:
        self.device = device
        self.version = version("mlx")
        self._device = mx.Device(mx.cpu if device == "cpu" else mx.gpu)
        if not mx.is_available(self._device):
            raise Unavailable(f"MLX has no device {device!r} here")

    def claim(self, optimizer: str) -> str:
        """MLX's classes are what the pages state."""
        return optimizer

    def run(self, case: Case) -> Outcome:
        """Compute a case."""
        with mx.stream(self._device):
            made = getattr(mlx.optimizers, case.optimizer)(**case.at_step(0))
            parameter = {"w": _to_mlx(case.parameter)}
            parameters: list[npt.NDArray[Any]] = []
            state: dict[str, list[npt.NDArray[Any]]] = {}
            for rate, gradient in zip(case.rates(), case.gradients, strict=True):
                made.learning_rate = rate
                parameter = made.apply_gradients({"w": _to_mlx(gradient)}, parameter)
                mx.eval(parameter, made.state)
                parameters.append(_to_numpy(parameter["w"], case))
                for name, values in made.state["w"].items():
                    state.setdefault(name, []).append(_to_numpy(values, case))
        return Outcome(np.stack(parameters), {name: np.stack(rows) for name, rows in state.items()})


def _to_mlx(array: npt.NDArray[Any]) -> mx.array:
    if array.dtype.name == "bfloat16":  # MLX takes no NumPy bfloat16; the bits are the same
        return mx.array(array.view(np.uint16)).view(mx.bfloat16)
    return mx.array(array, getattr(mx, array.dtype.name))


def _to_numpy(array: mx.array, case: Case) -> npt.NDArray[Any]:
    if array.dtype == mx.bfloat16:
        return np.array(array.view(mx.uint16)).view(case.form.dtype)
    return np.array(array)
