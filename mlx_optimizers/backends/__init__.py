"""The backends that can be checked; each imports its library only when it is opened."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from mlx_optimizers.catalog import Elsewhere, entry_of
from mlx_optimizers.conformance import Backend, Case, Unsupported

__all__ = ["BACKENDS", "CHECKED", "OWN", "Unavailable", "open_backend", "require_known"]


class Unavailable(Exception):
    """A known backend cannot be used here: its library is not installed, or lacks the requested device."""


BACKENDS: dict[str, tuple[str, str, tuple[str, ...]]] = {
    "reference": ("reference", "Reference", ()),
    "mlx": ("mlx", "Mlx", ()),
    "torch": ("torch", "Torch", ()),
    "torch-foreach": ("torch", "Torch", ("foreach",)),
    "torch-fused": ("torch", "Torch", ("fused",)),
    "optax": ("optax", "Optax", ()),
    "keras": ("keras", "Keras", ()),
}
"""Module, class and further arguments of each backend, by its name on the command line."""

CHECKED = {"mlx": "0.32.4", "torch": "2.13.0", "optax": "0.2.8", "keras": "3.15.1"}
"""The version of each library whose claims were checked; a report says when a newer one runs."""

OWN: dict[str, tuple[str, str]] = {
    "torch": ("torch", "TorchClass"),
    "optax": ("optax", "OptaxFunction"),
    "py": ("function", "StepFunction"),
}
"""Module and class for an optimizer of the user's own, ``<key>:package.module:attribute``."""


MODULES = {"torch": "torch.optim", "optax": "optax", "keras": "keras.optimizers"}
"""Where the optimizers of each library stand."""


def claim_of(library: str, optimizer: str) -> str:
    """Name the formula that a library says it computes for an optimizer; the documented one where it has none."""
    record = entry_of(optimizer).elsewhere.get(library)
    return optimizer if record is None else record.claim


def counterpart(library: str, optimizer: str) -> Elsewhere:
    """Look up a library's optimizer of the same name.

    Raises:
        Unsupported: where it has none.
    """
    record = entry_of(optimizer).elsewhere.get(library)
    if record is None:
        raise Unsupported(f"{MODULES[library]} has no {optimizer}")
    return record


def relative(case: Case, called: str, **lacking: Any) -> dict[str, Any]:
    """Translate Adafactor for a library whose learning rate is the most that a relative step may be.

    Args:
        case: A case of Adafactor.
        called: What a message calls the library's optimizer.
        **lacking: Hyperparameters that it does not have, with the value that does without.

    Returns:
        Those that it has, all but relative_step, with the learning rate of the first step.

    Raises:
        Unsupported: where one that it lacks has another value.
    """
    h = case.at_step(0)
    if h["learning_rate"] is None:
        h["learning_rate"] = 1e-2
    for name, value in lacking.items():
        if h.pop(name) != value:
            raise Unsupported(f"{called} has no {name}")
    return h


def require_matrix(case: Case, called: str) -> None:
    """Refuse a case of Muon for a library that gives it matrices alone.

    Raises:
        Unsupported: for another number of axes than two.
    """
    if case.parameter.ndim != 2:
        raise Unsupported(f"{called} takes matrices alone")


class Claims:
    """The claims of a backend: the documented formulas, or those that the catalog has for its library."""

    library = ""

    def claim(self, optimizer: str) -> str:
        """Name the formula that the backend says it computes for an optimizer."""
        return claim_of(self.library, optimizer)

    def slots(self, case: Case) -> Mapping[str, str]:
        """Map the library's names of the state arrays to ours, of a case; without a library none is known."""
        known = counterpart(self.library, case.optimizer).slots if self.library else {}
        return {theirs: ours for theirs, ours in known.items() if ours in case.slots}


def require_known(name: str) -> None:
    """Refuse a name that no backend has; nothing is opened.

    Raises:
        ValueError: for such a name.
    """
    kind, _, target = name.partition(":")
    if kind != "cmd" and not (target and kind in OWN) and name not in BACKENDS:
        known = (*BACKENDS, *(f"{key}:MODULE:NAME" for key in OWN), "cmd:COMMAND")
        raise ValueError(f"unknown backend {name!r}; known are {', '.join(known)}")


def open_backend(name: str, device: str = "cpu", timeout: float = 60.0) -> Backend:
    """Open a backend by name.

    Args:
        name: A key of `BACKENDS`; or ``torch:package.module:Class``, ``optax:package.module:function`` or
            ``py:package.module:function`` for an optimizer of the user's own; or ``cmd:COMMAND`` for an adapter, a
            program that runs until the backend's ``close``.
        device: ``"cpu"`` (default) or ``"gpu"``.
        timeout: Seconds that an adapter may take for a reply.

    Raises:
        ValueError: for a name that no backend has.
        Unavailable: when the backend cannot be used here.

    Example:
        >>> from mlx_optimizers.backends import open_backend
        >>> open_backend("reference").claim("Adam")
        'Adam'
    """
    require_known(name)
    kind, _, target = name.partition(":")
    if kind == "cmd":
        return _imported(name, "command", "Command")(target, device, timeout)
    if target and kind in OWN:
        return _imported(name, *OWN[kind])(_attribute(name, target), name, device)
    module, attribute, arguments = BACKENDS[name]
    return _imported(name, module, attribute)(device, *arguments)


def _imported(name: str, module: str, attribute: str) -> Callable[..., Backend]:
    try:
        backend: Callable[..., Backend] = getattr(importlib.import_module(f"{__name__}.{module}"), attribute)
    except ImportError as error:
        # A module that needs a library has the name of the extra that brings it.
        extra = f"pip install '.[{module}]'"
        raise Unavailable(
            f"backend {name!r} is not available here: {error}; {extra} in a checkout installs what it needs"
        ) from error
    return backend


def _attribute(name: str, target: str) -> Callable[..., object]:
    """Import what ``package.module:attribute`` names; as with ``python -m``, a module may lie in the current folder."""
    module, _, attribute = target.partition(":")
    if not module or not attribute:
        kind = name.partition(":")[0]
        raise ValueError(f"{name!r} does not name a module and an attribute, as in {kind}:module:Name")
    here = str(Path.cwd())
    if here not in sys.path and "" not in sys.path:
        sys.path.insert(0, here)
    try:
        value: Callable[..., object] | None = getattr(importlib.import_module(module), attribute, None)
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # a SystemExit too: what ends itself cannot be run
        raise Unavailable(f"module {module!r} cannot be imported: {type(error).__name__}: {error}") from error
    if not callable(value):
        raise Unavailable(f"module {module!r} has no function or class {attribute!r}")
    return value
