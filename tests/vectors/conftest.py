"""The vectors, written once for all tests of this folder."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from mlx_optimizers.conformance import vectors as module


@pytest.fixture(scope="session")
def folder(vectors: Path) -> Path:
    """Write the files as the command does; a test that changes one copies it first."""
    return vectors


@pytest.fixture
def few(monkeypatch: pytest.MonkeyPatch) -> None:
    """One case an optimizer and dtype, so that a test takes a moment."""
    cases_of, vectors_of = module.cases_of, module.vectors_of

    def first(name: str) -> list[Any]:  # in 16 bits Muon is decided where it is no matrix alone
        return [case for case in cases_of(name) if case.regime == ("vector" if name == "Muon" else "plain")][:1]

    monkeypatch.setattr(module, "cases_of", first)
    monkeypatch.setattr(module, "vectors_of", lambda *given: vectors_of(*given)[:1])


@pytest.fixture(scope="session")
def cases(folder: Path) -> dict[str, dict[str, Any]]:
    """Read every case by its id, with the optimizer of its file."""
    found = {}
    for path in sorted(folder.glob("[a-z]*.json")):
        file = json.loads(path.read_text("utf-8"))
        found |= {case["id"]: {"optimizer": file["optimizer"], **case} for case in file["cases"]}
    return found
