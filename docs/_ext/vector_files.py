"""The published vectors, written once for every version of them and kept beside the site's other parts."""

from __future__ import annotations

import hashlib
import tempfile
from pathlib import Path

from mlx_optimizers.conformance import vectors


def vector_files(folder: Path) -> Path:
    """Return a folder below ``folder`` that holds ``vectors/``, after writing it where it is missing."""
    digest = hashlib.sha256(vectors.changes().encode()).hexdigest()[:16]  # the list has a digest of every case
    target = folder / f"vectors-{digest}"
    if not target.is_dir():
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder) as scratch:
            ready = Path(scratch) / "ready"
            vectors.write_vectors(ready / "vectors")
            try:
                ready.rename(target)  # in one go: a build beside this one sees all of it or nothing
            except OSError:
                if not target.is_dir():
                    raise
    return target
