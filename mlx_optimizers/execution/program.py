"""Programs: an optimizer's ``rule`` as calls of NumPy's functions that write in place.

A ``rule`` is written over whole arrays that it does not change. It is run once on stand-ins, which note each function
that NumPy would call; what they noted is put into the order and the places that a step by hand would have.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, NamedTuple, NoReturn

import numpy as np
import numpy.typing as npt
from numpy.lib.mixins import NDArrayOperatorsMixin

__all__ = ["Bound", "Coefficients", "Program", "Rule", "bind", "program_of"]

Rule = Callable[..., tuple[Any, ...]]
"""One step of an optimizer, ``rule(c, w, g, *slots)``: the new parameter and slots, in new arrays."""

Call = tuple[Callable[..., Any], int, int, int]
"""A function, the places of its two operands (the second -1: it has one) and of its result."""


@dataclass(frozen=True)
class Program:
    """A rule as calls in place.

    Places are numbered: the coefficients first, then the parameter, the gradient, the slots, and scratch.

    Args:
        calls: What is called, in order.
        scratch: Number of scratch arrays.
        functions: The functions of NumPy that the rule is made of.

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

    calls: tuple[Call, ...]
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
    """The coefficients of one step, and the program that its flags choose."""

    c: tuple[Any, ...]
    program: Program


Coefficients = Mapping[np.dtype[Any], Bound]
"""The coefficients of one step by dtype."""


def bind(rule: Rule, coefficients: tuple[Any, ...], slots: int) -> Bound:
    """Choose the program of a rule by the coefficients that are True or False.

    Raises:
        TypeError: as `program_of` does.
    """
    flags = tuple([x if x is True or x is False else None for x in coefficients])
    return Bound(coefficients, program_of(rule, flags, slots))


@lru_cache(maxsize=256)
def program_of(rule: Rule, flags: tuple[bool | None, ...], slots: int) -> Program:
    """Record a rule.

    Args:
        rule: The rule; it is called with stand-ins.
        flags: The coefficients that are flags, and None for those that are numbers, whose values play no part.
        slots: Number of state arrays.

    Raises:
        TypeError: for what is not made of NumPy's functions of one or two arrays, element by element; for a number
            that is none of the coefficients; for a branch on an array; for another number of results.
    """
    tape: list[_Noted] = []
    c = tuple(_Value(tape) if flag is None else flag for flag in flags)
    w, g, *state = given = [_Value(tape) for _ in range(2 + slots)]
    results: Any = rule(c, w, g, *state)
    if not isinstance(results, tuple) or len(results) != 1 + slots or not all(isinstance(x, _Value) for x in results):
        raise TypeError(f"{_name(rule)} must return {1 + slots} new arrays, the parameter and its slots: {results!r}")
    first = len(flags)
    places = _Places(tape, {id(x): first + place for place, x in enumerate(given)}, first + len(given))
    places.numbers = {id(x): place for place, x in enumerate(c) if isinstance(x, _Value)}
    written = [first, *range(first + 2, first + len(given))]
    calls = places.assigned(dict(zip(written, results, strict=True)))
    return Program(tuple(calls), places.count - first - len(given), frozenset(noted.function for noted in tape))


def _name(rule: Callable[..., Any]) -> str:
    return getattr(rule, "__qualname__", repr(rule))


@dataclass(eq=False)
class _Noted:
    """One function that a rule called."""

    function: Any
    inputs: tuple[_Value, ...]
    out: _Value


class _Value(NDArrayOperatorsMixin):
    """Stands for an array or a coefficient while a rule is recorded."""

    def __init__(self, tape: list[_Noted]) -> None:
        self._tape = tape

    def __array_ufunc__(self, function: np.ufunc, method: str, *inputs: Any, **options: Any) -> _Value:
        if method != "__call__" or options or function.nout != 1 or function.nin > 2 or function.signature:
            raise TypeError(
                f"a rule calls NumPy's functions of one or two arrays, element by element and without options, "
                f"and returns new arrays: {function.__name__} is not called so"
            )
        for x in inputs:
            if not isinstance(x, _Value):
                raise TypeError(f"every number in a rule is one of its coefficients: {x!r} is not")
        noted = _Noted(function, inputs, _Value(self._tape))
        self._tape.append(noted)
        return noted.out

    def __array_function__(self, function: Callable[..., Any], *_: Any) -> Any:
        raise TypeError(
            f"a rule calls NumPy's functions of one or two arrays, element by element: not {_name(function)}"
        )

    def __bool__(self) -> NoReturn:
        raise TypeError("a rule has no branch on its numbers: what chooses one is a flag among its coefficients")


class _Places:
    """Where each value of a recording stands.

    Args:
        tape: The recording.
        given: The places of the parameter, the gradient and the slots.
        count: Number of places so far; scratch follows.
    """

    def __init__(self, tape: list[_Noted], given: dict[int, int], count: int) -> None:
        self._tape, self._given, self._first = tape, given, count
        self.count = count
        self.numbers: dict[int, int] = {}
        self._at = dict(given)  # value: its place
        self._last = {id(x): line for line, noted in enumerate(tape) for x in noted.inputs}

    def assigned(self, results: dict[int, _Value]) -> list[Call]:
        """The calls, at whose end each result stands at its place."""
        home = {id(x): place for place, x in reversed(results.items())}
        self._last |= dict.fromkeys(home, len(self._tape))
        calls: list[Call] = []
        for line, noted in enumerate(self._tape):
            sources = [self._place(x) for x in noted.inputs]
            function, spare = _INSTEAD.get(noted.function, (noted.function, False))
            if spare:
                sources.append(self._free(line, sources))
                self.count = max(self.count, sources[-1] + 1)
            place = home.get(id(noted.out))
            if place is None or not self._is_free(place, line):
                dying = [place for x, place in zip(noted.inputs, sources, strict=False) if self._ends(x, line)]
                place = next(iter(dying), None)
                if place is None:
                    place = self._free(line, sources if spare else [])
            self._take(place, noted.out)
            left, right = (*sources, -1)[:2]
            calls.append((function, left, right, place))
        return calls + self._moves(results)

    def _place(self, x: _Value) -> int:
        return self.numbers[id(x)] if id(x) in self.numbers else self._at[id(x)]

    def _take(self, place: int, x: _Value) -> None:
        for other in [other for other, at in self._at.items() if at == place]:
            del self._at[other]
        self._at[id(x)] = place
        self.count = max(self.count, place + 1)

    def _ends(self, x: _Value, line: int) -> bool:
        """Whether this line reads an array for the last time, so that its place may be written to."""
        at = self._at.get(id(x))
        return at is not None and self._is_free(at, line)

    def _is_free(self, place: int, line: int) -> bool:
        """Whether nothing at a place is read after a line; the gradient is never written to."""
        held = [value for value, at in self._at.items() if at == place]
        gradient = place == self._first - len(self._given) + 1
        return not gradient and all(self._last.get(value, -1) <= line for value in held)

    def _free(self, line: int, besides: list[int]) -> int:
        """Scratch that is free, or new."""
        return next(
            place
            for place in range(self._first, self.count + len(besides) + 1)
            if place not in besides and self._is_free(place, line)
        )

    def _moves(self, results: dict[int, _Value]) -> list[Call]:
        """Copies of results that stand elsewhere than where they belong."""
        away = {place: self._place(x) for place, x in results.items() if self._place(x) != place}
        calls: list[Call] = []
        for place, source in away.items():
            if source in results:  # it may be written over by another of these copies
                calls.append((_copy, source, -1, self.count))
                away[place] = self.count
                self.count += 1
        return [*calls, *((_copy, source, -1, place) for place, source in away.items())]


def _copy(source: Any, out: npt.NDArray[Any]) -> None:
    np.copyto(out, source)


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
    np.maximum(x, y, out=out)  # these two warn of a third argument, which may be meant as another array


def _minimum(x: npt.NDArray[Any], y: npt.NDArray[Any], out: npt.NDArray[Any]) -> None:
    np.minimum(x, y, out=out)


_INSTEAD: dict[Any, tuple[Callable[..., Any], bool]] = {
    np.sign: (_sign, True),
    np.maximum: (_maximum, False),
    np.minimum: (_minimum, False),
}
"""What is called instead of a function of NumPy, and whether it gets scratch behind its operand."""
