r"""The claims of the guide on the interval, as statements about real numbers that a solver can decide.

A claim holds when its hypotheses and the negation of its conclusion have no solution. Every number is symbolic: the
model's roundoff u and its threshold η in the theorems on operations, IEEE's roundoff h in those on orders, so that a
proof holds for every format at once, and in all powers of h.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from z3 import And, ArithRef, BoolRef, If, Q, Real, Reals, RealVal

from docs._ext.orders import STATEMENTS, Order, Statement

SLACK = Q(3, 2)
COARSEST = Q(1, 256)
"""The greatest h for which the orders are proved: bfloat16's."""
Hypotheses = tuple[BoolRef, ...]
FUSED, DOUBLE = (order.name for order in STATEMENTS[0].orders)


@dataclass(frozen=True)
class Claim:
    """A claim about real numbers.

    Args:
        theorem: The number of the theorem in the guide.
        name: What it says, in the words of the page on what is proved.
        hypotheses: What is supposed.
        conclusion: What follows.
        order: The name of the order that it is about, if it is about one.
        holds: Whether it is true. Those that are not must be refuted.
    """

    theorem: int
    name: str
    hypotheses: tuple[BoolRef, ...]
    conclusion: BoolRef
    order: str = ""
    holds: bool = True


def size(x: ArithRef) -> ArithRef:
    """|x|."""
    return If(x >= 0, x, -x)


def larger(x: ArithRef, y: ArithRef) -> ArithRef:
    return If(x >= y, x, y)


# ---------------------------------------------------------------- operations: theorems 1 to 6


def operations() -> Iterator[Claim]:
    """Theorems 1 to 6 and the first part of 9: what a program holds after an operation lies in the ball."""
    x, y, z, r, s, xh, yh, zh, q, f, u, eta = Reals("x y z r s xh yh zh q f u eta")
    one = (r >= 0, size(xh - x) <= r)
    two = (*one, s >= 0, size(yh - y) <= s)
    rounded = (u >= 0, eta >= 0, size(zh - z) <= q, size(f - zh) <= u * size(zh) + eta)

    yield Claim(1, "one rounding of what is off by q", rounded, size(f - z) <= q + u * (size(z) + q) + eta)
    yield Claim(1, "one rounding, by |z| alone", rounded, size(f - z) <= q + u * size(z) + eta, holds=False)
    yield Claim(1, "sum", two, size((xh + yh) - (x + y)) <= r + s)
    yield Claim(1, "difference", two, size((xh - yh) - (x - y)) <= r + s)
    yield Claim(1, "sum by the larger radius", two, size((xh + yh) - (x + y)) <= larger(r, s), holds=False)
    product = size(x) * s + size(y) * r + r * s
    yield Claim(2, "product", two, size(xh * yh - x * y) <= product)
    yield Claim(2, "product without rs", two, size(xh * yh - x * y) <= size(x) * s + size(y) * r, holds=False)

    ratio, ratioh = Reals("ratio ratioh")
    ratios = (*two, size(y) > s, ratio * y == x, ratioh * yh == xh)
    yield Claim(3, "quotient", ratios, size(ratioh - ratio) * (size(y) - s) <= r + size(ratio) * s)
    yield Claim(3, "quotient by |y|", ratios, size(ratioh - ratio) * size(y) <= r + size(ratio) * s, holds=False)

    a, b, c, d = Reals("a b c d")
    roots = (*one, a >= 0, a * a == x, c >= 0, c * c == xh)
    inner = (*roots, x > r, b >= 0, b * b == x - r)
    outer = (*roots, x <= r, b >= 0, b * b == x + r)
    yield Claim(4, "root, x > r", inner, size(c - a) <= a - b)
    yield Claim(4, "root, x ≤ r", outer, size(c - a) <= larger(a, Q(1004, 1000) * b - a))
    yield Claim(4, "root by the outer end", (*inner, d >= 0, d * d == x + r), size(c - a) <= d - a, holds=False)

    yield Claim(5, "absolute value", one, size(size(xh) - size(x)) <= r)
    yield Claim(5, "maximum", two, size(larger(xh, yh) - larger(x, y)) <= larger(r, s))
    yield Claim(5, "sum with an exact zero", (*two, y == 0, s == 0), size((xh + yh) - (x + y)) <= r)
    yield Claim(5, "product with an exact zero", (*two, y == 0, s == 0), xh * yh == x * y)
    sign, signh = (If(t > 0, RealVal(1), If(t < 0, RealVal(-1), RealVal(0))) for t in (x, xh))
    yield Claim(5, "sign without a zero", (*one, size(x) > r), signh == sign)
    yield Claim(5, "sign with a zero", one, size(signh) <= 1)
    yield Claim(5, "sign at the end of a ball", (*one, size(x) >= r, x != 0), signh == sign, holds=False)

    h, p, t = Reals("h p t")
    slack = (h > 0, h <= COARSEST, u == SLACK * h)
    yield Claim(
        6, "coefficient", (*slack, eta >= 0, size(f - x) <= h * size(x) + eta / SLACK), size(f - x) <= u * size(x) + eta
    )
    # β̂ᵗ is p times βᵗ; one more product brings the rounding of β and its own
    e1, e2 = Reals("e1 e2")
    power = (*slack, t >= 1, t * u <= Q(1, 5), size(p - 1) <= 2 * t * u, size(e1) <= h, size(e2) <= h)
    yield Claim(6, "power, the first", (*slack, size(e1) <= h), size((1 + e1) - 1) <= 2 * u)
    yield Claim(6, "power, one more", power, size(p * (1 + e1) * (1 + e2) - 1) <= 2 * (t + 1) * u)
    less = (*slack, t >= 1, t * u <= Q(1, 5), size(p - 1) <= Q(4, 3) * t * u, size(e1) <= h, size(e2) <= h)
    yield Claim(6, "power by 4/3 tu", less, size(p * (1 + e1) * (1 + e2) - 1) <= Q(4, 3) * (t + 1) * u, holds=False)
    low = (a > 0, a * a == x, r >= 0, b >= 0, b * b == If(x > r, x - r, RealVal(0)), c >= 0, c * c == x + r)
    yield Claim(6, "root of a coefficient", low, r / (a + b) >= If(x > r, a - b, larger(a, Q(1004, 1000) * c - a)))

    rz = Real("rz")
    fused = (*two, rz >= 0, size(zh - z) <= rz)
    yield Claim(9, "fused multiply-add", fused, size((xh * yh + zh) - (x * y + z)) <= product + rz, FUSED)
    k, eta2 = Reals("k eta2")

    def twice(first: ArithRef) -> tuple[BoolRef, ...]:
        """z is rounded to k with a part of the errors, and k to f."""
        to_k = size(k - z) <= first * (h * size(z) + eta2)
        return h > 0, h <= COARSEST, eta2 >= 0, to_k, size(f - k) <= h * size(k) + eta2

    near = size(f - z) <= SLACK * (h * size(z) + eta2)
    yield Claim(9, "rounded twice, first to three bits more", twice(Q(1, 8)), near, DOUBLE)
    yield Claim(9, "rounded twice to the same format", twice(Q(1, 1)), near, DOUBLE, holds=False)


# ---------------------------------------------------------------- inclusion: theorem 7


def inclusion() -> Iterator[Claim]:
    """Theorem 7: a part of a ball gives a part of the result. A part (xh, r1) of (x, r) has |xh − x| + r1 ≤ r."""
    x, y, r, s, xh, yh, r1, s1, u, eta = Reals("x y r s xh yh r1 s1 u eta")
    z, zh, q, q1, ratio, ratio1 = Reals("z zh q q1 ratio ratio1")
    model = (u >= 0, u <= Q(1, 8), eta >= 0)
    part = (r >= 0, s >= 0, r1 >= 0, s1 >= 0, size(xh - x) + r1 <= r, size(yh - y) + s1 <= s)

    def ball(z: ArithRef, q: ArithRef) -> ArithRef:
        return q + u * (size(z) + q) + eta

    products = size(xh) * s1 + size(yh) * r1 + r1 * s1, size(x) * s + size(y) * r + r * s
    yield Claim(7, "sum", part, size((xh + yh) - (x + y)) + (r1 + s1) <= r + s)
    yield Claim(7, "difference", part, size((xh - yh) - (x - y)) + (r1 + s1) <= r + s)
    yield Claim(7, "product", part, size(xh * yh - x * y) + products[0] <= products[1])
    ratios = (size(y) > s, size(yh) > s1, ratio * y == x, ratio1 * yh == xh)
    radii = (q * (size(y) - s) == r + size(ratio) * s, q1 * (size(yh) - s1) == r1 + size(ratio1) * s1)
    yield Claim(7, "quotient", (*part, *ratios, *radii), size(ratio1 - ratio) + q1 <= q)
    yield Claim(7, "quotient: the part's divisor is not zero", (*part, size(y) > s), size(yh) > s1)
    yield Claim(
        7, "rounding", (*model, q >= 0, q1 >= 0, size(zh - z) + q1 <= q), size(zh - z) + ball(zh, q1) <= ball(z, q)
    )

    a, b, c, d, e = Reals("a b c d e")
    parts = (r >= 0, r1 >= 0, size(xh - x) + r1 <= r)
    roots = (a >= 0, a * a == x, c >= 0, c * c == xh, d >= 0, d * d == xh - r1)
    inner = (*parts, x > r, xh > r1, *roots, b >= 0, b * b == x - r)
    yield Claim(7, "root, x > r", inner, size(c - a) + (c - d) <= a - b)
    yield Claim(7, "root, x > r: the part is of this kind", (*parts, x > r), xh > r1)
    outer = (*parts, x >= 0, x <= r, xh >= r1, *roots, e >= 0, e * e == x + r)
    need = size(c - a) + (c - d)
    narrow = (*outer, 8 * r1 <= xh)
    yield Claim(7, "root, x ≤ r, parts with 8r' ≤ x̂", narrow, need <= larger(a, Q(1004, 1000) * e - a))
    yield Claim(7, "root, x ≤ r, with 1.003", narrow, need <= larger(a, Q(1003, 1000) * e - a), holds=False)
    yield Claim(7, "root, x ≤ r, all parts with r' ≤ x̂", outer, need <= larger(a, Q(1004, 1000) * e - a), holds=False)


# ---------------------------------------------------------------- orders: theorems 10 to 13
#
# An order's errors are bounded by theorems 1 to 4 with IEEE's h for u, and the model's radius has the slack. Nothing
# underflows, so that both scale with the data: what can be 1 by a choice of units is 1 here. Where it is 0 instead,
# nothing is rounded, which is a claim of its own.


class Bounded:
    """A value and the bound of its error; an exact zero rounds nothing."""

    def __init__(self, unit: ArithRef, value: ArithRef, radius: ArithRef, *, zero: bool = False) -> None:
        self.unit, self.value, self.radius, self.zero = unit, value, radius, zero

    def rounded(self, z: ArithRef, q: ArithRef) -> Bounded:
        return Bounded(self.unit, z, q + self.unit * (size(z) + q), zero=False)

    def __neg__(self) -> Bounded:
        return Bounded(self.unit, -self.value, self.radius, zero=self.zero)

    def __add__(self, other: Bounded) -> Bounded:
        if self.zero or other.zero:
            return other if self.zero else self
        return self.rounded(self.value + other.value, self.radius + other.radius)

    def __sub__(self, other: Bounded) -> Bounded:
        if self.zero or other.zero:
            return -other if self.zero else self
        return self.rounded(self.value - other.value, self.radius + other.radius)

    def __mul__(self, other: Bounded) -> Bounded:
        if self.zero or other.zero:
            return self if self.zero else other
        x, r, y, s = self.value, self.radius, other.value, other.radius
        return self.rounded(x * y, size(x) * s + size(y) * r + r * s)

    def __truediv__(self, other: Bounded) -> Bounded:
        """By an exact 1: any float that divides the one side divides the other."""
        return self if self.zero else self.rounded(self.value, self.radius)


class Numbers:
    """The numbers of a statement."""

    def __init__(self, unit: ArithRef, arrays: dict[str, ArithRef], exact: dict[str, ArithRef]) -> None:
        for name, value in arrays.items():
            setattr(self, name, Bounded(unit, value, RealVal(0), zero=value is ZERO))
        self.__dict__.update(exact)
        self._unit = unit

    def number(self, c: Any) -> Bounded:
        if isinstance(c, int):
            return Bounded(self._unit, RealVal(c), RealVal(0))
        return Bounded(self._unit, c, self._unit * size(c))


class Ratio:
    """n/d with d > 0."""

    def __init__(self, n: Any, d: Any = 1) -> None:
        self.n, self.d = (RealVal(x) if isinstance(x, int) else x for x in (n, d))

    @staticmethod
    def of(x: Any) -> Ratio:
        return x if isinstance(x, Ratio) else Ratio(x)

    def __add__(self, other: Any) -> Ratio:
        o = Ratio.of(other)
        return Ratio(self.n * o.d + o.n * self.d, self.d * o.d)

    def __sub__(self, other: Any) -> Ratio:
        o = Ratio.of(other)
        return Ratio(self.n * o.d - o.n * self.d, self.d * o.d)

    def __mul__(self, other: Any) -> Ratio:
        o = Ratio.of(other)
        return Ratio(self.n * o.n, self.d * o.d)

    def __truediv__(self, other: Any) -> Ratio:
        o = Ratio.of(other)
        return Ratio(self.n * o.d, self.d * o.n)

    def __rsub__(self, other: Any) -> Ratio:
        return Ratio.of(other) - self

    __radd__, __rmul__ = __add__, __mul__


class Relative:
    """The bound of the relative error of a value, which is the part ``share`` of the positive sums that it begins."""

    def __init__(self, context: Relatives, bound: Ratio, share: ArithRef | None = None) -> None:
        self.context, self.bound, self.share = context, bound, share

    def _after(self, bound: Ratio) -> Relative:
        return Relative(self.context, bound + self.context.unit * (1 + bound), self.share)

    def __add__(self, other: Relative) -> Relative:
        return self._after(Ratio(self.share) * self.bound + Ratio(1 - self.share) * other.bound)

    def __mul__(self, other: Relative) -> Relative:
        return self._after(self.bound + other.bound + self.bound * other.bound)

    def __truediv__(self, other: Relative) -> Relative:
        self.context.divisors.append(1 - other.bound)
        return self._after((self.bound + other.bound) / (1 - other.bound))

    def root(self) -> Relative:
        """By the lemma: t/2 ≤ 1 − √(1 − t) ≤ t/(2 − t)."""
        return self._after(self.bound / (2 - self.bound) if self.context.upper else self.bound * Q(1, 2))


class Parameter:
    """w, from which a step is taken: the bound of the step decides."""

    def __sub__(self, step: Relative) -> Relative:
        return step


class Unit:
    """An exact coefficient, on which relative errors do not depend."""

    def root(self) -> Unit:
        return self

    def _self(self, _: object) -> Unit:
        return self

    __mul__ = __truediv__ = __rtruediv__ = _self


class Relatives:
    """The numbers of a statement of products, quotients, roots and sums of positive numbers."""

    def __init__(self, unit: ArithRef, share: ArithRef, radii: dict[str, ArithRef], *, upper: bool) -> None:
        self.unit, self.upper, self.divisors = Ratio(unit), upper, []
        self.w = Parameter()
        for name in "agmvd":
            setattr(self, name, Relative(self, Ratio(radii.get(name, 0)), share))
        self.beta = self.rate = self.eps = self.c1 = self.c2 = Unit()

    def number(self, c: Any) -> Relative:
        return Relative(self, Ratio(0) if isinstance(c, int) else self.unit)

    @staticmethod
    def root(x: Any) -> Any:
        return x.root()


class Values:
    """The numbers of a statement in real arithmetic; each root is a number of its own, with its square."""

    def __init__(self) -> None:
        self.roots: list[BoolRef] = []
        for name in ("w", "g", "m", "v", "a", "d", "sign", "beta", "rate", "kappa", "eps", "c1", "c2"):
            setattr(self, name, Real(name))

    @staticmethod
    def number(x: Any) -> ArithRef:
        return RealVal(x) if isinstance(x, int) else x

    def root(self, x: ArithRef) -> ArithRef:
        root = Real(f"root{len(self.roots)}")
        self.roots.append(And(root >= 0, root * root == x))
        return root


h, beta, kappa, g, v, a, s, p, q, c = Reals("h beta kappa g v a s p q c")
ZERO, ONE = RealVal(0), RealVal(1)
FORMAT = (h > 0, h <= COARSEST)
FINE = (h <= Q(1, 10_000),)  # where terms of higher order refute nothing
DECAY = (kappa > 0, kappa <= Q(1, 5))
MEAN, SQUARE = r"$\beta m + (1-\beta)g$", r"$\beta v + (1-\beta)g^2$"
POLYNOMIAL: dict[str, tuple[dict[str, ArithRef], dict[str, ArithRef], tuple[BoolRef, ...]]] = {
    SQUARE: ({"v": v, "g": ONE}, {"beta": beta}, (beta >= Q(12, 23), beta < 1, v >= 0)),
    MEAN: ({"m": ONE, "g": g}, {"beta": beta}, (beta >= Q(9, 16), beta < 1)),
    r"$(1-\lambda\kappa)w$": ({"w": ONE}, {"rate": ONE, "kappa": kappa}, DECAY),
    r"$(1-\lambda\kappa)w - \lambda a/d$": ({"w": ONE, "a": a, "d": ONE}, {"rate": ONE, "kappa": kappa}, DECAY),
    r"$(1-\lambda\kappa)w - \lambda\,\mathrm{sign}\,c$": ({"w": ONE, "sign": a}, {"rate": ONE, "kappa": kappa}, DECAY),
}
"""By statement: its arrays, its exact numbers, and their domain."""


def constant(text: str) -> ArithRef:
    """A constant of the guide's table, where β is not near 1/2."""
    known = {r"$\max(4/3,\, 3/(4\beta))$": "4/3", r"$\max(5/4,\, 1/\beta - 1/2)$": "5/4"}
    top, _, bottom = known.get(text, text).partition("/")
    return Q(int(top), int(bottom or 1))


def same(statement: Statement, order: Order) -> Claim:
    """Claim that an order is the formula in real arithmetic."""
    n = Values()
    one, other = statement.model(n), order.evaluate(n)
    positive = (x > 0 for x in (n.d, n.rate, n.kappa, n.eps, n.c1, n.c2))
    return Claim(statement.theorem, "is the formula", (*positive, n.v >= 0, *n.roots), one == other, order.name)


def polynomial(statement: Statement, order: Order) -> Iterator[Claim]:
    """Claim that a sum of products stays inside, and also where one of its arrays is exactly zero."""
    arrays, exact, domain = POLYNOMIAL[statement.tex]

    def inside(
        name: str,
        slack: ArithRef,
        domain: Hypotheses = domain,
        zero: str = "",
        *,
        fine: bool = False,
        holds: bool = True,
    ) -> Claim:
        given = {key: ZERO if key == zero else ONE for key in arrays} if zero else arrays
        other = order.evaluate(Numbers(h, given, exact)).radius
        radius = statement.model(Numbers(slack * h, given, exact)).radius
        name += f", {zero} = 0" if zero else ""
        hypotheses = (*FORMAT, *domain, *(FINE if fine else ()))
        return Claim(statement.theorem, name, hypotheses, other <= radius, order.name, holds)

    yield from at_slacks(order, inside)
    if statement.tex == MEAN and order.constant != "1":
        near = (beta > Q(1, 2), beta <= Q(9, 16), 4 * beta * c == 3)
        yield inside("at slack C + 32h, 1/2 < β ≤ 9/16", c + 32 * h, near)
        yield inside("at slack 3/2, β = 1/4", SLACK, (beta == Q(1, 4),), holds=False)
    if statement.tex == SQUARE and order.constant != "1":
        below = (beta > Q(1, 2), beta <= Q(12, 23), v >= 0, beta * c == 1 - Q(2, 3) * beta)
        yield inside("at slack C + 32h, 1/2 < β ≤ 12/23", c + 32 * h, below)
        near = (beta > Q(1, 2), beta <= Q(4, 7), 2 * beta * c == 2 - beta)
        yield inside("at slack C + 32h, 1/2 < β ≤ 4/7", c + 32 * h, near, "g")
        yield inside("at slack C − 1/100, 1/2 < β ≤ 4/7", c - Q(1, 100), near, "g", fine=True, holds=False)
        domain = (beta >= Q(4, 7), beta < 1)
    for zero in [name for name in arrays if name != "d"] if len(arrays) > 1 else ():
        yield inside("at slack 3/2", SLACK, domain, zero)
        yield inside("at slack C + 32h", constant(order.constant) + 32 * h, domain, zero)


def relative(statement: Statement, order: Order) -> Iterator[Claim]:
    """Claim that a product of quotients stays inside. Numerators and divisors may be off themselves, by p and q."""
    radii = {"a": p, "d": q}

    def inside(name: str, slack: ArithRef, *, fine: bool = False, holds: bool = True) -> Claim:
        off = (p <= Q(1, 2), q <= Q(1, 8)) if slack is SLACK else (p <= 16 * h, q <= 16 * h)
        program, granted = Relatives(h, s, radii, upper=True), Relatives(slack * h, s, radii, upper=False)
        other, bound = order.evaluate(program).bound, statement.model(granted).bound
        divisors = And(*(x.n > 0 for x in program.divisors + granted.divisors))
        hypotheses = (*FORMAT, s >= 0, s <= 1, p >= 0, q >= 0, *off, *(FINE if fine else ()))
        conclusion = And(divisors, other.n * bound.d <= bound.n * other.d)
        return Claim(statement.theorem, name, hypotheses, conclusion, order.name, holds)

    yield from at_slacks(order, inside)


def at_slacks(order: Order, inside: Callable[..., Claim]) -> Iterator[Claim]:
    """Claim that an order stays inside at 3/2 and at C + 32h, and not at less than C."""
    yield inside("at slack 3/2", SLACK)
    yield inside("at slack C + 32h", constant(order.constant) + 32 * h)
    if order.constant != "1":  # otherwise an order may round less than the model
        yield inside("at slack C − 1/100", constant(order.constant) - Q(1, 100), fine=True, holds=False)


def in_double(statement: Statement) -> Claim:
    """Claim that a statement stays inside that is computed with a bit more, and rounded at its end."""
    if statement.tex in POLYNOMIAL:
        arrays, exact, domain = POLYNOMIAL[statement.tex]
        wide = statement.model(Numbers(h / 2, arrays, exact))
        radius = statement.model(Numbers(SLACK * h, arrays, exact)).radius
        conclusion = wide.radius + h * (size(wide.value) + wide.radius) <= radius
    else:
        domain = (s >= 0, s <= 1)
        program, granted = Relatives(h / 2, s, {}, upper=True), Relatives(SLACK * h, s, {}, upper=False)
        bound, model = statement.model(program).bound, statement.model(granted).bound
        bound += Ratio(h) * (1 + bound)
        divisors = And(*(x.n > 0 for x in program.divisors + granted.divisors))
        conclusion = And(divisors, bound.n * model.d <= model.n * bound.d)
    return Claim(9, f"{statement.tex} with a bit more", (*FORMAT, *domain), conclusion, DOUBLE)


def orders() -> Iterator[Claim]:
    """Theorems 10 to 13: every order of the table is the formula, and stays inside."""
    t, b = Reals("t b")
    lemma = (t >= 0, t <= 1, b >= 0, b * b == 1 - t)
    yield Claim(12, "t/2 ≤ 1 − √(1 − t)", lemma, t / 2 <= 1 - b)
    yield Claim(12, "1 − √(1 − t) ≤ t/(2 − t)", lemma, (1 - b) * (2 - t) <= t)
    yield Claim(12, "1 − √(1 − t) ≤ t/2", lemma, 1 - b <= t / 2, holds=False)
    yield from map(in_double, {statement.tex: statement for statement in STATEMENTS if statement.theorem > 9}.values())
    for statement in STATEMENTS:
        if statement.theorem > 9:
            for order in statement.orders:
                yield same(statement, order)
                yield from (polynomial if statement.tex in POLYNOMIAL else relative)(statement, order)


# ---------------------------------------------------------------- sums: theorem 14


def sums() -> Iterator[Claim]:
    """Theorem 14: the steps of its two inductions, and what follows from both; a mean, by a division too."""
    eta, e, f, k, n, r, u, x, xh, z, zh, total = Reals("eta e f k n r u x xh z zh total")
    # z is the sum of what two subtrees should give, zh of what they give; total is the sum of the sizes of all floats
    tree = (*FORMAT, e >= 0, size(z) <= total, size(zh - z) <= q, size(f - zh) <= h * size(zh) + e)
    yield Claim(14, "one more addition", tree, size(f - z) <= q + h * (total + q) + e)
    yield Claim(14, "one more addition, by its operands' errors alone", tree, size(f - z) <= q + e, holds=False)
    off = (*FORMAT, e >= 0, total >= 0, k >= 0, a >= 1, q == (a - 1) * total + k * a * e)
    grown = (a * (1 + h) - 1) * total + (k + 1) * a * (1 + h) * e
    yield Claim(14, "the induction over trees", off, q + h * (total + q) + e <= grown)
    power = (*FORMAT, k >= 0, (k + 1) * h < 1, p >= 1, p * (1 - k * h) <= 1)
    yield Claim(14, "(1 + h)ⁿ ≤ 1/(1 − nh), by induction", power, p * (1 + h) * (1 - (k + 1) * h) <= 1)
    slack = (*FORMAT, u == SLACK * h, eta >= 0)
    bound = (*slack, n >= 2, n * u < 1, p >= 1, p * (1 - n * h) <= 1, r >= 0, size(xh - x) <= r, total >= 0)
    bound += (size(f - xh) <= (p - 1) * total + n * p * eta / SLACK,)
    apart = (size(f - x) - r) * (1 - n * u)
    yield Claim(14, "sum of n terms", bound, apart <= n * (u * total + eta))
    yield Claim(14, "sum of n terms, by half as many", bound, 2 * apart <= n * (u * total + eta), holds=False)
    # in units of 1/n: the model multiplies by a coefficient that is off by u, a program divides by n, rounded to z
    mean = (*slack, r >= 0, size(xh - x) <= r, size(z - 1) <= h, zh * z == xh)
    mean += (size(f - zh) <= h * size(zh) + eta / SLACK,)
    reach = u * size(x) + r + u * r
    yield Claim(14, "mean by a division", mean, size(f - x) <= reach + u * (size(x) + reach) + eta)
    yield Claim(14, "mean, by the last rounding alone", mean, size(f - x) <= r + u * (size(x) + r) + eta, holds=False)


def claims() -> list[Claim]:
    """All claims, those that must be refuted too."""
    return list(itertools.chain(operations(), inclusion(), orders(), sums()))
