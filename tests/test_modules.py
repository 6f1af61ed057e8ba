"""Each optimizer stands on one screen: its module is short, and so is the docstring of its class."""

from __future__ import annotations

import ast
from pathlib import Path

import mlx_optimizers
from tests.expected import EXPECTED, each_name


@each_name
def test_an_optimizer_stands_on_one_screen(name):
    text = (Path(mlx_optimizers.__file__).parent / f"{name.lower()}.py").read_text(encoding="utf-8")
    (found,) = (node for node in ast.parse(text).body if isinstance(node, ast.ClassDef) and node.name == name)
    docstring = found.body[0]
    assert isinstance(docstring, ast.Expr)
    lines, longest = EXPECTED[name].lines
    assert len(text.splitlines()) <= lines
    assert docstring.end_lineno - docstring.lineno + 1 <= longest
    assert {"coefficients", "rule", "exact"} <= {node.name for node in found.body if isinstance(node, ast.FunctionDef)}
