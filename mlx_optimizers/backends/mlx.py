"""``mlx.optimizers``."""

from __future__ import annotations

from collections.abc import Iterator
from importlib.metadata import version

import mlx.core as mx
import mlx.optimizers
import numpy as np

from mlx_optimizers.backends import CHECKED, Claims, Unavailable
from mlx_optimizers.conformance import Case, Run
from mlx_optimizers.kinds import FloatArray

__all__ = ["Mlx"]


class Mlx(Claims):
    """The optimizers of MLX on one device."""

    name = "mlx"
    checked = CHECKED["mlx"]

    def __init__(self, device: str = "cpu") -> None:
        self.device = device
        self.version = version("mlx")
        self._device = mx.Device(mx.cpu if device == "cpu" else mx.gpu)
        if not mx.is_available(self._device):
            raise Unavailable(f"MLX has no device {device!r} here")

    def run(self, case: Case) -> Run:
        """Compute a case."""
        with mx.stream(self._device):
            return Run.from_steps(case, _steps(case))


def _steps(case: Case) -> Iterator[tuple[FloatArray, dict[str, FloatArray]]]:
    optimizer = getattr(mlx.optimizers, case.optimizer)(**case.at_step(0))
    parameter = {"w": _to_mlx(case.parameter)}
    for rate, gradient in zip(case.rates(), case.gradients, strict=True):
        optimizer.learning_rate = rate
        parameter = optimizer.apply_gradients({"w": _to_mlx(gradient)}, parameter)
        mx.eval(parameter, optimizer.state)
        slots = {name: _to_numpy(values, case) for name, values in optimizer.state["w"].items()}
        yield _to_numpy(parameter["w"], case), slots


def _to_mlx(array: FloatArray) -> mx.array:
    if array.dtype.name == "bfloat16":  # MLX takes no NumPy bfloat16; the bits are the same
        return mx.array(array.view(np.uint16)).view(mx.bfloat16)
    return mx.array(array, getattr(mx, array.dtype.name))


def _to_numpy(array: mx.array, case: Case) -> FloatArray:
    if array.dtype == mx.bfloat16:
        return np.array(array.view(mx.uint16)).view(case.form.dtype)
    return np.array(array)
