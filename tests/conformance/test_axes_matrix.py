"""The cases tell apart every two formulas that differ in one axis, by the parameter alone and under any rounding."""

from __future__ import annotations

from itertools import combinations

import pytest

from mlx_optimizers.conformance import cases_of, matching
from mlx_optimizers.conformance.verdict import is_decidable
from mlx_optimizers.oracle.constants import KINDS
from mlx_optimizers.oracle.formulas import axes_of, name_of, parse, split, variants
from tests.conformance.intervals import apart, passes_as
from tests.expected import EIGHT, EXPECTED, FORMULAS
from tests.support import require

BASES = [*FORMULAS, *(name for expected in EXPECTED.values() for name in expected.corrected)]
"""The axes are varied around these: the pages, the formulas that backends claim, and the other corrected ones."""

_AT_THE_START = "Adagrad[eps=inside_sqrt,ignored=eps:{},initial=0.1]"
LOST_IN_ROUNDING = {
    "Adagrad[eps=inside_sqrt,initial=0.1]": {
        tuple(_AT_THE_START.format(eps) for eps in pair) for pair in combinations(("1e-07", "1e-08", "1e-10"), 2)
    }
}
"""λg/√(v + ε) with v ≥ 0.1: two ε of at most 1e-7 change it by at most 5e-7 of it, 8.4 · 2⁻²⁴. The roundings of 0.1, v,
v + ε (half of each, under the root), √, λ, λg and ÷ let a correct program be off by 1.5 · 5.5 · 2⁻²⁴ either way."""


def formulas_along(base: str, axis: str) -> list[str]:
    """Give one axis of the base every value that means something with the others."""
    optimizer, choice = split(base)
    default = axes_of(optimizer)[axis][0]
    out = []
    for value in axes_of(optimizer)[axis]:
        changed = {key: chosen for key, chosen in {**choice, axis: value}.items() if (key, chosen) != (axis, default)}
        try:
            out.append(parse(name_of(optimizer, changed)).name)
        except ValueError:
            continue
    return out


@pytest.mark.norm("interval.claim", "interval.told-apart")
@pytest.mark.parametrize("base", BASES)
def test_no_program_passes_for_two_formulas_that_differ_in_one_axis(base):
    optimizer, _ = split(base)
    pairs = {tuple(sorted(pair)) for axis in axes_of(optimizer) for pair in combinations(formulas_along(base, axis), 2)}
    assert len(pairs) > 15
    left = {pair for pair in pairs if not any(apart(*pair, case) for case in cases_of(optimizer))}
    assert left == LOST_IN_ROUNDING.get(base, set())


LOST_IN_DTYPE = {
    "float16": (set(), set()),
    "bfloat16": (
        {"AdaDelta[gradients=nonzero]", "AdamW[weight_decay=first_rate]"},
        {"AdamW[weight_decay=after]", "Adamax[eps=inside_max]", "Lion[weight_decay=after]"},
    ),
    "float64": (set(), set()),
}
"""What a dtype cannot tell from the page: the exact values of the first are accepted in every case, and some program of
the second might be."""


@pytest.mark.norm("interval.told-apart")
@pytest.mark.parametrize("dtype", LOST_IN_DTYPE)
def test_other_dtypes_tell_the_variations_of_one_axis_from_the_page_by_the_parameter_alone(dtype):
    if dtype == "bfloat16":
        require("ml_dtypes")
    found, accepted, overlapping = 0, set(), set()
    for optimizer in EIGHT:
        cases = matching([optimizer], None, [dtype])
        for formula in variants(optimizer, 1):
            if {*KINDS} & {*split(formula.name)[1]} or not is_decidable(formula):
                continue
            found += 1
            if all(passes_as(formula.name, optimizer, case) for case in cases):
                accepted.add(formula.name)
            elif not any(apart(optimizer, formula.name, case) for case in cases):
                overlapping.add(formula.name)
    assert found == 146
    assert (accepted, overlapping) == LOST_IN_DTYPE[dtype]


def test_what_is_lost_in_rounding_is_lost_wherever_the_accumulator_starts_at_a_tenth():
    """The same ε are told apart where the accumulator starts at zero, so the cases do look at ε that small."""
    for pairs in LOST_IN_ROUNDING.values():
        for pair in pairs:
            from_zero = [name.replace(",initial=0.1", "") for name in pair]
            assert any(apart(*from_zero, case) for case in cases_of("Adagrad"))


def test_a_formula_passes_as_itself_and_is_not_apart_from_itself():
    for base in BASES:
        case = cases_of(split(base)[0])[0]
        assert passes_as(base, base, case)
        assert not apart(base, base, case)
