"""The content that every format of a report shares: one row an optimizer, then the deviations in words."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from mlx_optimizers.conformance.report import Report
from mlx_optimizers.conformance.verdict import INFORMATIVE, Element, Verdict, Word
from mlx_optimizers.oracle.formulas import in_words

__all__ = ["HEADER", "RIGHT", "Summary", "counted", "details", "number", "padded", "place", "summaries", "title"]

_GRAVEST_FIRST: tuple[Word, ...] = ("deviates", "failed", "conforms", "unsupported")
_NOT_JUDGED: tuple[Word, ...] = ("failed", "unsupported")


@dataclass(frozen=True)
class Summary:
    """The results of one optimizer, as one row.

    Args:
        optimizer: Its name.
        formula: The formula that it was held to.
        results: Its results.
    """

    optimizer: str
    formula: str
    results: list[Verdict]

    def having(self, word: Word) -> list[Verdict]:
        """Select the results with one verdict."""
        return [result for result in self.results if result.word == word]

    @property
    def verdict(self) -> Word:
        """The gravest verdict."""
        return next(word for word in _GRAVEST_FIRST if self.having(word))

    @property
    def counted(self) -> str:
        """The verdict, with the number of cases where not all have it."""
        count = len(self.having(self.verdict))
        return self.verdict if count == len(self.results) else f"{self.verdict} ({count} of {len(self.results)})"

    @property
    def scalars(self) -> str:
        """The coefficient precision needed: float32 if any case needed it."""
        executed = [result.scalars for result in self.results if result.worst]
        return "float32" if "float32" in executed else "double" if executed else "–"

    @property
    def excess(self) -> float | None:
        """The greatest error ratio over all cases; None where nothing was judged."""
        return max((result.worst.excess for result in self.results if result.worst), default=None)

    @property
    def untested(self) -> int:
        """Number of elements for which any answer would have passed."""
        return sum(result.untested for result in self.results)

    def cells(self) -> tuple[str, ...]:
        """Write the row as text."""
        excess = "–" if self.excess is None else number(self.excess)
        return (self.optimizer, str(len(self.results)), self.counted, self.scalars, excess, str(self.untested))


def padded(rows: Sequence[tuple[str, ...]], right: Sequence[bool], least: int = 0) -> list[tuple[str, ...]]:
    """Pad the cells of a table to the widths of its columns.

    Args:
        rows: The cells, row by row.
        right: For each column whether its cells are flush right.
        least: The smallest width of a column.
    """
    columns = []
    for column, flush in zip(zip(*rows, strict=True), right, strict=True):
        width = max(least, *map(len, column))
        columns.append([cell.rjust(width) if flush else cell.ljust(width) for cell in column])
    return list(zip(*columns, strict=True))


HEADER = ("optimizer", "cases", "verdict", "scalars", "excess", "untested")
RIGHT = {"cases", "excess", "untested"}


def number(excess: float) -> str:
    """Write an error ratio in few characters."""
    return "∞" if math.isinf(excess) else f"{excess:.2f}" if excess < 1000 else f"{excess:.0e}"


def counted(cases: int) -> str:
    """Count cases in words."""
    return "1 case" if cases == 1 else f"{cases} cases"


def summaries(report: Report) -> list[Summary]:
    """Summarize each optimizer, in the order of the results."""
    names = dict.fromkeys((result.case.optimizer, result.formula.name) for result in report.results)
    return [
        Summary(*name, [result for result in report.results if (result.case.optimizer, result.formula.name) == name])
        for name in names
    ]


def place(verdict: Verdict, element: Element) -> str:
    """Name the place of an element, its value, and the accepted interval."""
    form = verdict.case.form

    def value(bits: str) -> str:
        return f"{form.from_bits([bits])[0]!s}"

    leaf = "" if element.path is None else f"leaf {element.path}, "
    return (
        f"{verdict.case.id}, step {element.step}, {leaf}{element.quantity}[{element.index}]:\n"
        f"    got {value(element.got)} ({element.got}), accepted [{value(element.low)}, {value(element.high)}]\n"
        f"    exact {element.exact}"
    )


def details(report: Report) -> list[str]:
    """Explain what the table cannot show: the formulas, the deviations, and the cases that did not run."""
    rows = summaries(report)
    meant = [row.formula for row in rows if row.formula != row.optimizer]
    out = [f"Held to {', '.join(meant)}."] if meant else []
    if report.newer:
        out.append(f"{report.name} {report.version} is newer than {report.checked}, whose claims were checked.")
    for row in rows:
        if verdicts := row.having("deviates"):
            out.append("\n  ".join([_headline(row, verdicts), *_explained(report, row, verdicts)]))
        for word in _NOT_JUDGED:
            if verdicts := [verdict for verdict in row.having(word) if not verdict.informative]:
                reasons = dict.fromkeys(verdict.reason or "" for verdict in verdicts)
                out.append("\n  ".join([_headline(row, verdicts), *reasons]))
    if informative := [result.reason or "" for result in report.results if result.informative]:
        words = f"Informative in {counted(len(informative))}, where a correct program may lie outside:"
        out.append("\n  ".join([words, *(reason.removeprefix(INFORMATIVE) for reason in dict.fromkeys(informative))]))
    return out


def _headline(row: Summary, verdicts: list[Verdict]) -> str:
    some = f"{len(verdicts)} of {counted(len(row.results))}"
    return f"{row.optimizer} {verdicts[0].word} in {some}, held to {row.formula}."


def _explained(report: Report, row: Summary, verdicts: list[Verdict]) -> list[str]:
    """Describe in sentences how an optimizer deviates."""
    diagnosis = report.diagnoses.get(row.optimizer)
    names = diagnosis.formulas if diagnosis else verdicts[0].diagnosis
    out = [f"It computes {in_words(name)}: {name}" for name in names[:1]]
    out += [f"or, by these cases: {name}" for name in names[1:]]
    if diagnosis and not names:
        near = (
            f" Nearest is {diagnosis.nearest}, in {diagnosis.agreeing} of {diagnosis.of}." if diagnosis.nearest else ""
        )
        out.append(f"No formula known here agrees with every case.{near}")
    if (first := verdicts[0].first) is not None:
        out.append(f"First seen in {place(verdicts[0], first)}, {number(first.excess)} times the accepted distance")
    elif verdicts[0].reason:
        out.append(verdicts[0].reason)
    return out


def title(report: Report) -> str:
    """Name in one line the backend and the counts of its verdicts."""
    counts = ", ".join(f"{count} {word}" for word, count in report.counts().items() if count) or "none finished"
    return f"{report.name} {report.version} on {report.device}: {counted(len(report.results))}, {counts}"
