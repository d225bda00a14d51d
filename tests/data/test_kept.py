"""What a process keeps of blocks: within its bounds, the same arrays, until their owner is done."""

from __future__ import annotations

import pickle
import threading
from dataclasses import replace
from pathlib import Path

import numpy as np
import psutil
import pytest
import zarr

import dgmm.data.kept
import dgmm.data.zarr_array
from dgmm.data.blocks import StoredBlocks, iter_blocks
from dgmm.data.kept import KEPT, Keep, KeptBlocks
from dgmm.data.opening import open_source, open_weights
from dgmm.data.source import Block, Source
from dgmm.errors import MissingChunks

D, CHUNK, N = 3, 100, 1_000
BLOCK = CHUNK * D * 8
ROWS = np.random.default_rng(5).normal(size=(N, D))
NO_CEILING = psutil.virtual_memory().total
KEEP = Keep("me", "rows", N * D * 8, NO_CEILING)


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch):
    monkeypatch.setattr(dgmm.data.zarr_array, "BLOCK_BYTES", 1)
    yield
    KEPT.drop("me")
    KEPT._done.clear()


@pytest.fixture
def source(tmp_path) -> Source:
    zarr.create_array(tmp_path / "x", data=ROWS, chunks=(CHUNK, D))
    return open_source(tmp_path / "x")


def block(first: int, n: int = CHUNK) -> Block:
    return Block.of(first, np.full((n, D), float(first)))


def values(blocks: StoredBlocks) -> bytes:
    return np.concatenate([block.rows for block in iter_blocks(blocks)]).tobytes()


def delete_chunks(source: Source, *numbers: int) -> None:
    for number in numbers:
        Path(source.name, "c", str(number), "0").unlink()


def test_what_is_kept_is_not_read_again(source):
    stored = StoredBlocks(source, KEEP)
    assert values(stored) == ROWS.tobytes()
    delete_chunks(source, *range(10))
    assert values(pickle.loads(pickle.dumps(stored))) == ROWS.tobytes()
    assert stored.kept_rows() == [(0, N)]
    found = KEPT.find(KEEP, range(0, N, CHUNK))
    assert all(block.rows is kept.rows for block, kept in zip(stored, found, strict=True))  # no copies


def test_of_what_is_kept_in_part_the_rest_is_read(source):
    values(StoredBlocks(source.rows(source.bounds[2:4]), KEEP))
    values(StoredBlocks(source.rows(source.bounds[6:8]), KEEP))
    delete_chunks(source, 2, 6)
    whole = StoredBlocks(source, KEEP)
    assert whole.kept_rows() == [(200, 300), (600, 700)]
    assert values(whole) == ROWS.tobytes()
    assert whole.kept_rows() == [(0, N)]


def test_a_full_memory_keeps_what_it_has(source):
    keep = replace(KEEP, most=3 * BLOCK + 1)
    stored = StoredBlocks(source, keep)
    for _ in range(3):
        assert values(stored) == ROWS.tobytes()
        assert stored.kept_rows() == [(0, 300)]
        assert KEPT.n_bytes == 3 * BLOCK


def test_without_keeping_all_is_read(source):
    values(StoredBlocks(source, KEEP))
    delete_chunks(source, 4)
    with pytest.raises(MissingChunks, match="c/4/0"):
        values(StoredBlocks(source))
    with pytest.raises(MissingChunks, match="c/4/0"):
        values(StoredBlocks(source, replace(KEEP, data="rows that have changed")))


def test_rows_left_out_are_kept_left_out(tmp_path):
    rows = ROWS.copy()
    rows[::7, 1] = np.nan
    zarr.create_array(tmp_path / "holes", data=rows, chunks=(CHUNK, D))
    stored = StoredBlocks(open_source(tmp_path / "holes", missing="drop"), replace(KEEP, most=2 * N * D * 8))
    first, again = list(stored), list(stored)
    assert KEPT.n_bytes == sum(block.rows.nbytes + block.kept.nbytes for block in first)
    for one, other in zip(first, again, strict=True):
        np.testing.assert_array_equal(one.row_numbers(), other.row_numbers())
        np.testing.assert_array_equal(one.rows, other.rows)


def test_a_part_of_a_chunk_keeps_no_more_than_itself(source, tmp_path):
    """Weights have the blocks of the rows, whatever their own chunks."""
    zarr.create_array(tmp_path / "w", data=np.arange(float(N)), chunks=(N,))
    weights = open_weights(tmp_path / "w", source)
    keep = replace(KEEP, most=2 * CHUNK * 8)
    given = values(StoredBlocks(weights, keep))
    assert given == np.arange(float(N)).tobytes()
    for kept in KEPT.find(keep, (0, CHUNK)):
        assert kept.rows.base is None
        assert kept.rows.nbytes == CHUNK * 8
    assert KEPT.n_bytes == 2 * CHUNK * 8


def test_owners_share_the_bound():
    kept, two = KeptBlocks(), 2 * BLOCK
    first, second = Keep("one", "x", two, NO_CEILING), Keep("two", "x", two, NO_CEILING)
    kept.add(first, block(0))
    kept.add(second, block(0))
    kept.add(first, block(CHUNK))
    assert [found is not None for found in kept.find(first, (0, CHUNK))] == [True, False]
    kept.drop("two")
    assert kept._timer is not None
    kept.add(first, block(CHUNK))
    assert kept.find(first, (CHUNK,)) != [None]
    assert kept.find(second, (0,)) == [None]
    assert kept.n_bytes == two
    kept.drop("one")
    kept.drop("one")
    kept.add(first, block(0))  # a leaf that still runs
    assert kept.n_bytes == 0
    assert kept._timer is None


def test_threads_do_not_exceed_the_bound():
    kept, keep = KeptBlocks(), replace(KEEP, most=40 * BLOCK)
    start = threading.Barrier(8)

    def add(thread: int) -> None:
        start.wait()
        for number in range(100):  # every block is added by two threads
            kept.add(keep, block((thread // 2 * 100 + number) * CHUNK))
            assert kept.n_bytes <= 40 * BLOCK

    threads = [threading.Thread(target=add, args=(thread,)) for thread in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    found = [block for block in kept.find(keep, range(0, 400 * CHUNK, CHUNK)) if block is not None]
    assert len(found) == 40
    assert kept.n_bytes == sum(block.rows.nbytes for block in found)
    for one in found:
        np.testing.assert_array_equal(one.rows, one.first)


def test_memory_that_others_fill_is_not_taken(monkeypatch):
    """Of the process, whatever it holds besides, and of the machine."""
    kept = KeptBlocks()
    resident = psutil.Process().memory_info().rss
    for ceiling in (resident // 2, 0):
        kept.add(replace(KEEP, ceiling=ceiling), block(0))
        assert kept.n_bytes == 0
    monkeypatch.setattr(dgmm.data.kept, "_LEFT_ALONE", 1.0)
    kept.add(KEEP, block(0))
    assert kept.n_bytes == 0
    monkeypatch.setattr(dgmm.data.kept, "_LEFT_ALONE", 0.0)
    kept.add(KEEP, block(0))
    assert kept.n_bytes == BLOCK


def test_what_a_killed_driver_left_is_dropped():
    kept, other = KeptBlocks(), replace(KEEP, owner="other")
    now = [100.0]
    kept._clock = lambda: now[0]
    kept.add(KEEP, block(0))
    kept.add(other, block(0))
    now[0] = 650.0
    assert kept.find(other, (0,)) != [None]
    now[0] = 701.0
    kept.drop_idle()
    assert kept.find(KEEP, (0,)) == [None]
    assert kept.find(other, (0,)) != [None]
    assert kept.n_bytes == BLOCK
    kept.add(KEEP, block(0))  # it was only slow
    assert kept.n_bytes == 2 * BLOCK
    kept.drop(KEEP.owner)
    kept.drop(other.owner)


def test_the_timer_drops_what_is_idle(monkeypatch):
    monkeypatch.setattr(dgmm.data.kept, "_IDLE_SECONDS", 0.01)
    kept, dropped = KeptBlocks(), threading.Event()
    real = kept._drop
    monkeypatch.setattr(kept, "_drop", lambda owner: (real(owner), dropped.set()))
    kept.add(KEEP, block(0))
    assert dropped.wait(60)
    assert kept.find(KEEP, (0,)) == [None]
