"""The tests know every optimizer that there is, and no field of what they know falls back without a word."""

from __future__ import annotations

import dataclasses
import inspect

import mlx_optimizers
from mlx_optimizers.catalog import CATALOG
from tests.expected import EIGHT, EXPECTED, LATER, NAMES, WHOLE, Expected, each_name


def test_the_records_are_keyed_as_the_catalog_is():
    assert tuple(entry.name for entry in CATALOG) == (*NAMES, *WHOLE)
    assert tuple(optimizer.__name__ for optimizer in mlx_optimizers.OPTIMIZERS) == EIGHT
    assert tuple(optimizer.__name__ for optimizer in mlx_optimizers.LATER) == (*LATER, *WHOLE)


def test_every_field_is_required():
    fields = dataclasses.fields(Expected)
    assert all(field.default is field.default_factory is dataclasses.MISSING for field in fields)


@each_name
def test_a_record_fits_the_signature_that_it_states(name):
    expected = EXPECTED[name]
    arguments = list(inspect.signature(getattr(mlx_optimizers, name)).parameters)
    assert list(expected.ranges) == arguments
    settings = (expected.full, expected.training, *expected.settings, *expected.bitwise, *expected.switched)
    assert all(set(setting) <= set(arguments) for setting in settings)
    assert set(expected.scaled) <= {"w", "g", *arguments}
    assert set(expected.scales) == {"w", *expected.slots}
    assert expected.odd <= {"w", *expected.slots} and expected.idle <= set(expected.slots)
    assert set(expected.infinity) <= {"parameter", *expected.slots}
    assert set(expected.claims) == {"torch", "optax", "keras"}
    assert expected.by_hand and expected.labels and bool(expected.bitwise) == (name in EIGHT)
