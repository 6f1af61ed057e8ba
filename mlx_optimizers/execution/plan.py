"""The plan of an update: which blocks there are, made once for a tree and kept while its arrays are the same."""

from __future__ import annotations

import weakref
from collections.abc import Iterable, Sequence
from itertools import chain, repeat
from operator import attrgetter
from typing import Any

import numpy as np
import numpy.typing as npt

from mlx_optimizers import trees
from mlx_optimizers.execution import compiled
from mlx_optimizers.execution.blocks import Blocks, Columns
from mlx_optimizers.execution.program import Coefficients, Rule
from mlx_optimizers.execution.threads import Stopped, threads

# What may change about an array, asked of all arrays at a time. The flags are bits of one number.
_SHAPE, _DTYPE, _FLAGS = attrgetter("shape"), attrgetter("dtype"), attrgetter("flags.num")
_CONTIGUOUS, _OWNS_DATA = 0x1, 0x4

_NODES = (dict, list, tuple)  # as `trees.is_node`, which takes three times as long


class Plan:
    """A tree of parameters whose update was found to be in order. It keeps none of the arrays.

    Args:
        paths: Where the parameters stand in their tree.
        written: The parameters, then all arrays of each slot.
        slots: The names of the slots.
        rule: The rule of the optimizer.
        coefficients: The coefficients by dtype, of this step.
    """

    def __init__(
        self, paths: list[trees.Path], written: Columns, slots: tuple[str, ...], rule: Rule, coefficients: Coefficients
    ) -> None:
        self.paths, self.dtypes, self._slots = paths, set(coefficients), slots
        parameters, rows, every = written[0], list(zip(*written, strict=True)), list(chain(*written))
        self._shapes, self._facts = _facts(parameters), self._facts_of(every)
        # One that is gone may leave its identity to another. An array that owns its memory, in order, is as good as
        # any with the same facts; of others it is noted that they are gone. (A weak reference keeps an array from
        # being resized, which those others cannot be anyway.)
        self._gone: list[Any] = []
        plain = (x for x in every if not (x.flags.owndata and x.flags.forc))
        self._references = [weakref.ref(array, self._gone.append) for array in plain]
        self._flat = [all(array.flags.c_contiguous for array in row) for row in rows]
        self._usual: list[int] | None = None  # flags of gradients that were fit and had their memory to themselves
        self._shares = trees.shares(every)
        owners = list(map(_owner, every))
        self._owners = None if None in owners else set(owners)
        self._choice = compiled.choice()
        loop = compiled.loop_for(rule, len(slots), sum(w.size for w in parameters), coefficients)
        fast = [loop is not None and self._flat[n] and compiled.computes(w) for n, w in enumerate(parameters)]
        of = [[n for n, one in enumerate(fast) if not one], [n for n, one in enumerate(fast) if one]]
        blocks = Blocks([parameters[n] for n in of[0]], [self._flat[n] for n in of[0]])
        self._runs: list[tuple[Blocks | compiled.Rows, list[int]]] = [(blocks, of[0])] if of[0] else []
        if loop is not None and of[1]:  # the last, as no loop fails
            self._runs.append((compiled.Rows([rows[n] for n in of[1]], loop), of[1]))
        self._shared = any(run.most > 1 for run, _ in self._runs)

    def arrays(self, gradients: Any, parameters: Any, state: Any) -> Columns | None:
        """The arrays of a step of the planned parameters, or None where anything is not as it was planned.

        Raises:
            ValueError: for a setting of threads or of the compiled path that is none.
        """
        found: list[tuple[Any, Any, Any]] = []
        if self._shared:
            threads()  # where it is set to what is no number of them, nothing has moved yet
        if self._gone or self._choice != compiled.choice() or not _paired(gradients, parameters, state, found):
            return None
        if len(found) != len(self.paths):
            return None
        given, parameters, states = map(list, zip(*found, strict=True)) if found else ([], [], [])
        if not all(map(isinstance, states, repeat(dict))):
            return None
        slots: list[list[Any]] = [list(map(dict.get, states, repeat(slot))) for slot in self._slots]
        every = list(chain(parameters, *slots))
        if self._facts[0] != list(map(id, every)) or self._facts != self._facts_of(every):
            return None
        ready = self.ready(given)
        return None if ready is None else [parameters, ready, *slots]

    def ready(self, gradients: list[Any]) -> list[npt.NDArray[Any]] | None:
        """The gradients with copies of those that lie otherwise than planned or share memory with what changes.

        None where one is not of its parameter's shape and dtype.
        """
        if set(map(type, gradients)) - {np.ndarray} or _facts(gradients) != self._shapes:
            return None
        flags = list(map(_FLAGS, gradients))
        if flags == self._usual and self._owners is not None and self._owners.isdisjoint(map(id, gradients)):
            return gradients
        out = [self._apart(*one) for one in zip(gradients, flags, self._flat, strict=True)]
        alone = all(g is new and one & _OWNS_DATA for g, new, one in zip(gradients, out, flags, strict=True))
        self._usual = flags if alone else None
        return out

    def _apart(self, g: npt.NDArray[Any], flags: int, flat: bool) -> npt.NDArray[Any]:
        owner = _owner(g)  # arrays in the memory of different owners share none
        ours = self._owners is None or owner is None or owner in self._owners
        if (flat and not flags & _CONTIGUOUS) or (ours and self._shares(g)):
            return np.array(g, order="C")
        return g

    def _facts_of(self, written: list[npt.NDArray[Any]]) -> tuple[list[Any], ...]:
        """All that is asked of arrays that are written to; one that was resized and resized back has moved."""
        return list(map(id, written)), *_facts(written), list(map(_FLAGS, written)), compiled.addresses(written)

    def run(self, arrays: Columns, coefficients: Coefficients) -> None:
        """Advance every parameter.

        Raises:
            Stopped: where it ends early, with the numbers of parameters.
        """
        place = 0
        try:
            for place, (run, of) in enumerate(self._runs):  # noqa: B007 - where it stopped
                run.run([[column[n] for n in of] for column in arrays] if len(self._runs) > 1 else arrays, coefficients)
        except Stopped as stopped:
            run, of = self._runs[place]

            def parameters(parts: Iterable[int]) -> set[int]:
                return {of[n] for part in parts for n in run.numbers[part]}

            begun = parameters({*range(len(run.numbers))} - {*stopped.still})
            left, later = parameters(stopped.still), {n for _, some in self._runs[place + 1 :] for n in some}
            partly = parameters(stopped.partly) | (left & begun)
            raise Stopped(partly, (left - begun) | later) from stopped.__cause__
        except BaseException as error:  # an interrupt elsewhere than in a part
            raise Stopped(range(len(self.paths)), []) from error


def _facts(arrays: Sequence[npt.NDArray[Any]]) -> tuple[list[Any], list[Any]]:
    return list(map(_SHAPE, arrays)), list(map(_DTYPE, arrays))


def _owner(array: npt.NDArray[Any]) -> int | None:
    """Which array has the memory that this one is in, by identity; None where it is not known."""
    owner: Any = array if array.base is None else array.base
    return id(owner) if isinstance(owner, np.ndarray) and owner.flags.owndata else None


def _paired(gradients: Any, parameters: Any, state: Any, found: list[tuple[Any, Any, Any]]) -> bool:
    """Put (gradient, parameter, slots) of every leaf into ``found``; False where the trees differ. Makes nothing."""
    if not isinstance(gradients, _NODES):
        found.append((gradients, parameters, state))
        return True
    named, in_list = isinstance(gradients, dict), isinstance(state, list)
    if not isinstance(parameters, dict if named else list | tuple):
        return False
    if (in_list and named) or not isinstance(state, list | dict):
        return False
    for key, gradient in gradients.items() if isinstance(gradients, dict) else enumerate(gradients):
        if key not in parameters if named else key >= len(parameters):
            return False
        if key >= len(state) if in_list else key not in state:
            return False
        if isinstance(gradient, _NODES):
            if not _paired(gradient, parameters[key], state[key], found):
                return False
        else:
            found.append((gradient, parameters[key], state[key]))
    return True
