"""A report as text for a terminal or a log; rich draws its table where installed."""

from __future__ import annotations

import io
import textwrap

from mlx_optimizers.conformance.formats.summary import HEADER, RIGHT, details, padded, summaries, title
from mlx_optimizers.conformance.report import Report

__all__ = ["text"]


def text(report: Report, *, colour: bool = False, width: int = 80) -> str:
    """Write the report as text.

    Args:
        report: What to show.
        colour: Whether colours may be used; they are where the package rich is installed.
        width: Columns of the terminal.
    """
    rows = [row.cells() for row in summaries(report)]
    table = ["", _drawn(rows, colour, width) or _plain(rows)] if rows else []
    below = (f"\n{_folded(paragraph, width)}" for paragraph in details(report))
    return "\n".join([_folded(title(report), width), *table, *below]) + "\n"


def _folded(text: str, width: int) -> str:
    """Break lines that are too long between words, and indent the rest by two further columns."""
    lines = []
    for line in text.split("\n"):
        indent = " " * (len(line) - len(line.lstrip()))
        lines += textwrap.wrap(
            line.strip(),
            width,
            initial_indent=indent,
            subsequent_indent=f"{indent}  ",
            break_long_words=False,
            break_on_hyphens=False,
        ) or [""]
    return "\n".join(lines)


def _plain(rows: list[tuple[str, ...]]) -> str:
    return "\n".join("  ".join(row).rstrip() for row in padded([HEADER, *rows], [name in RIGHT for name in HEADER]))


def _drawn(rows: list[tuple[str, ...]], colour: bool, width: int) -> str | None:
    """Draw the table by rich; None where rich is not installed."""
    try:
        from rich import box
        from rich.console import Console
        from rich.table import Table
    except ImportError:
        return None
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False)
    for name in HEADER:
        table.add_column(name, justify="right" if name in RIGHT else "left", overflow="fold")
    styles = {"conforms": "green", "deviates": "red", "failed": "red", "unsupported": "yellow"}
    for row in rows:
        table.add_row(*row[:2], f"[{styles[row[2].split()[0]]}]{row[2]}[/]", *row[3:])
    out = io.StringIO()
    Console(file=out, force_terminal=colour, no_color=not colour, width=width).print(table)
    return "\n".join(line.rstrip() for line in out.getvalue().rstrip("\n").split("\n"))
