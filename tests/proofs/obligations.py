r"""The claims of the guide on the interval, as statements about real numbers that a solver can decide.

A claim holds when its hypotheses and the negation of its conclusion have no solution. Every number is symbolic: the model's roundoff u
and its threshold η in the theorems on operations, IEEE's roundoff h in those on orders, so that a proof holds for every format at
once and in all powers of h.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

from z3 import And, ArithRef, BoolRef, If, Or, Q, Real, Reals, RealVal

from docs._ext.orders import STATEMENTS, Order, Statement

SLACK = Q(3, 2)
COARSEST = Q(1, 256)
"""The greatest h for which the orders are proved: bfloat16's."""


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

    yield Claim("1", "one rounding of what is off by q", rounded, size(f - z) <= q + u * (size(z) + q) + eta)
    yield Claim("1", "one rounding, by |z| alone", rounded, size(f - z) <= q + u * size(z) + eta, holds=False)
    yield Claim("1", "sum", two, size((xh + yh) - (x + y)) <= r + s)
    yield Claim("1", "difference", two, size((xh - yh) - (x - y)) <= r + s)
    yield Claim("1", "sum by the larger radius", two, size((xh + yh) - (x + y)) <= larger(r, s), holds=False)
    product = size(x) * s + size(y) * r + r * s
    yield Claim("2", "product", two, size(xh * yh - x * y) <= product)
    yield Claim("2", "product without rs", two, size(xh * yh - x * y) <= size(x) * s + size(y) * r, holds=False)

    ratio, ratioh = Reals("ratio ratioh")
    ratios = (*two, size(y) > s, ratio * y == x, ratioh * yh == xh)
    yield Claim("3", "quotient", ratios, size(ratioh - ratio) * (size(y) - s) <= r + size(ratio) * s)
    yield Claim("3", "quotient by |y|", ratios, size(ratioh - ratio) * size(y) <= r + size(ratio) * s, holds=False)

    a, b, c, d = Reals("a b c d")
    roots = (*one, a >= 0, a * a == x, c >= 0, c * c == xh)
    inner = (*roots, x > r, b >= 0, b * b == x - r)
    outer = (*roots, x <= r, b >= 0, b * b == x + r)
    yield Claim("4", "root, x > r", inner, size(c - a) <= a - b)
    yield Claim("4", "root, x ≤ r", outer, size(c - a) <= larger(a, Q(1004, 1000) * b - a))
    yield Claim("4", "root by the outer end", (*inner, d >= 0, d * d == x + r), size(c - a) <= d - a, holds=False)

    yield Claim("5", "absolute value", one, size(size(xh) - size(x)) <= r)
    yield Claim("5", "maximum", two, size(larger(xh, yh) - larger(x, y)) <= larger(r, s))
    yield Claim("5", "sum with an exact zero", (*two, y == 0, s == 0), size((xh + yh) - (x + y)) <= r)
    yield Claim("5", "product with an exact zero", (*two, y == 0, s == 0), xh * yh == x * y)
    sign, signh = (If(t > 0, RealVal(1), If(t < 0, RealVal(-1), RealVal(0))) for t in (x, xh))
    yield Claim("5", "sign without a zero", (*one, size(x) > r), signh == sign)
    yield Claim("5", "sign with a zero", one, size(signh) <= 1)
    yield Claim("5", "sign at the end of a ball", (*one, size(x) >= r, x != 0), signh == sign, holds=False)

    h, p, t = Reals("h p t")
    slack = (h > 0, h <= COARSEST, u == SLACK * h)
    yield Claim("6", "coefficient", (*slack, eta >= 0, size(f - x) <= h * size(x) + eta / SLACK), size(f - x) <= u * size(x) + eta)
    # β̂ᵗ is p times βᵗ; one more product brings the rounding of β and its own
    e1, e2 = Reals("e1 e2")
    power = (*slack, t >= 1, t * u <= Q(1, 5), size(p - 1) <= 2 * t * u, size(e1) <= h, size(e2) <= h)
    yield Claim("6", "power, the first", (*slack, size(e1) <= h), size((1 + e1) - 1) <= 2 * u)
    yield Claim("6", "power, one more", power, size(p * (1 + e1) * (1 + e2) - 1) <= 2 * (t + 1) * u)
    yield Claim("6", "power by 4/3 tu", power, size(p * (1 + e1) * (1 + e2) - 1) <= Q(4, 3) * (t + 1) * u, holds=False)
    low = (a > 0, a * a == x, r >= 0, b >= 0, b * b == If(x > r, x - r, RealVal(0)), c >= 0, c * c == x + r)
    yield Claim("6", "root of a coefficient", low, r / (a + b) >= If(x > r, a - b, larger(a, Q(1004, 1000) * c - a)))

    rz = Real("rz")
    fused = (*two, rz >= 0, size(zh - z) <= rz)
    yield Claim("9", "fused multiply-add", fused, size((xh * yh + zh) - (x * y + z)) <= product + rz)
    k, eta2 = Reals("k eta2")
    twice = (h > 0, h <= COARSEST, eta2 >= 0, size(k - z) <= h / 8 * size(z) + eta2 / 8, size(f - k) <= h * size(k) + eta2)
    yield Claim("9", "rounded twice, first to three bits more", twice, size(f - z) <= SLACK * h * size(z) + SLACK * eta2)
    same = (*twice[:3], size(k - z) <= h * size(z) + eta2, twice[-1])
    yield Claim("9", "rounded twice to the same format", same, size(f - z) <= SLACK * h * size(z) + SLACK * eta2, holds=False)


# ---------------------------------------------------------------- inclusion: theorem 7


def inclusion() -> Iterator[Claim]:
    """Theorem 7: a part of a ball gives a part of the result. A part (xh, r1) of (x, r) has |xh − x| + r1 ≤ r."""
    x, y, r, s, xh, yh, r1, s1, u, eta = Reals("x y r s xh yh r1 s1 u eta")
    z, zh, q, q1, Z, Z1 = Reals("z zh q q1 Z Z1")
    model = (u >= 0, u <= Q(1, 8), eta >= 0)
    part = (r >= 0, s >= 0, r1 >= 0, s1 >= 0, size(xh - x) + r1 <= r, size(yh - y) + s1 <= s)

    def ball(z: ArithRef, q: ArithRef) -> ArithRef:
        return q + u * (size(z) + q) + eta

    products = size(xh) * s1 + size(yh) * r1 + r1 * s1, size(x) * s + size(y) * r + r * s
    yield Claim("7", "sum", part, size((xh + yh) - (x + y)) + (r1 + s1) <= r + s)
    yield Claim("7", "difference", part, size((xh - yh) - (x - y)) + (r1 + s1) <= r + s)
    yield Claim("7", "product", part, size(xh * yh - x * y) + products[0] <= products[1])
    ratios = (size(y) > s, size(yh) > s1, Z * y == x, Z1 * yh == xh)
    radii = (q * (size(y) - s) == r + size(Z) * s, q1 * (size(yh) - s1) == r1 + size(Z1) * s1)
    yield Claim("7", "quotient", (*part, *ratios, *radii), size(Z1 - Z) + q1 <= q)
    yield Claim("7", "quotient: the part's divisor is not zero", (*part, size(y) > s), size(yh) > s1)
    yield Claim("7", "rounding", (*model, q >= 0, q1 >= 0, size(zh - z) + q1 <= q), size(zh - z) + ball(zh, q1) <= ball(z, q))

    a, b, c, d, e = Reals("a b c d e")
    parts = (r >= 0, r1 >= 0, size(xh - x) + r1 <= r)
    roots = (a >= 0, a * a == x, c >= 0, c * c == xh, d >= 0, d * d == xh - r1)
    inner = (*parts, x > r, xh > r1, *roots, b >= 0, b * b == x - r)
    yield Claim("7", "root, x > r", inner, size(c - a) + (c - d) <= a - b)
    yield Claim("7", "root, x > r: the part is of this kind", (*parts, x > r), xh > r1)
    outer = (*parts, x >= 0, x <= r, xh >= r1, *roots, e >= 0, e * e == x + r)
    need = size(c - a) + (c - d)
    narrow = (*outer, 8 * r1 <= xh)
    yield Claim("7", "root, x ≤ r, parts with 8r' ≤ x̂", narrow, need <= larger(a, Q(1004, 1000) * e - a))
    yield Claim("7", "root, x ≤ r, with 1.003", narrow, need <= larger(a, Q(1003, 1000) * e - a), holds=False)
    yield Claim("7", "root, x ≤ r, all parts with r' ≤ x̂", outer, need <= larger(a, Q(1004, 1000) * e - a), holds=False)


# ---------------------------------------------------------------- orders: theorems 10 to 13
#
# An order's errors are bounded by theorems 1 to 4 with IEEE's h for u, and so are the model's with the slack. Nothing underflows, so that
# both bounds scale with the data: what can be 1 by a choice of units is 1 here. Bounds are continuous, so w ≠ 0 stands for w = 0 too.


class Bounded:
    """A value and the bound of its error."""

    def __init__(self, unit: ArithRef, value: ArithRef, radius: ArithRef) -> None:
        self.unit, self.value, self.radius = unit, value, radius

    def _after(self, z: ArithRef, q: ArithRef) -> Bounded:
        return Bounded(self.unit, z, q + self.unit * (size(z) + q))

    def __add__(self, other: Bounded) -> Bounded:
        return self._after(self.value + other.value, self.radius + other.radius)

    def __sub__(self, other: Bounded) -> Bounded:
        return self._after(self.value - other.value, self.radius + other.radius)

    def __mul__(self, other: Bounded) -> Bounded:
        x, r, y, s = self.value, self.radius, other.value, other.radius
        return self._after(x * y, size(x) * s + size(y) * r + r * s)

    def __truediv__(self, other: Bounded) -> Bounded:
        """By an exact 1: any float that divides the one side divides the other."""
        return self._after(self.value, self.radius)


class Numbers:
    """The numbers of a statement."""

    def __init__(self, unit: ArithRef, arrays: dict[str, ArithRef], exact: dict[str, ArithRef]) -> None:
        self.__dict__.update({name: Bounded(unit, value, RealVal(0)) for name, value in arrays.items()})
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
    """The bound of the relative error of a value; in a sum of two positive numbers, ``share`` is the part of the first."""

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
    """w, from which a step is taken; by theorem 7 the step alone matters."""

    def __sub__(self, step: Relative) -> Relative:
        return step


class Unit:
    """An exact coefficient: relative errors do not depend on it."""

    def root(self) -> Unit:
        return self

    def _self(self, _: object) -> Unit:
        return self

    __mul__ = __truediv__ = __rtruediv__ = _self


class Relatives:
    """The numbers of a statement of products, quotients, roots and sums of positive numbers."""

    def __init__(self, unit: ArithRef, shares: dict[str, ArithRef], radii: dict[str, ArithRef], *, upper: bool) -> None:
        self.unit, self.upper, self.divisors = Ratio(unit), upper, []
        self.w = Parameter()
        for name in "agmuvd":
            setattr(self, name, Relative(self, Ratio(radii.get(name, 0)), shares.get(name)))
        self.beta = self.rate = self.eps = self.c1 = self.c2 = Unit()

    def number(self, c: Any) -> Relative:
        return Relative(self, Ratio(0) if isinstance(c, int) else self.unit)

    @staticmethod
    def root(x: Any) -> Any:
        return x.root()


h, beta, kappa, g, v, a, s, t, p, q = Reals("h beta kappa g v a s t p q")
ONE = RealVal(1)
FORMAT = (h > 0, h <= COARSEST)
DECAY = (kappa > 0, kappa <= Q(1, 5))
POLYNOMIAL: dict[str, Any] = {
    r"$\beta v + (1-\beta)g^2$": (dict(v=v, g=ONE), dict(beta=beta), (beta >= Q(11, 20), beta < 1, v >= 0)),
    r"$\beta m + (1-\beta)g$": (dict(m=ONE, g=g), dict(beta=beta), (beta >= Q(9, 16), beta < 1)),
    r"$(1-\lambda\kappa)w$": (dict(w=ONE), dict(rate=ONE, kappa=kappa), DECAY),
    r"$(1-\lambda\kappa)w - \lambda a/d$": (dict(w=ONE, a=a, d=ONE), dict(rate=ONE, kappa=kappa), DECAY),
    r"$(1-\lambda\kappa)w - \lambda\,\mathrm{sign}\,c$": (dict(w=ONE, sign=a), dict(rate=ONE, kappa=kappa), DECAY),
}
RELATIVE: dict[str, Any] = {
    r"$\lambda a/d$": ({}, dict(a=p, d=q), (p >= 0, q >= 0, p <= Q(1, 2), q <= Q(1, 8))),
    r"$\sqrt{u+\varepsilon}/\sqrt{v+\varepsilon} \cdot g$": (dict(u=s, v=t), {}, (s >= 0, s <= 1, t >= 0, t <= 1)),
    r"$w - \lambda\hat m/(\sqrt{\hat v} + \varepsilon)$": (dict(v=s), {}, (s >= 0, s <= 1)),
}


def constant(tex: str, beta: Any) -> ArithRef:
    """A constant of the guide's table, as a number of the solver."""
    match tex.strip("$"):
        case r"\max(4/3,\, 3/(4\beta))":
            return Q(4, 3)
        case r"\max(5/4,\, 1/\beta - 2/3)":
            return Q(5, 4)
    top, _, bottom = tex.strip("$").partition("/")
    return Q(int(top), int(bottom or 1))

def orders():
    for statement in STATEMENTS:
        if statement.tex in POLYNOMIAL:
            arrays, exact, domain = POLYNOMIAL[statement.tex]
            for order in statement.orders:
                def go(unit, name):
                    o=order.evaluate(Numbers(h, arrays, exact))
                    mo=statement.model(Numbers(unit, arrays, exact))
                    return Claim("11", name, (*FORMAT, *domain), o.radius<=mo.radius, order.name)
                yield go(SLACK*h, "at slack 3/2")
                C=constant(order.constant,beta)
                yield go((C + 32*h) * h, "at slack C + 32h")
                yield go((C + 8*h) * h, "at slack C + 8h")
                yield go((C - Q(1,100)) * h, "at slack C-")
        elif statement.tex in RELATIVE:
            shares, radii, domain = RELATIVE[statement.tex]
            for order in statement.orders:
                def go(unit, name):
                    cp=Relatives(h, shares, radii, upper=True); cm=Relatives(unit, shares, radii, upper=False)
                    o=order.evaluate(cp).bound; mo=statement.model(cm).bound
                    D=(*FORMAT, *domain)
                    yield Claim("10", name+" positive", D, And(*(x.n>0 for x in cp.divisors+cm.divisors)), order.name)
                    yield Claim("10", name, D, o.n*mo.d<=mo.n*o.d, order.name)
                yield from go(SLACK*h, "at slack 3/2")
                C=constant(order.constant,beta)
                yield from go((C + 32*h) * h, "at slack C + 32h")
                yield from go((C + 8*h) * h, "at slack C + 8h")
                yield from go((C - Q(1,100)) * h, "at slack C-")
