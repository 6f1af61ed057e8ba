"""Build pages of source files in addition to those of ``sphinx.ext.viewcode``, and links to both.

The role ``source-file`` takes a path such as ``mlx_optimizers/adam.py`` or ``tests/test_properties.py`` and links to
its page. The modules have theirs from viewcode; the tests in ``TESTS`` get one here.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from docutils import nodes
from sphinx.application import Sphinx

from mlx_optimizers.catalog import CATALOG
from mlx_optimizers.optimizer import Whole

ROOT = Path(__file__).parents[2]
TESTS = (
    *(f"tests/test_{entry.name.lower()}.py" for entry in CATALOG if issubclass(entry.optimizer, Whole)),
    "tests/test_bias_corrected.py",
    "tests/test_mlx_bitwise.py",
    "tests/test_properties.py",
    "tests/docs/test_displayed_formulas.py",
    "tests/ports/test_ports.py",
)


def source_file(
    role: str, rawtext: str, text: str, lineno: int, inliner: Any, options: Any = None, content: Any = ()
) -> tuple[list[nodes.Node], list[Any]]:
    """A link to the page of a source file."""
    if not (ROOT / text).is_file() or (text.startswith("tests/") and text not in TESTS):
        return [], [inliner.reporter.error(f"there is no page of {text}", line=lineno)]
    above = "../" * inliner.document.settings.env.docname.count("/")
    address = f"{above}_modules/{text.removesuffix('.py')}.html"
    return [nodes.reference("", "", nodes.literal(text, text), refuri=address, internal=True)], []


def pages(app: Sphinx) -> Iterator[tuple[str, dict[str, Any], str]]:
    """The page of each test."""
    for path in TESTS:
        source = (ROOT / path).read_text(encoding="utf-8")
        body = f"<h1>Source code of {path}</h1>\n{app.builder.highlighter.highlight_block(source, 'python')}"
        yield f"_modules/{path.removesuffix('.py')}", {"title": path, "body": body}, "page.html"


def setup(app: Sphinx) -> dict[str, object]:
    """Register with Sphinx."""
    app.add_role("source-file", source_file)
    app.connect("html-collect-pages", pages)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
