"""The installed files say which package this is."""

from __future__ import annotations

import os
import platform
import re
import sys
from importlib import metadata, resources
from pathlib import Path

import pytest

import mlx_optimizers
from mlx_optimizers.backends import CHECKED
from tests.docs.copies import ROOT


@pytest.fixture(scope="module")
def requirements() -> list[str]:
    return metadata.requires("mlx-optimizers-reference") or []


def test_the_core_needs_numpy_and_mpmath_alone(requirements):
    core = {re.split(r"\W", requirement)[0] for requirement in requirements if "extra ==" not in requirement}
    assert core == {"numpy", "mpmath"}


def test_the_version_is_stated_once_more_in_the_changelog_and_the_citation():
    version = mlx_optimizers.__version__
    assert metadata.version("mlx-optimizers-reference") == version
    assert re.search(rf"^version: {re.escape(version)}$", (ROOT / "CITATION.cff").read_text(), re.MULTILINE)
    assert re.search(rf"^## {re.escape(version)}\b", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)


def test_the_backends_are_pinned_to_what_was_checked(requirements):
    pinned = {}
    for line in requirements:
        if match := re.match(r"(\w+)(?:\[.+?\])?==([^;]+)", line):
            pinned[match[1]] = match[2].strip()
    assert pinned == CHECKED


def test_what_is_tested_is_what_the_classifiers_name():
    named = metadata.metadata("mlx-optimizers-reference").get_all("Classifier") or []
    assert [name for name in named if name.startswith("Operating System")] == ["Operating System :: POSIX :: Linux"]
    versions = [name.rpartition(" ")[2] for name in named if re.search(r":: 3\.\d+$", name)]
    assert versions == ["3.11"]
    if os.environ.get("CI"):
        assert "{}.{}".format(*sys.version_info) in versions and sys.platform == "linux"
        assert platform.machine() in ("x86_64", "AMD64")
    page = (ROOT / "docs" / "guides" / "platforms.md").read_text("utf-8")
    assert "Python 3.11 on Linux, on the CPU of an x86-64 machine" in page


def test_nothing_sends_anybody_to_the_other_project_of_the_name():
    """``mlx-optimizers`` on PyPI is not this package, so no text installs that, nor an extra of it."""
    name = "mlx-optimizers"
    wrong = re.compile(rf"{name}\[|install\s+['\"]?{name}(?!-)")
    assert wrong.search(f"pip install '{name}'") and wrong.search(f"{name}[fast]")
    folders = ("mlx_optimizers", "docs", "tests", "scripts", ".ci")
    files = [
        file for file in ROOT.iterdir() if file.suffix in (".md", ".toml", ".cff", ".py") or file.name == "Makefile"
    ]
    files += [file for folder in folders for file in (ROOT / folder).rglob("*") if file.is_file()]
    texts = [file for file in files if "__pycache__" not in file.parts and "generated" not in file.parts]
    assert len(texts) > 100
    assert [file for file in texts if wrong.search(file.read_bytes().decode("utf-8", "replace"))] == []


def test_types_and_schemas_are_part_of_the_package():
    package = resources.files("mlx_optimizers")
    assert package.joinpath("py.typed").is_file()
    for schema in ("report", "vectors"):
        assert package.joinpath("conformance", "schemas", f"{schema}.schema.json").is_file()
    assert package.joinpath("conformance", "formats", "report.css").is_file()
    assert package.joinpath("vectors", "CHANGES.txt").is_file()


def test_the_command_is_installed():
    scripts = metadata.distribution("mlx-optimizers-reference").entry_points.select(group="console_scripts")
    assert {script.name: script.value for script in scripts} == {"mlx-optimizers": "mlx_optimizers.cli:main"}


@pytest.mark.norm("vectors.installed")
def test_the_package_is_below_two_megabytes():
    """Unpacked, and so the more as a wheel. The vectors take more: the command writes them, and the site has them."""
    files = [file for file in Path(mlx_optimizers.__file__).parent.rglob("*") if "__pycache__" not in file.parts]
    assert len(files) > 50
    assert sum(file.stat().st_size for file in files if file.is_file()) < 2 * 10**6
