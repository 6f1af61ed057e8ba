"""The plan of an update: a tree that was checked, and serves later steps while its arrays are the same."""

from __future__ import annotations

import weakref
from collections.abc import Sequence
from itertools import chain, repeat
from operator import attrgetter

import numpy as np

from mlx_optimizers import trees
from mlx_optimizers.execution import compiled
from mlx_optimizers.execution.blocks import Blocks, Columns, addresses
from mlx_optimizers.execution.program import Coefficients, Rule
from mlx_optimizers.execution.threads import threads
from mlx_optimizers.kinds import Dtype, FloatArray, Path, Shape, Tree

# What may change about an array, asked of all arrays at a time.
_SHAPE, _DTYPE, _FLAGS = attrgetter("shape"), attrgetter("dtype"), attrgetter("flags.num")
_PLAIN = {_FLAGS(np.empty(shape)) for shape in ((2,), (2, 2))}  # contiguous, in its own memory

_NODES = (dict, list, tuple)  # as `trees.is_node`, which takes three times as long


class Plan:
    """A tree of parameters whose update is in order: their paths, with what a step changes. It keeps no array."""

    def __init__(
        self, paths: list[Path], written: Columns, slots: tuple[str, ...], rule: Rule, coefficients: Coefficients
    ) -> None:
        self.paths, self.dtypes, self._slots = paths, set(coefficients), slots
        every = list(chain(*written))
        self._given, self._ids, self._facts = _facts(written[0]), list(map(id, every)), _facts_of(every)
        # An array that is gone may leave its identity to another. One that owns its memory, in order, is as good as any
        # with the same facts; of others it is noted that they are gone. (A weak reference keeps an array from being
        # resized, which those others cannot be anyway.)
        self._gone: list[weakref.ref[FloatArray]] = []
        plain = (x for x in every if not (x.flags.owndata and x.flags.forc))
        self._references = [weakref.ref(array, self._gone.append) for array in plain]
        self._shares = trees.shares(every)
        owners = list(map(_owner, every))
        self._owners = None if None in owners else set(owners)
        self._choice = compiled.choice()
        loop = compiled.loop_for(rule, len(slots), sum(w.size for w in written[0]), coefficients)
        self._blocks = Blocks(written, loop)
        self.run = self._blocks.run

    def arrays(self, gradients: Tree, parameters: Tree, state: Tree) -> Columns | None:
        """Return the arrays of a step of the planned parameters, or None where anything is not as it was planned."""
        found: list[tuple[Tree, Tree, Tree]] = []
        if self._gone or self._choice != compiled.choice():
            return None
        if self._blocks.threads is not None and self._blocks.threads != threads():
            return None
        if not _paired(gradients, parameters, state, found) or len(found) != len(self.paths):
            return None
        given, parameters, states = map(list, zip(*found, strict=True)) if found else ([], [], [])
        if not all(map(isinstance, states, repeat(dict))):
            return None
        slots: list[list[Tree]] = [list(map(dict.get, states, repeat(slot))) for slot in self._slots]
        every = list(chain(parameters, *slots))
        if self._ids != list(map(id, every)) or self._facts != _facts_of(every):
            return None
        ready = self.ready(given)
        return None if ready is None else [parameters, ready, *slots]

    def ready(self, gradients: list[FloatArray]) -> list[FloatArray] | None:
        """Copy gradients that are not laid out as planned or share memory; None if another shape or dtype is there."""
        if not {*map(type, gradients)} <= {np.ndarray} or _facts(gradients) != self._given:
            return None
        plain = {*map(_FLAGS, gradients)} <= _PLAIN
        if plain and self._owners is not None and self._owners.isdisjoint(map(id, gradients)):
            return gradients
        return [
            np.array(g, order="C") if self._shares(g) or (flat and not g.flags.c_contiguous) else g
            for g, flat in zip(gradients, self._blocks.flat, strict=True)
        ]


Facts = list[Shape] | list[Dtype] | list[int]


def _facts(arrays: Sequence[FloatArray]) -> tuple[Facts, ...]:
    return list(map(_SHAPE, arrays)), list(map(_DTYPE, arrays))


def _facts_of(written: Sequence[FloatArray]) -> tuple[Facts, ...]:
    """Ask all about arrays that are written to; one that was resized and resized back has moved."""
    return *_facts(written), list(map(_FLAGS, written)), addresses(written)


def _owner(array: FloatArray) -> int | None:
    """Tell by identity which array has the memory that this one is in, or None where it is not known."""
    owner: Tree = array if array.base is None else array.base
    return id(owner) if isinstance(owner, np.ndarray) and owner.flags.owndata else None


def _paired(gradients: Tree, parameters: Tree, state: Tree, found: list[tuple[Tree, Tree, Tree]]) -> bool:
    """Put (gradient, parameter, slots) of every leaf into ``found``; return False where the trees differ."""
    if not isinstance(gradients, _NODES):
        found.append((gradients, parameters, state))
        return True
    named, listed = isinstance(gradients, dict), isinstance(state, list)
    if not isinstance(parameters, dict if named else list | tuple) or not isinstance(
        state, dict if named else list | dict
    ):
        return False
    for key, gradient in gradients.items() if isinstance(gradients, dict) else enumerate(gradients):
        # Nothing is looked up that is not there, as the state would make it.
        if key not in parameters if named else key >= len(parameters):
            return False
        if key >= len(state) if listed else key not in state:
            return False
        if not isinstance(gradient, _NODES):
            found.append((gradient, parameters[key], state[key]))
        elif not _paired(gradient, parameters[key], state[key], found):
            return False
    return True
