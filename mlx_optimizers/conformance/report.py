"""The report of a check."""

from __future__ import annotations

import json
import re
from collections import Counter
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import mlx_optimizers
from mlx_optimizers.conformance.diagnosis import Diagnosis
from mlx_optimizers.conformance.verdict import WORDS, Verdict, Word

__all__ = ["FORMAT", "Report", "printable"]

FORMAT = "mlx-optimizers-report/1"


@dataclass
class Report:
    """A backend's results.

    Args:
        name: The backend's name.
        version: Its version.
        device: Where it ran.
        results: One verdict a case.
        diagnoses: By optimizer, for those that deviate.
        broken: Why the backend could not go on, or None.
        checked: The version of the backend whose claims were checked; None where there is none.
    """

    name: str
    version: str
    device: str
    results: list[Verdict]
    diagnoses: dict[str, Diagnosis] = field(default_factory=dict)
    broken: str | None = None
    checked: str | None = None

    @property
    def newer(self) -> bool:
        """Whether the backend is a later release than the one whose claims were checked."""
        return self.checked is not None and _release(self.version) > _release(self.checked)

    def counts(self) -> dict[Word, int]:
        """Count the results by verdict."""
        counted = Counter(verdict.word for verdict in self.results)
        return {word: counted[word] for word in WORDS}

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
        """Write the whole report as a JSON object of the published schema."""
        backend = {"name": self.name, "version": self.version, "device": self.device}
        if self.checked is not None and self.newer:
            backend["checked"] = self.checked
        return {
            "format": FORMAT,
            "suite": {"version": mlx_optimizers.__version__, "numpy": _version("numpy"), "mpmath": _version("mpmath")},
            "backend": backend,
            "summary": {"cases": len(self.results), **self.counts()},
            "results": [verdict.to_json() for verdict in self.results],
        }

    def dumps(self) -> str:
        """Write the report as JSON text."""
        return json.dumps(self.to_json(), indent=1, allow_nan=False) + "\n"


def printable(text: str, keep: str = "") -> str:
    """Escape control characters and half surrogates, which a terminal might obey.

    Args:
        text: The text, which may come from anybody.
        keep: Characters that stay as they are.
    """
    return "".join(x if x.isprintable() or x in keep else x.encode("unicode_escape").decode() for x in text)


def _release(text: str) -> tuple[int, ...]:
    """Read the numbers at the start of a version: 2.13.0 of ``2.13.0+cpu``."""
    numbers = re.match(r"\d+(\.\d+)*", text)
    return tuple(map(int, numbers[0].split("."))) if numbers else ()


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:  # a source tree on the path, not installed
        return "unknown"
