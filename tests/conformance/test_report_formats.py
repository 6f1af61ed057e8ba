"""The formats of a report besides JSON: Markdown, JUnit, HTML."""

from __future__ import annotations

import dataclasses
import re
from xml.etree import ElementTree as ET

import pytest

from mlx_optimizers.backends.reference import Reference
from mlx_optimizers.cli import FORMATS, main
from mlx_optimizers.conformance import Outcome, Report, Unsupported, check, matching
from mlx_optimizers.conformance.junit import junit
from mlx_optimizers.conformance.markdown import markdown
from mlx_optimizers.conformance.page import page

WORDS = "cannot <b>|this|</b> & ```that```\x00\x1b[31m"
"""What a backend may say: everything that means something in one of the formats."""


class Mixed(Reference):
    """Computes SGD as documented, RMSprop with ε moved, raises in Adagrad, and has no Lion."""

    name = "mixed <backend>"

    def run(self, case):
        if case.optimizer == "Adagrad":
            raise RuntimeError(WORDS)
        if case.optimizer == "Lion":
            raise Unsupported(WORDS)
        outcome = super().run(case)
        if case.optimizer == "RMSprop":
            return Outcome(outcome.parameters * outcome.parameters.dtype.type(1.5), outcome.state)
        return outcome


@pytest.fixture(scope="module")
def report() -> Report:
    return check(Mixed(), [*matching(["SGD", "RMSprop"], "*/plain/*"), *matching(["Adagrad", "Lion"], "*/plain/def*")])


def test_every_format_of_the_interface_is_there():
    assert set(FORMATS) == {"human", "json", "junit", "markdown", "html"}


def test_markdown_has_a_row_an_optimizer(report):
    lines = [line for line in markdown(report).splitlines() if line.startswith("|")]
    rows = [[cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]] for line in lines]
    assert rows[0] == ["optimizer", "cases", "verdict", "scalars", "excess", "untested"]
    assert set("".join(rows[1])) <= {"-", ":"}
    assert [(row[0], row[2].split()[0]) for row in rows[2:]] == [
        ("SGD", "conforms"),
        ("RMSprop", "deviates"),
        ("Adagrad", "failed"),
        ("Lion", "unsupported"),
    ]
    assert len({len(line) for line in lines}) == 1


def parsed(text):
    """Convert Markdown by the parser of the site."""
    return pytest.importorskip("markdown_it").MarkdownIt("commonmark").enable("table").parse(text)


def test_markdown_is_read_as_it_was_meant(report):
    """One table, and what a backend says stays text inside a block of code."""
    tokens = parsed(markdown(report))
    assert [token.type for token in tokens].count("table_open") == 1
    fences = [token.content for token in tokens if token.type == "fence"]
    assert len(fences) == 3
    assert sum(WORDS[:20] in fence for fence in fences) == 2
    assert not [token for token in tokens if token.type == "html_block"]
    inline = [child for token in tokens for child in token.children or ()]
    assert {child.type for child in inline} <= {"text", "strong_open", "strong_close", "softbreak", "text_special"}
    assert "mixed <backend>" in "".join(child.content for child in inline)


def test_junit_counts_and_names_every_case(report):
    root = ET.fromstring(junit(report))  # noqa: S314 – written by the line before
    suites = root.findall("testsuite")
    assert [suite.get("name") for suite in suites] == ["SGD", "RMSprop", "Adagrad", "Lion"]
    assert [case.get("name") for case in root.iter("testcase")] == [result.case for result in report.results]
    for element in (root, *suites):
        for attribute, tag in (("failures", "failure"), ("errors", "error"), ("skipped", "skipped")):
            assert int(element.get(attribute)) == len(list(element.iter(tag)))
        assert int(element.get("tests")) == len(list(element.iter("testcase")))
    counts = report.counts()
    found = [int(root.get(attribute)) for attribute in ("failures", "errors", "skipped")]
    assert found == [counts["deviates"], counts["failed"], counts["unsupported"]]
    assert all(found)
    failure = next(root.iter("failure"))
    assert "no formula known here" in failure.get("message")
    assert "accepted [" in failure.text


def test_html_is_one_file_that_loads_nothing(report):
    soup = pytest.importorskip("bs4").BeautifulSoup(page(report), "html.parser")
    assert not soup.find_all(["script", "link", "img", "iframe", "b"])
    assert not [tag for tag in soup.find_all(True) if tag.get("src") or tag.get("href")]
    assert "url(" not in soup.style.text and "@import" not in soup.style.text
    assert soup.title.text.startswith("mixed <backend>")
    assert WORDS[:20] in soup.text


def test_html_shows_every_case_and_a_line_for_every_quantity(report):
    soup = pytest.importorskip("bs4").BeautifulSoup(page(report), "html.parser")
    tables = soup.find_all("table")
    cells = [row.td.text for table in tables[1:] for row in table.tbody.find_all("tr")]
    assert cells == [result.case for result in report.results]
    titles = [line.title.text for line in soup.find_all("polyline")]
    assert titles == [f"{result.case}, {name}" for result in report.results for name in result.excesses]
    assert len(soup.find_all("svg")) == 2  # nothing was judged of the other two


def test_lines_of_html_stay_in_their_plot_whatever_the_excess(report):
    values = [0.0, 1e-300, 0.5, 1.0, None, 1e300, float("inf"), 2.0]
    result = dataclasses.replace(report.results[0], excesses={"parameter": values, "v": [None] * 8})
    soup = pytest.importorskip("bs4").BeautifulSoup(page(Report("x", "1", "cpu", [result])), "html.parser")
    _, _, width, height = map(float, soup.svg["viewbox"].split())
    lines = [[tuple(map(float, point.split(","))) for point in line["points"].split()] for line in soup.svg("polyline")]
    assert [len(line) for line in lines] == [4, 3]  # interrupted where nothing was tested
    assert all(0 <= x <= width and 0 <= y <= height for line in lines for x, y in line)
    assert lines[0][0][1] == lines[0][1][1] > lines[0][2][1] > lines[0][3][1] > lines[1][2][1] > lines[1][0][1]


def test_what_a_broken_backend_finished_is_reported(report):
    broken = Report("x", "1", "cpu", report.results[:1], broken=WORDS)
    assert broken.status == 4
    root = ET.fromstring(junit(broken))  # noqa: S314 – written by the same line
    assert (root.get("tests"), root.get("errors")) == ("2", "1")
    for write in (page, markdown):
        assert "could not go on" in write(broken)
    assert WORDS[:20] in next(token.content for token in parsed(markdown(broken)) if token.type == "fence")
    for write in FORMATS.values():
        assert report.results[0].optimizer in write(broken)


@pytest.mark.parametrize("name", FORMATS)
def test_nothing_finished_is_still_a_report(name):
    written = FORMATS[name](Report("x", "1", "cpu", [], broken="why"))
    assert written
    if name in ("junit", "markdown", "html"):  # the others stand next to standard error, or have no field for it
        assert "why" in written


@pytest.mark.parametrize("name", FORMATS)
def test_the_command_line_writes_every_format(name, tmp_path, capsys):
    arguments = ["check", "reference", "--case", "lion/plain/defaults", "--format", name]
    assert main([*arguments, "-o", str(tmp_path / "report")]) == 0
    assert not capsys.readouterr().out
    assert main(arguments) == 0
    assert capsys.readouterr().out == (tmp_path / "report").read_text("utf-8")
