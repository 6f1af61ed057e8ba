"""``torch.optim``: the for-loop, foreach and fused implementations, and optimizers of the user's own."""

from __future__ import annotations

import copy
import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch

from mlx_optimizers.backends import CHECKED, Claims, Unavailable, counterpart, relative, require_matrix
from mlx_optimizers.catalog import entry_of
from mlx_optimizers.conformance import Case, Run, Unsupported
from mlx_optimizers.conformance.verdict import Computed
from mlx_optimizers.kinds import FloatArray

__all__ = ["Torch", "TorchClass"]


class TorchClass(Claims):
    """Any optimizer class with torch's interface, driven through ``param_groups`` and ``step()``.

    Args:
        optimizer_class: The class.
        name: Name of the backend.
        device: ``"cpu"`` or ``"gpu"``.
        switches: Arguments besides the hyperparameters.
    """

    def __init__(self, optimizer_class: Callable[..., Any], name: str, device: str, **switches: bool) -> None:
        if device == "gpu" and not torch.cuda.is_available():
            raise Unavailable("torch has no GPU here")
        self.name = name
        self.version = torch.__version__
        self.device = device
        self._class = optimizer_class
        self._switches = switches

    def arguments(self, case: Case, optimizer_class: Callable[..., Any]) -> dict[str, Any]:
        """Collect all hyperparameters under torch's names, and the switches.

        Raises:
            Unsupported: when the class does not take one of them.
        """
        wanted = {("lr" if name == "learning_rate" else name): value for name, value in case.at_step(0).items()}
        accepted = inspect.signature(optimizer_class).parameters
        for name in (*wanted, *self._switches):
            if name not in accepted and not any(p.kind is p.VAR_KEYWORD for p in accepted.values()):
                raise Unsupported(f"{getattr(optimizer_class, '__name__', optimizer_class)} takes no {name}")
        return {**wanted, **self._switches}

    def class_for(self, case: Case) -> Callable[..., Any]:
        """Choose the class for a case."""
        return self._class

    def run(self, case: Case) -> Run:
        """Compute a case."""
        if case.gradient_dtype is not None:
            raise Unsupported("torch takes no gradient of another dtype than the parameter has")
        return Run.of_tree(case, self._steps(case))

    def _made(self, case: Case, arrays: Sequence[torch.Tensor]) -> tuple[list[torch.nn.Parameter], Any]:
        """Make parameters of copies of tensors, and a fresh optimizer of them."""
        optimizer_class = self.class_for(case)
        device = "cuda" if self.device == "gpu" else "cpu"
        parameters = [torch.nn.Parameter(array.detach().clone().to(device)) for array in arrays]
        return parameters, optimizer_class(parameters, **self.arguments(case, optimizer_class))

    def _steps(self, case: Case) -> Iterator[list[Computed]]:
        arrays = [_to_torch(leaf.parameter) for leaf in case.each]
        begun = self._resumed(case, arrays) if case.state else None
        parameters, optimizer = self._made(case, arrays)
        if begun is not None:
            optimizer.load_state_dict(begun)
        for index, rate in enumerate(case.rates()):
            if index == case.saved:
                saved = copy.deepcopy(optimizer.state_dict())
                parameters, optimizer = self._made(case, parameters)
                optimizer.load_state_dict(saved)
            for group in optimizer.param_groups:
                group["lr"] = group["lr"] if rate is None else rate
            for w, leaf in zip(parameters, case.each, strict=True):
                w.grad = _to_torch(leaf.given(index)).to(w.device)
            optimizer.step()
            yield [
                (_to_numpy(w, leaf), self._shown(optimizer.state.get(w, {}), leaf), _gradient(w, leaf))
                for w, leaf in zip(parameters, case.each, strict=True)
            ]

    def _shown(self, state: Mapping[str, Any], case: Case) -> dict[str, FloatArray]:
        """Collect the slots that are known, under our names."""
        slots = {ours: state[theirs] for theirs, ours in self.slots(case).items() if state.get(theirs) is not None}
        return {name: _to_numpy(value, case).reshape(case.slots[name]) for name, value in slots.items()}

    def _resumed(self, case: Case, arrays: Sequence[torch.Tensor]) -> dict[str, Any]:
        """Write the state of a case into a state dict, whose form the first step of another optimizer shows.

        Raises:
            Unsupported: where its entries are not known by torch's names or ours, or a count has another name.
        """
        parameters, probe = self._made(case, arrays)
        groups = [dict(group) for group in probe.state_dict()["param_groups"]]
        for w in parameters:
            w.grad = torch.zeros_like(w)
        probe.step()
        record = entry_of(case.optimizer).elsewhere.get("torch")
        named = {**(record.slots if record else {}), **{name: name for name in case.state}}
        begun: dict[str, Any] = copy.deepcopy(probe.state_dict())
        unknown = set(begun) - {"state", "param_groups"}
        for before, group in zip(groups, begun["param_groups"], strict=True):
            moved = {name for name, value in group.items() if name not in before or not _same(value, before[name])}
            unknown |= moved - {"step"}
            if "step" in group:
                group["step"] = _counted(group["step"], case)
        for number, leaf in enumerate(case.each):
            entries = begun["state"].get(number, {})
            unknown |= {name for name in entries if name not in named} - {"step"}
            found = {named[name]: name for name in entries if named.get(name) in leaf.state}
            kept = {name: value for name, value in leaf.state.items() if name in found or self._keeps(name, case)}
            if lacking := [name for name in kept if name not in found]:
                raise Unsupported(f"the state of {self.name} shows no {', '.join(lacking)}")
            for name, values in kept.items():
                entries[found[name]] = _to_torch(values).reshape(entries[found[name]].shape)
            if "step" in entries:
                entries["step"] = _counted(entries["step"], case)
        if unknown:
            raise Unsupported(f"what the state of {self.name} keeps as {', '.join(sorted(unknown))} is not known")
        return begun

    def _keeps(self, slot: str, case: Case) -> bool:
        """Say whether a slot plays a part: SGD has one with momentum alone."""
        return case.optimizer != "SGD" or bool(case.hyperparameters["momentum"])


class Torch(TorchClass):
    """The optimizers of ``torch.optim`` in one implementation.

    Args:
        device: ``"cpu"`` or ``"gpu"``.
        implementation: ``""`` for the for-loop, ``"foreach"`` or ``"fused"``.
    """

    library = "torch"
    checked = CHECKED["torch"]

    def __init__(self, device: str = "cpu", implementation: str = "") -> None:
        switches = {"foreach": implementation == "foreach"} if implementation != "fused" else {"fused": True}
        super().__init__(torch.optim.SGD, f"torch-{implementation}".rstrip("-"), device, **switches)
        self._implementation = implementation

    def arguments(self, case: Case, optimizer_class: Callable[..., Any]) -> dict[str, Any]:
        """Collect all hyperparameters under torch's names, and the switches."""
        if case.optimizer == "Muon":
            require_matrix(case, "torch.optim.Muon")
            if self._implementation:
                raise Unsupported(f"torch.optim has no {self._implementation} Muon")
            return {"lr" if name == "learning_rate" else name: value for name, value in case.at_step(0).items()}
        if case.optimizer != "Adafactor":
            return super().arguments(case, optimizer_class)
        h = relative(case, "torch.optim.Adafactor", beta_1=None, scale_parameter=True, warmup_init=False)
        del h["relative_step"]
        if h["clip_threshold"] < 1:
            raise Unsupported("torch.optim.Adafactor takes no clip_threshold below 1")
        if not all(leaf.parameter.size for leaf in case.each):
            raise Unsupported("torch.optim.Adafactor divides by the number of elements, which may not be 0")
        sizes = [np.abs(leaf.gradients.astype(np.float64)) for leaf in case.each]
        if max((float(size.max()) for size in sizes if size.ndim > 2), default=0.0) ** 4 > case.form.limit:
            raise Unsupported("torch.optim.Adafactor multiplies means of g², beyond the largest number then")
        smallest = min(float(size.min()) for size in sizes)
        least = max(h["eps"][0], smallest**2)
        if least**2 < case.form.tiny:
            raise Unsupported("torch.optim.Adafactor squares ε₁ and the mean squares, which are 0 then: 0/0")
        named = {"lr": h.pop("learning_rate"), "beta2_decay": h.pop("decay_rate"), "d": h.pop("clip_threshold")}
        return {**h, **named, **self._switches}

    def class_for(self, case: Case) -> Callable[..., Any]:
        """Choose the class of the optimizer's name.

        Raises:
            Unsupported: where torch has none, or none in this implementation.
        """
        optimizer_class: Callable[..., Any] = getattr(torch.optim, counterpart("torch", case.optimizer).name)
        if self._implementation == "fused" and "fused" not in inspect.signature(optimizer_class).parameters:
            raise Unsupported(f"torch.optim has no fused {case.optimizer}")
        return optimizer_class


def _same(a: Any, b: Any) -> bool:
    """Say whether two entries of a group are equal."""
    return torch.equal(a, b) if isinstance(a, torch.Tensor) and isinstance(b, torch.Tensor) else bool(a == b)


def _counted(step: Any, case: Case) -> Any:
    """Make a count of the updates before a case, of the kind that a state has."""
    return torch.full_like(step, case.step) if isinstance(step, torch.Tensor) else case.step


def _to_torch(array: FloatArray) -> torch.Tensor:
    bits = torch.from_numpy(array.copy().view(f"i{array.itemsize}"))  # torch takes no NumPy bfloat16
    return bits.view(getattr(torch, array.dtype.name))


def _gradient(parameter: torch.nn.Parameter, case: Case) -> FloatArray | None:
    """Copy the gradient of a parameter as the optimizer left it."""
    return None if parameter.grad is None else _to_numpy(parameter.grad, case)


def _to_numpy(tensor: torch.Tensor, case: Case) -> FloatArray:
    values = tensor.detach().cpu()
    low = values.dtype == torch.bfloat16
    array: FloatArray = values.view(torch.int16).numpy().view(case.form.dtype) if low else values.numpy()
    return array
