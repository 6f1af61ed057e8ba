"""The checker: cases, verdicts and reports."""

from mlx_optimizers.conformance.case import Case
from mlx_optimizers.conformance.cases import all_cases, cases_of, matching
from mlx_optimizers.conformance.check import Backend, Broken, Unsupported, check, decisive
from mlx_optimizers.conformance.report import Report
from mlx_optimizers.conformance.verdict import Run, Verdict
from mlx_optimizers.oracle.formulas import parse

__all__ = [
    "Backend",
    "Broken",
    "Case",
    "Report",
    "Run",
    "Unsupported",
    "Verdict",
    "all_cases",
    "cases_of",
    "check",
    "decisive",
    "matching",
    "parse",
]
