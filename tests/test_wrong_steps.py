"""A wrong step in any optimizer is seen: each small change of its arithmetic makes `check` say `deviates`.

The steps are those of tests/expected.py, in plain NumPy, changed in their source: by the mutator of scripts/mutants.py
everywhere it can, and by the replacements of the record where it cannot. They are independent of `rule`, `coefficients`
and the executors, none of which they call, and of the interval that they are held to, which comes from `exact`. Without
a change they conform, so that it is the change that is seen. The mutator is the one that also runs over the package: a
kind of change that it lacks is missed in both.
"""

from __future__ import annotations

import ast
import inspect
import json
from types import SimpleNamespace

import numpy as np
import pytest

import mlx_optimizers as optim
from mlx_optimizers.backends import open_backend, reference
from mlx_optimizers.cli import main
from mlx_optimizers.conformance import cases_of, check, parse
from mlx_optimizers.conformance.verdict import judge
from scripts.mutants import changed
from tests.expected import EXPECTED, NAMES, each_name

pytestmark = pytest.mark.usefixtures("remembered")


def source_of(name):
    return inspect.getsource(EXPECTED[name].step)


def rewritten(name):
    """Yield the wrong steps that the record states, by name."""
    for change, replacements in EXPECTED[name].changes.items():
        text = source_of(name)
        for old, new in replacements:
            assert text.count(old) == 1, (name, change, old)
            text = text.replace(old, new)
        yield change, text


def mutated(name):
    """Yield the mutants of the step, by line, column and kind; not those that leave a name without a value."""
    arguments = inspect.signature(EXPECTED[name].step).parameters
    for node, what, text in changed(source_of(name)):
        if what != "statement dropped" or ast.unparse(node.targets[0]) in arguments:
            yield f"{node.lineno}:{node.col_offset} {what}: {ast.unparse(node)}", text


WRONG = {name: {**dict(rewritten(name)), **dict(mutated(name))} for name in NAMES}
EACH = [(name, change) for name in NAMES for change in WRONG[name] if change not in EXPECTED[name].unnoticed]


@pytest.fixture
def replaced(monkeypatch):
    """Put a step in the place of an optimizer's own."""

    def replace(name, change):
        names = {"np": np}
        exec(source_of(name) if change is None else WRONG[name][change], names)  # noqa: S102 - our own steps, changed
        step = names[EXPECTED[name].step.__name__]

        def apply_single(self, gradient, parameter, state):
            slots = [state[slot] for slot in self.slots]
            parameter[...], *new = step(parameter.dtype.type, self, parameter.copy(), gradient, *slots)
            for slot, values in zip(slots, new, strict=True):
                slot[...] = values
            return parameter

        wrong = type(name, (getattr(optim, name),), {"apply_single": apply_single})
        monkeypatch.setattr(reference, "entry_of", lambda _: SimpleNamespace(optimizer=wrong))

    return replace


def conforms(name):
    """Tell whether every case passes in the wider profile: a step that falls out of it falls out of both."""
    backend = open_backend("reference")
    return all(judge(backend.run(case), parse(name), "float32").conforms for case in cases_of(name))


@each_name
def test_every_optimizer_is_there(name):
    """Each has mutants of many kinds, and those that are unnoticed are among them."""
    kinds = {change.partition(" ")[2].partition(":")[0] for change in WRONG[name]}
    assert len(WRONG[name]) >= 15 and len(kinds) >= 5
    assert EXPECTED[name].unnoticed <= set(WRONG[name])


@each_name
def test_the_step_without_a_change_conforms(replaced, name):
    replaced(name, None)
    report = check(open_backend("reference"), cases_of(name))
    assert {result.word for result in report.results} == {"conforms"}


@pytest.mark.norm("interval.told-apart")
@pytest.mark.parametrize(("name", "change"), EACH)
def test_a_changed_step_deviates(replaced, name, change):
    replaced(name, change)
    assert not conforms(name)


@pytest.mark.parametrize(("name", "change"), [(name, next(iter(WRONG[name]))) for name in NAMES])
def test_the_command_says_so(replaced, capsys, name, change):
    replaced(name, change)
    status = main(["check", "reference", "--optimizer", name, "--format", "json"])
    assert status == 1
    report = json.loads(capsys.readouterr().out)
    assert report["summary"]["deviates"] > 0
    assert {result["formula"] for result in report["results"]} == {parse(name).name}
