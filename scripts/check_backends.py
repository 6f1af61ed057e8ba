"""Check every backend whose library is installed here, and say which are left out.

Exits with 1 when one deviates or could not be run, otherwise with 0.
"""

from __future__ import annotations

import importlib.util
import subprocess
import sys

from mlx_optimizers.backends import BACKENDS

LIBRARIES = {
    "reference": "numpy",
    "mlx": "mlx",
    "torch": "torch",
    "torch-foreach": "torch",
    "torch-fused": "torch",
    "optax": "optax",
    "keras": "keras",
}
"""The library that each backend needs."""

STATUS = {1: "deviates", 2: "was called wrongly", 3: "executed nothing"}
"""What the exit status of a check says; 0 is that it conforms."""


def main() -> int:
    """Check one backend after the other, all of them even when one deviates."""
    wrong = []
    for backend, library in LIBRARIES.items():
        if backend not in BACKENDS:
            continue
        if importlib.util.find_spec(library) is None:
            print(f"{backend}: left out, as {library} is not installed", flush=True)
            continue
        status = subprocess.run([sys.executable, "-m", "mlx_optimizers", "check", backend], check=False).returncode
        if status:
            wrong.append(f"{backend} {STATUS.get(status, f'ended with status {status}')}")
    for line in wrong:
        print(f"error: {line}", file=sys.stderr)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
