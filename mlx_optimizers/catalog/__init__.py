"""The catalog: one entry an optimizer, with all that is said of it outside its module."""

from mlx_optimizers.catalog import (
    adadelta,
    adafactor,
    adagrad,
    adam,
    adamax,
    adamw,
    biascorrectedadam,
    biascorrectedadamw,
    lion,
    muon,
    rmsprop,
    sgd,
)
from mlx_optimizers.catalog.entry import Axis, Choice, Elsewhere, Entry, Event, Plot, Value

__all__ = ["CATALOG", "Axis", "Choice", "Elsewhere", "Entry", "Event", "Plot", "Value", "entry_of"]

CATALOG: tuple[Entry, ...] = (
    sgd.ENTRY,
    rmsprop.ENTRY,
    adagrad.ENTRY,
    adadelta.ENTRY,
    adam.ENTRY,
    adamw.ENTRY,
    adamax.ENTRY,
    lion.ENTRY,
    biascorrectedadam.ENTRY,
    biascorrectedadamw.ENTRY,
    adafactor.ENTRY,
    muon.ENTRY,
)
"""The entries, in the order of the tables."""

_BY_NAME = {entry.name: entry for entry in CATALOG}


def entry_of(name: str) -> Entry:
    """Look up the entry of an optimizer by name.

    Raises:
        KeyError: where there is none.
    """
    return _BY_NAME[name]
