"""Copies of the project that a test may spoil, and what runs in them."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
LIMIT = 600
"""Seconds that one command may take."""
COPIED = ("mlx_optimizers", "docs", "tests", "README.md", "CHANGELOG.md", "pyproject.toml", "conftest.py")


def run(*arguments: object, cwd: Path, **environment: str | None) -> subprocess.CompletedProcess[str]:
    """Run Python in a copy of the project; an environment variable given as None is taken away."""
    variables = {
        name: value for name, value in os.environ.items() if not name.startswith(("PYTEST_", "MLX_OPTIMIZERS_"))
    }
    variables |= {"PYTHONPATH": str(cwd), **{name: value for name, value in environment.items() if value is not None}}
    for name in [name for name, value in environment.items() if value is None]:
        variables.pop(name, None)
    command = [sys.executable, *map(str, arguments)]
    pipe = subprocess.PIPE
    with subprocess.Popen(
        command, cwd=cwd, env=variables, stdout=pipe, stderr=pipe, text=True, start_new_session=True
    ) as process:
        try:
            output, errors = process.communicate(timeout=LIMIT)
        finally:
            with contextlib.suppress(ProcessLookupError):  # what it started, such as node, ends with it
                os.killpg(process.pid, signal.SIGKILL)
    return subprocess.CompletedProcess(command, process.returncode, output, errors)


def build(project: Path, **environment: str | None) -> subprocess.CompletedProcess[str]:
    """Build the site of a copy as the Makefile does."""
    arguments = ("-m", "sphinx", "-n", "-W", "--keep-going", "--quiet", "docs", "build/html")
    return run(*arguments, cwd=project, **environment)


def copy_project(target: Path) -> Path:
    """Copy what the site and the examples are made from, with KaTeX and the vectors where they are here already."""
    ignored = shutil.ignore_patterns("__pycache__", "generated")
    for name in COPIED:
        source = ROOT / name
        if source.is_dir():
            shutil.copytree(source, target / name, ignore=ignored)
        else:
            target.mkdir(parents=True, exist_ok=True)
            shutil.copy(source, target / name)
    for made in ("katex", "vectors"):
        if (ROOT / "build" / made).is_dir():
            shutil.copytree(ROOT / "build" / made, target / "build" / made)
    return target
