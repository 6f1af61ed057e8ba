"""Formulas as axes: every optimizer's formula with the places where implementations are known to differ.

The catalog lists the axes, and has a step that computes every choice of them. With every axis at its default a
step gives what the optimizer's own ``exact`` gives, bit for bit.

A name is the optimizer's, with what differs in brackets: ``Adam[bias_correction=true,eps=inside_sqrt]``.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from itertools import combinations, product, zip_longest
from typing import NamedTuple

from mlx_optimizers.catalog import CATALOG, Choice, Value, entry_of
from mlx_optimizers.kinds import Hyperparameters, Number, Numbers, Step
from mlx_optimizers.optimizer import Optimizer
from mlx_optimizers.oracle.constants import KINDS, Constant, constants_of, is_constant, number_of, used
from mlx_optimizers.oracle.formula import Formula

__all__ = ["AXES", "AxisOfAll", "axes_of", "in_words", "missing_of", "name_of", "parse", "split", "variants", "varied"]


class AxisOfAll(NamedTuple):
    """One axis of all optimizers that have it.

    Args:
        name: The key in brackets.
        values: The values by the optimizer's name, the default first.
        meaning: What each value but the default means.
    """

    name: str
    values: Mapping[str, tuple[str, ...]]
    meaning: Mapping[str, Value]


_FAMILIES = tuple(entry for entry in CATALOG if entry.name == entry.family)
_OTHER_NAMES = {entry.name: entry.formula for entry in CATALOG if entry.name != entry.family}


def _of_all(name: str) -> AxisOfAll:
    having = {entry.name: axis for entry in _FAMILIES for axis in entry.axes if axis.name == name}
    meaning = {value: meant for axis in having.values() for value, meant in axis.meaning.items()}
    return AxisOfAll(name, {optimizer: axis.values for optimizer, axis in having.items()}, meaning)


AXES = tuple(map(_of_all, sorted({axis.name for entry in _FAMILIES for axis in entry.axes})))
"""Every axis, sorted by name."""

_KEYED = {axis.name: axis for axis in AXES}


def axes_of(optimizer: str) -> dict[str, tuple[str, ...]]:
    """List the axes of one optimizer with their values, the default first."""
    return {axis.name: axis.values[optimizer] for axis in AXES if optimizer in axis.values}


def _step(
    a: Choice,
    constants: Sequence[Constant],
    n: Numbers,
    h: Hyperparameters,
    t: int,
    w: Number,
    g: Number,
    *slots: Number,
) -> Step:
    """Take one step under the axes that every optimizer may have, then under the optimizer's own."""
    before = (w, *slots)
    h, x = _given(a, constants, n, h, g)
    after = entry_of(a["optimizer"]).step(a, n, h, t, w, x, *slots)
    if a.get("gradients") != "nonzero":
        return after
    return tuple(n.where_zero(g, old, new) for old, new in zip(before, after, strict=True))


def _given(
    a: Choice, constants: Sequence[Constant], n: Numbers, h: Hyperparameters, g: Number
) -> tuple[Hyperparameters, Number]:
    """Compute the hyperparameters and the gradient that a program takes for those that it is given."""
    rate = {"first": "first_rate", "previous": "previous_rate"}.get(a.get("learning_rate", ""), "learning_rate")
    changed = {"learning_rate": vars(h)[rate]}
    if a.get("betas") == "swapped":
        changed["betas"] = h.betas[::-1]
    return used(constants, n, Hyperparameters(**{**vars(h), **changed}), g)


def _initial(
    a: Choice, constants: Sequence[Constant], n: Numbers, h: Hyperparameters, g: Number, *slots: Number
) -> Step:
    """Initialize the state before the first step."""
    h, g = _given(a, constants, n, h, g)
    names = entry_of(a["optimizer"]).optimizer.slots
    if a.get("initial") == "gradient":
        return *({"m": g, "v": g**2}[name] for name in names), *slots[len(names) :]
    start = [n.number(0.1)] if a.get("initial") == "0.1" else [h.eps] if a.get("initial") == "eps" else []
    start += [number_of(n, item) for item in constants if item.name == "initial"]
    return tuple(slot + start[-1] if name == "v" else slot for name, slot in zip_longest(names, slots))


def split(name: str) -> tuple[str, dict[str, str]]:
    """Split a formula's name into an optimizer and the axes that are not at their default.

    Raises:
        ValueError: for an unknown optimizer, axis or value, or axes that mean nothing together.

    Example:
        >>> from mlx_optimizers.oracle.formulas import split
        >>> split("BiasCorrectedAdam")
        ('Adam', {'bias_correction': 'true'})
    """
    name = _OTHER_NAMES.get(name, name)
    match = re.fullmatch(r"(\w+)(?:\[(.+)\])?", name)
    known = [entry.name for entry in _FAMILIES]
    if match is None or match[1] not in known:
        raise ValueError(f"unknown formula {name!r}; optimizers are {', '.join(known)}")
    optimizer, choice = match[1], dict[str, str]()
    for item in re.split(r",(?=\w+=)", match[2]) if match[2] else ():
        key, _, value = item.partition("=")
        allowed = axes_of(optimizer)
        if key not in allowed:
            raise ValueError(f"unknown axis {key!r} of {optimizer} in {name!r}; it has {', '.join(allowed)}")
        if key in choice and key not in KINDS:
            raise ValueError(f"axis {key!r} stands twice in {name!r}")
        if value not in allowed[key] and not (key in KINDS and is_constant(entry_of(optimizer), key, value)):
            raise ValueError(f"unknown value {value!r} of axis {key!r} in {name!r}; it has {', '.join(allowed[key])}")
        if value != allowed[key][0]:
            choice[key] = " ".join(sorted([*choice.get(key, "").split(), value]))
    if missing := missing_of(optimizer, choice):
        raise ValueError(f"{name_of(optimizer, choice)!r}: {missing}")
    return optimizer, choice


def missing_of(optimizer: str, choice: Choice) -> str | None:
    """Say what axes need to mean anything together; None where nothing is missing."""
    axes = sorted(entry_of(optimizer).axes, key=lambda axis: axis.name == "eps")
    missing = next(filter(None, (axis.needs(choice) for axis in axes if axis.name in choice)), None)
    names = [item.name for item in constants_of(choice)]
    for name in names:
        if missing is None and names.count(name) > 1:
            missing = f"{name} has two values"
        if missing is None and choice.get(name) == "ignored":
            missing = f"no {name} is used"
    return missing


def name_of(optimizer: str, choice: Choice) -> str:
    """Write the name of a formula: keys sorted, defaults left out."""
    text = ",".join(f"{key}={value}" for key in sorted(choice) for value in choice[key].split())
    return f"{optimizer}[{text}]" if text else optimizer


def in_words(name: str) -> str:
    """Describe a formula in a phrase.

    Example:
        >>> from mlx_optimizers.oracle.formulas import in_words
        >>> in_words("Adam[bias_correction=true,ignored=eps:1e-08]")
        'Adam with bias correction and eps left at 1e-08'
    """
    optimizer, choice = split(name)
    words = []
    for key in sorted(choice):
        if key in KINDS:
            words += [_words(key, *item.split(":")) for item in choice[key].split()]
        else:
            words.append(_KEYED[key].meaning[choice[key]].words)
    return f"{optimizer} with {' and '.join(words)}" if words else f"{optimizer} as documented"


_PLACES = {"gradient": "the gradient", "step": "the step, without the decay,"}


def _words(kind: str, name: str, value: str) -> str:
    """Describe what stands in the place of a hyperparameter."""
    if kind == "replaced":
        return f"{value} in the place of {name}"
    if kind == "scaled":
        return f"{_PLACES.get(name, name)} times {value}"
    if name == "clip":
        return f"gradients clipped to ±{value}"
    return f"a v that starts from {value}" if name == "initial" else f"{name} left at {value}"


def parse(formula: str | type[Optimizer] | Formula) -> Formula:
    """Parse the name of a formula; an optimizer's name or class stands for its own ``exact``.

    Args:
        formula: An optimizer's name, with the axes that differ in brackets; ``BiasCorrectedAdam`` and
            ``BiasCorrectedAdamW`` stand for the bracket form. Or one of the classes, or a formula, which is returned.

    Returns:
        The formula, under its canonical name.

    Raises:
        ValueError: for an unknown optimizer, axis or value.
        TypeError: for what is no name, class or formula.

    Example:
        >>> from mlx_optimizers.conformance import parse
        >>> parse("AdamW[eps=inside_sqrt,bias_correction=true]").name
        'AdamW[bias_correction=true,eps=inside_sqrt]'
    """
    if isinstance(formula, Formula):
        return formula
    if not isinstance(formula, str | type):
        raise TypeError(f"a formula is a name or one of the classes, not {formula!r}")
    meant = split(formula if isinstance(formula, str) else formula.__name__)
    for entry in CATALOG:
        if entry.formula == name_of(*meant):
            return Formula(entry.formula, entry_of(entry.family).optimizer, entry.optimizer.exact)
    return varied(*meant)


def varied(optimizer: str, choice: Choice, unknown: Sequence[Constant] = ()) -> Formula:
    """Build a variation of an optimizer's formula by the catalog's step.

    Args:
        optimizer: Name of the optimizer.
        choice: The axes that are not at their default.
        unknown: Constants with numbers of a context, which are not in the name.
    """
    full = {"optimizer": optimizer, **{key: values[0] for key, values in axes_of(optimizer).items()}, **choice}
    entry, constants = entry_of(optimizer), (*constants_of(choice), *unknown)
    started = choice.get("initial") or any(item.name == "initial" for item in constants)
    return Formula(
        name_of(optimizer, choice),
        entry.optimizer,
        partial(_step, full, constants),
        partial(_initial, full, constants) if started else None,
        sum(choice.get(axis.name) in axis.remembering for axis in entry.axes),
    )


def variants(optimizer: str, count: int) -> Iterator[Formula]:
    """Yield the variations of an optimizer's formula in exactly so many axes, without meaningless ones.

    Args:
        optimizer: Name of the optimizer.
        count: Number of axes that are not at their default.
    """
    axes = axes_of(optimizer)
    for keys in combinations(axes, count):
        for values in product(*(axes[key][1:] for key in keys)):
            choice = dict(zip(keys, values, strict=True))
            if missing_of(optimizer, choice) is None:
                yield varied(optimizer, choice)
