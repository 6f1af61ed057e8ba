"""What the world says of Adam with bias correction."""

from __future__ import annotations

from dataclasses import replace

from mlx_optimizers.biascorrectedadam import BiasCorrectedAdam
from mlx_optimizers.catalog import adam, axes
from mlx_optimizers.catalog.entry import Plot

ENTRY = replace(
    adam.ENTRY,
    optimizer=BiasCorrectedAdam,
    formula="Adam[bias_correction=true]",
    history=(axes.CORRECTION,),
    plot=Plot(1e-2, (-2, 10)),
)
