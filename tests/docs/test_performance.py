"""The page of speed shows the committed run, which is of every optimizer and every peer at its pinned version."""

from __future__ import annotations

import json
import statistics
import tomllib

import pytest

from mlx_optimizers.execution import compiled, tuning
from tests.docs.copies import ROOT
from tests.expected import EXPECTED, NAMES, WHOLE
from tests.support import require

bs4 = require("bs4")

RUN = json.loads((ROOT / "docs" / "performance.json").read_text("utf-8"))
CELLS = {(cell["workload"], cell["optimizer"], cell["contender"]): cell for cell in RUN["cells"]}
WORKLOADS = ["1e7", "300x3072", "mlp", "gpt2"]
MATRIX = "1024x1024"
PEERS = ["torch", "torch-foreach", "torch-fused", "optax", "mlx", "mlx-compiled"]

HALF_A_DIGIT = 1 / 200
"""Three digits are shown, so that a number is off by half of the last at most."""


@pytest.fixture(scope="module")
def page(site):
    return bs4.BeautifulSoup((site / "performance.html").read_text("utf-8"), "html.parser").find("article")


def test_the_run_is_whole():
    assert RUN["format"] == "mlx-optimizers-bench/1"
    for workload in WORKLOADS:
        for optimizer in NAMES:
            assert {"numpy", "compiled"} <= {key[2] for key in CELLS if key[:2] == (workload, optimizer)}
            for peer in PEERS:
                cell = CELLS[workload, optimizer, peer]
                there = EXPECTED[optimizer]
                absent = there.claims.get(peer.partition("-")[0], optimizer) is None
                lacks = absent or (peer == "torch-fused" and not there.fused)
                assert ("missing" in cell) == lacks, cell


def test_the_run_has_the_optimizers_of_whole_arrays():
    """With fewer peers: torch has its loop alone for Muon, nothing of it is fused, and no byte is a bound."""
    missing = {"Adafactor": {"torch-fused", "torch-mm"}, "Muon": {"torch-foreach", "torch-fused"}}
    for optimizer in WHOLE:
        cells = {key[2]: cell for key, cell in CELLS.items() if key[:2] == (MATRIX, optimizer)}
        assert set(cells) == {"numpy", *PEERS, "torch-mm"}
        assert {peer for peer, cell in cells.items() if "missing" in cell} == missing[optimizer]
    assert not any("over_floor" in cell for key, cell in CELLS.items() if key[1] in WHOLE)


def test_muon_costs_little_more_than_its_products_and_adafactor_less_than_mlx():
    """What was measured, in a file; no time is taken here."""
    assert CELLS[MATRIX, "Muon", "torch-mm"]["numpy_ratio"] > 1 / 1.3
    assert CELLS[MATRIX, "Adafactor", "mlx"]["numpy_ratio"] > 1


def test_the_run_is_of_the_pinned_versions():
    """Run `make bench` and copy its JSON to docs/performance.json when this fails: a pin has moved on."""
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]["optional-dependencies"]
    for library, extra in (("torch", "torch"), ("optax", "optax"), ("mlx", "mlx")):
        pin = next(line for line in extras[extra] if line.startswith(library)).split(";")[0].partition("==")[2].strip()
        assert RUN["machine"]["versions"][library].split("+")[0] == pin


def test_the_page_names_the_machine(page):
    text = page.get_text()
    for word in (RUN["machine"]["processor"], RUN["machine"]["python"], *RUN["machine"]["versions"].values()):
        assert word in text
    assert f"{RUN['machine']['cores']} cores" in text and f"median of {RUN['rounds']} rounds" in text


def test_the_copy_loop_is_called_no_bound(page):
    """Of the committed run several steps are faster, by the bytes that they move."""
    assert min(cell.get("over_floor", 1) for cell in CELLS.values()) < 1
    assert "The copy loop is a ← a + s·b" in page.get_text()
    assert "It is no bound" in page.get_text()
    headers = [table.find_all("th")[2].get_text(strip=True) for table in page.find_all("table", class_="speed")[:-1]]
    assert [*dict.fromkeys(headers)] == ["× the copy loop", "torch"] and headers.count("torch") == 1
    assert "floor" not in page.get_text()


def test_the_tables_are_those_of_the_run(page):
    tables = [
        [[cell.get_text(strip=True) for cell in row.find_all("td")] for row in table.find("tbody").find_all("tr")]
        for table in page.find_all("table", class_="speed")
    ]
    *ratios, costs = tables
    whole = ratios.pop(len(WORKLOADS))
    order = [(workload, own) for own in ("numpy", "compiled") for workload in WORKLOADS]
    assert len(ratios) == len(order)
    for (workload, own), rows in zip(order, ratios, strict=True):
        assert [row[0] for row in rows] == [*NAMES, "geometric mean"]
        for name, milliseconds, floor, *peers in rows[:-1]:
            cell = CELLS[workload, name, own]
            assert float(milliseconds) == pytest.approx(1e3 * cell["seconds"], rel=HALF_A_DIGIT)
            assert float(floor) == pytest.approx(cell["over_floor"], rel=HALF_A_DIGIT)
            for peer, shown in zip(PEERS, peers, strict=True):
                value = CELLS[workload, name, peer].get(f"{own}_ratio")
                assert shown == "–" if value is None else float(shown) == pytest.approx(value, rel=HALF_A_DIGIT)
        for peer, shown in zip(PEERS, rows[-1][3:], strict=True):
            values = [CELLS[workload, name, peer].get(f"{own}_ratio") for name in NAMES]
            mean = statistics.geometric_mean(value for value in values if value is not None)
            assert float(shown) == pytest.approx(mean, rel=HALF_A_DIGIT)
    peers = [*(peer for peer in PEERS if peer != "torch-fused"), "torch-mm"]
    assert [row[0] for row in whole] == list(WHOLE)
    for name, milliseconds, *shown in whole:
        assert float(milliseconds) == pytest.approx(1e3 * CELLS[MATRIX, name, "numpy"]["seconds"], rel=HALF_A_DIGIT)
        values = [CELLS[MATRIX, name, peer].get("numpy_ratio") for peer in peers]
        assert [value is None for value in values] == [figure == "–" for figure in shown]
        assert [float(x) for x in shown if x != "–"] == pytest.approx([x for x in values if x], rel=HALF_A_DIGIT)
    assert len(costs) == len(RUN["overhead"]) == len(PEERS) + 2


def test_what_the_page_says_of_the_compiled_path(page):
    assert f"trees of at least {tuning.LEAST:,} elements" in page.get_text().replace("\n", " ")
    assert f"contiguous and of {' or '.join(compiled.DTYPES)}" in page.get_text().replace("\n", " ")
