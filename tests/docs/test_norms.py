"""Every sentence of five guides that says what is computed, accepted or refused has an id, and a test that names it."""

from __future__ import annotations

import re
import sys
from collections import Counter
from collections.abc import Iterable

import pytest

from tests.conformance.test_right_programs import SIZES
from tests.docs.copies import ROOT

sys.path.insert(0, str(ROOT / "docs" / "_ext"))  # as docs/conf.py does
try:
    from norms import GUIDES, guide, holders, marks, norms, shown
finally:
    del sys.path[0]

SENTENCE = re.compile(r"(?<=[.!?])\s+(?=[^a-zα-ω])")
"""Where one sentence ends and the next begins."""

NOT_NORMATIVE: dict[str, tuple[str, ...]] = {
    "interval": (
        # what the page does
        "The first half is proved here",
        "(interpolation)=",
        "Theorems 1 to 6 prove the claim for the model's own order",
        # assumptions and definitions
        "The theorems speak of a program",
        "2. It forms each coefficient",
        "3. It adds the terms of a sum",
        "Let $|\\hat x - x| \\le r$",
        "Here $c_i = 1 - \\beta_i^t$",
        # proofs
        "That needs no factor 1.004",
        "For the product: let",
        "and the rounding that is added grows",
        "For $x \\le r$ no finite radius serves all parts",
        "The program's floats, with radius 0",
        "**Theorem 11, running means.**",
        "**Theorem 13, weight decay.**",
        "Each float goes through $n - 1$ additions",
        "as no part has more than",
        "The proofs have each step of these inductions",
        # a guide of its own
        "[A guide of its own](newton_schulz.md)",
        # a table, for which the sentence before it has the id
        *(f"{name} |" for name in SIZES),
    ),
    "vectors": ("Put your own step in the place of",),
    "formulas": (
        # a reason
        "An Adam whose gradients",
        # the table
        *(f"`{kind}=NAME" for kind in ("ignored", "scaled", "replaced")),
    ),
    "check_your_port": (
        # a warning, a reason, advice
        "What passes may still be wrong",
        "Decimal text would leave it",
        "- Output is kept in a buffer.",
        "`mlx-optimizers trace` shows",
        # files of this project
        "This is the whole adapter",
        "The C port is one header",
    ),
    "inputs": (),
}
"""How each piece of text begins that has no id, as it states nothing of what is computed, accepted or refused."""

SENTENCES = {
    "interval.interpolation": 5,
    "interval.two-roundings": 2,
    "interval.operation": 2,
    "interval.hyperparameter": 3,
    "interval.sign": 2,
    "interval.untested": 2,
    "interval.slack": 3,
    "interval.rounding": 2,
    "interval.domain": 3,
    "interval.own-rounding": 2,
    "interval.corrected-root": 5,
    "interval.inside": 5,
    "interval.running-means": 5,
    "interval.weight-decay": 2,
    "interval.proved": 2,
    "interval.counted": 3,
    "interval.newton-schulz": 2,
    "interval.not-covered": 2,
    "interval.profiles": 3,
    "interval.not-everywhere": 2,
    "interval.told-apart": 2,
    "interval.half": 2,
    "interval.four-units": 2,
    "interval.eight-steps": 2,
    "formulas.axes": 2,
    "formulas.as": 2,
    "formulas.ignored": 2,
    "vectors.bits": 2,
    "vectors.layout": 2,
    "vectors.lines": 2,
    "vectors.scalars": 3,
    "vectors.blind": 2,
    "vectors.programs": 2,
    "vectors.swift": 2,
    "check_your_port.streams": 2,
    "check_your_port.ports": 2,
    "check_your_port.zero": 2,
    "check_your_port.bits": 2,
    "check_your_port.protocol": 2,
    "check_your_port.spared": 2,
    "check_your_port.state": 2,
    "check_your_port.standard-error": 2,
    "check_your_port.no-defaults": 2,
    "check_your_port.float32": 3,
    "check_your_port.contracted": 2,
    "check_your_port.dtypes": 2,
    "inputs.path": 2,
}
"""How many sentences an id holds where they are several: one explains another, or the same tests hold all of them."""


def without_id(name: str, source: str) -> list[str]:
    """The pieces of a guide that should have an id. One that ends with a colon says what comes."""
    unheld = (norm.text for norm in norms(source) if not norm.id and not norm.text.endswith(":"))
    return [text for text in unheld if not text.startswith(NOT_NORMATIVE[name])]


def several(source: str) -> dict[str, int]:
    """The ids of a guide that hold several sentences, with their number. A theorem holds its proof."""
    held = {norm.id: re.sub(r"^\d+\. ", "", norm.text) for norm in norms(source) if norm.id}
    counts = {name: len(SENTENCE.split(text)) for name, text in held.items() if not text.startswith("**Theorem ")}
    return {name: count for name, count in counts.items() if count > 1}


def unmatched(ids: Iterable[str], named: Iterable[str]) -> tuple[set[str], set[str]]:
    """The ids that no test names, and the names in tests that are no ids."""
    there, marked = set(ids), set(named)
    return there - marked, marked - there


def ids() -> list[str]:
    return [norm.id for name in GUIDES for norm in norms(guide(name)) if norm.id]


@pytest.mark.parametrize("name", GUIDES)
def test_every_normative_sentence_has_an_id_of_its_guide(name):
    assert without_id(name, guide(name)) == []
    assert {norm.id.partition(".")[0] for norm in norms(guide(name)) if norm.id} == {name}


@pytest.mark.parametrize("name", GUIDES)
def test_every_text_without_an_id_is_there_once(name):
    unheld = [norm.text for norm in norms(guide(name)) if not norm.id]
    assert [text for text in NOT_NORMATIVE[name] if sum(t.startswith(text) for t in unheld) != 1] == []


def test_an_id_holds_one_sentence_or_as_many_as_were_counted():
    assert dict(item for name in GUIDES for item in several(guide(name)).items()) == SENTENCES


def test_no_id_is_there_twice():
    assert [name for name, count in Counter(ids()).items() if count > 1] == []


def test_every_id_has_a_test_and_every_id_that_a_test_names_is_in_a_guide():
    assert unmatched(ids(), holders()) == (set(), set())


# That the search finds what it should


def test_a_sentence_without_an_id_is_found():
    text = "∞ is refused.{norm}`inputs.infinity` NaN is refused.\n\n- A shape is.{norm}`inputs.shape`\n- Two are.\n"
    assert without_id("inputs", text) == ["NaN is refused.", "- Two are."]
    assert [(norm.id, norm.text) for norm in norms(text) if norm.id] == [
        ("inputs.infinity", "∞ is refused."),
        ("inputs.shape", "- A shape is."),
    ]


def test_a_row_of_a_table_is_a_sentence_and_code_is_none():
    text = "| key | value |\n|---|---|\n| a | b{norm}`inputs.a` |\n| c | d |\n\n```py\ncode is refused\n```\n\n$$x$$\n"
    assert without_id("inputs", text) == ["c | d"]


def test_an_id_that_is_dropped_and_a_sentence_that_slips_in_are_found():
    text = "∞ is refused.{norm}`inputs.infinity` NaN is refused.{norm}`inputs.nan`\n"
    assert (without_id("inputs", text), several(text)) == ([], {})
    assert without_id("inputs", text.replace("{norm}`inputs.nan`", "")) == ["NaN is refused."]
    assert several(text.replace("{norm}`inputs.infinity`", "")) == {"inputs.nan": 2}
    assert several("Zero is accepted. " + text) == {"inputs.infinity": 2}


def test_a_mark_that_is_gone_and_one_without_an_id_are_found():
    marked, bare = '@pytest.mark.norm("a.one")\ndef test_one(): ...\n', "def test_one(): ...\n"
    for there, source, expected in (
        (["a.one"], marked, (set(), set())),
        (["a.one"], bare, ({"a.one"}, set())),
        ([], marked, (set(), {"a.one"})),
    ):
        assert unmatched(there, (name for name, _ in marks(source))) == expected


def test_the_marks_of_functions_and_modules_are_found():
    text = """
pytestmark = [pytest.mark.slow, pytest.mark.norm("a.module")]

@pytest.mark.norm("a.one", "a.two")
def test_one(): ...

def test_other(): ...
"""
    assert list(marks(text)) == [("a.module", ""), ("a.one", "test_one"), ("a.two", "test_one")]


def test_a_sentence_is_shown_without_the_marks_of_markdown():
    for markdown, text in (
        ("`None` | `TypeError`: leave *it* out", "None · TypeError: leave it out"),
        ("- **The sign** of a [ball](interval.md)", "The sign of a ball"),
        ("1. It rounds $x$ by a {term}`unit`.", "It rounds x by a unit."),
    ):
        assert "".join(node.astext() for node in shown(markdown)) == text


def test_an_id_without_words_is_an_error():
    with pytest.raises(ValueError, match=r"inputs\.b has no text"):
        list(norms("A.{norm}`inputs.a`{norm}`inputs.b`"))
