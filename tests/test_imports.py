"""Imports run one way, and an optional library is imported only where it is used."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

import mlx_optimizers

PACKAGE = Path(mlx_optimizers.__file__).parent
LAYERS = ["catalog", "oracle", "conformance", "backends", "audit", "testing", "cli", "__main__"]
"""From the bottom up; the optimizers and their parts lie below."""

OPTIONAL = ["gmpy2", "jax", "keras", "ml_dtypes", "mlx", "numba", "optax", "rich", "safetensors", "torch"]


def name_of(path: Path) -> str:
    parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {name_of(path): path for path in PACKAGE.rglob("*.py")}


def imported(path: Path) -> Iterator[str]:
    """List the modules of our own that a module imports, anywhere in it."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name in MODULES)
        elif isinstance(node, ast.ImportFrom) and node.module in MODULES:
            submodules = [f"{node.module}.{alias.name}" for alias in node.names]
            yield from (name for name in submodules if name in MODULES)
            if not all(name in MODULES for name in submodules):
                yield node.module


GRAPH = {name: set(imported(path)) - {name} for name, path in MODULES.items()}


def layer(module: str) -> int:
    parts = module.split(".")
    return LAYERS.index(parts[1]) + 1 if len(parts) > 1 and parts[1] in LAYERS else 0


def test_the_graph_is_not_empty():
    assert "mlx_optimizers.adam" in GRAPH["mlx_optimizers"]
    assert "mlx_optimizers.elementwise" in GRAPH["mlx_optimizers.adam"]


def test_execution_knows_no_optimizer():
    execution = {name for name in GRAPH if name.startswith("mlx_optimizers.execution")}
    below = {f"mlx_optimizers.{name}" for name in ("interrupts", "kinds", "memory", "settings", "trees")}
    assert set().union(*(GRAPH[name] for name in execution)) <= execution | below
    assert set().union(*(GRAPH[name] for name in below)) <= below


def test_imports_run_one_way():
    upwards = [(name, used) for name in GRAPH for used in GRAPH[name] if layer(used) > layer(name)]
    assert upwards == []


def test_there_is_no_circle():
    assert len(list(TopologicalSorter(GRAPH).static_order())) == len(MODULES)


@pytest.mark.parametrize(
    "module", ["mlx_optimizers", "mlx_optimizers.oracle", "mlx_optimizers.testing", "mlx_optimizers.cli"]
)
def test_optional_libraries_are_left_alone(module):
    program = f"import sys, {module}; print(*sorted(set(sys.modules) & set({OPTIONAL!r})))"
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert run.stdout.split() in ([], ["gmpy2"])  # mpmath itself imports gmpy2 where it is installed
