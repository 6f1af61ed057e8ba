"""Every example in the documentation is a test: docstrings, reStructuredText, MyST Markdown, the README.

The output must match to the digit, and no comment can skip an example. The examples of one file share one namespace and
run in order.
"""

from __future__ import annotations

import doctest
import shlex
import subprocess
import sys
from collections.abc import Iterable

import pytest
from sybil import Document, Example, Region, Sybil
from sybil.evaluators.doctest import DocTestEvaluator
from sybil.integration.pytest import SybilItem
from sybil.parsers.abstract import DocTestStringParser
from sybil.parsers.myst import CodeBlockParser as MystBlocks
from sybil.parsers.myst import DocTestDirectiveParser as MystDoctests
from sybil.parsers.myst import PythonCodeBlockParser as MystPython
from sybil.parsers.rest import CodeBlockParser as RestBlocks
from sybil.parsers.rest import DocTestParser as RestDoctests
from sybil.parsers.rest import PythonCodeBlockParser as RestPython
from sybil.sybil import SybilCollection

PROGRAM = "mlx-optimizers"
"""The one command that examples of a shell session run; ``make`` and ``pip`` among them are only shown."""


class MystPycon(MystBlocks):
    """Examples in ``pycon`` fences, which sybil's own parser of Markdown passes over."""

    language = "pycon"

    def __call__(self, document: Document) -> Iterable[Region]:
        """Yield one region an example."""
        examples = DocTestStringParser(DocTestEvaluator())
        for fence in super().__call__(document):
            for region in examples(fence.parsed, document.path):
                region.adjust(fence, fence.parsed)
                yield region


def run_session(example: Example) -> str | None:
    """Run the commands of a shell session and compare what each prints; a lone ``...`` stands for any lines."""
    checker, flags = doctest.OutputChecker(), doctest.ELLIPSIS
    prompts = ("\n" + example.parsed.rstrip("\n")).split("\n$ ")
    if prompts[0].strip():
        return f"a session opens with a prompt, not with {prompts[0].strip()!r}"
    for prompt in prompts[1:]:
        line, _, shown = prompt.partition("\n")
        command, _, status = line.partition("  # exits with ")
        program, *arguments = shlex.split(command)
        if program != PROGRAM:
            continue
        run = subprocess.run(
            [sys.executable, "-m", "mlx_optimizers", *arguments], capture_output=True, text=True, check=False
        )
        if run.returncode != int(status or 0):
            return f"{command}\nexited with {run.returncode}, and printed\n{run.stdout}{run.stderr}"
        wanted, printed = shown.rstrip("\n") + "\n", (run.stdout + run.stderr).rstrip("\n") + "\n"
        if not checker.check_output(wanted, printed, flags):
            difference = checker.output_difference(doctest.Example(command, wanted), printed, flags)
            return f"{command}\n{difference}"
    return None


docstrings = Sybil([RestDoctests()], path="mlx_optimizers", pattern="*.py", name="docstring")
pages = Sybil(
    [RestDoctests(), RestPython(), RestBlocks("console", run_session)],
    path="docs",
    pattern="*.rst",
    exclude="generated/*",
    name="page",
)
markdown = Sybil(
    [MystPython(), MystPycon(), MystDoctests(), MystBlocks("console", run_session)],
    pattern="*.md",
    exclude="tests/toy/*",  # run where tests/test_add_optimizer.py puts it
    name="page",
)

pytest_collect_file = SybilCollection([docstrings, pages, markdown]).pytest()


def pytest_itemcollected(item: pytest.Item) -> None:
    """Keep the examples of a file together, and in order, when pytest-xdist hands out the tests."""
    if isinstance(item, SybilItem):
        item.add_marker(pytest.mark.xdist_group(str(item.path)))
