"""Measure how many cases of the formulas a second go through an adapter and back; the oracle takes no part.

Counted is what `Command.run` takes: bit patterns written, the adapter's own time, the reply read and checked. The first
round includes the time that the adapter's language takes to warm up, and starting the program is told apart.
"""

from __future__ import annotations

import argparse
import time

from mlx_optimizers.backends.command import Command
from mlx_optimizers.catalog import CATALOG
from mlx_optimizers.conformance import Case, Unsupported, cases_of


def ran(backend: Command, case: Case) -> bool:
    """Run a case; say whether the adapter supports it."""
    try:
        backend.run(case)
    except Unsupported:
        return False
    return True


def main() -> None:
    """Print the rate of each round, and of all."""
    parser = argparse.ArgumentParser(description="Measure how many cases a second go through an adapter.")
    parser.add_argument("command", nargs="?", default="node docs/ports/javascript/adapter.mjs", metavar="COMMAND")
    parser.add_argument("--rounds", type=int, default=8, metavar="N", help="times that every case is run; default 8")
    arguments = parser.parse_args()
    cases = [case for entry in CATALOG for case in cases_of(entry.name)]
    begun = time.perf_counter()
    with Command(arguments.command) as backend:
        if backend.error is not None:
            raise backend.error
        print(f"{backend.name}: started in {time.perf_counter() - begun:.2f} s")
        rounds, done = [], 0
        for number in range(1, arguments.rounds + 1):
            begun = time.perf_counter()
            supported = sum(ran(backend, case) for case in cases)
            rounds.append(time.perf_counter() - begun)
            done += supported
            print(f"round {number}: {supported / rounds[-1]:6.0f} cases/s, {supported} of {len(cases)} supported")
    print(f"all:     {done / sum(rounds):6.0f} cases/s")


if __name__ == "__main__":
    main()
