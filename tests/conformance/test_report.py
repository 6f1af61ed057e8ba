"""The JSON report: the published schema, and each of its fields."""

from __future__ import annotations

import json
from importlib.metadata import version
from importlib.resources import files

import jsonschema
import numpy as np
import pytest

import mlx_optimizers
from mlx_optimizers.conformance import Report, Unsupported, check, matching
from mlx_optimizers.conformance.cases import recast
from mlx_optimizers.conformance.formats.html import html
from mlx_optimizers.conformance.formats.markdown import markdown
from mlx_optimizers.conformance.formats.text import text as human
from mlx_optimizers.conformance.schemas import schema
from tests.expected import EXPECTED
from tests.programs import Evaluated, Program, verdict
from tests.support import require

TOP = {"format", "suite", "backend", "summary", "results"}
RESULT = {"case", "optimizer", "formula", "verdict", "scalars", "worst", "diagnosis", "reason", "norm"}
WORST = {"quantity", "step", "index", "got", "low", "nearest", "high", "exact", "excess", "path"}
ONE_OF_EACH = ("plain/betas=0.8,0.95", "tiny/defaults", "wide/defaults", "zeros/defaults")
CASES = [matching(["Adam"], f"adam/{label}")[0] for label in ONE_OF_EACH]


class Mixed:
    """ε inside the root: plain with wide betas cannot tell, tiny deviates; wide is unsupported, zeros fails."""

    name, version, device = "mixed", "7.5", "gpu"

    def claim(self, optimizer):
        return optimizer

    def run(self, case):
        if case.regime == "wide":
            raise Unsupported("too wide")
        if case.regime == "zeros":
            raise ZeroDivisionError("zero")
        return Evaluated("Adam[eps=inside_sqrt]").run(case)


@pytest.fixture(scope="module")
def validator():
    jsonschema.Draft202012Validator.check_schema(schema("report"))
    return jsonschema.Draft202012Validator(schema("report"))


@pytest.fixture(scope="module")
def mixed():
    return check(Mixed(), CASES)


def test_a_report_is_as_its_schema_says_and_survives_json(validator, mixed):
    loaded = json.loads(mixed.dumps())
    validator.validate(loaded)
    assert loaded == mixed.to_json()
    assert set(loaded) == TOP
    assert loaded["format"] == "mlx-optimizers-report/1"
    assert loaded["suite"] == {
        "version": mlx_optimizers.__version__,
        "numpy": version("numpy"),
        "mpmath": version("mpmath"),
    }
    assert loaded["backend"] == {"name": "mixed", "version": "7.5", "device": "gpu"}
    assert loaded["summary"] == {"cases": 4, "conforms": 1, "deviates": 1, "unsupported": 1, "failed": 1}
    assert all(set(result) == RESULT for result in loaded["results"])


def test_each_verdict_has_its_fields(mixed):
    good, bad, unsupported, failed = mixed.to_json()["results"]
    assert [r["verdict"] for r in (good, bad, unsupported, failed)] == [
        "conforms",
        "deviates",
        "unsupported",
        "failed",
    ]
    assert good["case"] == "adam/plain/betas=0.8,0.95"
    assert {(r["optimizer"], r["formula"]) for r in (good, bad, unsupported, failed)} == {("Adam", "Adam")}
    assert set(good["worst"]) == set(bad["worst"]) == WORST
    assert (good["diagnosis"], good["reason"]) == ([], None)
    assert good["worst"]["excess"] <= 1 < bad["worst"]["excess"]
    assert "Adam[eps=inside_sqrt]" in bad["diagnosis"]
    assert (bad["scalars"], bad["reason"]) == ("float32", None)
    assert (unsupported["worst"], unsupported["diagnosis"], unsupported["reason"]) == (None, [], "too wide")
    assert (failed["worst"], failed["diagnosis"]) == (None, [])
    assert failed["reason"] == "ZeroDivisionError: zero"


def test_worst_is_the_element_that_it_says(mixed):
    bad = mixed.to_json()["results"][1]
    case = CASES[1]
    got = Evaluated("Adam[eps=inside_sqrt]").run(case)
    worst = bad["worst"]
    values = {"parameter": got.parameters, **got.state}[worst["quantity"]]
    assert worst["got"] == format(values[worst["step"] - 1, worst["index"]].view(np.uint32), "08x")
    floats = [np.uint32(int(worst[key], 16)).view(np.float32) for key in ("low", "nearest", "high")]
    assert floats == sorted(floats)
    # The decimal text, rounded to float32, is the nearest; 30 digits are enough to tell.
    assert np.float32(np.longdouble(worst["exact"])) == floats[1]
    assert 20 < len(worst["exact"].lstrip("-0.").partition("E")[0].replace(".", "")) <= 30


def test_an_excess_without_a_value_is_null_and_nothing_else_changes(validator):
    def nothing(h, t, w, g, m, v):
        return np.full_like(w, np.nan), m, v

    report = check(Program(nothing, state=False), CASES[:1], formula="Adam")
    validator.validate(json.loads(report.dumps()))
    worst = report.to_json()["results"][0]["worst"]
    assert (worst["excess"], worst["got"]) == (None, "7fc00000")


@pytest.mark.parametrize(("dtype", "digits"), [("float16", 4), ("bfloat16", 4), ("float64", 16)])
def test_bit_patterns_are_as_long_as_the_dtype(validator, dtype, digits):
    if dtype == "bfloat16":
        require("ml_dtypes")
    case = recast(CASES[0], dtype)
    report = check(Program(lambda h, t, w, g, m, v: (w, m, v), "Adam"), [case])
    loaded = json.loads(report.dumps())
    validator.validate(loaded)
    (result,) = loaded["results"]
    assert result["case"] == f"adam/plain/betas=0.8,0.95/{dtype}"
    assert {len(result["worst"][key]) for key in ("got", "low", "nearest", "high")} == {digits}


@pytest.mark.parametrize(
    ("words", "status"),
    [
        (["conforms"], 0),
        (["conforms", "unsupported"], 0),
        (["conforms", "deviates"], 1),
        (["conforms", "failed"], 1),
        (["failed"], 1),
        (["unsupported", "deviates"], 1),
        (["unsupported", "unsupported"], 3),
        ([], 3),
    ],
)
def test_exit_statuses(words, status):
    results = [verdict("adam/plain/defaults", "Adam", word) for word in words]
    report = Report("b", "1", "cpu", results)
    assert report.status == status
    counts = report.to_json()["summary"]
    assert counts.pop("cases") == len(words) == sum(counts.values())


def _broken(loaded, change):
    changed = json.loads(json.dumps(loaded))
    change(changed)
    return changed


@pytest.mark.parametrize(
    "change",
    [
        lambda r: r.pop("suite"),
        lambda r: r.update(format="mlx-optimizers-report/2"),
        lambda r: r.update(extra=1),
        lambda r: r["summary"].pop("failed"),
        lambda r: r["summary"].update(cases=-1),
        lambda r: r["results"][0].pop("reason"),
        lambda r: r["results"][0].update(verdict="passes"),
        lambda r: r["results"][0].update(scalars="float16"),
        lambda r: r["results"][0].update(worst=None),
        lambda r: r["results"][0].update(diagnosis=["Adam"]),
        lambda r: r["results"][0]["worst"].update(got="3F800000"),
        lambda r: r["results"][0]["worst"].update(got="3f80000"),
        lambda r: r["results"][0]["worst"].update(step=0),
        lambda r: r["results"][0]["worst"].update(excess=-1),
        lambda r: r["results"][0]["worst"].update(excess="inf"),
        lambda r: r["results"][2].update(reason=None),
        lambda r: r["results"][3].update(worst=r["results"][0]["worst"]),
    ],
)
def test_the_schema_refuses_what_the_interface_does_not_have(validator, mixed, change):
    loaded = mixed.to_json()
    validator.validate(loaded)
    with pytest.raises(jsonschema.ValidationError):
        validator.validate(_broken(loaded, change))


@pytest.mark.parametrize("of", ["report", "vectors"])
def test_a_schema_has_no_address_and_enumerates_what_the_catalog_has(of):
    assert schema(of)["$id"] == f"urn:mlx-optimizers:schema:{of}:1"
    text = files("mlx_optimizers.conformance").joinpath("schemas", f"{of}.schema.json").read_text("utf-8")
    assert not any(f'"{name}"' in text for name in EXPECTED)
    filled = json.dumps(schema(of))
    for name, record in EXPECTED.items():
        assert of == "report" or f'"{name}"' in filled
        assert all(f'"{slot}"' in filled for slot in record.slots)


def test_a_case_that_could_not_be_tested_has_no_worst():
    """Where any number would do there is none; the schema allows that in a case that deviates."""
    result = verdict("adam/plain/defaults", "Adam", "deviates", scalars="float32", reason="no element could be tested")
    jsonschema.validate(Report("b", "1", "cpu", [result]).to_json(), schema("report"))


@pytest.mark.parametrize(
    ("version", "checked", "newer"),
    [
        ("2.13.0+cpu", "2.13.0", False),
        ("2.12.1", "2.13.0", False),
        ("2.13.1", "2.13.0", True),
        ("2.14.0a0+git", "2.13.0", True),
        ("10.0", "9.9.9", True),
        ("unknown", "2.13.0", False),
        ("99.0", None, False),
    ],
)
def test_a_backend_newer_than_the_one_that_was_checked_is_said_to_be(validator, version, checked, newer):
    report = Report("torch", version, "cpu", [], checked=checked)
    loaded = json.loads(report.dumps())
    validator.validate(loaded)
    assert loaded["backend"].get("checked") == (checked if newer else None)
    sentence = f"torch {version} is newer than {checked}, whose claims were checked."
    assert (sentence in human(report)) == newer
    assert (sentence in markdown(report).replace("\\", "")) == newer
    assert (sentence in html(report)) == newer


def test_what_a_check_reports_is_the_version_that_the_backend_names(mixed):
    assert mixed.checked is None
    backend = Mixed()
    backend.checked = "7.4"
    assert check(backend, CASES[:1]).newer
