"""Refuses a site that would not work from disk, or that shows a formula KaTeX could not set.

Nothing on a page may be loaded from another host, and what a page loads from the site must be there. Each finding is a
warning, and so, under ``-W``, a failed build.
"""

from __future__ import annotations

import re
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

from sphinx.application import Sphinx
from sphinx.util import logging

logger = logging.getLogger(__name__)

LOADED = {  # what a browser fetches by itself; the href of an <a> waits for a click
    ("audio", "src"),
    ("embed", "src"),
    ("iframe", "src"),
    ("image", "href"),
    ("img", "src"),
    ("img", "srcset"),
    ("input", "src"),
    ("link", "href"),
    ("object", "data"),
    ("script", "src"),
    ("source", "src"),
    ("source", "srcset"),
    ("track", "src"),
    ("use", "href"),
    ("video", "poster"),
    ("video", "src"),
}
NOT_FETCHED = {"canonical", "next", "prev", "index", "search", "help", "author", "license", "up", "top", "contents"}
STYLE_URL = re.compile(r"""(?:url\(\s*|@import\s+)["']?([^"')\s;]+)""")


class Page(HTMLParser):
    """The addresses that a page loads, and the formulas on it that KaTeX refused."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.loaded: list[str] = []
        self.errors: list[str] = []
        self._in_style = False
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Take in one tag."""
        values = {name: value or "" for name, value in attrs}
        self._in_style = tag == "style"
        if "katex-error" in values.get("class", "").split():
            self.errors.append(values.get("title", ""))
        self.loaded += STYLE_URL.findall(values.get("style", ""))
        if tag == "link" and set(values.get("rel", "").split()) <= NOT_FETCHED:
            return
        for name, value in values.items():
            if (tag, name) not in LOADED:
                continue
            parts = value.split(",") if name == "srcset" else [value]
            self.loaded += [part.split()[0] for part in parts if part.split()]

    def handle_data(self, data: str) -> None:
        """Take in the text between two tags."""
        if self._in_style:
            self.loaded += STYLE_URL.findall(data)


def problems(folder: Path, prefix: str = "") -> list[str]:
    """Return what is wrong with the site in ``folder``, a sentence each; ``prefix`` is its path on its host."""
    found = []
    for page in sorted(folder.rglob("*.html")):
        name = page.relative_to(folder)
        if name.parts[0] == "_static":  # the theme leaves a template there
            continue
        content = Page(page.read_text(encoding="utf-8"))
        found += [f"{name}: a formula cannot be set: {error}" for error in content.errors]
        found += [f"{name}: {problem}" for problem in map(_problem_of(page, folder, prefix), content.loaded) if problem]
    for style in sorted(folder.rglob("*.css")):
        addresses = STYLE_URL.findall(style.read_text(encoding="utf-8"))
        name = style.relative_to(folder)
        found += [f"{name}: {problem}" for problem in map(_problem_of(style, folder, prefix), addresses) if problem]
    return found


def _problem_of(file: Path, folder: Path, prefix: str):
    def problem(address: str) -> str | None:
        parts = urlsplit(address)
        if parts.scheme == "data":
            return None
        if parts.scheme or parts.netloc:
            return f"{address} would be loaded from another host"
        if not parts.path:
            return None
        start, path = file.parent, parts.path
        if prefix and path.startswith(prefix):  # a page such as 404.html, which is shown at any address
            start, path = folder, path.removeprefix(prefix)
        target = (start / unquote(path)).resolve()
        if not target.is_relative_to(folder.resolve()) or not target.is_file():
            return f"{address} is not part of the site"
        return None

    return problem


def check(app: Sphinx, exception: Exception | None) -> None:
    """Warn of every problem once the site is written."""
    if exception is None and app.builder.name == "html":
        for problem in problems(Path(app.outdir), getattr(app.config, "notfound_urls_prefix", "")):
            logger.warning(problem)


def setup(app: Sphinx) -> dict[str, object]:
    """Register with Sphinx."""
    app.connect("build-finished", check, priority=900)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
