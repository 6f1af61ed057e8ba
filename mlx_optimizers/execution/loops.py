"""Loops over elements that numba compiles from a ``rule``, the same function that is recorded for NumPy.

Importing this module needs numba, and compiles nothing. The first call of a loop compiles it; later processes read that
from disk. A loop does not hold the interpreter's lock.
"""

from __future__ import annotations

import hashlib
import math
import sys
from types import FunctionType
from typing import Any

import numba
import numpy as np
from numba import njit, types
from numba.core import cgutils
from numba.extending import intrinsic, overload

# numpy: 0/0 is NaN instead of an exception. Without fastmath every operation is rounded on its own, in order.
scalar = njit(error_model="numpy")
_size = abs


# What a rule calls as `np` where it is compiled: on one number, with the bits that NumPy gives on arrays.


@scalar
def sqrt(x):
    return math.sqrt(x)


@scalar
def absolute(x):
    return _size(x)


@scalar
def maximum(x, y):
    return x if x > y or x != x else y  # a NaN of either stays; of two zeros the second


def sign(x):
    raise NotImplementedError


@overload(sign)
def _sign(x):
    real = x

    def choose(x):
        zero, one = real(0), real(1)
        return one if x > zero else -one if x < zero else zero if x == zero else x  # NaN at NaN

    return choose


abs = absolute  # noqa: A001 - NumPy has it under both names

KNOWN = frozenset({np.add, np.subtract, np.multiply, np.divide, np.negative, np.sqrt, np.absolute, np.maximum, np.sign})
"""The functions that are compiled; a rule with any other is NumPy's."""


def loop_of(rule: Any, slots: int) -> Any:
    """The loop of a rule: it gets the coefficients, a 1 of the dtype, sizes of rows, and rows of addresses.

    Args:
        rule: The rule, which knows no name but NumPy's.
        slots: Number of state arrays.
    """
    names = {name: sys.modules[__name__] for name, value in rule.__globals__.items() if value is np}
    body = scalar(FunctionType(rule.__code__, {**names, "__name__": __name__}, rule.__name__))
    pointers, load, store = _access(2 + slots)
    inner = {**globals(), "rule": body, "pointers": pointers, "load": load, "store": store}
    made = FunctionType(_loop.__code__, inner, rule.__qualname__)
    # numba keeps what it compiled under this name, and makes it anew when this file changes.
    code = rule.__code__
    version = hashlib.sha256(repr((code.co_code, code.co_consts, code.co_names, code.co_varnames, slots)).encode())
    made.__qualname__ = f"{rule.__module__}.{rule.__qualname__}.{version.hexdigest()[:16]}"
    return njit(nogil=True, cache=True, error_model="numpy")(made)


def _loop(c, one, sizes, rows):
    for row in range(sizes.size):
        at = pointers(rows, row, one)  # noqa: F821 - given by `loop_of`, as are the others
        for i in range(sizes[row]):
            store(at, i, rule(c, *load(at, i)))  # noqa: F821


def _access(count: int) -> tuple[Any, Any, Any]:
    """What reads and writes the elements of this many arrays, whose addresses stand in a row: w, g, then the slots."""

    @intrinsic
    def pointers(context, rows, row, one):
        signature = types.UniTuple(types.CPointer(one), count)(rows, row, one)

        def generate(context, builder, signature, arguments):
            rows = context.make_array(signature.args[0])(context, builder, arguments[0])
            kind = context.get_value_type(signature.return_type.dtype)
            found = []
            for column in range(count):
                place = [arguments[1], context.get_constant(types.intp, column)]
                item = cgutils.get_item_pointer(context, builder, signature.args[0], rows, place)
                found.append(builder.inttoptr(builder.load(item), kind))
            return context.make_tuple(builder, signature.return_type, found)

        return signature, generate

    @intrinsic
    def load(context, at, i):
        signature = types.UniTuple(at.dtype.dtype, count)(at, i)

        def generate(context, builder, signature, arguments):
            places = [builder.gep(builder.extract_value(arguments[0], x), [arguments[1]]) for x in range(count)]
            return context.make_tuple(builder, signature.return_type, list(map(builder.load, places)))

        return signature, generate

    @intrinsic
    def store(context, at, i, results):
        signature = types.void(at, i, results)
        if results != types.UniTuple(at.dtype.dtype, count - 1):
            raise numba.TypingError(f"a rule must return {count - 1} numbers of {at.dtype.dtype}, not {results}")

        def generate(context, builder, signature, arguments):
            # The slots first: one that stays as it was is not written then, as nothing was since it was read.
            for column, result in [*((x, x - 1) for x in range(2, count)), (0, 0)]:
                place = builder.gep(builder.extract_value(arguments[0], column), [arguments[1]])
                builder.store(builder.extract_value(arguments[2], result), place)
            return context.get_dummy_value()

        return signature, generate

    return pointers, load, store
