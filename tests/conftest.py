"""What holds for every test: a skip is a failure in CI, hypothesis repeats itself there, and nothing global changes."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Generator, Iterator
from pathlib import Path

import mpmath
import numpy as np
import pytest
from hypothesis import settings

from mlx_optimizers.conformance import verdict
from mlx_optimizers.conformance.vectors import write_vectors
from tests.remembered import tracks_once, walk_once
from tests.support import alone, require

NO_SKIPS = bool(os.environ.get("CI")) and not os.environ.get("CORE_ONLY")
"""In CI everything is installed. CORE_ONLY marks the runs without the optional libraries: their skips are meant."""

os.environ.setdefault("MLX_OPTIMIZERS_COMPILED", "0")
"""The tests run NumPy's path, and ``test_compiled.py`` compares the compiled one; with 1, all run that."""

settings.register_profile("local", deadline=None)
settings.register_profile("ci", deadline=None, derandomize=True, database=None, print_blob=True)
settings.load_profile("ci" if os.environ.get("CI") else "local")


def _refuse_skip(report: pytest.TestReport | pytest.CollectReport) -> None:
    if NO_SKIPS and report.skipped and not hasattr(report, "wasxfail"):
        reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else report.longrepr
        report.outcome = "failed"
        report.longrepr = f"{report.nodeid} was skipped, and in CI nothing may be: {reason}"


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    _refuse_skip(report)
    return report


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report(
    collector: pytest.Collector,
) -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
    report = yield
    _refuse_skip(report)
    return report


@pytest.fixture(scope="session")
def common(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Make a folder that all workers of one run share, for things built once; see ``alone`` in tests/support.py."""
    own = tmp_path_factory.getbasetemp()
    return own.parent if "PYTEST_XDIST_WORKER" in os.environ else own


@pytest.fixture(scope="session")
def vectors(common: Path) -> Path:
    """The published vectors, written once for all workers; a test that changes a file copies them first."""
    folder = common / "vectors"
    with alone(folder):
        if not folder.exists():
            ready = Path(tempfile.mkdtemp(dir=common))
            write_vectors(ready)
            ready.rename(folder)
    return folder


@pytest.fixture(scope="session")
def _once() -> tuple[object, object]:
    return tracks_once(verdict.tracks), walk_once(verdict.walk)


@pytest.fixture(scope="module")
def remembered(_once: tuple[object, object]) -> Iterator[None]:
    """The checks and diagnoses of a module compute no interval twice; see tests/remembered.py."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(verdict, "tracks", _once[0])
        patch.setattr(verdict, "walk", _once[1])
        yield


@pytest.fixture
def mpfr() -> None:
    """For tests that judge hundreds of cases: MPFR gives mpmath's numbers, some thirty times faster."""
    require("gmpy2")


@pytest.fixture(autouse=True)
def nothing_global_changes() -> Iterator[None]:
    """The oracle keeps its precision to itself, and the fast paths NumPy's error handling."""
    before = mpmath.mp.prec, mpmath.iv.prec, np.geterr()
    yield
    assert (mpmath.mp.prec, mpmath.iv.prec, np.geterr()) == before
