"""What the page of an optimizer shows beyond its docstring and its texts, computed while the site is built.

Directives that take an optimizer's name: ``three-steps``, ``rule-source``, ``measured-error``, ``in-frameworks``,
``path-plot``, ``error-plot``; and ``mlx-history``, which without a name has every row. The role ``vector-file`` links
to the vectors. The first page has ``wrong-epsilon``, a picture of what its example finds.
"""

from __future__ import annotations

import ast
import inspect
import io
import re
import sys
import textwrap
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import cache
from typing import Any

import matplotlib as mpl
import numpy as np
from docutils import nodes
from matplotlib.figure import Figure
from sphinx.application import Sphinx
from sphinx.errors import ExtensionError
from sphinx.util.docutils import SphinxDirective
from tables import Cell, Report, Table, literal, reports, results_of, summary

import mlx_optimizers
from mlx_optimizers.backends.reference import Reference
from mlx_optimizers.catalog import CATALOG, Event, entry_of
from mlx_optimizers.conformance import cases_of, matching
from mlx_optimizers.conformance.case import default_rate
from mlx_optimizers.conformance.cases import recast
from mlx_optimizers.conformance.formats.summary import number
from mlx_optimizers.conformance.verdict import judge
from mlx_optimizers.optimizer import Whole
from mlx_optimizers.oracle import Exact, format_of, formulas, trajectory

CLASSES = {entry.name: entry.optimizer for entry in CATALOG}
GRADIENTS = (1.0, -0.5, 0.25)


def history() -> list[tuple[Event, list[str]]]:
    """What MLX computed or said otherwise, by version, each with the optimizers that it concerns."""
    found: dict[Event, list[str]] = {}
    for entry in CATALOG:
        for event in entry.history:
            found.setdefault(event, []).append(entry.name)

    def version(event: Event) -> list[int]:
        return list(map(int, re.findall(r"\d+", event.versions)))

    return sorted(found.items(), key=lambda item: version(item[0]))


class OfOptimizer(Table):
    """A table for the optimizer that is named."""

    required_arguments = 1

    @property
    def optimizer(self) -> type[mlx_optimizers.Optimizer]:
        """The class."""
        return CLASSES[self.arguments[0]]


def given(rate: float | None) -> dict[str, float]:
    """A learning rate as an argument; none where it is left out."""
    return {} if rate is None else {"learning_rate": rate}


def run(optimizer: type[mlx_optimizers.Optimizer], w: Any, gradients: Any) -> list[dict[str, Any]]:
    """Parameter and state after each step of the fast path at its defaults."""
    made, model, out = optimizer(**given(default_rate(optimizer.__name__))), {"w": w.copy()}, []
    for g in gradients:
        made.update(model, {"w": g})
        slots = {slot: made.state["w"][slot].copy() for slot in made.slot_shapes(made, w.shape)}
        out.append({"parameter": model["w"].copy(), **slots})
    return out


class ThreeSteps(OfOptimizer):
    """The state after each of three steps from w = 1: bits, exact value, interval."""

    header = ("t, g", "", "float32", "bits", "exact value", "accepted")
    kind = "numbers"

    def rows(self) -> Iterable[Sequence[Cell]]:
        """One row a quantity, three steps."""
        form, exact = format_of("float32"), Exact()
        w, gradients = np.float32([1]), np.float32(GRADIENTS).reshape(-1, 1)
        entries = trajectory(self.optimizer, w, gradients, **given(default_rate(self.optimizer.__name__)))
        for t, (got, entry) in enumerate(zip(run(self.optimizer, w, gradients), entries, strict=True), start=1):
            head = f"{t}, {gradients[t - 1, 0]!s}"
            for name, quantity in entry.quantities():
                letter = "w" if name == "parameter" else name
                low, high = (str(end[0]) for end in (quantity.low, quantity.high))
                interval = low if low == high else f"{low} … {high}"
                value = exact.text(quantity.exact[0], 16)
                yield head, letter, str(got[name][0]), literal(form.bits(got[name])[0]), value, interval
                head = ""


class RuleSource(SphinxDirective):
    """The source of an optimizer's rule, without docstrings; of `apply_single`, where it needs whole arrays."""

    required_arguments = 1

    def run(self) -> list[nodes.Node]:
        """A block of code."""
        optimizer = CLASSES[self.arguments[0]]
        rule = optimizer.apply_single if issubclass(optimizer, Whole) else optimizer.rule
        block = nodes.literal_block(text="\n\n".join(map(without_docstring, [rule, *called(rule)])))
        block["language"] = "python"
        return [block]


def without_docstring(function: Callable[..., Any]) -> str:
    """The source of a function, with the names of its arguments alone."""
    text = inspect.getsource(function)
    (tree,) = ast.parse(textwrap.dedent(text)).body
    assert isinstance(tree, ast.FunctionDef)
    first = tree.body[0 if ast.get_docstring(tree) is None else 1].lineno - 1
    body = textwrap.indent(textwrap.dedent("\n".join(text.splitlines()[first:])), "    ")
    tree.returns = None
    for argument in (*tree.args.args, *tree.args.kwonlyargs):
        argument.annotation = None
    return f"def {tree.name}({ast.unparse(tree.args)}):\n{body}\n"


def called(function: Callable[..., Any]) -> Iterator[Callable[..., Any]]:
    """Find the functions of a function's own module that it calls."""
    for name in function.__code__.co_names:
        value = vars(sys.modules[function.__module__]).get(name)
        if inspect.isfunction(value) and value.__module__ == function.__module__:
            yield value
            yield from called(value)


class MeasuredError(OfOptimizer):
    """The parameter's measured error against the bound, for each dtype."""

    header = ("dtype", "greatest error of w", "its bound there", "greatest part of a bound", "untested")
    kind = "numbers"

    def rows(self) -> Iterable[Sequence[Cell]]:
        """One row a dtype."""
        name = self.optimizer.__name__
        cases = [case for case in cases_of(name) if case.label == "defaults"]
        for dtype in ("float64", "float32", "bfloat16", "float16"):
            part, tested, untested = 0.0, 0, 0
            for case in [case if dtype == "float32" else recast(case, dtype) for case in cases]:
                outcome, formula = Reference().run(case), formulas.parse(name)
                judgement = judge(outcome, formula, "double")
                tested, untested = tested + judgement.tested, untested + judgement.untested
                part = max(part, judgement.worst.excess if judgement.worst else 0.0)
                if case.regime == "plain":
                    entries = trajectory(formula, case.parameter, case.gradients, dtype=dtype, **case.hyperparameters)
                    pairs = [pair for step in distances(entries, outcome.parameters) for pair in step]
                    plain = [f"{x:.1e}" for x in max(pairs)] if pairs else ["–", "–"]
            share = f"{untested} of {tested + untested}"
            yield literal(dtype), *plain, number(part), share if untested else "none"


def distances(entries: Any, parameters: Any) -> list[list[tuple[float, float]]]:
    """Error and bound of each element that has a bound, step by step."""
    exact, out = Exact(), []
    with exact.active():
        for entry, values in zip(entries, parameters, strict=True):
            quantity = entry.parameter
            columns = (values.astype(np.float64), quantity.exact, quantity.radius)
            pairs = zip(*(column.reshape(-1) for column in columns), strict=True)
            out.append([(float(abs(exact.number(float(x)) - y)), r) for x, y, r in pairs if np.isfinite([x, r]).all()])
    return out


class InFrameworks(OfOptimizer):
    """What each backend computes under the optimizer's name, by the committed reports; a part for each without one."""

    required_arguments, optional_arguments = 0, 1
    header = ("backend", "computes", "verdict", "greatest part of a bound", "scalars")

    def rows(self) -> Iterable[Sequence[Cell]]:
        """One row a backend whose report has the optimizer."""
        name = self.optimizer.__name__
        for backend, report in self.others().items():
            if not (results := results_of(report, name)):
                continue
            verdict, scalars, part = summary(report, name)
            formula = results[0]["formula"]
            head = [*literal(backend), nodes.Text(f" {report['backend']['version']}")]
            if verdict == "unsupported":
                yield head, "it has none", verdict, "–", "–"
                continue
            words = "the documented formula" if formula == entry_of(name).formula else formulas.in_words(formula)
            yield head, [nodes.Text(f"{words}: "), *literal(formula)], verdict, part, scalars

    def part(self, name: str) -> nodes.section:
        """Make the part of one optimizer, under its name."""
        where = (self.options, self.content, self.lineno, self.content_offset, self.block_text)
        section = nodes.section("", nodes.title("", name), ids=[name.lower()], names=[name.lower()])
        self.state.document.note_implicit_target(section, section)
        section += InFrameworks(self.name, [name], *where, self.state, self.state_machine).run()
        return section

    @staticmethod
    def others() -> dict[str, Report]:
        """Return the reports on other libraries than this one."""
        return {backend: report for backend, report in reports().items() if backend != "reference"}

    def run(self) -> list[nodes.Node]:
        """Make the table, and say which reports do not have the optimizer."""
        if not self.arguments:
            return [self.part(name) for name in CLASSES]
        name, others = self.optimizer.__name__, self.others()
        lacking = [backend for backend, report in others.items() if not results_of(report, name)]
        words = f"The reports of {', '.join(lacking)} are older than {name} and have no case of it."
        table = super().run() if len(lacking) < len(others) else []
        return [*table, *([nodes.paragraph("", words)] if lacking else [])]


class History(Table):
    """What MLX computed or documented otherwise."""

    optional_arguments = 1

    @property
    def header(self) -> tuple[str, ...]:  # type: ignore[override]
        """The optimizer's column is left out on its own page."""
        return (
            ("MLX versions", "what", "threads") if self.arguments else ("optimizer", "MLX versions", "what", "threads")
        )

    def rows(self) -> Iterable[Sequence[Cell]]:
        """One row an event."""
        for event, optimizers in history():
            if self.arguments and self.arguments[0] not in optimizers:
                continue
            links: list[nodes.Node] = []
            for thread in event.threads:
                address = f"https://github.com/ml-explore/mlx/issues/{thread}"
                links += [nodes.reference("", f"#{thread}", refuri=address), nodes.Text(" ")]
            words = [
                literal(part)[0] if odd % 2 else nodes.Text(part) for odd, part in enumerate(event.what.split("`"))
            ]
            eight = {optimizer.__name__ for optimizer in mlx_optimizers.OPTIMIZERS}
            who = "the eight" if eight <= set(optimizers) else ", ".join(optimizers)
            row: list[Cell] = [event.versions, words, links or "–"]
            yield row if self.arguments else [who, *row]

    def run(self) -> list[nodes.Node]:
        """Make the table; that of one optimizer with a sentence above it, or a sentence where no change is listed."""
        if not self.arguments:
            return super().run()
        if not list(self.rows()):
            return [nodes.paragraph("", "No change of it in MLX is listed.")]
        return [nodes.paragraph("", "MLX itself computed or documented this otherwise:"), *super().run()]


# Plots. A colour is a placeholder for a variable of the theme, so that one drawing serves light and dark.

INK, FAINT, MAIN, SECOND = "#010203", "#040506", "#070809", "#0a0b0c"
VARIABLES = {
    INK: "var(--pst-color-text-base)",
    FAINT: "var(--pst-color-border)",
    MAIN: "var(--pst-color-primary)",
    SECOND: "var(--pst-color-secondary)",
}
STYLE = {
    "svg.fonttype": "none",
    "font.size": 10,
    "text.color": INK,
    "axes.edgecolor": INK,
    "axes.labelcolor": INK,
    "xtick.color": INK,
    "ytick.color": INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
}


def svg(figure: Figure, name: str, label: str) -> list[nodes.Node]:
    """A figure as SVG within the page."""
    with mpl.rc_context({**STYLE, "svg.hashsalt": name}):
        out = io.StringIO()
        figure.savefig(out, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    text = out.getvalue()[out.getvalue().index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    text = re.sub(r"<!--.*?-->\n?", "", text, flags=re.DOTALL)
    text = re.sub(r'\b(id="|url\(#|href="#)', rf"\g<1>{name}-", text)  # the ids of two drawings on a page differ
    text = re.sub(r"font: [^;\"]*?(\d+px)[^;\"]*", r"font-size: \1", text)
    text = re.sub(r"(<svg )", rf'\1role="img" aria-label="{label}" ', text, count=1)
    for colour, variable in VARIABLES.items():
        text = text.replace(colour, variable)
    return [nodes.raw("", f'<div class="plot">{text}</div>', format="html")]


class Drawn(SphinxDirective):
    """A plot, of the optimizer that is named where the plot is of one."""

    required_arguments = 1

    def run(self) -> list[nodes.Node]:
        """Draw it."""
        self.env.note_dependency(__file__)
        with mpl.rc_context(STYLE):
            return self.drawn(*self.arguments)


WALK = 600


@cache
def paths() -> dict[str, Any]:
    """Each optimizer's way on Rosenbrock's function from (−1, 1.5)."""
    out = {}
    for name, optimizer in CLASSES.items():
        made, w = optimizer(**given(entry_of(name).plot.rate)), np.array([-1.0, 1.5])
        way = [w.copy()]
        for _ in range(WALK):
            x, y = w
            made.update(w, np.array([-2 * (1 - x) - 400 * x * (y - x * x), 200 * (y - x * x)]))
            way.append(w.copy())
        out[name] = np.array(way)
    return out


class PathPlot(Drawn):
    """Draw the optimizer's path on a test function, with the others'."""

    def drawn(self, name: str) -> list[nodes.Node]:
        """Draw it."""
        figure = Figure(figsize=(5.8, 3.7), layout="constrained")
        axes = figure.subplots()
        x, y = np.meshgrid(np.linspace(-1.6, 1.4, 121), np.linspace(-0.4, 1.8, 89))
        levels = 10.0 ** np.arange(-1, 3.1, 0.5)
        axes.contour(x, y, (1 - x) ** 2 + 100 * (y - x * x) ** 2, levels=levels, colors=FAINT, linewidths=0.8)
        way = paths()[name]
        for other, its in sorted(paths().items(), key=lambda pair: pair[0] == name):
            colour, width, mark = (MAIN, 2.2, "o") if other == name else (SECOND, 1, ".")
            axes.plot(*its[::2].T, color=colour, linewidth=width, alpha=1 if other == name else 0.7)
            axes.plot(*its[-1], mark, color=colour)
            place = entry_of(other).plot.label
            axes.annotate(other, its[-1], place, textcoords="offset points", color=colour, fontsize=9)
        axes.plot(*way[0], "o", color=INK, markersize=4)
        axes.annotate("start", way[0], (6, 2), textcoords="offset points", fontsize=9)
        axes.plot(1, 1, "+", color=INK, markersize=12)
        axes.set(xlabel="x", ylabel="y", xlim=(-1.6, 1.4), ylim=(-0.4, 1.8))
        label = f"{name} on Rosenbrock's function after {WALK} steps, beside the other optimizers"
        end = f"({way[-1][0]:.2f}, {way[-1][1]:.2f})"
        rates = ", ".join(
            f"{entry.name} {'its own' if entry.plot.rate is None else format(entry.plot.rate, 'g')}"
            for entry in CATALOG
        )
        caption = (
            f"{name} on Rosenbrock's function (1 − x)² + 100(y − x²)², from (−1, 1.5) to {end} in {WALK} steps, beside "
            f"the others. The cross is the minimum. Learning rates: {rates}; all else at its default."
        )
        return [*svg(figure, f"path-{name}", label), nodes.caption("", caption, classes=["plot-caption"])]


class ErrorPlot(Drawn):
    """The greatest float32 error of the parameter against the bound, over a hundred steps."""

    steps = 100

    def drawn(self, name: str) -> list[nodes.Node]:
        """Draw it."""
        draw = np.random.default_rng(0)
        optimizer, shape = CLASSES[name], entry_of(name).shape
        w, gradients = (np.float32(draw.normal(size=size)) for size in (shape, (self.steps, *shape)))
        entries = trajectory(optimizer, w, gradients, **given(default_rate(name)))
        got = run(optimizer, w, gradients)
        found = distances(entries, [row["parameter"] for row in got])
        errors = np.array([max(error for error, _ in step) for step in found])
        bounds = np.array([max(bound for _, bound in step) for step in found])
        figure = Figure(figsize=(5.8, 2.9), layout="constrained")
        axes, t = figure.subplots(), np.arange(1, self.steps + 1)
        for values, colour, word, above in ((bounds, SECOND, "bound", 6), (errors, MAIN, "float32", -18)):
            axes.plot(t, values, color=colour, linewidth=2)
            place = {"textcoords": "offset points", "ha": "right"}
            axes.annotate(word, (t[-1], values[-1]), (0, above), color=colour, **place)
        axes.set(xlabel="step", yscale="log")
        axes.set_ylabel("greatest error of w", labelpad=10)
        axes.yaxis.set_major_formatter(lambda x, position: f"{x:.0e}")  # plain text: its size is for the style to say
        axes.yaxis.set_minor_formatter("")
        label = f"{name}: greatest float32 error of the parameter and its bound over {self.steps} steps"
        caption = (
            f"The greatest error of w among {w.size} elements after each of {self.steps} steps with normal "
            f"gradients, and the greatest bound. After the last: {errors[-1]:.2g} of {bounds[-1]:.2g}."
        )
        return [*svg(figure, f"error-{name}", label), nodes.caption("", caption, classes=["plot-caption"])]


class WrongEpsilon(Drawn):
    """The first number that the example of the first page gets wrong: what is accepted, and what it gave."""

    required_arguments = 0
    case, element = "adam/plain/defaults", 20

    def drawn(self) -> list[nodes.Node]:
        """Draw it."""
        (case,) = matching(pattern=self.case)
        one = slice(self.element, self.element + 1)
        w, g, h = case.parameter[one], case.gradients[:1, one], case.hyperparameters
        right = trajectory("Adam", w, g, scalars="float32", **h)[0].parameter  # the wider of the two
        wrong = trajectory(formulas.parse("Adam[eps=inside_sqrt]"), w, g, **h)[0].parameter
        low, high, got = right.low[0], right.high[0], wrong.nearest[0]
        float32s = [min(low, got)]
        while float32s[-1] < max(high, got):
            float32s.append(np.nextafter(float32s[-1], np.float32(np.inf)))
        scale = np.float64(np.spacing(float32s[0]))
        x = [(float(value) - float(float32s[0])) / scale for value in (*float32s, low, high, got)]
        *ticks, x_low, x_high, x_got = x
        with Exact().active():
            x_exact = (float(right.exact[0]) - float(float32s[0])) / scale
        figure = Figure(figsize=(5.8, 1.2))
        axes = figure.add_axes((0, 0, 1, 1))
        axes.axis("off")
        axes.plot([ticks[0] - 0.5, ticks[-1] + 0.5], [0, 0], color=FAINT, linewidth=1)
        axes.vlines(ticks, -0.12, 0.12, color=FAINT, linewidth=1)
        axes.plot([x_low, x_high], [0, 0], color=SECOND, linewidth=7, alpha=0.5, solid_capstyle="butt")
        axes.vlines([x_low, x_high], -0.3, 0.3, color=SECOND, linewidth=2)
        axes.plot(x_exact, 0, "D", color=INK, markersize=5)
        axes.plot(x_got, 0, "o", color=MAIN, markersize=8)
        for place, height, colour, words in (
            ((x_low + x_high) / 2, 0.45, SECOND, f"accepted: {low!s} to {high!s}"),
            (x_exact, -0.75, INK, f"exact: {Exact().text(right.exact[0], 12)}…"),
            (x_got, -0.75, MAIN, f"got {got!s}"),
        ):
            axes.text(place, height, words, color=colour, ha="center")
        axes.set(ylim=(-1, 1), xlim=(ticks[0] - 1.6, ticks[-1] + 0.8))
        label = f"Accepted is {low!s} to {high!s}; Adam with ε inside the root gave {got!s}, which is outside"
        return svg(figure, "wrong-epsilon", label)


def vector_file(
    role: str, rawtext: str, text: str, lineno: int, inliner: Any, options: Any = None, content: Any = ()
) -> tuple[list[nodes.Node], list[Any]]:
    """A link from the page of an optimizer to its vectors."""
    name = f"{text.lower()}.json"
    link = nodes.reference("", "", nodes.literal(name, name), refuri=f"../vectors/{name}", internal=False)
    return [link], []


LETTERS = "Here :math:`w_t` is the parameter after step t, counted from 1, and :math:`g_t` is its gradient."


def name_the_letters(app: Sphinx, what: str, name: str, obj: Any, options: Any, lines: list[str]) -> None:
    """Say below the formula of an optimizer which letters all of them share."""
    if obj in CLASSES.values():
        ends = [number for number, line in enumerate(lines) if r"\end{aligned}" in line]
        if not ends:
            raise ExtensionError(f"the docstring of {name} has no formula that ends with \\end{{aligned}}")
        lines[ends[0] + 1 : ends[0] + 1] = ["", LETTERS]


def setup(app: Sphinx) -> dict[str, object]:
    """Register with Sphinx."""
    app.connect("autodoc-process-docstring", name_the_letters)
    app.add_role("vector-file", vector_file)
    app.add_directive("three-steps", ThreeSteps)
    app.add_directive("rule-source", RuleSource)
    app.add_directive("measured-error", MeasuredError)
    app.add_directive("in-frameworks", InFrameworks)
    app.add_directive("mlx-history", History)
    app.add_directive("path-plot", PathPlot)
    app.add_directive("error-plot", ErrorPlot)
    app.add_directive("wrong-epsilon", WrongEpsilon)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
