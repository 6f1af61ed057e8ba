"""The plan of an update: which blocks there are, made once for a tree and kept while its arrays are the same."""

from __future__ import annotations

import operator
import weakref
from collections import Counter
from collections.abc import Iterable, Sequence
from itertools import chain, repeat
from typing import Any

import numpy as np
import numpy.typing as npt

from mlx_optimizers import trees
from mlx_optimizers.execution import compiled
from mlx_optimizers.execution.blocks import Blocks, Columns
from mlx_optimizers.execution.program import Coefficients, Rule
from mlx_optimizers.execution.threads import Halted, threads

__all__ = ["Plan", "Stopped"]

# What may change about an array, asked of all arrays at a time. The flags are bits of one number.
_FLAGS = operator.attrgetter("flags.num")
_SHAPE = operator.attrgetter("shape")
_DTYPE = operator.attrgetter("dtype")
_CONTIGUOUS, _OWNS_DATA = 0x1, 0x4

_NODES = (dict, list, tuple)  # as `trees.is_node`, which takes three times as long


class Plan:
    """A tree of parameters whose update was found to be in order.

    It keeps none of the arrays.

    Args:
        paths: Where the parameters stand in their tree.
        arrays: The parameters, their gradients, which share no memory with what changes, and the arrays of each slot.
        slots: The names of the slots.
        rule: The rule of the optimizer.
        coefficients: The coefficients by dtype, of this step.
    """

    def __init__(
        self,
        paths: Sequence[trees.Path],
        arrays: Columns,
        slots: tuple[str, ...],
        rule: Rule,
        coefficients: Coefficients,
    ) -> None:
        parameters, gradients, *by_slot = arrays
        self.paths = list(paths)
        self.dtypes = set(coefficients)
        self._slots = slots
        self._shapes, self._dtypes = self._facts(parameters)
        written = list(chain(parameters, *by_slot))
        # One that is gone may leave its identity to another. An array that owns its memory, in order, is as good as
        # any with the same facts; of others it is noted that they are gone. (What has a weak reference has a fixed
        # size, which those others have anyway.)
        self._gone: list[Any] = []
        self._references = [
            weakref.ref(array, self._gone.append) for array in written if not (array.flags.owndata and array.flags.forc)
        ]
        self._identities = list(map(id, written))
        self._written_facts = self._facts_of_written(written)
        rows = list(zip(parameters, *by_slot, strict=True))
        self._flat = [
            all(array.flags.c_contiguous for array in (g, *row)) for g, row in zip(gradients, rows, strict=True)
        ]
        self._needed = [_CONTIGUOUS * flat for flat in self._flat]
        # Of gradients that are fit for the plan and have their memory to themselves, as long as they are not ours.
        flags = list(map(_FLAGS, gradients))
        self._usual = flags if all(one & _OWNS_DATA for one in flags) else None
        self._shares = trees.shares(written)
        owners = list(map(_owner, written))
        self._owners = None if None in owners else set(owners)
        self._choice = compiled.choice()
        loop = compiled.loop_for(rule, len(slots), sum(w.size for w in parameters), coefficients)
        fast = [
            number
            for number, w in enumerate(parameters)
            if loop is not None and self._flat[number] and compiled.computes(w.dtype) and w.size
        ]
        self._fast = fast
        self._slow = sorted(set(range(len(rows))) - set(fast))
        self._rows = compiled.Rows([rows[number] for number in fast], loop) if loop and fast else None
        self._blocks = Blocks([parameters[number] for number in self._slow], [self._flat[n] for n in self._slow])
        self._shared = self._blocks.most > 1 or (self._rows is not None and self._rows.most > 1)

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
        if self._slots and not all(isinstance(state, dict) for state in states):
            return None
        columns = [parameters, given, *(list(map(dict.get, states, repeat(slot))) for slot in self._slots)]
        written = list(chain(parameters, *columns[2:]))
        if list(map(id, written)) != self._identities or self._written_facts != self._facts_of_written(written):
            return None
        if set(map(type, given)) - {np.ndarray} or self._facts(given) != (self._shapes, self._dtypes):
            return None
        flags = list(map(_FLAGS, given))
        if flags == self._usual and self._owners is not None and self._owners.isdisjoint(map(id, given)):
            return columns
        for g, one, needed in zip(given, flags, self._needed, strict=True):
            if one & needed != needed:
                return None
            # Arrays in the memory of different owners share none.
            owner = _owner(g)
            if (self._owners is None or owner is None or owner in self._owners) and self._shares(g):
                return None
        return columns

    @classmethod
    def _facts_of_written(cls, written: Sequence[npt.NDArray[Any]]) -> tuple[list[Any], ...]:
        """What else is asked of arrays that are written to; one that was resized and resized back has moved."""
        return *cls._facts(written), list(map(_FLAGS, written)), compiled.addresses(written)

    @staticmethod
    def _facts(arrays: Sequence[npt.NDArray[Any]]) -> tuple[list[Any], list[Any]]:
        """Shapes and dtypes."""
        return list(map(_SHAPE, arrays)), list(map(_DTYPE, arrays))

    def run(self, arrays: Columns, coefficients: Coefficients) -> None:
        """Advance every parameter.

        Raises:
            Stopped: where it ends early, from the exception of a block or an interrupt.
        """
        begun: Blocks | compiled.Rows = self._blocks
        of, still = self._slow, self._fast
        try:
            slow = [[column[number] for number in self._slow] for column in arrays] if self._fast else arrays
            self._blocks.run(slow, coefficients)
            if self._rows is not None:  # the last, as no loop fails
                begun, of, still = self._rows, self._fast, []
                self._rows.run([arrays[1][number] for number in self._fast], coefficients)
        except Halted as halted:
            raise _stopped(halted, begun, of, still) from halted.__cause__
        except BaseException as error:  # an interrupt elsewhere than in a part
            raise Stopped(list(range(len(self.paths))), [], error) from error


def _stopped(halted: Halted, run: Blocks | compiled.Rows, of: Sequence[int], still: Sequence[int]) -> Stopped:
    """What had moved of a run over these parameters, when others stood still."""

    def count(parts: Iterable[Any]) -> Counter[int]:
        return Counter(of[number] for part in parts for number in run.numbers(part))

    parts, left = count(run.parts), count(halted.left)
    unmoved = {number for number in parts if left[number] == parts[number]}
    partly = set(count(halted.failed)) | (set(left) - unmoved)
    return Stopped(sorted(partly), sorted(unmoved.union(still)), halted.__cause__ or halted)


def _owner(array: npt.NDArray[Any]) -> int | None:
    """Which array has the memory that this one is in, by identity; None where it is not known."""
    owner: Any = array if array.base is None else array.base
    return id(owner) if isinstance(owner, np.ndarray) and owner.flags.owndata else None


class Stopped(Exception):
    """A step that ended early.

    Args:
        partly: Numbers of the parameters that may have moved in part.
        still: Numbers of those that have not moved.
        reason: What ended it.
    """

    def __init__(self, partly: list[int], still: list[int], reason: BaseException) -> None:
        super().__init__(partly, still, reason)
        self.partly = partly
        self.still = still
        self.reason = reason


def _paired(gradients: Any, parameters: Any, state: Any, found: list[tuple[Any, Any, Any]]) -> bool:
    """Put (gradient, parameter, slots) of every leaf into ``found``; False where the trees differ. Makes nothing."""
    if not isinstance(gradients, _NODES):
        found.append((gradients, parameters, state))
        return True
    named = isinstance(gradients, dict)
    if not isinstance(parameters, dict if named else list | tuple):
        return False
    in_list = isinstance(state, list)
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
