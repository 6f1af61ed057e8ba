"""Check every backend and write the reports that the site's page of results shows, docs/reports/BACKEND.json.

Run it when the suite, a formula or a pinned version changes; tests/docs/test_results.py tells when. All backends have
to be installed: ``make peers`` does that. Keras runs on jax.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from mlx_optimizers.backends import BACKENDS

FOLDER = Path(__file__).parents[1] / "docs" / "reports"


def main() -> int:
    """Write the reports, all of them even when a backend deviates."""
    status = 0
    for backend in BACKENDS:
        target = FOLDER / f"{backend}.json"
        command = [sys.executable, "-m", "mlx_optimizers", "check", backend, "--format", "json", "-o", str(target)]
        run = subprocess.run(command, check=False, env={**os.environ, "KERAS_BACKEND": "jax"})
        print(target)
        if run.returncode:
            print(f"error: check {backend} ended with status {run.returncode}", file=sys.stderr)
            status = 1
    return status


if __name__ == "__main__":
    sys.exit(main())
