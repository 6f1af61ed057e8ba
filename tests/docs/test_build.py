"""What the build of the site needs, and what it refuses."""

from __future__ import annotations

import re
import resource

import pytest

from tests.docs.copies import ROOT, build, copy_project

# The builds of one worker follow on each other, rather than wait for those of another.
pytestmark = pytest.mark.xdist_group("builds of the site")

PAGE = "---\norphan: true\n---\n# Page\n\n"
INIT = (ROOT / "mlx_optimizers" / "__init__.py").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A whole build from nothing, with an address and a formula more, without node on PATH; and its seconds."""
    project = copy_project(tmp_path_factory.mktemp("made") / "project")
    (project / "docs" / "page.md").write_text(f"{PAGE}$$v \\leftarrow \\beta v$$\n", encoding="utf-8")
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    result = build(project, PATH=str(project / "nothing"), SITE_URL="https://site.example/mlx-optimizers")
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    seconds = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    assert result.returncode == 0, result.stdout + result.stderr
    return project / "build" / "html", seconds


def test_node_is_not_needed_on_path(made):
    page = (made[0] / "page.html").read_text(encoding="utf-8")
    assert 'class="katex-display"' in page


def test_a_public_name_on_no_page_fails_the_build(changed):
    novelty = '\n\ndef novelty():\n    """New."""\n\n\n__all__ += ["novelty"]\n'
    result = changed({"mlx_optimizers/__init__.py": INIT + novelty})
    assert result.returncode != 0
    assert "the public name mlx_optimizers.novelty is on no page" in result.stderr


def test_a_public_method_without_a_docstring_fails_the_build(changed):
    result = changed({"mlx_optimizers/__init__.py": f"{INIT}\n\nAdam.novelty = lambda self: None\n"})
    assert result.returncode != 0
    assert "the public name mlx_optimizers.Adam.novelty has no docstring" in result.stderr


def test_a_page_without_a_fault_passes_the_build(changed, tmp_path):
    """So that what fails below is the fault, and not the page."""
    result = changed({"docs/page.md": f"{PAGE}$$a = b$$\n"})
    assert result.returncode == 0, result.stdout + result.stderr
    assert 'class="katex-display"' in (tmp_path / "html" / "page.html").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("page", "complaint"),
    [
        ("$$a &= b$$", "formula cannot be set"),
        ("```{math}\n\\frac{1}{\n```", "formula cannot be set"),
        ('<script src="https://cdn.example/x.js"></script>', "another host"),
        ("{py:class}`mlx_optimizers.Novelty`", "reference target not found"),
        ("[gone](gone.md)", "gone.md"),
    ],
)
def test_a_page_with_a_fault_fails_the_build(changed, page, complaint):
    result = changed({"docs/page.md": f"{PAGE}{page}\n"})
    assert result.returncode != 0
    assert complaint in result.stderr


def test_an_address_of_the_site_adds_what_needs_one(made):
    html, seconds = made
    # Of a processor, not of the clock, which others may hold up: a whole build is far below two minutes.
    assert seconds < 90
    assert "https://site.example/mlx-optimizers/optimizers.html" in (html / "sitemap.xml").read_text(encoding="utf-8")
    assert 'property="og:url"' in (html / "optimizers.html").read_text(encoding="utf-8")
    adam = (html / "generated" / "mlx_optimizers.Adam.html").read_text(encoding="utf-8")
    assert '<meta property="og:description" content="Adam [1]: a running mean' in adam
    missing = (html / "404.html").read_text(encoding="utf-8")
    links = re.findall(r'(?:href|src)="([^"]*)"', missing)
    assert len(links) > 30
    assert [link for link in links if not re.match(r"/mlx-optimizers/|https://site\.example/|#", link)] == []
    assert "404.html" not in (html / "sitemap.xml").read_text(encoding="utf-8")


def test_without_an_address_nothing_is_made_up(site):
    assert not (site / "sitemap.xml").exists()
    assert not re.search(r'(?:href|src)="/', (site / "404.html").read_text(encoding="utf-8"))
    assert "og:url" not in (site / "optimizers.html").read_text(encoding="utf-8")
