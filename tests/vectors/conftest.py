"""The vectors, written once for all tests of this folder."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest


@pytest.fixture(scope="session")
def folder(vectors: Path) -> Path:
    """Write the files as the command does; a test that changes one copies it first."""
    return vectors


@pytest.fixture(scope="session")
def cases(folder: Path) -> dict[str, dict[str, Any]]:
    """Read every case by its id, with the optimizer of its file."""
    found = {}
    for path in sorted(folder.glob("[a-z]*.json")):
        file = json.loads(path.read_text("utf-8"))
        found |= {case["id"]: {"optimizer": file["optimizer"], **case} for case in file["cases"]}
    return found
