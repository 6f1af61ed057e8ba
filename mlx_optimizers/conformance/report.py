"""Results of a check, and the report that carries them."""

from __future__ import annotations

import json
import math
import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from importlib.metadata import PackageNotFoundError, version
from typing import Any, Literal

import mlx_optimizers
from mlx_optimizers.conformance.acceptance import Worst
from mlx_optimizers.conformance.diagnosis import Diagnosis

__all__ = ["FORMAT", "VERDICTS", "Report", "Result", "printable", "schema"]

FORMAT = "mlx-optimizers-report/1"

Verdict = Literal["conforms", "deviates", "unsupported", "failed"]
VERDICTS: tuple[Verdict, ...] = ("conforms", "deviates", "unsupported", "failed")


@dataclass
class Result:
    """What became of one case.

    Args:
        case: Identifier of the case.
        optimizer: Name of the optimizer.
        formula: The formula that the backend was held to.
        verdict: conforms, deviates, unsupported or failed.
        scalars: The profile that passed, or the widest tried.
        worst: The element of greatest excess, conforming or not; None for unsupported and failed.
        first: The first element, by step, outside the interval.
        diagnosis: Formulas that agree with all cases of the optimizer.
        reason: Why a case is unsupported, failed, or could not be tested.
        tested: Elements with a finite interval, over all steps and quantities.
        untested: Elements for which any answer would have passed.
        excesses: For each quantity its greatest excess after each step, None where no element was tested.
    """

    case: str
    optimizer: str
    formula: str
    verdict: Verdict
    scalars: str
    worst: Worst | None = None
    first: Worst | None = None
    diagnosis: list[str] = field(default_factory=list)
    reason: str | None = None
    tested: int = 0
    untested: int = 0
    excesses: Mapping[str, list[float | None]] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """The result as the report's schema has it."""
        worst = None if self.worst is None else asdict(self.worst)
        if worst is not None and not math.isfinite(worst["excess"]):
            worst["excess"] = None
        return {
            "case": self.case,
            "optimizer": self.optimizer,
            "formula": self.formula,
            "verdict": self.verdict,
            "scalars": self.scalars,
            "worst": worst,
            "diagnosis": self.diagnosis,
            "reason": self.reason,
        }


@dataclass
class Report:
    """A backend's results.

    Args:
        name: The backend's name.
        version: Its version.
        device: Where it ran.
        results: One a case.
        diagnoses: By optimizer, for those that deviate.
        broken: Why the backend could not go on, or None.
        checked: The version of the backend whose claims were checked; None where there is none.
    """

    name: str
    version: str
    device: str
    results: list[Result]
    diagnoses: dict[str, Diagnosis] = field(default_factory=dict)
    broken: str | None = None
    checked: str | None = None

    @property
    def newer(self) -> bool:
        """Whether the backend is a later release than the one whose claims were checked."""
        return self.checked is not None and _release(self.version) > _release(self.checked)

    def counts(self) -> dict[Verdict, int]:
        """Number of results by verdict."""
        counted = Counter(result.verdict for result in self.results)
        return {verdict: counted[verdict] for verdict in VERDICTS}

    @property
    def status(self) -> int:
        """Exit status of a check, the first that applies.

        4: the backend could not go on; 3: nothing was executed; 1: a case deviates or failed; 0.
        """
        if self.broken is not None:
            return 4
        counts = self.counts()
        if len(self.results) == counts["unsupported"]:
            return 3
        return 1 if counts["deviates"] or counts["failed"] else 0

    def to_json(self) -> dict[str, Any]:
        """The whole report as a JSON object of the published schema."""
        return {
            "format": FORMAT,
            "suite": {"version": mlx_optimizers.__version__, "numpy": _version("numpy"), "mpmath": _version("mpmath")},
            "backend": {
                "name": self.name,
                "version": self.version,
                "device": self.device,
                **({"checked": self.checked} if self.newer else {}),
            },
            "summary": {"cases": len(self.results), **self.counts()},
            "results": [result.to_json() for result in self.results],
        }

    def dumps(self) -> str:
        """The report as JSON text."""
        return json.dumps(self.to_json(), indent=1, allow_nan=False) + "\n"


def printable(text: str, keep: str = "") -> str:
    """Text without what a terminal would obey: control characters and half surrogates are escaped.

    Args:
        text: The text, which may come from anybody.
        keep: Characters that stay as they are.
    """
    return "".join(x if x.isprintable() or x in keep else x.encode("unicode_escape").decode() for x in text)


def _release(text: str) -> tuple[int, ...]:
    """The numbers that a version opens with: 2.13.0 of ``2.13.0+cpu``."""
    numbers = re.match(r"\d+(\.\d+)*", text)
    return tuple(map(int, numbers[0].split("."))) if numbers else ()


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:  # a source tree on the path, not installed
        return "unknown"


def schema() -> dict[str, Any]:
    """The JSON Schema (2020-12) of a report."""
    from importlib.resources import files

    text = files("mlx_optimizers.conformance").joinpath("schemas", "report.schema.json").read_text("utf-8")
    loaded: dict[str, Any] = json.loads(text)
    return loaded
