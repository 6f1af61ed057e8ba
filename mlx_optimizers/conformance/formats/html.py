"""A report as one HTML file that is complete in itself: no script, no font, no other host."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from html import escape
from importlib.resources import files
from itertools import groupby

from mlx_optimizers.conformance.formats.summary import (
    HEADER,
    RIGHT,
    Summary,
    counted,
    details,
    number,
    summaries,
    title,
)
from mlx_optimizers.conformance.report import Report
from mlx_optimizers.conformance.verdict import Verdict

__all__ = ["html"]

_WIDTH, _HEIGHT = 640, 260
_LEFT, _RIGHT, _TOP, _BOTTOM = 56, 90, 12, 36
_LOW = -4
"""The smallest power of ten that a plot shows; smaller error ratios are drawn there."""


def html(report: Report) -> str:
    """Write the report as an HTML page, with a plot of the error ratio, step by step, for each optimizer."""
    rows = summaries(report)
    head = escape(title(report))
    style = files(__package__).joinpath("report.css").read_text("utf-8")
    parts = [
        f'<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n<title>{head}</title>',
        '<meta name="viewport" content="width=device-width, initial-scale=1">',
        f"<style>\n{style}</style>\n</head>\n<body>\n<h1>{head}</h1>",
    ]
    if report.broken is not None:
        parts.append(f'<p class="failed">The backend could not go on:</p>\n<pre>{escape(report.broken)}</pre>')
    parts.append(_table(HEADER, [row.cells() for row in rows]))
    parts += [f"<pre>{escape(paragraph)}</pre>" for paragraph in details(report)]
    for row in rows:
        parts.append(f"<h2>{escape(row.formula)}</h2>")
        if any(result.excesses for result in row.results):
            parts.append(_plot(row))
        parts.append(f"<details><summary>{counted(len(row.results))}</summary>{_cases(row.results)}</details>")
    return "\n".join([*parts, "</body>\n</html>"]) + "\n"


def _table(header: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> str:
    def cell(tag: str, name: str, text: str) -> str:
        kind = "right" if name in RIGHT else ""
        if name == "verdict" and tag == "td":
            kind, *_ = text.split()
        return f'<{tag} class="{kind}">{escape(text)}</{tag}>' if kind else f"<{tag}>{escape(text)}</{tag}>"

    def row(tag: str, cells: tuple[str, ...]) -> str:
        return f"<tr>{''.join(cell(tag, *pair) for pair in zip(header, cells, strict=True))}</tr>"

    body = "\n".join(row("td", cells) for cells in rows)
    head = row("th", header)
    return f'<div class="wide"><table>\n<thead>{head}</thead>\n<tbody>\n{body}\n</tbody>\n</table></div>'


def _cases(results: list[Verdict]) -> str:
    header = ("case", "verdict", "scalars", "excess", "where", "got", "accepted", "exact")
    rows = []
    for result in results:
        worst = result.worst
        cells: tuple[str, ...] = ("–", "–", "–", "–", result.reason or "–")
        if worst is not None:
            leaf = "" if worst.path is None else f"leaf {worst.path}, "
            where = f"{leaf}{worst.quantity}[{worst.index}], step {worst.step}"
            cells = (number(worst.excess), where, worst.got, f"{worst.low} to {worst.high}", worst.exact)
        rows.append((result.case.id, result.word, result.scalars, *cells))
    return _table(header, rows)


def _plot(row: Summary) -> str:
    """Plot the error ratio on a logarithmic scale, a line for each case and quantity."""
    lines = [
        (f"{result.case.id}, {name}", name, values)
        for result in row.results
        for name, values in result.excesses.items()
    ]
    steps = max(len(values) for _, _, values in lines)
    logs = [_log(value) for _, _, values in lines for value in values if value is not None]
    high, right = math.ceil(min(max([1, *logs]), 12)), _WIDTH - _RIGHT

    def x(step: int) -> float:
        return _LEFT + (right - _LEFT) * (step - 1) / max(1, steps - 1)

    def y(log: float) -> float:
        inside = min(max(log, _LOW), high)
        return _TOP + (_HEIGHT - _TOP - _BOTTOM) * (high - inside) / (high - _LOW)

    def point(step: int, excess: float | None) -> str:
        return "" if excess is None else f"{x(step):.1f},{y(_log(excess)):.1f}"

    def level(kind: str, power: int) -> str:
        return f'<line class="{kind}" x1="{_LEFT}" x2="{right}" y1="{y(power):.1f}" y2="{y(power):.1f}"/>'

    marks = []
    for power in range(_LOW, high + 1, 1 + (high - _LOW) // 8):
        marks.append(level("grid", power))
        marks.append(f'<text x="{_LEFT - 6}" y="{y(power) + 4:.1f}" text-anchor="end">{_power(power)}</text>')
    marks += [
        f'<text x="{x(step):.1f}" y="{_HEIGHT - _BOTTOM + 16}" text-anchor="middle">{step}</text>'
        for step in range(1, steps + 1)
    ]
    marks.append(f'<text x="{x(1):.1f}" y="{_HEIGHT - 4}">step</text>')
    marks.append(level("limit", 0))
    for place, name in enumerate(dict.fromkeys(name for _, name, _ in lines)):
        at = _TOP + 12 + 16 * place
        marks.append(f'<line class="{name}" x1="{right + 8}" x2="{right + 22}" y1="{at}" y2="{at}"/>')
        marks.append(f'<text x="{right + 26}" y="{at + 4}">{name}</text>')
    drawn = [
        f'<polyline class="{name}" points="{points}"><title>{escape(label)}</title></polyline>'
        for label, name, values in lines
        for points in _runs(point(step, value) for step, value in enumerate(values, 1))
    ]
    label = f"{row.formula}: largest error over accepted distance after each step, one line a case"
    return (
        f'<figure><svg viewBox="0 0 {_WIDTH} {_HEIGHT}" width="{_WIDTH}" role="img" aria-label="{escape(label)}">'
        f"{''.join([*marks, *drawn])}</svg>"
        "<figcaption>The largest error over the accepted distance after each step, a line for each case; above the "
        f"dashed line, at 1, it deviates. What lies below {_power(_LOW)} is drawn there.</figcaption></figure>"
    )


def _log(excess: float) -> float:
    return math.log10(excess) if 0 < excess < math.inf else (math.inf if excess else -math.inf)


def _power(power: int) -> str:
    return "1" if power == 0 else f"1e{power}"


def _runs(points: Iterable[str]) -> Iterator[str]:
    """Yield the parts of a line between steps without a test, which are empty; a lone point is a line of no length."""
    for tested, group in groupby(points, bool):
        if tested:
            run = list(group)
            yield " ".join(run if len(run) > 1 else run * 2)
