"""The oracle: each optimizer's formula over exact numbers, over balls, and carried through its steps."""

from mlx_optimizers.oracle.exact import Array, Double, Exact
from mlx_optimizers.oracle.formats import FORMATS, SLACK, Format, format_of
from mlx_optimizers.oracle.formula import Formula
from mlx_optimizers.oracle.rounded import Ball, Coefficient, Rounded
from mlx_optimizers.oracle.trajectory import Entry, Quantity, trajectory

__all__ = [
    "FORMATS",
    "SLACK",
    "Array",
    "Ball",
    "Coefficient",
    "Double",
    "Entry",
    "Exact",
    "Format",
    "Formula",
    "Quantity",
    "Rounded",
    "format_of",
    "trajectory",
]
