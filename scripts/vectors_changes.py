"""Add to the list of changes of the vectors what this version adds, alters and removes: ``vectors_changes.py``.

Run it when a test says that a case is not in the list, and read its lines before they are committed: each altered one
is a verdict that may change for somebody.
"""

from __future__ import annotations

from pathlib import Path

import mlx_optimizers
from mlx_optimizers.catalog import CATALOG
from mlx_optimizers.conformance.vectors import case_digest, derive, last_changes, vectors_of

LIST = Path(mlx_optimizers.__file__).parent / "vectors" / "CHANGES.txt"


def main() -> None:
    """Append the lines that are missing."""
    last = last_changes()
    now = {vector.id: case_digest(derive(vector)) for entry in CATALOG for vector in vectors_of(entry.name)}
    lines = []
    for name, digest in now.items():
        if name not in last:
            lines.append(f"{mlx_optimizers.__version__} added {name} {digest}")
        elif last[name] != digest:
            lines.append(f"{mlx_optimizers.__version__} altered {name} {digest}")
    lines += [f"{mlx_optimizers.__version__} removed {name}" for name in last if name not in now]
    with LIST.open("a", encoding="utf-8", newline="\n") as file:
        file.writelines(f"{line}\n" for line in lines)
    print(f"{len(lines)} lines added to {LIST.name}")


if __name__ == "__main__":
    main()
