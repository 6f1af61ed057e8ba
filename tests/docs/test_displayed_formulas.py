"""The formula that a page displays is executed, and agrees with the exact step of its class to 60 digits."""

from __future__ import annotations

import inspect
import itertools
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
from tests.expected import ABOVE_0, AT_LEAST_0, CLASSES, FLAG, NAMES, PAIR_BELOW_1, UP_TO_1, WHOLE, record_of

BITS, DIGITS = 300, 60
"""Both sides compute with 300 bits, which are 90 digits; 30 of them are room for rounding and cancellation."""

ELEMENTS, STEPS = 20, 4

every_optimizer = pytest.mark.parametrize(
    "optimizer", [*CLASSES, *(getattr(mlx_optimizers, name) for name in WHOLE)], ids=[*NAMES, *WHOLE]
)


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


OF_WHOLE: dict[str, tuple[dict[str, Any], ...]] = {
    "Adafactor": (
        {},
        {"warmup_init": True, "weight_decay": 0.5, "eps": (0.3, 5.0), "clip_threshold": 0.25},
        {"learning_rate": 0.3, "relative_step": False, "beta_1": 0.4, "decay_rate": -0.5, "eps": (0.1, 0.2)},
        {"learning_rate": 0.3, "relative_step": False, "scale_parameter": False, "clip_threshold": 9.0},
    ),
    "Muon": (
        {"learning_rate": 0.1},
        {"learning_rate": 0.3, "momentum": 0.25, "weight_decay": 0.5, "nesterov": False, "ns_steps": 2},
    ),
}
"""The hyperparameters of optimizers of whole arrays."""

SHAPES = ((3, 4), (4, 2), (2, 3, 2), (5,))
"""The shapes of their arrays: wide, tall, more axes than two, and fewer."""


def settings(optimizer: type[mlx_optimizers.Optimizer]) -> Iterator[dict[str, Any]]:
    """Yield the defaults, then drawn hyperparameters."""
    if optimizer.__name__ in WHOLE:
        yield from OF_WHOLE[optimizer.__name__]
        return
    rng = np.random.default_rng(0)
    yield {"learning_rate": 0.1}
    for switched in ({}, *record_of(optimizer).switched):
        yield {name: DRAWN[kind](rng) for name, kind in record_of(optimizer).ranges.items()} | {**switched}


def difference(
    optimizer: type[mlx_optimizers.Optimizer], page: Page, tree: latex.Tree, taken: set[latex.Tree] | None = None
) -> str | None:
    """Say where the displayed formula first differs from the exact step, and in which optimizer; None if nowhere."""
    rng = np.random.default_rng(1)
    shapes = SHAPES if optimizer.__name__ in WHOLE else ((ELEMENTS,),)
    for hyperparameters, shape in itertools.product(settings(optimizer), shapes):
        w, gradients = rng.normal(size=shape), rng.normal(size=(STEPS, *shape))
        if optimizer.__name__ not in WHOLE:
            gradients[:, 0] = 0
        exact = walk(parse(optimizer), Exact(BITS, "mpmath"), w, gradients, hyperparameters)
        try:
            shown = list(carried(optimizer, page, tree, w, gradients, hyperparameters, taken))
        except (KeyError, ValueError, ZeroDivisionError) as error:  # no value, no root, no quotient
            return f"{optimizer.__name__}: the displayed formula cannot be evaluated: {error}, with {hyperparameters}"
        names = ("the parameter", *optimizer.slot_shapes(optimizer(**hyperparameters), shape))
        for step, (wanted, got) in enumerate(zip(exact, shown, strict=True), start=1):
            for name, those in zip(names, wanted, strict=True):
                for a, b in zip(np.ravel(got[name]), those.values.reshape(-1), strict=True):
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
) -> Iterator[dict[str, Any]]:
    """Evaluate the displayed formula step by step; yields the parameters and each slot.

    Each element is taken alone, and what is a formula of whole arrays as an array.
    """
    context = latex.numbers(BITS)
    whole = optimizer.__name__ in WHOLE

    def parts(array: Any) -> list[Any]:
        each = np.frompyfunc(context.mpf, 1, 1)(array)
        return [each] if whole else list(each)

    made = optimizer(**hyperparameters)
    constants: dict[Any, Any] = {}
    for argument, symbols in page.arguments.items():
        value = getattr(made, argument, None)  # Adafactor may have no learning rate
        if symbols:
            values = value if isinstance(value, tuple) else (value,)
            values = [None if x is None else context.mpf(float(x)) for x in values]
            constants |= {(symbol, None): x for symbol, x in zip(symbols, values, strict=True)}
        else:
            constants[argument,] = value
    constants |= {(name, None): context.mpf(size) for name, size in zip("nrc", (w.ndim, *w.shape[-2:]), strict=False)}
    carriers = {"the parameter": "w", **{slot: page.slots[slot] for slot in optimizer.slots}}
    before = [[x, *(context.mpf(0) for _ in optimizer.slots)] for x in parts(w)]
    for t, gradient in enumerate(gradients, start=1):
        after = []
        for element, g in zip(before, parts(gradient), strict=True):
            given = constants | {("g", "t"): g, ("t", None): context.mpf(t)}
            given |= {(name, "t-1"): x for name, x in zip(carriers.values(), element, strict=True)}
            found = latex.evaluate(tree, given, context, taken, functions(context))
            after.append([found[name, "t"] for name in carriers.values()])
        yield {name: column[0] if whole else list(column) for name, *column in zip(carriers, *after, strict=True)}
        before = after


def functions(context: Any) -> dict[str, Callable[..., Any]]:
    """Write down what formulas of whole arrays apply, as the page of each says in words."""

    def mean(axis: int) -> Callable[[Any], Any]:
        """Take the mean along an axis, which stays; that of an array without the axis is the array."""
        return lambda x: x if np.ndim(x) < -axis else np.sum(x, axis=axis, keepdims=True) / x.shape[axis]

    def orthogonal(steps: Any, d: Any) -> Any:
        """Take Newton–Schulz of the rows along the first axis, with the constants as floats."""
        a, b, c, eps = map(context.mpf, (3.4445, -4.7750, 2.0315, 1e-7))
        d = np.atleast_1d(d)
        rows = d.reshape(d.shape[0], -1)
        x = rows.T if rows.shape[0] > rows.shape[1] else rows
        x = x / (context.sqrt(np.sum(x * x)) + eps)
        for _ in range(int(steps)):
            gram = np.dot(x, x.T)
            x = a * x + np.dot(b * gram + c * np.dot(gram, gram), x)
        return (x.T if rows.shape[0] > rows.shape[1] else x).reshape(d.shape)

    return {
        r"\operatorname{mean}_i": mean(-2),
        r"\operatorname{mean}_j": mean(-1),
        r"\operatorname{rms}": lambda x: context.sqrt(np.sum(x * x) / np.size(x)),
        "N": orthogonal,
    }


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
    shape = {"n", "r", "c"} if optimizer.__name__ in WHOLE else set()
    assert latex.symbols(tree) - {"t"} - shape == set(bound) | assigned, "t is the step on every page"
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


def test_the_relative_step_of_adafactor_ends_in_the_square_root(page):
    """It takes more steps than the other tests have: at step 40,000 it is 0.005."""
    tree, context = latex.parse(page(mlx_optimizers.Adafactor).latex), latex.numbers(BITS)
    lines = {line[1][1]: line for line in tree[1:]}
    for warm, t, wanted in ((False, 40_000, 0.005), (True, 40_000, 0.005), (False, 100, 0.01), (True, 100, 1e-6 * 100)):
        given = {("t", None): context.mpf(t), ("warmup_init",): warm, ("relative_step",): True}
        found = latex.evaluate(("formula", lines["s"], lines["\\rho"]), given, context)
        assert float(found["\\rho", "t"]) == wanted


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
        (r"8 \min(w_t, \operatorname{rms}(d_{t-1})) + 10^{-3} \, N_t(4)", 16.012),
        (r"\begin{cases} 1 & \text{if } w_t \ge 3 \\ 2 & \text{with } \kappa \\ 3 & \text{if so\_wide} \end{cases}", 3),
    ],
)
def test_an_expression_has_the_value_worked_out_by_hand(text, value):
    context = latex.numbers(64)
    given = {("w", "t"): 2, ("d", "t-1"): -5, ("\\beta_1", None): 0.5, ("t", None): 3, ("wide",): True}
    given |= {("\\hat{m}", "t"): 4, ("\\tilde{v}", "t-1"): 7, ("so_wide",): True}
    given = {name: x if isinstance(x, bool) else context.mpf(x) for name, x in given.items()} | {
        ("\\kappa", None): None
    }
    applied = {r"\operatorname{rms}": abs, "N": lambda steps, x: steps * x}
    tree = latex.parse(rf"\begin{{aligned}} h_t &= {text} \end{{aligned}}")
    assert float(latex.evaluate(tree, given, context, functions=applied)["h", "t"]) == value


@pytest.mark.parametrize(
    "text", [r"w_t &= g_t +", r"w_t &= \sin(g_t)", r"w_t = g_t", r"w_t &= g_t \\ v_t", r"w_t &= \delta"]
)
def test_what_the_grammar_does_not_know_is_refused(text):
    with pytest.raises(UnexpectedInput):
        latex.parse(rf"\begin{{aligned}} {text} \end{{aligned}}")


def test_a_symbol_without_a_value_is_an_error():
    with pytest.raises(KeyError, match="kappa"):
        latex.evaluate(latex.parse(r"\begin{aligned} w_t &= \kappa \end{aligned}"), {}, latex.numbers(64))
