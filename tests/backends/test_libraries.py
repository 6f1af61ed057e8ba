"""The libraries that are checked: what they claim, what they cannot express, and that they conform."""

from __future__ import annotations

import importlib.util
import json
import os
import re
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import pytest

import mlx_optimizers
from mlx_optimizers.backends import BACKENDS, Unavailable, open_backend
from mlx_optimizers.cli import main
from mlx_optimizers.conformance import check, matching, parse
from tests.expected import EXPECTED, NAMES, WHOLE
from tests.reports import COMPILING, LIBRARIES, each_backend, looked_at, opened, report_of
from tests.support import require

pytestmark = pytest.mark.usefixtures("remembered")

PAGES = ("reference", "mlx")
"""The backends that compute the page's formulas."""


MIXED = {
    "mlx": "MLX keeps its state in the dtype of the gradient",
    "torch": "torch takes no gradient of another dtype than the parameter has",
    "optax": "optax computes (1 − β)g in the dtype of the gradient",
}
"""Why a library is held to nothing where gradients are of another dtype than their parameter."""


def claimed(name, optimizer):
    """Look up the formula that a backend says it computes: the page's, unless the library says another."""
    claims = {} if name in PAGES else EXPECTED[optimizer].claims
    return claims.get(name.partition("-")[0]) or optimizer


def lacking(name, optimizer):
    """Say why a library has no such optimizer, or None."""
    if name in PAGES:
        return None
    library, there = name.partition("-")[0], EXPECTED[optimizer]
    module = {"torch": "torch.optim", "optax": "optax", "keras": "keras.optimizers"}[library]
    if there.claims[library] is None:
        return f"{module} has no {optimizer}"
    return f"{module} has no fused {optimizer}" if name == "torch-fused" and not there.fused else None


def unsupported(name):
    """List everything that a library cannot express in float32, by the identifiers of the cases."""
    lacks = {f"{optimizer.lower()}/*": lacking(name, optimizer) for optimizer in NAMES}
    beyond = dict(EXPECTED[optimizer].beyond[name] for optimizer in NAMES if name in EXPECTED[optimizer].beyond)
    reason = MIXED.get(name.partition("-")[0])
    if reason is None and importlib.util.find_spec("ml_dtypes") is None:
        reason = "dtype bfloat16 needs the package ml_dtypes"
    mixed = {"*/mixed/*": reason} if reason else {}
    return {**{pattern: reason for pattern, reason in lacks.items() if reason}, **beyond, **mixed}


def results_of(name):
    """Select the results of the optimizers that have a record in ``tests/expected.py``."""
    return [result for result in report_of(name).results if result.case.optimizer in NAMES]


def test_every_backend_is_here():
    assert list(BACKENDS) == list(LIBRARIES)


@each_backend
def test_claims(name):
    backend = opened(name)
    for optimizer in NAMES:
        assert backend.claim(optimizer) == claimed(name, optimizer)


@each_backend
def test_conforms_to_what_it_claims_in_every_case(name):
    results = results_of(name)
    assert [(r.case.id, r.word, r.first, r.reason) for r in results if r.word in ("deviates", "failed")] == []
    assert [r.case.id for r in results if r.word == "conforms" and r.untested and r.case.regime != "special"] == []
    assert {r.formula.name for r in results} == {parse(claimed(name, optimizer)).name for optimizer in NAMES}


@each_backend
def test_what_is_unsupported_is_what_is_documented(name):
    run = {case.id for case in looked_at(name)}
    documented = {
        case.id: reason
        for pattern, reason in unsupported(name).items()
        for case in matching(NAMES, pattern)
        if case.id in run
    }
    missing = {r.case.id: r.reason for r in results_of(name) if r.word == "unsupported" and not r.informative}
    assert missing == documented


@each_backend
def test_a_changing_learning_rate_works_in_every_optimizer(name):
    changing = [r for r in results_of(name) if "learning_rate=changing" in r.case.id and r.word == "conforms"]
    assert {r.case.optimizer for r in changing} == {
        optimizer for optimizer in NAMES if lacking(name, optimizer) is None
    }


@each_backend
def test_the_profile_of_scalars_that_was_needed(name):
    needed = {r.case.optimizer for r in results_of(name) if r.word == "conforms" and r.scalars == "float32"}
    assert needed == {optimizer for optimizer in NAMES if name in EXPECTED[optimizer].single}


@each_backend
def test_version_and_device_are_in_the_report(name):
    backend = report_of(name).to_json()["backend"]
    versions = {
        "reference": mlx_optimizers.__version__,
        "keras": rf"{re.escape(version('keras'))} on (jax|torch)" if name == "keras" else "",
    }
    package = name.partition("-")[0]
    expected = versions.get(name) or re.escape(version(package)) + (r"(\+\w+)?" if package == "torch" else "")
    assert (backend["name"], backend["device"]) == (name, "cpu")
    assert re.fullmatch(expected, backend["version"])


@each_backend
def test_state_is_shown_and_held_to_the_interval(name):
    backend = opened(name)
    for case in matching(NAMES, "*/plain/*"):
        if any(r.case.id == case.id and r.word == "conforms" for r in results_of(name)):
            slots = EXPECTED[case.optimizer].slots
            shown = set(backend.run(case).state)
            if EXPECTED[case.optimizer].idle and not case.hyperparameters["momentum"]:
                assert shown <= set(slots)  # without momentum most keep no buffer
            else:
                assert shown == set(slots)


@pytest.mark.slow
@pytest.mark.parametrize("name", COMPILING)
def test_every_size_conforms(name):
    """Those that the other tests leave out, as each size takes a compilation of its own."""
    sizes = matching(NAMES, "*/sizes/*")
    documented = {case.id for pattern in unsupported(name) for case in matching(NAMES, pattern)}
    words = {result.case.id: result.word for result in check(opened(name), sizes).results}
    assert words == {case.id: "unsupported" if case.id in documented else "conforms" for case in sizes}


@pytest.mark.parametrize("name", ["mlx", "optax"])
def test_what_is_not_claimed_is_run_where_a_formula_is_asked_for(name):
    cases = matching(["Adam"], "*/mixed/*")
    formula = claimed(name, "Adam")
    (result,) = check(opened(name), cases, formula=formula).results
    assert result.word == "deviates" and result.formula.name == formula


def test_keras_on_torch():
    opened("keras")
    require("torch")
    run = subprocess.run(
        [sys.executable, "-c", "from tests.reports import report_of; print(report_of('keras').dumps())"],
        cwd=Path(__file__).parents[2],
        env={**os.environ, "KERAS_BACKEND": "torch"},
        capture_output=True,
        text=True,
        check=True,
    )
    found = json.loads(run.stdout)
    assert found["backend"]["version"] == f"{version('keras')} on torch"
    assert found["summary"]["deviates"] == found["summary"]["failed"] == 0
    results = [r for r in found["results"] if r["optimizer"] not in WHOLE]
    missing = [r for r in results if r["verdict"] == "unsupported" and not r["reason"].startswith("informative: ")]
    patterns = ("sgd/*dampening=*", "*/mixed/*", "lion/tiny/betas=0.0,0.4")
    assert {r["case"] for r in missing} == {case.id for pattern in patterns for case in matching(NAMES, pattern)}


def test_opening_one_imports_its_library_alone():
    program = (
        "import sys; from mlx_optimizers import cli, testing; from mlx_optimizers.backends import open_backend; "
        "open_backend('reference'); "
        "print([x for x in ('jax', 'keras', 'mlx', 'optax', 'rich', 'torch') if x in sys.modules])"
    )
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert run.stdout == "[]\n"


@pytest.mark.parametrize(
    ("name", "library", "extra"),
    [
        ("mlx", "mlx", "mlx"),
        ("torch", "torch", "torch"),
        ("torch-fused", "torch", "torch"),
        ("torch:torch.optim:Adam", "torch", "torch"),
        ("optax", "optax", "optax"),
        ("optax", "jax", "optax"),
        ("optax:optax:adam", "optax", "optax"),
        ("keras", "keras", "keras"),
    ],
)
def test_a_missing_library_is_unavailable_and_names_the_extra(name, library, extra, monkeypatch, capsys):
    for module in list(sys.modules):
        if module == library or module.startswith(f"{library}."):
            monkeypatch.setitem(sys.modules, module, None)
    monkeypatch.setitem(sys.modules, library, None)
    monkeypatch.delitem(sys.modules, f"mlx_optimizers.backends.{extra}", raising=False)
    with pytest.raises(Unavailable, match=re.escape(f"pip install '.[{extra}]'")):
        open_backend(name)
    assert main(["check", name, "--optimizer", "Adam"]) == 3
    printed = capsys.readouterr()
    assert printed.out == ""
    assert "nothing was executed" in printed.err and f"'.[{extra}]'" in printed.err
    monkeypatch.undo()
    importlib.invalidate_caches()


def test_the_extras_named_exist():
    import tomllib
    from pathlib import Path

    project = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text("utf-8"))["project"]
    extras = {module for module, _, _ in BACKENDS.values()} - {"reference"}
    assert extras <= set(project["optional-dependencies"])


@pytest.mark.parametrize("name", ["reference", "mlx", "torch", "optax", "keras"])
def test_a_device_that_is_not_there_is_unavailable(name, capsys):
    for library in LIBRARIES[name]:
        require(library)
    if name == "torch" and require("torch").cuda.is_available():
        assert open_backend(name, "gpu").device == "gpu"
        return
    with pytest.raises(Unavailable, match=r"(?i)gpu"):
        open_backend(name, "gpu")
    assert main(["check", name, "--device", "gpu"]) == 3
    assert "nothing was executed" in capsys.readouterr().err


def test_torch_held_to_the_page_is_named_bias_corrected(capsys):
    opened("torch")
    assert main(["check", "torch", "--as", "Adam"]) == 1
    printed = " ".join(capsys.readouterr().out.split())
    assert "It computes Adam with bias correction: Adam[bias_correction=true]" in printed
    assert "or, by these cases" not in printed


def test_optax_held_to_the_page_is_named_with_eps_inside_the_root(capsys):
    opened("optax")
    assert main(["check", "optax", "--as", "RMSprop", "--format", "json"]) == 1
    results = json.loads(capsys.readouterr().out)["results"]
    assert {r["optimizer"] for r in results} == {"RMSprop"}
    assert {tuple(r["diagnosis"]) for r in results if r["verdict"] == "deviates"} == {("RMSprop[eps=inside_sqrt]",)}


def test_an_unknown_backend_is_a_usage_error(capsys):
    with pytest.raises(ValueError, match="unknown backend 'nonesuch'; known are reference, mlx, torch"):
        open_backend("nonesuch")
    assert main(["check", "nonesuch"]) == 2
    assert "unknown backend 'nonesuch'" in capsys.readouterr().err
