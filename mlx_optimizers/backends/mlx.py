"""``mlx.optimizers``."""

from __future__ import annotations

from collections.abc import Iterator
from importlib.metadata import version

import mlx.core as mx
import mlx.optimizers

from mlx_optimizers.backends import CHECKED, Claims, Unavailable
from mlx_optimizers.conformance import Case, Run
from mlx_optimizers.kinds import FloatArray
from mlx_optimizers.trees import from_mlx, to_mlx

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


def _made(case: Case) -> mlx.optimizers.Optimizer:
    """Make the optimizer of a case; MLX has bias correction as a switch."""
    name = case.optimizer.removeprefix("BiasCorrected")
    switches = {"bias_correction": True} if name != case.optimizer else {}
    return getattr(mlx.optimizers, name)(**case.at_step(0), **switches)


def _steps(case: Case) -> Iterator[tuple[FloatArray, dict[str, FloatArray]]]:
    optimizer = _made(case)
    parameter = {"w": to_mlx(case.parameter)}
    for rate, gradient in zip(case.rates(), case.gradients, strict=True):
        if rate is not None:
            optimizer.learning_rate = rate
        parameter = optimizer.apply_gradients({"w": to_mlx(gradient)}, parameter)
        mx.eval(parameter, optimizer.state)
        slots = {name: from_mlx(values, name) for name, values in optimizer.state["w"].items()}
        yield from_mlx(parameter["w"], "w"), slots
