"""The page of results, the table of what is unsupported and that of the axes: they hold today."""

from __future__ import annotations

import json
import re
import tomllib
from collections import Counter
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from mlx_optimizers import __version__
from mlx_optimizers.backends import BACKENDS
from mlx_optimizers.conformance import all_cases, parse
from mlx_optimizers.conformance.schemas import schema
from mlx_optimizers.oracle.formulas import AXES
from tests.docs.copies import ROOT
from tests.expected import NAMES, WHOLE
from tests.reports import each_backend, looked_at, report_of
from tests.support import require

pytestmark = pytest.mark.usefixtures("remembered")

REPORTS = ROOT / "docs" / "reports"
EVERYONE = (*NAMES, *WHOLE)


def load(backend: str) -> dict:
    return json.loads((REPORTS / f"{backend}.json").read_text("utf-8"))


def why(result: dict) -> str | None:
    """The reason of a result, without how far one is off that is measured alone."""
    return result["reason"] and re.sub(r"^((not )?consistent): .*", r"\1", result["reason"])


def test_there_is_a_report_of_every_backend():
    assert {path.stem for path in REPORTS.iterdir()} == set(BACKENDS)


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_report_is_of_todays_suite_and_of_the_pinned_version(backend):
    """Run scripts/write_reports.py when this fails: the suite or a pin has moved on."""
    report = load(backend)
    jsonschema.validate(report, schema("report"))
    assert report["backend"]["name"] == backend
    assert report["suite"]["version"] == __version__
    assert [result["case"] for result in report["results"]] == [case.id for case in all_cases()]
    if backend == "reference":
        assert report["backend"]["version"] == __version__
        return
    library = backend.partition("-")[0]
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]["optional-dependencies"]
    pin = next(line for line in extras[library] if line.startswith(library)).split(";")[0].partition("==")[2]
    assert report["backend"]["version"].split("+")[0].split()[0] == pin.strip()


@each_backend
def test_a_report_says_what_the_backend_does_today(name):
    """Run scripts/write_reports.py when this fails: a formula, the interval or the backend has changed."""
    committed, today = load(name), report_of(name).to_json()
    run = {case.id for case in looked_at(name)}
    committed["results"] = [result for result in committed["results"] if result["case"] in run]
    told = ("case", "optimizer", "formula", "verdict", "scalars", "diagnosis")
    assert [({key: result[key] for key in told}, why(result)) for result in today["results"]] == [
        ({key: result[key] for key in told}, why(result)) for result in committed["results"]
    ]
    if name == "reference":  # IEEE arithmetic alone: the same bits on every machine, but for products of matrices
        ours, theirs = (
            [result for result in report["results"] if result["optimizer"] != "Muon"] for report in (today, committed)
        )
        assert ours == theirs


def page_of(site: Path, page: str) -> Any:
    return require("bs4").BeautifulSoup((site / page).read_text("utf-8"), "html.parser")


def rows_of(site: Path, page: str, number: int) -> list[list[str]]:
    body = page_of(site, page).find_all("table")[number].tbody
    return [[" ".join(cell.text.split()) for cell in row.find_all("td")] for row in body.find_all("tr")]


def test_the_page_shows_the_matrix(site):
    names, *columns = zip(*rows_of(site, "results.html", 0), strict=True)
    assert list(names) == list(EVERYONE)
    heads = [" ".join(cell.text.split()) for cell in page_of(site, "results.html").table.thead.find_all("th")][1:]
    for backend, head, column in zip(BACKENDS, heads, columns, strict=True):
        report = load(backend)
        assert head == f"{backend} {report['backend']['version']}, {report['backend']['device']}"
        for name, cell in zip(EVERYONE, column, strict=True):
            results = [result for result in report["results"] if result["case"].startswith(f"{name.lower()}/")]
            verdicts = {result["verdict"] for result in results}
            assert verdicts <= {"conforms", "unsupported"}  # a real backend that deviates is a finding of its own
            conforming = sum(result["verdict"] == "conforms" for result in results)
            if not conforming:
                consistent = [why(result) for result in results].count("consistent")
                some = f"unsupported ({consistent} of {len(results)} consistent)"
                assert cell == (some if consistent else "unsupported")
                continue
            words = cell.split()
            assert words[0] == "conforms"
            assert conforming == len(results) or f"({conforming} of {len(results)})" in cell
            judged = [result for result in results if result["worst"]]
            profiles = {result["scalars"] for result in judged}
            assert words[-2] == ("float32" if "float32" in profiles else "double")
            assert words[-1] == f"{max(result['worst']['excess'] for result in judged):.2f}"


def counts() -> dict:
    """The committed counts of other dtypes, which tests/backends/test_dtypes.py holds."""
    loaded = json.loads((ROOT / "docs" / "dtypes.json").read_text("utf-8"))
    return {dtype: {name: one["results"] for name, one in backends.items()} for dtype, backends in loaded.items()}


def test_the_page_counts_the_verdicts_in_each_other_dtype(site):
    shown = {row[0]: dict(zip(BACKENDS, row[1:], strict=True)) for row in rows_of(site, "results.html", 1)}
    assert list(shown) == list(counts())
    for dtype, backends in counts().items():
        for name, optimizers in backends.items():
            total = Counter()
            for counted in optimizers.values():
                total.update(counted)
            cell = [part.partition(" ") for part in shown[dtype][name].split(", ")]
            assert {word: int(number) for number, _, word in cell} == dict(total)


def test_the_page_names_what_deviates_in_another_dtype(site):
    shown = [(row[0], row[1], *row[2].split(", ")) for row in rows_of(site, "results.html", 2)]
    expected = []
    for name in BACKENDS:
        for dtype, backends in counts().items():
            words = [
                f"{optimizer} ({counted['deviates']} of {sum(counted.values())})"
                for optimizer, counted in backends[name].items()
                if "deviates" in counted
            ]
            expected += [(name, dtype, *words)] if words else []
    assert shown == expected and expected


@pytest.mark.norm("formulas.results")
def test_the_page_says_which_formula_a_backend_is_held_to(site):
    shown = {row[0]: set(row[1].split()) for row in rows_of(site, "results.html", 3)}
    held = {
        backend: {
            result["formula"]
            for name in EVERYONE
            for result in load(backend)["results"]
            if result["case"].startswith(f"{name.lower()}/") and result["formula"] != parse(name).name
        }
        for backend in BACKENDS
    }
    assert shown == {name: formulas for name, formulas in held.items() if formulas}


def test_the_page_shows_every_unsupported_case_with_its_reason(site):
    shown = {(row[0], row[1], row[3]): row[2] for row in rows_of(site, "results.html", 4)}
    expected = {}
    for backend in BACKENDS:
        results = load(backend)["results"]
        for name in EVERYONE:
            of_name = [result for result in results if result["case"].startswith(f"{name.lower()}/")]
            reasons = [why(result) for result in of_name if result["verdict"] == "unsupported"]
            for reason in set(reasons):
                expected[backend, name, reason] = f"{reasons.count(reason)} of {len(of_name)}"
            mixed = {why(result) for result in of_name if "/mixed/" in result["case"]}
            other = {reason for reason in set(reasons) - mixed if not reason.startswith("informative: ")}
            assert len(other) <= 1 or name in WHOLE
    assert shown == expected


def test_an_error_of_one_is_a_subnormal_number_that_jax_takes_for_zero():
    found = {
        (backend, result["case"].partition("/")[2])
        for backend in BACKENDS
        for result in load(backend)["results"]
        if result["verdict"] == "conforms" and result["worst"] and result["worst"]["excess"] > 0.995
    }
    assert found == {("optax", "special/subnormal"), ("keras", "special/subnormal")}


def test_the_page_of_formulas_lists_every_value_of_every_axis(site):
    shown, axis = set(), ""
    for row in rows_of(site, "guides/formulas.html", 0):
        axis = row[0].split()[0] if row[0] else axis
        shown.add((axis, row[1]))
        assert all(row[1:])
    assert shown == {(axis.name, value) for axis in AXES for value in axis.meaning}
    values = {(axis.name, value) for axis in AXES for values in axis.values.values() for value in values[1:]}
    open_ = ("ignored", "scaled", "replaced")  # which take any
    assert {pair for pair in values if pair[0] not in open_} == {pair for pair in shown if pair[0] not in open_}
