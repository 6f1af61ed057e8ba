r"""The orders of evaluation that the interval covers, each written once.

The guide on the interval prints this table, and the tests read it: they count the roundings of each order against those
of the model, have solvers prove that it stays inside, and change it to see the proofs fail.

An order is a function of ``n``, the numbers in which it is evaluated. Arrays are ``n.w``, ``n.g``, ``n.m``, ``n.v``,
``n.a`` (any numerator), ``n.d`` (any positive denominator) and ``n.sign`` (of Lion's direction). Hyperparameters are
``n.beta``, ``n.rate``, ``n.kappa``, ``n.eps``, ``n.c1`` and ``n.c2``. They are exact, and so is what is formed of them,
until ``n.number`` rounds it into the format of the arrays. ``n.root`` takes either.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

Evaluated = Callable[[Any], Any]


@dataclass(frozen=True)
class Order:
    """A way to evaluate a statement.

    Args:
        name: What the tests call it.
        tex: How the guide writes it.
        constant: How the guide writes C, the greatest ratio of its rounding errors to those of the model at slack 1, to
            first order.
        evaluate: The order.
        programs: The key of the tests' programs in this order, by which the record has their steps.
    """

    name: str
    tex: str
    constant: str
    evaluate: Evaluated
    programs: str


@dataclass(frozen=True)
class Statement:
    """A statement of the formulas.

    Args:
        theorem: The number of the theorem on its orders.
        tex: How the guide writes it.
        model: The model's own order.
        orders: The others.
    """

    theorem: int
    tex: str
    model: Evaluated
    orders: tuple[Order, ...]


def _mean(n: Any) -> Any:
    return n.number(n.beta) * n.m + n.number(1 - n.beta) * n.g


def _square(n: Any) -> Any:
    return n.number(n.beta) * n.v + n.number(1 - n.beta) * (n.g * n.g)


def _corrected(n: Any) -> Any:
    first, second = n.m / n.number(n.c1), n.v / n.number(n.c2)
    return n.w - n.number(n.rate) * first / (n.root(second) + n.number(n.eps))


def _kept(n: Any) -> Any:
    return n.number(1) - n.number(n.rate) * n.number(n.kappa)


STATEMENTS = (
    Statement(
        9,
        "any",
        _mean,
        (
            Order(
                "fused multiply-add",
                "fused multiply-add",
                "1",
                lambda n: n.fused(n.number(n.beta), n.m, n.number(1 - n.beta) * n.g),
                "any FMA",
            ),
            Order(
                "intermediates in double",
                "intermediates in double",
                "1",
                lambda n: n.wide(_mean),
                "double intermediates",
            ),
        ),
    ),
    Statement(
        10,
        r"$\lambda a/d$",
        lambda n: n.number(n.rate) * n.a / n.d,
        (
            Order("λ(a/d)", r"$\lambda(a/d)$", "1", lambda n: n.number(n.rate) * (n.a / n.d), "λ(a/d)"),
            Order("a(λ/d)", r"$a(\lambda/d)$", "1", lambda n: n.a * (n.number(n.rate) / n.d), "a(λ/d)"),
            Order("a/(d/λ)", r"$a/(d/\lambda)$", "1", lambda n: n.a / (n.d / n.number(n.rate)), "a/(d/λ)"),
            Order(
                "λ(a·(1/d))",
                r"$\lambda(a \cdot (1/d))$",
                "4/3",
                lambda n: n.number(n.rate) * (n.a * (n.number(1) / n.d)),
                "a·(1/d)",
            ),
        ),
    ),
    Statement(
        10,
        r"$\sqrt{u+\varepsilon}/\sqrt{v+\varepsilon} \cdot g$",  # both roots are floats by then
        lambda n: n.a / n.d * n.g,
        (
            Order(
                "√u·(g/√v)",
                r"$\sqrt{u+\varepsilon} \cdot (g/\sqrt{v+\varepsilon})$",
                "1",
                lambda n: n.a * (n.g / n.d),
                "√u·(g/√v)",
            ),
            Order(
                "(√u·g)/√v",
                r"$(\sqrt{u+\varepsilon} \cdot g)/\sqrt{v+\varepsilon}$",
                "1",
                lambda n: n.a * n.g / n.d,
                "(√u·g)/√v",
            ),
        ),
    ),
    Statement(
        11,
        r"$\beta v + (1-\beta)g^2$",
        _square,
        (
            Order(
                "((1−β)g)g",
                r"$\beta v + ((1-\beta)g)g$",
                "1",
                lambda n: n.number(n.beta) * n.v + n.number(1 - n.beta) * n.g * n.g,
                "((1−β)g)g",
            ),
        ),
    ),
    Statement(
        11,
        r"$\beta m + (1-\beta)g$",
        _mean,
        (
            Order(
                "m by interpolation",
                r"$m + (1-\beta)(g - m)$",
                r"$\max(4/3,\, 3/(4\beta))$",
                lambda n: n.m + n.number(1 - n.beta) * (n.g - n.m),
                "m, v by interpolation with β > 1/2",
            ),
        ),
    ),
    Statement(
        11,
        r"$\beta v + (1-\beta)g^2$",
        _square,
        (
            Order(
                "v by interpolation",
                r"$v + (1-\beta)(g^2 - v)$",
                r"$\max(5/4,\, 1/\beta - 1/2)$",
                lambda n: n.v + n.number(1 - n.beta) * (n.g * n.g - n.v),
                "m, v by interpolation with β > 1/2",
            ),
        ),
    ),
    Statement(
        12,
        r"$w - \lambda\hat m/(\sqrt{\hat v} + \varepsilon)$",
        _corrected,
        (
            Order(
                "inverses of c₁ and c₂",
                r"$m/c_1$ and $v/c_2$ by their inverses",
                "1",
                lambda n: (
                    n.w
                    - n.number(n.rate)
                    * (n.m * n.number(1 / n.c1))
                    / (n.root(n.v * n.number(1 / n.c2)) + n.number(n.eps))
                ),
                "six ways of bias correction",
            ),
            Order(
                "(λ/c₁)m/(√v/√c₂ + ε)",
                r"$(\lambda/c_1)m/(\sqrt{v}/\sqrt{c_2} + \varepsilon)$",
                "1",
                lambda n: (
                    n.w - n.number(n.rate / n.c1) * n.m / (n.root(n.v) / n.number(n.root(n.c2)) + n.number(n.eps))
                ),
                "six ways of bias correction",
            ),
            Order(
                "(λ√c₂/c₁)m/(√v + ε√c₂)",
                r"$(\lambda\sqrt{c_2}/c_1)m/(\sqrt{v} + \varepsilon\sqrt{c_2})$",
                "1",
                lambda n: (
                    n.w - n.number(n.rate * n.root(n.c2) / n.c1) * n.m / (n.root(n.v) + n.number(n.eps * n.root(n.c2)))
                ),
                "six ways of bias correction",
            ),
            Order(
                "(λ/c₁)m/(√v·(1/√c₂) + ε)",
                r"$(\lambda/c_1)m/(\sqrt{v} \cdot (1/\sqrt{c_2}) + \varepsilon)$",
                "1",
                lambda n: (
                    n.w - n.number(n.rate / n.c1) * n.m / (n.root(n.v) * n.number(1 / n.root(n.c2)) + n.number(n.eps))
                ),
                "six ways of bias correction",
            ),
            Order(
                "(λ/c₁)(m/(√v·(1/√c₂) + ε))",
                r"$(\lambda/c_1)(m/(\sqrt{v} \cdot (1/\sqrt{c_2}) + \varepsilon))$",
                "1",
                lambda n: (
                    n.w - n.number(n.rate / n.c1) * (n.m / (n.root(n.v) * n.number(1 / n.root(n.c2)) + n.number(n.eps)))
                ),
                "six ways of bias correction",
            ),
        ),
    ),
    Statement(
        13,
        r"$(1-\lambda\kappa)w$",
        lambda n: _kept(n) * n.w,
        (
            Order(
                "1−λκ in double",
                r"$1-\lambda\kappa$ in double",
                "1",
                lambda n: n.number(1 - n.rate * n.kappa) * n.w,
                "1−λκ in double",
            ),
            Order(
                "w − λκw",
                r"$w - (\lambda\kappa)w$",
                "1",
                lambda n: n.w - n.number(n.rate) * n.number(n.kappa) * n.w,
                "w − λκw",
            ),
            Order(
                "w − λ(κw)",
                r"$w - \lambda(\kappa w)$",
                "1",
                lambda n: n.w - n.number(n.rate) * (n.number(n.kappa) * n.w),
                "w − λκw",
            ),
        ),
    ),
    Statement(
        13,
        r"$(1-\lambda\kappa)w - \lambda a/d$",
        lambda n: _kept(n) * n.w - n.number(n.rate) * n.a / n.d,
        (
            Order(
                "w − λ(a/d + κw)",
                r"$w - \lambda(a/d + \kappa w)$",
                "5/4",
                lambda n: n.w - n.number(n.rate) * (n.a / n.d + n.number(n.kappa) * n.w),
                "w − λ(x + κw)",
            ),
        ),
    ),
    Statement(
        13,
        r"$(1-\lambda\kappa)w - \lambda\,\mathrm{sign}\,c$",
        lambda n: _kept(n) * n.w - n.number(n.rate) * n.sign,
        (
            Order(
                "w − λ(sign c + κw)",
                r"$w - \lambda(\mathrm{sign}\,c + \kappa w)$",
                "4/3",
                lambda n: n.w - n.number(n.rate) * (n.sign + n.number(n.kappa) * n.w),
                "w − λ(x + κw)",
            ),
        ),
    ),
)
