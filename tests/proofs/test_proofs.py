"""The theorems of the guide on the interval, decided by two solvers, and held to the record that the site prints."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support import require

z3 = require("z3")
require("cvc5")

from tests.proofs.obligations import Claim, claims  # noqa: E402 (after the libraries)
from tests.proofs.solvers import by_cvc5, by_z3  # noqa: E402 (the same)

pytestmark = pytest.mark.norm(
    "interval.one-rounding",
    "interval.sum",
    "interval.product",
    "interval.quotient",
    "interval.root",
    "interval.not-rounded",
    "interval.coefficients",
    "interval.inclusion",
    "interval.inside",
    "interval.less-rounding",
    "interval.steps",
    "interval.running-means",
    "interval.bias-correction",
    "interval.weight-decay",
    "interval.sums",
    "interval.mean-division",
    "interval.proved",
)

RECORD = json.loads((Path(__file__).parents[2] / "docs" / "proved.json").read_text("utf-8"))["claims"]
CLAIMS = claims()


def answer(claim: Claim) -> str:
    """What a solver must say of a claim."""
    return "proved" if claim.holds else "refuted"


def test_the_record_has_every_claim():
    stated = [(claim.theorem, claim.order, claim.name, claim.holds) for claim in CLAIMS]
    assert [(row["theorem"], row["order"], row["name"], row["holds"]) for row in RECORD] == stated
    assert len(set(stated)) == len(stated)


def test_z3_proves_every_true_claim_and_refutes_every_false_one():
    assert [claim for claim in CLAIMS if by_z3(claim) != answer(claim)] == []
    assert all(row["z3"] for row in RECORD)


@pytest.mark.parametrize("part", range(4))
def test_cvc5_decides_what_the_record_says(part):
    decided = [claim for claim, row in zip(CLAIMS, RECORD, strict=True) if row["cvc5"]][part::4]
    assert [claim for claim in decided if by_cvc5(claim) != answer(claim)] == []


def sums(expression: z3.ExprRef) -> list[z3.ExprRef]:
    """All sums and differences in an expression, each once."""
    found = {}

    def walk(e):
        if e.decl().kind() in (z3.Z3_OP_ADD, z3.Z3_OP_SUB):
            found[e.get_id()] = e
        for child in e.children():
            walk(child)

    walk(expression)
    return list(found.values())


def changed(expression: z3.ExprRef) -> Iterator[z3.ExprRef]:
    """Change the sign between the operands of each sum, wherever that sum stands."""
    for node in sums(expression):
        a, b = node.children()
        yield z3.substitute(expression, (node, a - b if node.decl().kind() == z3.Z3_OP_ADD else a + b))


TRUE = [claim for claim in CLAIMS if claim.holds]


FORMULAS = [claim for claim in TRUE if claim.name == "is the formula"]
OTHERS = [claim for claim in TRUE if claim not in FORMULAS]


@pytest.mark.parametrize("claim", OTHERS, ids=lambda claim: f"{claim.theorem} {claim.order} {claim.name}")
def test_a_changed_sign_in_a_claim_is_refuted(claim):
    """One at least: others make a claim weaker, as where a distance is taken for a larger one."""

    def false():
        for conclusion in changed(claim.conclusion):
            yield dataclasses.replace(claim, conclusion=conclusion)
        for index, hypothesis in enumerate(claim.hypotheses):
            for other in changed(hypothesis):
                yield dataclasses.replace(
                    claim, hypotheses=(*claim.hypotheses[:index], other, *claim.hypotheses[index + 1 :])
                )

    assert not sums(claim.conclusion) or any(
        by_z3(other, seconds) == "refuted"
        for seconds in (1, 20)
        for other in false()  # the quick ones first
    )


@pytest.mark.parametrize("claim", FORMULAS, ids=lambda claim: claim.order)
def test_every_changed_sign_in_a_statement_or_an_order_is_refuted(claim):
    one, other = claim.conclusion.children()
    for conclusion in (*(x == other for x in changed(one)), *(one == x for x in changed(other))):
        assert by_z3(dataclasses.replace(claim, conclusion=conclusion), 5) == "refuted"
