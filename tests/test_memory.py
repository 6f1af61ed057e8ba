"""Which arrays share memory."""

from __future__ import annotations

from operator import mul

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.lib.stride_tricks import as_strided

from mlx_optimizers import memory


def test_overlapping_names_the_two_arrays_in_their_order():
    base = np.zeros(20, np.float32)
    for arrays, pair in (
        ([base[:5], base[5:]], None),
        ([base[:6], base[5:]], (0, 1)),
        ([base[10:], base[:4], base[3:11]], (1, 2)),
        ([base[::2], base[1::2]], None),  # side by side
        ([base[::2], base[1::2], base[4:6]], (0, 2)),
        ([base[:0], base[:0], base], None),
        ([base, base[:0]], None),
        ([base, base], (0, 1)),
        ([base[::-1], base[19:]], (0, 1)),
        ([base, np.zeros(20, np.float32)], None),
        ([], None),
    ):
        assert memory.overlapping(arrays) == pair


slices = st.tuples(st.integers(0, 19), st.integers(0, 20), st.integers(1, 4))


@given(st.lists(slices, min_size=2, max_size=6))
def test_overlapping_and_shares_agree_with_numpy_on_views_of_one_array(cuts):
    base = np.zeros(20, np.float32)
    arrays = [base[a:b:step] for a, b, step in cuts]
    pairs = {
        (i, j)
        for i in range(len(arrays))
        for j in range(i + 1, len(arrays))
        if {*range(*slice(*cuts[i]).indices(20))} & {*range(*slice(*cuts[j]).indices(20))}
    }
    found = memory.overlapping(arrays)
    assert found in pairs if pairs else found is None
    # By the bounds of memory: never a no where there is a common element.
    last = len(arrays) - 1
    if any(last in pair for pair in pairs):
        assert memory.shares(arrays[:-1])(arrays[-1])


BUFFER = np.zeros(4096, np.uint8)


@st.composite
def views(draw, step):
    """Draw a view of the buffer and the set of its bytes; the strides are multiples of the step."""
    dtype = np.dtype(draw(st.sampled_from([np.float16, np.float32, np.float64])))
    axes = draw(st.lists(st.tuples(st.integers(0, 4), st.integers(-3, 3)), max_size=3))
    shape = [length for length, _ in axes]
    strides = [times * step for _, times in axes]
    offset = 2048 + draw(st.integers(-60, 60))
    array = np.ndarray(shape, dtype, BUFFER, offset, strides)
    starts = {offset + sum(map(mul, at, strides)) for at in np.ndindex(*shape)}
    return array, {start + byte for start in starts for byte in range(dtype.itemsize)}


@settings(max_examples=500)
@given(st.data())
def test_overlapping_agrees_with_sets_of_bytes(data):
    steps = data.draw(st.lists(st.integers(1, 40), min_size=1, max_size=2))
    drawn = data.draw(st.lists(st.sampled_from(steps).flatmap(views), max_size=6))
    pairs = {
        (i, j) for i in range(len(drawn)) for j in range(i + 1, len(drawn)) if not drawn[i][1].isdisjoint(drawn[j][1])
    }
    found = memory.overlapping([array for array, _ in drawn])
    assert found in pairs if pairs else found is None


@given(st.data())
def test_overlapping_finds_the_one_pair_among_columns(data):
    base = np.zeros((5, 30), np.float32)
    columns = data.draw(st.permutations([base[:, i] for i in range(30)]))
    assert memory.overlapping(columns) is None
    again = data.draw(st.integers(0, 29))
    part = columns[again][:: data.draw(st.sampled_from([-1, 1, 2, 3]))]
    assert memory.overlapping([*columns, part]) == (again, 30)


def test_overlapping_joins_residues_around_the_end_of_the_step():
    buffer = np.zeros(2048, np.uint8)
    for offset in range(96):  # at some offset the shared bytes lie across a multiple of the step
        one = np.ndarray((4,), np.float64, buffer, offset, (96,))
        two = np.ndarray((4,), np.float32, buffer, offset + 6, (96,))
        three = np.ndarray((4,), np.float32, buffer, offset + 40, (96,))
        assert memory.overlapping([three, two, one]) == (1, 2)
        assert memory.overlapping([three, two]) is None


@pytest.fixture
def calls(monkeypatch):
    """List the calls of np.shares_memory."""
    made = []
    real = np.shares_memory

    def counted(*args, **kwargs):
        made.append(kwargs)
        return real(*args, **kwargs)

    monkeypatch.setattr(np, "shares_memory", counted)
    return made


def test_overlapping_compares_few_pairs_of_interleaved_arrays(calls):
    base = np.zeros((8, 4000), np.float32)
    columns = [base[:, i] for i in range(4000)]
    for arrays in (columns, [part for column in columns for part in (column[:3], column[3:][::-1])]):
        assert memory.overlapping(arrays) is None
        assert len(calls) <= 4000
        calls.clear()
    assert memory.overlapping([*columns, base[2, 7:8]]) == (7, 4000)
    assert len(calls) <= 4000


def test_overlapping_takes_what_is_too_hard_to_tell_for_shared(calls):
    base = np.zeros(192163377, np.int8)  # NumPy's example of a search that takes a minute
    one = as_strided(base, strides=(36674, 61119, 85569), shape=(1049, 1049, 1049))
    two = as_strided(base[64023025:], strides=(12223, 12224, 1), shape=(1049, 1049, 1))
    assert memory.overlapping([two, one]) == (0, 1)
    (call,) = calls
    with pytest.raises(np.exceptions.TooHardError):
        np.shares_memory(one, two, **call)


def test_shares_tells_apart_memory_that_only_touches():
    base = np.zeros(20, np.float32)
    test = memory.shares([base[2:5], base[10:12], base[4:6]])
    for start, end, expected in ((0, 2, False), (6, 10, False), (12, 20, False), (5, 7, True), (1, 3, True)):
        assert test(base[start:end]) == expected
    assert not test(base[3:3])
    assert not test(np.zeros(3, np.float32))
    assert not memory.shares([])(base)
    assert not memory.shares([base[:0]])(base)


@given(st.data())
def test_overlaps_itself_agrees_with_sets_of_bytes(data):
    shape = tuple(data.draw(st.lists(st.integers(0, 4), max_size=3), "shape"))
    strides = tuple(data.draw(st.integers(-24, 24), "stride") for _ in shape)
    array = as_strided(np.zeros(400, np.float32)[200:], shape, strides)
    starts = [sum(map(mul, index, strides)) for index in np.ndindex(*shape)]
    covered = {start + byte for start in starts for byte in range(4)}
    assert memory.overlaps_itself(array) == (len(covered) < 4 * len(starts))
