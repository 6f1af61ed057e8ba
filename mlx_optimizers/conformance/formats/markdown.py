"""A report as Markdown, for a terminal or the summary of a CI run."""

from __future__ import annotations

from mlx_optimizers.conformance.formats.summary import HEADER, RIGHT, details, summaries, title
from mlx_optimizers.conformance.report import Report

__all__ = ["markdown", "table"]


def markdown(report: Report) -> str:
    """The report as Markdown: title, a row an optimizer, then what deviates, fails or is unsupported, in words."""
    rows = [row.cells() for row in summaries(report)]
    paragraphs = [f"**{escaped(title(report))}**"]
    if report.broken is not None:
        paragraphs.append(_paragraph("\n  ".join(["The backend could not go on:", *report.broken.splitlines()])))
    if rows:
        paragraphs.append(table(HEADER, rows, [name in RIGHT for name in HEADER]))
    return "\n\n".join([*paragraphs, *map(_paragraph, details(report))]) + "\n"


def table(header: tuple[str, ...], rows: list[tuple[str, ...]], right: list[bool]) -> str:
    """A Markdown table, its columns padded so that it reads well as text too."""
    cells = [tuple(map(escaped, row)) for row in (header, *rows)]
    widths = [max(3, *map(len, column)) for column in zip(*cells, strict=True)]
    rule = tuple("-" * (width - 1) + (":" if flush else "-") for width, flush in zip(widths, right, strict=True))
    lines = []
    for row in (cells[0], rule, *cells[1:]):
        padded = [
            cell.rjust(width) if flush else cell.ljust(width)
            for cell, width, flush in zip(row, widths, right, strict=True)
        ]
        lines.append(f"| {' | '.join(padded)} |")
    return "\n".join(lines)


def escaped(text: str) -> str:
    """Text that Markdown shows as it stands."""
    return "".join(f"\\{x}" if x in "\\`*_[]<>|#" else x for x in text).replace("\n", " ")


def _paragraph(text: str) -> str:
    """A headline, and what is indented below it as code, where brackets and underscores stand for themselves."""
    headline, _, rest = text.partition("\n")
    if not rest:
        return escaped(headline)
    fence = "```"
    while fence in rest:  # a backend chooses its own words
        fence += "`"
    lines = [line.removeprefix("  ") for line in rest.split("\n")]
    return "\n".join([escaped(headline), "", f"{fence}text", *lines, fence])
