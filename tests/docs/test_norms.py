"""Every sentence of five guides that says what is computed, accepted or refused has an id, and a test that names it."""

from __future__ import annotations

import sys
from collections import Counter

import pytest

from tests.conformance.test_right_programs import SIZES
from tests.docs.copies import ROOT

sys.path.insert(0, str(ROOT / "docs" / "_ext"))  # as docs/conf.py does
try:
    from norms import GUIDES, guide, holders, marks, norms
finally:
    del sys.path[0]

NOT_NORMATIVE: dict[str, tuple[str, ...]] = {
    "interval": (
        # what the page does
        "The first half is proved here",
        "Theorems 1 to 6 prove the claim for the model's own order",
        # assumptions and definitions
        "The theorems speak of a program",
        "2. It forms each coefficient",
        "3. It computes the formula",
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
        # a table, for which the sentence before it has the id
        *(f"{name} |" for name in SIZES),
    ),
    "vectors": ("Put your own step in the place of",),
    "formulas": (),
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


def without_id(name: str, source: str) -> list[str]:
    """The pieces of a guide that should have an id. One that ends with a colon says what comes."""
    unheld = (norm.text for norm in norms(source) if not norm.id and not norm.text.endswith(":"))
    return [text for text in unheld if not text.startswith(NOT_NORMATIVE[name])]


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


def test_no_id_is_there_twice():
    assert [name for name, count in Counter(ids()).items() if count > 1] == []


def test_every_id_has_a_test_and_every_id_that_a_test_names_is_in_a_guide():
    assert set(ids()) - set(holders()) == set()
    assert set(holders()) - set(ids()) == set()


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


def test_the_marks_of_functions_and_modules_are_found():
    text = """
pytestmark = [pytest.mark.slow, pytest.mark.norm("a.module")]

@pytest.mark.norm("a.one", "a.two")
def test_one(): ...

def test_other(): ...
"""
    assert list(marks(text)) == [("a.module", ""), ("a.one", "test_one"), ("a.two", "test_one")]


def test_an_id_without_words_is_an_error():
    with pytest.raises(ValueError, match=r"inputs\.b has no text"):
        list(norms("A.{norm}`inputs.a`{norm}`inputs.b`"))
