"""What the world says of AdamW with bias correction."""

from __future__ import annotations

from dataclasses import replace

from mlx_optimizers.biascorrectedadamw import BiasCorrectedAdamW
from mlx_optimizers.catalog import adamw, axes
from mlx_optimizers.catalog.entry import Plot

ENTRY = replace(
    adamw.ENTRY,
    optimizer=BiasCorrectedAdamW,
    formula="AdamW[bias_correction=true]",
    history=(axes.CORRECTION,),
    plot=Plot(1e-2, (8, -1)),
)
