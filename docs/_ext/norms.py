"""Normative sentences of the guides: what is computed, accepted or refused has an id, and tests that name it.

The role ``norm`` ends such a sentence: ``…is refused.{norm}`inputs.shape` ``. It covers the text of its block since the
id before. A test names it by ``@pytest.mark.norm("inputs.shape")``. The directive ``norms`` prints the ids of a guide,
their text and their tests. All of it is read from the sources, so that neither needs to be run.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from docutils import nodes
from proved import tex
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxRole
from tables import Cell, Table

DOCS = Path(__file__).parents[1]
TESTS = DOCS.parent / "tests"
GUIDES = ("interval", "formulas", "vectors", "check_your_port", "inputs")
PAGE = "what_is_proved"
ROLE = re.compile(r"\{norm\}`([^`]+)`")
FENCE = re.compile(r"^(`{3,}|~{3,}|:{3,}).*?^\1\s*$", re.MULTILINE | re.DOTALL)
DISPLAYED = re.compile(r"^\$\$.*?\$\$", re.MULTILINE | re.DOTALL)
HEAD = re.compile(r"^\|.*\n\|[-:| ]+\|$", re.MULTILINE)
BLOCK = re.compile(r"\n\s*\n|\n(?=\s*(?:[-*] |\d+\. |\||#))")


@dataclass(frozen=True)
class Norm:
    """A piece of a guide, up to its id or, without one, up to the end of its block.

    Args:
        id: The id, empty where there is none.
        text: What it says, in Markdown.
    """

    id: str
    text: str


def norms(source: str) -> Iterator[Norm]:
    """Cut a guide at its ids and at the ends of blocks, without code, displayed formulas and the heads of tables."""
    for part in (FENCE, DISPLAYED, HEAD):
        source = part.sub("\n\n", source)
    for block in BLOCK.split(source):
        text = " ".join(block.split())
        if text.startswith("#"):
            continue
        pieces = ROLE.split(text)
        for piece, name in zip(pieces[::2], [*pieces[1::2], ""], strict=True):
            if words := piece.strip(" |"):
                yield Norm(name, words)
            elif name:
                raise ValueError(f"the id {name} has no text of its own")


def guide(name: str) -> str:
    """Read a guide."""
    return (DOCS / "guides" / f"{name}.md").read_text(encoding="utf-8")


def marks(source: str) -> Iterator[tuple[str, str]]:
    """Find the ids that a module of tests names, each with the test; with none where the whole module holds it."""
    for node in ast.parse(source).body:
        if isinstance(node, ast.FunctionDef):
            for decorator in node.decorator_list:
                yield from ((name, node.name) for name in _named(decorator))
        elif isinstance(node, ast.Assign) and [ast.unparse(target) for target in node.targets] == ["pytestmark"]:
            yield from ((name, "") for name in _named(node.value))


def _named(node: ast.AST) -> Iterator[str]:
    """Find the arguments of ``pytest.mark.norm``."""
    for call in ast.walk(node):
        if isinstance(call, ast.Call) and ast.unparse(call.func) == "pytest.mark.norm":
            yield from (ast.literal_eval(argument) for argument in call.args)


def holders() -> dict[str, list[str]]:
    """List the tests of each id, as ``tests/folder/file.py::test``."""
    found: dict[str, list[str]] = {}
    for path in sorted(TESTS.rglob("test_*.py")):
        for name, test in marks(path.read_text(encoding="utf-8")):
            file = path.relative_to(TESTS.parent).as_posix()
            found.setdefault(name, []).append(f"{file}::{test}" if test else file)
    return found


def anchor(name: str) -> str:
    """The part of an address that an id has on a page."""
    return "norm-" + name.replace(".", "-")


def shown(markdown: str) -> list[nodes.Node]:
    """Markdown as nodes: formulas and code stay what they are, links and emphasis are their text."""
    text = re.sub(r"^([-*]|\d+\.) ", "", re.sub(r"\[([^]]*)\]\([^)]*\)", r"\1", markdown))
    text = re.sub(r"\{\w+\}`~?([^`<]*)[^`]*`|<[^>]+>", r"\1", text)
    out: list[nodes.Node] = []
    for index, part in enumerate(re.split(r"`([^`]+)`", text)):
        if index % 2:
            out.append(nodes.literal(part, part))
        else:
            out += tex(
                re.sub(r"\*\*|(?<!\w)\*(?=\w)|(?<=\w)\*(?!\w)", "", part).replace(" | ", " · ").replace(r"\|", "|")
            )
    return out


class Role(SphinxRole):
    """The mark at the end of a sentence, which leads to its tests."""

    def run(self) -> tuple[list[nodes.Node], list[nodes.system_message]]:
        """Make a link that is the target of another."""
        address = f"{PAGE}.html#{anchor(self.text)}"
        spoken = nodes.inline("", f" tests of {self.text}", classes=["visually-hidden"])
        link = nodes.reference("", "§", spoken, refuri=address, internal=True, reftitle=f"{self.text}: its tests")
        return [nodes.inline("", "", link, ids=[anchor(self.text)], classes=["norm"])], []


class Norms(Table):
    """The ids of a guide, their text and their tests."""

    required_arguments = 1
    header = ("id", "what it says", "tests")
    kind = "norms"

    def run(self) -> list[nodes.Node]:
        """Make the table, again when the guide or a test has changed."""
        for path in (Path(__file__), DOCS / "guides" / f"{self.arguments[0]}.md", *TESTS.rglob("test_*.py")):
            self.env.note_dependency(str(path))
        return super().run()

    def rows(self) -> Iterable[Sequence[Cell]]:
        """One row an id."""
        name, found = self.arguments[0], holders()
        for norm in norms(guide(name)):
            if norm.id:
                link = nodes.reference("", norm.id, refuri=f"{name}.html#{anchor(norm.id)}", internal=True)
                listed = [nodes.literal(test, test) for test in found.get(norm.id, ())]
                separated = [node for test in listed for node in (nodes.Text(" "), test)][1:]
                yield [nodes.inline("", "", link, ids=[anchor(norm.id)])], shown(norm.text), separated


def setup(app: Sphinx) -> dict[str, object]:
    """Register with Sphinx."""
    app.add_role("norm", Role())
    app.add_directive("norms", Norms)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
