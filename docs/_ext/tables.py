"""Build tables from the code and from the committed reports.

Directives without arguments: ``backend-results``, ``dtype-results``, ``dtype-deviations``, ``backend-claims``,
``unsupported-cases``, ``formula-axes``.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from itertools import product
from pathlib import Path
from typing import Any

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

from mlx_optimizers.backends import BACKENDS
from mlx_optimizers.catalog import CATALOG, entry_of
from mlx_optimizers.conformance.formats.summary import number
from mlx_optimizers.oracle import formulas

REPORTS = Path(__file__).parents[1] / "reports"
COUNTS = Path(__file__).parents[1] / "dtypes.json"
NAMES = [entry.name for entry in CATALOG]

Cell = str | Sequence[nodes.Node]
Report = dict[str, Any]
"""A report, or a part of one, as JSON has it."""


def reports() -> dict[str, Report]:
    """The committed reports by backend, in the order of the command line."""
    loaded = [json.loads(path.read_text(encoding="utf-8")) for path in sorted(REPORTS.glob("*.json"))]
    by_name = {report["backend"]["name"]: report for report in loaded}
    return {name: by_name[name] for name in BACKENDS if name in by_name}


def counts() -> dict[str, dict[str, dict[str, dict[str, int]]]]:
    """Read the committed counts of verdicts: by dtype, by backend, by optimizer, by word."""
    loaded = json.loads(COUNTS.read_text(encoding="utf-8"))
    return {dtype: {name: one["results"] for name, one in backends.items()} for dtype, backends in loaded.items()}


def optimizer_of(result: Report) -> str:
    """Name the class whose case a result is of; what the result calls its optimizer is the formula's."""
    return next(name for name in NAMES if result["case"].startswith(f"{name.lower()}/"))


def results_of(report: Report, optimizer: str) -> list[Report]:
    """List the results of one optimizer in a report; none where the report is older than the optimizer."""
    return [result for result in report["results"] if result["case"].startswith(f"{optimizer.lower()}/")]


def summary(report: Report, optimizer: str) -> tuple[str, str, str]:
    """Sum up an optimizer that a report has: verdict, profile, greatest excess; dashes where nothing was judged."""
    results = results_of(report, optimizer)
    verdicts = [result["verdict"] for result in results]
    order = ("deviates", "failed", "conforms", "unsupported")
    verdict = min(verdicts, key=order.index)
    judged = [result for result in results if result["worst"]]
    scalars = max((result["scalars"] for result in judged), key=("double", "float32").index, default="–")
    infinite = any(result["worst"]["excess"] is None for result in judged)
    excess = float("inf") if infinite else max((result["worst"]["excess"] for result in judged), default=None)
    counted = verdict if len(set(verdicts)) == 1 else f"{verdict} ({verdicts.count(verdict)} of {len(verdicts)})"
    consistent = [why(result) for result in results].count("consistent")
    if verdict == "unsupported" and consistent:
        counted = f"{verdict} ({consistent} of {len(verdicts)} consistent)"
    return counted, scalars, "–" if excess is None else number(excess)


def why(result: Report) -> str | None:
    """Return the reason of a result; of one that is measured alone, whether it is consistent, and not how far off."""
    return result["reason"] and re.sub(r"^((?:not )?consistent): .*", r"\1", result["reason"])


def literal(text: str) -> list[nodes.Node]:
    """Text that stands for itself."""
    return [nodes.literal(text, text)]


def _listed(texts: Iterable[str]) -> list[nodes.Node]:
    out: list[nodes.Node] = []
    for text in texts:
        out += [nodes.Text(" or "), *literal(text)] if out else literal(text)
    return out


class Table(SphinxDirective):
    """A table of ``rows()`` under ``header``."""

    header: Sequence[Cell]
    kind = "generated"

    def rows(self) -> Iterable[Sequence[Cell]]:
        """The cells, row by row."""
        raise NotImplementedError

    def run(self) -> list[nodes.Node]:
        """Make the table's nodes."""
        for source in (Path(__file__), Path(formulas.__file__), COUNTS, *sorted(REPORTS.glob("*.json"))):
            self.env.note_dependency(str(source))  # a page is built again when what it shows has changed
        group = nodes.tgroup(cols=len(self.header))
        group += [nodes.colspec(colwidth=1) for _ in self.header]
        group += nodes.thead("", self._row(self.header))
        group += nodes.tbody("", *map(self._row, self.rows()))
        return [nodes.container("", nodes.table("", group, classes=[self.kind]), classes=["wide"])]

    @staticmethod
    def _row(cells: Sequence[Cell]) -> nodes.row:
        row = nodes.row()
        for cell in cells:
            content = [nodes.Text(cell)] if isinstance(cell, str) else list(cell)
            row += nodes.entry("", nodes.paragraph("", "", *content))
        return row


class BackendResults(Table):
    """Each optimizer by each backend: verdict, scalar profile, greatest excess."""

    kind = "results"

    @property
    def header(self) -> Sequence[Cell]:  # type: ignore[override]
        """One column a backend, with its version and device."""
        backends = [report["backend"] for report in reports().values()]
        return (
            "",
            *([*literal(one["name"]), nodes.Text(f" {one['version']}, {one['device']}")] for one in backends),
        )

    def rows(self) -> Iterable[Sequence[Cell]]:
        """One row an optimizer."""
        for optimizer in NAMES:
            yield [optimizer, *(self._cell(report, optimizer) for report in reports().values())]

    @staticmethod
    def _cell(report: Report, optimizer: str) -> Cell:
        if not results_of(report, optimizer):
            return "not in the report"
        verdict, scalars, excess = summary(report, optimizer)
        word = nodes.inline(verdict, verdict, classes=[verdict.split(maxsplit=1)[0]])
        figures = f"{scalars} {excess}"
        return [word] if excess == "–" else [word, nodes.Text(" "), nodes.inline(figures, figures, classes=["figures"])]


class DtypeResults(Table):
    """Each other dtype by each backend: how many cases have each verdict."""

    kind = "results"
    words = ("deviates", "not consistent", "failed", "conforms", "consistent", "unsupported")

    @property
    def header(self) -> Sequence[Cell]:  # type: ignore[override]
        """One column a backend."""
        return ("", *(literal(name) for name in reports()))

    def rows(self) -> Iterable[Sequence[Cell]]:
        """One row a dtype."""
        for dtype, backends in counts().items():
            yield [literal(dtype), *(self._cell(backends[name].values()) for name in reports())]

    def _cell(self, optimizers: Iterable[dict[str, int]]) -> Cell:
        total = Counter[str]()
        for one in optimizers:
            total.update(one)
        cell: list[nodes.Node] = []
        for word in self.words:
            if total[word]:
                text = f"{total[word]} {word}"
                cell += [nodes.Text(", ")] * bool(cell) + [nodes.inline(text, text, classes=[word.split()[0]])]
        return cell


class DtypeDeviations(Table):
    """What deviates in another dtype than float32."""

    header = ("backend", "dtype", "deviates in")

    def rows(self) -> Iterable[Sequence[Cell]]:
        """One row a backend and dtype."""
        found = counts()
        for name, dtype in product(reports(), found):
            deviating = {optimizer: one for optimizer, one in found[dtype][name].items() if "deviates" in one}
            if deviating:
                words = [f"{key} ({one['deviates']} of {sum(one.values())})" for key, one in deviating.items()]
                yield [literal(name), literal(dtype), ", ".join(words)]


class Claims(Table):
    """The formula that each backend is held to, where it is not the one of the page."""

    header = ("backend", "formulas it is held to that are not the documented ones")

    def rows(self) -> Iterable[Sequence[Cell]]:
        """One row a backend that has one."""
        for name, report in reports().items():
            held = dict.fromkeys(
                result["formula"]
                for result in report["results"]
                if result["formula"] != entry_of(optimizer_of(result)).formula
            )
            if held:
                words = [node for formula in held for node in (*literal(formula), nodes.Text(" "))]
                yield [literal(name), words]


class UnsupportedCases(Table):
    """What each backend cannot express."""

    header = ("backend", "optimizer", "cases", "reason")

    def rows(self) -> Iterable[Sequence[Cell]]:
        """One row a backend, optimizer and reason."""
        for name, report in reports().items():
            totals = {optimizer: len(results_of(report, optimizer)) for optimizer in NAMES}
            unsupported = [result for result in report["results"] if result["verdict"] == "unsupported"]
            found = [(optimizer_of(result), why(result)) for result in unsupported]
            for optimizer, reason in dict.fromkeys(found):
                count = found.count((optimizer, reason))
                yield [literal(name), optimizer, f"{count} of {totals[optimizer]}", reason]


class FormulaAxes(Table):
    """Every axis and value that a formula's name can have."""

    header = ("axis", "value", "of", "computes it with …", "found in")
    kind = "axes"

    def rows(self) -> Iterable[Sequence[Cell]]:
        """One row a value that is not the default; the first row of an axis names it and its default."""
        for axis in formulas.AXES:
            defaults = dict.fromkeys(values[0] for values in axis.values.values())
            name: Cell = [*literal(axis.name), nodes.Text(" default "), *_listed(defaults)]
            for value, meaning in axis.meaning.items():
                having = [
                    one
                    for one, values in axis.values.items()
                    if value in values[1:] or (value.startswith("NAME:") and len(values) > 1)
                ]
                everyone = len(having) == len({entry.family for entry in CATALOG})
                yield [name, literal(value), "all" if everyone else ", ".join(having), meaning.words, meaning.seen_in]
                name = ""


def setup(app: Sphinx) -> dict[str, object]:
    """Register with Sphinx."""
    app.add_directive("backend-results", BackendResults)
    app.add_directive("dtype-results", DtypeResults)
    app.add_directive("dtype-deviations", DtypeDeviations)
    app.add_directive("backend-claims", Claims)
    app.add_directive("unsupported-cases", UnsupportedCases)
    app.add_directive("formula-axes", FormulaAxes)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
