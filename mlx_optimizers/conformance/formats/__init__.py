"""The formats of a report: text for people, HTML, JUnit XML and Markdown; the report writes its own JSON."""

from collections.abc import Callable

from mlx_optimizers.conformance.formats.html import html
from mlx_optimizers.conformance.formats.junit import junit
from mlx_optimizers.conformance.formats.markdown import markdown
from mlx_optimizers.conformance.formats.text import text
from mlx_optimizers.conformance.report import Report

__all__ = ["FORMATS"]

FORMATS: dict[str, Callable[[Report], str]] = {
    "human": text,
    "json": Report.dumps,
    "junit": junit,
    "markdown": markdown,
    "html": html,
}
"""The writer of each format, by its name on the command line."""
