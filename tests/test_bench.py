"""The benchmark measures every contender that is there, and its tables and the page of speed say its numbers."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys

import pytest

from tests.docs.copies import ROOT
from tests.expected import EXPECTED, NAMES, WHOLE
from tests.support import require

require("numba")


def script(name):
    spec = importlib.util.spec_from_file_location(name, ROOT / "scripts" / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def quick(tmp_path_factory):
    """Run two optimizers and MLX for a short time: the JSON, and the printed text."""
    require("mlx.core")
    output = tmp_path_factory.mktemp("bench") / "run.json"
    arguments = [
        "--quick",
        "--rounds=1",
        "--no-oracle",
        "--workload=mlp",
        "--optimizer=Lion",
        "--optimizer=SGD",
        "-o",
        str(output),
    ]
    contenders = [f"--contender={name}" for name in ("numpy", "compiled", "mlx", "torch-fused")]
    command = [sys.executable, str(ROOT / "scripts" / "bench.py"), *arguments, *contenders]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return json.loads(output.read_text("utf-8")), done.stdout


def test_each_contender_is_measured_or_said_to_be_missing(quick):
    result, printed = quick
    assert result["format"] == "mlx-optimizers-bench/1"
    for optimizer in ("Lion", "SGD"):
        cells = {cell["contender"]: cell for cell in result["cells"] if cell["optimizer"] == optimizer}
        assert set(cells) == {"numpy", "compiled", "mlx", "torch-fused", "triad"}
        for name in ("numpy", "compiled"):
            assert cells[name]["seconds"] > 0 and cells[name]["over_floor"] > 0
            assert cells[name]["elements"] == 784 * 512 + 512 + 512 * 512 + 512 + 512 * 10 + 10
        assert cells["mlx"]["numpy_ratio"] > 0 and cells["mlx"]["compiled_ratio"] > 0
    assert "missing" in next(
        cell for cell in result["cells"] if (cell["optimizer"], cell["contender"]) == ("Lion", "torch-fused")
    )
    assert set(result["overhead"]) >= {"numpy", "compiled", "mlx"} and set(result["subnormal"]) == set(
        result["overhead"]
    )
    assert "mlp, numpy: time of the peer / ours" in printed and "geometric mean" in printed


def test_a_ratio_is_the_median_of_the_ratios_of_each_round():
    assert script("bench").ratio([2.0, 9.0, 6.0], [1.0, 3.0, 1.0]) == 3.0


@pytest.mark.parametrize("contender", ["numpy", "compiled", "torch", "torch-foreach", "torch-fused", "optax", "mlx"])
@pytest.mark.parametrize("optimizer", NAMES)
def test_what_is_measured_is_a_step_of_the_optimizer(optimizer, contender, monkeypatch):
    """Every contender sets up the step that it is said to; a library without it says so."""
    if contender not in ("numpy", "compiled"):
        require({"optax": "optax", "mlx": "mlx.core"}.get(contender, "torch"))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    worker = script("bench_worker")
    library = contender.partition("-")[0]
    absent = EXPECTED[optimizer].claims.get(library, optimizer) is None
    if absent or (contender == "torch-fused" and not EXPECTED[optimizer].fused):
        with pytest.raises(worker.Missing, match=f"no {optimizer}" if absent else "fused"):
            worker.CONTENDERS[contender](optimizer, [(3, 2), (4,)], 1.0)
        return
    step = worker.CONTENDERS[contender](optimizer, [(3, 2), (4,)], 1.0)
    step()
    step()


@pytest.mark.parametrize("contender", ["numpy", "torch", "torch-foreach", "optax", "mlx", "mlx-compiled", "torch-mm"])
@pytest.mark.parametrize("optimizer", WHOLE)
def test_what_is_measured_of_whole_arrays(optimizer, contender, monkeypatch):
    require({"numpy": "numpy", "optax": "optax", "mlx": "mlx.core", "mlx-compiled": "mlx.core"}.get(contender, "torch"))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    bench, worker = script("bench"), script("bench_worker")
    assert bench.takes_part(contender, optimizer) and not bench.takes_part("triad", optimizer)
    if (optimizer, contender) in {("Muon", "torch-foreach"), ("Adafactor", "torch-mm")}:
        with pytest.raises(worker.Missing, match=r"foreach|Adafactor takes no products"):
            worker.CONTENDERS[contender](optimizer, [(3, 2)], 1.0)
        return
    step = worker.CONTENDERS[contender](optimizer, [(3, 2)], 1.0)
    step()
    step()


def test_fifteen_products_are_taken_of_the_wide_matrix(monkeypatch):
    torch = require("torch")
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    taken = []
    product = torch.mm
    monkeypatch.setattr(torch, "mm", lambda a, b: taken.append((*a.shape, b.shape[1])) or product(a, b))
    script("bench_worker").CONTENDERS["torch-mm"]("Muon", [(5, 2)], 1.0)()
    assert taken == [(2, 5, 2), (2, 2, 2), (2, 2, 5)] * 5
