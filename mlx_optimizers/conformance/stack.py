"""The runs of one optimizer as a few stacks of arrays, in which a formula is tried on all of them at once."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from mlx_optimizers.catalog import entry_of
from mlx_optimizers.conformance.case import Case
from mlx_optimizers.conformance.verdict import Run
from mlx_optimizers.kinds import Hyperparameters
from mlx_optimizers.oracle import Formula
from mlx_optimizers.oracle.rounded import Scalars
from mlx_optimizers.oracle.stacked import Many, Stacked

__all__ = ["SLACK", "Glance", "Stack", "off", "stacks"]

SLACK = 1 + 2.0**-40
"""A search tolerates the error of its own float64; the oracle decides afterwards."""


class Stack:
    """Runs of cases that have as many elements and steps, and hyperparameters of 0 in the same places.

    Args:
        runs: The runs, of one parameter each.
        profile: The coefficient precision.

    Attributes:
        rates: The learning rates: (steps, cases, 1).
        gradients: (steps, cases, elements).
        got: What the program has of each quantity that it shows: (steps, cases, elements).
    """

    def __init__(self, runs: Sequence[Run], profile: Scalars) -> None:
        cases = [run.case for run in runs]
        self.runs, self.profile, self.form = runs, profile, cases[0].form
        self.slots, self.step = tuple(cases[0].slots), cases[0].step
        self.n = Stacked(self.form, profile)
        zero = np.zeros(cases[0].parameter.shape)
        self.start = {"parameter": _flat([case.parameter for case in cases])}
        self.start |= {name: _flat([case.state.get(name, zero) for case in cases]) for name in self.slots}
        self.gradients = _steps([case.gradients for case in cases])
        self.got = {"parameter": _steps([run.parameters for run in runs])}
        self.got |= {name: _steps([run.state[name] for run in runs]) for name in self.slots if name in runs[0].state}
        self.rates = np.array([case.rates() for case in cases], np.float64).T[:, :, None]
        names = [name for name in cases[0].hyperparameters if name != "learning_rate"]
        self.values = {name: _column([case.hyperparameters[name] for case in cases]) for name in names}

    def thinned(self, elements: Sequence[int], every: int = 1) -> Stack:
        """Leave a few elements of every case, or of every second, third … one."""
        size = self.gradients.shape[-1]
        elements = sorted({min(place, size - 1) for place in elements})
        out = copy.copy(self)
        out.n = Stacked(self.form, self.profile)
        out.runs, out.rates = self.runs[::every], self.rates[:, ::every]
        out.start = {name: values[::every, elements] for name, values in self.start.items()}
        out.gradients = self.gradients[:, ::every, elements]
        out.got = {name: values[:, ::every, elements] for name, values in self.got.items()}
        out.values = {name: _every(values, every) for name, values in self.values.items()}
        return out

    def plays(self, name: str) -> bool:
        """Say whether a hyperparameter is other than 0 in some case; what is none always plays a part."""
        numbers = {**self.values, **dict(zip(("beta_1", "beta_2"), self.values.get("betas", ()), strict=False))}
        return bool(np.any(numbers.get(name, 1)))

    def walk(self, formula: Formula, *, own: bool = True) -> Iterator[tuple[int, str, Many]]:
        """Yield the step, from 0, the name and the ball of each quantity that the program shows.

        Args:
            formula: The formula.
            own: Whether each step starts from the program's own numbers before it, those that it shows, so that each
                is a measurement by itself; otherwise from what the formula gives.
        """
        n, names = self.n, ("parameter", *self.slots)
        w: Any
        slots: list[Any]
        w, *slots = (n.input(("start", name), "array", self.start[name]) for name in names)
        slots += [n.input("nothing", "array", np.zeros_like(self.start["parameter"]))] * formula.more
        for index in range(len(self.gradients)):
            h = self._given(index)
            g = n.input(("gradient", index), "array", self.gradients[index])
            if index == 0 and self.step == 0 and formula.initial is not None:
                slots = [*formula.initial(n, h, g, *slots)]
            w, *slots = formula.exact(n, h, self.step + index + 1, w, g, *slots)
            for place, (name, ball) in enumerate(zip(names, (w, *slots), strict=False)):
                if name in self.got:
                    yield index, name, n.lift(ball)
                    if own:
                        kept = n.input((name, index), "kept", self.got[name][index])
                        if place:
                            slots[place - 1] = kept
                        else:
                            w = kept

    def fits(self, formula: Formula, *, own: bool = True) -> bool:
        """Say whether every number lies in its ball; stop at the first step where one does not."""
        return all(
            bool((off(ball, self.got[name][index]) <= SLACK).all()) for index, name, ball in self.walk(formula, own=own)
        )

    def _given(self, index: int) -> Hyperparameters:
        """Collect the hyperparameters of a step."""
        n, out = self.n, dict[str, Any]()
        for name, value in self.values.items():
            if isinstance(value, tuple):
                out[name] = tuple(n.input((name, place), "number", each) for place, each in enumerate(value))
            else:
                out[name] = value if isinstance(value, bool) else n.input(name, "number", value)

        def rate(step: int) -> Many:
            return n.input(("learning_rate", step), "number", self.rates[step])

        rates = {"learning_rate": rate(index), "first_rate": rate(0), "previous_rate": rate(max(index - 1, 0))}
        return Hyperparameters(**{**out, **rates})


class Glance:
    """The first steps of some elements of a stack in float64, without radii: most formulas are ruled out by them.

    A formula passes where it is within a hundredth of each step, which is far more than any rounding explains. It may
    have no value for some elements, but not for most of those for which the program has one.
    """

    def __init__(self, stack: Stack, elements: int = 3, cases: int | None = None, steps: int | None = None) -> None:
        few = stack.thinned((1, 5, 11)[:elements], 1 if cases is None else 1 + len(stack.runs) // cases)
        flat = (-1,)
        self._start = {name: values.reshape(flat) for name, values in few.start.items()}
        count, rows = few.gradients.shape[1:], len(few.gradients)
        self._few, self._steps = few, rows if steps is None else min(steps, rows)
        self._gradients = few.gradients.reshape(len(few.gradients), -1)
        self._got = few.got["parameter"].reshape(len(few.gradients), -1)
        before = np.concatenate([few.start["parameter"][None], few.got["parameter"]])[:-1].reshape(self._got.shape)
        self._before = before
        unit = stack.form.roundoff
        size = np.abs(self._got - before)
        share = 0.01 if unit < 2.0**-20 else np.inf  # in 16 bits rounding and underflow explain more
        self._off = share * size + 16 * unit * np.maximum(np.abs(before), np.abs(self._got)) + stack.form.underflow
        self._finite = np.isfinite(self._got)

        def spread(values: Any) -> Any:
            return np.broadcast_to(values, count).reshape(flat)

        self._rates = [spread(rates) for rates in few.rates]
        self._values = {
            name: value
            if isinstance(value, bool)
            else tuple(map(spread, value))
            if isinstance(value, tuple)
            else spread(value)
            for name, value in few.values.items()
        }

    def _walk(self, formula: Formula) -> Iterator[tuple[int, Any]]:
        n: Any = _Plain
        slots: list[Any] = [self._start[name] for name in self._few.slots]
        slots += [np.zeros_like(slots[0])] * formula.more
        rates = self._rates
        for index in range(self._steps):
            of = {"learning_rate": rates[index], "first_rate": rates[0], "previous_rate": rates[max(index - 1, 0)]}
            h, g = Hyperparameters(**self._values, **of), self._gradients[index]
            if index == 0 and self._few.step == 0 and formula.initial is not None:
                slots = [*formula.initial(n, h, g, *slots)]
            w, *slots = formula.exact(n, h, self._few.step + index + 1, self._before[index], g, *slots)
            yield index, w

    def passes(self, formula: Formula) -> bool:
        """Say whether a formula may be the program's."""
        for index, w in self._walk(formula):
            far = np.abs(w - self._got[index]) > self._off[index]  # False for NaN
            nothing = np.isnan(w) & self._finite[index]
            if (far & self._finite[index]).any() or 2 * nothing.sum() > w.size:
                return False
        return True

    def cells(self, formula: Formula, count: int) -> npt.NDArray[np.bool_]:
        """Say between which neighbours of a grid of values for a constant the formula may be the program's.

        Args:
            formula: The formula, with a constant whose values are a column.
            count: The number of values.
        """
        alive = np.ones(count - 1, bool)
        for index, w in self._walk(formula):
            if np.ndim(w) < 2:  # the constant plays no part
                continue
            bent = np.abs(w[2:] - 2 * w[1:-1] + w[:-2])
            bulge = np.empty_like(w)
            bulge[1:-1] = np.where(np.isfinite(bent), bent, np.inf)
            bulge[0], bulge[-1] = bulge[1], bulge[-2]
            bulge += self._off[index]
            low, high = w - bulge, w + bulge
            low, high = np.minimum(low[:-1], low[1:]), np.maximum(high[:-1], high[1:])
            outside = (self._got[index] < low) | (self._got[index] > high)
            nothing = 2 * (np.isnan(low) & self._finite[index]).sum(-1) > low.shape[-1]
            alive &= ~(outside & self._finite[index]).any(-1) & ~nothing
            if not alive.any():
                break
        return alive


class _Plain:
    """Arrays of float64 as numbers of a context."""

    sqrt = staticmethod(np.sqrt)
    abs = staticmethod(np.abs)
    max = staticmethod(np.maximum)
    sign = staticmethod(np.sign)

    @staticmethod
    def number(x: Any) -> Any:
        return np.float64(x) if isinstance(x, int | float) else x

    lift = cast = number

    @staticmethod
    def clip(x: Any, bound: Any) -> Any:
        return np.clip(x, -bound, bound)

    @staticmethod
    def is_zero(x: Any) -> bool:
        return bool(np.all(x == 0))

    @staticmethod
    def where_zero(x: Any, zero: Any, other: Any) -> Any:
        return np.where(x == 0, zero, other)


def _flat(arrays: Iterable[Any]) -> npt.NDArray[np.float64]:
    return np.stack([np.asarray(array, np.float64).reshape(-1) for array in arrays])


def _steps(arrays: Iterable[Any]) -> npt.NDArray[np.float64]:
    return np.stack([np.asarray(array, np.float64).reshape(len(array), -1) for array in arrays], 1)


def _every(values: Any, step: int) -> Any:
    """Leave every second, third … number of a column or two."""
    if isinstance(values, bool):
        return values
    return tuple(each[::step] for each in values) if isinstance(values, tuple) else values[::step]


def _column(values: list[Any]) -> Any:
    """Make one number a case a column; a pair gives two, a switch is the same in all cases."""
    if isinstance(values[0], bool):
        return values[0]
    if isinstance(values[0], tuple):
        return tuple(map(_column, map(list, zip(*values, strict=True))))
    return np.array(values, np.float64)[:, None]


def stacks(runs: Iterable[Run], profile: Scalars) -> list[Stack]:
    """Arrange runs in stacks, the one with most cases first; those without a number are left out."""
    groups: dict[Any, list[Run]] = {}
    for run in runs:
        for leaf in run.each:
            if leaf.parameters.size:
                groups.setdefault(_kind(leaf.case, leaf), []).append(leaf)
    found = [Stack(group, profile) for group in groups.values()]
    return sorted(found, key=lambda stack: -len(stack.runs))


def _kind(case: Case, run: Run) -> Any:
    """Tell which runs go together."""
    branches = entry_of(case.optimizer).branches
    zeros = [case.rates()[0] == 0, *(case.hyperparameters[name] == 0 for name in branches)]
    zeros += [value for value in case.hyperparameters.values() if isinstance(value, bool)]
    size = (case.dtype, case.parameter.size, len(case.gradients), case.step)
    return (*size, *zeros, tuple(sorted(run.state)))


def off(ball: Many, got: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Divide the errors by the radii; infinite where the formula has a value and the program none, or the reverse."""
    finite = np.isfinite(got)
    error = np.abs(np.where(finite, got, 0.0) - ball.centre)
    ratio = np.where(finite & (error == 0), 0.0, np.where(finite, error / ball.radius, np.inf))
    ratio = np.where(np.isinf(ball.radius), 0.0, ratio)
    out: npt.NDArray[np.float64] = np.where(
        np.isnan(ball.centre), np.where(finite & np.isfinite(ball.radius), np.inf, 0.0), ratio
    )
    return out
