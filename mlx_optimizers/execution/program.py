"""Programs: an optimizer's ``rule`` as calls of NumPy's functions that write in place.

A rule is written over whole arrays that it does not change. It is run once on stand-ins, which note each function that
NumPy would call; each result then gets the place that it would have in a step written by hand.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import Any, NamedTuple, NoReturn

import numpy as np
import numpy.typing as npt
from numpy.lib.mixins import NDArrayOperatorsMixin

Rule = Callable[..., tuple[Any, ...]]
"""One step of an optimizer, ``rule(c, w, g, *slots)``: the new parameter and slots, in new arrays."""


class Program(NamedTuple):
    """A rule as calls: each a function, the places of its operands (the second -1: it has one), and of its result.

    Places are numbered: the coefficients first, then the parameter, the gradient, the slots, and scratch.

    Example:
        >>> import numpy as np
        >>> from mlx_optimizers import Adagrad
        >>> from mlx_optimizers.execution.program import program_of
        >>> program = program_of(Adagrad.rule, (None, None), 1)
        >>> for function, left, right, out in program.calls:  # 0 λ, 1 ε, 2 w, 3 g, 4 v, 5 and 6 scratch
        ...     print(function.__name__, left, right, out)
        multiply 3 3 5
        add 4 5 4
        multiply 3 0 5
        sqrt 4 -1 6
        add 6 1 6
        divide 5 6 5
        subtract 2 5 2
        >>> places = [*np.float32([0.5, 1]), *np.float32([[8], [3], [0]]), *np.empty((2, 1), np.float32)]
        >>> program.run(places)  # v = 9, w = 8 − ½·3/(3 + 1)
        >>> print(places[2], places[4])
        [7.625] [9.]
    """

    calls: tuple[tuple[Callable[..., Any], int, int, int], ...]
    scratch: int
    functions: frozenset[Any]

    def run(self, places: list[Any]) -> None:
        """Call everything on what stands at the places."""
        for function, left, right, out in self.calls:
            if right < 0:
                function(places[left], places[out])
            else:
                function(places[left], places[right], places[out])


class Bound(NamedTuple):
    """The coefficients of one step, and the program that their flags choose."""

    c: tuple[Any, ...]
    program: Program


Coefficients = Mapping[np.dtype[Any], Bound]


def bind(rule: Rule, c: tuple[Any, ...], slots: int) -> Bound:
    """Choose the program of a rule by those coefficients that are True or False; see `program_of`."""
    return Bound(c, program_of(rule, tuple([x if x is True or x is False else None for x in c]), slots))


@lru_cache(maxsize=256)
def program_of(rule: Rule, flags: tuple[bool | None, ...], slots: int) -> Program:
    """Record a rule; ``flags`` has None for each coefficient that is a number, whose value plays no part.

    Raises:
        TypeError: for what is not made of NumPy's functions of one or two arrays, element by element; for a number
            that is none of the coefficients; for a branch on an array; for another number of results.
    """
    tape: list[tuple[Any, tuple[_Value, ...], _Value]] = []
    given = [_Value(tape) if flag is None else flag for flag in [*flags, *[None] * (2 + slots)]]
    first = len(flags)
    results: Any = rule(tuple(given[:first]), *given[first:])
    if not isinstance(results, tuple) or len(results) != 1 + slots or not all(isinstance(x, _Value) for x in results):
        raise TypeError(f"{_name(rule)} must return {1 + slots} new arrays, the parameter and its slots: {results}")
    homes = [first, *range(first + 2, first + 2 + slots)]
    home = {id(x): place for place, x in reversed([*zip(homes, results, strict=True)])}
    last = {id(x): line for line, (_, inputs, _) in enumerate(tape) for x in inputs} | dict.fromkeys(home, len(tape))
    place = {id(x): number for number, x in enumerate(given)}
    holds = {number: id(given[number]) for number in homes}  # what may be written to, and which value is there
    calls, count = [], len(given)
    for line, (function, inputs, out) in enumerate(tape):
        sources = [place[id(x)] for x in inputs]
        free = [number for number, value in holds.items() if last.get(value, -1) <= line]
        call, needs_scratch = _INSTEAD.get(function, (function, False))
        if needs_scratch:
            sources.append(next((x for x in free if x >= len(given) and x not in sources), count))
            holds.setdefault(sources[-1], 0)
            count = max(count, sources[-1] + 1)
        at = home.get(id(out), -1)
        if at not in free:
            usable = [x for x in sources[: len(inputs)] if x in free]
            usable += [x for x in free if x >= len(given) and x not in sources]
            at = next(iter(usable), count)
        count = max(count, at + 1)
        holds[at] = id(out)
        place[id(out)] = at
        calls.append((call, *(*sources, -1)[:2], at))
    away = {number: place[id(x)] for number, x in zip(homes, results, strict=True) if place[id(x)] != number}
    for number, at in away.items():
        if at in homes:  # it may be written over by the move of another
            calls.append((_move, at, -1, count))
            away[number], count = count, count + 1
    calls += [(_move, at, -1, number) for number, at in away.items()]
    return Program(tuple(calls), count - len(given), frozenset(function for function, _, _ in tape))


def _name(function: Callable[..., Any]) -> str:
    return getattr(function, "__qualname__", repr(function))


class _Value(NDArrayOperatorsMixin):
    """Stands for an array or a coefficient while a rule is recorded."""

    def __init__(self, tape: list[Any]) -> None:
        self._tape = tape

    def __array_ufunc__(self, function: np.ufunc, method: str, *inputs: Any, **options: Any) -> _Value:
        if method != "__call__" or options or function.nout != 1 or function.nin > 2 or function.signature:
            raise TypeError(f"{_CALLS}: {function.__name__} is not called so")
        for x in inputs:
            if not isinstance(x, _Value):
                raise TypeError(f"every number in a rule is one of its coefficients: {x!r} is not")
        self._tape.append((function, inputs, _Value(self._tape)))
        return self._tape[-1][2]  # type: ignore[no-any-return]

    def __array_function__(self, function: Callable[..., Any], *_: Any) -> NoReturn:
        raise TypeError(f"{_CALLS}: {_name(function)} is none")

    def __bool__(self) -> NoReturn:
        raise TypeError("a rule has no branch on its numbers: what chooses one is a flag among its coefficients")


_CALLS = "a rule calls functions of one or two arrays, element by element, without options, and returns new arrays"


def _move(x: Any, out: npt.NDArray[Any]) -> None:
    np.copyto(out, x)


def _sign(x: npt.NDArray[Any], scratch: npt.NDArray[Any], out: npt.NDArray[Any]) -> None:
    """``np.sign(x, out=out)`` without its branches, which a processor guesses wrongly every second time."""
    halves = scratch.reshape(-1).view(bool)[: 2 * x.size].reshape(2, *x.shape)
    above, below = halves[0, ...], halves[1, ...]
    if np.isnan(x, out=above).any():
        np.sign(x, out=out)
        return
    np.greater(x, 0, out=above)
    np.less(x, 0, out=below)
    out[...] = np.subtract(above.view(np.int8), below.view(np.int8), out=above.view(np.int8))


def _maximum(x: npt.NDArray[Any], y: npt.NDArray[Any], out: npt.NDArray[Any]) -> None:
    np.maximum(x, y, out=out)  # with three arguments it warns, and so does minimum


def _minimum(x: npt.NDArray[Any], y: npt.NDArray[Any], out: npt.NDArray[Any]) -> None:
    np.minimum(x, y, out=out)


_INSTEAD: dict[Any, tuple[Callable[..., Any], bool]] = {
    np.sign: (_sign, True),
    np.maximum: (_maximum, False),
    np.minimum: (_minimum, False),
}
"""What is called for a function of NumPy, and whether it gets scratch behind its operand."""
