"""What tests share: libraries and programs that may be missing here, and must not be in CI."""

from __future__ import annotations

import importlib
import shutil
import warnings
from types import ModuleType

import pytest

__all__ = ["chromium", "program", "require"]


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
    """The path of the first of these programs that is installed, or skip."""
    for name in names:
        if path := shutil.which(name):
            return path
    pytest.skip(f"none of {', '.join(names)} is installed", allow_module_level=True)


def chromium() -> str:
    """The path of a Chromium, or skip."""
    return program("chromium", "chromium-browser", "google-chrome")
