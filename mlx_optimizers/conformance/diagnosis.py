"""Which formula a deviating backend computes instead.

Every formula that differs in one place from the one it is held to is tried, then every one that differs in two, and
in as many as the catalog says. A place is an axis, or a constant, whose value is solved from the backend's numbers.
The search is in float64, up to the first number that does not fit; the oracle has the last word. The formulas that
remain agree with every case of the optimizer, and some case tests the parameter: NaN everywhere is no evidence for a
formula without a value.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from itertools import combinations, islice, permutations, product
from typing import Any

import numpy as np

from mlx_optimizers.catalog import Choice, Entry, entry_of
from mlx_optimizers.conformance.case import Case
from mlx_optimizers.conformance.cases import cases_of
from mlx_optimizers.conformance.frame import FAMILIES
from mlx_optimizers.conformance.solver import DECAYS, Unknown, digits, glimpsed, paired, solved
from mlx_optimizers.conformance.stack import SLACK, Glance, Stack, off, stacks
from mlx_optimizers.conformance.verdict import Run, judge_widening, walked
from mlx_optimizers.elementwise import Elementwise
from mlx_optimizers.kinds import FloatArray
from mlx_optimizers.oracle import Ball, Double, Exact, Formula, Rounded
from mlx_optimizers.oracle.constants import KINDS, Constant, constants_of, spelt
from mlx_optimizers.oracle.exact import Radius
from mlx_optimizers.oracle.formulas import axes_of, missing_of, name_of, parse, split, variants, varied
from mlx_optimizers.oracle.newton_schulz import CONSISTENT
from mlx_optimizers.oracle.rounded import Scalars, error_ratio
from mlx_optimizers.oracle.stacked import Many

__all__ = ["Diagnosis", "diagnose"]

_CLEARLY = 1.0
"""Bits by which errors have to be smaller, on average, for their formula to be nearer than the documented one."""

_MOST = 4
"""How many formulas a diagnosis names."""


@dataclass(frozen=True)
class Diagnosis:
    """What a backend computes.

    Args:
        formulas: Names of the formulas that agree with all cases, fewest axes first, then by smallest error ratio.
        nearest: Where nothing agrees, the formula that agrees with most cases; among those the documented one, unless
            another's errors are clearly smaller. None where none agrees with any.
        agreeing: With how many cases it does.
        of: How many cases the diagnosis was made of.
    """

    formulas: list[str]
    nearest: str | None = None
    agreeing: int = 0
    of: int = field(default=0, compare=False)


def diagnose(
    optimizer: str, runs: Sequence[Run], profiles: Sequence[Scalars], held: Formula | None = None
) -> Diagnosis:
    """Find the formulas that agree with all cases of an optimizer.

    Args:
        optimizer: Name of the optimizer.
        runs: What was computed for its cases; the deviating ones first make it faster.
        profiles: The coefficient precisions that may explain a case.
        held: The formula that the backend is held to; by default the documented one.
    """
    with np.errstate(all="ignore"):  # a NaN or an infinity is a number of some programs
        return _diagnosed(entry_of(optimizer), runs, profiles, held)


def _diagnosed(entry: Entry, runs: Sequence[Run], profiles: Sequence[Scalars], held: Formula | None) -> Diagnosis:
    told = any(_finite(run) for run in runs)
    search = _search(entry, runs, profiles[-1])
    base = _choice(entry, held)
    for candidates in search.levels(base) if told else ():
        confirmed: list[tuple[Any, float, str]] = []
        for choice in candidates:
            if len(confirmed) < _MOST and (excess := _confirmed(_formula(entry, choice), runs, profiles)) is not None:
                confirmed.append((_cost(choice), excess, name_of(entry.family, choice)))
        if confirmed:
            return Diagnosis([name for *_, name in sorted(confirmed)])
    best, agreeing = search.nearest(profiles)
    return Diagnosis([], best if agreeing else None, agreeing, len(runs))


def _choice(entry: Entry, held: Formula | None) -> Choice:
    """Read the axes of a formula; those of the documented one where its name is no formula's."""
    try:
        family, choice = split(entry.formula if held is None else held.name)
    except ValueError:
        return {}
    return choice if family == entry.family else {}


def _formula(entry: Entry, choice: Choice) -> Formula:
    return parse(name_of(entry.family, choice))


def _plain(entry: Entry, choice: Choice) -> dict[str, str]:
    """Write a choice with a plain value of an axis instead of a constant, where there is one that means the same."""
    out, axes = dict(choice), axes_of(entry.family)
    left = []
    for item in constants_of(choice):
        nothing = item.value == 0 and item.kind != "replaced" and item.name != "eps"
        if item.name == "initial" and str(item).partition(":")[2] in axes.get("initial", ()):
            out["initial"] = str(item).partition(":")[2]
        elif nothing and "ignored" in axes.get(item.name, ()):
            out[item.name] = "ignored"
        elif item.kind == "scaled" and item.value == 0 and item.name not in ("gradient", "step"):
            left.append(Constant("ignored", item.name, 0.0))
        else:
            left.append(item)
    out = {key: value for key, value in out.items() if key not in KINDS}
    return out | spelt(left)


def _cost(choice: Choice) -> tuple[int, int, int, int, str]:
    """Order formulas: by the number of axes; plain values first; fewest digits; what is no hyperparameter last."""
    constants = constants_of(choice)
    count = sum(len(value.split()) for value in choice.values())
    odd = sum(item.name in ("gradient", "clip", "step") for item in constants)
    written = sum(digits(item.value) for item in constants if isinstance(item.value, float))
    return count, len(constants), written, odd, str(sorted(choice.items()))


def _confirmed(formula: Formula, runs: Iterable[Run], profiles: Sequence[Scalars]) -> float | None:
    """Find the greatest error ratio over all cases by the oracle; None if one deviates or none tests the parameter."""
    greatest = None
    for run in runs:
        try:
            verdict = judge_widening(run, formula, profiles)
        except ValueError:  # the root of a negative number
            return None
        if verdict.worst is not None and verdict.conforms:
            greatest = max(greatest or 0.0, verdict.worst.excess)
        elif verdict.consistent and verdict.distance is not None:
            greatest = max(greatest or 0.0, verdict.distance / CONSISTENT)
        elif verdict.word == "unsupported" and verdict.distance is None:
            continue  # nothing can be told
        elif verdict.decided or verdict.first is not None or _finite(run):
            return None  # otherwise neither has a value in this case
    return greatest


def _finite(run: Run) -> bool:
    """Say whether a program has computed a finite parameter."""
    return any(bool(np.isfinite(leaf.parameters).any()) for leaf in run.each)


def _search(entry: Entry, runs: Sequence[Run], profile: Scalars) -> _OfStacks | _OneByOne:
    if issubclass(entry.optimizer, Elementwise) and any(leaf.parameters.size for run in runs for leaf in run.each):
        return _OfStacks(entry, runs, profile)
    return _OneByOne(entry, runs, profile)


class _OfStacks:
    """The search among the formulas of an elementwise optimizer."""

    def __init__(self, entry: Entry, runs: Sequence[Run], profile: Scalars) -> None:
        self._entry, self._runs = entry, runs
        ordinary = [run for run in runs if run.case.regime not in FAMILIES]
        self._stacks = stacks(ordinary or runs, profile)
        self._glances = {stack: Glance(stack) for stack in self._stacks}
        self._coarse = {stack: Glance(stack, 1, 8, 2) for stack in self._stacks}
        self._few = {stack: stack.thinned((1, 5, 11)) for stack in self._stacks}

    def levels(self, base: Choice) -> Iterator[Iterable[Choice]]:
        """Yield the formulas that fit, those of fewest changes first, each time in the order of their cost."""
        bases = [dict(base)] + ([{}] if base else [])
        for choice in bases:
            if self._fits(choice):
                yield [choice]
                return  # what deviates is around the formula
        for level in range(1, self._entry.depth + 1):
            yield self._told_apart(sorted(islice(self._agreeing(bases, level), 4 * _MOST), key=_cost))

    def _agreeing(self, bases: Sequence[Choice], level: int) -> Iterator[Choice]:
        """Yield the formulas that differ in so many places from one of the bases, and fit."""
        seen = set()
        for constants in range(min(level, 2) + 1):
            for start in bases if level < 3 else bases[:1]:
                for choice in _changed(self._entry, start, level - constants):
                    for found in self._with_constants(choice, constants, level):
                        plain = _plain(self._entry, found)
                        name = name_of(self._entry.family, plain)
                        if name not in seen and missing_of(self._entry.family, plain) is None:
                            seen.add(name)
                            if self._telling(plain, bases[0]):
                                yield plain

    def _with_constants(self, choice: Choice, count: int, level: int) -> Iterator[Choice]:
        """Yield a choice with so many constants that fits."""
        if count == 0:
            if self._fits(choice):
                yield choice
            return
        known = constants_of(choice)
        taken = {item.name for item in known} | {key for key, value in choice.items() if value == "ignored"}
        if count == 1 and level < 3:
            for items in _usual(self._entry.family):
                if not taken & {item.name for item in items}:
                    more = {**choice, **spelt([*known, *items])}
                    if self._fits(more):
                        yield more
        free = [unknown for unknown in _unknowns(self._entry) if unknown[1] not in taken]
        for unknown in combinations(free, count):
            if (level > 2 and not set(unknown) <= _LATE) or (count == 2 and (unknown not in _PAIRS or level > 2)):
                continue
            for constants in self._solved(choice, unknown):
                more = {**choice, **spelt([*known, *constants])}
                if self._fits(more):
                    yield more
                    break

    def _solved(self, choice: Choice, unknown: Sequence[Unknown]) -> Iterator[list[Constant]]:
        if self._entry.family == "Lion" and tuple(unknown) == _PAIRS[0]:  # between the corners of a cell a sign hides
            for values in product(_BETAS, _BETAS):
                pair = [Constant(kind, name, value) for (kind, name), value in zip(unknown, values, strict=True)]
                if self._fits({**choice, **spelt([*constants_of(choice), *pair])}):
                    yield pair
            return
        stack = next(
            (stack for stack in self._stacks if all(stack.plays(name) for _, name in unknown)), self._stacks[0]
        )
        few, family = self._few[stack], self._entry.family
        if len(unknown) == 1:
            hulls = glimpsed(self._coarse[stack], self._glances[stack], family, choice, unknown[0])
        else:
            hulls = paired(few, family, choice, unknown)
        yield from solved(stack, few, family, choice, unknown, hulls)

    def _fits(self, choice: Choice) -> bool:
        """Say whether a formula explains every number, step by step or all steps together.

        A program that adds its steps up before it takes them off, say, is within rounding in the whole alone.
        """
        formula = _varied(self._entry, choice)
        if not all(glance.passes(formula) for glance in self._glances.values()):
            return False
        everything = (*self._few.values(), *self._stacks)  # a few elements rule out most
        return any(all(stack.fits(formula, own=own) for stack in everything) for own in (True, False))

    def _told_apart(self, hits: Iterable[Choice]) -> Iterator[Choice]:
        """Leave out formulas that another one is in all cases that there are."""
        kept: list[Choice] = []
        for choice in hits:
            if not any(_same(self._entry.name, choice, other) for other in kept):
                kept.append(choice)
                yield choice

    def _telling(self, choice: Choice, base: Choice) -> bool:
        """Say whether a formula's balls leave out the documented values of most of the numbers that deviate."""
        documented, formula = _varied(self._entry, base), _varied(self._entry, choice)
        seen = told = 0
        for stack in self._stacks:
            for (index, name, one), (_, _, other) in zip(stack.walk(documented), stack.walk(formula), strict=True):
                wrong = off(one, stack.got[name][index]) > SLACK
                seen += int(wrong.sum())
                told += int((wrong & (np.abs(one.centre - other.centre) > other.radius)).sum())
        return seen == 0 or told > seen / 2

    def nearest(self, profiles: Sequence[Scalars]) -> tuple[str, int]:
        """Find the formula of at most one change that agrees with most cases, and the number of those cases."""
        near = {formula.name: formula for count in (0, 1) for formula in variants(self._entry.family, count)}
        documented = self._entry.formula
        radii = [[ball.radius for *_, ball in stack.walk(near[documented], own=False)] for stack in self._stacks]
        best = _nearest({name: self._distance(formula, radii) for name, formula in near.items()}, documented)
        good = set()
        for stack in stacks(self._runs, self._stacks[0].profile):
            strayed, _ = _measured(stack, near[best], None)
            good |= {id(run.parameters) for run, bad in zip(stack.runs, strayed, strict=True) if not bad}
        told = [[leaf for leaf in run.each if leaf.parameters.size] for run in self._runs]
        return best, sum(all(id(leaf.parameters) in good for leaf in leaves) for leaves in told)

    def _distance(self, formula: Formula, documented: Sequence[Sequence[Radius]]) -> tuple[int, float]:
        """Count the runs that do not agree, and average log₂ of the errors, in the radii of the documented formula.

        In wider ones of their own they would look small.
        """
        strayed, bits = 0, []
        for stack, radii in zip(self._stacks, documented, strict=True):
            bad, errors = _measured(stack, formula, radii)
            strayed += int(bad.sum())
            bits += list(errors)
        return strayed, float(np.mean(bits))


def _measured(stack: Stack, formula: Formula, radii: Sequence[Radius] | None) -> tuple[Any, Any]:
    """Say which runs of a stack do not agree, or test no parameter, and average log₂ of their errors in some radii."""
    bad, tested, errors = np.zeros(len(stack.runs), bool), np.zeros(len(stack.runs), bool), []
    for place, (index, name, ball) in enumerate(stack.walk(formula, own=False)):
        got = stack.got[name][index]
        bad |= (off(ball, got) > SLACK).any(-1)
        if name == "parameter":
            tested |= np.broadcast_to(np.isfinite(ball.radius), got.shape).any(-1)
        if radii is not None:
            common = off(Many(stack.n, ball.centre, radii[place]), got)
            errors.append(np.log2(np.clip(common, 1.0, 2.0**64)).mean(-1))
    return bad | ~tested, np.mean(errors, axis=0) if errors else None


def _nearest(away: Mapping[str, tuple[int, float]], documented: str) -> str:
    """Choose the nearest: the documented one among those that agree with as many, unless another is clearly nearer."""
    best = min(away, key=away.__getitem__)
    close = away[best][0] == away[documented][0] and away[best][1] > away[documented][1] - _CLEARLY
    return documented if close else best


def _agrees(run: Run, formula: Formula, profiles: Sequence[Scalars]) -> bool:
    try:
        return judge_widening(run, formula, profiles).word == "conforms"
    except ValueError:
        return False


def _varied(entry: Entry, choice: Choice) -> Formula:
    return varied(entry.family, choice)


def _changed(entry: Entry, base: Choice, count: int) -> Iterator[dict[str, str]]:
    """Yield all choices that differ from a base in so many axes, without meaningless ones."""
    axes = {key: values for key, values in axes_of(entry.family).items() if key not in KINDS}
    for keys in combinations(axes, count):
        for values in product(*([v for v in axes[key] if v != base.get(key, axes[key][0])] for key in keys)):
            choice = {**base, **dict(zip(keys, values, strict=True))}
            choice = {key: value for key, value in choice.items() if key in KINDS or value != axes[key][0]}
            if missing_of(entry.family, choice) is None:
                yield choice


def _unknowns(entry: Entry) -> Iterator[Unknown]:
    """List the constants that a diagnosis solves for."""
    for name in entry.constants:
        if name not in ("gradient", "step"):
            yield "ignored", name
        if name in ("learning_rate", "eps", "weight_decay", "gradient", "step"):
            yield "scaled", name


@cache
def _usual(optimizer: str) -> list[tuple[Constant, ...]]:
    """List what is tried in the place of hyperparameters without being solved for.

    Usual values of both betas and of the momentum; an expression for one; 1−β for both; and another order of some.
    """
    numbers = [name for name in entry_of(optimizer).constants if name not in ("gradient", "step", "clip", "initial")]
    decays = [name for name in numbers if name in DECAYS]
    texts: list[tuple[tuple[str, str], ...]] = []
    for name in numbers:
        own = [f"1-{name}"] if name in decays else [f"{name}^2", f"sqrt({name})"]
        others = [other for other in numbers if other != name]
        turned = [f"1-{other}" for other in decays if other != name and name in decays]
        texts += [((name, text),) for text in (*own, *others, *turned)]
    usual = [text for text in axes_of(optimizer)["ignored"] if text.startswith(("betas:", "momentum:"))]
    if {"beta_1", "beta_2"} <= set(numbers):
        texts.append((("beta_1", "1-beta_1"), ("beta_2", "1-beta_2")))
    for count in (2, 3):
        for names in combinations(numbers, count):
            orders = (order for order in permutations(names) if all(x != y for x, y in zip(names, order, strict=True)))
            texts += [tuple(zip(names, order, strict=True)) for order in orders]
    found = [constants_of({"ignored": text}) for text in usual]
    return found + [tuple(Constant("replaced", name, text) for name, text in those) for those in texts]


_PAIRS: tuple[tuple[Unknown, Unknown], ...] = (
    (("ignored", "beta_1"), ("ignored", "beta_2")),
    (("ignored", "learning_rate"), ("ignored", "eps")),
    (("ignored", "learning_rate"), ("ignored", "momentum")),
    (("ignored", "eps"), ("ignored", "weight_decay")),
    (("ignored", "eps"), ("ignored", "initial")),
    (("ignored", "alpha"), ("ignored", "eps")),
    (("ignored", "beta_2"), ("ignored", "eps")),
    (("ignored", "rho"), ("ignored", "eps")),
    (("ignored", "momentum"), ("ignored", "weight_decay")),
)
"""The pairs of constants that are looked for together."""

_LATE = {
    ("ignored", "learning_rate"),
    ("scaled", "learning_rate"),
    ("ignored", "eps"),
    ("ignored", "weight_decay"),
    ("scaled", "weight_decay"),
}
"""The constants that are looked for together with two axes."""

_BETAS = (0.0, 0.5, 0.8, 0.9, 0.95, 0.98, 0.99, 0.995, 0.999, 0.9999)
"""The usual decays."""


def _same(optimizer: str, one: Choice, other: Choice) -> bool:
    """Say whether two formulas are equal in every case of an optimizer, so far as float64 tells."""
    names = tuple(sorted(name_of(entry_of(optimizer).family, choice) for choice in (one, other)))
    return _equal(optimizer, *names)


@cache
def _equal(optimizer: str, one: str, other: str) -> bool:
    for stack in _every(optimizer):
        walks = (stack.walk(varied(*split(name)), own=False) for name in (one, other))
        for (_, _, a), (_, _, b) in zip(*walks, strict=True):
            near = np.abs(a.centre - b.centre) <= 1e-4 * np.minimum(a.radius, b.radius) + 1e-300
            if not (near | np.isnan(a.centre) & np.isnan(b.centre)).all():
                return False
    return True


@cache
def _every(optimizer: str) -> list[Stack]:
    """Stack all cases of an optimizer, as if nothing had moved."""
    return stacks([_unmoved(case) for case in cases_of(optimizer)], "double")


def _unmoved(case: Case) -> Run:
    return Run(case, np.zeros_like(case.gradients), {})


class _OneByOne:
    """The search among the formulas of an optimizer whose rule needs whole arrays: case by case, without constants."""

    def __init__(self, entry: Entry, runs: Sequence[Run], profile: Scalars) -> None:
        self._entry, self._runs = entry, runs
        self._exact = exact = Exact()
        centre = Double()
        self._model = {
            run.case.dtype: Rounded(run.case.form, exact if run.case.dtype == "float64" else centre, profile, exact)
            for run in runs
        }

    def levels(self, base: Choice) -> Iterator[Iterable[Choice]]:
        """Yield the formulas that fit, those of fewest axes first; the base makes no difference."""
        for count in range(self._entry.depth + 1):
            formulas = variants(self._entry.family, count)
            yield (split(formula.name)[1] for formula in formulas if self._fits(formula))

    def _fits(self, formula: Formula) -> bool:
        with self._exact.active():
            return all(
                (_excess(n, ball, got) <= SLACK).all()
                for run in self._runs
                for _, n, ball, got in self._balls(formula, run)
            )

    def nearest(self, profiles: Sequence[Scalars]) -> tuple[str, int]:
        """Find the formula of at most one axis that agrees with most cases, and the number of those cases."""
        near = {formula.name: formula for count in (0, 1) for formula in variants(self._entry.family, count)}
        documented = self._entry.formula
        runs = [run for run in self._runs if run.case.regime not in FAMILIES] or self._runs
        with self._exact.active():
            radii = [[ball.radius for _, _, ball, _ in self._balls(near[documented], run)] for run in runs]
            away = {name: self._distance(formula, runs, radii) for name, formula in near.items()}
        best = _nearest(away, documented)
        return best, sum(_agrees(run, near[best], profiles) for run in self._runs)

    def _distance(
        self, formula: Formula, runs: Sequence[Run], documented: Sequence[Sequence[Radius]]
    ) -> tuple[int, float]:
        """Count the cases that do not agree or test no parameter, and average log₂ of the errors; see `_OfStacks`."""
        strayed, bits = 0, []
        for run, radii in zip(runs, documented, strict=True):
            own, common, decided = [], [], not any(leaf.parameters.size for leaf in run.each)
            for (name, n, ball, got), radius in zip(self._balls(formula, run), radii, strict=True):
                decided |= name == "parameter" and bool(np.isfinite(ball.radius).any())
                own.append(_excess(n, ball, got).reshape(-1))
                common.append(_excess(n, Ball(n, ball.centre, radius), got).reshape(-1))
            strayed += int(not decided or (np.concatenate(own) > SLACK).any())
            errors = np.concatenate(common)
            bits.append(np.log2(np.clip(errors, 1.0, 2.0**64)).mean() if errors.size else 0.0)
        return strayed, float(np.mean(bits))

    def _balls(self, formula: Formula, run: Run) -> Iterator[tuple[str, Rounded, Ball, FloatArray]]:
        """Yield each step's quantities with the backend's numbers; the caller holds the exact context active."""
        for leaf in run.each:
            n, names = self._model[leaf.case.dtype], ("parameter", *leaf.case.slots)
            arrays = {"parameter": leaf.parameters, **leaf.state}
            for step, balls in enumerate(walked(formula, n, leaf.case)):
                for name, ball in zip(names, balls, strict=True):
                    if name in arrays:
                        yield name, n, ball, arrays[name][step]


def _excess(n: Rounded, ball: Ball, got: FloatArray) -> FloatArray:
    """Compute the error ratio; where the formula has no value, 0 for none and infinite for any."""
    ratio = np.where(np.isinf(ball.radius), 0.0, error_ratio(n.centre, ball.centre.values, ball.radius, got, ball.norm))
    return np.where(np.isnan(ball.size), np.where(np.isfinite(got.astype(np.float64)), np.inf, 0.0), ratio)
