"""``torch.optim``: the for-loop, foreach and fused implementations, and optimizers of the user's own."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
import torch

from mlx_optimizers.backends import CHECKED, Unavailable, claim_of, found_in
from mlx_optimizers.conformance import Case, Run, Unsupported
from mlx_optimizers.kinds import FloatArray

__all__ = ["Torch", "TorchClass"]


class TorchClass:
    """Any optimizer class with torch's interface, driven through ``param_groups`` and ``step()``.

    Args:
        made: The class.
        name: Name of the backend.
        device: ``"cpu"`` or ``"gpu"``.
        switches: Arguments beside the hyperparameters.
    """

    def __init__(self, made: Callable[..., Any], name: str, device: str, **switches: bool) -> None:
        if device == "gpu" and not torch.cuda.is_available():
            raise Unavailable("torch has no GPU here")
        self.name = name
        self.version = torch.__version__
        self.device = device
        self._made = made
        self._switches = switches

    def claim(self, optimizer: str) -> str:
        """A class of the user's own is held to the page."""
        return optimizer

    def slots(self, case: Case) -> Mapping[str, str]:
        """Nothing is known of the state of a class of the user's own."""
        return {}

    def arguments(self, case: Case, made: Callable[..., Any]) -> dict[str, Any]:
        """All hyperparameters under torch's names, and the switches.

        Raises:
            Unsupported: when the class does not take one of them.
        """
        wanted = {("lr" if name == "learning_rate" else name): value for name, value in case.at_step(0).items()}
        accepted = inspect.signature(made).parameters
        for name in (*wanted, *self._switches):
            if name not in accepted and not any(p.kind is p.VAR_KEYWORD for p in accepted.values()):
                raise Unsupported(f"{getattr(made, '__name__', made)} takes no {name}")
        return {**wanted, **self._switches}

    def made(self, case: Case) -> Callable[..., Any]:
        """The class for a case."""
        return self._made

    def run(self, case: Case) -> Run:
        """Compute a case."""
        return Run.from_steps(case, self._steps(case))

    def _steps(self, case: Case) -> Iterator[tuple[FloatArray, dict[str, FloatArray]]]:
        made = self.made(case)
        device = "cuda" if self.device == "gpu" else "cpu"
        w = torch.nn.Parameter(_to_torch(case.parameter).to(device))
        optimizer = made([w], **self.arguments(case, made))
        for rate, gradient in zip(case.rates(), case.gradients, strict=True):
            for group in optimizer.param_groups:
                group["lr"] = rate
            w.grad = _to_torch(gradient).to(device)
            optimizer.step()
            state = optimizer.state.get(w, {})
            slots = {ours: state[theirs] for theirs, ours in self.slots(case).items() if state.get(theirs) is not None}
            yield _to_numpy(w, case), {name: _to_numpy(value, case) for name, value in slots.items()}


class Torch(TorchClass):
    """The optimizers of ``torch.optim`` in one implementation.

    Args:
        device: ``"cpu"`` or ``"gpu"``.
        implementation: ``""`` for the for-loop, ``"foreach"`` or ``"fused"``.
    """

    checked = CHECKED["torch"]

    def __init__(self, device: str = "cpu", implementation: str = "") -> None:
        switches = {"foreach": implementation == "foreach"} if implementation != "fused" else {"fused": True}
        super().__init__(torch.optim.SGD, f"torch-{implementation}".rstrip("-"), device, **switches)
        self._implementation = implementation

    def claim(self, optimizer: str) -> str:
        """What torch says it computes."""
        return claim_of("torch", optimizer)

    def slots(self, case: Case) -> Mapping[str, str]:
        """Our names of torch's state."""
        return found_in("torch", case.optimizer).slots

    def made(self, case: Case) -> Callable[..., Any]:
        """The class of an optimizer's name."""
        made: Callable[..., Any] = getattr(torch.optim, found_in("torch", case.optimizer).name)
        if self._implementation == "fused" and "fused" not in inspect.signature(made).parameters:
            raise Unsupported(f"torch.optim has no fused {case.optimizer}")
        return made


def _to_torch(array: FloatArray) -> torch.Tensor:
    if array.dtype.name == "bfloat16":  # torch takes no NumPy bfloat16; the bits are the same
        return torch.from_numpy(array.view(np.int16).copy()).view(torch.bfloat16)
    return torch.from_numpy(array.copy())


def _to_numpy(tensor: torch.Tensor, case: Case) -> FloatArray:
    values = tensor.detach().cpu()
    low = values.dtype == torch.bfloat16
    array: FloatArray = values.view(torch.int16).numpy().view(case.form.dtype) if low else values.numpy()
    return array
