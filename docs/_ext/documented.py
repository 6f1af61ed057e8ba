"""Warns of every public name that the site does not document; under ``-W`` one is enough to fail the build.

Public are the names in ``__all__`` of the modules in the setting ``documented_modules``, and the methods and properties
that a public class defines under a name without a leading underscore.

The module also has the summary tables, which show each name's signature but a dictionary's, and the base class without
the argument that MLX gave it later.
"""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Iterator

from sphinx.application import Sphinx
from sphinx.environment import BuildEnvironment
from sphinx.ext.autosummary import Autosummary, import_by_name
from sphinx.util import logging

from mlx_optimizers import Optimizer

logger = logging.getLogger(__name__)


def public_names(modules: list[str]) -> Iterator[tuple[str, object]]:
    """Yield the dotted name and the object of everything public."""
    for module_name in modules:
        module = importlib.import_module(module_name)
        for name in module.__all__:
            if name.startswith("__"):
                continue
            value = getattr(module, name)
            yield f"{module_name}.{name}", value
            if inspect.isclass(value) and value.__module__.startswith(module_name):
                for member_name, member in vars(value).items():
                    if not member_name.startswith("_") and (inspect.isroutine(member) or isinstance(member, property)):
                        yield f"{module_name}.{name}.{member_name}", member


def check(app: Sphinx, env: BuildEnvironment) -> None:
    """Compare what is public with what the pages describe."""
    described = set(env.domains.python_domain.objects)
    for name, value in public_names(app.config.documented_modules):
        if name not in described:
            logger.warning("the public name %s is on no page", name)
        if (inspect.isroutine(value) or inspect.isclass(value)) and not inspect.getdoc(value):
            logger.warning("the public name %s has no docstring", name)


class Table(Autosummary):
    """A summary table that shows a dictionary by its name alone, as its signature takes anything and says nothing."""

    def get_items(self, names: list[str]) -> list[tuple[str, str | None, str, str]]:
        """Return the rows."""
        rows = []
        for name, signature, summary, full_name in super().get_items(names):
            value = import_by_name(full_name)[1]
            plain = inspect.isclass(value) and issubclass(value, dict)
            rows.append((name, "" if plain else signature, summary, full_name))
        return rows


def as_in_the_table(
    app: Sphinx, what: str, name: str, obj: object, options: object, signature: str | None, returns: str | None
) -> tuple[str, str | None] | None:
    """Show the base class on the page of the optimizers as its table has it; its own page has the argument."""
    on_the_page = obj is Optimizer and app.env.temp_data.get("docname") == "optimizers"
    return ("()", returns) if on_the_page else None


def setup(app: Sphinx) -> dict[str, object]:
    """Register with Sphinx."""
    app.add_config_value("documented_modules", [], "env")
    app.connect("env-check-consistency", check)
    app.setup_extension("sphinx.ext.autosummary")  # whose directive is replaced
    app.add_directive("autosummary", Table, override=True)
    app.connect("autodoc-process-signature", as_in_the_table)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
