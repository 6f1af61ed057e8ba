"""Blocks: every element is visited once, in views that are small enough, with scratch of the same shape."""

from __future__ import annotations

import numpy as np
import pytest

from mlx_optimizers.blocks import BLOCK, blocks

SHAPES = [(), (1,), (7,), (20,), (3, 4), (1, 30), (30, 1), (2, 3, 5), (5, 0, 3), (0,), (9, 1, 4), (2, 11)]


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("size", [1, 4, 10, 1000])
@pytest.mark.parametrize("order", ["C", "F", "strided"])
def test_every_element_is_visited_once_in_all_arrays_together(monkeypatch, shape, size, order):
    monkeypatch.setattr("mlx_optimizers.blocks.BLOCK", size)
    count = int(np.prod(shape))
    if order == "strided" and shape:
        x = np.zeros((*shape, 2), np.float32)[..., 0]
    else:
        x = np.zeros(shape, np.float32, order="C" if order == "strided" else order)
    names = np.arange(count, dtype=np.float64).reshape(shape)  # C-contiguous beside one that may not be
    seen = []
    for part, name, a, b in blocks(x, names, scratch=2):
        assert part.shape == name.shape == a.shape == b.shape
        assert part.size <= size
        assert np.shares_memory(part, x) or part.size == 0
        assert a.dtype == b.dtype == np.float32
        assert not np.shares_memory(a, b)
        part += 1
        a[...] = b[...] = 3
        seen += name.ravel().tolist()
    assert sorted(seen) == list(range(count))
    assert (x == 1).all()


def test_contiguous_arrays_are_gone_through_flat_in_whole_blocks():
    x = np.zeros((3, BLOCK, 2), np.float32)
    assert [part.shape for (part,) in blocks(x)] == [(BLOCK,)] * 6
    assert [part.shape for (part,) in blocks(np.zeros(BLOCK + 1, np.float32))] == [(BLOCK,), (1,)]
    assert [part.shape for (part,) in blocks(np.zeros((), np.float32))] == [(1,)]


def test_others_are_cut_along_the_leading_dimensions():
    x = np.zeros((4, BLOCK // 2), np.float32, order="F")
    assert [part.shape for (part,) in blocks(x)] == [(2, BLOCK // 2)] * 2
    wide = np.zeros((2, BLOCK + 3), np.float32, order="F")
    sizes = [part.shape for (part,) in blocks(wide)]
    assert sizes == [(1, BLOCK), (1, 3)] * 2


def test_scratch_is_no_larger_than_a_block_or_the_array():
    (_, small) = next(blocks(np.zeros(5, np.float32), scratch=1))
    assert small.base.size == 5
    (_, large) = next(blocks(np.zeros(3 * BLOCK, np.float16), scratch=1))
    assert (large.base.size, large.dtype) == (BLOCK, np.float16)


def test_five_blocks_of_float32_fit_into_a_second_level_cache():
    assert 5 * 4 * BLOCK <= 512 * 1024
