"""The plots of the guide on schedules, drawn while the site is built.

``schedule-plot`` takes the name of a function of `mlx_optimizers.schedulers`; ``schedule-error`` draws how far MLX's
float32 is from the exact values, and needs MLX.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from docutils import nodes
from matplotlib.figure import Figure
from optimizer_page import FAINT, INK, MAIN, SECOND, Drawn, svg
from sphinx.application import Sphinx

from mlx_optimizers import schedulers
from mlx_optimizers.oracle import schedules as exact

DRAWN = {
    "exponential_decay": "exponential_decay(0.1, 0.96)",
    "step_decay": "step_decay(0.1, 0.5, 25)",
    "cosine_decay": "cosine_decay(0.1, 80, end=0.01)",
    "linear_schedule": "linear_schedule(0, 0.1, 40)",
    "join_schedules": "join_schedules([linear_schedule(0, 0.1, 20), cosine_decay(0.1, 80)], [20])",
}
"""What each plot shows."""

STEPS = 101


class SchedulePlot(Drawn):
    """Draw the values of a schedule, a point a step."""

    def drawn(self, name: str) -> list[nodes.Node]:
        """Draw it."""
        self.env.note_dependency(str(Path(schedulers.__file__)))
        schedule = eval(DRAWN[name], vars(schedulers).copy())  # noqa: S307 - our own text
        figure = Figure(figsize=(5.8, 2.2), layout="constrained")
        axes = figure.subplots()
        values = [schedule(step) for step in range(STEPS)]
        axes.axhline(0, color=FAINT, linewidth=0.8)
        axes.plot(values, ".", color=MAIN, markersize=4)
        axes.set(xlabel="updates done", ylabel="λ", ylim=(-0.005, 0.105))
        label = f"The values of {name} over {STEPS - 1} steps, from {values[0]:.3g} to {values[-1]:.3g}"
        return [*svg(figure, f"schedule-{name}", label), nodes.caption("", DRAWN[name], classes=["plot-caption"])]


class ScheduleError(Drawn):
    """Draw the distance of MLX's float32 and of ours from the exact values of one schedule."""

    required_arguments = 0
    call, steps = "linear_schedule(0.1, 0, 102)", 103

    def drawn(self) -> list[nodes.Node]:
        """Draw it."""
        import mlx.core as mx
        import mlx.optimizers as theirs

        true, ours, mlx = (
            eval(self.call, vars(module).copy())  # noqa: S307 - our own text
            for module in (exact, schedulers, theirs)
        )
        with mx.stream(mx.cpu):
            got = [mlx(mx.array(step, mx.uint64)).item() for step in range(self.steps)]
        distances = [float(value - true(step)) for step, value in enumerate(got)]
        rounded = [float(float(np.float32(ours(step))) - true(step)) for step in range(self.steps)]
        figure = Figure(figsize=(5.8, 2.6), layout="constrained")
        axes = figure.subplots()
        axes.axhline(0, color=FAINT, linewidth=0.8)
        axes.plot(distances, color=SECOND, linewidth=1.5)
        axes.plot(rounded, color=MAIN, linewidth=1.5)
        for word, values, colour, below in (("MLX", distances, SECOND, -4), ("nearest", rounded, MAIN, 8)):
            peak = int(np.argmax(np.abs(values)))
            axes.annotate(word, (peak, values[peak]), (-8, below), textcoords="offset points", color=colour, ha="right")
        axes.set(xlabel="updates done", ylim=(1.2 * min(distances), 1.6 * max(rounded)))
        axes.set_ylabel("distance from the exact value", color=INK)
        axes.yaxis.set_major_formatter(lambda x, position: f"{x:.1e}" if x else "0")
        label = f"How far MLX's values of {self.call} are from the exact ones, beside the nearest float32 numbers"
        caption = (
            f"{self.call}: MLX's value less the exact one, at most {max(map(abs, distances)):.1e}, and the nearest "
            f"float32 number less the exact one, at most {max(map(abs, rounded)):.1e}. MLX ends at {got[-1]:.1e}."
        )
        return [*svg(figure, "schedule-error", label), nodes.caption("", caption, classes=["plot-caption"])]


def setup(app: Sphinx) -> dict[str, object]:
    """Register with Sphinx."""
    app.add_directive("schedule-plot", SchedulePlot)
    app.add_directive("schedule-error", ScheduleError)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
