"""A report as Markdown, for a terminal or the summary of a CI run."""

from __future__ import annotations

from mlx_optimizers.conformance.formats.summary import HEADER, RIGHT, details, padded, summaries, title
from mlx_optimizers.conformance.report import Report

__all__ = ["markdown", "table"]


def markdown(report: Report) -> str:
    """Write the report as Markdown: title, a row an optimizer, then what deviates, fails or is unsupported."""
    rows = [row.cells() for row in summaries(report)]
    paragraphs = [f"**{escaped(title(report))}**"]
    if report.broken is not None:
        paragraphs.append(_paragraph("\n  ".join(["The backend could not go on:", *report.broken.splitlines()])))
    if rows:
        paragraphs.append(table(HEADER, rows, [name in RIGHT for name in HEADER]))
    return "\n\n".join([*paragraphs, *map(_paragraph, details(report))]) + "\n"


def table(header: tuple[str, ...], rows: list[tuple[str, ...]], right: list[bool]) -> str:
    """Write a Markdown table, with padded columns, so that it reads well as text too."""
    cells = [tuple(map(escaped, row)) for row in (header, *rows)]
    head, *body = padded(cells, right, least=3)
    rule = ["-" * (len(cell) - 1) + (":" if flush else "-") for cell, flush in zip(head, right, strict=True)]
    return "\n".join(f"| {' | '.join(row)} |" for row in (head, rule, *body))


def escaped(text: str) -> str:
    """Escape text, so that Markdown shows it as it stands."""
    return "".join(f"\\{x}" if x in "\\`*_[]<>|#" else x for x in text).replace("\n", " ")


def _paragraph(text: str) -> str:
    """Write a headline, and the indented lines below it as code, where brackets and underscores are literal."""
    headline, _, rest = text.partition("\n")
    if not rest:
        return escaped(headline)
    fence = "```"
    while fence in rest:  # a backend chooses its own words
        fence += "`"
    lines = [line.removeprefix("  ") for line in rest.split("\n")]
    return "\n".join([escaped(headline), "", f"{fence}text", *lines, fence])
