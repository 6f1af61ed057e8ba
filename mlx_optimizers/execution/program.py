"""Programs: an optimizer's ``rule`` as calls of NumPy's functions that write in place.

A rule is written over whole arrays that it does not change. It is run once on stand-ins, which note each function that
NumPy would call; each result then gets the place that it would have in a step written by hand.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import NamedTuple, NoReturn

import numpy as np
from numpy.lib.mixins import NDArrayOperatorsMixin

from mlx_optimizers.kinds import Constants, Dtype, FloatArray, Rule, Value

Function = Callable[..., FloatArray | None]
"""A function of NumPy, or one that is called like it: with its operands and the array of its result."""


class Program(NamedTuple):
    """A rule as calls: each a function, the places of its operands (the second -1: it has one), and of its result.

    Places are numbered: the coefficients first, then the parameter, the gradient, the slots, and scratch.

    Example:
        >>> from mlx_optimizers import Adagrad
        >>> from mlx_optimizers.execution.program import program_of
        >>> program = program_of(Adagrad.rule, (None, None), 1)
        >>> [function.__name__ for function, *_ in program.calls], program.scratch
        (['multiply', 'add', 'multiply', 'sqrt', 'add', 'divide', 'subtract'], 2)
    """

    calls: tuple[tuple[Function, int, int, int], ...]
    scratch: int

    def run(self, places: list[Value]) -> None:
        """Call everything on what stands at the places."""
        for function, left, right, out in self.calls:
            if right < 0:
                function(places[left], places[out])
            else:
                function(places[left], places[right], places[out])


Coefficients = Mapping[Dtype, tuple[Constants, Program]]
"""The coefficients of one step by dtype, each with the program that their flags choose."""


def bind(rule: Rule, c: Constants, slots: int) -> tuple[Constants, Program]:
    """Choose the program of a rule by those coefficients that are True or False; see `program_of`."""
    return c, program_of(rule, tuple([x if x is True or x is False else None for x in c]), slots)


@lru_cache(maxsize=256)
def program_of(rule: Rule, flags: tuple[bool | None, ...], slots: int) -> Program:
    """Record a rule; ``flags`` has None for each coefficient that is a number, whose value plays no part.

    Raises:
        TypeError: for what is not made of NumPy's functions of one or two arrays, element by element; for a number
            that is none of the coefficients; for a branch on an array; for another number of results.
    """
    tape: list[_Line] = []
    inputs = [_Value(tape) if flag is None else flag for flag in [*flags, *[None] * (2 + slots)]]
    first, count = len(flags), len(inputs)  # of coefficients, of places
    results: Value = rule(tuple(inputs[:first]), *inputs[first:])
    if not isinstance(results, tuple) or len(results) != 1 + slots or not all(isinstance(x, _Value) for x in results):
        raise TypeError(f"{rule.__qualname__} must return {1 + slots} new arrays, the parameter and slots: {results}")
    homes = [first, *range(first + 2, count)]
    home = {id(x): number for number, x in reversed([*zip(homes, results, strict=True)])}
    last = {id(x): n for n, (_, operands, _) in enumerate(tape) for x in operands} | dict.fromkeys(home, len(tape))
    place = {id(x): number for number, x in enumerate(inputs)}
    holds = {number: id(inputs[number]) for number in homes}  # what may be written to, and which value is there
    calls: list[tuple[Function, int, int, int]] = []
    for line, (function, operands, out) in enumerate(tape):
        sources = [place[id(x)] for x in operands]
        free = [number for number, value in holds.items() if last.get(value, -1) <= line]
        best = [home.get(id(out), -1), *sources, *range(len(inputs), count)]
        at = next((number for number in best if number in free), count)
        count = max(count, at + 1)
        holds[at], place[id(out)] = id(out), at
        if function is np.sign:
            sources.append(next((number for number in best[2:] if number in {*free} - {at, *sources}), count))
            count = max(count, sources[-1] + 1)
            holds.setdefault(sources[-1], 0)
        calls.append((_INSTEAD.get(function, function), sources[0], sources[1] if len(sources) > 1 else -1, at))
    # A result that stands elsewhere goes home by way of scratch, as another may stand where it belongs.
    moves = [(place[id(x)], number) for number, x in zip(homes, results, strict=True) if place[id(x)] != number]
    calls += [(np.positive, at, -1, number) for number, (at, _) in enumerate(moves, count)]
    calls += [(np.positive, number, -1, at) for number, (_, at) in enumerate(moves, count)]
    return Program(tuple(calls), count + len(moves) - len(inputs))


class _Value(NDArrayOperatorsMixin):
    """Stands for an array or a coefficient while a rule is recorded."""

    def __init__(self, tape: list[_Line]) -> None:
        self._tape = tape

    def __array_ufunc__(self, function: np.ufunc, method: str, *operands: Value, **options: Value) -> _Value:
        if method != "__call__" or options or function.nout != 1 or function.nin > 2 or function.signature:
            raise TypeError(f"{_CALLS}: {function.__name__} is not called so")
        for x in operands:
            if not isinstance(x, _Value):
                raise TypeError(f"every number in a rule is one of its coefficients: {x!r} is not")
        out = _Value(self._tape)
        self._tape.append((function, operands, out))
        return out

    def __array_function__(self, function: Function, *_: Value) -> NoReturn:
        raise TypeError(f"{_CALLS}: {function.__name__} is none")

    def __bool__(self) -> NoReturn:
        raise TypeError("a rule has no branch on its numbers: what chooses one is a flag among its coefficients")


_Line = tuple[np.ufunc, tuple[_Value, ...], _Value]

_CALLS = "a rule calls functions of one or two arrays, element by element, without options, and returns new arrays"


def _sign(x: FloatArray, scratch: FloatArray, out: FloatArray) -> None:
    """``np.sign(x, out=out)`` without its branches, which a processor guesses wrongly every second time."""
    above, below = (np.ndarray(x.shape, bool, scratch, start) for start in (0, x.size))
    if np.isnan(x, out=above).any():
        np.sign(x, out=out)
    else:
        np.greater(x, 0, out=above)
        np.less(x, 0, out=below)
        out[...] = np.subtract(above.view(np.int8), below.view(np.int8), out=above.view(np.int8))


_INSTEAD: dict[np.ufunc, Function] = {
    np.sign: _sign,
    np.maximum: lambda x, y, out: np.maximum(x, y, out=out),  # NumPy warns of an output without its name
    np.minimum: lambda x, y, out: np.minimum(x, y, out=out),
}
"""What is called for a function of NumPy."""
