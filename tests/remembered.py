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

from mlx_optimizers.oracle import Formula, Rounded
from mlx_optimizers.oracle.trajectory import Track

MOST = 4000
"""How many walks are kept at once: those of one optimizer's cases under all its formulas, within some 200 MB."""

NUMBERS = 2_000_000
"""How many exact numbers are kept at once, within some 300 MB."""

__all__ = ["tracks_once", "walk_once"]


def _of_formula(formula: Formula) -> tuple[Any, ...]:
    """Turn a formula into a key: by its functions, as one of the same name may compute something else."""
    functions = [
        (part.func, repr((part.args, part.keywords))) if isinstance(part, partial) else part
        for part in (formula.exact, formula.initial)
    ]
    return (formula.name, formula.optimizer, *functions)


def _of_data(parameter: Any, gradients: Sequence[Any], *given: Any) -> tuple[Any, ...]:
    w, g = np.asarray(parameter), np.asarray(gradients)
    return (w.dtype, w.shape, w.tobytes(), g.dtype, g.shape, g.tobytes(), *map(_hashable, given))


def _hashable(value: Any) -> Any:
    if isinstance(value, Mapping):
        return tuple((key, _hashable(x)) for key, x in sorted(value.items()))
    return (value.dtype, value.shape, value.tobytes()) if isinstance(value, np.ndarray) else repr(value)


def tracks_once(real: Callable[..., dict[str, Track]]) -> Callable[..., dict[str, Track]]:
    """Wrap ``tracks`` so that it computes nothing twice."""
    made: dict[tuple[Any, ...], dict[str, Track]] = {}
    held = 0

    def tracks(formula: Formula, parameter: Any, gradients: Any, **given: Any) -> dict[str, Track]:
        nonlocal held
        key = (_of_formula(formula), _of_data(parameter, gradients, given))
        if key not in made:
            found = real(formula, parameter, gradients, **given)
            held += sum(track.all.exact.size for track in found.values())
            if held > NUMBERS:
                made.clear()
                held = 0
            made[key] = found
        return made[key]

    return tracks


def walk_once(real: Callable[..., Iterator[Any]]) -> Callable[..., Iterator[Any]]:
    """Wrap ``walk`` so that it takes no step twice, and none that is not asked for."""
    made: dict[tuple[Any, ...], tuple[list[Any], Iterator[Any]]] = {}

    def walk(
        formula: Formula, n: Rounded, parameter: Any, gradients: Sequence[Any], given: Mapping[str, Any], **begun: Any
    ) -> Iterator[Any]:
        if not isinstance(n, Rounded):
            yield from real(formula, n, parameter, gradients, given, **begun)
            return
        model = (n.form.name, type(n.centre), n.scalar_roundoff, n.scalar_underflow)
        key = (_of_formula(formula), model, _of_data(parameter, gradients, given, begun))
        if key not in made:
            if len(made) == MOST:
                made.clear()
            made[key] = [], real(formula, n, parameter, gradients, given, **begun)
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
