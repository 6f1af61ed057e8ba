"""Measure how many cases a second go through an adapter and back; the oracle takes no part.

Counted is what `Command.run` takes: bit patterns written, the adapter's own time, the reply read and checked. The first
round includes the time that the adapter's language takes to warm up, and starting the program is told apart.
"""

from __future__ import annotations

import argparse
import time

from mlx_optimizers.backends.command import Command
from mlx_optimizers.conformance import all_cases


def main() -> None:
    """Print the rate of each round, and of all."""
    parser = argparse.ArgumentParser(description="Measure how many cases a second go through an adapter.")
    parser.add_argument("command", nargs="?", default="node docs/ports/javascript/adapter.mjs", metavar="COMMAND")
    parser.add_argument("--rounds", type=int, default=8, metavar="N", help="times that every case is run; default 8")
    arguments = parser.parse_args()
    cases = all_cases()
    begun = time.perf_counter()
    with Command(arguments.command) as backend:
        if backend.error is not None:
            raise backend.error
        print(f"{backend.name}: started in {time.perf_counter() - begun:.2f} s, {len(cases)} cases a round")
        rounds = []
        for number in range(1, arguments.rounds + 1):
            begun = time.perf_counter()
            for case in cases:
                backend.run(case)
            rounds.append(time.perf_counter() - begun)
            print(f"round {number}: {len(cases) / rounds[-1]:6.0f} cases/s")
    print(f"all:     {len(cases) * len(rounds) / sum(rounds):6.0f} cases/s")


if __name__ == "__main__":
    main()
