"""Write docs/proved.json, the record of what is proved by computation: ``python -m tests.proofs``."""

from __future__ import annotations

import json
from importlib.metadata import version
from pathlib import Path

from tests.proofs.exhaustion import operations, steps
from tests.proofs.obligations import claims
from tests.proofs.solvers import by_cvc5, by_z3

RECORD = Path(__file__).parents[2] / "docs" / "proved.json"
PATIENCE = 5
"""Seconds in which cvc5 decides what the record says it decides. The tests give it more."""


def main() -> None:
    """Write what two solvers and exhaustion say today."""
    rows = []
    for claim in claims():
        answer = "proved" if claim.holds else "refuted"
        row = {"theorem": claim.theorem, "order": claim.order, "name": claim.name, "holds": claim.holds}
        rows.append({**row, "z3": by_z3(claim) == answer, "cvc5": by_cvc5(claim, PATIENCE) == answer})
    record = {
        "solvers": {"z3": version("z3-solver"), "cvc5": version("cvc5")},
        "claims": rows,
        "exhausted": {"operations": operations(), **steps()},
    }
    RECORD.write_text(json.dumps(record, indent=1, ensure_ascii=False) + "\n", "utf-8")


if __name__ == "__main__":
    main()
