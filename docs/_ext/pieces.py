"""Refuses a build for which a piece of an optimizer is missing; CONTRIBUTING.md lists the pieces.

``docs/optimizers/<name>.md`` holds the texts of an optimizer's page. The template of the page names the headings: its
``written("State")`` shows what stands below ``## State``, up to the next ``##``.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from sphinx.errors import ConfigError

import mlx_optimizers
from mlx_optimizers.catalog import CATALOG
from mlx_optimizers.conformance.vectors import last_changes, vectors_of

DOCS = Path(__file__).parents[1]
TEMPLATE = DOCS / "_templates" / "autosummary" / "class.rst"


def headings() -> list[str]:
    """Read the headings of a page off the template."""
    return [f"## {name}" for name in re.findall(r'\bwritten\("([^"]+)"', TEMPLATE.read_text(encoding="utf-8"))]


def missing_texts(name: str, text: str) -> Iterator[str]:
    """Say what the page of an optimizer would leave out, a sentence each."""
    title, *parts = text.split("##")
    found = {f"##{line.rstrip()}": below.strip() for line, _, below in (part.partition("\n") for part in parts)}
    wanted = headings()
    if title.strip() != f"# {name}":
        yield f'must begin with "# {name}" and a heading of the second level'
    for heading in wanted:
        if heading not in found:
            yield f'has no heading "{heading}"'
        elif not found[heading]:
            yield f'has no text below "{heading}"'
    for heading in found.keys() - set(wanted):
        yield f'has "{heading}", which no page shows; the headings are {", ".join(wanted)}'
    if wanted[-1] in found and [*found][-1] != wanted[-1]:
        yield f'must end with "{wanted[-1]}"'


def missing() -> Iterator[str]:
    """Name the missing piece of an optimizer, the file first."""
    ours = [optimizer.__name__ for optimizer in (*mlx_optimizers.OPTIMIZERS, *mlx_optimizers.LATER)]
    if [entry.name for entry in CATALOG] != ours:
        entries = ", ".join(entry.name for entry in CATALOG)
        yield f"mlx_optimizers/catalog/__init__.py: CATALOG has {entries}, and OPTIMIZERS with LATER {', '.join(ours)}"
        return  # the rest reads the entries
    for name in ours:
        if name not in mlx_optimizers.__all__:
            yield f"mlx_optimizers/__init__.py: __all__ has no {name}"
        page = DOCS / "optimizers" / f"{name.lower()}.md"
        if not page.is_file():
            yield f"docs/optimizers/{page.name}: there is no such file, which holds the texts of {name}'s page"
        else:
            for problem in missing_texts(name, page.read_text(encoding="utf-8")):
                yield f"docs/optimizers/{page.name} {problem}"
    for page in sorted((DOCS / "optimizers").glob("*.md")):
        if page.stem not in map(str.lower, ours):
            yield f"docs/optimizers/{page.name}: neither OPTIMIZERS nor LATER has a class of this name"
    published = last_changes()
    unlisted = [vector.id for name in ours for vector in vectors_of(name) if vector.id not in published]
    if unlisted:
        yield (
            f"mlx_optimizers/vectors/CHANGES.txt: {unlisted[0]} and {len(unlisted) - 1} more are not listed; "
            "python scripts/vectors_changes.py lists them"
        )


def require_every_piece() -> None:
    """Check the pieces of all optimizers.

    Raises:
        ConfigError: with a line for each piece that is missing.
    """
    if problems := list(missing()):
        raise ConfigError("\n".join(problems))
