"""Change one thing at a time in the optimizers or the rounding model, and see whether the tests notice.

Usage: python scripts/mutants.py [MODULE]… [--seconds N] [-j N]

A module is a path below mlx_optimizers/, such as adam.py or oracle/rounded.py; the optimizers if none is named. Each is
changed in a copy of the package, one thing at a time: an operator, a root or a sign dropped, a constant, two
decays swapped, ε moved into or out of a root, a statement left out, a number scaled by 1 + 1e-5. A mutant that `check`
and the tests named below let pass has survived, and is printed with its line. Exits with 1 if any has.
"""

from __future__ import annotations

import argparse
import ast
import copy
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from queue import Queue

from mlx_optimizers.catalog import CATALOG

ROOT = Path(__file__).resolve().parent.parent
EIGHT = {f"{entry.name.lower()}.py": entry.name for entry in CATALOG}
STEPS = [
    "tests/oracle/test_formulas.py",
    "tests/test_properties.py",
    "tests/test_inputs.py",
    "tests/test_mlx_bitwise.py",
    "tests/oracle/test_trajectory.py",
]
SLOWER = {
    **{module: [*STEPS, "-k", f"{name} or sgd or hand or bounded"] for module, name in EIGHT.items()},
    "execution/loops.py": ["tests/test_compiled.py", "-k", "bits"],
    "execution/program.py": ["tests/test_program.py"],
    "oracle/rounded.py": ["tests/oracle/test_rounded.py", "tests/oracle/test_trajectory.py"],
}
"""The tests that are run on what `check reference` lets pass."""

FUNCTIONS = {"coefficients", "exact", "rule"}
"""What is changed in the optimizers; the rest of their modules is documentation and construction."""

SWAPPED: dict[type, type] = {
    ast.Add: ast.Sub,
    ast.Sub: ast.Add,
    ast.Mult: ast.Div,
    ast.Div: ast.Mult,
    ast.Eq: ast.NotEq,
    ast.NotEq: ast.Eq,
    ast.Gt: ast.GtE,
    ast.GtE: ast.Gt,
    ast.Lt: ast.LtE,
    ast.LtE: ast.Lt,
    ast.And: ast.Or,
    ast.Or: ast.And,
    ast.BitOr: ast.BitAnd,
    ast.BitAnd: ast.BitOr,
}
RENAMED = {
    "maximum": "minimum",
    "minimum": "maximum",
    "b1": "b2",
    "b2": "b1",
    "rest1": "rest2",
    "rest2": "rest1",
}
DROPPED = {"sqrt", "abs", "sign", "max"}

Change = Callable[[ast.AST], ast.AST]
Mutant = tuple[str, str, str]
"""Module, what was changed, source."""


def changes(node: ast.AST) -> Iterator[tuple[str, Change]]:
    """Every change of one node: what it is, and what makes it in a copy of the node."""
    for field in ("op", "ops"):
        old = getattr(node, field, None)
        kind = type(old[0] if isinstance(old, list) and old else old)
        if kind in SWAPPED and not isinstance(node, ast.UnaryOp):
            new = SWAPPED[kind]()
            yield f"{kind.__name__} → {type(new).__name__}", _setting(field, [new] if field == "ops" else new)
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Sub) and getattr(node.left, "value", None) == 1:
        yield "1 − β → β", lambda n: n.right  # type: ignore[attr-defined]
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Pow):
        yield "power dropped", lambda n: n.left  # type: ignore[attr-defined]
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in DROPPED:
        yield f"{node.func.attr} dropped", _without_call
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add) and _is_root(node.left):
        yield "into the root", _into_the_root
    if _is_root(node) and isinstance(node.args[0], ast.BinOp) and isinstance(node.args[0].op, ast.Add):  # type: ignore[attr-defined]
        yield "out of the root", _out_of_the_root
    if isinstance(node, ast.Attribute) and node.attr in RENAMED:
        yield f"{node.attr} → {RENAMED[node.attr]}", _setting("attr", RENAMED[node.attr])
    if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load) and node.id in RENAMED:
        yield f"{node.id} → {RENAMED[node.id]}", _setting("id", RENAMED[node.id])
    if isinstance(node, ast.Constant) and type(node.value) in (int, float):
        yield f"{node.value} → {node.value + 1}", _setting("value", node.value + 1)
    if isinstance(node, ast.Tuple) and isinstance(node.ctx, ast.Load):
        for place in range(len(node.elts)):
            yield f"number {place} scaled by 1 + 1e-5", _scaled(place)
    if isinstance(node, ast.If | ast.IfExp):
        yield "condition negated", _negated
    if isinstance(node, ast.Assign) or (isinstance(node, ast.Expr) and isinstance(node.value, ast.Call)):
        yield "statement dropped", lambda n: ast.Pass()


def _setting(field: str, value: object) -> Change:
    def change(node: ast.AST) -> ast.AST:
        setattr(node, field, value)
        return node

    return change


def _without_call(node: ast.AST) -> ast.AST:
    assert isinstance(node, ast.Call)
    return node.args[0]


def _is_root(node: ast.AST) -> bool:
    return isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "sqrt"


def _into_the_root(node: ast.AST) -> ast.AST:
    assert isinstance(node, ast.BinOp)
    assert isinstance(node.left, ast.Call)
    return ast.Call(node.left.func, [ast.BinOp(node.left.args[0], node.op, node.right)], [])


def _out_of_the_root(node: ast.AST) -> ast.AST:
    assert isinstance(node, ast.Call)
    assert isinstance(node.args[0], ast.BinOp)
    within = node.args[0]
    return ast.BinOp(ast.Call(node.func, [within.left], []), within.op, within.right)


def _scaled(place: int) -> Change:
    def change(node: ast.AST) -> ast.AST:
        assert isinstance(node, ast.Tuple)
        node.elts[place] = ast.BinOp(node.elts[place], ast.Mult(), ast.Constant(1 + 1e-5))
        return node

    return change


def _negated(node: ast.AST) -> ast.AST:
    assert isinstance(node, ast.If | ast.IfExp)
    node.test = ast.UnaryOp(ast.Not(), node.test)
    return node


class _At(ast.NodeTransformer):
    """Changes the node that comes at one place of the walk over the tree."""

    def __init__(self, node: ast.AST, change: Change) -> None:
        self._node, self._change = node, change

    def visit(self, node: ast.AST) -> ast.AST:
        if node is self._node:
            return ast.copy_location(self._change(node), node)
        return self.generic_visit(node)


def mutants(module: str) -> Iterator[Mutant]:
    """Every mutant of a module."""
    text = (ROOT / "mlx_optimizers" / module).read_text("utf-8")
    for node, what, source in changed(text, FUNCTIONS if module in EIGHT else None):
        line = ast.unparse(node).split("\n")[0]
        yield module, f"{module}:{getattr(node, 'lineno', '?')}: {what}: {line}", source


def changed(text: str, functions: set[str] | None = None) -> Iterator[tuple[ast.AST, str, str]]:
    """Change one thing inside the functions with these names, or inside every one: the node, what, the new source."""
    tree = ast.parse(text)
    found = [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)]
    chosen = [node for node in found if functions is None or node.name in functions]
    inside = {id(node) for function in chosen for statement in function.body for node in ast.walk(statement)}
    places = [index for index, node in enumerate(ast.walk(tree)) if id(node) in inside]
    for place in places:
        original = list(ast.walk(tree))[place]
        for number, (what, _) in enumerate(changes(original)):
            fresh = copy.deepcopy(tree)
            node = list(ast.walk(fresh))[place]
            change = list(changes(node))[number][1]
            yield original, what, ast.unparse(ast.fix_missing_locations(_At(node, change).visit(fresh)))


def survives(folder: Path, mutant: Mutant) -> bool:
    """Whether `check` and the tests let a mutant pass, in a copy of the project."""
    module, _, source = mutant
    path = folder / "mlx_optimizers" / module
    original = path.read_text("utf-8")
    path.write_text(source, encoding="utf-8")
    try:
        chosen = ["--optimizer", EIGHT[module]] if module in EIGHT else []
        check = ["-m", "mlx_optimizers", "check", "reference", "--scalars", "double", *chosen]
        tests = ["-m", "pytest", "-x", "-q", "-p", "no:cacheprovider", *SLOWER.get(module, ["tests"])]
        return all(_passes(folder, command) for command in (check, tests))
    finally:
        path.write_text(original, encoding="utf-8")


def _passes(folder: Path, arguments: list[str]) -> bool:
    environment = {**os.environ, "PYTHONPATH": str(folder), "PYTHONDONTWRITEBYTECODE": "1"}
    try:
        run = subprocess.run(
            [sys.executable, *arguments], cwd=folder, env=environment, capture_output=True, check=False, timeout=300
        )
    except subprocess.TimeoutExpired:
        return False
    return run.returncode == 0


def main() -> int:
    """Run the mutants; 1 if any survives."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("modules", nargs="*", default=list(EIGHT), metavar="MODULE")
    parser.add_argument("--seconds", type=float, default=float("inf"), help="start no mutant after so long")
    parser.add_argument("-j", "--jobs", type=int, default=2, help="processes; default 2")
    arguments = parser.parse_args()
    every = [mutant for module in arguments.modules for mutant in mutants(module)]
    end = time.monotonic() + arguments.seconds
    with tempfile.TemporaryDirectory() as parent, ThreadPoolExecutor(arguments.jobs) as pool:
        folders: Queue[Path] = Queue()
        for job in range(arguments.jobs):
            folder = Path(parent) / str(job)
            for name in ("mlx_optimizers", "scripts", "tests"):
                shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
            for name in ("conftest.py", "pyproject.toml"):
                shutil.copy(ROOT / name, folder / name)
            folders.put(folder)
        for module in arguments.modules:
            if not survives(folder, (module, "", (folder / "mlx_optimizers" / module).read_text("utf-8"))):
                parser.error(f"the tests of {module} fail without any change")

        def outcome(mutant: Mutant) -> bool | None:
            if time.monotonic() > end:
                return None
            folder = folders.get()
            try:
                return survives(folder, mutant)
            finally:
                folders.put(folder)

        outcomes = []
        for mutant, survived in zip(every, pool.map(outcome, every), strict=True):
            outcomes.append(survived)
            if survived:
                print(f"survived  {mutant[1]}", flush=True)
    killed, survived = outcomes.count(False), outcomes.count(True)
    print(f"{len(every)} mutants: {killed} killed, {survived} survived, {outcomes.count(None)} not run")
    return 1 if survived else 0


if __name__ == "__main__":
    sys.exit(main())
