"""Build the page of speed from the committed run of ``scripts/bench.py`` while the site is built.

Directives: ``speed-machine``, ``speed-ratios`` with a workload and a path of ours, ``speed-matrices`` with a workload,
``speed-costs``, ``speed-oracle``.
"""

from __future__ import annotations

import json
import statistics
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective
from tables import NAMES, Cell, Table

RUN = Path(__file__).parents[1] / "performance.json"
PEERS = {
    "torch": "torch",
    "torch-foreach": "torch foreach",
    "torch-fused": "torch fused",
    "optax": "optax jitted",
    "mlx": "MLX",
    "mlx-compiled": "MLX compiled",
}
OURS = {"numpy": "NumPy path", "compiled": "compiled path"}


def run() -> dict[str, Any]:
    """The committed run."""
    loaded: dict[str, Any] = json.loads(RUN.read_text(encoding="utf-8"))
    return loaded


def cell(result: dict[str, Any], workload: str, optimizer: str, contender: str) -> dict[str, Any]:
    """One measurement; empty where the contender has no such optimizer."""
    key = (workload, optimizer, contender)
    cells = (one for one in result["cells"] if (one["workload"], one["optimizer"], one["contender"]) == key)
    return next((one for one in cells if "missing" not in one), {})


def figure(value: float | None) -> str:
    """Three significant digits, without an exponent; a dash for what was not measured."""
    if value is None:
        return "–"
    return f"{value:.0f}" if value >= 100 else f"{value:.3g}" if value < 1 else f"{value:.{1 if value >= 10 else 2}f}"


def ratio(value: float | None) -> Cell:
    """A ratio; in italics where ours is slower."""
    text = figure(value)
    return text if value is None or value >= 1 else [nodes.inline(text, text, classes=["slower"])]


def of_each(result: dict[str, Any], workload: str, own: str, optimizer: str, peers: Iterable[str]) -> list[Cell]:
    """The time of each peer by ours."""
    return [ratio(cell(result, workload, optimizer, peer).get(f"{own}_ratio")) for peer in peers]


def ratios(result: dict[str, Any], workload: str, own: str, peer: str) -> list[float]:
    """The time of a peer by ours, for every optimizer that it has."""
    found = (cell(result, workload, optimizer, peer).get(f"{own}_ratio") for optimizer in NAMES)
    return [value for value in found if value is not None]


class Speed(Table):
    """A table of the committed run."""

    def run(self) -> list[nodes.Node]:
        """Make the table's nodes."""
        self.env.note_dependency(str(RUN))
        return super().run()


def measured(result: dict[str, Any], workload: str) -> list[str]:
    """List the optimizers that a run has of a workload, in the order of the table."""
    found = {one["optimizer"] for one in result["cells"] if one["workload"] == workload}
    return [name for name in NAMES if name in found]


class Ratios(Speed):
    """The time of each peer as a multiple of ours, an optimizer a row."""

    required_arguments = 2
    header = ("", "ms", "× the copy loop", *PEERS.values())
    kind = "speed"

    def rows(self) -> Iterable[Sequence[Cell]]:
        """One row an optimizer, then the geometric means."""
        workload, own = self.arguments
        result = run()
        for optimizer in measured(result, workload):
            ours = cell(result, workload, optimizer, own)
            peers = of_each(result, workload, own, optimizer, PEERS)
            yield [optimizer, figure(1e3 * ours["seconds"]), figure(ours["over_floor"]), *peers]
        means = (ratios(result, workload, own, peer) for peer in PEERS)
        yield [
            "geometric mean",
            "",
            "",
            *(ratio(statistics.geometric_mean(values) if values else None) for values in means),
        ]

    def run(self) -> list[nodes.Node]:
        """Make the table, and say which optimizers the run does not have."""
        having = {one["optimizer"] for one in run()["cells"]}
        lacking = [name for name in NAMES if name not in having]
        words = f"This run was made without {', '.join(lacking)}."
        return [*super().run(), *([nodes.paragraph("", words)] if lacking else [])]


class Matrices(Speed):
    """The same for the optimizers of whole arrays, which are measured beside the products that Muon takes."""

    required_arguments = 1
    peers = {name: words for name, words in PEERS.items() if name != "torch-fused"} | {"torch-mm": "15 torch.mm"}
    header = ("", "ms", *peers.values())
    kind = "speed"

    def rows(self) -> Iterable[Sequence[Cell]]:
        """One row an optimizer."""
        result, workload = run(), self.arguments[0]
        for optimizer in measured(result, workload):
            seconds = cell(result, workload, optimizer, "numpy")["seconds"]
            yield [optimizer, figure(1e3 * seconds), *of_each(result, workload, "numpy", optimizer, self.peers)]


class Costs(Speed):
    """Tabulate the cost of an array besides its elements, and of subnormal gradients, by contender."""

    header = ("Adam", "µs an array beside its elements", "times longer where gradients are subnormal")
    kind = "speed"

    def rows(self) -> Iterable[Sequence[Cell]]:
        """One row a contender."""
        result = run()
        for name, words in (OURS | PEERS).items():
            if name in result["overhead"]:
                yield [words, figure(1e6 * result["overhead"][name]), figure(result["subnormal"][name])]


class Machine(SphinxDirective):
    """What was measured on, and with what."""

    def run(self) -> list[nodes.Node]:
        """Make the paragraph."""
        self.env.note_dependency(str(RUN))
        result = run()
        machine = result["machine"]
        caches = ", ".join(f"{name} {size}" for name, size in machine["caches"].items())
        versions = ", ".join(f"{name} {version}" for name, version in machine["versions"].items())
        text = (
            f"{machine['processor']}, {machine['cores']} cores, caches {caches}; {machine['system']}, "
            f"Python {machine['python']}, {versions}. Each contender had {machine['threads']} threads; "
            f"the median of {result['rounds']} rounds is shown, of GPT-2 small and of a matrix of fewer."
        )
        return [nodes.paragraph(text, text)]


class Oracle(SphinxDirective):
    """What exactness costs."""

    def run(self) -> list[nodes.Node]:
        """Make the paragraph."""
        self.env.note_dependency(str(RUN))
        result = run()
        named = {"gmpy2": "MPFR", "mpmath": "mpmath"}
        parts = [f"{figure(1e6 * seconds)} µs with {named[name]}" for name, seconds in sorted(result["oracle"].items())]
        text = (
            "A trajectory of Adam, with its nearest floats and its intervals, took "
            f"{' and '.join(parts)} an element and step; a case of the checker {figure(1e3 * result['checker'])} ms."
        )
        return [nodes.paragraph(text, text)]


def setup(app: Sphinx) -> dict[str, object]:
    """Register with Sphinx."""
    app.add_directive("speed-machine", Machine)
    app.add_directive("speed-ratios", Ratios)
    app.add_directive("speed-matrices", Matrices)
    app.add_directive("speed-costs", Costs)
    app.add_directive("speed-oracle", Oracle)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
