"""Examples are run, all of them, and a wrong digit is noticed.

Run as a program, ``python -m tests.docs.test_examples``, this prints the table of counts as it is now.
"""

from __future__ import annotations

import re
import sys
from collections import Counter
from pathlib import Path

import pytest

from tests.docs.copies import ROOT, run

EXAMPLES = {
    "README.md": 0,
}
"""How many examples each file has at least. A page that loses some is noticed; one that gains some belongs in here."""


def collected(project: Path) -> Counter[str]:
    """Count the examples that pytest finds, a file at a time."""
    listing = run("-m", "pytest", "--collect-only", "-q", "mlx_optimizers", "docs", "README.md", cwd=project)
    assert listing.returncode == 0, listing.stdout + listing.stderr
    return Counter(re.findall(r"^(\S+?)::sybil:", listing.stdout, re.MULTILINE))


def prompts(path: Path) -> int:
    """Count the prompts of Python's shell, by the looks of them alone."""
    return len(re.findall(r"^[ \t]*>>> \S", path.read_text(encoding="utf-8"), re.MULTILINE))


@pytest.fixture(scope="module")
def counts() -> Counter[str]:
    return collected(ROOT)


def test_no_file_has_lost_examples(counts):
    lost = {name: (counts[name], least) for name, least in EXAMPLES.items() if counts[name] < least}
    assert not lost, f"found, and expected at least: {lost}"


def test_every_file_with_examples_is_in_the_table(counts):
    assert set(counts) <= set(EXAMPLES)


def test_every_prompt_is_an_example(counts):
    files = [
        *ROOT.glob("mlx_optimizers/**/*.py"),
        *ROOT.glob("docs/**/*.rst"),
        *ROOT.glob("docs/**/*.md"),
        ROOT / "README.md",
    ]
    for path in files:
        name = str(path.relative_to(ROOT))
        if not name.startswith("docs/generated/"):
            assert counts[name] >= prompts(path), f"{name} has examples that are not run"


FORMS = {
    "a doctest in reStructuredText": ("page.rst", ">>> 1 / 4\n0.25\n"),
    "a pycon block in reStructuredText": ("page.rst", ".. code-block:: pycon\n\n   >>> 1 / 4\n   0.25\n"),
    "a python block in reStructuredText": ("page.rst", ".. code-block:: python\n\n   assert 1 / 4 == 0.25\n"),
    "a doctest in a python fence": ("page.md", "```python\n>>> 1 / 4\n0.25\n```\n"),
    "a python fence": ("page.md", "```python\nassert 1 / 4 == 0.25\n```\n"),
    "a pycon fence": ("page.md", "```pycon\n>>> 1 / 4\n0.25\n```\n"),
    "a doctest directive in Markdown": ("page.md", "```{doctest}\n>>> 1 / 4\n0.25\n```\n"),
    "a code-block directive in Markdown": ("page.md", "```{code-block} python\n>>> 1 / 4\n0.25\n```\n"),
    "a fence inside a tab": (
        "page.md",
        "::::{tab-set}\n:::{tab-item} Python\n```pycon\n>>> 1 / 4\n0.25\n```\n:::\n::::\n",
    ),
    "a docstring": ("module.py", '"""Quarter.\n\n>>> 1 / 4\n0.25\n"""\n'),
    "a shell session": ("page.md", "```console\n$ mlx-optimizers --version\nmlx-optimizers 0.1.0\n```\n"),
}


@pytest.mark.parametrize("form", FORMS)
def test_a_wrong_digit_is_noticed_in(form, project):
    name, text = FORMS[form]
    path = project / ("mlx_optimizers" if name.endswith(".py") else "docs") / name
    wrong = text.replace("0.25", "0.26").replace("0.1.0", "0.1.1")
    for content, passed, status in ((text, 1, 0), (wrong, 0, 1)):
        path.write_text(content, encoding="utf-8")
        result = run("-m", "pytest", "-q", path, cwd=project)
        assert result.returncode == status, result.stdout + result.stderr
        assert f"{1 - passed} failed" in result.stdout or f"{passed} passed" in result.stdout


@pytest.mark.parametrize("name", ["docs/optimizers.rst", "mlx_optimizers/adam.py", "README.md"])
def test_a_digit_changed_in_what_an_example_prints_is_noticed(name, project):
    path = project / name
    lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
    for number, line in enumerate(lines):
        after_prompt = number and re.match(r"\s*(>>>|\.\.\.|\$) ", lines[number - 1])
        if after_prompt and not re.match(r"\s*(>>>|\.\.\.|\$)", line) and (digit := re.search(r"\d(?=\D*$)", line)):
            changed = str((int(digit[0]) + 1) % 10)
            lines[number] = line[: digit.start()] + changed + line[digit.end() :]
            break
    else:
        pytest.fail(f"{name} has no example that prints a digit")
    path.write_text("".join(lines), encoding="utf-8")
    result = run("-m", "pytest", "-q", name, cwd=project)
    assert result.returncode == 1, result.stdout + result.stderr
    assert "1 failed" in result.stdout


def test_examples_cannot_be_skipped(project):
    page = project / "docs" / "page.md"
    page.write_text("% skip: next\n\n```pycon\n>>> 1 / 4\n0.26\n```\n", encoding="utf-8")
    assert run("-m", "pytest", "-q", page, cwd=project).returncode == 1


if __name__ == "__main__":
    sys.stdout.writelines(f'    "{file}": {count},\n' for file, count in sorted(collected(ROOT).items()))
