"""Measure the optimizers beside those of other libraries, and beside a loop that does nothing but read and write.

Every contender runs in a process of its own (``bench_worker.py``) with the same number of threads. In each round all of
them take their turn, so that what else the machine does falls on all alike; compared are the times of one round, and
shown is the median of these ratios. The rounds are spread over several passes through everything, so that a busy minute
of the machine is not all that a cell has. Prints Markdown; ``-o FILE`` writes JSON.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import math
import os
import platform
import statistics
import subprocess
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from mlx_optimizers.catalog import CATALOG
from mlx_optimizers.optimizer import Whole

ROOT = Path(__file__).resolve().parents[1]
FORMAT = "mlx-optimizers-bench/1"

WHOLE = [entry.name for entry in CATALOG if issubclass(entry.optimizer, Whole)]
"""The optimizers that take an array as a whole; the others go element by element."""

SLOTS = {entry.name: len(entry.optimizer.slots) for entry in CATALOG if entry.name not in WHOLE}
"""Number of state arrays; each is read and written once a step, as the parameter is, and the gradient is read."""

OPTIMIZERS = [*SLOTS, *WHOLE]

OURS = ("numpy", "compiled")
PEERS = ("torch", "torch-foreach", "torch-fused", "optax", "mlx", "mlx-compiled", "torch-mm")

ROUND = 0.06
"""Seconds that a contender runs in a round, or one step."""

Shapes = list[list[int]]
Times = dict[str, list[float]]
"""Seconds of a step in each round, by contender."""

Replies = dict[str, dict[str, Any]]
"""What each contender said when it was set up."""


def gpt2() -> Shapes:
    """The parameters of GPT-2 small, 124 million."""
    layer = [[768], [768], [768, 2304], [2304], [768, 768], [768]]
    layer += [[768], [768], [768, 3072], [3072], [3072, 768], [768]]
    return [[50257, 768], [1024, 768], *(layer * 12), [768], [768]]


WORKLOADS: dict[str, Shapes] = {
    "1e7": [[10_000_000]],
    "300x3072": [[3072]] * 300,
    "mlp": [[784, 512], [512], [512, 512], [512], [512, 10], [10]],
    "gpt2": gpt2(),
}
"""Shapes of the parameters: one large array, many small ones, an MLP 784-512-512-10, GPT-2 small."""

MATRICES: dict[str, Shapes] = {"1024x1024": [[1024, 1024]]}
"""What the optimizers of whole arrays are measured on; the others on the workloads above."""

TINY: Shapes = [[1]] * 300
"""What is left of a step when the arrays are next to nothing is the overhead of each."""

SUBNORMAL = 2.0**-130
"""Gradients of this size are subnormal in float32, and so are the means of them."""

LARGE = {"gpt2", *MATRICES}
"""Workloads in which ours meet one peer at a time, as memory holds no more, or a step of some takes seconds.

``--quick`` leaves them out.
"""

SLOW = 1.0
"""Where a step of some contender takes more seconds than this, there are a third of the rounds."""


def shapes_of(workload: str) -> Shapes:
    """Look up the shapes of a workload."""
    return (WORKLOADS | MATRICES)[workload]


def takes_part(name: str, optimizer: str) -> bool:
    """Say whether a contender has something to measure: bytes are no bound of whole arrays, nor products of others."""
    return name not in ("compiled", "triad") if optimizer in WHOLE else name != "torch-mm"


class Worker:
    """A contender in its own process."""

    def __init__(self, name: str, threads: int) -> None:
        self.name = name
        environment = dict(os.environ)
        environment |= {key: str(threads) for key in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "MLX_OPTIMIZERS_THREADS")}
        environment["MLX_OPTIMIZERS_COMPILED"] = "0" if name == "numpy" else "1"
        cores = sorted(os.sched_getaffinity(0))[:threads] if hasattr(os, "sched_setaffinity") else []
        self._process = subprocess.Popen(
            [sys.executable, str(Path(__file__).with_name("bench_worker.py")), name],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            env=environment,
            cwd=ROOT,
        )
        if cores:  # jax takes as many threads as the process has cores
            os.sched_setaffinity(self._process.pid, cores)

    def ask(self, **request: Any) -> dict[str, Any]:
        """One request and its reply."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(request) + "\n")
        self._process.stdin.flush()
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError(f"{self.name} ended with status {self._process.wait()}")
        reply: dict[str, Any] = json.loads(line)
        if "error" in reply:
            raise RuntimeError(f"{self.name}: {reply['error']}")
        return reply

    def close(self) -> None:
        """End the process."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait()


class Bench:
    """The workers of one run, and what they measured."""

    def __init__(self, names: Sequence[str], threads: int, rounds: int) -> None:
        self._rounds = rounds
        self._measured: dict[tuple[str, str, tuple[str, ...]], tuple[Times, Replies]] = {}
        self._workers = {name: Worker(name, threads) for name in names}

    def close(self) -> None:
        """End the workers."""
        for worker in self._workers.values():
            worker.close()

    def ask(self, name: str, **request: Any) -> dict[str, Any]:
        """One request to one worker."""
        return self._workers[name].ask(**request)

    def overhead(self) -> dict[str, float]:
        """Measure the seconds of each array of a tree besides its elements, by contender, for Adam."""
        times = self._times("Adam", TINY, self._libraries())[0]
        return {name: statistics.median(seconds) / len(TINY) for name, seconds in times.items()}

    def subnormal(self) -> dict[str, float]:
        """How much longer Adam takes where gradients are subnormal, by contender; a million elements."""
        usual, slow = (self._times("Adam", [[1_000_000]], self._libraries(), scale)[0] for scale in (1.0, SUBNORMAL))
        return {name: statistics.median(slow[name]) / statistics.median(usual[name]) for name in usual}

    def measure(self, optimizer: str, workload: str) -> None:
        """All contenders on one optimizer and workload, in one pass; those that are in memory together take turns."""
        there = [name for name in self._workers if takes_part(name, optimizer)]
        peers = [name for name in there if name in PEERS]
        fixed = [name for name in there if name not in PEERS]
        for group in [[peer] for peer in peers] or [[]] if workload in LARGE else [peers]:
            names = [*fixed, *group]
            times, replies = self._times(optimizer, shapes_of(workload), names)
            before, _ = self._measured.setdefault((workload, optimizer, tuple(names)), ({}, replies))
            for name, seconds in times.items():
                before.setdefault(name, []).extend(seconds)

    def cells(self) -> list[dict[str, Any]]:
        """What was measured; ours, with each group of peers, are reported once."""
        cells: dict[tuple[str, str, str], dict[str, Any]] = {}
        for (workload, optimizer, names), (times, replies) in self._measured.items():
            for name in names:
                if (workload, optimizer, name) not in cells:
                    cell = self._cell(optimizer, workload, name, times, replies[name])
                    cells[workload, optimizer, name] = cell
        return list(cells.values())

    def _libraries(self) -> list[str]:
        return [name for name in self._workers if name not in ("triad", "torch-mm")]

    def _times(self, optimizer: str, shapes: Shapes, names: list[str], scale: float = 1.0) -> tuple[Times, Replies]:
        """The seconds of a step in each round, and what each contender said when it was set up."""
        setup = {"op": "setup", "optimizer": optimizer, "shapes": shapes, "scale": scale}
        replies = {name: self.ask(name, **setup) for name in names}
        order = [name for name in names if "missing" not in replies[name]]
        step = {name: self.ask(name, op="run", steps=1)["seconds"] for name in order}
        runs = {name: max(1, math.ceil(ROUND / seconds)) for name, seconds in step.items()}
        times: Times = {name: [] for name in order}
        for number in range(max(1, self._rounds // 3) if max(step.values()) > SLOW else self._rounds):
            for name in order[number % len(order) :] + order[: number % len(order)]:
                times[name].append(self.ask(name, op="run", steps=runs[name])["seconds"])
        for name in names:
            self.ask(name, op="clear")
        return times, replies

    def _cell(self, optimizer: str, workload: str, name: str, times: Times, reply: dict[str, Any]) -> dict[str, Any]:
        cell: dict[str, Any] = {"optimizer": optimizer, "workload": workload, "contender": name}
        if name not in times:
            return {**cell, "missing": reply["missing"]}
        elements = sum(math.prod(shape) for shape in shapes_of(workload))
        cell |= {"seconds": statistics.median(times[name]), "beyond": reply["beyond"], "elements": elements}
        for own in OURS:
            if name in PEERS and own in times:
                cell[f"{own}_ratio"] = ratio(times[name], times[own])
        if name in OURS and "triad" in times:
            moved = 4 * elements * (3 + 2 * SLOTS[optimizer])
            measured = 4 * (elements * (2 + SLOTS[optimizer]) // 2) * 3
            floors = [seconds * moved / measured for seconds in times["triad"]]
            cell |= {"floor": statistics.median(floors), "over_floor": ratio(times[name], floors)}
        return cell


def ratio(above: Iterable[float], below: Iterable[float]) -> float:
    """The median over the rounds of one time by another."""
    return statistics.median(a / b for a, b in zip(above, below, strict=True))


def machine(threads: int) -> dict[str, Any]:
    """What was measured on, and with what."""
    versions = {}
    for name in ("numpy", "numba", "torch", "jax", "optax", "mlx", "mpmath", "gmpy2"):
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return {
        "processor": processor(),
        "caches": caches(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "threads": threads,
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "versions": versions,
    }


def processor() -> str:
    """The processor's name."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), platform.machine())


def caches() -> dict[str, str]:
    """The sizes of the caches of data of one core."""
    out = {}
    for folder in sorted(Path("/sys/devices/system/cpu/cpu0/cache").glob("index*")):
        kind, level, size = ((folder / name).read_text().strip() for name in ("type", "level", "size"))
        if kind != "Instruction":
            out[f"L{level}"] = size
    return out


def geometric(values: Sequence[float]) -> float:
    """The geometric mean."""
    return math.exp(statistics.fmean(map(math.log, values)))


def markdown(result: dict[str, Any]) -> str:
    """The result as tables, two a workload."""
    cells = {(cell["workload"], cell["optimizer"], cell["contender"]): cell for cell in result["cells"]}
    blocks = []
    for workload, own in dict.fromkeys((key[0], key[2]) for key in cells if key[2] in OURS):
        blocks += [f"{workload}, {own}: time of the peer / ours", _ratios(cells, workload, own)]
    if "overhead" in result:
        overhead = ["µs an array beside its elements", *(f"{1e6 * x:.1f}" for x in result["overhead"].values())]
        slower = ["times longer where gradients are subnormal", *(f"{x:.1f}" for x in result["subnormal"].values())]
        blocks.append(_table(["Adam", *result["overhead"]], [overhead, slower]))
    for library, seconds in result.get("oracle", {}).items():
        blocks.append(f"oracle with {library}: {1e6 * seconds:.1f} µs an element and step")
    if "checker" in result:
        blocks.append(f"checker: {1e3 * result['checker']:.1f} ms a case of Adam")
    return "\n\n".join(blocks)


def _ratios(cells: dict[tuple[str, str, str], dict[str, Any]], workload: str, own: str) -> str:
    """Compare one of our paths with the peers on one workload."""
    peers = [peer for peer in PEERS if any((key[0], key[2]) == (workload, peer) for key in cells)]
    ratios: dict[str, list[float]] = {peer: [] for peer in peers}
    rows = []
    for optimizer in OPTIMIZERS:
        cell = cells.get((workload, optimizer, own))
        if cell is None or "missing" in cell:
            continue
        over = f"{cell['over_floor']:.2f}" if "over_floor" in cell else "–"
        row = [optimizer, f"{1e3 * cell['seconds']:.2f}", over]
        row.append("" if cell["beyond"] is None else f"{cell['beyond'] / 1e6:.1f}")
        for peer in peers:
            value = cells.get((workload, optimizer, peer), {}).get(f"{own}_ratio")
            ratios[peer] += [] if value is None else [value]
            row.append("–" if value is None else f"{value:.2f}")
        rows.append(row)
    means = [f"{geometric(values):.2f}" if values else "–" for values in ratios.values()]
    header = ["optimizer", "ms", "over the copy loop", "beyond, MB", *peers]
    return _table(header, [*rows, ["geometric mean", "", "", "", *means]])


def _table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def main() -> int:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description="Measure the optimizers beside those of other libraries.")
    parser.add_argument("--quick", action="store_true", help="fewer rounds of fewer workloads; ends within two minutes")
    parser.add_argument("--passes", type=int, help="times to go through everything; default 3, or 1 with --quick")
    parser.add_argument("--rounds", type=int, help="rounds of a cell in each pass; default 5, or 3 with --quick")
    parser.add_argument("--threads", type=int, help="threads of every contender; default the cores there are")
    parser.add_argument("--optimizer", action="append", choices=OPTIMIZERS, help="default all")
    parser.add_argument("--workload", action="append", choices=WORKLOADS | MATRICES, help="default all")
    parser.add_argument("--contender", action="append", choices=[*OURS, *PEERS], help="default all")
    parser.add_argument("--no-oracle", action="store_true", help="leave out the oracle and the checker")
    parser.add_argument("-o", "--output", type=Path, help="write JSON to this file")
    arguments = parser.parse_args()
    available = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    threads = arguments.threads or available
    global ROUND  # noqa: PLW0603 - the script's own setting
    if arguments.quick:
        ROUND = 0.02
    asked = arguments.workload or [name for name in WORKLOADS | MATRICES if not (arguments.quick and name in LARGE)]
    wanted = arguments.optimizer or OPTIMIZERS
    pairs = [(load, name) for load in asked for name in wanted if (load in MATRICES) == (name in WHOLE)]
    passes = arguments.passes or (1 if arguments.quick else 3)
    rounds = arguments.rounds or (3 if arguments.quick else 5)
    bench = Bench([*(arguments.contender or [*OURS, *PEERS]), "triad"], threads, rounds)
    result: dict[str, Any] = {"format": FORMAT, "machine": machine(threads), "rounds": passes * rounds}
    try:
        for number in range(passes):
            for workload, optimizer in pairs:
                print(f"pass {number + 1} of {passes}: {workload} {optimizer}", file=sys.stderr, flush=True)
                bench.measure(optimizer, workload)
        result["cells"] = bench.cells()
        result["overhead"], result["subnormal"] = bench.overhead(), bench.subnormal()
        if not arguments.no_oracle:
            result["oracle"] = bench.ask("triad", op="oracle")["seconds"]
            result["checker"] = bench.ask("triad", op="checker")["seconds"]
    finally:
        bench.close()
    print(markdown(result))
    if arguments.output:
        arguments.output.write_text(json.dumps(result, indent=1, sort_keys=True) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
