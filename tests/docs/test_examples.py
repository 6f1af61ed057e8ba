"""Examples are run, all of them, and a wrong digit is noticed.

Run as a program, ``python -m tests.docs.test_examples``, this prints the counts as they are now, among them those of
the optimizers, which stand in tests/expected.py.
"""

from __future__ import annotations

import re
import sys
from collections import Counter
from pathlib import Path

import pytest

from tests.docs.copies import ROOT, copy_project, run
from tests.expected import EXPECTED

EXAMPLES = {
    "README.md": 17,
    "docs/guides/cannot_see.md": 14,
    "docs/guides/check_your_backend.md": 7,
    "docs/guides/check_your_port.md": 6,
    "docs/guides/clipping.md": 25,
    "docs/guides/coming_from.md": 24,
    "docs/guides/first_steps.md": 24,
    "docs/guides/formulas.md": 7,
    "docs/guides/frameworks.md": 11,
    "docs/guides/half_precision.md": 43,
    "docs/guides/inputs.md": 4,
    "docs/guides/interval.md": 16,
    "docs/guides/newton_schulz.md": 22,
    "docs/guides/mlx_history.md": 6,
    "docs/guides/own_optimizer.md": 28,
    "docs/guides/parameter_groups.md": 28,
    "docs/guides/platforms.md": 2,
    "docs/guides/questions.md": 36,
    "docs/guides/read_a_failure.md": 6,
    "docs/guides/save_and_resume.md": 62,
    "docs/guides/schedules.md": 31,
    "docs/guides/the_oracle.md": 22,
    "docs/guides/train_on_the_digits.md": 14,
    "docs/guides/train_a_transformer.md": 26,
    "docs/index.md": 10,
    "docs/optimizers.rst": 8,
    "docs/performance.md": 8,
    "mlx_optimizers/backends/__init__.py": 2,
    "mlx_optimizers/backends/command.py": 3,
    "mlx_optimizers/checkpoint.py": 8,
    "mlx_optimizers/cli.py": 2,
    "mlx_optimizers/clip.py": 4,
    "mlx_optimizers/conformance/schemas/__init__.py": 2,
    "mlx_optimizers/conformance/solver.py": 4,
    "mlx_optimizers/conformance/verdict.py": 6,
    "mlx_optimizers/execution/program.py": 4,
    "mlx_optimizers/interrupts.py": 5,
    "mlx_optimizers/multi.py": 6,
    "mlx_optimizers/muon.py": 15,
    "mlx_optimizers/newton_schulz.py": 4,
    "mlx_optimizers/optimizer.py": 16,
    "mlx_optimizers/oracle/constants.py": 4,
    "mlx_optimizers/oracle/exact.py": 3,
    "mlx_optimizers/oracle/formats.py": 5,
    "mlx_optimizers/oracle/formulas.py": 6,
    "mlx_optimizers/oracle/fixed_point.py": 5,
    "mlx_optimizers/oracle/newton_schulz.py": 16,
    "mlx_optimizers/oracle/rounded.py": 5,
    "mlx_optimizers/oracle/trajectory.py": 3,
    "mlx_optimizers/oracle/schedules.py": 4,
    "mlx_optimizers/schedulers.py": 16,
    "mlx_optimizers/settings.py": 7,
    "mlx_optimizers/state.py": 13,
    "mlx_optimizers/testing.py": 5,
}
EXAMPLES |= {"docs/optimizers/adafactor.md": 48, "mlx_optimizers/adafactor.py": 5, "docs/optimizers/muon.md": 47}
"""How many examples each file has at least. A page that loses some is noticed; one that gains some belongs in here."""

for name, expected in EXPECTED.items():  # those of the optimizers stand in their records
    page, module = expected.examples
    EXAMPLES |= {f"docs/optimizers/{name.lower()}.md": page, f"mlx_optimizers/{name.lower()}.py": module}


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


def test_the_examples_are_no_fewer_in_all(counts):
    """They may move from a docstring to a page; none is to go on the way."""
    assert counts.total() >= 526


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


FENCE = re.compile(r"^[ \t]*(`{3,})(\w[\w+-]*)[ \t]*\n(.*?)^[ \t]*\1[ \t]*$", re.MULTILINE | re.DOTALL)
RUN = {"pycon", "python", "console"}
"""conftest.py runs these in every file."""

NOT_RUN = "not run here: "
SHOWN = {
    ("docs/guides/check_your_backend.md", "sh"): (1, NOT_RUN),
    ("docs/guides/check_your_port.md", "c"): (1, "tests/ports/test_guide.py"),
    ("docs/guides/check_your_port.md", "javascript"): (1, "tests/ports/test_guide.py"),
    ("docs/guides/check_your_port.md", "json"): (8, "tests/ports/test_guide.py"),
    ("docs/guides/check_your_port.md", "rust"): (1, "tests/ports/test_guide.py"),
    ("docs/guides/check_your_port.md", "sh"): (1, NOT_RUN),
    ("docs/guides/check_your_port.md", "swift"): (1, NOT_RUN),
    ("docs/guides/check_your_port.md", "yaml"): (1, NOT_RUN),
    ("docs/guides/coming_from.md", "py"): (2, NOT_RUN),
    ("docs/guides/vectors.md", "c"): (1, "tests/vectors/test_loading.py"),
    ("docs/guides/vectors.md", "javascript"): (1, "tests/vectors/test_loading.py"),
    ("docs/guides/vectors.md", "rust"): (1, "tests/vectors/test_loading.py"),
    ("docs/guides/vectors.md", "sh"): (1, NOT_RUN),
    ("docs/guides/vectors.md", "swift"): (1, NOT_RUN),
}
"""The blocks that are no examples in Python: how many, and the test that runs them or the mark of a reason."""


def test_every_other_block_is_run_by_a_test_or_says_why_it_is_not():
    found: dict[tuple[str, str], list[str]] = {}
    for path in [*ROOT.glob("docs/**/*.md"), ROOT / "README.md"]:
        name = path.relative_to(ROOT).as_posix()
        for _, language, text in FENCE.findall(path.read_text(encoding="utf-8")):
            if language not in RUN:
                found.setdefault((name, language), []).append(text)
    assert {key: len(blocks) for key, blocks in found.items()} == {key: count for key, (count, _) in SHOWN.items()}
    for (name, language), (_, how) in SHOWN.items():
        if how == NOT_RUN:
            reasons = [block.splitlines()[0].partition(NOT_RUN)[2] for block in found[name, language]]
            assert all(len(reason) > 10 for reason in reasons), (name, language)
        else:
            test = (ROOT / how).read_text(encoding="utf-8")
            assert Path(name).name in test, how
            assert re.search(rf"""["']{language}["']""", test), (how, language)


def test_no_line_of_prose_opens_as_a_list_by_its_arithmetic():
    """A line that begins with + or − and a blank is a list to Markdown."""
    for path in ROOT.glob("docs/**/*.md"):
        text = FENCE.sub("", path.read_text(encoding="utf-8"))
        assert not re.search(r"^[ \t]*([+*]|[-−])[ \t]+[−×÷√+=]", text, re.MULTILINE), path.name


def test_no_block_is_without_a_language():
    """One would be run by nothing; the output of an example stands below its prompt."""
    for path in [*ROOT.glob("docs/**/*.md"), ROOT / "README.md"]:
        fences = re.findall(r"^[ \t]*`{3,}(.*)$", path.read_text(encoding="utf-8"), re.MULTILINE)
        assert all(fences[::2]), path.name
        assert not any(fences[1::2]), path.name
    for path in ROOT.glob("docs/*.rst"):
        text = path.read_text(encoding="utf-8")
        assert set(re.findall(r"code-block:: (\w+)", text)) <= RUN, path.name
        assert not re.search(r"^(?![ \t]*\.\. ).*::$", text, re.MULTILINE), path.name


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
    "a shell session": ("page.md", "```console\n$ mlx-optimizers --version\nmlx-optimizers 0.2.0\n```\n"),
}


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory) -> tuple[dict[str, str], dict[str, str]]:
    """The outcome of each form, right and with a wrong digit: every one a file of its own, in two runs of pytest."""
    project = copy_project(tmp_path_factory.mktemp("forms") / "project")
    found = []
    for changes in ({}, {"0.25": "0.26", "0.2.0": "0.2.1"}):
        files = {}
        for number, (form, (name, text)) in enumerate(FORMS.items()):
            for old, new in changes.items():
                text = text.replace(old, new)
            stem, dot, suffix = name.partition(".")
            file = f"{'mlx_optimizers' if suffix == 'py' else 'docs'}/{stem}_{number}{dot}{suffix}"
            (project / file).write_text(text, encoding="utf-8")
            files[file] = form
        result = run("-m", "pytest", "-q", "-rA", *files, cwd=project)
        outcome = re.findall(r"^(PASSED|FAILED) (\S+?)::", result.stdout, re.MULTILINE)
        assert sorted(file for _, file in outcome) == sorted(files), result.stdout + result.stderr
        found.append({files[file]: status for status, file in outcome})
    return tuple(found)


@pytest.mark.parametrize("form", FORMS)
def test_a_wrong_digit_is_noticed_in(form, outcomes):
    right, wrong = outcomes
    assert right[form] == "PASSED"
    assert wrong[form] == "FAILED"


def test_a_failed_example_fails_its_run(project):
    page = project / "docs" / "page.md"
    for text, status in (("```pycon\n>>> 1 / 4\n0.25\n```\n", 0), ("```pycon\n>>> 1 / 4\n0.26\n```\n", 1)):
        page.write_text(text, encoding="utf-8")
        assert run("-m", "pytest", "-q", page, cwd=project).returncode == status


PROMPT = re.compile(r"\s*(>>> |\.\.\. |\$ mlx-optimizers )")


def with_a_digit_changed(text: str) -> str | None:
    """Change the last digit of the first line with one that an example prints; None where there is no such line."""
    lines = text.splitlines(keepends=True)
    for number, line in enumerate(lines[1:], start=1):
        printed = PROMPT.match(lines[number - 1]) and not PROMPT.match(line)
        if printed and (digit := re.search(r"\d(?=\D*$)", line)):
            lines[number] = line[: digit.start()] + str((int(digit[0]) + 1) % 10) + line[digit.end() :]
            return "".join(lines)
    return None


FIRST_FAILURE = '''
"""A plugin of pytest that leaves a file after its first failure: one is enough to tell that it was noticed."""

import pytest

failed = set()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item, call):
    report = yield
    if report.failed:
        failed.add(item.path)
    return report


def pytest_runtest_setup(item):
    if item.path in failed:
        pytest.skip("its file has failed already")
'''


def test_a_digit_changed_in_what_an_example_prints_is_noticed_in_every_file(project):
    changed = set()
    for name in EXAMPLES:
        path = project / name
        if text := with_a_digit_changed(path.read_text(encoding="utf-8")):
            path.write_text(text, encoding="utf-8")
            changed.add(name)
    assert {"README.md", "docs/optimizers.rst", "docs/optimizers/adam.md", "mlx_optimizers/adam.py"} <= changed
    (project / "first_failure.py").write_text(FIRST_FAILURE, encoding="utf-8")
    result = run("-m", "pytest", "-q", "-p", "first_failure", *sorted(changed), cwd=project)
    assert set(re.findall(r"^FAILED (\S+?)::", result.stdout, re.MULTILINE)) == changed, result.stdout + result.stderr


def test_examples_cannot_be_skipped(project):
    page = project / "docs" / "page.md"
    page.write_text("% skip: next\n\n```pycon\n>>> 1 / 4\n0.26\n```\n", encoding="utf-8")
    assert run("-m", "pytest", "-q", page, cwd=project).returncode == 1


if __name__ == "__main__":
    sys.stdout.writelines(f'    "{file}": {count},\n' for file, count in sorted(collected(ROOT).items()))
