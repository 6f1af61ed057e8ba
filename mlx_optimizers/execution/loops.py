"""Loops over elements that numba compiles from a ``rule``, the same function that is recorded for NumPy.

Importing this module needs numba, and compiles nothing. The first call of a loop compiles it; later processes read that
from disk. A loop does not hold the interpreter's lock.
"""

from __future__ import annotations

import dis
import hashlib
import sys
from types import CodeType, FunctionType
from typing import Any

import numba
import numpy as np
from numba import njit, types
from numba.extending import intrinsic
from numba.np.unsafe.ndarray import to_fixed_tuple

# numpy: 0/0 is NaN instead of an exception. Without fastmath every operation is rounded on its own, in order.
scalar = njit(error_model="numpy")

# What a rule calls as `np` where it is compiled: on one number, with the bits that NumPy gives on arrays.
sqrt, absolute, abs = np.sqrt, np.absolute, np.absolute  # noqa: A001 - NumPy has it under both names


@scalar
def maximum(x, y):
    return x if x > y or x != x else y  # a NaN of either stays; of two zeros the second


@scalar
def sign(x):
    one = type(x)(1)
    return one if x > 0 else -one if x < 0 else x - x if x == 0 else x  # NaN at NaN


def knows(rule: Any) -> bool:
    """Tell whether a rule is made of arithmetic and known functions alone; any other is NumPy's."""
    code, known = rule.__code__, {"sqrt", "absolute", "abs", "maximum", "sign"}
    names = {name for name in code.co_names if rule.__globals__.get(name) is not np}
    operators = {line.argrepr.rstrip("=") for line in dis.get_instructions(rule) if line.opname == "BINARY_OP"}
    inner = code.co_freevars or any(isinstance(constant, CodeType) for constant in code.co_consts)
    return not inner and names <= known and operators <= {"+", "-", "*", "/", "[]"}


def loop_of(rule: Any, slots: int) -> Any:
    """Return the loop of a rule: it gets the coefficients, a 1 of the dtype, sizes of rows, and rows of addresses."""
    names = {name: sys.modules[__name__] for name, value in rule.__globals__.items() if value is np}
    body = scalar(FunctionType(rule.__code__, {**names, "__name__": __name__}, rule.__name__))
    load, store = _access(2 + slots)
    inner = {**globals(), "rule": body, "count": 2 + slots, "load": load, "store": store}
    made = FunctionType(_loop.__code__, inner, rule.__qualname__)
    # numba keeps what it compiled under this name, and compiles again when this file changes.
    code = rule.__code__
    version = hashlib.sha256(repr((code.co_code, code.co_consts, code.co_names, code.co_varnames, slots)).encode())
    made.__qualname__ = f"{rule.__module__}.{rule.__qualname__}.{version.hexdigest()[:16]}"
    return njit(nogil=True, cache=True, error_model="numpy")(made)


def _loop(c, one, sizes, rows):
    for row in range(sizes.size):
        at = to_fixed_tuple(rows[row], count)  # noqa: F821 - from `loop_of`, as are the others
        for i in range(sizes[row]):
            store(one, at, i, rule(c, *load(one, at, i)))  # noqa: F821


def _access(count: int) -> tuple[Any, Any]:
    """Return what reads and writes the elements of arrays at their addresses: w, g, then the slots."""

    def place(context, builder, number, addresses, column, i):
        kind = context.get_value_type(types.CPointer(number))
        return builder.gep(builder.inttoptr(builder.extract_value(addresses, column), kind), [i])

    @intrinsic
    def load(context, one, at, i):
        def generate(context, builder, signature, arguments):
            _, addresses, i = arguments
            places = [place(context, builder, one, addresses, column, i) for column in range(count)]
            return context.make_tuple(builder, signature.return_type, list(map(builder.load, places)))

        return types.UniTuple(one, count)(one, at, i), generate

    @intrinsic
    def store(context, one, at, i, results):
        if results != types.UniTuple(one, count - 1):
            raise numba.TypingError(f"a rule must return {count - 1} numbers of {one}, not {results}")

        def generate(context, builder, signature, arguments):
            _, addresses, i, results = arguments
            # The slots first: one that stays as it was is not written then, as nothing was since it was read.
            for column, result in [*((x, x - 1) for x in range(2, count)), (0, 0)]:
                value = builder.extract_value(results, result)
                builder.store(value, place(context, builder, one, addresses, column, i))
            return context.get_dummy_value()

        return types.void(one, at, i, results), generate

    return load, store
