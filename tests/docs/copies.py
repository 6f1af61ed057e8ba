"""Copies of the project that a test may spoil, and what runs in them."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import mlx_optimizers
from tests.support import alone

ROOT = Path(__file__).parents[2]
PACKAGE = Path(mlx_optimizers.__file__).parent
"""The package that is tested, which may be installed elsewhere."""

LIMIT = 600
"""Seconds that one command may take."""
COPIED = ("mlx_optimizers", "docs", "tests", "README.md", "CHANGELOG.md", "pyproject.toml", "conftest.py")


def run(*arguments: object, cwd: Path, **environment: str | None) -> subprocess.CompletedProcess[str]:
    """Run Python in a copy of the project; an environment variable that is None is taken away."""
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


def build(project: Path, output: Path | None = None, **environment: str | None) -> subprocess.CompletedProcess[str]:
    """Build the site of a copy as the Makefile does, in ``build`` of the copy or in another folder."""
    output = output or project / "build"
    options = ("-n", "-W", "--keep-going", "--quiet", "-d", output / "doctrees")
    return run("-m", "sphinx", *options, "docs", output / "html", cwd=project, **environment)


def build_changed(project: Path, output: Path, texts: dict[str, str]) -> subprocess.CompletedProcess[str]:
    """Build the site of a copy that is built already, with other texts of some files, and put the copy back.

    Sphinx reads and writes again what depends on those files, and keeps the rest as it was in the copy. What it makes
    is in ``output``, and the copy is as before, for the next test: no build sees what another one was given.
    """
    generated, kept = project / "docs" / "generated", {}
    with alone(project):
        for made in ("doctrees", "html"):
            shutil.copytree(project / "build" / made, output / made)
        shutil.copytree(generated, output / "generated")
        try:
            for name, text in texts.items():
                path = project / name
                kept[path] = (path.read_bytes(), path.stat()) if path.exists() else None
                path.write_text(text, encoding="utf-8")
            return build(project, output, PYTHONDONTWRITEBYTECODE="1")
        finally:
            for path, before in kept.items():
                path.unlink(missing_ok=True)
                if before is not None:
                    path.write_bytes(before[0])
                    os.utime(path, ns=(before[1].st_atime_ns, before[1].st_mtime_ns))
            shutil.rmtree(generated)
            shutil.copytree(output / "generated", generated)


def copy_project(target: Path) -> Path:
    """Copy the sources of the site and of the examples, with KaTeX and the vectors where they are here already."""
    ignored = shutil.ignore_patterns("__pycache__", "generated")
    for name in COPIED:
        source = PACKAGE if name == PACKAGE.name else ROOT / name
        if source.is_dir():
            shutil.copytree(source, target / name, ignore=ignored)
        else:
            target.mkdir(parents=True, exist_ok=True)
            shutil.copy(source, target / name)
    for made in ("katex", "vectors"):
        if (ROOT / "build" / made).is_dir():
            shutil.copytree(ROOT / "build" / made, target / "build" / made)
    return target
