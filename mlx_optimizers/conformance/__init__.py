"""The checker: cases, acceptance, verdicts and reports."""

from mlx_optimizers.conformance.cases import Case, all_cases, matching
from mlx_optimizers.conformance.check import Backend, Broken, Outcome, Unsupported, check
from mlx_optimizers.conformance.report import Report, Result
from mlx_optimizers.oracle.formulas import parse

__all__ = [
    "Backend",
    "Broken",
    "Case",
    "Outcome",
    "Report",
    "Result",
    "Unsupported",
    "all_cases",
    "check",
    "matching",
    "parse",
]
