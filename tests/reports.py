"""The report of a backend in all cases, made once for all tests that read it."""

from __future__ import annotations

import os
from functools import cache

import pytest

from mlx_optimizers.backends import BACKENDS, open_backend
from mlx_optimizers.conformance import Report, all_cases, check
from tests.support import require

__all__ = ["LIBRARIES", "each_backend", "opened", "report_of"]

LIBRARIES = {
    "reference": (),
    "mlx": ("mlx.core",),
    "torch": ("torch",),
    "torch-foreach": ("torch",),
    "torch-fused": ("torch",),
    "optax": ("optax",),
    "keras": ("mlx_optimizers.backends.keras",),  # alone, Keras would look for TensorFlow
}
"""What each backend needs."""

each_backend = pytest.mark.parametrize(
    "name", [pytest.param(name, marks=pytest.mark.xdist_group(f"backend {name}")) for name in BACKENDS]
)
"""The mark of a test that reads the report of every backend: one worker runs all tests of a backend."""


def opened(name: str) -> object:
    """Open a backend, or skip where its library is not installed."""
    os.environ.setdefault("KERAS_BACKEND", "jax")
    for library in LIBRARIES[name]:
        require(library)
    return open_backend(name)


@cache
def report_of(name: str) -> Report:
    """Check a backend in all cases."""
    return check(opened(name), all_cases())
