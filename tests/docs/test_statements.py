"""Statements of the pages that no example runs: each test quotes one, and holds it to the library that it is about."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from mlx_optimizers.backends import CHECKED
from mlx_optimizers.catalog import CATALOG
from tests.docs.copies import ROOT
from tests.support import require

# MLX's history: docs/guides/mlx_history.md, and the pages that quote it

RELEASES = """
    0.0.2 0.0.3 0.0.4 0.0.5 0.0.6 0.0.7 0.0.9 0.0.10 0.0.11 0.1.0 0.2.0 0.3.0 0.4.0 0.5.0 0.5.1 0.6.0 0.7.0 0.8.0
    0.8.1 0.9.0 0.9.1 0.10.0 0.11.0 0.11.1 0.12.0 0.12.1 0.12.2 0.13.0 0.13.1 0.14.0 0.14.1 0.15.0 0.15.1 0.15.2
    0.16.0 0.16.1 0.16.2 0.16.3 0.17.0 0.17.1 0.17.2 0.17.3 0.18.0 0.18.1 0.19.0 0.19.1 0.19.2 0.19.3 0.20.0 0.21.0
    0.21.1 0.22.0 0.22.1 0.23.0 0.23.1 0.23.2 0.24.0 0.24.1 0.24.2 0.25.0 0.25.1 0.25.2 0.26.0 0.26.1 0.26.2 0.26.3
    0.26.5 0.27.1 0.28.0 0.29.0 0.29.1 0.29.2 0.29.3 0.29.4 0.30.0 0.30.1 0.30.3 0.30.4 0.30.5 0.30.6 0.31.0 0.31.1
    0.31.2 0.32.0 0.32.1 0.32.2 0.32.3 0.32.4
"""
"""The tags of MLX's repository, and the last versions of its index of packages."""

CHANGED = {
    (440, 473): "before 0.1.0",
    (603,): "before 0.1.0",
    (473, 629): "from 0.1.0, before 0.2.0",
    (629,): "before 0.2.0",
    (1259, 1264): "from 0.2.0, before 0.16.1",
    (1640, 2350): "from 0.21.1, before 0.26.5",
    (2416,): "before 0.27.1",
    (2557,): "before 0.29.1",
    (3712,): "before 0.32.0",
    (4426,): "before 0.32.3",
    (): f"still in {CHECKED['mlx']}",
}
"""The versions by thread: of 4426 by what 0.32.2 and 0.32.3 contain, else by the first tag that contains the commit."""

EVENTS = list(dict.fromkeys(event for entry in CATALOG for event in entry.history))


@pytest.mark.parametrize("event", EVENTS, ids=[event.what for event in EVENTS])
def test_every_row_of_the_history_says_before_the_first_version_without_it(event):
    """ "Before" a version means that this version is the first without it."""
    assert event.versions == CHANGED[event.threads]
    assert re.fullmatch(r"(from \d+\.\d+\.\d+, )?before \d+\.\d+\.\d+|still in \d+\.\d+\.\d+", event.versions)
    found = re.findall(r"[\d.]+", event.versions)
    assert set(found) <= set(RELEASES.split())


def test_no_page_says_until_a_version_of_mlx():
    """The pages and the catalog say "before", where the first version without it stands."""
    for path in pages("mlx_optimizers/**/*.py"):
        assert not re.search(r"\b(until|up to)\s+(MLX\s+|version\s+)?\d+\.\d+", path.read_text("utf-8")), path


def test_what_the_history_says_of_todays_mlx_is_so():
    """ "Before 0.29.1", "before 0.32.0" and "before 0.32.3": fixed here; "still in 0.32.4": not yet."""
    mx, theirs = require("mlx.core"), require("mlx.optimizers")
    said = {
        name: " ".join(getattr(theirs, name).__doc__.split()) for name in ("SGD", "AdaDelta", "Adam", "AdamW", "Lion")
    }
    assert "Default: ``0.01``" in said["AdamW"]
    assert "Default: ``1e-6``" in said["AdaDelta"]
    assert r"\sqrt{v_{t+1}} + \epsilon" in said["Adam"]
    gradients = {"w": mx.array([1.0])}
    theirs.SGD(0.1, weight_decay=0.5).apply_gradients(gradients, {"w": mx.array([1.0])})
    assert gradients["w"].tolist() == [1.0]
    assert r"v_{t+1} &= \mu v_t + (1 - \tau) g_t \\ w_{t+1} &= w_t - \lambda v_{t+1} Args" in said["SGD"]
    assert r"c_{t + 1} &= " in said["Lion"]
    assert r"\text{sign}(c_t)" in said["Lion"]


def pages(*more: str) -> list[Path]:
    """List the files with prose: the README, the changelog, the pages; and those of further patterns."""
    found = [path for pattern in ("*.md", "docs/**/*.md", "docs/*.rst", *more) for path in ROOT.glob(pattern)]
    return [path for path in found if "generated" not in path.parts]
