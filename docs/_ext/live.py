"""The stepper on the page of an optimizer: its bits are those of the JavaScript port, computed in the browser.

A browser refuses modules that are opened from disk, so the port goes into the site as a classic script. The directive
``live`` takes an optimizer's name and leaves a place that ``live.js`` fills; its fields come from the class. Where the
port has no such optimizer, the page says so.
"""

from __future__ import annotations

import inspect
import json
import re
from pathlib import Path
from typing import Any

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.errors import ExtensionError
from sphinx.util.docutils import SphinxDirective

import mlx_optimizers
from mlx_optimizers import hyperparameters
from mlx_optimizers.conformance.case import default_rate

PORT = Path(__file__).parents[1] / "ports" / "javascript" / "optimizers.mjs"
SCRIPTS = ("optimizers.js", "live.js")

RANGES = {
    hyperparameters.at_least_zero: {"count": 1, "words": "a number ≥ 0", "low": 0},
    hyperparameters.positive: {"count": 1, "words": "a number > 0", "above": 0},
    hyperparameters.unit: {"count": 1, "words": "a number in [0, 1]", "low": 0, "high": 1},
    hyperparameters.pair_below_one: {"count": 2, "words": "two numbers in [0, 1)", "low": 0, "below": 1},
    hyperparameters.switch: {"switch": True},
}
"""What a field takes, for each check of a hyperparameter."""

WITH = "Change a number and see every step, with its bits. The JavaScript port computes them, in this page."
WITHOUT = "There is nothing to try here yet: the JavaScript port has no {}."


def classic(module: str) -> str:
    """A module's text as a script that sets ``mlxOptimizers`` to what the module exports.

    Raises:
        ValueError: for a module that imports, or exports in another way than in front of a declaration.
    """
    names = re.findall(r"^export (?:const|function) (\w+)", module, re.MULTILINE)
    body = re.sub(r"^export (?=const|function)", "", module, flags=re.MULTILINE)
    if not names or re.search(r"^(import|export)\b", body, re.MULTILINE):
        raise ValueError("a classic script has no import, and exports stand in front of a declaration")
    return f'"use strict";\nconst mlxOptimizers = (() => {{\n{body}\nreturn {{ {", ".join(names)} }};\n}})();\n'


def ported(module: str) -> set[str]:
    """Read the names of the optimizers that a port computes.

    Raises:
        ValueError: for a port without the table ``optimizers``.
    """
    table = re.search(r"^export const optimizers = \{\n(.*?)^\};", module, re.MULTILINE | re.DOTALL)
    if table is None:
        raise ValueError(f"{PORT.name} has no table `export const optimizers = {{ … }};`")
    return set(re.findall(r"^  (\w+): ", table[1], re.MULTILINE))


def fields(optimizer: type[mlx_optimizers.Optimizer]) -> list[dict[str, Any]]:
    """One field a hyperparameter: name, value at first, and what it takes."""
    made = [{"name": "learning_rate", "value": repr(default_rate(optimizer.__name__)), "low": 0}]
    made[0] |= {"words": "a number ≥ 0, or one for each step"}
    for name, parameter in list(inspect.signature(optimizer).parameters.items())[1:]:
        value = parameter.default
        text = ", ".join(map(repr, value)) if isinstance(value, tuple) else json.dumps(value)
        check = getattr(optimizer, name).check
        if check not in RANGES:
            raise ExtensionError(
                f"{Path(__file__).name}: RANGES does not say what {check.__name__} takes, which checks {name} of "
                f"{optimizer.__name__}"
            )
        made.append({"name": name, "value": text, **RANGES[check]})
    return made


class live(nodes.General, nodes.Element):  # noqa: N801  (docutils calls nodes so)
    """The place of a stepper."""


class Live(SphinxDirective):
    """A stepper of one optimizer."""

    required_arguments = 1

    def run(self) -> list[nodes.Node]:
        """Make the place, or say that the port has no such optimizer."""
        self.env.note_dependency(str(PORT))
        (name,) = self.arguments
        if name not in ported(PORT.read_text(encoding="utf-8")):
            return [nodes.paragraph("", WITHOUT.format(name))]
        return [nodes.paragraph("", WITH), live("", optimizer=name)]


def visit_html(self: Any, node: live) -> None:
    """Write the place, with what ``live.js`` needs to know."""
    name = node["optimizer"]
    data = json.dumps(fields(getattr(mlx_optimizers, name)), ensure_ascii=False)
    attributes = {"data-optimizer": name, "data-fields": data}
    self.body.append(self.starttag(node, "div", CLASS="live", **attributes))
    self.body.append("<p>The stepper needs JavaScript, which is off in this browser.</p></div>\n")
    raise nodes.SkipNode


def visit_other(self: Any, node: live) -> None:
    """Leave it out where nothing can be run."""
    raise nodes.SkipNode


def write_script(app: Sphinx) -> None:
    """Copy the port to the site's other scripts."""
    if app.builder.name == "html":
        target = Path(app.outdir, "_static", SCRIPTS[0])
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(classic(PORT.read_text(encoding="utf-8")), encoding="utf-8")


def add_scripts(app: Sphinx, page: str, template: str, context: dict[str, Any], doctree: nodes.document | None) -> None:
    """Load the scripts on the pages that have a stepper, and on no other."""
    if doctree is not None and next(doctree.findall(live), None) is not None:
        for script in SCRIPTS:
            app.add_js_file(script, loading_method="defer")


def setup(app: Sphinx) -> dict[str, object]:
    """Register with Sphinx."""
    other = dict.fromkeys(("latex", "text", "man", "texinfo"), (visit_other, None))
    app.add_node(live, html=(visit_html, None), **other)
    app.add_directive("live", Live)
    app.connect("builder-inited", write_script)
    app.connect("html-page-context", add_scripts)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
