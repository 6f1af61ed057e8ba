"""The formula that a page displays is executed, and agrees with the exact step of its class to 60 digits."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import mpmath
import numpy as np
import pytest
from bs4 import BeautifulSoup, Tag
from lark.exceptions import UnexpectedInput

import mlx_optimizers
from mlx_optimizers.oracle import Exact
from mlx_optimizers.oracle.formulas import parse
from mlx_optimizers.oracle.trajectory import walk
from tests import latex
from tests.docs.copies import ROOT, run
from tests.expected import ABOVE_0, AT_LEAST_0, CLASSES, FLAG, NAMES, PAIR_BELOW_1, UP_TO_1, record_of

BITS, DIGITS = 300, 60
"""Both sides compute with 300 bits, which are 90 digits; 30 of them are room for rounding and cancellation."""

ELEMENTS, STEPS = 20, 4

every_optimizer = pytest.mark.parametrize("optimizer", CLASSES, ids=NAMES)


# What a page says


@dataclass
class Page:
    """The formula of an optimizer and what its symbols stand for, as its page has them."""

    latex: str
    arguments: dict[str, list[str]]
    """Symbols by argument; none for a switch, which the formula calls by its name."""
    slots: dict[str, str]
    """The symbol of each state slot."""


def formulas(tag: Tag) -> list[str]:
    """Read the LaTeX that KaTeX keeps with each formula it sets."""
    return [found.get_text() for found in tag.select('annotation[encoding="application/x-tex"]')]


def read(file: Path) -> Page:
    soup = BeautifulSoup(file.read_text(encoding="utf-8"), "html.parser")
    body, state = soup.select_one("dl.py.class > dd"), soup.select_one("section#state")
    (displayed,) = (text for block in body.find_all("div", "math", recursive=False) for text in formulas(block))
    (parameters,) = (
        title.find_next_sibling("dd") for title in body.select("dl.field-list > dt") if "Parameters" in title.get_text()
    )
    arguments = {
        item.find("strong").get_text(): [name for text in formulas(item)[:1] for name in latex.parse_names(text)]
        for item in parameters.select("li")
    }
    slots = {item.find("code").get_text(): latex.parse_names(formulas(item)[0])[0] for item in state.select("li")}
    return Page(displayed, arguments, slots)


@pytest.fixture
def page(site: Path) -> Callable[[type], Page]:
    return lambda optimizer: read(site / "generated" / f"mlx_optimizers.{optimizer.__name__}.html")


# Both sides, on the same random numbers

DRAWN: dict[str, Callable[[np.random.Generator], Any]] = {
    AT_LEAST_0: lambda rng: rng.uniform(0.1, 1),
    ABOVE_0: lambda rng: rng.uniform(0.1, 1),
    UP_TO_1: lambda rng: rng.uniform(0.1, 0.9),
    PAIR_BELOW_1: lambda rng: tuple(rng.uniform(0.1, 0.9, 2)),
    FLAG: lambda rng: False,
}
"""How each kind of hyperparameter is drawn."""


def settings(optimizer: type[mlx_optimizers.Optimizer]) -> Iterator[dict[str, Any]]:
    """Yield the defaults, then drawn hyperparameters."""
    rng = np.random.default_rng(0)
    yield {"learning_rate": 0.1}
    for switched in ({}, *record_of(optimizer).switched):
        yield {name: DRAWN[kind](rng) for name, kind in record_of(optimizer).ranges.items()} | {**switched}


def difference(
    optimizer: type[mlx_optimizers.Optimizer], page: Page, tree: latex.Tree, taken: set[latex.Tree] | None = None
) -> str | None:
    """Say where the displayed formula first differs from the exact step, and in which optimizer; None if nowhere."""
    rng = np.random.default_rng(1)
    for hyperparameters in settings(optimizer):
        w, gradients = rng.normal(size=ELEMENTS), rng.normal(size=(STEPS, ELEMENTS))
        gradients[:, 0] = 0
        exact = walk(parse(optimizer), Exact(BITS, "mpmath"), w, gradients, hyperparameters)
        try:
            shown = list(carried(optimizer, page, tree, w, gradients, hyperparameters, taken))
        except (KeyError, ValueError, ZeroDivisionError) as error:  # no value, no root, no quotient
            return f"{optimizer.__name__}: the displayed formula cannot be evaluated: {error}, with {hyperparameters}"
        for step, (wanted, got) in enumerate(zip(exact, shown, strict=True), start=1):
            for name, these, those in zip(("the parameter", *optimizer.slots), got, wanted, strict=True):
                for a, b in zip(these, those.values, strict=True):
                    if abs(a - b) > abs(b) * mpmath.mpf(10) ** -DIGITS:
                        return (
                            f"{optimizer.__name__}: the displayed formula gives {name} = {mpmath.nstr(a, 20)} at step "
                            f"{step}, and its exact step {mpmath.nstr(b, 20)}, with {hyperparameters}"
                        )
    return None


def carried(
    optimizer: type[mlx_optimizers.Optimizer],
    page: Page,
    tree: latex.Tree,
    w: Any,
    gradients: Any,
    hyperparameters: dict[str, Any],
    taken: set[latex.Tree] | None,
) -> Iterator[list[list[latex.Number]]]:
    """Evaluate the displayed formula step by step; yields the parameters and each slot."""
    context = latex.numbers(BITS)
    made = optimizer(**hyperparameters)
    constants: dict[Any, Any] = {}
    for argument, symbols in page.arguments.items():
        value = getattr(made, argument)
        if symbols:
            values = value if isinstance(value, tuple) else (value,)
            constants |= {(symbol, None): context.mpf(float(x)) for symbol, x in zip(symbols, values, strict=True)}
        else:
            constants[argument,] = value
    carriers = ["w", *(page.slots[slot] for slot in optimizer.slots)]
    before = [[context.mpf(x), *(context.mpf(0) for _ in optimizer.slots)] for x in w.tolist()]
    for t, gradient in enumerate(gradients.tolist(), start=1):
        after = []
        for element, g in zip(before, gradient, strict=True):
            given = constants | {("g", "t"): context.mpf(g), ("t", None): context.mpf(t)}
            given |= {(name, "t-1"): x for name, x in zip(carriers, element, strict=True)}
            found = latex.evaluate(tree, given, context, taken)
            after.append([found[name, "t"] for name in carriers])
        yield [list(column) for column in zip(*after, strict=True)]
        before = after


# The tests


@every_optimizer
def test_the_displayed_formula_is_the_exact_step(optimizer, page):
    found = page(optimizer)
    tree, taken = latex.parse(found.latex), set()
    if differs := difference(optimizer, found, tree, taken):
        pytest.fail(differs)
    assert taken == latex.branches(tree), "every branch that is displayed was taken"


@every_optimizer
def test_every_symbol_is_bound_and_every_argument_and_slot_has_one(optimizer, page):
    found = page(optimizer)
    assert list(found.arguments) == list(inspect.signature(optimizer).parameters)
    assert tuple(found.slots) == optimizer.slots
    bound = [*(name for argument, names in found.arguments.items() for name in names or [argument])]
    bound += [*found.slots.values(), "w", "g"]
    assert len(set(bound)) == len(bound)
    tree = latex.parse(found.latex)
    assigned = {name for _, (_, name, _), _ in tree[1:]}
    assert latex.symbols(tree) - {"t"} == set(bound) | assigned, "t is the step on every page"
    assert {"w", *found.slots.values()} <= assigned


@every_optimizer
def test_every_change_of_a_displayed_formula_is_noticed(optimizer, page):
    found = page(optimizer)
    changes = list(latex.mutants(latex.parse(found.latex)))
    assert len(changes) >= 20
    assert [words for words, tree in changes if difference(optimizer, found, tree) is None] == []


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (r"\beta_1 m_{t-1} +", r"\beta_1 m_{t-1} -"),
        (r"\beta_1 m_{t-1} +", r"\beta_2 m_{t-1} +"),
        (r"\frac{m_t}", r"\frac{m_{t-1}}"),
        (r"\sqrt{v_t} + \epsilon", r"\sqrt{v_t + \epsilon}"),
    ],
)
def test_a_change_in_the_text_is_noticed(page, old, new):
    found = page(mlx_optimizers.Adam)
    assert found.latex.count(old) == 1
    tree = latex.parse(found.latex.replace(old, new))
    assert difference(mlx_optimizers.Adam, found, tree).startswith("Adam: the displayed formula ")


@pytest.mark.xdist_group("builds of the site")
def test_a_sign_changed_in_a_docstring_is_named_by_the_tests_of_its_page(changed, tmp_path):
    text = (ROOT / "mlx_optimizers" / "adam.py").read_text(encoding="utf-8")
    old = r"v_t &= \beta_2 v_{t-1} + (1 - \beta_2) g_t^2"
    assert text.count(old) == 1
    built = changed({"mlx_optimizers/adam.py": text.replace(old, old.replace("+", "-"))})
    assert built.returncode == 0, built.stdout + built.stderr
    tests = run(
        *("-m", "pytest", "-q", "-p", "no:cacheprovider", "tests/docs/test_displayed_formulas.py"),
        *("-k", "exact_step and Adam"),
        cwd=ROOT,
        MLX_OPTIMIZERS_SITE=str(tmp_path / "html"),
    )
    assert tests.returncode == 1, tests.stdout + tests.stderr
    assert "test_the_displayed_formula_is_the_exact_step[Adam]" in tests.stdout
    assert "Adam: the displayed formula cannot be evaluated: root of a negative number" in tests.stdout
    others = sum("adam" in name.lower() for name in NAMES) - 1
    assert f"1 failed, {others} passed" in tests.stdout, "the others have formulas of their own"


# The reader


@pytest.mark.parametrize(
    ("text", "value"),
    [
        (r"1 - 2 + 3 w_t", 5),
        (r"(1 - 2) (3 + w_t)", -5),
        (r"\frac{w_t^2}{1 + \sqrt{4}} w_t", 8 / 3),
        (r"\frac{1}{8} - \beta_1^t", 0),
        (r"3 w_t/(1 + 2)", 2),
        (r"\operatorname{sign}(1 - w_t) + \max(|d_{t-1}|, 4)", 4),
        (r"\begin{cases} 1 & \text{if } w_t = 3 \\ 2 & \text{if wide} \\ 3 & \text{otherwise} \end{cases}", 2),
        (r"\hat m_t + \tilde{v}_{t-1}", 11),
    ],
)
def test_an_expression_has_the_value_worked_out_by_hand(text, value):
    context = latex.numbers(64)
    given = {("w", "t"): 2, ("d", "t-1"): -5, ("\\beta_1", None): 0.5, ("t", None): 3, ("wide",): True}
    given |= {("\\hat{m}", "t"): 4, ("\\tilde{v}", "t-1"): 7}
    given = {name: x if isinstance(x, bool) else context.mpf(x) for name, x in given.items()}
    tree = latex.parse(rf"\begin{{aligned}} h_t &= {text} \end{{aligned}}")
    assert float(latex.evaluate(tree, given, context)["h", "t"]) == value


@pytest.mark.parametrize(
    "text", [r"w_t &= g_t +", r"w_t &= \sin(g_t)", r"w_t = g_t", r"w_t &= g_t \\ v_t", r"w_t &= \gamma"]
)
def test_what_the_grammar_does_not_know_is_refused(text):
    with pytest.raises(UnexpectedInput):
        latex.parse(rf"\begin{{aligned}} {text} \end{{aligned}}")


def test_a_symbol_without_a_value_is_an_error():
    with pytest.raises(KeyError, match="kappa"):
        latex.evaluate(latex.parse(r"\begin{aligned} w_t &= \kappa \end{aligned}"), {}, latex.numbers(64))
