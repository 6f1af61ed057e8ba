r"""Read the displayed formulas of the optimizers and evaluate them: LaTeX in, numbers out.

A formula is an ``aligned`` list of assignments, read by a grammar that knows what our pages write and refuses the rest.
The tree is made of tuples, each with its kind first: ``("-", ("symbol", "w", "t-1"), …)``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import mpmath
import numpy as np
from lark import Lark, Token, Transformer, v_args

__all__ = ["Number", "Tree", "branches", "evaluate", "mutants", "numbers", "parse", "parse_names", "symbols", "written"]

Tree = tuple[Any, ...]
Number = Any

GRAMMAR = r"""
formula: "\\begin{aligned}" assignment ("\\\\" assignment)* "\\end{aligned}"
assignment: symbol "&=" value
?value: cases | sum
cases: "\\begin{cases}" branch ("\\\\" branch)* "\\end{cases}"
branch: sum "&" condition
?condition: equal | least | switch | given | otherwise
equal: "\\text{if }" sum "=" sum
least: "\\text{if }" sum "\\ge" sum
switch: "\\text{if " NAME "}"
given: "\\text{with }" symbol
otherwise: "\\text{otherwise}"

?sum: product | plus | minus
plus: sum "+" product
minus: sum "-" product
?product: factor | times | divided
times: product factor
divided: product "/" factor
?factor: atom | power
power: atom "^" (symbol | number | "{" sum "}")
?atom: symbol | number | tenths | "(" sum ")" | quotient | root | size | sign | maximum | minimum | applied | repeated
quotient: "\\frac" "{" sum "}" "{" sum "}"
root: "\\sqrt" "{" sum "}"
size: "|" symbol "|"
sign: "\\operatorname{sign}" "(" sum ")"
maximum: "\\max" "(" sum "," sum ")"
minimum: "\\min" "(" sum "," sum ")"
applied: FUNCTION "(" sum ")"
repeated: "N_" symbol "(" sum ")"

symbol: base [index]
?base: letter | accented
letter: LETTER | UPPER | GREEK
accented: ACCENT (LETTER | "{" LETTER "}")
index: "_" (LETTER | DIGIT | "{" LETTER "-" DIGIT "}")
number: DIGIT
tenths: "10^{-" DIGIT "}"

names: symbol | "(" symbol ("," symbol)* ")"

LETTER: "a".."z"
UPPER: "C" | "R" | "V"
FUNCTION: "\\operatorname{mean}_i" | "\\operatorname{mean}_j" | "\\operatorname{rms}"
NAME: LETTER+ ("\\_" LETTER+)*
DIGIT: "0".."9"
ACCENT: "\\hat" | "\\tilde"
GREEK: "\\alpha" | "\\beta" | "\\epsilon" | "\\gamma" | "\\kappa" | "\\lambda" | "\\mu" | "\\rho" | "\\tau"
%ignore " "
%ignore "\\,"
%ignore "\n"
"""


@v_args(inline=True)
class _Tuples(Transformer[Token, Tree]):
    """Make tuples; an index that is a number belongs to the name, as in β₁, and the others tell the step."""

    def symbol(self, base: str, index: str | None) -> Tree:
        if index is not None and index.isdigit():
            return "symbol", f"{base}_{index}", None
        return "symbol", base, index

    def letter(self, name: Token) -> str:
        return str(name)

    def accented(self, accent: Token, name: Token) -> str:
        return f"{accent}{{{name}}}"

    def index(self, *parts: Token) -> str:
        return "-".join(parts)

    def number(self, digit: Token) -> Tree:
        return "number", int(digit)

    def tenths(self, digit: Token) -> Tree:
        return "number", float(f"1e-{digit}")  # the float, as a program has it

    def switch(self, name: Token) -> Tree:
        return "switch", name.replace("\\", "")

    def __default__(self, data: Token, children: list[Tree], meta: Any) -> Tree:
        return str(data), *children


_GRAMMAR = Lark(GRAMMAR, start=["formula", "names"], parser="lalr", maybe_placeholders=True)


def parse(latex: str) -> Tree:
    """Parse a displayed formula into a tree; lark's error where the grammar does not know it."""
    return _Tuples().transform(_GRAMMAR.parse(latex, start="formula"))


def parse_names(latex: str) -> list[str]:
    r"""Read the names in a formula that only names symbols: ``\lambda``, ``v_t`` or ``(\beta_1, \beta_2)``."""
    _, *named = _Tuples().transform(_GRAMMAR.parse(latex, start="names"))
    return [name for _, name, _ in named]


def _nodes(tree: Tree) -> Iterator[Tree]:
    yield tree
    for child in tree:
        if isinstance(child, tuple):
            yield from _nodes(child)


def symbols(tree: Tree) -> set[str]:
    """Collect the names of all symbols and switches, without their indices."""
    return {node[1] for node in _nodes(tree) if node[0] in ("symbol", "switch")}


def branches(tree: Tree) -> set[Tree]:
    """Collect every branch of every list of cases."""
    return {node for node in _nodes(tree) if node[0] == "branch"}


# Evaluation


def numbers(bits: int) -> Any:
    """Make a context of mpmath of its own, so that no global precision is read or changed."""
    context = mpmath.MPContext()
    context.prec = bits
    return context


def evaluate(
    tree: Tree,
    given: dict[Any, Number],
    context: Any,
    taken: set[Tree] | None = None,
    functions: Mapping[str, Callable[..., Number]] | None = None,
) -> dict[Any, Number]:
    """Run the assignments of a formula in order.

    Args:
        tree: The result of `parse`.
        given: A number for each pair of a name and an index, ``("w", "t-1")``, or an array of objects where a formula
            is of whole arrays; a bool for a switch, ``("nesterov",)``.
        context: The result of `numbers`.
        taken: Gets each branch that was taken.
        functions: What a formula of whole arrays applies by name, as ``N`` to a number and an array.

    Returns:
        All values, those passed in and those assigned.

    Raises:
        KeyError: for a symbol that has no value by then.
        ValueError: for the root of a negative number, or where no branch holds.
        ZeroDivisionError: for a division by zero.
    """
    known = dict(given)

    def value(node: Tree) -> Number:
        kind, *parts = node
        if kind == "number":
            return context.mpf(parts[0])
        if kind in ("symbol", "switch"):
            return known[tuple(parts)]
        if kind == "cases":
            return chosen(parts)
        if kind == "applied":
            return (functions or {})[parts[0]](value(parts[1]))
        if kind == "repeated":
            return (functions or {})["N"](*map(value, parts))
        return _compute(kind, [value(part) for part in parts], context)

    def chosen(found: list[Tree]) -> Number:
        for branch in found:
            _, result, (kind, *parts) = branch
            if kind == "otherwise" or (kind == "switch" and known[tuple(parts)]):
                break
            if kind == "equal" and value(parts[0]) == value(parts[1]):
                break
            if kind == "least" and value(parts[0]) >= value(parts[1]):
                break
            if kind == "given" and value(parts[0]) is not None:
                break
        else:
            raise ValueError("no branch holds")
        if taken is not None:
            taken.add(branch)
        return value(result)

    for _, (_, *name), result in tree[1:]:
        known[tuple(name)] = value(result)
    return known


def _compute(kind: str, parts: list[Number], context: Any) -> Number:
    match kind, *parts:
        case "plus", a, b:
            return a + b
        case "minus", a, b:
            return a - b
        case "times", a, b:
            return a * b
        case (("quotient" | "divided"), a, b):
            return a / b
        case "power", a, b:
            return a**b
        case "root", a if np.any(a < 0):
            raise ValueError("root of a negative number")
        case "root", a:
            return np.frompyfunc(context.sqrt, 1, 1)(a)
        case "size", a:
            return abs(a)
        case "sign", a:
            return context.sign(a)
        case "maximum", a, b:
            return max(a, b)
        case "minimum", a, b:
            return min(a, b)
    raise ValueError(f"unknown operation {kind}")


# Changes, one at a time

Path = tuple[int, ...]


def written(node: Tree) -> str:
    """Write a part of a formula as text, for messages."""
    kind, *parts = node
    if kind == "symbol":
        name, index = parts
        return name if index is None else f"{name}_{{{index}}}"
    if kind == "number":
        return str(parts[0])
    texts = [written(part) if isinstance(part, tuple) else str(part) for part in parts]
    between = {"plus": " + ", "minus": " - ", "times": " ", "divided": "/", "power": "^", "assignment": " = "}
    if kind in between:
        return f"({between[kind].join(texts)})" if kind in ("plus", "minus") else between[kind].join(texts)
    return f"{kind}({', '.join(texts)})"


def mutants(tree: Tree) -> Iterator[tuple[str, Tree]]:
    """Every formula that differs in one sign, one subscript, one function or power left out, or the place of one ε.

    A minimum stays with what is in it, of which the second number is less only after thousands of steps.

    Yields:
        The change, in words, and the changed tree.
    """
    for path in _paths(tree):
        old = _at(tree, path)
        if "minimum" in (_at(tree, path[:depth])[0] for depth in range(len(path) + 1)):
            continue
        for new in _changes(old, symbols(tree)):
            yield f"{written(old)} became {written(new)}", _put(tree, path, new)
        match old:
            case "plus", rest, ("symbol", r"\epsilon", None) as eps:
                without = _put(tree, path, rest)
                for place in _values(without):
                    changed = _put(without, place, ("plus", _at(without, place), eps))
                    if changed != tree:
                        yield f"ε of {written(old)} moved to {written(_at(without, place))}", changed


def _changes(node: Tree, names: set[str]) -> Iterator[Tree]:
    match node:
        case "plus", a, b:
            yield "minus", a, b
        case "minus", a, b:
            yield "plus", a, b
        case "symbol", name, ("t" | "t-1") as index:
            yield "symbol", name, "t-1" if index == "t" else "t"
        case "symbol", name, None:
            for other in names - {name}:
                if "_" in name and other.partition("_")[0] == name.partition("_")[0]:
                    yield "symbol", other, None
        case (("root" | "size" | "sign"), a):
            yield a
        case "power", a, _:
            yield a
        case (("applied" | "repeated"), _, a):
            yield a
        case "maximum", a, b:
            yield a
            yield b


def _paths(tree: Tree, path: Path = ()) -> Iterator[Path]:
    """The way to every node, from the root."""
    yield path
    for position, child in enumerate(tree):
        if isinstance(child, tuple):
            yield from _paths(child, (*path, position))


def _values(tree: Tree) -> Iterator[Path]:
    """The way to every part that is computed: no left side, no power's exponent, no condition."""
    for path in _paths(tree):
        kinds = [_at(tree, path[:depth])[0] for depth in range(len(path) + 1)]
        structure = kinds[-1] in ("formula", "assignment", "cases", "branch", "equal", "least", "switch", "otherwise")
        if not structure and not {("assignment", 1), ("power", 2), ("branch", 2)} & set(zip(kinds, path, strict=False)):
            yield path


def _at(tree: Tree, path: Path) -> Tree:
    for position in path:
        tree = tree[position]
    return tree


def _put(tree: Tree, path: Path, new: Tree) -> Tree:
    if not path:
        return new
    first, *rest = path
    return (*tree[:first], _put(tree[first], tuple(rest), new), *tree[first + 1 :])
