"""Two solvers that decide claims: z3, and cvc5 in a process of its own, as it may run on when it should stop.

As a program, ``python -m tests.proofs.solvers`` has cvc5 decide the problem in SMT-LIB on standard input.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Literal

Answer = Literal["proved", "refuted", "open"]
ANSWERS: dict[str, Answer] = {"unsat": "proved", "sat": "refuted"}


def by_z3(claim: Claim, seconds: float = 60) -> Answer:
    """Have z3 decide a claim."""
    solver = _problem(claim)
    solver.set("timeout", int(1000 * seconds))
    return ANSWERS.get(str(solver.check()), "open")


def by_cvc5(claim: Claim, seconds: float = 60) -> Answer:
    """Have cvc5 decide a claim."""
    command = [sys.executable, "-m", "tests.proofs.solvers"]
    try:
        run = subprocess.run(
            command,
            input=_problem(claim).to_smt2(),
            cwd=Path(__file__).parents[2],
            capture_output=True,
            text=True,
            timeout=seconds,
            check=True,
        )
    except subprocess.TimeoutExpired:
        return "open"
    return ANSWERS.get(run.stdout.strip(), "open")


def _problem(claim: Claim) -> z3.Solver:
    """Set up the hypotheses and the negation of the conclusion: without a solution, the claim holds."""
    solver = z3.SolverFor("QF_NRA")
    solver.add(*claim.hypotheses, z3.Not(claim.conclusion))
    return solver


def _decide(problem: str) -> str:
    """Run cvc5 on a problem."""
    solver = cvc5.Solver()
    solver.setLogic("QF_NRA")
    parser = cvc5.InputParser(solver)
    parser.setStringInput(cvc5.InputLanguage.SMT_LIB_2_6, problem, "problem")
    printed = ""
    while not (command := parser.nextCommand()).isNull():
        if command.getCommandName() not in ("set-info", "set-logic"):
            printed += command.invoke(solver, parser.getSymbolManager())
    return printed


if __name__ == "__main__":
    import cvc5

    sys.stdout.write(_decide(sys.stdin.read()))
else:
    import z3

    from tests.proofs.obligations import Claim
