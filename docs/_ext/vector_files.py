"""The published vectors, written once for every version of them and kept with the site's other parts."""

from __future__ import annotations

import hashlib
import json
import tempfile
from pathlib import Path

from mlx_optimizers.conformance import vectors
from mlx_optimizers.conformance.schemas import schema


def vector_files(folder: Path) -> Path:
    """Return a folder below ``folder`` with ``vectors/`` and their schema, after writing it where it is missing."""
    # The list has a digest of every case.
    digest = hashlib.sha256((vectors.changes() + json.dumps(schema("vectors"))).encode()).hexdigest()[:16]
    target = folder / f"vectors-{digest}"
    if not target.is_dir():
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder) as scratch:
            ready = Path(scratch) / "ready"
            vectors.write_vectors(ready / "vectors")
            text = json.dumps(schema("vectors"), indent=2) + "\n"
            (ready / "vectors.schema.json").write_text(text, encoding="utf-8")
            try:
                ready.rename(target)  # in one go: another build sees all of it or nothing
            except OSError:
                if not target.is_dir():
                    raise
    return target
