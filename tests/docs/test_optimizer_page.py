"""The build computes numbers for the page of an optimizer, and other derivations give the same."""

from __future__ import annotations

import inspect
import json
import math
import os
import re
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from bs4 import BeautifulSoup, Tag

import mlx_optimizers
from mlx_optimizers.conformance.case import default_rate
from mlx_optimizers.newton_schulz import newton_schulz
from tests.docs.copies import ROOT
from tests.expected import CLASSES, NAMES, WHOLE, record_of
from tests.support import require

WHOLE_CLASSES = tuple(getattr(mlx_optimizers, name) for name in WHOLE)
ELEMENTWISE = pytest.mark.parametrize("optimizer", CLASSES, ids=NAMES)
OPTIMIZERS = pytest.mark.parametrize("optimizer", [*CLASSES, *WHOLE_CLASSES], ids=(*NAMES, *WHOLE))


def page(site: Path, optimizer: type) -> BeautifulSoup:
    text = (site / f"generated/mlx_optimizers.{optimizer.__name__}.html").read_text("utf-8")
    return BeautifulSoup(text, "html.parser")


def rows(part: Tag, number: int = 0) -> list[list[str]]:
    body = part.find_all("table")[number].tbody
    return [[" ".join(cell.get_text().split()) for cell in row.find_all("td")] for row in body.find_all("tr")]


def bits_of_mlx(optimizer: type) -> Iterator[tuple[str, str]]:
    mx = require("mlx.core")
    theirs = getattr(require("mlx.optimizers"), optimizer.__name__)(default_rate(optimizer.__name__))
    w = {"w": mx.array([1.0])}
    for g in (1.0, -0.5, 0.25):
        w = theirs.apply_gradients({"w": mx.array([g])}, w)
        for slot in ("w", *optimizer.slots):
            value = w["w"] if slot == "w" else theirs.state["w"].get(slot, mx.zeros(1))
            yield slot, struct.pack(">f", value.item()).hex()


def single(bits: str) -> float:
    return struct.unpack(">f", bytes.fromhex(bits))[0]


@OPTIMIZERS
def test_the_table_of_three_steps_has_the_bits_of_mlx_and_a_value_between_its_ends(site, optimizer):
    shown = rows(page(site, optimizer).select_one("#three-steps"))
    if optimizer in mlx_optimizers.OPTIMIZERS:
        assert [(row[1], row[3]) for row in shown] == list(bits_of_mlx(optimizer))
    for _, letter, decimal, bits, exact, accepted in shown:
        assert np.float32(decimal) == np.float32(single(bits)), letter
        low, high = (np.float32(end) for end in (accepted.split(" … ") * 2)[:2])
        assert low <= np.float32(decimal) <= high
        # The ends are the outermost floats of a ball around the exact value, so the floats beyond them are outside it.
        below, above = np.nextafter(low, np.float32(-np.inf)), np.nextafter(high, np.float32(np.inf))
        assert float(below) < float(exact) < float(above)


def shown_code(site: Path, optimizer: type) -> dict[str, Any]:
    source = page(site, optimizer).select_one("#for-developers #order-of-operations pre").get_text()
    names = {"np": np, "math": math, "newton_schulz": newton_schulz}
    exec(compile(source, "page", "exec"), names)  # noqa: S102 - our own page
    return names


@pytest.mark.parametrize("optimizer", WHOLE_CLASSES, ids=WHOLE)
@pytest.mark.parametrize("shape", [(), (20,), (4, 5), (2, 3, 4)], ids=str)
def test_the_step_of_whole_arrays_that_is_shown_runs_and_gives_the_bits_of_the_class(site, optimizer, shape):
    shown, rng = shown_code(site, optimizer)["apply_single"], np.random.default_rng(0)
    rate = default_rate(optimizer.__name__)
    made = optimizer() if rate is None else optimizer(rate)
    new = np.float32(rng.normal(size=shape))
    w, slots = new.copy(), {}
    made.init_single(w, slots)
    for g in np.float32(rng.normal(size=(3, *shape))):
        new = made.apply_gradients(g, new)
        w = shown(made, g, w, slots)
    assert new.tobytes() == w.tobytes()
    assert {name: made.state[name].tobytes() for name in slots} == {name: x.tobytes() for name, x in slots.items()}


@ELEMENTWISE
def test_the_order_of_operations_that_is_shown_runs_and_gives_the_bits_of_the_class(site, optimizer):
    names = shown_code(site, optimizer)
    rng = np.random.default_rng(0)
    made, new = optimizer(0.1, **record_of(optimizer).full), np.float32(rng.normal(size=20))
    w, slots = new, [np.zeros_like(new) for _ in optimizer.slots]
    for g in np.float32(rng.normal(size=(3, 20))):
        new = made.apply_gradients(g, new)
        w, *slots = names["rule"](made.coefficients(np.float32), w, g, *slots)
    assert new.tobytes() == w.tobytes()
    assert [made.state[slot].tobytes() for slot in optimizer.slots] == [slot.tobytes() for slot in slots]


@OPTIMIZERS
def test_every_measured_error_is_within_its_bound(site, optimizer):
    measured = rows(page(site, optimizer).select_one("#error-and-bound"))
    assert [row[0] for row in measured] == ["float64", "float32", "bfloat16", "float16"]
    for dtype, error, bound, part, _ in measured:
        if optimizer is mlx_optimizers.Muon and dtype in ("bfloat16", "float16"):
            assert (error, bound) == ("–", "–"), "no matrix has a bound"
        else:
            assert float(error) <= float(bound)
        assert 0 < float(part) <= 1


@OPTIMIZERS
def test_what_frameworks_compute_is_what_the_reports_say(site, optimizer):
    part = page(site, optimizer).select_one("section#in-other-frameworks")
    prose = part.find("p").get_text()
    assert all(name in prose for name in ("torch", "optax", "Keras")), "the differences in words stand above the table"
    shown = rows(part)
    for row in shown:
        name, version = row[0].split(maxsplit=1)
        report = json.loads((ROOT / "docs" / "reports" / f"{name}.json").read_text("utf-8"))
        assert version == report["backend"]["version"]
        results = [
            result for result in report["results"] if result["case"].startswith(f"{optimizer.__name__.lower()}/")
        ]
        assert {result["verdict"] for result in results} >= {row[2].split()[0]}
        if row[2] != "unsupported":
            assert row[1].endswith(": " + results[0]["formula"])


@OPTIMIZERS
def test_a_page_has_its_plots_in_the_colours_of_the_theme_and_its_vectors(site, optimizer):
    soup = page(site, optimizer)
    plots = soup.select(".plot svg[role=img][aria-label]")
    assert len(plots) == 2
    assert all("var(--pst-color-primary)" in str(plot) for plot in plots)
    assert not re.search(r"#0[147a]0[258b]0[369c]\b", "".join(map(str, plots))), "a placeholder is left"
    identifiers = [tag["id"] for tag in soup.find_all(id=True)]
    assert len(identifiers) == len(set(identifiers))
    assert (site / "generated" / soup.select_one("#source-tests-and-vectors li a")["href"]).is_file()
    links = soup.select("#source-tests-and-vectors a:has(code)")
    assert [link.get_text() for link in links][1] == f"mlx_optimizers/{optimizer.__name__.lower()}.py"
    tests = [link.get_text() for link in links if link.get_text().startswith("tests/")]
    if optimizer in WHOLE_CLASSES:
        assert tests == [f"tests/test_{optimizer.__name__.lower()}.py"]
    else:
        assert len(tests) == 4
    for link in links[1:]:
        shown = BeautifulSoup((site / "generated" / link["href"]).read_text("utf-8"), "html.parser").find("pre")
        assert "".join(shown.get_text().split()).replace("[docs]", "") == "".join(
            (ROOT / link.get_text()).read_text("utf-8").split()
        )


def test_the_defaults_of_the_frameworks_are_those_of_their_signatures(site):
    os.environ.setdefault("KERAS_BACKEND", "jax")
    modules = {
        "MLX": require("mlx.optimizers"),
        "torch": require("torch").optim,
        "optax": require("optax"),
        "Keras": require("keras").optimizers,
    }
    names = {"decay": ("alpha", "decay", "rho"), "ε": ("eps", "epsilon"), "ρ": ("rho",), "κ": ("weight_decay",)}
    soup = BeautifulSoup((site / "guides/frameworks.html").read_text("utf-8"), "html.parser")
    shown = rows(soup.select_one("#other-defaults"))
    assert len(shown) == 9
    for what, *values in shown:
        optimizer, letter = what.split()
        for (library, module), value in zip(modules.items(), values, strict=True):
            found = {name.lower(): name for name in dir(module)}.get(optimizer.lower())
            if library == "optax":
                found = optimizer.lower()
            if value == "–":
                assert found is None
                continue
            parameters = inspect.signature(getattr(module, found)).parameters
            (default,) = [parameters[name].default for name in names[letter] if name in parameters]
            default = default[-1] if isinstance(default, list | tuple) else default
            assert value == ("none" if default is None else str(float(default))), (what, library)


def test_the_history_has_every_row_and_links_to_threads(site):
    soup = BeautifulSoup((site / "guides/mlx_history.html").read_text("utf-8"), "html.parser")
    table = soup.find("table")
    assert len(table.tbody.find_all("tr")) >= 13
    for link in table.find_all("a"):
        assert re.fullmatch(r"https://github\.com/ml-explore/mlx/issues/\d+", link["href"])
        assert link.get_text() == "#" + link["href"].rpartition("/")[2]


def test_the_picture_of_the_first_page_has_the_numbers_that_its_example_prints(site):
    soup = BeautifulSoup((site / "index.html").read_text("utf-8"), "html.parser")
    picture = " ".join(text.get_text() for text in soup.select(".plot svg text"))
    printed = next(block.get_text() for block in soup.select("pre") if "deviates" in block.get_text())
    got, low, high, exact = re.search(
        r"got (\S+) \(.*?\), accepted \[(\S+), (\S+)\]\s+exact (\S+),", printed, re.DOTALL
    ).groups()
    assert f"got {got}" in picture
    assert f"accepted: {low} to {high}" in picture
    (shown,) = re.findall(r"exact: (\S+)…", picture)
    assert exact.startswith(shown[:-1])  # its last digit is rounded
