"""Write every page as plain Markdown next to its HTML, and ``llms.txt``, which lists them with their subjects.

The Markdown comes from Sphinx's resolved page, so that it has the docstrings and the generated tables.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from docutils import nodes
from sphinx import addnodes
from sphinx.application import Sphinx
from sphinx.ext.autosummary import autosummary_table

HEAD = """# {project}

> {summary}

"""
SILENT = (nodes.raw, nodes.comment, nodes.target, nodes.system_message, nodes.substitution_definition, addnodes.index)


def inline(node: nodes.Node) -> str:
    """The Markdown of what stands within a line."""
    if isinstance(node, nodes.Text):
        return re.sub(r"[\\`*]", r"\\\g<0>", " ".join(re.split(r"\s+", node.astext())))
    if isinstance(node, SILENT) or "norm" in node.get("classes", ()):
        return ""
    if isinstance(node, nodes.math):
        return f"${node.astext()}$"
    if isinstance(node, nodes.literal):
        return f"`{node.astext()}`"
    text = "".join(map(inline, node.children)).replace("****", "")  # between two that are strong
    if isinstance(node, nodes.emphasis):
        return f"*{text}*"
    if isinstance(node, nodes.strong):
        return f"**{text}**"
    if isinstance(node, nodes.reference) and text and (address := markdown_address(node)):
        return f"[{text}]({address})"
    return text


def markdown_address(node: nodes.reference) -> str:
    """Where a link leads among the pages of Markdown; empty where it stays on its page or there is no such page."""
    address = str(node.get("refuri", ""))
    if not node.get("internal"):
        return address
    page, _, anchor = address.partition("#")
    if not page.endswith(".html") or "_modules/" in page:
        return ""
    return page.removesuffix(".html") + ".md" + (f"#{anchor}" if anchor else "")


def fenced(text: str, language: str) -> str:
    """A block of code."""
    return f"```{'' if language in ('none', 'default', 'text') else language}\n{text.rstrip()}\n```"


def table(node: nodes.table) -> str:
    """A table with a bar between cells."""
    rows = []
    for row in node.findall(nodes.row):
        cells = (" ".join(inline(part) for part in entry.children) for entry in row.findall(nodes.entry))
        rows.append("| " + " | ".join(cell.replace("|", r"\|") for cell in cells) + " |")
    columns = next(iter(node.findall(nodes.tgroup)))["cols"]
    body = rows if next(node.findall(nodes.thead), None) else ["|" + " |" * columns, *rows]
    return "\n".join([body[0], "|" + "---|" * columns, *body[1:]])


def indented(text: str, first: str) -> str:
    """A list item: its first line after a mark, the others under it."""
    lines = text.splitlines()
    return "\n".join([first + (lines or [""])[0], *(" " * len(first) + line if line else "" for line in lines[1:])])


def blocks(node: nodes.Node, level: int) -> str:
    """The Markdown of a node and what is in it."""
    if isinstance(node, autosummary_table):  # which is a comment to other writers
        return within(node, level)
    if isinstance(node, (*SILENT, addnodes.toctree)):
        return ""
    if isinstance(node, nodes.section):
        return within(node, level + 1)
    if isinstance(node, nodes.title) and isinstance(node.parent, nodes.section):
        return f"{'#' * level} {inline(node)}"
    if isinstance(node, nodes.title | nodes.rubric):
        return f"**{inline(node)}**"
    if isinstance(node, nodes.math_block):
        return f"$$\n{node.astext().strip()}\n$$"
    if isinstance(node, nodes.literal_block):
        return fenced(node.astext(), node.get("language", ""))
    if isinstance(node, nodes.doctest_block):
        return fenced(node.astext(), "pycon")
    if isinstance(node, nodes.table):
        return table(node)
    if isinstance(node, nodes.bullet_list | nodes.enumerated_list):
        mark = "- " if isinstance(node, nodes.bullet_list) else "1. "
        return "\n".join(indented(within(item, level), mark) for item in node.children)
    if isinstance(node, nodes.term | nodes.field_name):
        return f"**{inline(node)}**"
    if isinstance(node, addnodes.desc_signature):
        return f"`{' '.join(node.astext().split()).removesuffix('[source]').strip()}`"
    if isinstance(node, nodes.TextElement):
        return inline(node).strip()
    return within(node, level)


def within(node: nodes.Node, level: int) -> str:
    """The Markdown of a node's children, a blank line between them."""
    return "\n\n".join(text for child in node.children if (text := blocks(child, level)))


def write_page(app: Sphinx, page: str, template: str, context: dict[str, Any], doctree: nodes.document | None) -> None:
    """Write one page's Markdown."""
    if doctree is not None and app.builder.name == "html":
        target = Path(app.outdir, f"{page}.md")
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(within(doctree, 0) + "\n", encoding="utf-8")


def order(app: Sphinx) -> list[str]:
    """The pages in the order of the tables of contents, the first page first."""
    found: list[str] = []

    def visit(page: str) -> None:
        if page not in found:
            found.append(page)
            for below in app.env.toctree_includes.get(page, []):
                visit(below)

    visit(app.config.root_doc)
    return found


def write_list(app: Sphinx, exception: Exception | None) -> None:
    """Write ``llms.txt``."""
    if exception is None and app.builder.name == "html":
        lines = []
        for page in order(app):
            texts = (Path(app.outdir, f"{page}.md").read_text(encoding="utf-8").split("\n\n"))[1:]
            about = next((text for text in texts if re.match(r"(?!Bases: |Try it )[A-Z]", text)), "")
            sentence = re.split(r"(?<=\.)\s", about, maxsplit=1)[0]
            lines.append(f"- [{app.env.titles[page].astext()}]({page}.md)" + (f": {sentence}" if sentence else ""))
        head = HEAD.format(project=app.config.project, summary=app.config.llms_summary)
        Path(app.outdir, "llms.txt").write_text(head + "\n".join(lines) + "\n", encoding="utf-8")


def setup(app: Sphinx) -> dict[str, object]:
    """Register with Sphinx."""
    app.add_config_value("llms_summary", "", "html")
    app.connect("html-page-context", write_page)
    app.connect("build-finished", write_list)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
