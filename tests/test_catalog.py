"""The catalog has one entry an optimizer, and no field that falls back without a word."""

from __future__ import annotations

import dataclasses
import inspect
import math
from pathlib import Path

import pytest

from mlx_optimizers import LATER, OPTIMIZERS, catalog
from mlx_optimizers.backends import BACKENDS, claim_of, counterpart
from mlx_optimizers.catalog import CATALOG, Axis, Entry, entry_of
from mlx_optimizers.conformance import Unsupported
from mlx_optimizers.conformance.cases import ELEMENTS, REGIMES, VALUES, cases_of
from mlx_optimizers.elementwise import Elementwise
from mlx_optimizers.oracle.formulas import AXES, axes_of, parse
from tests.expected import CLASSES

ENTRIES = pytest.mark.parametrize("entry", CATALOG, ids=lambda entry: entry.name)
LIBRARIES = {"torch", "optax", "keras"}


def test_the_entries_are_the_optimizers_in_the_order_of_the_table():
    assert tuple(entry.optimizer for entry in CATALOG) == (*OPTIMIZERS, *LATER)
    assert tuple(entry.optimizer for entry in CATALOG if issubclass(entry.optimizer, Elementwise)) == CLASSES
    with pytest.raises(KeyError, match="Shampoo"):
        entry_of("Shampoo")


def test_every_entry_has_a_file_of_its_own_and_every_file_an_entry():
    files = {path.stem for path in Path(catalog.__file__).parent.glob("*.py")} - {"__init__", "axes", "entry"}
    assert files == {entry.name.lower() for entry in CATALOG}


def test_every_field_is_required():
    fields = dataclasses.fields(Entry)
    assert {field.name for field in fields} == set(inspect.signature(Entry).parameters)
    assert all(field.default is field.default_factory is dataclasses.MISSING for field in fields)


@ENTRIES
def test_what_an_entry_says_fits_its_optimizer(entry):
    known = set(inspect.signature(entry.optimizer).parameters)
    assert all(set(setting) <= known for setting in entry.settings)
    assert set(entry.regimes) <= set(REGIMES) and {"plain", "tiny", "wide", "zeros"} <= set(entry.regimes)
    assert entry.undecided <= {"parameter", *entry.optimizer.slots}
    assert all(set(setting) <= known and regime in entry.regimes for regime, setting in entry.rare)
    assert set(entry.means) <= known
    assert len(cases_of(entry.name)) == len(entry.regimes) * (1 + len(entry.settings)) + len(VALUES) + len(entry.rare)
    assert (entry.rate is None or entry.rate > 0) and (entry.plot.rate is None or entry.plot.rate > 0)
    assert entry.depth >= 2 and math.prod(entry.shape) == ELEMENTS
    low, high = entry.tiny((1e-8, 1e-3) if entry.name == "Adafactor" else 1e-8)
    assert 0 < low < high
    assert set(entry.elsewhere) <= LIBRARIES <= set(BACKENDS)
    for library, found in entry.elsewhere.items():
        assert parse(found.claim).optimizer is entry_of(entry.family).optimizer, library
        lacking = {"exp_avg"} if library in ("torch", "keras") else set()
        assert set(found.slots.values()) == {*entry.optimizer.slots} - lacking, library


@ENTRIES
def test_each_axis_has_a_default_and_says_what_its_other_values_mean(entry):
    names = [axis.name for axis in entry.axes]
    assert len(set(names)) == len(names) and "ignored" in names
    assert axes_of(entry.family) == {axis.name: axis.values for axis in sorted(entry.axes, key=lambda axis: axis.name)}
    for axis in entry.axes:
        assert len(set(axis.values)) == len(axis.values) > 1
        if axis.name not in ("ignored", "scaled", "replaced"):
            assert set(axis.values[1:]) <= set(axis.meaning)


def test_one_value_means_the_same_for_all_that_have_it():
    for of_all in AXES:
        for entry in CATALOG:
            for axis in entry.axes:
                if axis.name == of_all.name:
                    assert all(of_all.meaning[value] is meant for value, meant in axis.meaning.items())


def test_an_axis_of_its_own_needs_nothing_else():
    assert Axis("own", ("no", "yes"), {}).needs({"own": "yes"}) is None


def test_a_library_without_an_optimizer_claims_the_page_and_supports_nothing():
    assert claim_of("torch", "Lion") == "Lion"
    assert claim_of("torch", "SGD") == "SGD[dampening=not_first]"
    with pytest.raises(Unsupported, match=r"^torch\.optim has no Lion$"):
        counterpart("torch", "Lion")
