"""The libraries in other dtypes than float32: docs/dtypes.json holds today, and what deviates is known to the bit."""

from __future__ import annotations

import json
import sys
from functools import cache

import pytest

from mlx_optimizers.backends import BACKENDS
from mlx_optimizers.conformance import check, decisive, matching
from mlx_optimizers.conformance.diagnosis import Diagnosis
from scripts.write_reports import DTYPES, by_optimizer
from tests.backends.keras_source import OPTIMIZERS, keras_program
from tests.docs.copies import ROOT
from tests.expected import NAMES, WHOLE
from tests.programs import formula_cases
from tests.reports import opened
from tests.support import require

pytestmark = pytest.mark.usefixtures("remembered", "undiagnosed")

EVERYONE = (*NAMES, *WHOLE)
LOW = ("float16", "bfloat16")

DAILY = {
    "reference": ("Adafactor", "Adamax", "RMSprop"),
    "mlx": ("Adam", "Adafactor", "Lion"),
    "torch": ("Adagrad", "RMSprop", "Adamax"),
    "torch-foreach": ("AdaDelta", "Adamax", "RMSprop"),
    "torch-fused": ("AdamW", "Adagrad", "Adam"),
    "optax": ("RMSprop", "Adagrad", "Adamax"),
    "keras": ("AdaDelta", "Lion", "Adagrad"),
}
"""One optimizer for each backend and dtype, in the order of `DTYPES`; the slow tests hold the others too."""

DEVIATING = {
    ("keras", "float16"): {*OPTIMIZERS},
    ("keras", "bfloat16"): {*OPTIMIZERS} - {"AdaDelta"},
    ("torch", "bfloat16"): {"Muon"},
    ("torch-fused", "float16"): {"SGD"},
    ("torch-fused", "bfloat16"): {"SGD"},
}
"""All that deviates. Tests below say why; the guide to half precision does too."""


@pytest.fixture
def undiagnosed(monkeypatch):
    """Verdicts alone are asked for here; a diagnosis takes longer than they do."""
    monkeypatch.setattr(sys.modules["mlx_optimizers.conformance.check"], "diagnose", lambda *given: Diagnosis([]))


@cache
def committed():
    return json.loads((ROOT / "docs" / "dtypes.json").read_text("utf-8"))


def in_float32(name):
    """Load the report of a backend in the cases of the formulas, which are those of the other dtypes."""
    report, ids = json.loads((ROOT / "docs" / "reports" / f"{name}.json").read_text("utf-8")), of_formulas()
    return {**report, "results": [result for result in report["results"] if result["case"] in ids]}


@cache
def of_formulas():
    return {case.id for case in formula_cases()}


def report_in(name, dtype, optimizers, pattern=None):
    if dtype == "bfloat16":
        require("ml_dtypes")
    backend = opened(name)
    return check(backend, decisive(backend, matching(optimizers, pattern, [dtype])))


def test_every_backend_and_dtype_is_there_and_what_deviates_is_known():
    counts = committed()
    assert {dtype: list(backends) for dtype, backends in counts.items()} == {dtype: list(BACKENDS) for dtype in DTYPES}
    deviating = {}
    for dtype, backends in counts.items():
        for name, found in backends.items():
            words = {optimizer: set(counted) for optimizer, counted in found["results"].items()}
            assert list(words) == list(EVERYONE)
            assert found["version"] == in_float32(name)["backend"]["version"]
            assert not {"failed", "not consistent"} & set().union(*words.values())
            deviating[name, dtype] = {optimizer for optimizer, some in words.items() if "deviates" in some}
    assert {key: optimizers for key, optimizers in deviating.items() if optimizers} == DEVIATING


def test_in_float64_a_backend_conforms_in_what_it_does_in_float32():
    for name, found in committed()["float64"].items():
        for optimizer, counts in by_optimizer(in_float32(name)).items():
            now = found["results"][optimizer]
            assert now.get("conforms", 0) >= counts.get("conforms", 0)  # in float64 fewer squares vanish
            assert not {"deviates", "failed"} & set(now) and sum(now.values()) == sum(counts.values())


def hold(name, dtype, optimizers):
    """Run scripts/write_reports.py when this fails: the suite, a formula, the interval or the backend has changed."""
    report = report_in(name, dtype, optimizers)
    assert by_optimizer(report.to_json()) == {
        optimizer: counted
        for optimizer, counted in committed()[dtype][name]["results"].items()
        if optimizer in optimizers
    }
    assert all(result.decided for result in report.results if result.word == "conforms")


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", BACKENDS)
def test_one_optimizer_of_each_backend_and_dtype_has_the_committed_counts(name, dtype):
    hold(name, dtype, [DAILY[name][DTYPES.index(dtype)]])


@pytest.mark.slow
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", BACKENDS)
def test_every_optimizer_of_each_backend_and_dtype_has_the_committed_counts(name, dtype):
    hold(name, dtype, EVERYONE)


@pytest.mark.parametrize("dtype", LOW)
@pytest.mark.parametrize("name", ["reference", "mlx", "torch"])
def test_plain_data_in_16_bits(name, dtype):
    counts = report_in(name, dtype, NAMES, "*/plain/*").counts()
    assert counts["deviates"] == counts["failed"] == 0
    words = {result["case"]: result["verdict"] for result in in_float32(name)["results"]}
    plain = {case.id for case in matching(NAMES, "*/plain/*")}
    assert counts["conforms"] == sum(words[identifier] == "conforms" for identifier in plain)


# What deviates, and why.


@pytest.mark.parametrize("dtype", LOW)
def test_fused_sgd_of_torch_leaves_full_vectors_of_low_precision_where_they_are(dtype):
    """A bug of torch 2.13.0 on the CPU, pytorch issue 191763: with AVX2 a vector has 16 elements."""
    report = report_in("torch-fused", dtype, ["SGD"], "*/plain/defaults/*")
    (result,) = report.results
    assert result.word == "deviates"
    run = opened("torch-fused").run(result.case)
    moved = run.parameters[-1] != result.case.parameter
    assert not moved[:16].any() and moved[16:].all()


@pytest.mark.parametrize(("dtype", "nesterov"), [("bfloat16", True), ("bfloat16", False), ("float32", False)])
def test_muon_of_torch_overwrites_its_buffer_in_bfloat16_without_nesterov(dtype, nesterov):
    """torch 2.13.0, torch/optim/_muon.py: ``grad.bfloat16()`` is the buffer itself, and ``div_`` scales that."""
    torch = require("torch")
    w = torch.nn.Parameter(torch.zeros(2, 2, dtype=getattr(torch, dtype)))
    w.grad = torch.eye(2, dtype=w.dtype) * 4
    optimizer = torch.optim.Muon([w], lr=0.1, momentum=0.5, nesterov=nesterov, weight_decay=0)
    optimizer.step()
    buffer = optimizer.state[w]["momentum_buffer"]
    overwritten = dtype == "bfloat16" and not nesterov
    assert buffer[0, 0].item() == (pytest.approx(0.5**0.5, rel=2**-8) if overwritten else 2.0)


def test_muon_of_torch_deviates_by_its_buffer_alone():
    for result in report_in("torch", "bfloat16", ["Muon"], "*/plain/*").results:
        assert (result.word == "deviates") == ("nesterov=false" in result.case.id)
        assert result.first is None or result.first.quantity == "v"


def same_bits(run, other):
    arrays = {"parameter": (run.parameters, other.parameters)}
    arrays |= {name: (values, other.state[name]) for name, values in run.state.items()}
    return {name: a.astype(float).tobytes() == b.astype(float).tobytes() for name, (a, b) in arrays.items()}


REGIMES = ["tiny", *(pytest.param(name, marks=pytest.mark.slow) for name in ("plain", "wide", "zeros", "edge"))]


@pytest.mark.parametrize("dtype", LOW)
@pytest.mark.parametrize("regime", REGIMES)
def test_keras_computes_what_its_source_says_bit_for_bit(dtype, regime):
    require("ml_dtypes")
    backend = opened("keras")
    for case in matching(list(OPTIMIZERS), f"*/{regime}/*", [dtype]):
        if case.level == "informative":
            continue
        same = same_bits(backend.run(case), keras_program(case.optimizer).run(case))
        assert all(same.values()), (case.id, same)


@pytest.mark.parametrize("dtype", LOW)
@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_why_keras_deviates(optimizer, dtype):
    """In Adam, AdamW and Lion by coefficients formed in 16 bits; in Adamax and AdaDelta by products that underflow."""
    require("ml_dtypes")
    words = {}
    for mended in (False, True):
        for wide in (False, True):
            program = keras_program(optimizer, mended=mended, wide=wide)
            counts = check(program, decisive(program, matching([optimizer], None, [dtype]))).counts()
            words[mended, wide] = counts["deviates"]
            assert counts["failed"] == 0
    products = dtype == "float16" and optimizer in ("AdaDelta", "Adamax")
    found = committed()[dtype]["keras"]["results"][optimizer].get("deviates", 0)
    assert words[False, False] == found
    assert words[True, True] == 0
    assert words[True, False] == (found if products else 0)
    assert (words[False, True] == 0) == (products or found == 0)
