"""The combinations of branches and of terms that an optimizer's `exact` can take, read from its syntax tree.

A combination is a path through the branches of `exact`, together with the numbers that are 0 among those whose zero
takes a term away: a number that is a factor, as κ in κw, or whose difference to 1 is one, as τ in (1 − τ)g. A number
that is both is the weight of a mean, and above ½ in the domain of the interval. This reader raises an error
where it does not understand, so that no branch is overlooked.
"""

from __future__ import annotations

import ast
import inspect
import textwrap
from collections import defaultdict
from functools import reduce
from itertools import product
from types import SimpleNamespace

from mlx_optimizers.catalog import CATALOG
from mlx_optimizers.conformance.cases import STEPS

RATE = "learning_rate"
COEFFICIENT = (ast.Attribute, ast.Subscript, ast.BinOp, ast.UnaryOp, ast.Constant, ast.operator, ast.USub, ast.Load)
READ = (*COEFFICIENT, ast.IfExp, ast.Call, ast.Name, ast.Tuple)


class Unreadable(Exception):
    """A statement or a condition that the reader of syntax trees does not understand."""


class _Inline(ast.NodeTransformer):
    def __init__(self, local):
        self._local = local

    def visit_Name(self, node):
        return self._local.get(node.id, node)


class Walk(ast.NodeVisitor):
    """One way through `exact`: the conditions met, and each number read with its roles."""

    def __init__(self, exact, h, t):
        self.h, self.t = h, t
        self.path: tuple[str, ...] = ()
        self.roles = defaultdict(set)
        self.enter(exact)

    def enter(self, function):
        self.globals, self.local = function.__globals__, {}
        self.run(ast.parse(textwrap.dedent(inspect.getsource(function))).body[0].body)

    def run(self, statements):
        """Run statements; tell whether one of them was a return."""
        for statement in statements:
            match statement:
                case ast.If():
                    if self.run(statement.body if self.holds(statement.test) else statement.orelse):
                        return True
                case ast.Return():
                    self.visit(self.inlined(statement.value))
                    return True
                case ast.Assign(targets=[target]):
                    self.assign(target, self.inlined(statement.value))
                case ast.Expr(value=ast.Constant()):
                    pass  # a docstring
                case _:
                    raise Unreadable(ast.unparse(statement))
        return False

    def assign(self, target, value):
        """Keep a coefficient, which is read where it is used; read anything else here."""
        names = [x.id for x in (target.elts if isinstance(target, ast.Tuple) else [target])]
        if any(not isinstance(x, COEFFICIENT) and getattr(x, "id", "") != "h" for x in ast.walk(value)):
            self.visit(value)
            self.local = {name: kept for name, kept in self.local.items() if name not in names}
        elif isinstance(target, ast.Tuple):
            for index, name in enumerate(names):
                self.local[name] = ast.Subscript(value, ast.Constant(index), ast.Load())
        else:
            self.local[names[0]] = value

    def inlined(self, value):
        """Put the coefficients that its names stand for into an expression."""
        return _Inline(self.local).visit(ast.parse(ast.unparse(value), mode="eval").body)

    def holds(self, test):
        """Tell whether a condition on the hyperparameters and the step holds."""
        text = ast.unparse(self.inlined(test))
        if {x.id for x in ast.walk(ast.parse(text)) if isinstance(x, ast.Name)} - {"h", "t"}:
            raise Unreadable(text)
        truth = bool(eval(text, {"h": self.h, "t": self.t}))  # noqa: S307 -- a condition of our own source
        self.path += (text if truth else f"not ({text})",)
        return truth

    def visit(self, node):
        """Read an expression; a comparison that is no condition would be a branch that is overlooked."""
        if not isinstance(node, READ):
            raise Unreadable(ast.unparse(node))
        super().visit(node)

    def visit_IfExp(self, node):
        self.visit(node.body if self.holds(node.test) else node.orelse)

    def visit_Call(self, node):
        """Read the arguments; go into a function that gets the hyperparameters."""
        handed = [index for index, x in enumerate(node.args) if getattr(x, "id", "") == "h"]
        for index, argument in enumerate(node.args):
            if index not in handed:
                self.visit(argument)
        if handed:
            first, *rest = ast.unparse(node.func).split(".")
            callee = reduce(getattr, rest, self.globals[first])
            if node.keywords or [list(inspect.signature(callee).parameters)[index] for index in handed] != ["h"]:
                raise Unreadable(ast.unparse(node))
            kept = self.globals, self.local
            self.enter(callee)
            self.globals, self.local = kept

    def visit_BinOp(self, node):
        for side in (node.left, node.right):
            if isinstance(side, ast.Call) and ast.unparse(side.func) == "n.lift":
                (side,) = side.args
            multiplied = isinstance(node.op, ast.Mult | ast.Div)
            match side:
                case ast.BinOp(left=ast.Constant(value=1), op=ast.Sub()) if multiplied and _name(side.right):
                    self.roles[_name(side.right)].add("complement")
                case _ if multiplied and _name(side):
                    self.roles[_name(side)].add("factor")
                case _:
                    self.visit(side)

    def visit_Attribute(self, node):
        if _name(node):
            self.roles[_name(node)].add("other")

    def visit_Subscript(self, node):
        self.visit_Attribute(node)

    def visit_Name(self, node):
        if node.id == "h":
            raise Unreadable("h is handed on as a whole")


def _name(node):
    """Return ``momentum`` for ``h.momentum``, ``betas[0]`` for ``h.betas[0]``, otherwise None."""
    text = ast.unparse(node)
    is_one = isinstance(node, ast.Attribute | ast.Subscript) and text.startswith("h.")
    return text.removeprefix("h.") if is_one else None


class Table:
    """The combinations of an optimizer that can be reached, and which numbers play a part in each."""

    def __init__(self, optimizer):
        self._optimizer = optimizer
        rates = {entry.optimizer: entry.rate for entry in CATALOG}
        self._defaults = {
            name: rates.get(optimizer, 1e-3) if name == RATE else parameter.default
            for name, parameter in inspect.signature(optimizer).parameters.items()
        }
        constants = {0.0, 0.5}
        while True:
            ways = [(h, Walk(optimizer.exact, h, t)) for h in self._settings(constants) for t in self._steps(constants)]
            conditions = {condition for _, way in ways for condition in way.path}
            found = {float(x.value) for text in conditions for x in ast.walk(ast.parse(text)) if _is_number(x)}
            if found <= constants:
                break
            constants |= found
        roles = defaultdict(set)
        for _, way in ways:
            for name, seen in way.roles.items():
                roles[name] |= seen
        self._removable = sorted(
            name
            for name, seen in roles.items()
            if name != RATE and name in self._defaults and len(seen & {"factor", "complement"}) == 1
        )
        self._complements = [name for name in self._removable if "complement" in roles[name]]
        self.parts = {}
        for h, way in ways:
            if all(getattr(h, name) != 1 for name in self._complements):
                self.parts[self._combination(h, way)] = {
                    name
                    for name in way.roles
                    if not isinstance(self._defaults[name.partition("[")[0]], bool) and not self._is_removed(h, name)
                }

    def _is_removed(self, h, name):
        return name in self._removable and getattr(h, name) == 0

    def _combination(self, h, way):
        return way.path, tuple(f"{name} = 0" for name in self._removable if self._is_removed(h, name))

    def _settings(self, constants):
        """Yield the settings on either side of every constant that the class accepts."""
        numbers = sorted({x for c in constants for x in (c / 2, c, (1 + c) / 2, 2 * c)})
        choices = []
        for name, default in self._defaults.items():
            match default:
                case bool():
                    choices.append([False, True])
                case tuple():
                    choices.append([default, *((x, x) for x in constants - {0.0, 0.5})])
                case _:
                    choices.append([default] if name == RATE else [default, *numbers])
        for values in product(*choices):
            try:
                self._optimizer(**dict(zip(self._defaults, values, strict=True)))
            except ValueError:
                continue
            yield SimpleNamespace(**dict(zip(self._defaults, values, strict=True)))

    def _steps(self, constants):
        return sorted({1, STEPS, *(int(c) + more for c in constants for more in (0, 1) if c >= 1)})

    def cases(self, cases):
        """Sort the cases by combination; those in which a factor 1 − τ is 0 show little, and belong to none."""
        found = {combination: [] for combination in self.parts}
        for case in cases:
            h = SimpleNamespace(**case.at_step(0))
            if any(getattr(h, name) == 1 for name in self._complements):
                continue
            for combination in {self._combination(h, Walk(self._optimizer.exact, h, t)) for t in range(1, STEPS + 1)}:
                found[combination].append(case)
        return found

    def gaps(self, cases):
        """Say which combinations have no case, and which numbers have one value alone."""
        missing = []
        for combination, those in self.cases(cases).items():
            text = " and ".join((*combination[0], *combination[1])) or "always"
            if not those:
                missing.append(f"no case has {text}")
            missing += [
                f"{name} has the one value {values.pop()!r} where {text}"
                for name in sorted(self.parts[combination])
                if len(values := values_of(those, name)) == 1
            ]
        return missing


def values_of(cases, name):
    """Collect the values that a number takes in cases."""
    if name == RATE:
        return {rate for case in cases for rate in case.rates()}
    key, _, index = name.rstrip("]").partition("[")
    return {case.hyperparameters[key][int(index)] if index else case.hyperparameters[key] for case in cases}


def _is_number(node):
    return isinstance(node, ast.Constant) and isinstance(node.value, int | float) and not isinstance(node.value, bool)
