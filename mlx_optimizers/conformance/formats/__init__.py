"""How a report is written: text for people, HTML, JUnit XML and Markdown; its JSON is the report's own."""

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
"""What writes a report, by the format's name on the command line."""
