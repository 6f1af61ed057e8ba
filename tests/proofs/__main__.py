"""Write docs/proved.json, the record of what is proved by computation: ``python -m tests.proofs``."""

from __future__ import annotations

import json
from pathlib import Path

from tests.proofs.exhaustion import operations, steps

RECORD = Path(__file__).parents[2] / "docs" / "proved.json"

if __name__ == "__main__":
    record = {"exhausted": {"operations": operations(), **steps()}}
    RECORD.write_text(json.dumps(record, indent=1, ensure_ascii=False) + "\n", "utf-8")
