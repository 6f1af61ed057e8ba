"""Check every backend and write what the site's page of results shows: docs/reports/BACKEND.json and docs/dtypes.json.

A report has every case of float32. The second file counts the verdicts in the other dtypes. Run it when the suite, a
formula or a pinned version changes; tests/docs/test_results.py and tests/backends/test_dtypes.py tell when. All
backends have to be installed: ``make peers`` does that. Keras runs on jax.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections import Counter
from pathlib import Path
from typing import Any

from mlx_optimizers.backends import BACKENDS
from mlx_optimizers.catalog import CATALOG

DOCS = Path(__file__).parents[1] / "docs"
DTYPES = ("float16", "bfloat16", "float64")


def main() -> int:
    """Write the reports and the counts, all of them even when a backend deviates."""
    status = max([_check(backend, "float32", DOCS / "reports" / f"{backend}.json") for backend in BACKENDS])
    counts = {dtype: {backend: _counted(backend, dtype) for backend in BACKENDS} for dtype in DTYPES}
    target = DOCS / "dtypes.json"
    target.write_text(json.dumps(counts, indent=1) + "\n", encoding="utf-8")
    print(target)
    return status


def _check(backend: str, dtype: str, target: Path) -> int:
    command = [sys.executable, "-m", "mlx_optimizers", "check", backend, "--dtype", dtype, "--format", "json"]
    run = subprocess.run([*command, "-o", str(target)], check=False, env={**os.environ, "KERAS_BACKEND": "jax"})
    print(target if not run.returncode else f"check {backend} --dtype {dtype} ended with status {run.returncode}")
    return run.returncode


def _counted(backend: str, dtype: str) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as folder:
        target = Path(folder) / f"{backend}.{dtype}.json"
        _check(backend, dtype, target)
        report = json.loads(target.read_text("utf-8"))
    return {"version": report["backend"]["version"], "results": by_optimizer(report)}


def by_optimizer(report: dict[str, Any]) -> dict[str, dict[str, int]]:
    """Count the verdicts of a report, optimizer by optimizer; one that is measured counts as consistent or not."""
    counts = {}
    for name in (entry.name for entry in CATALOG):
        results = [result for result in report["results"] if result["case"].startswith(f"{name.lower()}/")]
        if results:
            counts[name] = dict(sorted(Counter(map(_word, results)).items()))
    return counts


def _word(result: dict[str, Any]) -> str:
    told = (result["reason"] or "").partition(":")[0]
    return told if told in ("consistent", "not consistent") else str(result["verdict"])


if __name__ == "__main__":
    sys.exit(main())
