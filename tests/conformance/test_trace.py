"""The trace: every number on it, checked against the float32 run by hand and the oracle."""

from __future__ import annotations

import struct

import numpy as np
import pytest

import mlx_optimizers as optim
from mlx_optimizers.conformance.case import default_rate
from mlx_optimizers.conformance.trace import trace
from mlx_optimizers.oracle import trajectory
from tests.expected import each_class


def _rows(text):
    """Per step, the row of each letter: float32 value, bits, exact, from, to."""
    steps = text.split("\nstep ")[1:]
    return [{line.split()[0]: line.split()[1:] for line in step.rstrip().split("\n")[2:]} for step in steps]


def test_a_trace_by_hand():
    """Adam with halves and quarters: m = g/2, v = g²/4, w = −½·1/(1 + 1)."""
    text = trace(optim.Adam, 0.0, [2.0], {"learning_rate": 0.5, "betas": (0.5, 0.75), "eps": 1.0})
    lines = text.split("\n")
    assert lines[0] == "Adam(learning_rate=0.5, betas=(0.5, 0.75), eps=1.0), float32, w = 0.0"
    assert lines[1:3] == ["", "step 1, g = 2.0"]
    assert lines[3].split() == ["float32", "bits", "exact", "from", "to"]
    ((w, m, v),) = [tuple(row.values()) for row in _rows(text)]
    assert w[:3] == ["-0.25", "be800000", "-0.25"]
    assert m[:3] == ["1.0", "3f800000", "1"]
    assert v[:3] == ["1.0", "3f800000", "1"]


@each_class
def test_every_number_of_a_trace(made):
    w, g, rates = 0.75, [-1.0, 1e-8, 0.0], [0.1, 0.1, 0.05]
    text = trace(made, w, g, {"learning_rate": rates})
    optimizer, model = made(0.1), {"w": np.float32([w])}
    entries = trajectory(made, [w], [[x] for x in g], learning_rate=rates)
    rows = _rows(text)
    assert len(rows) == 3
    for row, entry, gradient, rate in zip(rows, entries, g, rates, strict=True):
        optimizer.learning_rate = rate
        optimizer.update(model, {"w": np.float32([gradient])})
        assert list(row) == ["w", *made.slots]
        for (name, quantity), (value, bits, exact, low, high) in zip(entry.quantities(), row.values(), strict=True):
            got = (model["w"] if name == "parameter" else optimizer.state["w"][name])[0]
            assert np.float32(value) == got
            assert bits == struct.pack(">f", got).hex()
            assert float(exact) == pytest.approx(float(quantity.exact[0]), rel=1e-15)  # 16 digits are printed
            assert (np.float32(low), np.float32(high)) == (quantity.low[0], quantity.high[0])
            assert np.float32(low) <= got <= np.float32(high)


@each_class
@pytest.mark.parametrize("gradients", [[-1.0, 1e-8, 0.0], [1e-38, -3e38, 1e-45], [float("nan"), 1.0]])
@pytest.mark.parametrize("w", [0.0, -3.3333333e-9])
def test_no_line_is_wider_than_80_columns(made, gradients, w):
    rates = [0.1, 0.0123456789012345, 1e-3][: len(gradients)]
    for line in trace(made, w, gradients, {"learning_rate": rates}).split("\n"):
        assert len(line) <= 80, line


def test_the_learning_rate_of_a_step_stands_beside_it_where_it_changes():
    changing = trace(optim.SGD, 0.0, [1.0, 1.0], {"learning_rate": [0.5, 0.25]})
    assert "step 1, g = 1.0, learning rate 0.5\n" in changing
    assert "step 2, g = 1.0, learning rate 0.25\n" in changing
    assert [row["w"][0] for row in _rows(changing)] == ["-0.5", "-0.75"]
    assert "learning rate" not in trace(optim.SGD, 0.0, [1.0], {"learning_rate": 0.5})


def test_overflow_shows_as_what_it_is_and_the_interval_as_open():
    (row,) = _rows(trace(optim.RMSprop, 1.0, [1e30], {"learning_rate": 0.5}))
    assert row["v"][0] == "inf" and row["v"][1] == "7f800000" and row["v"][3:] == ["-inf", "inf"]
    assert float(row["v"][2]) == pytest.approx(1e58, rel=2.0**-22)  # of the float32 nearest to 1e30, squared
    assert row["w"][0] == "1.0" and row["w"][3:] == ["-inf", "inf"]


@pytest.mark.parametrize(("w", "g"), [(0.0, 1e39), (1e300, 1.0)])
def test_numbers_beyond_float32_are_infinities_without_a_warning(w, g):
    text = trace(optim.SGD, w, [g], {"learning_rate": 0.5})
    assert f"float32, w = {'inf' if w else '0.0'}\n" in text
    assert f"step 1, g = {'inf' if g > 1 else '1.0'}\n" in text
    assert _rows(text)[0]["w"][0] == ("inf" if w else "-inf")


def test_float32_scalars_give_a_wider_interval():
    given = {"learning_rate": 0.1}
    double, single = (_rows(trace(optim.Adam, 0.0, [1.0], given, scalars))[0] for scalars in ("double", "float32"))
    assert double["v"][:3] == single["v"][:3]
    assert float(single["v"][3]) < float(double["v"][3]) < float(double["v"][4]) < float(single["v"][4])


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"learning_rate": -1.0}, "learning_rate must be at least 0"),
        ({"learning_rate": 0.1, "eps": -1.0}, "eps must be at least 0"),
        ({"learning_rate": [0.1, 0.2]}, "2 entries for 1 steps"),
    ],
)
def test_bad_hyperparameters(given, message):
    with pytest.raises(ValueError, match=message):
        trace(optim.Adam, 0.0, [1.0], given)
    with pytest.raises(TypeError, match="Adam has no hyperparameter rho"):
        trace(optim.Adam, 0.0, [1.0], {"learning_rate": default_rate("Adam"), "rho": 0.5})
