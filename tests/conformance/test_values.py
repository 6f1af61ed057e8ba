"""The cases of values that seldom occur, and the regime ``special``: what deviates there, and what only informs."""

from __future__ import annotations

import itertools
import warnings
from fnmatch import fnmatchcase
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from mlx_optimizers.backends import open_backend
from mlx_optimizers.catalog import CATALOG
from mlx_optimizers.conformance import Case, all_cases, cases_of, check, matching, parse
from mlx_optimizers.conformance.case import DOMAIN
from mlx_optimizers.conformance.cases import VALUES
from mlx_optimizers.conformance.special import SPECIAL, special_of
from mlx_optimizers.conformance.verdict import judge_widening
from mlx_optimizers.oracle import Double, Exact, Rounded, format_of
from mlx_optimizers.oracle.trajectory import walk
from mlx_optimizers.testing import assert_conforms
from tests.expected import NAMES, WHOLE
from tests.programs import Program
from tests.wrong import Make, Step, before, decays, rates, right, settings, skips_zeros

pytestmark = pytest.mark.usefixtures("remembered", "mpfr")

EVERY = (*NAMES, *WHOLE)
MEANS = tuple(name for name in NAMES if name not in ("SGD", "Adagrad"))
BETAS = tuple(name for name in MEANS if name not in ("RMSprop", "AdaDelta"))
EPSILONS = tuple(name for name in NAMES if name not in ("SGD", "Lion"))
DECAYING = ("SGD", "AdamW", "Lion", "BiasCorrectedAdamW")


def clipped(w: Any, g: Any) -> tuple[Any, Any]:
    return w, g * np.float32(min(1.0, 2.0**23 / np.linalg.norm(np.float64(g))))


def nearly(seen: list[float]) -> float:
    return seen[(len(seen) - 1) // 2 * 2]


SEEN: dict[str, tuple[Make, tuple[str, ...], str]] = {
    "steps without a gradient are skipped": (
        skips_zeros,
        tuple(name for name in NAMES if name != "Adagrad"),
        "still/*",
    ),
    "the norm of the gradients is clipped at 2²³": (before(clipped), NAMES, "large/*"),
    "parameters are clipped at 2²¹": (
        before(lambda w, g: (np.clip(w, -(2.0**21), 2.0**21).astype(np.float32), g)),
        NAMES,
        "large/*",
    ),
    "gradients below 2⁻³¹ are taken for 0": (
        before(lambda w, g: (w, np.where(np.abs(g) < 2.0**-31, np.float32(0), g))),
        NAMES,
        "small/*",
    ),
    "λ = 0 is taken for none": (settings(learning_rate=lambda x: x or 0.01), NAMES, "*/learning_rate=0.0"),
    "λ has four decimals": (settings(learning_rate=lambda x: round(x, 4)), NAMES, "*/learning_rate=rising"),
    "λ is at most 1": (settings(learning_rate=lambda x: min(x, 1.0)), NAMES, "*/learning_rate=rising"),
    "λ never rises": (rates(min), NAMES, "*/learning_rate=rising"),
    "λ is read in every second step": (rates(nearly), NAMES, "*/learning_rate=rising"),
    "a decay of 0 is taken for none": (decays(lambda beta: beta or 0.9), MEANS, "tiny/*=0.0*"),
    "a decay is at least ½": (decays(lambda beta: max(beta, 0.5)), ("SGD", *MEANS), "tiny/*[=,]0.[34]"),
    "a decay is at most 0.999": (decays(lambda beta: min(beta, 0.999)), ("SGD", *MEANS), "tiny/*=0.9999*"),
    "β₁ and β₂ are sorted": (settings(betas=sorted), BETAS, "*/betas=0.9999,0.95"),
    "ε is at least 10⁻⁸": (settings(eps=lambda eps: max(eps, 1e-8)), EPSILONS, "tiny/eps=[01]*[02]"),
    "ε is at most 10⁻³": (settings(eps=lambda eps: min(eps, 1e-3)), EPSILONS, "tiny/eps=1.0"),
    "κ is at most 1": (settings(weight_decay=lambda kappa: min(kappa, 1.0)), DECAYING, "*weight_decay=2.0"),
    "a NaN is taken for 0": (before(lambda w, g: (w, np.where(np.isnan(g), np.float32(0), g))), NAMES, "special/nan"),
    "an infinity is taken for the largest number": (
        before(lambda w, g: (w, np.clip(g, *(np.finfo(np.float32).max * np.float32([-1, 1]))))),
        NAMES,
        "special/infinity",
    ),
}
"""By what a program does: how it is made of a right one, the optimizers in which it is wrong, and where it is seen."""


def rare(optimizer: str) -> list[Case]:
    """List the cases of an optimizer's rare values, which come after those of the usual regimes and settings."""
    (entry,) = (entry for entry in CATALOG if entry.name == optimizer)
    usual = len(entry.regimes) * (1 + len(entry.settings))
    return [*cases_of(optimizer)[usual:], *special_of(optimizer)]


def word(program: Program, case: Case) -> str:
    return judge_widening(program.run(case), parse(case.optimizer), ("double", "float32")).word


@pytest.mark.parametrize("what", SEEN)
def test_a_program_that_is_wrong_for_some_values_alone_deviates(what):
    make, names, pattern = SEEN[what]
    for name in names:
        cases = [case for case in rare(name) if fnmatchcase(case.id.partition("/")[2], pattern)]
        words = {case.id: word(Program(make(right(name))), case) for case in cases}
        assert "deviates" in words.values(), (name, words)
        assert {word(Program(right(name)), case) for case in cases} == {"conforms"}


def test_every_optimizer_has_the_cases():
    for name in EVERY:
        cases = rare(name)
        assert tuple(case.regime for case in cases[:3]) == VALUES
        assert [case.label for case in cases if case.regime == "special"] == list(SPECIAL)
        labels = " ".join(case.label for case in cases)
        assert "learning_rate=0.0" in labels and "learning_rate=rising" in labels
    assert sum(len(rare(name)) for name in EVERY) == 179


def test_the_values_are_what_they_are_called():
    for name in EVERY:
        still, small, large = rare(name)[:3]
        idle = [not gradient.any() for gradient in still.gradients]
        assert sum(idle) == 4 and idle[-1] and not idle[0]
        for case, (low, high) in ((small, (DOMAIN[0], 2.0**-30)), (large, (2.0**30, DOMAIN[1]))):
            sizes = np.abs(np.concatenate([case.gradients.reshape(-1), case.parameter.reshape(-1)[1::2]]))
            assert low <= sizes.min() < 4 * low and high / 4 < sizes.max() <= high
        assert not any(case.parameter.reshape(-1)[::2].any() for case in (still, small, large))
    rising = next(case for case in matching(["SGD"]) if case.label == "learning_rate=rising").rates()
    assert min(rising) == 0 and max(rising) > 1 and all(a != b for a, b in itertools.pairwise(rising))


def test_a_case_says_why_it_only_informs():
    for case in all_cases():
        assert (case.level == "informative") == (case.reason is not None)
    informative = {case.id.partition("/")[2] for case in matching(["Adam"]) if case.level == "informative"}
    assert informative == {"tiny/betas=0.0,0.4", "special/overflow", "special/underflow", "special/subnormal"}
    assert not [case.id for case in matching(["SGD", "Adagrad"], "*/tiny/*") if case.level == "informative"]


# Interpolation with a decay of ½ or less.


def interpolated(way: str) -> Program:
    """Adam whose means are interpolated."""

    def mean(beta: float, m: Any, x: Any) -> Any:
        return x + beta * (m - x) if way == "from the new" else m + (1 - beta) * (x - m)

    def step(h: Any, t: int, w: Any, g: Any, m: Any, v: Any) -> tuple[Any, ...]:
        m, v = mean(h.betas[0], m, g), mean(h.betas[1], v, g * g)
        return w - h.learning_rate * m / (np.sqrt(v) + h.eps), m, v

    return Program(step)


@pytest.mark.parametrize("way", ["from the old", "from the new"])
@pytest.mark.norm("interval.interpolation")
def test_an_interpolation_is_never_beyond_what_interpolation_explains(way):
    """3,000 elements for each decay, of sizes from 2⁻²⁰ to 2²⁰ and of both signs, under both profiles."""
    rng, form, exact = np.random.default_rng(5), format_of("float32"), Exact()
    worst = 0.0
    for beta in (0.0, 2.0**-20, 1 / 32, 0.125, 0.3, 0.4999, 0.5):
        g = np.float32(rng.standard_normal((4, 3000)) * 2.0 ** rng.integers(-20, 20, (4, 3000)))
        h = {"learning_rate": 0.1, "betas": (beta, beta), "eps": 1e-8}
        case = Case("adam/own/own", "Adam", "own", "own", "float32", h, np.zeros(3000, np.float32), g)
        run = interpolated(way).run(case)
        for scalars in ("double", "float32"):
            for wide in (False, True):
                n = Rounded(form, Double(), scalars, exact, interpolating=wide)
                with exact.active(), np.errstate(all="ignore"):
                    steps = list(walk(parse("Adam"), n, case.parameter, list(g), h))
                for name, column in zip(("parameter", "m", "v"), zip(*steps, strict=True), strict=True):
                    got = run.parameters if name == "parameter" else run.state[name]
                    centres = np.stack([ball.centre.values for ball in column])
                    ratio = np.abs(np.float64(got) - centres) / np.stack([ball.radius for ball in column])
                    if wide:
                        assert np.nanmax(ratio) <= 1, (beta, name)
                    else:
                        worst = max(worst, float(np.nanmax(ratio)))
    # What the wider interval is for. From the new one, a decay below ½ is as harmless as one above it from the old.
    assert worst > 1000 if way == "from the old" else worst < 1


def test_a_case_with_a_small_decay_informs_of_interpolation_and_rejects_what_that_does_not_explain():
    (case,) = matching(["Adam"], "*/betas=0.0,0.4")
    verdict = judge_widening(interpolated("from the old").run(case), parse("Adam"), ("double", "float32"))
    assert verdict.word == "unsupported" and verdict.worst is None and not verdict.conforms
    assert verdict.reason == f"informative: {case.reason}"
    wrong = Program(settings(betas=lambda betas: (betas[0], 0.4001))(right("Adam")))
    assert word(wrong, case) == "deviates"


def test_no_case_of_assert_conforms_holds_an_interpolation_with_a_small_decay_against_it():
    """The sizes and the long run have the decays that are given, too."""

    def step(parameter, gradients, *, learning_rate, betas, eps):
        rate = np.broadcast_to(np.float32(learning_rate), len(gradients))
        w, m, v, rows = parameter, np.zeros_like(parameter), np.zeros_like(parameter), []
        for t, g in enumerate(gradients):
            m, v = m + (1 - betas[0]) * (g - m), v + (1 - betas[1]) * (g * g - v)
            w = w - rate[t] * m / (np.sqrt(v) + np.float32(eps))
            rows.append(w)
        return np.stack(rows)

    assert_conforms(step, "Adam", betas=(0.01, 0.02))
    with pytest.raises(AssertionError, match="deviates"):
        assert_conforms(lambda *given, **h: step(*given, **(h | {"betas": (0.01, 0.021)})), "Adam", betas=(0.01, 0.02))


# The regime ``special``.


def kept(name: str, value: float) -> Step:
    """A right step, whose slot or parameter keeps this value where it has become another."""

    def wrong(h: Any, t: int, w: Any, g: Any, *slots: Any) -> tuple[Any, ...]:
        new = dict(zip(("parameter", "m", "v"), right("Adam")(h, t, w, g, *slots), strict=True))
        new[name] = np.where(np.isfinite(new[name]), new[name], np.float32(value))
        return tuple(new.values())

    return wrong


@pytest.mark.parametrize(
    ("kind", "value"), [("nan", np.inf), ("infinity", -np.inf), ("infinity", np.nan), ("nan", 1.0)]
)
@pytest.mark.parametrize("name", ["m", "v"])
def test_a_nan_stays_a_nan_and_an_infinity_itself(kind, value, name):
    (case,) = matching(["Adam"], f"*/special/{kind}")
    verdict = judge_widening(Program(kept(name, value)).run(case), parse("Adam"), ("double",))
    assert verdict.word == "deviates"
    assert verdict.first is not None and verdict.first.quantity == name and verdict.first.excess == np.inf
    assert verdict.to_json()["worst"]["excess"] is None


def test_a_sign_of_zero_and_the_bits_of_a_nan_are_free():
    (zero,) = matching(["Adam"], "*/special/negative_zero")
    negative = Program(lambda *given: tuple(np.where(x == 0, np.float32(-0.0), x) for x in right("Adam")(*given)))
    assert word(negative, zero) == "conforms"
    (nan,) = matching(["Adam"], "*/special/nan")
    run = Program(right("Adam")).run(nan)
    bits = run.parameters.view(np.uint32)
    bits[np.isnan(run.parameters)] = 0xFFC12345
    assert judge_widening(run, parse("Adam"), ("double",)).word == "conforms"


def test_where_g_squared_overflows_nothing_follows():
    (case,) = matching(["Adam"], "*/special/overflow")
    for program in (Program(right("Adam")), Program(kept("v", 1.0))):
        verdict = judge_widening(program.run(case), parse("Adam"), ("double", "float32"))
        assert verdict.word == "unsupported"
        assert verdict.reason == "informative: a program that never squares g has a result where g² is infinite"


def test_a_maximum_may_lose_a_nan():
    (case,) = matching(["Adamax"], "*/special/nan")

    def step(h: Any, t: int, w: Any, g: Any, m: Any, v: Any) -> tuple[Any, ...]:
        m = h.betas[0] * m + (1 - h.betas[0]) * g
        v = np.fmax(h.betas[1] * v, np.abs(g))
        return w - h.learning_rate * m / (v + h.eps), m, v

    assert word(Program(step), case) == "conforms"
    report = check(open_backend("reference"), matching(["Adafactor"], "*/special/nan"))
    assert report.results[0].reason == "informative: a NaN may leave the parameter of a correct program"


def test_a_diagnosis_is_made_of_the_numbers_that_a_formula_has():
    """A program that also takes NaN for 0 still gets the name of its formula."""

    def step(h: Any, t: int, w: Any, g: Any, m: Any, v: Any) -> tuple[Any, ...]:
        g = np.nan_to_num(g)
        return right("Adam")(SimpleNamespace(**(vars(h) | {"betas": h.betas[::-1]})), t, w, g, m, v)

    report = check(Program(step), [*matching(["Adam"], "*/plain/*"), *special_of("Adam")])
    assert report.diagnoses["Adam"].formulas == ["Adam[betas=swapped]"]


# In a test of the user's own.


def my_adam(parameter, gradients, *, learning_rate, betas, eps, change=lambda g: g):
    rate = np.broadcast_to(np.float32(learning_rate), len(gradients))
    (b1, b2), w, rows = betas, parameter, []
    m = v = np.zeros_like(w)
    for t, g in enumerate(map(change, gradients)):
        m, v = b1 * m + (1 - b1) * g, b2 * v + (1 - b2) * g * g
        w = w - rate[t] * m / (np.sqrt(v) + np.float32(eps))
        rows.append(w)
    return np.stack(rows)


def test_assert_conforms_runs_them_without_a_warning():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert_conforms(my_adam, "Adam")


@pytest.mark.parametrize(
    ("change", "case"),
    [(np.nan_to_num, "adam/special/nan"), (lambda g: np.where(np.abs(g) < 2.0**-31, 0, g), "adam/small/defaults")],
)
def test_assert_conforms_sees_what_is_wrong_for_some_values_alone(change, case):
    with pytest.raises(AssertionError, match=case):
        assert_conforms(lambda *given, **h: my_adam(*given, **h, change=lambda g: np.float32(change(g))), "Adam")


def test_hyperparameters_that_are_given_run_with_the_values_as_well():
    small = lambda g: np.where(np.abs(g) < 2.0**-31, np.float32(0), g)  # noqa: E731
    with pytest.raises(AssertionError, match="adam/small/eps=1e-06"):
        assert_conforms(lambda *given, **h: my_adam(*given, **h, change=small), "Adam", eps=1e-6)
