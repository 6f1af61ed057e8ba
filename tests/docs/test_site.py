"""The built site works from disk: nothing is loaded from elsewhere, nothing is missing, every formula is set."""

from __future__ import annotations

import importlib.util
import json
import re
from pathlib import Path

import pytest
from bs4 import BeautifulSoup

from mlx_optimizers.conformance.schemas import schema
from tests.docs.copies import ROOT

specification = importlib.util.spec_from_file_location("site_checks", ROOT / "docs" / "_ext" / "site_checks.py")
site_checks = importlib.util.module_from_spec(specification)
specification.loader.exec_module(site_checks)


def test_the_site_has_no_problem(site):
    assert site_checks.problems(site) == []


def test_the_site_is_below_20_megabytes_without_the_vectors(site):
    files = [path for path in site.rglob("*") if path.is_file() and path.relative_to(site).parts[0] != "vectors"]
    assert sum(path.stat().st_size for path in files) < 20e6
    assert sum(path.stat().st_size for path in (site / "vectors").iterdir()) < 25e6


@pytest.mark.norm("vectors.published")
def test_the_vectors_are_part_of_the_site(site, vectors):
    published = {path.name: path.read_bytes() for path in (site / "vectors").iterdir()}
    assert published == {path.name: path.read_bytes() for path in vectors.iterdir()}
    listed = [file["name"] for file in json.loads(published["MANIFEST.json"])["files"]]
    assert {*listed, "MANIFEST.json", "CHANGES.txt"} == set(published)
    assert json.loads((site / "vectors.schema.json").read_text("utf-8")) == schema("vectors")


def test_no_address_of_another_host_in_what_a_page_loads(site):
    """Ask a second parser, which has words of its own."""
    pages = [page for page in site.rglob("*.html") if "_static" not in page.parts]
    assert len(pages) > 10
    for page in pages:
        soup = BeautifulSoup(page.read_text(encoding="utf-8"), "html.parser")
        loaded = [tag.get("src") or tag.get("href") or "" for tag in soup.select("script, img, link, iframe, source")]
        assert [address for address in loaded if "//" in address] == [], page.name
        assert soup.select(".katex-error") == [], page.name
    for style in site.rglob("*.css"):
        content = style.read_text(encoding="utf-8")
        assert "url(http" not in content
        assert "url(//" not in content
        assert not re.search(r"@import\s*[\"']?(https?:)?//", content)


PROBLEMS = {
    '<script src="https://cdn.example/x.js"></script>': "another host",
    '<script src="//cdn.example/x.js"></script>': "another host",
    '<link rel="stylesheet" href="http://fonts.example/a.css">': "another host",
    '<img srcset="a.png 1x, https://img.example/b.png 2x">': "another host",
    '<p style="background: url(https://img.example/b.png)">': "another host",
    "<style>@import 'https://fonts.example/a.css';</style>": "another host",
    '<img src="missing.png">': "not part of the site",
    '<img src="../outside.png">': "not part of the site",
    '<span class="katex-error" title="ParseError: expected \'}\'">': "ParseError",
}


@pytest.mark.parametrize("tag", PROBLEMS)
def test_each_problem_is_found(tmp_path: Path, tag):
    site = tmp_path / "site"
    site.mkdir()
    (tmp_path / "outside.png").touch()
    (site / "a.png").touch()
    (site / "page.html").write_text(f"<html><body>{tag}</body></html>")
    problems = site_checks.problems(site)
    assert len([problem for problem in problems if PROBLEMS[tag] in problem]) == 1
    assert all(problem.startswith("page.html: ") for problem in problems)


@pytest.mark.parametrize(
    "tag",
    [
        '<a href="https://doi.org/10.1214/x">',
        '<img src="a.png?v=1">',
        '<link rel="next" href="https://elsewhere.example/">',
    ],
)
def test_a_link_that_waits_for_a_click_is_no_problem(tmp_path: Path, tag):
    (tmp_path / "a.png").touch()
    (tmp_path / "page.html").write_text(f"<html><body>{tag}</body></html>")
    assert site_checks.problems(tmp_path) == []
