"""``llms.txt`` lists every page, and each is there as Markdown with its formulas, tables and examples."""

from __future__ import annotations

import re

import pytest
from markdown_it import MarkdownIt
from mdit_py_plugins.dollarmath import dollarmath_plugin

import mlx_optimizers
from tests.docs.faults import faults
from tests.expected import EIGHT


@pytest.fixture(scope="module")
def listed(site) -> dict[str, str]:
    """Read the line of each page, by its address."""
    lines = (site / "llms.txt").read_text("utf-8").splitlines()
    assert lines[0] == "# mlx-optimizers"
    assert lines[2].startswith("> ")
    return dict(re.fullmatch(r"- \[.+?\]\((.+?)\)(?:: (.+))?", line).groups(default="") for line in lines[4:])


def test_every_page_with_text_is_listed_once(site, listed):
    made = {"genindex", "search", "py-modindex", "404"}
    pages = [page.relative_to(site).with_suffix("") for page in site.rglob("*.html")]
    written = {page.as_posix() for page in pages if page.parts[0] not in ("_modules", "_static")} - made
    assert {address.removesuffix(".md") for address in listed} == written


def test_what_is_said_of_an_optimizer_is_its_summary(listed):
    for optimizer in mlx_optimizers.OPTIMIZERS:
        said = listed[f"generated/mlx_optimizers.{optimizer.__name__}.md"]
        assert said.split()[0].strip(":,[]1") == optimizer.__doc__.split()[0].strip(":,[]1")


def test_a_page_is_markdown_and_no_html(site, listed):
    for address in listed:
        text = (site / address).read_text("utf-8")
        assert text.startswith("# ")
        prose = re.sub(r"```.*?```|\$\$.*?\$\$|`[^`]*`", "", text, flags=re.DOTALL)
        assert not re.search(r"</?(div|span|p|table|svg|a|em|code)\b", prose), address


def test_what_reads_a_page_as_markdown_sees_text_and_formulas(site, listed):
    markdown = MarkdownIt("commonmark").enable("table").use(dollarmath_plugin, renderer=lambda *_: "x")
    for address in listed:
        text = re.sub(r"\\[*`\\]", "", (site / address).read_text("utf-8"))  # without what is escaped, which is right
        assert faults(markdown.render(text)) == [], address


def test_the_table_of_the_page_is_a_table_with_its_ten_links(site):
    rows = re.findall(r"^\| \[`(\w+)`\]\(([^)#]+)", (site / "optimizers.md").read_text("utf-8"), re.MULTILINE)
    names = ["OptimizerState", "Optimizer", *EIGHT]
    assert rows[: len(names)] == [(name, f"generated/mlx_optimizers.{name}.md") for name in names]
    assert len(re.findall(r"^\| \[`", (site / "api.md").read_text("utf-8"), re.MULTILINE)) > 20


def test_links_lead_from_markdown_to_markdown(site, listed):
    count = 0
    for address in listed:
        text = re.sub(r"```.*?```", "", (site / address).read_text("utf-8"), flags=re.DOTALL)
        for target in re.findall(r"\]\(([^)\s]+)\)", text):
            if not target.startswith(("https://", "http://", "#")):
                path = (site / address).parent / target.partition("#")[0]
                assert path.is_file(), (address, target)
                assert path.suffix in (".md", ".json", ".txt"), (address, target)
                count += path.suffix == ".md"
    assert count > 140


@pytest.mark.parametrize("optimizer", mlx_optimizers.OPTIMIZERS, ids=EIGHT)
def test_the_markdown_of_an_optimizer_has_formula_example_and_tables(site, optimizer):
    text = (site / f"generated/mlx_optimizers.{optimizer.__name__}.md").read_text("utf-8")
    assert "\n$$\n" in text
    assert "```pycon\n>>> import numpy as np" in text
    assert "| t, g |" in text
    assert re.search(r"^## Error and bound$", text, re.MULTILINE)
    assert re.search(r"^## What each hyperparameter does$.*^>>> step\(", text, re.MULTILINE | re.DOTALL)
