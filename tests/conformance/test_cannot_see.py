"""The rows of "What a check cannot see": each has a wrong program that passes every case of its optimizers.

Each is also shown to be wrong, in the way that the page names: by data or hyperparameters of one's own, by the vectors,
or beside the right program where no check can tell. Once the cases see a program, its row leaves the page, and the
program leaves this file.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from mlx_optimizers.catalog import entry_of
from mlx_optimizers.conformance import Case, Run, matching, parse
from mlx_optimizers.conformance.cases import make_case
from mlx_optimizers.conformance.vectors import derive, vectors_of
from mlx_optimizers.conformance.verdict import judge_widening
from tests.expected import EXPECTED, NAMES
from tests.programs import Program
from tests.wrong import (
    Make,
    Step,
    after,
    as_if_contiguous,
    before,
    decays,
    few_axes_alone,
    in_float32,
    left_out,
    right,
    settings,
    towards_zero,
    until_step,
)

pytestmark = pytest.mark.usefixtures("remembered", "mpfr")

PAGE = Path(__file__).parents[2] / "docs" / "guides" / "cannot_see.md"
ROWS = re.findall(r"^\| (.+?) \| (.+?) \| (.+?) \| (.+?) \|$", PAGE.read_text("utf-8"), re.MULTILINE)[1:]


LARGEST, SMALLEST = float(np.finfo(np.float32).max), float(np.finfo(np.float32).tiny)


def finite(step: Step) -> Step:
    """Return the largest number instead of an infinity that comes of a finite gradient."""

    def wrong(h: Any, t: int, w: Any, g: Any, *slots: Any) -> tuple[Any, ...]:
        new = step(h, t, w, g, *slots)
        return tuple(np.where(np.isinf(x) & np.isfinite(g), np.float32(LARGEST), x) for x in new)

    return wrong


def flushed(x: Any) -> Any:
    return np.where(np.abs(x) < SMALLEST, np.float32(0), x)


# What shows that each is wrong.

Shows = Callable[[Make, str], bool]
"""Tell whether the program that is made of the right step of an optimizer is seen to be wrong."""


def drawn(shape: tuple[int, ...], low: int = -2, high: int = 1) -> Any:
    """Draw ±2ᵏ, times 1 to 2."""
    rng = np.random.default_rng(0)
    return np.float32(rng.choice([-1, 1], shape) * rng.uniform(1, 2, shape) * 2.0 ** rng.integers(low, high, shape))


def hyperparameters(optimizer: str) -> dict[str, Any]:
    """The defaults, but a momentum for SGD, so that its state plays a part."""
    label = "momentum=0.6" if optimizer == "SGD" else "defaults"
    (case,) = matching([optimizer], f"*/plain/{label}")
    return case.hyperparameters


def tells(make: Make, cases: Sequence[Case]) -> bool:
    """Tell whether the right program conforms in every case, and the wrong one does not."""

    def conforms(case: Case, step: Step) -> bool:
        run = Program(step, state=False).run(case)
        return judge_widening(run, parse(case.optimizer), ("double", "float32")).conforms

    assert all(conforms(case, right(case.optimizer)) for case in cases)
    return not all(conforms(case, make(right(case.optimizer))) for case in cases)


def own_data(parameter: Any, gradients: Any) -> Shows:
    """Show by a case of these data."""

    def shows(make: Make, optimizer: str) -> bool:
        data = hyperparameters(optimizer), parameter, gradients
        return tells(make, [Case("own", optimizer, "own", "own", "float32", *data)])

    return shows


def late(step: int) -> Shows:
    """Show by the case that resumes, with so many updates done before."""

    def shows(make: Make, optimizer: str) -> bool:
        (case,) = matching([optimizer], "*/resume/step=3000")
        return tells(make, [replace(case, step=step)])

    return shows


def cases_in(dtype: str) -> Shows:
    """Show by the cases of the suite in another dtype."""
    return lambda make, optimizer: tells(make, matching([optimizer], "*/plain/*", [dtype]))


def own_settings(**given: Any) -> Shows:
    """Show by the cases that `assert_conforms` makes of those of these hyperparameters that the optimizer has."""

    def shows(make: Make, optimizer: str) -> bool:
        entry = entry_of(optimizer)
        taken = {name: value for name, value in given.items() if name in hyperparameters(optimizer)}
        return tells(make, [make_case(entry.optimizer, regime, taken) for regime in entry.regimes])

    return shows


def published(*labels: str) -> Shows:
    """Show by each of these cases of the vectors."""

    def shows(make: Make, optimizer: str) -> bool:
        return all(rejects(make, case) for case in vectors_of(optimizer) if case.label in labels)

    return shows


def rejects(make: Make, case: Case) -> bool:
    """Tell whether a published case accepts the right program, and not the wrong one."""
    expected = derive(case)["expected"]
    case = replace(case, parameter=np.float32(case.parameter), gradients=np.float32(case.gradients))
    assert accepted(expected, Program(right(case.optimizer)).run(case))
    return not accepted(expected, Program(make(right(case.optimizer))).run(case))


def accepted(expected: Sequence[Any], run: Run) -> bool:
    """Tell whether every value passes by the three rules on the page of the vectors."""
    got = {"parameter": run.parameters, **run.state}
    return all(
        passes(got[name][step], floats(quantity["low"]), floats(quantity["high"]))
        for step, entry in enumerate(expected)
        for name, quantity in {"parameter": entry["parameter"], **entry["state"]}.items()
    )


def passes(x: Any, low: Any, high: Any) -> bool:
    anything = (low == -np.inf) & (high == np.inf)
    return bool(np.where(np.isnan(low), np.isnan(x), anything | ((low <= x) & (x <= high))).all())


def floats(patterns: Sequence[str]) -> Any:
    return np.array([int(bits, 16) for bits in patterns], np.uint32).view(np.float32)


def beside(data: Callable[[], tuple[Sequence[Any], Sequence[Any]]], **given: Any) -> Shows:
    """Show beside the right program.

    Args:
        data: Draws several parameters, and their gradients for each step.
        **given: Hyperparameters.
    """

    def taken(optimizer: str, make: Make) -> list[bytes]:
        h, out = SimpleNamespace(**hyperparameters(optimizer) | given), []
        parameters, gradients = data()
        rows = [(w, *(np.zeros_like(w) for _ in EXPECTED[optimizer].slots)) for w in parameters]
        step = make(right(optimizer))
        for t, each in enumerate(gradients, start=1):
            for index, g in enumerate(each):
                rows[index] = tuple(map(np.float32, step(h, t, rows[index][0], g, *rows[index][1:])))
                out += [x.tobytes() for x in (*rows[index], g)]
        return out

    def shows(make: Make, optimizer: str) -> bool:
        with np.errstate(all="ignore"):
            return taken(optimizer, lambda step: step) != taken(optimizer, make)

    return shows


def one(parameter: Any, *gradients: Any) -> Callable[[], tuple[Sequence[Any], Sequence[Any]]]:
    """One parameter, and its gradient for each step."""
    return lambda: ([np.float32(parameter)], [[np.float32(g)] for g in gradients])


def strided() -> tuple[Sequence[Any], Sequence[Any]]:
    return [drawn((24,))], [[row[::2]] for row in drawn((4, 48))]


@dataclass(frozen=True)
class Blind:
    """A row of the page.

    Args:
        make: Makes the wrong program of the right step.
        by: What shows it, by the words of the page.
        shows: Tells whether that does.
    """

    make: Make
    by: str
    shows: Shows


BLIND = {
    # arrays
    "Elements after the 4,097th": Blind(
        left_out(lambda size: np.arange(size) >= 4097), "own data", own_data(drawn((5000,)), drawn((2, 5000)))
    ),
    "Arrays of five axes and more": Blind(
        few_axes_alone, "own data", own_data(drawn((2, 1, 3, 2, 2)), drawn((4, 2, 1, 3, 2, 2)))
    ),
    "Arrays that are not contiguous": Blind(before(as_if_contiguous), "own test", beside(strided)),
    "Another dtype than float32": Blind(in_float32, "`--dtype`", cases_in("float64")),
    # steps
    "Step 3,005 and later": Blind(partial(until_step, 3004), "own data", late(3004)),
    # gradients and parameters
    "Numbers outside 2⁻⁴⁰ … 2⁴⁰": Blind(
        before(lambda w, g: (w, np.where(np.abs(g) < 2.0**-41, np.float32(0), g))),
        "nothing",
        beside(one(np.zeros(1), [2.0**-50])),
    ),
    "Overflow of g²": Blind(finite, "nothing", beside(one([1.0], [2.0**100]))),
    "Subnormal numbers": Blind(
        before(lambda w, g: (flushed(w), flushed(g))), "nothing", beside(one([1e-40], [0.0], [1.0]))
    ),
    "The sign of a zero": Blind(
        after(lambda x: np.where(x == 0, np.float32(-0.0), x)), "nothing", beside(one([0.0], [0.0], [1.0]))
    ),
    "Errors of the size of rounding": Blind(
        settings(learning_rate=towards_zero), "nothing", beside(one(np.zeros(24), *drawn((8, 24))), learning_rate=0.1)
    ),
    # hyperparameters
    "λ above 2": Blind(settings(learning_rate=lambda x: min(x, 2.0)), "own settings", own_settings(learning_rate=3.0)),
    "A decay above 0.9999": Blind(
        decays(lambda beta: min(beta, 0.9999)),
        "own settings",
        own_settings(alpha=0.99999, rho=0.99999, momentum=0.99999, betas=(0.9, 0.99999)),
    ),
    "ε above 1": Blind(settings(eps=lambda eps: min(eps, 1.0)), "own settings", own_settings(eps=10.0)),
    "κ above 2": Blind(
        settings(weight_decay=lambda kappa: min(kappa, 2.0)),
        "own settings",
        own_settings(learning_rate=0.01, weight_decay=4.0),
    ),
}


def first_seen(program: Program, optimizer: str) -> str | None:
    """Name the first case in which a program deviates; None where it does in none."""
    for case in matching([optimizer]):
        if judge_widening(program.run(case), parse(optimizer), ("double", "float32")).word == "deviates":
            return case.id
    return None


def named(cell: str) -> list[str]:
    """Read the optimizers of a cell: all, all but some, or a list."""
    if cell == "all":
        return list(NAMES)
    but, names = cell.startswith("all but "), cell.removeprefix("all but ").split(", ")
    assert set(names) <= set(NAMES), cell
    return [name for name in NAMES if (name in names) != but]


def test_the_rows_of_the_page_are_the_programs_of_this_file():
    assert [(what, by) for what, _, _, by in ROWS] == [(what, blind.by) for what, blind in BLIND.items()]


@pytest.mark.norm("vectors.blind", "interval.not-everywhere", "interval.told-apart")
@pytest.mark.parametrize(("what", "cell"), [(what, cell) for what, _, cell, _ in ROWS])
def test_the_wrong_program_of_a_row_passes_every_case_and_is_wrong(what, cell):
    blind = BLIND[what]
    for optimizer in named(cell):
        seen = first_seen(Program(blind.make(right(optimizer))), optimizer)
        assert seen is None, f"{seen} sees it now; take {optimizer} out of the row {what!r}"
        assert blind.shows(blind.make, optimizer), (what, optimizer, blind.by)


def test_no_row_leaves_out_an_optimizer_whose_cases_do_not_see_it():
    for what, _, cell, _ in ROWS:
        for optimizer in set(NAMES) - set(named(cell)):
            make = BLIND[what].make
            passes = first_seen(Program(make(right(optimizer))), optimizer) is None
            assert not (passes and BLIND[what].shows(make, optimizer)), (what, optimizer)
