"""The built site, and a copy of the project."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

from tests.docs.copies import build, build_changed, copy_project
from tests.support import alone


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A copy of the project."""
    return copy_project(tmp_path / "project")


@pytest.fixture(scope="session")
def built(common: Path) -> Path:
    """A copy of the project with its site, built once for all workers; ``changed`` builds on it."""
    copy = common / "built"
    with alone(copy):
        if not (copy / "whole").exists():
            shutil.rmtree(copy, ignore_errors=True)
            result = build(copy_project(copy))
            assert result.returncode == 0, result.stdout + result.stderr
            (copy / "whole").touch()
    return copy


@pytest.fixture
def changed(built: Path, tmp_path: Path) -> Callable[[dict[str, str]], subprocess.CompletedProcess[str]]:
    """Build the site with other texts of some files; the pages are in ``tmp_path / "html"``.

    That is no build from nothing: of the copy that all tests share, what depends on those files is built again.
    """
    return partial(build_changed, built, tmp_path)


@pytest.fixture(scope="session")
def site(request: pytest.FixtureRequest) -> Path:
    """The built site: the one that ``make test`` has just built, or one built here."""
    if made := os.environ.get("MLX_OPTIMIZERS_SITE"):
        return Path(made)
    return request.getfixturevalue("built") / "build" / "html"
