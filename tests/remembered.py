"""The oracle's answers for a case under a formula, computed once for all tests of a module.

Many programs are held to the same formulas in the same cases, and the intervals are those of the case and the formula
alone. A test module asks for it with ``pytestmark = pytest.mark.usefixtures("remembered")``; the oracle's own tests do
not, and neither do those that change the oracle.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np

from mlx_optimizers.oracle import Entry, Formula, Rounded

MOST = 4000
"""How many walks are kept at once: those of one optimizer's cases under all its formulas, within some 200 MB."""

__all__ = ["trajectory_once", "walk_once"]


def _of_formula(formula: Formula) -> tuple[Any, ...]:
    """Turn a formula into a key: by its functions, as one of the same name may compute something else."""
    functions = [
        (part.func, repr((part.args, part.keywords))) if isinstance(part, partial) else part
        for part in (formula.exact, formula.initial)
    ]
    return (formula.name, formula.optimizer, *functions)


def _of_data(parameter: Any, gradients: Sequence[Any], given: Mapping[str, Any]) -> tuple[Any, ...]:
    w, g = np.asarray(parameter), np.asarray(gradients)
    return (w.dtype, w.shape, w.tobytes(), g.dtype, g.shape, g.tobytes(), repr(sorted(given.items())))


def trajectory_once(real: Callable[..., list[Entry]]) -> Callable[..., list[Entry]]:
    """Wrap ``trajectory`` so that it computes nothing twice."""
    made: dict[tuple[Any, ...], list[Entry]] = {}

    def trajectory(
        formula: Formula, parameter: Any, gradients: Any, *, dtype: str, scalars: str, **given: Any
    ) -> list[Entry]:
        key = (_of_formula(formula), dtype, scalars, _of_data(parameter, gradients, given))
        if key not in made:
            made[key] = real(formula, parameter, gradients, dtype=dtype, scalars=scalars, **given)
        return made[key]

    return trajectory


def walk_once(real: Callable[..., Iterator[Any]]) -> Callable[..., Iterator[Any]]:
    """Wrap ``walk`` so that it takes no step twice, and none that is not asked for."""
    made: dict[tuple[Any, ...], tuple[list[Any], Iterator[Any]]] = {}

    def walk(
        formula: Formula, n: Rounded, parameter: Any, gradients: Sequence[Any], given: Mapping[str, Any]
    ) -> Iterator[Any]:
        model = (n.form.name, type(n.centre), n.scalar_roundoff, n.scalar_underflow)
        key = (_of_formula(formula), model, _of_data(parameter, gradients, given))
        if key not in made:
            if len(made) == MOST:
                made.clear()
            made[key] = [], real(formula, n, parameter, gradients, given)
        taken, rest = made[key]
        for number in range(len(gradients)):
            if number == len(taken):
                try:
                    taken.append(next(rest))
                except BaseException:
                    made.pop(key, None)  # so that it is raised again the next time
                    raise
            yield taken[number]

    return walk
