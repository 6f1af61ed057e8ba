"""The cases of the frame: what is around a formula, and wrong in programs whose formula is right.

A loop has a tail, a counter has a width, an optimizer has several parameters, a run is saved and resumed, a gradient
belongs to its caller. Every optimizer has cases of every family; the numbers in them are those of the regime ``plain``.

========= ==========================================================================================================
sizes     arrays of 1 to 4,097 elements, around the widths of vector loops
shapes    arrays of 0 to 4 axes, and one without elements
long      300 steps, more than a counter of 8 bits can count
many      several parameters in one optimizer, among them one without elements and one without an axis
resume    a start from the state that 3,000 steps left; and eight steps with the state saved and loaded half-way
mixed     gradients in bfloat16 for parameters in float32
untouched the gradients as they were before, after the program has run
========= ==========================================================================================================
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import cache
from typing import Any

import numpy as np
import numpy.typing as npt

from mlx_optimizers.catalog import entry_of
from mlx_optimizers.catalog.entry import Entry
from mlx_optimizers.conformance.case import Case, Draw, completed, labelled, leveled, require_domain
from mlx_optimizers.kinds import Shape
from mlx_optimizers.oracle import Exact, Format, format_of
from mlx_optimizers.oracle.formulas import parse
from mlx_optimizers.oracle.trajectory import walk

__all__ = ["FAMILIES", "SIZES", "family", "frame_of", "named"]

FAMILIES = ("sizes", "shapes", "long", "many", "resume", "mixed", "untouched")
"""The families, in the order of the cases."""

SIZES = (1, 2, 3, 5, 7, 8, 9, 15, 16, 17, 27, 31, 33, 63, 65, 127, 129, 1000, 4097)
"""Numbers of elements: around the widths of vector loops, and beyond what a block of a loop may have."""

_SHAPES: tuple[Shape, ...] = ((6, 4), (), (0,), (2, 6, 3), (2, 3, 2, 2))
_TREE: tuple[Shape, ...] = ((4, 3), (0,), (), (5,))
_LAST_EMPTY: tuple[Shape, ...] = ((4, 3), (), (5,), (0,))
_FEW = 3  # steps: the first, one with a state, and one after it
_LONG = 300
_DONE = 3000  # updates before a case that resumes
_HALF = 4


class _Maker:
    """Make the cases of one family.

    Args:
        entry: The optimizer.
        name: The family.
        setting: The hyperparameters that differ from the defaults.
        form: The format of the arrays.
    """

    def __init__(self, entry: Entry, name: str, setting: Mapping[str, Any], form: Format) -> None:
        self.entry, self.name, self.form = entry, name, form
        self._values = completed(entry.optimizer, setting)
        self.label = labelled(entry.optimizer, self._values) or "defaults"

    def case(self, label: str, shape: Shape, steps: int, *, digits: int | None = None, seed: str = "") -> Case:
        """Draw a case of a shape and so many steps; every optimizer gets the same numbers."""
        suffix = f"/{self.form.name}" if self.form.name != "float32" else ""
        what = f"{self.name}/{label}{suffix}"
        identifier = f"{self.entry.name.lower()}/{what}"
        numbers = _numbers(what + seed, self.form, (steps + 1, *shape), digits).astype(self.form.dtype)
        values = {**self._values, "learning_rate": _stretched(self._values["learning_rate"], steps)}
        require_domain(identifier, self._values, numbers)
        arrays = numbers[0, ...], numbers[1:]
        return leveled(Case(identifier, self.entry.name, self.name, label, self.form.name, values, *arrays))

    def tree(self, label: str, shapes: Sequence[Shape]) -> Case:
        """Draw a case of several parameters."""
        leaves = (self.case(label, shape, _FEW, seed=f"/{index}") for index, shape in enumerate(shapes))
        return replace(self.case(label, (0,), _FEW), leaves=tuple(leaves))

    def resumed(self) -> Case:
        """Draw a case that starts from a state: the one that a few steps of the formula leave."""
        case, exact = self.case(f"step={_DONE}", self.entry.shape, 2 * _HALF), Exact()
        with exact.active():
            data = case.parameter, list(case.gradients[:_HALF]), {**case.hyperparameters}
            *_, (_, *slots) = walk(parse(self.entry.name), exact, *data, step=_DONE - _HALF)
            arrays = [exact.rounded(slot.values, self.form).astype(self.form.dtype) for slot in slots]
        state = {name: values.reshape(case.slots[name]) for name, values in zip(case.slots, arrays, strict=True)}
        return replace(case, gradients=case.gradients[_HALF:], step=_DONE, state=state)


@cache
def _numbers(seed: str, form: Format, shape: Shape, digits: int | None) -> npt.NDArray[np.float64]:
    """Draw numbers around 1, as those of the regime ``plain``; nobody changes them."""
    return Draw(seed, form).block(shape, -2, 1, digits)


def _stretched(rates: Any, steps: int) -> Any:
    """Repeat a list of learning rates for so many steps; leave anything else."""
    return [rates[step % len(rates)] for step in range(steps)] if isinstance(rates, tuple | list) else rates


def named(shape: Shape) -> str:
    """Name a shape in a label, such as ``6x4``."""
    return ("x".join(map(str, shape)) if math.prod(shape) else "empty") if shape else "0d"


def family(
    optimizer: str,
    name: str,
    setting: Mapping[str, Any] | None = None,
    dtype: npt.DTypeLike = "float32",
    shapes: Sequence[Shape] = _SHAPES,
) -> Iterator[Case]:
    """Make the cases of an optimizer in one family.

    Args:
        optimizer: Name of the optimizer.
        name: The family, one of `FAMILIES`.
        setting: Hyperparameters that differ from the defaults, for all of them; by default those of the catalog.
        dtype: The dtype of all arrays; default float32.
        shapes: The shapes of the family ``shapes``.

    Raises:
        ValueError: for hyperparameters outside the domain in which the interval is proved.
    """
    entry, form = entry_of(optimizer), format_of(dtype)
    make = _Maker(entry, name, entry.frame if setting is None else setting, form)
    more = f",{make.label}" if setting else ""
    if name == "sizes":
        yield from (make.case(f"n={size}{more}", (size,), _FEW) for size in SIZES)
    elif name == "shapes":
        yield from (make.case(f"{named(shape)}{more}", shape, _FEW) for shape in shapes)
    elif name == "resume":
        yield make.resumed()
        yield replace(make.case("saved", entry.shape, 2 * _HALF), saved=_HALF)
    elif name == "mixed":
        yield replace(make.case("bfloat16", entry.shape, _HALF, digits=7), gradient_dtype="bfloat16")
    else:
        plain = _Maker(entry, name, {}, form)
        for each in (plain, make) if setting is None and make.label != plain.label else (make,):
            if name == "long":  # from w = 0, so that many steps lose few digits
                case = each.case(each.label, (1, 2) if len(entry.shape) > 1 else (2,), _LONG)
                yield replace(case, parameter=np.zeros_like(case.parameter))
            elif name == "many":
                yield each.tree(each.label, _TREE)
            else:
                yield each.case(each.label, entry.shape, _FEW)
        if name == "many":
            yield make.tree("last=empty", _LAST_EMPTY)


@cache
def frame_of(optimizer: str) -> tuple[Case, ...]:
    """List the cases of the frame of one optimizer, family by family."""
    return tuple(case for name in FAMILIES for case in family(optimizer, name))
