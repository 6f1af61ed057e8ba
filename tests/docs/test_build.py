"""What the build of the site needs, and what it refuses."""

from __future__ import annotations

import re
import resource

import pytest

from tests.docs.copies import build


def append(path, text):
    path.write_text(path.read_text(encoding="utf-8") + text, encoding="utf-8")


def test_node_is_not_needed_on_path(project):
    (project / "docs" / "page.md").write_text(
        "---\norphan: true\n---\n# Page\n\n$$v \\leftarrow \\beta v$$\n", encoding="utf-8"
    )
    result = build(project, PATH=str(project / "nothing"))
    assert result.returncode == 0, result.stdout + result.stderr
    page = (project / "build" / "html" / "page.html").read_text(encoding="utf-8")
    assert 'class="katex-display"' in page


def test_a_public_name_on_no_page_fails_the_build(project):
    append(
        project / "mlx_optimizers" / "__init__.py", '\n\ndef novelty():\n    """New."""\n\n\n__all__ += ["novelty"]\n'
    )
    result = build(project)
    assert result.returncode != 0
    assert "the public name mlx_optimizers.novelty is on no page" in result.stderr


def test_a_public_method_without_a_docstring_fails_the_build(project):
    append(project / "mlx_optimizers" / "__init__.py", "\n\nAdam.novelty = lambda self: None\n")
    result = build(project)
    assert result.returncode != 0
    assert "the public name mlx_optimizers.Adam.novelty has no docstring" in result.stderr


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
def test_a_page_with_a_fault_fails_the_build(project, page, complaint):
    (project / "docs" / "page.md").write_text(f"---\norphan: true\n---\n# Page\n\n{page}\n", encoding="utf-8")
    result = build(project)
    assert result.returncode != 0
    assert complaint in result.stderr


def test_an_address_of_the_site_adds_what_needs_one(project):
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    result = build(project, SITE_URL="https://site.example/mlx-optimizers")
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    # Of a processor, not of the clock, which others may hold up: a whole build is far below two minutes.
    assert after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime < 90
    assert result.returncode == 0, result.stdout + result.stderr
    html = project / "build" / "html"
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
