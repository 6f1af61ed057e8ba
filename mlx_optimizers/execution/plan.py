"""The plan of an update: a tree that was checked, and serves later steps while its arrays are the same."""

from __future__ import annotations

import weakref
from collections.abc import Sequence
from itertools import chain, repeat
from operator import attrgetter

import numpy as np

from mlx_optimizers import memory, settings, trees
from mlx_optimizers.execution import compiled
from mlx_optimizers.execution.blocks import Blocks
from mlx_optimizers.execution.program import Coefficients
from mlx_optimizers.kinds import Columns, Dtype, FloatArray, Path, Rule, Shape, Tree

# What may change about an array, asked of all arrays at a time.
_SHAPE, _DTYPE, _FLAGS = attrgetter("shape"), attrgetter("dtype"), attrgetter("flags.num")
_PLAIN = {_FLAGS(np.empty(shape)) for shape in ((2,), (2, 2))}  # contiguous, in its own memory


class Plan:
    """A tree of parameters whose update is in order: their paths, with what a step changes. It keeps no array."""

    def __init__(
        self, paths: list[Path], written: Columns, slots: tuple[str, ...], rule: Rule, coefficients: Coefficients
    ) -> None:
        self.paths, self.dtypes, self._slots = paths, set(coefficients), slots
        every = list(chain(*written))
        self._given, self._ids, self._facts = _kinds(written[0]), list(map(id, every)), _facts(every)
        # An array that is gone may leave its identity to another. One that owns its memory, in order, is as good as any
        # with the same facts; of others it is noted that they are gone. (A weak reference keeps an array from being
        # resized, which those others cannot be anyway.)
        self._gone: list[weakref.ref[FloatArray]] = []
        plain = (x for x in every if not (x.flags.owndata and x.flags.forc))
        self._references = [weakref.ref(array, self._gone.append) for array in plain]
        self._shares = memory.shares(every)
        self._owners = memory.owners(every)
        self._chosen = settings.chosen()
        size = sum(w.size for w in written[0])
        self._blocks = Blocks(written, compiled.loop_for(rule, len(slots), size, coefficients))
        self.run = self._blocks.run

    def arrays(self, gradients: Tree, parameters: Tree, state: Tree) -> Columns | None:
        """Return the arrays of a step of the planned parameters, or None where anything is not as it was planned."""
        found: list[tuple[Tree, Tree, Tree]] = []
        if self._gone or self._chosen != settings.chosen():
            return None
        if not trees.together(gradients, parameters, state, found) or len(found) != len(self.paths):
            return None
        given, parameters, states = map(list, zip(*found, strict=True)) if found else ([], [], [])
        if not all(map(isinstance, states, repeat(dict))):
            return None
        slots: list[list[Tree]] = [list(map(dict.get, states, repeat(slot))) for slot in self._slots]
        every = list(chain(parameters, *slots))
        if self._ids != list(map(id, every)) or self._facts != _facts(every):
            return None
        ready = self.ready(given)
        return None if ready is None else [parameters, ready, *slots]

    def ready(self, gradients: list[FloatArray]) -> list[FloatArray] | None:
        """Copy gradients that are not laid out as planned or share memory; None if another shape or dtype is there."""
        if not {*map(type, gradients)} <= {np.ndarray} or _kinds(gradients) != self._given:
            return None
        plain = {*map(_FLAGS, gradients)} <= _PLAIN
        if plain and self._owners is not None and self._owners.isdisjoint(map(id, gradients)):
            return gradients
        return [
            np.array(g, order="C") if self._shares(g) or (flat and not g.flags.c_contiguous) else g
            for g, flat in zip(gradients, self._blocks.flat, strict=True)
        ]


def _kinds(arrays: Sequence[FloatArray]) -> tuple[list[Shape], list[Dtype]]:
    return list(map(_SHAPE, arrays)), list(map(_DTYPE, arrays))


def _facts(written: Sequence[FloatArray]) -> tuple[list[Shape], list[Dtype], list[int], list[int]]:
    """Ask all about arrays that are written to; one that was resized and resized back has moved."""
    return *_kinds(written), list(map(_FLAGS, written)), memory.addresses(written)
