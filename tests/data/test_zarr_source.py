"""Zarr arrays: every layout reads right; what is missing, broken or changed is noticed."""

from __future__ import annotations

import os
import pickle

import numpy as np
import pytest
import zarr
from hypothesis import given, settings
from hypothesis import strategies as st
from zarr.storage import LocalStore, MemoryStore

from dgmm.data.opening import open_source
from dgmm.data.source import iter_blocks
from dgmm.errors import InvalidData, MissingChunks, ShapeMismatch, SourceNotFound, UnsupportedDtype

ROWS = np.random.default_rng(1).normal(size=(100, 3))


def gather(source):
    return np.concatenate([block.rows for block in iter_blocks(source.block_input(0, source.n_blocks))])


@pytest.fixture
def stored(tmp_path):
    """A plain array of 10 row chunks, and the folder it is in."""
    zarr.create_array(tmp_path / "x.zarr", data=ROWS, chunks=(10, 3))
    return tmp_path / "x.zarr"


@settings(max_examples=60, deadline=None)
@given(
    shape=st.tuples(st.integers(1, 40), st.integers(1, 5)),
    chunks=st.tuples(st.integers(1, 12), st.integers(1, 3)),
    per_shard=st.none() | st.tuples(st.integers(1, 3), st.integers(1, 2)),
    dtype=st.sampled_from(["f4", "f8", ">f4", ">f8", "i2", "u1", "?", "f2"]),
    zarr_format=st.sampled_from([2, 3]),
    order=st.sampled_from("CF"),
    step=st.integers(1, 40),
)
def test_any_layout_gives_the_same_rows(shape, chunks, per_shard, dtype, zarr_format, order, step):
    data = (np.random.default_rng(2).normal(size=shape) * 3).astype(dtype)
    shards = None
    if zarr_format == 3 and per_shard is not None:
        shards = tuple(c * p for c, p in zip(chunks, per_shard, strict=True))
    layout = {"order": order} if zarr_format == 2 else {}
    array = zarr.create_array(
        MemoryStore(),
        shape=shape,
        dtype=dtype,
        chunks=chunks,
        shards=shards,
        zarr_format=zarr_format,
        config={"write_empty_chunks": True},
        **layout,
    )
    array[:] = data
    source = open_source(array)
    assert source.local
    expected = data.astype(source.dtype)
    np.testing.assert_array_equal(gather(source), expected)
    bounds = np.append(np.arange(0, shape[0], step), shape[0])
    np.testing.assert_array_equal(gather(source.rows(bounds)), expected)


@pytest.mark.parametrize(
    ("chunks", "shards", "expected"),
    [
        ((10, 3), None, [0, 100]),  # small chunks are read together
        ((100, 3), None, [0, 100]),
        ((10, 1), (50, 2), [0, 100]),
    ],
)
def test_small_chunks_share_a_block(tmp_path, chunks, shards, expected):
    array = zarr.create_array(tmp_path / "x", data=ROWS, chunks=chunks, shards=shards)
    source = open_source(array)
    assert source.bounds.tolist() == expected
    assert source.read_bytes >= ROWS.nbytes


def test_a_block_is_a_whole_number_of_chunks():
    array = zarr.create_array(MemoryStore(), shape=(2_000_000, 4), chunks=(50_000, 4), dtype="f4")
    source = open_source(array, missing_chunks="fill")
    assert source.bounds[1] == 250_000  # 5 chunks of 0.76 MiB in 4 MiB
    array = zarr.create_array(MemoryStore(), shape=(2_000_000, 4), chunks=(400_000, 2), dtype="f4")
    assert open_source(array, missing_chunks="fill").bounds[1] == 400_000


@pytest.mark.parametrize("kind", [str, lambda path: path, lambda path: f"file://{path}", zarr.open_array])
def test_addresses(stored, kind):
    source = open_source(kind(stored))
    assert not source.local
    assert "x.zarr" in source.name
    np.testing.assert_array_equal(gather(source), ROWS)


def test_relative_paths_are_made_absolute(stored, monkeypatch):
    monkeypatch.chdir(stored.parent)
    sources = [open_source("x.zarr"), open_source(zarr.open_array("x.zarr"))]
    monkeypatch.chdir("/")
    for source in sources:
        np.testing.assert_array_equal(gather(pickle.loads(pickle.dumps(source))), ROWS)


def test_zip_and_fsspec(tmp_path):
    pytest.importorskip("fsspec")
    url = "memory://dgmm-tests/x.zarr"
    zarr.create_array(url, data=ROWS, chunks=(10, 2), overwrite=True)
    source = open_source(url)
    assert source.local
    np.testing.assert_array_equal(gather(source), ROWS)
    np.testing.assert_array_equal(gather(pickle.loads(pickle.dumps(source))), ROWS)
    with pytest.raises(SourceNotFound, match="memory://dgmm-tests/nothing"):
        open_source("memory://dgmm-tests/nothing")
    with zarr.storage.ZipStore(tmp_path / "x.zip", mode="w") as store:
        zarr.create_array(store, data=ROWS, chunks=(10, 2))
    np.testing.assert_array_equal(gather(open_source(tmp_path / "x.zip")), ROWS)


def test_fsspec_chunks_can_vanish():
    fsspec = pytest.importorskip("fsspec")
    url = "memory://dgmm-tests/gone.zarr"
    zarr.create_array(url, data=ROWS, chunks=(10, 2), overwrite=True)
    source = open_source(url)
    before = source.fingerprint()
    fsspec.filesystem("memory").rm("/dgmm-tests/gone.zarr/c/3/0")
    with pytest.raises(MissingChunks, match="c/3/0"):
        source.read(0, 100)
    with pytest.raises(MissingChunks, match="1 of 20 chunks"):
        open_source(url)
    assert open_source(url, missing_chunks="fill").fingerprint() != before


def test_a_store_that_cannot_be_listed_is_asked(stored, monkeypatch):
    from dgmm.data import zarr_chunks

    array = zarr.open_array(f"local://{stored}", mode="r")
    monkeypatch.setattr(zarr_chunks, "_find", lambda store, prefix: {})
    np.testing.assert_array_equal(gather(open_source(array)), ROWS)
    (stored / "c/5/0").unlink()
    with pytest.raises(MissingChunks, match="c/5/0"):
        open_source(array)


def test_pickled_it_is_small(stored):
    source = open_source(str(stored)).rows(np.arange(101))
    assert len(pickle.dumps(source.block_input(3, 5))) < 3000


def test_arrays_inside_groups(tmp_path):
    group = zarr.open_group(tmp_path / "g.zarr", mode="w")
    group.create_array("inner/x", data=ROWS, chunks=(10, 3))
    group.create_array("labels", data=ROWS[:, 0])
    for found in (group, tmp_path / "g.zarr"):
        with pytest.raises(InvalidData, match=r"inner/x \(100, 3\) float64; labels \(100,\).*g\.zarr/inner/x"):
            open_source(found)
    for found in (group["inner/x"], tmp_path / "g.zarr/inner/x"):
        np.testing.assert_array_equal(gather(open_source(found)), ROWS)


def test_an_empty_group(tmp_path):
    zarr.open_group(tmp_path / "g.zarr", mode="w")
    with pytest.raises(InvalidData, match="without arrays"):
        open_source(tmp_path / "g.zarr")


def test_nothing_there(tmp_path):
    with pytest.raises(SourceNotFound, match=f"nope/x.zarr; {tmp_path} is the nearest") as caught:
        open_source(tmp_path / "nope/x.zarr")
    assert isinstance(caught.value, FileNotFoundError)


def test_not_zarr(tmp_path):
    (tmp_path / "folder/photos").mkdir(parents=True)
    (tmp_path / "x.bin").write_bytes(b"1234")
    with pytest.raises(InvalidData, match=r"folder with 1 entries \(photos\)"):
        open_source(tmp_path / "folder")
    with pytest.raises(InvalidData, match="file of 4 bytes"):
        open_source(str(tmp_path / "x.bin"))


def test_broken_metadata(stored):
    (stored / "zarr.json").write_text('{"zarr_format": 3')
    with pytest.raises(InvalidData, match="metadata"):
        open_source(stored)


@pytest.mark.parametrize(
    ("shape", "dtype", "error"),
    [((5,), "f8", ShapeMismatch), ((5, 0), "f8", ShapeMismatch), ((5, 2), "c16", UnsupportedDtype)],
)
def test_refused(shape, dtype, error):
    with pytest.raises(error):
        open_source(zarr.create_array(MemoryStore(), shape=shape, dtype=dtype))


def test_real_io_errors_pass_for_the_engine_to_retry(stored, monkeypatch):
    source = open_source(stored)

    async def fail(*args, **kwargs):
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(LocalStore, "get", fail)
    with pytest.raises(OSError, match="Input/output") as caught:
        source.read(0, 10)
    assert not isinstance(caught.value, InvalidData)


def test_fingerprint_follows_the_chunks(stored):
    first = open_source(stored).fingerprint()
    array = zarr.open_array(stored, mode="r+")
    array.attrs["note"] = "only an attribute"
    assert open_source(stored).fingerprint() == first
    assert open_source(array).fingerprint() == first
    assert pickle.loads(pickle.dumps(open_source(stored))).fingerprint() == first
    assert open_source(stored).rows(np.array([0, 50, 100])).fingerprint() == first
    (stored / "c/3/leftover.partial").touch()
    assert open_source(stored).fingerprint() == first
    status = (stored / "c/3/0").stat()
    os.utime(stored / "c/3/0", ns=(status.st_atime_ns, status.st_mtime_ns + 1))
    assert open_source(stored).fingerprint() != first


def test_fingerprint_in_memory_is_of_the_content():
    def fingerprint(rows):
        return open_source(zarr.create_array(MemoryStore(), data=rows, chunks=(10, 3))).fingerprint()

    assert fingerprint(ROWS) == fingerprint(ROWS.copy())
    assert fingerprint(ROWS) != fingerprint(ROWS + 1)


def test_locate_names_the_stored_chunk(tmp_path):
    array = zarr.create_array(tmp_path / "x", data=ROWS, chunks=(5, 1), shards=(10, 2))
    assert open_source(array, name="X").locate(34, 2) == "chunk c/3/1 of X, row 34, feature 2"
    array = zarr.create_array(MemoryStore(), data=ROWS, chunks=(10, 2), zarr_format=2)
    assert open_source(array, name="X").locate(34, 2) == "chunk 3.1 of X, row 34, feature 2"
