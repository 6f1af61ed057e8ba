"""Every public name of MLX has its counterpart with the same arguments, or the guide says why not."""

from __future__ import annotations

import inspect
import re
from pathlib import Path
from types import ModuleType

import pytest

import mlx_optimizers as optim
from mlx_optimizers.backends import CHECKED
from tests.support import require

PAGE = Path(__file__).parents[1] / "docs" / "guides" / "coming_from.md"
TEXT = PAGE.read_text(encoding="utf-8").partition("### Name by name\n")[2].partition("\n### ")[0]


def rows(number):
    """Read the cells of a table, without the ticks around a name."""
    table = re.split(r"^\|[-|]+\|$", TEXT, flags=re.MULTILINE)[number].strip().partition("\n\n")[0]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in table.splitlines()]


NAMES = {cells[0].strip("`").partition("(")[0]: cells for cells in rows(1)}


def public(module):
    """List the names that are MLX's own: what it imports for itself is somebody else's."""
    for name, value in vars(module).items():
        own = value.__name__ if isinstance(value, ModuleType) else getattr(value, "__module__", "")
        if not name.startswith("_") and own.startswith("mlx.optimizers"):
            yield name


def signature(function):
    """Write a signature without types."""
    found = inspect.signature(function).parameters.values()
    words = [p.name if p.default is p.empty else f"{p.name}={p.default!r}" for p in found if p.name != "self"]
    return f"({', '.join(words)})"


def alike(text):
    """Write betas as a list, which they are in MLX."""
    return re.sub(r"betas=\(([^)]*)\)", r"betas=[\1]", text)


def test_the_guide_has_every_public_name_and_no_other():
    theirs = require("mlx.optimizers")
    assert f"`mlx.optimizers` in MLX {CHECKED['mlx']}" in TEXT
    assert sorted(NAMES) == sorted(public(theirs))
    assert sorted(public(theirs.schedulers)) == sorted(name for name in NAMES if re.search("decay$|schedules?$", name))


@pytest.mark.parametrize("name", NAMES)
def test_its_signature_is_mlxs_and_ours_is_what_the_guide_says(name):
    theirs = getattr(require("mlx.optimizers"), name)
    shown, since, here = NAMES[name]
    assert re.match(r"\d+\.\d+\.\d+\b", since)
    if not callable(theirs):
        assert shown == f"`{name}`" and (hasattr(optim, name) == here.startswith("the same"))
        return
    assert shown == f"`{name}{signature(theirs)}`"
    if here.startswith("missing: "):
        assert not hasattr(optim, name)
        return
    ours = alike(signature(getattr(optim, name)))
    if here.startswith("without "):
        left_out, instead = re.findall(r"`(\w+)`", here)
        assert ours == signature(theirs).replace(f", {left_out}=False", "")
        assert alike(signature(getattr(optim, instead))) == ours
    else:
        assert here.startswith("the same")
        assert ours == signature(theirs)


def test_the_attributes_of_an_optimizer_are_those_of_mlx():
    theirs = require("mlx.optimizers").Optimizer
    shown = {text.partition("(")[0]: text for cells in rows(2) for text in re.findall(r"`([^`]+)`", cells[0])}
    assert sorted(shown) == sorted(name for name in vars(theirs) if not name.startswith("_"))
    for name, text in shown.items():
        if "(" in text:
            assert text == name + signature(getattr(theirs, name)) == name + signature(getattr(optim.Optimizer, name))
        else:
            assert isinstance(vars(theirs)[name], property) and isinstance(vars(optim.Optimizer)[name], property)
    assert all(here.startswith("the same") for _, here in rows(2))


def test_schedules_stand_in_a_module_of_mlxs_name():
    require("mlx.optimizers")
    for name in public(require("mlx.optimizers").schedulers):
        assert getattr(optim.schedulers, name) is getattr(optim, name)


def test_a_name_that_mlx_adds_would_be_noticed(monkeypatch):
    theirs = require("mlx.optimizers")
    monkeypatch.setattr(
        theirs, "Newton", type("Newton", (), {"__module__": "mlx.optimizers.optimizers"}), raising=False
    )
    assert "Newton" in set(public(theirs)) - set(NAMES)
