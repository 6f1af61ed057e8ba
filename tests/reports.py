"""The report of a backend in all cases, made once for all tests that read it."""

from __future__ import annotations

import os
from functools import cache

import pytest

from mlx_optimizers.backends import BACKENDS, open_backend
from mlx_optimizers.conformance import Case, Report, all_cases, check
from tests.support import require

__all__ = ["COMPILING", "LIBRARIES", "each_backend", "looked_at", "opened", "report_of"]

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


COMPILING = ("optax", "keras")
"""Those that compile anew for every size."""


def looked_at(name: str) -> list[Case]:
    """List the cases in which the tests check a backend: all, but two sizes alone of those that compile."""
    some = ("n=27", "n=4097") if name in COMPILING else ()
    return [case for case in all_cases() if not (some and case.regime == "sizes" and case.label not in some)]


@cache
def report_of(name: str) -> Report:
    """Check a backend in these cases."""
    return check(opened(name), looked_at(name))
