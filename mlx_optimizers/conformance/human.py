"""A report for people: one row an optimizer, then what deviates, in words."""

from __future__ import annotations

import io
import math
import textwrap
from dataclasses import dataclass

from mlx_optimizers.conformance.acceptance import Worst
from mlx_optimizers.conformance.report import Report, Result
from mlx_optimizers.oracle import FORMATS
from mlx_optimizers.oracle.formulas import in_words

__all__ = ["HEADER", "RIGHT", "Summary", "counted", "details", "human", "number", "place", "summaries", "title"]


@dataclass(frozen=True)
class Summary:
    """All results of one optimizer, as one row.

    Args:
        optimizer: Its name.
        formula: What it was held to.
        results: Its results.
    """

    optimizer: str
    formula: str
    results: list[Result]

    def having(self, verdict: str) -> list[Result]:
        """The results with one verdict."""
        return [result for result in self.results if result.verdict == verdict]

    @property
    def verdict(self) -> str:
        """The gravest verdict: deviates, failed, conforms, unsupported, in this order."""
        return next(name for name in ("deviates", "failed", "conforms", "unsupported") if self.having(name))

    @property
    def counted(self) -> str:
        """The verdict, with the number of cases where not all have it."""
        count = len(self.having(self.verdict))
        return self.verdict if count == len(self.results) else f"{self.verdict} ({count} of {len(self.results)})"

    @property
    def scalars(self) -> str:
        """The profile needed: float32 if any case needed it."""
        executed = [result.scalars for result in self.results if result.worst]
        return "float32" if "float32" in executed else "double" if executed else "–"

    @property
    def excess(self) -> float | None:
        """The greatest excess over all cases; None where nothing was judged."""
        return max((result.worst.excess for result in self.results if result.worst), default=None)

    @property
    def untested(self) -> int:
        """Number of elements for which any answer would have passed."""
        return sum(result.untested for result in self.results)

    def cells(self) -> tuple[str, ...]:
        """The row as text."""
        excess = "–" if self.excess is None else number(self.excess)
        return (
            self.optimizer,
            str(len(self.results)),
            self.counted,
            self.scalars,
            excess,
            str(self.untested),
        )


HEADER = ("optimizer", "cases", "verdict", "scalars", "excess", "untested")
RIGHT = {"cases", "excess", "untested"}


def number(excess: float) -> str:
    """An excess in few characters."""
    return "∞" if math.isinf(excess) else f"{excess:.2f}" if excess < 1000 else f"{excess:.0e}"


def counted(cases: int) -> str:
    """A number of cases in words."""
    return "1 case" if cases == 1 else f"{cases} cases"


def summaries(report: Report) -> list[Summary]:
    """One summary an optimizer, in the order of the results."""
    names = dict.fromkeys((result.optimizer, result.formula) for result in report.results)
    return [
        Summary(*name, [result for result in report.results if (result.optimizer, result.formula) == name])
        for name in names
    ]


def place(result: Result, worst: Worst) -> str:
    """Where an element stands, what was got there and what is accepted."""
    digits = len(worst.got)
    dtype = result.case.rpartition("/")[2]  # tells the two formats of four digits apart
    form = next(f for f in FORMATS.values() if f.width == 4 * digits and (digits != 4 or f.name == dtype))

    def value(bits: str) -> str:
        return f"{form.from_bits([bits])[0]!s}"

    return (
        f"{result.case}, step {worst.step}, {worst.quantity}[{worst.index}]:\n"
        f"    got {value(worst.got)} ({worst.got}), accepted [{value(worst.low)}, {value(worst.high)}]\n"
        f"    exact {worst.exact}"
    )


def details(report: Report) -> list[str]:
    """What the table cannot say: which formulas were meant, what deviates and how, what could not be done."""
    rows = summaries(report)
    meant = [row.formula for row in rows if row.formula != row.optimizer]
    out = [f"Held to {', '.join(meant)}."] if meant else []
    if report.newer:
        out.append(f"{report.name} {report.version} is newer than {report.checked}, whose claims were checked.")
    for row in rows:
        if found := row.having("deviates"):
            out.append("\n".join([_headline(row, found), *map("  {}".format, _explained(report, row, found))]))
        for verdict in ("failed", "unsupported"):
            if found := row.having(verdict):
                reasons = dict.fromkeys(result.reason or "" for result in found)
                out.append("\n  ".join([_headline(row, found), *reasons]))
    return out


def _headline(row: Summary, found: list[Result]) -> str:
    return f"{row.optimizer} {found[0].verdict} in {len(found)} of {counted(len(row.results))}, held to {row.formula}."


def _explained(report: Report, row: Summary, found: list[Result]) -> list[str]:
    """Sentences on an optimizer that deviates."""
    diagnosis = report.diagnoses.get(row.optimizer)
    names = diagnosis.formulas if diagnosis else found[0].diagnosis
    out = [f"It computes {in_words(name)}: {name}" for name in names[:1]]
    out += [f"or, by these cases: {name}" for name in names[1:]]
    if diagnosis and diagnosis.nearest:
        out.append(
            f"No formula known here agrees with every case. Nearest is {diagnosis.nearest}, "
            f"in {diagnosis.agreeing} of {len(row.results)}."
        )
    if (first := found[0].first) is not None:
        out.append(f"First seen in {place(found[0], first)}, {number(first.excess)} times the accepted distance")
    elif found[0].reason:
        out.append(found[0].reason)
    return out


def title(report: Report) -> str:
    """One line: what was checked, and how it came out."""
    counts = ", ".join(f"{count} {verdict}" for verdict, count in report.counts().items() if count) or "none finished"
    return f"{report.name} {report.version} on {report.device}: {counted(len(report.results))}, {counts}"


def human(report: Report, *, colour: bool = False, width: int = 80) -> str:
    """The report as text.

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
    """Lines that are too long broken between words, and set in by two further columns."""
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
    widths = [max(map(len, column)) for column in zip(HEADER, *rows, strict=True)]
    lines = []
    for row in (HEADER, *rows):
        cells = [
            cell.rjust(size) if name in RIGHT else cell.ljust(size)
            for name, cell, size in zip(HEADER, row, widths, strict=True)
        ]
        lines.append("  ".join(cells).rstrip())
    return "\n".join(lines)


def _drawn(rows: list[tuple[str, ...]], colour: bool, width: int) -> str | None:
    """The table drawn by rich, or None where rich is not installed."""
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
