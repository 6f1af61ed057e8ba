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

pytestmark = pytest.mark.usefixtures("remembered", "mpfr")

Step = Callable[..., tuple[Any, ...]]
"""``step(h, t, w, g, *slots) -> (w, *slots)``"""

PAGE = Path(__file__).parents[2] / "docs" / "guides" / "cannot_see.md"
ROWS = re.findall(r"^\| (.+?) \| (.+?) \| (.+?) \| (.+?) \|$", PAGE.read_text("utf-8"), re.MULTILINE)[1:]


def right(optimizer: str) -> Step:
    """The step that tests/expected.py states, in the parameter's dtype."""
    return lambda h, t, w, g, *slots: EXPECTED[optimizer].step(
        w.dtype.type, SimpleNamespace(**vars(h), step=t), w, g, *slots
    )


# Wrong programs, each made of a right step.


def left_out(where: Callable[[int], Any]) -> Callable[[Step], Step]:
    """Leave the elements that ``where`` chooses, by the size of the array, as they were."""

    def make(step: Step) -> Step:
        def wrong(h: Any, t: int, w: Any, g: Any, *slots: Any) -> tuple[Any, ...]:
            new = step(h, t, w, g, *slots)
            chosen = np.reshape(where(w.size), w.shape)
            return tuple(np.where(chosen, old, x) for old, x in zip((w, *slots), new, strict=True))

        return wrong

    return make


def before(change: Callable[..., tuple[Any, Any]]) -> Callable[[Step], Step]:
    """Change w and g before the step."""
    return lambda step: lambda h, t, w, g, *slots: step(h, t, *change(w, g), *slots)


def after(change: Callable[[Any], Any]) -> Callable[[Step], Step]:
    """Change what comes out of the step."""
    return lambda step: lambda *given: tuple(map(change, step(*given)))


def settings(**changes: Callable[[Any], Any]) -> Callable[[Step], Step]:
    """Change hyperparameters, those that the optimizer has."""

    def make(step: Step) -> Step:
        def wrong(h: Any, *rest: Any) -> tuple[Any, ...]:
            new = {name: change(getattr(h, name)) for name, change in changes.items() if hasattr(h, name)}
            return step(SimpleNamespace(**(vars(h) | new)), *rest)

        return wrong

    return make


def decays(change: Callable[[float], float]) -> Callable[[Step], Step]:
    """Change the decay of each running mean, and the momentum."""
    return settings(alpha=change, rho=change, momentum=change, betas=lambda betas: tuple(map(change, betas)))


def rates(change: Callable[[list[float]], float]) -> Callable[[Step], Step]:
    """Take another learning rate than the last one, from those of all steps so far."""

    def make(step: Step) -> Step:
        seen: list[float] = []

        def wrong(h: Any, t: int, *rest: Any) -> tuple[Any, ...]:
            seen[t - 1 :] = [h.learning_rate]
            return step(SimpleNamespace(**(vars(h) | {"learning_rate": change(seen)})), t, *rest)

        return wrong

    return make


def until_step(last: int, step: Step) -> Step:
    return lambda h, t, w, g, *slots: step(h, t, w, g, *slots) if t <= last else (w, *slots)


def few_axes_alone(step: Step) -> Step:
    return lambda h, t, w, g, *slots: step(h, t, w, g, *slots) if w.ndim < 5 else (w, *slots)


def as_if_contiguous(w: Any, g: Any) -> tuple[Any, Any]:
    return w, np.lib.stride_tricks.as_strided(g, strides=(g.itemsize,)) if g.ndim == 1 else g


def skips_zeros(step: Step) -> Step:
    return lambda h, t, w, g, *slots: step(h, t, w, g, *slots) if g.any() else (w, *slots)


def in_float32(step: Step) -> Step:
    return lambda h, t, *arrays: step(h, t, *map(np.float32, arrays))


def towards_zero(x: float) -> float:
    near = np.float32(x)
    return float(np.nextafter(near, np.float32(0)) if float(near) > x else near)


LARGEST, SMALLEST = float(np.finfo(np.float32).max), float(np.finfo(np.float32).tiny)


def flushed(x: Any) -> Any:
    return np.where(np.abs(x) < SMALLEST, np.float32(0), x)


# What shows that each is wrong.

Make = Callable[[Step], Step]
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


def own_settings(dtype: str = "float32", **given: Any) -> Shows:
    """Show by the cases that `assert_conforms` makes of those of these hyperparameters that the optimizer has."""

    def shows(make: Make, optimizer: str) -> bool:
        entry = entry_of(optimizer)
        taken = {name: value for name, value in given.items() if name in hyperparameters(optimizer)}
        return tells(make, [make_case(entry.optimizer, regime, taken, dtype) for regime in entry.regimes])

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


ZERO_STEP = drawn((8, 24)) * (np.arange(8) != 3)[:, None].astype(np.float32)
FIRST_LARGE = np.abs(drawn((8, 24), 18, 19)) * np.float32([2.0**12, *[-1] * 7])[:, None]
FALLING = [0.1, 0.1, 0.05, 0.05, 0.02, 0.02, 0.01, 0.01]


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
    "Another dtype than float32": Blind(in_float32, "`dtype`", own_settings(dtype="float64")),
    # steps
    "Step 3,005 and later": Blind(partial(until_step, 3004), "own data", late(3004)),
    "A step in which every gradient is 0": Blind(skips_zeros, "own data", own_data(drawn((24,)), ZERO_STEP)),
    # gradients and parameters
    "NaN and ±∞": Blind(before(lambda w, g: (w, np.nan_to_num(g))), "vectors", published("nan", "infinity")),
    "Gradients above 2²⁰": Blind(
        before(lambda w, g: (w, g * np.float32(min(1.0, 2.0**23 / np.linalg.norm(np.float64(g)))))),
        "own data",
        own_data(drawn((24,)), FIRST_LARGE),
    ),
    "Gradients below 2⁻³⁰": Blind(
        before(lambda w, g: (w, np.where(np.abs(g) < 2.0**-31, np.float32(0), g))),
        "own data",
        own_data(np.zeros(24, np.float32), drawn((8, 24), -38, -32)),
    ),
    "Parameters above 2²⁰": Blind(
        before(lambda w, g: (np.clip(w, -(2.0**21), 2.0**21).astype(np.float32), g)),
        "own data",
        own_data(drawn((24,), 25, 30), drawn((8, 24))),
    ),
    "Overflow of g²": Blind(
        after(lambda x: np.minimum(x, np.float32(LARGEST))), "nothing", beside(one([1.0], [2.0**100]))
    ),
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
    "λ = 0": Blind(settings(learning_rate=lambda x: x or 0.01), "own settings", own_settings(learning_rate=0.0)),
    "λ below 10⁻⁴": Blind(
        settings(learning_rate=lambda x: round(x, 4)), "own settings", own_settings(learning_rate=3e-5)
    ),
    "λ above 1": Blind(settings(learning_rate=lambda x: min(x, 1.0)), "own settings", own_settings(learning_rate=2.0)),
    "λ that rises": Blind(rates(min), "own settings", own_settings(learning_rate=FALLING[::-1])),
    "λ that changes after an odd number of steps": Blind(
        rates(lambda seen: seen[(len(seen) - 1) // 2 * 2]),
        "own settings",
        own_settings(learning_rate=[0.1, 0.05] * 4),
    ),
    "A decay of 0": Blind(
        decays(lambda beta: beta or 0.9), "own settings", own_settings(alpha=0.0, rho=0.0, betas=(0.0, 0.0))
    ),
    "A decay below ½": Blind(
        decays(lambda beta: beta and max(beta, 0.5)),
        "own settings",
        own_settings(alpha=0.3, rho=0.3, momentum=0.3, betas=(0.3, 0.3)),
    ),
    "A decay above 0.999": Blind(
        decays(lambda beta: min(beta, 0.999)),
        "own settings",
        own_settings(alpha=0.9999, rho=0.9999, momentum=0.9999, betas=(0.9999, 0.99)),
    ),
    "β₁ above β₂": Blind(settings(betas=sorted), "own settings", own_settings(betas=(0.9, 0.5))),
    "ε below 10⁻⁸": Blind(settings(eps=lambda eps: max(eps, 1e-8)), "own settings", own_settings(eps=1e-10)),
    "ε above 10⁻³": Blind(settings(eps=lambda eps: min(eps, 1e-3)), "own settings", own_settings(eps=0.1)),
    "κ above 1": Blind(
        settings(weight_decay=lambda kappa: min(kappa, 1.0)),
        "own settings",
        own_settings(learning_rate=0.01, weight_decay=4.0),
    ),
}


def first_seen(program: Program, optimizer: str) -> str | None:
    """Name the first case in which a program does not conform; None where it does in all."""
    for case in matching([optimizer]):
        if not judge_widening(program.run(case), parse(optimizer), ("double", "float32")).conforms:
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
