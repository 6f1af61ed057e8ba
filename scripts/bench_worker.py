"""One contender of ``scripts/bench.py`` in a process of its own: JSON requests in, one reply a line out.

Each library so has its threads and its memory to itself, and an idle one waits without using the processor.

Requests: ``{"op": "setup", "optimizer", "shapes", "scale"}``, where gradients are normal numbers times the scale;
``{"op": "run", "steps"}``, ``{"op": "clear"}``, ``{"op": "oracle"}``, ``{"op": "checker"}``.
"""

from __future__ import annotations

import argparse
import inspect
import itertools
import json
import math
import os
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from operator import attrgetter
from pathlib import Path
from typing import Any

import numpy as np

RATE = 1e-3
OPTIONS: dict[str, dict[str, Any]] = {"SGD": {"momentum": 0.9}, "Adafactor": {"relative_step": False}}
"""What is given beside the learning rate: SGD has no state without momentum, and Adafactor does not use the rate."""

Step = Callable[[], object]
Shapes = list[tuple[int, ...]]


class Missing(Exception):
    """The contender has no such optimizer."""


def arrays(shapes: Shapes, scale: float | None = None) -> list[np.ndarray]:
    """Normal float32 numbers, of parameters or times the scale of gradients; beyond a million of them they repeat."""
    block = np.random.default_rng(scale is None).standard_normal(1_000_003, np.float32)
    block *= np.float32(1 if scale is None else scale)
    return [np.resize(block[: math.prod(shape)], shape).copy() for shape in shapes]  # each in memory of its own


def ours(name: str, shapes: Shapes, scale: float) -> Step:
    """The class of this package; MLX_OPTIMIZERS_COMPILED says on which path."""
    import mlx_optimizers

    optimizer = getattr(mlx_optimizers, name)(RATE, **OPTIONS.get(name, {}))
    w, g = arrays(shapes), arrays(shapes, scale)
    return lambda: optimizer.update(w, g)


def torch_step(name: str, shapes: Shapes, scale: float, **switches: bool) -> Step:
    """``torch.optim`` in one of its implementations."""
    import torch

    from mlx_optimizers.catalog import entry_of

    torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))
    found = entry_of(name).elsewhere.get("torch")
    if found is None:
        raise Missing(f"torch.optim has no {name}")
    made = getattr(torch.optim, found.name)
    w = [torch.from_numpy(array) for array in arrays(shapes)]
    for parameter, gradient in zip(w, arrays(shapes, scale), strict=True):
        parameter.grad = torch.from_numpy(gradient)
    extra = OPTIONS["SGD"] if name == "SGD" else {}
    if switches == {"foreach": False} and "foreach" not in inspect.signature(made).parameters:
        switches = {}  # the loop is all that it has
    try:
        optimizer = made(w, lr=RATE, **extra, **switches)
    except TypeError as error:
        raise Missing(str(error)) from None
    return optimizer.step


def optax_step(name: str, shapes: Shapes, scale: float) -> Step:
    """``optax``, jitted, with parameters and state donated."""
    import jax
    import optax

    from mlx_optimizers.catalog import entry_of

    made = attrgetter(entry_of(name).elsewhere["optax"].name)(optax)
    transform = made(RATE, **OPTIONS["SGD"] if name == "SGD" else {})
    w = [jax.numpy.array(array) for array in arrays(shapes)]
    g = [jax.numpy.array(array) for array in arrays(shapes, scale)]
    state = transform.init(w)

    def advance(w: Any, state: Any, g: Any) -> Any:
        updates, state = transform.update(g, state, w)
        return optax.apply_updates(w, updates), state

    jitted = jax.jit(advance, donate_argnums=(0, 1))

    def step() -> None:
        nonlocal w, state
        w, state = jax.block_until_ready(jitted(w, state, g))

    return step


def mlx_step(name: str, shapes: Shapes, scale: float, *, compiled: bool) -> Step:
    """``mlx.optimizers`` on the CPU, eager or compiled."""
    import mlx.core as mx
    import mlx.optimizers

    mx.set_default_device(mx.cpu)
    extra = {"bias_correction": True} if name.startswith("BiasCorrected") else OPTIONS.get(name, {})
    optimizer = getattr(mlx.optimizers, name.removeprefix("BiasCorrected"))(RATE, **extra)
    w = {str(index): mx.array(array) for index, array in enumerate(arrays(shapes))}
    g = {str(index): mx.array(array) for index, array in enumerate(arrays(shapes, scale))}
    optimizer.init(w)
    mx.eval(w, g, optimizer.state)

    def advance(w: Any, g: Any) -> Any:
        return optimizer.apply_gradients(g, w)

    if compiled:
        advance = mx.compile(advance, inputs=optimizer.state, outputs=optimizer.state)

    def step() -> None:
        nonlocal w
        w = advance(w, g)
        mx.eval(w, optimizer.state)

    return step


def products(name: str, shapes: Shapes, scale: float) -> Step:
    """The fifteen products of a step of Muon alone, by ``torch.mm`` in float32."""
    if name != "Muon":
        raise Missing(f"{name} takes no products of matrices")
    import torch

    torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))
    matrices = [torch.from_numpy(array if len(array) <= len(array.T) else array.T) for array in arrays(shapes, scale)]

    def step() -> None:
        for x in matrices:
            for _ in range(5):
                square = torch.mm(x, x.T)
                torch.mm(torch.mm(square, square), x)

    return step


def triad(name: str, shapes: Shapes, scale: float) -> Step:
    """``a ← a + s·b``, compiled where numba is installed: two reads and a write, as large as the optimizer's arrays."""
    import mlx_optimizers

    slots = len(getattr(mlx_optimizers, name).slots)
    size = sum(map(int, map(np.prod, shapes))) * (2 + slots) // 2
    a, b = np.ones(size, np.float32), np.ones(size, np.float32)
    threads = int(os.environ["OMP_NUM_THREADS"])
    try:
        import numba

        part = numba.njit(_triad, nogil=True)
    except ImportError:
        part = _numpy_triad
    pool = ThreadPoolExecutor(threads)
    cuts = [size * index // threads for index in range(threads + 1)]
    parts = [(a[start:stop], b[start:stop]) for start, stop in itertools.pairwise(cuts)]
    factor = np.float32(1e-9)
    return lambda: list(pool.map(lambda both: part(*both, factor), parts))


def _triad(a: np.ndarray, b: np.ndarray, scale: np.float32) -> None:
    for index in range(a.size):
        a[index] += scale * b[index]


def _numpy_triad(a: np.ndarray, b: np.ndarray, scale: np.float32) -> None:
    spare = np.empty(65536, np.float32)
    for start in range(0, a.size, spare.size):
        x, y = a[start : start + spare.size], b[start : start + spare.size]
        np.multiply(y, scale, out=spare[: y.size])
        x += spare[: y.size]


CONTENDERS: dict[str, Callable[[str, Shapes, float], Step]] = {
    "numpy": ours,
    "compiled": ours,
    "torch": lambda *given: torch_step(*given, foreach=False),
    "torch-foreach": lambda *given: torch_step(*given, foreach=True),
    "torch-fused": lambda *given: torch_step(*given, fused=True),
    "optax": optax_step,
    "mlx": lambda *given: mlx_step(*given, compiled=False),
    "mlx-compiled": lambda *given: mlx_step(*given, compiled=True),
    "torch-mm": products,
    "triad": triad,
}
"""What takes part, by name; ``torch`` is its loop over the parameters, ``torch-mm`` the products of Muon alone."""


def memory(key: str) -> int | None:
    """``VmRSS`` or ``VmHWM`` in bytes; None where the system does not tell."""
    try:
        lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    except OSError:
        return None
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(key))


def forget_peak() -> None:
    """Reset the peak of resident memory."""
    try:
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
    except OSError:
        return


def oracle() -> dict[str, float]:
    """Seconds an element and step of an Adam trajectory, by library."""
    from mlx_optimizers.oracle import trajectory

    rng = np.random.default_rng(0)
    w, g = rng.standard_normal(64).astype(np.float32), rng.standard_normal((8, 64)).astype(np.float32)
    out = {}
    for library in ("mpmath", "gmpy2"):
        try:
            trajectory("Adam", w[:2], g[:1, :2], library=library, learning_rate=RATE)
        except ImportError:
            continue
        begun = time.perf_counter()
        trajectory("Adam", w, g, library=library, learning_rate=RATE)
        out[library] = (time.perf_counter() - begun) / g.size
    return out


def checker() -> float:
    """Seconds a case of checking our own classes."""
    from mlx_optimizers.backends import open_backend
    from mlx_optimizers.conformance import cases_of, check

    cases = cases_of("Adam")
    begun = time.perf_counter()
    check(open_backend("reference"), cases)
    return (time.perf_counter() - begun) / len(cases)


def answer(contender: str, request: dict[str, Any], held: dict[str, Step]) -> dict[str, Any]:
    """The reply to one request; ``held`` keeps the step between them."""
    if request["op"] == "oracle":
        return {"seconds": oracle()}
    if request["op"] == "checker":
        return {"seconds": checker()}
    if request["op"] == "run":
        step = held["step"]
        begun = time.perf_counter()
        for _ in range(request["steps"]):
            step()
        return {"seconds": (time.perf_counter() - begun) / request["steps"]}
    held.clear()
    if request["op"] == "clear":
        return {}
    shapes = [tuple(shape) for shape in request["shapes"]]
    try:
        held["step"] = CONTENDERS[contender](request["optimizer"], shapes, request["scale"])
        # What a library sets up or compiles once, with a tiny array of as many axes, is no memory of the step.
        warm = CONTENDERS[contender](request["optimizer"], [(4,) * len(shapes[0])], 1.0)
        warm()
        warm()
    except Missing as missing:
        return {"missing": str(missing)}
    forget_peak()
    before = memory("VmRSS")
    held["step"]()
    held["step"]()
    peak = memory("VmHWM")
    return {"beyond": None if before is None or peak is None else peak - before}


def main() -> None:
    """Answer requests until the input ends."""
    parser = argparse.ArgumentParser(description="One contender of bench.py.")
    parser.add_argument("contender", choices=CONTENDERS)
    contender = parser.parse_args().contender
    replies, sys.stdout = sys.stdout, sys.stderr  # a library that prints does not disturb the replies
    held: dict[str, Step] = {}
    for line in sys.stdin:
        try:
            reply = answer(contender, json.loads(line), held)
        except ImportError as error:
            reply = {"missing": str(error)}
        except Exception as error:
            reply = {"error": f"{type(error).__name__}: {error}"}
        print(json.dumps(reply), file=replies, flush=True)


if __name__ == "__main__":
    main()
