"""Helpers of many tests: libraries and programs that may be missing here, and must not be in CI."""

from __future__ import annotations

import contextlib
import fcntl
import importlib
import shutil
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

__all__ = ["alone", "chromium", "hearing", "program", "require"]


@contextlib.contextmanager
def alone(path: Path) -> Iterator[None]:
    """Keep the other workers of pytest-xdist from a path, until the block is over."""
    with path.with_name(f"{path.name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # which ends with the process, however that ends
        yield


_HEARING = """
import os, signal, sys
for name in ("SIGHUP", "SIGINT", "SIGQUIT", "SIGTERM"):
    signal.signal(getattr(signal, name), signal.SIG_DFL)
os.execv(sys.argv[1], sys.argv[1:])
"""


def hearing(*command: str) -> list[str]:
    """Wrap a command so that it hears signals; tests may run where they are ignored, as under nohup."""
    return [sys.executable, "-c", _HEARING, *command]


def require(module: str) -> ModuleType:
    """Import an optional library, or skip; ``tests/conftest.py`` turns the skip into a failure in CI.

    Example: ``mx = require("mlx.core")``, at the top of a test module or in a test.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a library's own warnings while it is imported are not ours to fix
        try:
            return importlib.import_module(module)
        except ImportError as error:
            pytest.skip(f"{module} is not installed: {error}", allow_module_level=True)


def program(*names: str) -> str:
    """Find the first of these programs that is installed, or skip."""
    for name in names:
        if path := shutil.which(name):
            return path
    pytest.skip(f"none of {', '.join(names)} is installed", allow_module_level=True)


def chromium() -> str:
    """Find a Chromium, or skip."""
    return program("chromium", "chromium-browser", "google-chrome")
