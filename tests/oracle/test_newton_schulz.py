"""The bound on Newton–Schulz, attacked: right programs in every order and rounding stay inside, wrong ones do not."""

from __future__ import annotations

import itertools
import math
from fractions import Fraction
from typing import NamedTuple

import mpmath
import numpy as np
import pytest

from mlx_optimizers.newton_schulz import COEFFICIENTS, EPS, newton_schulz
from mlx_optimizers.oracle import Double, Exact, format_of
from mlx_optimizers.oracle.fixed_point import Arithmetic
from mlx_optimizers.oracle.newton_schulz import CONSISTENT, Orthogonalized, _View, certified, distance
from tests.support import require

SINGLE = format_of("float32")


# Matrices: each function makes one of a shape, in float64


def _orthogonal(rng, shape):
    size = max(shape)
    return np.linalg.qr(rng.normal(size=(size, size)))[0][: shape[0], : shape[1]]


def _with_singular_values(rng, shape, values):
    least = min(shape)
    left, right = (np.linalg.qr(rng.normal(size=(size, least)))[0] for size in shape)
    return left * np.asarray(values)[:least] @ right.T


def _permutation(rng, shape):
    out = np.zeros(shape)
    places = rng.permutation(max(shape))
    for index in range(min(shape)):
        out[(index, places[index]) if shape[0] <= shape[1] else (places[index], index)] = 1
    return out


def _sparse(rng, shape):
    return rng.normal(size=shape) * (rng.random(shape) < 0.4)


def _single(rng, shape):
    out = np.zeros(shape)
    out[rng.integers(shape[0]), rng.integers(shape[1])] = 3.0
    return out


def _near_the_peak(rng, shape):
    """Iterates with singular values of 1.2 are where the polynomial is steepest but for 0."""
    return _with_singular_values(rng, shape, rng.uniform(0.3, 0.35, min(shape)))


MATRICES = {
    "normal": lambda rng, shape: rng.normal(size=shape),
    "positive": lambda rng, shape: rng.uniform(0.5, 1.5, shape),
    "ones": lambda rng, shape: np.ones(shape),
    "rank 1": lambda rng, shape: np.outer(rng.normal(size=shape[0]), rng.normal(size=shape[1])),
    "half the rank": lambda rng, shape: _with_singular_values(
        rng, shape, [1.0] * ((min(shape) + 1) // 2) + [0.0] * (min(shape) // 2)
    ),
    "ill-conditioned": lambda rng, shape: _with_singular_values(rng, shape, np.geomspace(1, 1e-6, min(shape))),
    "one large": lambda rng, shape: _with_singular_values(rng, shape, [1.0] + [1e-3] * min(shape)),
    "one small": lambda rng, shape: _with_singular_values(rng, shape, [1.0] * (min(shape) - 1) + [1e-3]),
    "peak": _near_the_peak,
    "orthogonal": _orthogonal,
    "permutation": _permutation,
    "single entry": _single,
    "sparse": _sparse,
    "alternating": lambda rng, shape: (-1.0) ** np.add.outer(np.arange(shape[0]), np.arange(shape[1])),
    "powers of two": lambda rng, shape: np.ldexp(rng.choice([-1.0, 1.0], shape), rng.integers(-20, 20, shape)),
    "rows apart": lambda rng, shape: rng.normal(size=shape) * np.geomspace(1, 1e-8, shape[0])[:, None],
    "tiny": lambda rng, shape: rng.normal(size=shape) * 1e-12,
    "near ε": lambda rng, shape: rng.normal(size=shape) * 1e-7,
    "near underflow": lambda rng, shape: rng.normal(size=shape) * 1e-20,
    "huge": lambda rng, shape: rng.normal(size=shape) * 1e15,
}


# Programs: a float format simulated in float64, over a batch of matrices (count, rows, columns)


class Program(NamedTuple):
    rounding: str
    order: str
    fused: bool
    joined: str
    inverse: bool

    def run(self, d, form, steps=5):
        return Simulated(self, form).newton_schulz(d, steps)


class Simulated:
    """Arithmetic of a format: numbers in float64, each result rounded into the format."""

    def __init__(self, program, form):
        self.program, self.dtype, self.tiny = program, form.dtype, form.tiny
        self.rng = np.random.default_rng(7)

    def round(self, x):
        near = np.asarray(x).astype(self.dtype)
        rounding = self.program.rounding
        y = near.astype(np.float64)
        if rounding == "nearest":
            return y
        if rounding == "flushed":
            return np.where(np.abs(y) < self.tiny, 0.0, y)
        down = np.where(y > x, np.nextafter(near, self.dtype.type(-np.inf)).astype(np.float64), y)
        up = np.where(y < x, np.nextafter(near, self.dtype.type(np.inf)).astype(np.float64), y)
        return {
            "down": down,
            "up": up,
            "to zero": np.where(x > 0, down, up),
            "from zero": np.where(x > 0, up, down),
            "either": np.where(self.rng.random(np.shape(x)) < 0.5, down, up),
        }[rounding]

    def sum(self, terms, start=None):
        """Add terms, each a function that adds its product to a sum, or returns it."""
        order = self.program.order
        if order == "shuffled":
            terms = [terms[place] for place in self.rng.permutation(len(terms))]
        elif order == "backward":
            terms = terms[::-1]
        if order == "pairs":
            values = [] if start is None else [start]
            values += [self.round(term) for term in terms]
            while len(values) > 1:
                pairs = [self.round(a + b) for a, b in zip(values[::2], values[1::2], strict=False)]
                values = pairs + values[len(values) & ~1 :]
            return values[0]
        total = start
        for term in terms:
            if total is None:
                total = self.round(term)
            else:
                total = self.round(total + (term if self.program.fused else self.round(term)))
        return total

    def product(self, p, q, start=None):
        terms = [p[:, :, k, None] * q[:, None, k, :] for k in range(p.shape[2])]
        return self.sum(terms, start)

    def newton_schulz(self, d, steps):
        r = self.round
        if d.shape[1] > d.shape[2]:
            return self.newton_schulz(d.transpose(0, 2, 1), steps).transpose(0, 2, 1)
        a, b, c, eps = (r(x) for x in (*COEFFICIENTS, EPS))
        flat = d.reshape(len(d), -1)
        norm = r(np.sqrt(self.sum([flat[:, k] ** 2 for k in range(flat.shape[1])])))
        divisor = r(norm + eps)[:, None, None]
        x = r(d * r(1 / divisor)) if self.program.inverse else r(d / divisor)
        eye = np.eye(d.shape[1])
        for _ in range(steps):
            gram = self.product(x, x.transpose(0, 2, 1))
            if self.program.joined == "apart":
                square = r(r(b * gram) + r(c * self.product(gram, gram)))
                x = r(r(a * x) + self.product(square, x))
            elif self.program.joined == "into":  # the sums start from the other term
                square = self.product(r(c * gram), gram, r(b * gram))
                x = self.product(square, x, r(a * x))
            else:  # A(bI + cA), then (aI + B)X
                square = self.product(gram, r(r(c * gram) + b * eye))
                x = self.product(r(square + a * eye), x)
        return x


ROUNDINGS = ("nearest", "flushed", "down", "up", "to zero", "from zero", "either")
ORDERS = ("forward", "backward", "shuffled", "pairs")
PROGRAMS = [
    Program(*choice)
    for choice in itertools.product(ROUNDINGS, ORDERS, (False, True), ("apart", "into", "factored"), (False, True))
    if not (choice[1] == "pairs" and choice[2])
]


def bound(d, form=SINGLE, radius=0.0, **given):
    return certified(Double(), form, d, np.broadcast_to(radius, d.shape), **given)


def shares(form, shape, seeds, programs, names=tuple(MATRICES)):
    """Run programs on matrices; yield the error of each as a part of its bound, with what made it."""
    labels, matrices, bounds = [], [], []
    for seed, name in itertools.product(seeds, names):
        with np.errstate(all="ignore"):
            made = MATRICES[name](np.random.default_rng(seed), shape).astype(form.dtype).astype(np.float64)
        if not np.isfinite(made).all():
            continue
        # a subnormal may be taken for zero, and carries its own size as radius
        out = bound(made, form, np.where(np.abs(made) < form.tiny, np.abs(made), 0.0))
        if math.isfinite(out.radius):
            labels.append((name, seed))
            matrices.append(made)
            bounds.append(out)
    batch = np.array(matrices)
    for program in programs:
        with np.errstate(all="ignore"):
            got = program.run(batch, form)
        for label, result, (centre, radius) in zip(labels, got, bounds, strict=True):
            error = np.linalg.norm(result - centre)
            assert error <= radius, (label, shape, program, error / radius)
            yield (error / radius if radius else 0.0), label, program


@pytest.mark.norm("interval.newton-schulz")
@pytest.mark.parametrize("shape", [(1, 1), (1, 5), (2, 2), (2, 3), (4, 6), (6, 4), (8, 8)])
def test_right_programs_stay_inside(shape):
    count = 0
    for share, label, program in shares(SINGLE, shape, (1,), PROGRAMS[::2]):
        assert share <= 1, (label, program)
        count += 1
    assert count >= len(PROGRAMS[::2]) * 18


@pytest.mark.norm("interval.newton-schulz")
def test_right_programs_stay_inside_at_16_by_16():
    assert max(shares(SINGLE, (16, 16), (1,), PROGRAMS[:: len(PROGRAMS) // 12]))[0] <= 1


@pytest.mark.parametrize("name", ["float16", "bfloat16"])
def test_right_programs_in_16_bits_stay_inside_where_the_bound_is_finite(name):
    require("ml_dtypes")
    form = format_of(name)
    # float16 keeps its subnormals, and 1/ε overflows there
    half = name == "float16"
    right = [
        program
        for program in PROGRAMS
        if program.rounding in ("nearest", "flushed")[: 1 + (not half)] and not (half and program.inverse)
    ]
    for shape in ((1, 1), (1, 3), (2, 3), (4, 6)):
        assert max(shares(form, shape, (1,), right), default=(0,))[0] <= 1


@pytest.mark.slow
@pytest.mark.parametrize("shape", [(1, 1), (1, 2), (1, 16), (2, 2), (2, 3), (3, 16), (4, 6), (6, 4), (8, 8), (16, 16)])
def test_right_programs_stay_inside_by_the_thousand(shape):
    assert max(shares(SINGLE, shape, range(2, 4 if shape == (16, 16) else 10), PROGRAMS))[0] <= 1


def test_a_program_that_starts_anywhere_in_the_radius_stays_inside():
    """Without rounding: how errors grow. They point where the polynomial is steep, and may be as large as the matrix.

    One of them comes within 2 % of the bound.
    """
    rng, greatest = np.random.default_rng(5), 0.0
    for shape, name, steps in itertools.product([(1, 1), (2, 2), (2, 3), (4, 6)], MATRICES, (0, 1, 3, 5)):
        d = MATRICES[name](rng, shape)
        if not d.any():
            continue
        left, _, right = np.linalg.svd(d)
        for size in np.linalg.norm(d) * np.array([1e-9, 1e-6, 1e-4, 1e-2, 0.1, 1.001]):
            moves = [rng.normal(size=shape), np.outer(left[:, -1], right[-1]), np.outer(left[:, 0], right[-1]), d]
            radius = np.full(shape, size)
            centre, within = bound(d, radius=radius, steps=steps)
            for move, sign in itertools.product(moves, (1, -1)):
                start = d + sign * size * move / np.abs(move).max()
                error = np.linalg.norm(plain(start, steps=steps) - centre)
                assert error <= within, (shape, name, steps, size)
                greatest = max(greatest, error / within)
    assert greatest > 0.98


@pytest.mark.parametrize("shape", [(2, 3), (4, 6), (8, 8)])
def test_a_program_that_starts_off_and_rounds_stays_inside(shape):
    rng = np.random.default_rng(6)
    for name, size in itertools.product(MATRICES, (1e-5, 1e-3, 1e-1)):
        d = MATRICES[name](rng, shape).astype(np.float32).astype(np.float64)
        if not (d == 0).any() and np.abs(d).min() > 2.0**-100:
            radius = np.abs(d) * size * (1 + 2.0**-20)
            starts = d * (1 + size * rng.choice([-1, 1], (8, *shape)))
            centre, within = bound(d, radius=radius)
            for program in PROGRAMS[::31]:
                got = program.run(starts.astype(np.float32).astype(np.float64), SINGLE)
                assert (np.linalg.norm(got - centre, axis=(1, 2)) <= within).all(), (name, size, program)


@pytest.mark.parametrize("shape", [(1, 1), (1, 3), (2, 2), (2, 3), (4, 4), (3, 5)])
def test_the_growth_is_the_norm_of_the_derivative(shape):
    """Which is a linear map of matrices: here as a matrix itself, column by column."""
    a, b, c = COEFFICIENTS
    for seed in range(10):
        x = np.random.default_rng(seed).normal(size=shape)
        x *= 1.2 / np.linalg.norm(x, 2)
        columns = []
        for place in np.ndindex(shape):
            e = np.zeros(shape)
            e[place] = 1
            gram, moved = x @ x.T, e @ x.T + x @ e.T
            square = b * moved + c * (moved @ gram + gram @ moved)
            columns.append((a * e + square @ x + (b * gram + c * gram @ gram) @ e).reshape(-1))
        derivative = np.linalg.norm(np.array(columns), 2)
        assert _View(x, COEFFICIENTS).growth(0.0) == pytest.approx(derivative, rel=1e-6)


@pytest.mark.parametrize("s", [0.0, 0.3, 0.48, 0.9, 1.1, 1.2])
def test_the_growth_of_one_number(s):
    """F is p there. The bound has its slope, and half the error times its curvature."""
    second = 6 * B * s + 20 * C * s**3
    for error in (1e-3, 1e-2):
        steps = [abs(_p(s + sign * error) - _p(s)) / error for sign in (1, -1)]
        bound_on_it = _View(np.array([[s]]), COEFFICIENTS).growth(error)
        assert max(steps) <= bound_on_it
        if s > 1:  # where the curvature is greatest at the end
            assert max(steps) > bound_on_it - 50 * error**2 > bound_on_it - error / 4 * second


def _p(s):
    return A * s + B * s**3 + C * s**5


@pytest.mark.parametrize("shape", [(1, 1), (2, 3), (4, 6)])
def test_how_much_of_an_error_of_the_gram_matrix_is_carried(shape):
    """Exactly the greatest |b + c(sᵢ² + sⱼ²)|sⱼ of the program's singular values, which are near those of X."""
    rng, greatest = np.random.default_rng(9), 0.0
    for size, error in itertools.product((0.2, 0.8, 1.2), (0.0, 1e-3, 1e-2, 0.1)):
        for _ in range(20):
            x = rng.normal(size=shape)
            x *= size / np.linalg.norm(x, 2)
            left, _, right = np.linalg.svd(x)
            moves = np.array(
                [rng.normal(size=shape), np.outer(left[:, 0], right[0]), -np.outer(left[:, -1], right[-1])]
            )
            for move in moves:
                start = x + error * move / np.linalg.norm(move)
                s = np.linalg.svd(start, compute_uv=False)
                carried = np.max(np.abs(B + C * (s[:, None] ** 2 + s**2)) * s)
                assert carried <= _View(x, COEFFICIENTS).carried(error)
                if shape == (1, 1) and size == 1.2 and error == 0.1:
                    greatest = max(greatest, carried / _View(x, COEFFICIENTS).carried(error))
    assert greatest > 0.85 or shape != (1, 1)


def _conspired(x, u, signs, eta=0.0):
    """Apply the polynomial once, with the greatest errors that sums of so many roundings may have, of given signs."""
    (m, n), (in_gram, in_square) = x.shape, signs

    def gamma(roundings):
        return roundings * u / (1 - roundings * u)

    gram, size = x @ x.T, np.abs(x)
    gram = gram + (gamma(n) * (size @ size.T) + 2 * n * eta) * in_gram
    square, terms = B * gram + C * gram @ gram, abs(B) * np.abs(gram) + C * np.abs(gram) @ np.abs(gram)
    terms = (gamma(m + 2) + u * (1 + gamma(m + 2))) * terms
    square = square + (terms + 2 * (m + 1) * (1 + abs(B) + C) * eta) * in_square
    off = A * x + square @ x - (A * x + (B * x @ x.T + C * x @ x.T @ x @ x.T) @ x)
    terms = A * size + np.abs(square) @ size
    terms = (gamma(m + 1) + u * (1 + gamma(m + 1))) * terms + 2 * (m + 1) * (1 + A) * eta
    return off + terms * np.where(off < 0, -1, 1)


@pytest.mark.parametrize(("u", "eta"), [(1e-7, 0.0), (1e-5, 0.0), (3e-3, 0.0), (0.0, 1e-6), (1e-5, 1e-5)])
@pytest.mark.parametrize("shape", [(1, 1), (1, 4), (2, 2), (2, 3), (4, 6), (8, 8)])
def test_the_bound_on_rounding_holds_where_all_errors_conspire(shape, u, eta):
    """Real errors have signs of their own, and are far from the bound; these are the greatest, all to one side."""
    rng, greatest = np.random.default_rng(8), 0.0
    for name, error in itertools.product(MATRICES, (0.0, 1e-6, 1e-3, 1e-1)):
        x = MATRICES[name](rng, shape)
        x = x / max(np.linalg.norm(x, 2), 1e-300) * rng.choice([0.1, 0.5, 1.0, 1.2])
        left = np.linalg.svd(x)[0]
        within = _View(x, COEFFICIENTS).rounding(error, Arithmetic(u, eta, u))
        for place in (0, -1, 0, -1):
            move = rng.normal(size=shape)
            start = x + error * move / np.linalg.norm(move)
            pattern = np.where(np.outer(left[:, place], left[:, place]) < 0, -1, 1)
            drawn = rng.choice([-1, 1], pattern.shape)
            for signs in itertools.product((pattern, -pattern, drawn), repeat=2):
                got = np.linalg.norm(_conspired(start, u, signs, eta))
                assert got <= within + 1e-14, (name, error)  # float64's own rounding of what is near 1
                greatest = max(greatest, got / within if within else 0.0)
    assert greatest > 0.98


def test_the_polynomial_is_steepest_at_0_until_it_overshoots():
    """What the guide says of p: |p′| ≤ 3.4445 while s ≤ 1.1875, and s reaches 1.2024, where it is 3.97."""
    s = np.linspace(0, 1.1875, 100001)
    assert np.abs(A + 3 * B * s**2 + 5 * C * s**4).max() == A
    s = np.linspace(0, 1.2024, 100001)
    assert np.abs(A + 3 * B * s**2 + 5 * C * s**4).max() == pytest.approx(3.97, abs=0.005)
    reached = np.linspace(0, 1, 1000001)
    for _ in range(5):
        reached = A * reached + B * reached**3 + C * reached**5
        assert reached.min() >= 0 and reached.max() <= 1.2024


# Programs that compute something else


def plain(d, steps=5, eps=EPS, coefficients=COEFFICIENTS, turn=True):
    """Newton–Schulz in float64."""
    if turn and d.shape[0] > d.shape[1]:
        return plain(d.T, steps, eps, coefficients).T
    a, b, c = coefficients
    x = d / (np.linalg.norm(d) + eps)
    for _ in range(steps):
        gram = x @ x.T
        x = a * x + (b * gram + c * (gram @ gram)) @ x
    return x


A, B, C = COEFFICIENTS
WRONG = {
    "one step more": {"steps": 6},
    "one step less": {"steps": 4},
    "a = 3.4": {"coefficients": (3.4, B, C)},
    "two decimals": {"coefficients": (3.44, -4.78, 2.03)},
    "b off by 0.1 %": {"coefficients": (A, B * 1.001, C)},
}


@pytest.mark.parametrize("shape", [(4, 6), (6, 4)])
@pytest.mark.parametrize("wrong", WRONG)
def test_wrong_programs_are_outside(wrong, shape):
    for seed in range(20):
        d = np.random.default_rng(seed).normal(size=shape).astype(np.float32).astype(np.float64)
        centre, radius = bound(d)
        assert np.linalg.norm(plain(d, **WRONG[wrong]) - centre) > 2 * radius


def test_another_epsilon_is_outside_where_the_matrix_is_small():
    for seed, size in itertools.product(range(20), (1e-4, 1e-5, 1e-7)):
        d = np.random.default_rng(seed).normal(size=(4, 6))
        d = (d * size / np.linalg.norm(d)).astype(np.float32).astype(np.float64)
        centre, radius = bound(d)
        assert np.linalg.norm(plain(d, eps=1e-8) - centre) > 1.2 * radius
        assert np.linalg.norm(plain(d) - centre) < radius


def test_a_tall_matrix_that_is_not_transposed_is_the_same_mathematics():
    for seed, shape in itertools.product(range(5), [(6, 4), (16, 3), (5, 1)]):
        d = np.random.default_rng(seed).normal(size=shape)
        centre, radius = bound(d)
        assert np.linalg.norm(plain(d, turn=False) - centre) < radius / 1000


@pytest.mark.parametrize("wrong", [{"steps": 4}, {"coefficients": (3.4, B, C)}, {"eps": 1e-3}])
def test_the_bound_of_another_formula_holds_that_formula(wrong):
    """Steps, coefficients and ε of a variation are arguments."""
    d = np.random.default_rng(0).normal(size=(4, 6))
    centre, radius = bound(d, **wrong)
    assert np.linalg.norm(plain(d, **wrong) - centre) < radius < np.linalg.norm(plain(d) - centre)


# What is exact, and what is unknown


@pytest.mark.parametrize("library", ["mpmath", "gmpy2"])
@pytest.mark.parametrize("shape", [(1, 1), (2, 3), (6, 4), (16, 16)])
def test_the_centre_is_exact(library, shape):
    """Beside mpmath's own matrices at another precision, and beside float64's bound."""
    if library == "gmpy2":
        require("gmpy2")
    d = np.random.default_rng(3).normal(size=shape).astype(np.float32)
    n = Exact(200, library)
    with n.active():
        centre, radius = certified(n, SINGLE, n.array(d).values.reshape(shape), np.zeros(shape))
        text = [[Fraction(*n._parts(x)[:1]) * Fraction(2) ** n._parts(x)[1] for x in row] for row in centre]
    reference = mpmath.MPContext()
    reference.prec = 400
    x = reference.matrix(d.astype(float).tolist())
    turned = shape[0] > shape[1]
    x = x.T if turned else x
    x /= reference.sqrt(sum(value**2 for value in x)) + reference.mpf(EPS)
    a, b, c = map(reference.mpf, COEFFICIENTS)
    for _ in range(5):
        gram = x * x.T
        x = a * x + (b * gram + c * gram * gram) * x
    x = x.T if turned else x
    for i, j in itertools.product(*map(range, shape)):
        exact = reference.mpf(text[i][j].numerator) / text[i][j].denominator
        assert abs(exact - x[i, j]) < reference.mpf(2) ** -180
    in_double = bound(d.astype(np.float64))
    assert np.linalg.norm(in_double.centre - centre.astype(float)) < in_double.radius * 2.0**-25
    # float64's own error has a part of 2⁻²⁹ of float32's
    assert radius * (1 + 2.0**-30) < in_double.radius < radius * (1 + 2.0**-28)


def test_both_libraries_give_the_same():
    require("gmpy2")
    d, out = np.random.default_rng(4).normal(size=(4, 6)).astype(np.float32), []
    for library in ("mpmath", "gmpy2"):
        n = Exact(200, library)
        with n.active():
            made = certified(n, SINGLE, n.array(d).values.reshape(4, 6), np.zeros((4, 6)))
            out.append(([n.text(x, 50) for x in made.centre.reshape(-1)], made.radius))
    assert out[0] == out[1]


@pytest.mark.parametrize("n", [Double(), Exact(200, "mpmath")], ids=["double", "mpmath"])
def test_zero_is_exact(n):
    for shape in ((2, 3), (3, 2), (0, 3), (3, 0)):
        zero = n.array(np.zeros(shape)).values.reshape(shape)
        centre, radius = certified(n, SINGLE, zero, np.zeros(shape))
        assert radius == 0 and centre.shape == shape and not (centre != 0).any()
    off = certified(n, SINGLE, n.array(np.zeros(6)).values.reshape(2, 3), np.full((2, 3), 1e-12))
    assert 0 < off.radius < 1  # 1e-12·√6/ε, and that three times for each of five steps


@pytest.mark.parametrize("n", [Double(), Exact(200, "mpmath")], ids=["double", "mpmath"])
def test_what_may_overflow_is_unknown(n):
    def radius_of(values, form=SINGLE, radius=0.0):
        made = n.array(np.full((2, 2), values)).values.reshape(2, 2)
        return certified(n, form, made, np.full((2, 2), radius), steps=0).radius

    edge = 2.0**62.5  # four squares of it are half the end of the largest binade
    assert radius_of(edge * 0.999) < 1e-6 and radius_of(edge * 1.001) == math.inf
    assert radius_of(1.0, radius=edge) == math.inf
    assert radius_of(math.inf) == radius_of(math.nan) == radius_of(1.0, radius=math.inf) == math.inf
    assert radius_of(1.0, radius=math.nan) == math.inf
    assert radius_of(88.0, format_of("float16")) < math.inf == radius_of(91.0, format_of("float16"))
    assert radius_of(1e160, format_of("float64")) == math.inf


def test_what_may_underflow_has_a_radius():
    """Squares that become zero, so that only ε is left; a quotient that becomes zero; neither shows in float64."""
    tiny = np.full((2, 3), 1e-19)
    assert bound(tiny, steps=0).radius > np.linalg.norm(tiny / EPS - tiny / (np.linalg.norm(tiny) + EPS))
    assert bound(tiny, eps=1e-25).radius == math.inf
    centre, radius = bound(np.full((2, 3), 2e-38), eps=10.0, steps=0)
    assert np.linalg.norm(centre) < radius < 2.0**-122


def test_sums_of_too_many_terms_are_unknown():
    """In bfloat16 a sum of 57 squares may be off by half of itself."""
    form = format_of("bfloat16")
    assert bound(np.ones((1, 56)), form, steps=0).radius < 1
    assert bound(np.ones((1, 57)), form, steps=0).radius == math.inf


@pytest.mark.norm("interval.newton-schulz-16-bits")
def test_a_matrix_that_explodes_is_unknown():
    assert bound(np.eye(2), coefficients=(34.0, -4.775, 2.0)).radius == math.inf


def test_an_array_without_two_axes_is_refused():
    for shape in ((), (3,), (2, 2, 2)):
        with pytest.raises(ValueError, match="needs an array of two axes, not of shape"):
            bound(np.ones(shape))


def test_no_steps_are_the_normalised_matrix():
    d = np.float64([[3, 0], [0, 4]])
    centre, radius = bound(d, steps=0)
    assert np.allclose(centre, d / (5 + EPS), rtol=1e-15, atol=0)
    # half of four squares' sum, the root, ε's sum, the quotient: 4/2 + 3, and that with the slack
    assert radius == pytest.approx(5 * SINGLE.roundoff, rel=1e-5)


def test_the_bound_by_hand_for_one_number():
    """At 1 × 1 everything can be counted: x of about 1, then one step."""
    u = SINGLE.roundoff
    centre, radius = bound(np.ones((1, 1)), steps=1)
    x = 1 / (1 + EPS)
    assert centre[0, 0] == pytest.approx(A * x + B * x**3 + C * x**5, rel=1e-14)
    start = u * (1 / 2 + 3)  # the square under its root, the root, ε's sum and the quotient
    slope = abs(A + 3 * B + 5 * C)
    gram, square = u, u * 4 * (abs(B) + C)  # coefficient, product, factor and sum
    result = u * 3 * (A + abs(B + C))
    through = abs(B + 2 * C)
    assert radius == pytest.approx(slope * start + result + square + through * gram, rel=1e-4)


def test_float64_in_both_profiles():
    n, form = Exact(200, "mpmath"), format_of("float64")
    d = np.random.default_rng(1).normal(size=(4, 6))
    values = n.array(d).values.reshape(4, 6)
    radii = [certified(n, form, values, np.zeros((4, 6)), scalars=scalars).radius for scalars in ("double", "float32")]
    error = np.linalg.norm((n.array(newton_schulz(d)).values.reshape(4, 6) - values * 0).astype(float) - plain(d))
    assert error < radii[0] < 1e-11 < 1e-6 < radii[1] < 1e-3
    d = np.full((2, 2), 1e-13)  # where the norm is ε, nearly
    made = certified(n, form, n.array(d).values.reshape(2, 2), np.zeros((2, 2)), 0, "float32")
    off = np.linalg.norm(d / (2e-13 + float(np.float32(EPS))) - d / (2e-13 + EPS))
    assert made.radius / 100 < off < made.radius
    single = certified(n, SINGLE, values, np.zeros((4, 6)), scalars="float32").radius
    assert single == certified(n, SINGLE, values, np.zeros((4, 6))).radius


@pytest.mark.parametrize(("shape", "most"), [((2, 3), 1.5e-4), ((4, 6), 5e-4), ((8, 8), 3e-3), ((16, 16), 8e-3)])
def test_how_tight_the_bound_is(shape, most):
    for seed in range(20):
        centre, radius = bound(np.random.default_rng(seed).normal(size=shape).astype(np.float32).astype(float))
        assert radius / np.linalg.norm(centre) < most


# 16 bits


@pytest.mark.parametrize("shape", [(4, 4), (4, 6), (6, 4), (8, 8), (16, 16), (3, 16)])
@pytest.mark.parametrize("name", ["float16", "bfloat16"])
def test_right_programs_in_16_bits_are_consistent(name, shape):
    require("ml_dtypes")
    form = format_of(name)
    for seed in range(40):
        d = full_rank(seed, shape).astype(form.dtype)
        assert distance(form, d, newton_schulz(d)) < CONSISTENT


@pytest.mark.parametrize("name", ["float16", "bfloat16"])
def test_wrong_programs_in_16_bits_are_not(name):
    require("ml_dtypes")
    form = format_of(name)
    for seed in range(40):
        d = full_rank(seed, (4, 6)).astype(form.dtype)
        for steps in (4, 6):
            assert distance(form, d, newton_schulz(d, steps)) > CONSISTENT
        assert distance(form, d, newton_schulz(d) * form.dtype.type(1.25)) > CONSISTENT


def full_rank(seed, shape):
    """A matrix with singular values from a fifth of the largest on."""
    rng = np.random.default_rng(seed)
    return _with_singular_values(rng, shape, rng.permutation(np.geomspace(0.2, 1, min(shape))))


def test_mlx_in_16_bits_has_the_same_bits():
    mx, theirs = require("mlx.core"), require("mlx.optimizers")
    require("ml_dtypes")
    with mx.stream(mx.cpu):
        for name, shape in itertools.product(("float16", "bfloat16"), [(4, 6), (6, 4), (16, 16), (1, 7)]):
            form = format_of(name)
            d = full_rank(1, shape).astype(form.dtype)
            array = mx.array(d.astype(np.float32)).astype(getattr(mx, name))
            got = theirs.Muon(0.1)._zeropower_via_newtonschulz5(array, 5).astype(mx.float32)
            assert np.array_equal(np.array(got), newton_schulz(d).astype(np.float32))


def test_the_norm_of_float16_overflows():
    d = np.float16([[256, 1], [1, 1]])
    assert not newton_schulz(d).any()
    assert distance(format_of("float16"), d, newton_schulz(d)) == 1
    assert newton_schulz(d / 2).all()


def test_distances_of_what_is_no_number_and_of_zero():
    zero, one = np.zeros((2, 2), np.float16), np.eye(2, dtype=np.float16)
    half = format_of("float16")
    assert distance(half, zero, zero) == 0 and distance(half, zero, one) == math.inf
    for value in (math.nan, math.inf):
        assert distance(half, one, np.where(one == 1, np.float16(value), one)) == math.inf


def test_the_rounded_coefficients_are_a_reference_of_their_own():
    """In bfloat16 they change the result by more than 1 %, and either is right."""
    require("ml_dtypes")
    form, d = format_of("bfloat16"), full_rank(2, (4, 6)).astype(format_of("bfloat16").dtype).astype(np.float64)
    rounded = tuple(form.rounded(np.array(COEFFICIENTS)).tolist())
    assert distance(form, d, plain(d)) < 1e-12
    assert distance(form, d, plain(d, coefficients=rounded)) < 1e-12
    assert np.linalg.norm(plain(d) - plain(d, coefficients=rounded)) > 0.005


def test_the_result_is_a_pair():
    assert Orthogonalized._fields == ("centre", "radius")
