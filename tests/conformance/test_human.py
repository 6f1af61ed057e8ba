"""The report for people: what it says, and that it fits."""

from __future__ import annotations

import re
import sys

import numpy as np
import pytest

from mlx_optimizers.backends import open_backend
from mlx_optimizers.conformance import Report, Unsupported, cases_of, check, matching
from mlx_optimizers.conformance.formats.summary import HEADER, number, summaries
from mlx_optimizers.conformance.formats.text import text as human
from mlx_optimizers.conformance.verdict import Element
from tests.expected import EXPECTED
from tests.programs import Evaluated, Program, corrected, verdict
from tests.support import require

ONE_OF_EACH = ("plain/betas=0.8,0.95", "tiny/defaults", "wide/defaults", "zeros/defaults")
DEFAULTS = {name: [case for case in cases_of(name) if case.label == "defaults"] for name in ("Adam", "Lion")}
CASES = [*(matching(["Adam"], f"adam/{label}")[0] for label in ONE_OF_EACH), *DEFAULTS["Lion"]]


class Mixed:
    name, version, device = "mixed", "7.5", "cpu"

    def claim(self, optimizer):
        return optimizer

    def run(self, case):
        if case.optimizer == "Lion":
            raise Unsupported("there is no Lion here")
        if case.regime == "zeros":
            raise ZeroDivisionError("a zero")
        if case.regime == "wide":
            raise Unsupported("too wide")
        return Evaluated("Adam[eps=inside_sqrt]").run(case)


@pytest.fixture(scope="module")
def mixed():
    return check(Mixed(), CASES)


@pytest.fixture(params=["with rich", "without rich"])
def drawn(request, monkeypatch):
    if request.param == "with rich":
        require("rich")
    else:
        monkeypatch.setitem(sys.modules, "rich", None)


def _cells(text, optimizer):
    """Read the row of an optimizer: its columns are two or more spaces apart."""
    (line,) = (line for line in text.split("\n") if re.match(rf"{optimizer} {{2,}}", line))
    return re.split(r" {2,}", line.strip())


def test_every_number_of_the_table(drawn, mixed):
    text = human(mixed)
    assert text.startswith("mixed 7.5 on cpu: 9 cases, 1 conforms, 1 deviates, 6 unsupported, 1 failed\n\n")
    assert re.split(r" {2,}", text.split("\n")[2].strip()) == list(HEADER)
    worst = max(result.worst.excess for result in mixed.results if result.worst)
    assert _cells(text, "Adam") == ["Adam", "4", "deviates (1 of 4)", "float32", number(worst), "0"]
    assert _cells(text, "Lion") == ["Lion", "5", "unsupported", "–", "–", "0"]


def test_what_deviates_is_told_in_words_with_where_and_by_how_much(drawn, mixed):
    text = human(mixed)
    first = next(result for result in mixed.results if result.word == "deviates").first
    got = np.uint32(int(first.got, 16)).view(np.float32)
    assert "Adam deviates in 1 of 4 cases, held to Adam." in text
    assert "It computes Adam with ε inside the square root: Adam[eps=inside_sqrt]" in text
    assert f"First seen in adam/tiny/defaults, step {first.step}, {first.quantity}[{first.index}]:" in text
    assert f"got {got!s} ({first.got}), accepted [" in text
    assert f"exact {first.exact}," in text
    assert f"{number(first.excess)} times the accepted distance" in " ".join(text.split())
    assert "Adam failed in 1 of 4 cases, held to Adam.\n  ZeroDivisionError: a zero" in text
    assert "Lion unsupported in 5 of 5 cases, held to Lion.\n  there is no Lion here" in text


def test_where_everything_conforms_there_is_nothing_below_the_table(drawn):
    report = check(open_backend("reference"), matching(["Adam"], "*/plain/*"))
    assert human(report).rstrip("\n").split("\n")[-1].startswith("Adam")


def test_claims_are_named():
    report = check(corrected("m̂/(√v̂ + ε)"), matching(["Adam"], "*/plain/defaults"))
    assert "Adam[bias_correction=true]." in human(report)


@pytest.mark.parametrize(("some", "nearest"), [(lambda case: case.regime == "wide", True), (lambda case: True, False)])
def test_where_no_formula_agrees_the_nearest_is_named_if_it_agrees_with_any_case(some, nearest):
    """Adam, but for an element that goes astray in some regimes, or in all."""

    class Astray(Program):
        def run(self, case):
            run = super().run(case)
            run.parameters[:] += some(case)
            return run

    step = EXPECTED["Adam"].step
    adam = Astray(lambda h, t, w, g, *slots: step(np.float32, h, w, g, *slots), state=False)
    text = " ".join(human(check(adam, DEFAULTS["Adam"])).split())
    assert "No formula known here agrees with every case. " in text
    assert ("Nearest is Adam, in 6 of 7." in text) == nearest
    assert ("Nearest" in text) == nearest


@pytest.mark.parametrize("width", [80, 120])
def test_no_line_is_wider_than_the_terminal(drawn, mixed, width):
    claims = {name: max(filter(None, known.claims.values()), key=len) for name, known in EXPECTED.items()}
    worst = Element("parameter", 8, 23, "bf8f7fbe77000001", *("bf8f7fbe77000001",) * 3, "-0.00378" + "1" * 27, 1e300)
    results = [
        verdict(f"{name.lower()}/plain/dampening=0.3/float64", claim, "deviates", worst=worst, first=worst)
        for name, claim in claims.items()
    ]
    results.append(verdict("lion/plain/defaults", "Lion", "failed", reason="a long reason " * 30))
    for report in (mixed, Report("a-backend-with-a-name", "1.2.3", "cpu", results)):
        for line in human(report, width=width).split("\n"):
            assert len(line) <= width, line


def test_a_line_that_was_folded_keeps_its_words_and_formulas():
    claims = "AdamW[bias_correction=true,eps=before_correction]"
    results = [verdict("adamw/plain/defaults", claims, "failed", reason="one two-three " * 20)]
    text = human(Report("b", "1", "cpu", results), width=60)
    assert text.count("two-three") == 20
    assert claims in text


def test_colour_is_used_where_it_is_allowed_alone(mixed):
    require("rich")
    assert "\x1b[" not in human(mixed)
    coloured = human(mixed, colour=True)
    assert "\x1b[31mdeviates" in coloured and "\x1b[33munsupported" in coloured
    assert re.sub(r"\x1b\[[\d;]*m", "", coloured).split() == human(mixed).split()


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float64"])
def test_values_are_shown_in_the_dtype_of_the_case(dtype):
    require("ml_dtypes" if dtype == "bfloat16" else "numpy")
    one = {"float16": "3c00", "bfloat16": "3f80", "float64": "3ff0000000000000"}[dtype]
    worst = Element("parameter", 1, 0, one, one, one, one, "1", 2.0)
    result = verdict(f"adam/plain/defaults/{dtype}", "Adam", "deviates", worst=worst, first=worst)
    text = human(Report("b", "1", "cpu", [result]))
    assert re.search(rf"got 1(\.0)? \({one}\), accepted \[1(\.0)?, 1(\.0)?\]", text)


@pytest.mark.parametrize(
    ("excess", "text"), [(0.0, "0.00"), (0.5449, "0.54"), (999.9, "999.90"), (123456.0, "1e+05"), (np.inf, "∞")]
)
def test_an_excess_in_few_characters(excess, text):
    assert number(excess) == text


def test_an_optimizer_held_to_two_formulas_has_two_rows():
    results = [
        verdict("adam/plain/defaults", formula, "conforms") for formula in ("Adam", "Adam[bias_correction=true]")
    ]
    assert [(row.formula, len(row.results)) for row in summaries(Report("b", "1", "cpu", results))] == [
        ("Adam", 1),
        ("Adam[bias_correction=true]", 1),
    ]
