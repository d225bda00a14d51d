"""A grid is cut into boxes: each cell lies in one, and its number does not depend on the cut."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from dgmm.data.blocks import Block
from dgmm.data.boxes import Boxes

grids = st.lists(st.tuples(st.integers(1, 7), st.integers(1, 9)), min_size=1, max_size=4)


@given(grids)
def test_boxes_tile_the_grid(sizes):
    grid, _ = zip(*sizes, strict=True)
    boxes = Boxes(grid, tuple(min(pair) for pair in sizes))
    numbers = np.arange(np.prod(grid)).reshape(grid)
    seen = np.zeros(grid, int)
    assert len(boxes.bounds) == len(boxes) + 1
    for i in range(len(boxes)):
        box = boxes[i]
        seen[box.slices] += 1
        cells = np.prod(box.shape)
        assert boxes.bounds[i + 1] - boxes.bounds[i] == cells
        assert boxes.at(boxes.bounds[i]) == boxes.at(boxes.bounds[i + 1] - 1) == i
        np.testing.assert_array_equal(box.row_numbers(np.arange(cells)), numbers[box.slices].ravel())
    assert (seen == 1).all()
    assert boxes.bounds[-1] == numbers.size


@given(grids, st.integers(1, 64), st.integers(1, 5000))
def test_boxes_are_whole_chunks_within_the_limit(sizes, cell_bytes, box_bytes):
    grid, chunks = zip(*sizes, strict=True)
    boxes = Boxes.of_chunks(grid, chunks, cell_bytes, box_bytes)
    for step, chunk, n in zip(boxes.steps, chunks, grid, strict=True):
        assert step % chunk == 0 or step == n
    one_chunk = np.prod([min(c, n) for c, n in zip(chunks, grid, strict=True)])
    assert np.prod(boxes.steps) * cell_bytes <= max(box_bytes, one_chunk * cell_bytes)


@given(st.data())
def test_what_is_left_out_of_a_block_comes_back_where_it_was(data):
    n, d = data.draw(st.integers(1, 30)), data.draw(st.integers(1, 4))
    rows = np.arange(n * d, dtype=float).reshape(n, d)
    for at in data.draw(st.lists(st.tuples(st.integers(0, n - 1), st.integers(0, d - 1)))):
        rows[at] = np.nan
    gone = np.isnan(rows).any(axis=1)
    for order in "CF":
        block = Block.of(100, np.asarray(rows, order=order), "drop")
        np.testing.assert_array_equal(block.rows, rows[~gone])
        assert (block.first, block.length) == (100, n)
        np.testing.assert_array_equal(block.row_numbers(), 100 + np.flatnonzero(~gone))
        whole = block.with_left_out(block.rows[:, 0], -1)
        np.testing.assert_array_equal(whole, np.where(gone, -1, rows[:, 0]))
        np.testing.assert_array_equal(block.of_kept(rows), rows[~gone])
        kept = Block.of(100, rows, "error")
        assert kept.rows is rows
        assert kept.kept is None
