"""The compiled steps: for each optimizer a loop over the elements, in the order of operations of its fast path.

Importing this module needs numba, and compiles nothing. The first call compiles; later processes read that from disk.

A kernel has the name of its optimizer's module. It gets the coefficients ``n``, with a 1 of the arrays' dtype behind
them, the number of elements of each row, and rows of addresses: of the parameter, the gradient and the slots. It does
not hold the interpreter's lock.
"""

from __future__ import annotations

import math
from typing import Any

from numba import njit, types
from numba.extending import intrinsic

# numpy: 0/0 is NaN instead of an exception. Without fastmath every operation is rounded on its own, in order.
kernel = njit(nogil=True, cache=True, error_model="numpy")


@intrinsic
def pointer(context: Any, address: Any, like: Any) -> Any:
    """An address as a pointer to numbers of the type of ``like``."""
    signature = types.CPointer(like)(address, like)

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.inttoptr(arguments[0], context.get_value_type(signature.return_type))

    return signature, generate


@kernel
def sgd(n, sizes, rows):
    rate, mu, kappa, rest, buffered, _, nesterov, one = n
    for row in range(sizes.size):
        w, g, v = pointer(rows[row, 0], one), pointer(rows[row, 1], one), pointer(rows[row, 2], one)
        for i in range(sizes[row]):
            d = g[i]
            if kappa != 0:
                d = w[i] * kappa + d
            if buffered:
                v[i] = new = v[i] * mu + d * rest
                d = new * mu + d if nesterov else new
            w[i] -= d * rate


@kernel
def rmsprop(n, sizes, rows):
    rate, alpha, rest, eps, one = n
    for row in range(sizes.size):
        w, g, v = pointer(rows[row, 0], one), pointer(rows[row, 1], one), pointer(rows[row, 2], one)
        for i in range(sizes[row]):
            x = g[i]
            v[i] = new = v[i] * alpha + (x * x) * rest
            w[i] -= (x * rate) / (math.sqrt(new) + eps)


@kernel
def adagrad(n, sizes, rows):
    rate, eps, one = n
    for row in range(sizes.size):
        w, g, v = pointer(rows[row, 0], one), pointer(rows[row, 1], one), pointer(rows[row, 2], one)
        for i in range(sizes[row]):
            x = g[i]
            v[i] = new = v[i] + x * x
            w[i] -= (x * rate) / (math.sqrt(new) + eps)


@kernel
def adadelta(n, sizes, rows):
    rate, rho, rest, eps, one = n
    for row in range(sizes.size):
        w, g = pointer(rows[row, 0], one), pointer(rows[row, 1], one)
        v, u = pointer(rows[row, 2], one), pointer(rows[row, 3], one)
        for i in range(sizes[row]):
            x, old = g[i], u[i]
            v[i] = new = v[i] * rho + (x * x) * rest
            d = math.sqrt(old + eps) / math.sqrt(new + eps) * x
            u[i] = old * rho + (d * d) * rest
            w[i] -= d * rate


@kernel
def adam(n, sizes, rows):
    rate, b1, rest1, b2, rest2, eps, one = n
    for row in range(sizes.size):
        w, g = pointer(rows[row, 0], one), pointer(rows[row, 1], one)
        m, v = pointer(rows[row, 2], one), pointer(rows[row, 3], one)
        for i in range(sizes[row]):
            x = g[i]
            m[i] = mean = m[i] * b1 + x * rest1
            v[i] = square = v[i] * b2 + (x * x) * rest2
            w[i] -= (mean * rate) / (math.sqrt(square) + eps)


@kernel
def adamw(n, sizes, rows):
    keep, rate, b1, rest1, b2, rest2, eps, one = n
    for row in range(sizes.size):
        w, g = pointer(rows[row, 0], one), pointer(rows[row, 1], one)
        m, v = pointer(rows[row, 2], one), pointer(rows[row, 3], one)
        for i in range(sizes[row]):
            x = g[i]
            m[i] = mean = m[i] * b1 + x * rest1
            v[i] = square = v[i] * b2 + (x * x) * rest2
            w[i] = w[i] * keep - (mean * rate) / (math.sqrt(square) + eps)


@kernel
def adamax(n, sizes, rows):
    rate, b1, rest1, b2, eps, one = n
    for row in range(sizes.size):
        w, g = pointer(rows[row, 0], one), pointer(rows[row, 1], one)
        m, v = pointer(rows[row, 2], one), pointer(rows[row, 3], one)
        for i in range(sizes[row]):
            x, old = g[i], v[i] * b2
            size = abs(x)
            m[i] = mean = m[i] * b1 + x * rest1
            v[i] = new = old if old > size or old != old else size  # a NaN of either stays; of two zeros the second
            w[i] -= (mean * rate) / (new + eps)


@kernel
def lion(n, sizes, rows):
    rate, keep, b1, rest1, b2, rest2, one = n
    zero = one - one
    for row in range(sizes.size):
        w, g, m = pointer(rows[row, 0], one), pointer(rows[row, 1], one), pointer(rows[row, 2], one)
        for i in range(sizes[row]):
            x, old = g[i], m[i]
            c = old * b1 + x * rest1
            m[i] = old * b2 + x * rest2
            sign = one if c > zero else -one if c < zero else zero if c == zero else c  # NaN at NaN
            w[i] = w[i] * keep - sign * rate
