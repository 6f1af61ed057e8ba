"""What is proved, from the table of orders and the record of the proofs, while the site is built.

Directives: ``orders``, ``proved-counts``, ``proved-theorems``, ``proved-orders``, ``refuted-claims``, and ``exhausted``
with ``operations`` or ``optimizers``. ``python -m tests.proofs`` writes the record; a test holds it to the solvers.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from docutils import nodes
from orders import STATEMENTS
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective
from tables import Cell, Table

DOCS = Path(__file__).parents[1]
GUIDE = DOCS / "guides" / "interval.md"
RECORD = DOCS / "proved.json"

TWO, ONE, EXHAUSTED = "proved by two solvers", "proved by one solver", "exhausted on small formats"
INDUCTION = 8
"""The theorem that is an induction over statements and steps, which no solver takes."""


def record() -> dict[str, Any]:
    """The committed record."""
    loaded: dict[str, Any] = json.loads(RECORD.read_text(encoding="utf-8"))
    return loaded


def theorems() -> list[tuple[int, str]]:
    """The number and the name of each theorem of the guide."""
    found = re.findall(r"^\*\*Theorem (\d+), ([^*]+)\.\*\*", GUIDE.read_text(encoding="utf-8"), re.MULTILINE)
    return [(int(number), name) for number, name in found]


def claims(**wanted: object) -> list[dict[str, Any]]:
    """The claims of the record that hold, by theorem or by order."""
    return [row for row in record()["claims"] if row["holds"] and all(row[key] == x for key, x in wanted.items())]


def status(rows: Sequence[dict[str, Any]]) -> str:
    """What is said of claims together: what is said of the one that the fewest solvers prove."""
    solvers = min((row["z3"] + row["cvc5"] for row in rows), default=0)
    return {2: TWO, 1: ONE}.get(solvers, "stated")


def status_of_theorem(number: int) -> str:
    """The status of a theorem."""
    return EXHAUSTED if number == INDUCTION else status(claims(theorem=number))


def by_solver(rows: Sequence[dict[str, Any]]) -> tuple[str, str, str]:
    """How many claims there are, and how many each solver proves."""
    return str(len(rows)), *(str(sum(row[solver] for row in rows)) for solver in ("z3", "cvc5"))


def tex(text: str) -> list[nodes.Node]:
    """Text with formulas between dollars."""
    parts = enumerate(text.split("$"))
    return [nodes.math(part, part) if index % 2 else nodes.Text(part) for index, part in parts if part]


class Proved(Table):
    """A table of the record."""

    def run(self) -> list[nodes.Node]:
        """Make the table, again when the record or the guide has changed."""
        for path in (RECORD, GUIDE, Path(__file__), DOCS / "_ext" / "orders.py"):
            self.env.note_dependency(str(path))
        return super().run()


class Orders(Proved):
    """Every statement and order that the interval covers, with its constant."""

    header = ("statement", "order", "C")

    def rows(self) -> Iterable[Sequence[Cell]]:
        """One row an order."""
        for statement in STATEMENTS:
            for order in statement.orders:
                constant = order.constant if "$" in order.constant else f"${order.constant}$"
                yield tex(statement.tex), tex(order.tex), tex(constant)


class Theorems(Proved):
    """Every theorem of the guide, with its status."""

    header = ("theorem", "status", "claims", "z3", "cvc5")

    def rows(self) -> Iterable[Sequence[Cell]]:
        """One row a theorem."""
        for number, name in theorems():
            yield f"{number}, {name}", status_of_theorem(number), *by_solver(claims(theorem=number))


class ProvedOrders(Proved):
    """Every order, with its status, and the whole steps of 6 bits in it."""

    header = ("theorem", "order", "status", "claims", "z3", "cvc5", "steps", "greatest ratio")

    def rows(self) -> Iterable[Sequence[Cell]]:
        """One row an order."""
        exhausted = record()["exhausted"]["orders"]
        for statement in STATEMENTS:
            for order in statement.orders:
                rows, seen = claims(order=order.name), exhausted[order.programs]
                figures = f"{seen['steps']:,}", f"{seen['greatest']:.2f}"
                yield str(statement.theorem), tex(order.tex), status(rows), *by_solver(rows), *figures


class Refuted(Proved):
    """The false claims, which the solvers must refute."""

    header = ("theorem", "order", "false claim", "refuted by")

    def rows(self) -> Iterable[Sequence[Cell]]:
        """One row a claim."""
        for row in sorted(record()["claims"], key=lambda row: row["theorem"]):
            if not row["holds"]:
                solvers = " and ".join(solver for solver in ("z3", "cvc5") if row[solver])
                yield str(row["theorem"]), row["order"] or "–", row["name"], solvers


class Exhausted(Proved):
    """What was computed on every number of a small format: its operations, or the steps of its optimizers."""

    required_arguments = 1
    header = ("", "cases", "outside", "tested", "greatest ratio")

    def rows(self) -> Iterable[Sequence[Cell]]:
        """One row an operation or an optimizer."""
        for name, seen in record()["exhausted"][self.arguments[0]].items():
            cases = seen["cases"] if "cases" in seen else seen["steps"]
            tested = 1 - seen["untested"] / cases if "untested" in seen else seen["tested"]
            greatest = max(seen["greatest"], seen.get("greatest_in_balls", 0), seen.get("greatest_state", 0))
            yield name, f"{cases:,}", str(seen["outside"]), f"{tested:.0%}", f"{greatest:.2f}"


class Counts(SphinxDirective):
    """A sentence with the number of theorems and orders of each status."""

    def run(self) -> list[nodes.Node]:
        """Make the sentence."""
        self.env.note_dependency(str(RECORD))
        found, orders = record(), [order for statement in STATEMENTS for order in statement.orders]
        counts = Counter(status_of_theorem(number) for number, _ in theorems())
        counts += Counter(status(claims(order=order.name)) for order in orders)
        listed = ", ".join(f"{count} {name}" for name, count in counts.most_common())
        true = len(claims())
        solvers = " and ".join(f"{name} {version}" for name, version in found["solvers"].items())
        text = (
            f"Of {len(theorems())} theorems and {len(orders)} orders: {listed}. They are {true} claims, and "
            f"{len(found['claims']) - true} false ones are refuted. The solvers are {solvers}."
        )
        return [nodes.paragraph(text, text)]


def setup(app: Sphinx) -> dict[str, object]:
    """Register with Sphinx."""
    app.add_directive("orders", Orders)
    app.add_directive("proved-theorems", Theorems)
    app.add_directive("proved-orders", ProvedOrders)
    app.add_directive("refuted-claims", Refuted)
    app.add_directive("exhausted", Exhausted)
    app.add_directive("proved-counts", Counts)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
