"""Wrong programs from public reports are named, or none is named that they do not compute."""

from __future__ import annotations

import pytest

from mlx_optimizers.conformance import cases_of, check
from tests.programs import Program
from tests.reported import PROGRAMS

pytestmark = pytest.mark.usefixtures("remembered", "mpfr")


class Made(Program):
    """A program that makes its step anew for each case."""

    def run(self, case):
        return Program(self.step(), state=False).run(case)


def found(reported):
    program = (Made if reported.make else Program)(reported.step, reported.claim or reported.optimizer, state=False)
    report = check(program, cases_of(reported.optimizer))
    assert report.counts()["deviates"] > 0
    return report.diagnoses[reported.optimizer].formulas


def of_name(reported):
    return reported.name


def test_each_is_from_another_thread():
    assert len({reported.source for reported in PROGRAMS}) == len(PROGRAMS) == 79
    assert all(reported.source.startswith("https://") for reported in PROGRAMS)


@pytest.mark.parametrize("reported", [each for each in PROGRAMS if each.formula], ids=of_name)
def test_what_has_a_name_is_given_it(reported):
    assert found(reported)[0] == reported.formula


@pytest.mark.slow
@pytest.mark.parametrize("reported", [each for each in PROGRAMS if not each.formula], ids=of_name)
def test_what_has_none_is_given_none(reported):
    assert found(reported) == []
