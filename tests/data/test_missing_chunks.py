"""Chunks that are missing, vanish or are broken are noticed and named."""

from __future__ import annotations

import numpy as np
import pytest
import zarr
from zarr.codecs import GzipCodec

from dgmm.data.opening import open_source
from dgmm.data.source import iter_blocks
from dgmm.errors import InvalidData, MissingChunks, NonFiniteData

ROWS = np.random.default_rng(1).normal(size=(100, 3))


def gather(source):
    return np.concatenate([block.rows for block in iter_blocks(source.block_input(0, source.n_blocks))])


@pytest.mark.parametrize("zarr_format", [2, 3])
def test_missing_chunks(tmp_path, zarr_format):
    path = tmp_path / "x.zarr"
    zarr.create_array(path, data=ROWS, chunks=(10, 2), zarr_format=zarr_format)
    key = "c/3/1" if zarr_format == 3 else "3.1"
    (path / key).unlink()
    with pytest.raises(
        MissingChunks, match=f"1 of 20 chunks of {path} are not stored \\(first: {key}\\).*fill"
    ) as caught:
        open_source(path)
    assert "write_empty_chunks=False" in str(caught.value)
    filled = ROWS.copy()
    filled[30:40, 2] = 0
    np.testing.assert_array_equal(gather(open_source(path, missing_chunks="fill")), filled)


def test_zeros_that_were_written_are_not_missing(tmp_path):
    array = zarr.create_array(
        tmp_path / "x", shape=(100, 3), chunks=(10, 3), dtype="f8", config={"write_empty_chunks": True}
    )
    array[:] = 0
    np.testing.assert_array_equal(gather(open_source(array)), np.zeros((100, 3)))


def test_missing_inner_chunks(tmp_path):
    array = zarr.create_array(tmp_path / "x", data=ROWS[:95], chunks=(10, 2), shards=(40, 4))
    assert open_source(array).n_rows == 95  # inner chunks beyond the edge are not missing
    array[50:60] = 0  # Zarr leaves these two out
    with pytest.raises(MissingChunks, match=r"2 of 20 chunks .*first: inner chunk 1/0 of shard c/1/0"):
        open_source(array)
    (tmp_path / "x/c/0/0").unlink()
    with pytest.raises(MissingChunks, match=r"10 of 20 chunks .*first: c/0/0"):
        open_source(array)
    np.testing.assert_array_equal(gather(open_source(array, missing_chunks="fill")), array[:])


def test_a_broken_shard_index(tmp_path):
    array = zarr.create_array(tmp_path / "x", data=ROWS, chunks=(10, 3), shards=(50, 3))
    shard = tmp_path / "x/c/1/0"
    shard.write_bytes(shard.read_bytes()[:-7])
    with pytest.raises(InvalidData, match="index of shard c/1/0"):
        open_source(array)


@pytest.mark.parametrize("shards", [None, (50, 3)])
@pytest.mark.parametrize("fill", [np.nan, np.inf])
def test_a_fill_value_that_is_no_number(tmp_path, fill, shards):
    array = zarr.create_array(
        tmp_path / "x", shape=ROWS.shape, dtype="f8", chunks=(10, 3), shards=shards, fill_value=fill
    )
    array[:] = ROWS
    assert open_source(array, missing_chunks="fill").n_rows == 100
    array[70:80] = fill
    first = "inner chunk 2/0 of shard c/1/0" if shards else "c/7/0"
    with pytest.raises(NonFiniteData, match=f"first: {first}.*row 70"):
        open_source(array, missing_chunks="fill")
    with pytest.raises(MissingChunks):
        open_source(array)


@pytest.mark.parametrize("fill", [0, np.nan])
def test_a_chunk_that_vanishes_after_opening(tmp_path, fill):
    path = tmp_path / "x"
    zarr.create_array(path, data=ROWS, chunks=(10, 2), fill_value=fill)
    source = open_source(path)
    (path / "c/3/0").unlink()
    np.testing.assert_array_equal(source.read(0, 30), ROWS[:30])
    with pytest.raises(MissingChunks, match=r"c/3/0 .*rows 30:35.*gone"):
        source.read(0, 35)


@pytest.mark.parametrize("compressors", [None, "auto", GzipCodec()])
def test_a_truncated_chunk(tmp_path, compressors):
    zarr.create_array(tmp_path / "x", data=ROWS, chunks=(10, 2), compressors=compressors)
    source = open_source(tmp_path / "x")
    chunk = tmp_path / "x/c/4/1"
    chunk.write_bytes(chunk.read_bytes()[:-9])
    np.testing.assert_array_equal(source.read(0, 40), ROWS[:40])
    with pytest.raises(InvalidData, match=r"Chunk c/4/1 of .*cannot be decoded"):
        source.read(0, 100)
