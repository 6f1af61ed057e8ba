"""The page on what is proved: every theorem and every order has a status, and none is only stated."""

from __future__ import annotations

import json
import re

import pytest
from bs4 import BeautifulSoup

from docs._ext.orders import STATEMENTS
from tests.docs.copies import ROOT
from tests.oracle.test_rounded import COUNT, SETUPS

STATUSES = {"proved by two solvers", "proved by one solver", "exhausted on small formats"}
GUIDE = (ROOT / "docs" / "guides" / "interval.md").read_text("utf-8")
PAGE = ROOT / "docs" / "guides" / "what_is_proved.md"


def rows(article, section):
    """The cells of the table of a section."""
    table = article.find(id=section).find("table")
    return [[cell.get_text(" ", strip=True) for cell in row.find_all("td")] for row in table.select("tbody tr")]


@pytest.fixture(scope="module")
def article(site):
    return BeautifulSoup((site / "guides" / "what_is_proved.html").read_text("utf-8"), "html.parser").article


def test_every_theorem_has_a_status_that_is_not_stated(article):
    theorems = re.findall(r"^\*\*Theorem (\d+, [^*]+)\.\*\*", GUIDE, re.MULTILINE)
    table = rows(article, "theorems")
    assert [row[0] for row in table] == theorems
    assert {row[1] for row in table} <= STATUSES


def test_every_order_has_a_status_that_is_not_stated(article):
    table = rows(article, "orders-of-evaluation")
    assert len(table) == sum(len(statement.orders) for statement in STATEMENTS)
    assert {row[2] for row in table} <= STATUSES


def test_the_counts_by_status_are_those_of_the_tables(article):
    statuses = [row[1] for row in rows(article, "theorems")] + [row[2] for row in rows(article, "orders-of-evaluation")]
    sentence = " ".join(article.get_text().split())
    for status in set(statuses):
        assert f"{statuses.count(status)} {status}" in sentence


def test_a_claim_that_no_solver_proves_takes_the_status(changed, tmp_path):
    record = json.loads((ROOT / "docs" / "proved.json").read_text("utf-8"))
    for row in record["claims"]:
        if row["order"] == "λ(a/d)":
            row["z3"] = row["cvc5"] = False
    result = changed({"docs/proved.json": json.dumps(record)})
    assert result.returncode == 0, result.stdout + result.stderr
    page = (tmp_path / "html" / "guides" / "what_is_proved.html").read_text("utf-8")
    article = BeautifulSoup(page, "html.parser").article
    assert [row[2] for row in rows(article, "orders-of-evaluation")].count("stated") == 1
    assert [row[1] for row in rows(article, "theorems")].count("stated") == 1


def test_the_radii_are_tested_on_as_many_cases_as_the_page_says():
    assert len({form for form, _ in SETUPS}) == 4
    assert f"{COUNT:,} random cases of every operation, in four formats" in " ".join(PAGE.read_text("utf-8").split())


def test_the_numbers_of_the_small_format_are_those_of_the_page():
    from tests.proofs.exhaustion import FLOATS

    assert f"the {len(FLOATS)} numbers of an 8-bit format" in PAGE.read_text("utf-8")
