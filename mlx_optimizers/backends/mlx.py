"""``mlx.optimizers``."""

from __future__ import annotations

from collections.abc import Iterator
from importlib.metadata import version

import mlx.core as mx
import mlx.optimizers
from mlx.utils import tree_map

from mlx_optimizers.backends import CHECKED, Claims, Unavailable
from mlx_optimizers.conformance import Case, Run, Unsupported
from mlx_optimizers.conformance.verdict import Computed
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
        if case.dtype == "float64" and self.device != "cpu":
            raise Unsupported("MLX computes float64 on the CPU alone")
        with mx.stream(self._device):
            return Run.of_tree(case, _steps(case))

    def unclaimed(self, case: Case) -> str | None:
        """Say why a case with gradients of another dtype is not claimed."""
        return "MLX keeps its state in the dtype of the gradient" if case.gradient_dtype else None


def _made(case: Case) -> mlx.optimizers.Optimizer:
    """Make the optimizer of a case; MLX has bias correction as a switch."""
    name = case.optimizer.removeprefix("BiasCorrected")
    switches = {"bias_correction": True} if name != case.optimizer else {}
    return getattr(mlx.optimizers, name)(**case.at_step(0), **switches)


def _steps(case: Case) -> Iterator[list[Computed]]:
    optimizer, tree = _made(case), {"w": [to_mlx(leaf.parameter) for leaf in case.each]}
    if case.state:
        optimizer.init(tree)
        optimizer.state["step"] = mx.array(case.step, mx.uint64)
        for slots, leaf in zip(optimizer.state["w"], case.each, strict=True):
            slots.update({name: to_mlx(values) for name, values in leaf.state.items()})
    for index, rate in enumerate(case.rates()):
        if index == case.saved:
            state, optimizer = tree_map(mx.array, optimizer.state), _made(case)
            optimizer.state = state
        if rate is not None:
            optimizer.learning_rate = rate
        gradients = [to_mlx(leaf.given(index)) for leaf in case.each]
        tree = optimizer.apply_gradients({"w": gradients}, tree)
        mx.eval(tree, optimizer.state)
        yield [
            (_from_mlx(w, leaf), {name: _from_mlx(values, leaf) for name, values in slots.items()}, from_mlx(g, "g"))
            for leaf, w, slots, g in zip(case.each, tree["w"], optimizer.state["w"], gradients, strict=True)
        ]


def _from_mlx(array: mx.array, case: Case) -> FloatArray:
    """Convert an array; one of a narrower dtype than the case's, which has gradients of it, exactly to the case's."""
    return from_mlx(array, "w") if case.gradient_dtype is None else from_mlx(array, "w").astype(case.form.dtype)
