"""Train in MLX, save, resume here, save, resume in MLX, and compare with a run of MLX that was never saved.

    python scripts/resume_with_mlx.py

It prints a line an optimizer: that all bits agree, or the greatest error of the parameters as a part of what rounding
can explain, with coefficients in float32.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import mlx.core as mx
import mlx.optimizers
import numpy as np
from mlx.utils import tree_flatten, tree_unflatten

import mlx_optimizers as optim
from mlx_optimizers import checkpoint
from mlx_optimizers.oracle import Exact, trajectory

STEPS = 4  # in each of the three parts
RATE = 0.01
SHAPES = {"weight": (6, 4), "bias": (4,)}


def drawn(rng: np.random.Generator) -> dict[str, Any]:
    """Draw a tree of the model: a layer with parameters, and one without."""
    return {"layers": [{name: mx.array(rng.normal(size=s), mx.float32) for name, s in SHAPES.items()}, {}]}


def in_mlx(made: type[optim.Optimizer]) -> Any:
    """Make MLX's optimizer of the same formula."""
    name = made.__name__.removeprefix("BiasCorrected")
    switches = {"bias_correction": True} if name != made.__name__ else {}
    return getattr(mlx.optimizers, name)(**settings(made), **switches)


def settings(made: type[optim.Optimizer]) -> dict[str, Any]:
    """Return what an optimizer is made with."""
    return (
        {"learning_rate": RATE, "relative_step": False, "beta_1": 0.9}
        if made is optim.Adafactor
        else {"learning_rate": RATE}
    )


def trained(optimizer: Any, model: dict[str, Any], gradients: list[dict[str, Any]]) -> dict[str, Any]:
    """Take a step with each gradient."""
    for g in gradients:
        model = optimizer.apply_gradients(g, model)
        mx.eval(model, optimizer.state)
    return model


def flat(tree: Any) -> dict[str, Any]:
    """List the arrays of a tree as NumPy's, by their keys."""
    return {name: np.array(leaf) for name, leaf in tree_flatten(tree)}


def there_and_back(made: type[optim.Optimizer], folder: Path) -> tuple[bool, float]:
    """Run through both packages; tell whether all bits are MLX's own, and the greatest error ratio."""
    first, last = folder / "mlx.safetensors", folder / "ours.safetensors"
    rng = np.random.default_rng(0)
    start, gradients = drawn(rng), [drawn(rng) for _ in range(3 * STEPS)]
    never_saved = in_mlx(made)
    straight = trained(never_saved, start, gradients)

    theirs = in_mlx(made)
    model = trained(theirs, start, gradients[:STEPS])
    mx.save_safetensors(str(first), dict(tree_flatten(theirs.state)))

    ours = made(**settings(made))
    checkpoint.load(first, ours, parameters=model)
    model = trained(ours, model, gradients[STEPS : 2 * STEPS])
    checkpoint.save(last, ours)

    again = in_mlx(made)
    again.state = tree_unflatten(list(mx.load(str(last)).items()))
    model = trained(again, model, gradients[2 * STEPS :])

    pairs = ((flat(model), flat(straight)), (flat(again.state), flat(never_saved.state)))
    same = all(a.keys() == b.keys() and all(np.array_equal(a[key], b[key]) for key in b) for a, b in pairs)
    ratios = []
    for key, got in flat(model).items():
        steps = [flat(g)[key] for g in gradients]
        end = trajectory(made, flat(start)[key], steps, scalars="float32", **settings(made))[-1].parameter
        with Exact().active():
            error = np.abs(np.vectorize(float)(end.exact) - got.astype(float))
        ratios.append(float((error / end.radius).max()))
    return same, max(ratios)


def main() -> None:
    """Print a line an optimizer."""
    with tempfile.TemporaryDirectory() as folder, mx.stream(mx.cpu):
        for made in (*optim.OPTIMIZERS, *optim.LATER):
            same, ratio = there_and_back(made, Path(folder))
            print(f"{made.__name__:18} {'all bits agree' if same else f'greatest error ratio {ratio:.2f}'}")


if __name__ == "__main__":
    main()
