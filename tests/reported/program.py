"""A wrong program that somebody reported."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Reported:
    """A wrong program that somebody reported.

    Args:
        name: A few words that no other program has.
        source: The address of the thread.
        optimizer: The optimizer whose cases it runs.
        step: ``step(h, t, w, g, *slots) -> (w, *slots)``; or, with ``make``, a function that makes a new one.
        fault: What it does, in one sentence.
        formula: The name of the formula that it computes; None where none has a name.
        told: What is true of its numbers, where it has no formula.
        claim: The formula that it is held to.
        make: Whether ``step`` makes the step.
        same: Further names of the same formula, or of ones that equal it in every case.
    """

    name: str
    source: str
    optimizer: str
    step: Callable[..., Any]
    fault: str
    formula: str | None = None
    told: str = ""
    claim: str = ""
    make: bool = False
    same: tuple[str, ...] = ()
