"""The built site, and a copy of the project."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.docs.copies import build, copy_project


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A copy of the project."""
    return copy_project(tmp_path / "project")


@pytest.fixture(scope="session")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The built site: the one that ``make test`` has just built, or one built here."""
    if built := os.environ.get("MLX_OPTIMIZERS_SITE"):
        return Path(built)
    copy = copy_project(tmp_path_factory.mktemp("site") / "project")
    result = build(copy)
    assert result.returncode == 0, result.stdout + result.stderr
    return copy / "build" / "html"
