"""Sources of every kind: what is accepted, what is refused, and that rows come out as they went in."""

from __future__ import annotations

import pickle
import subprocess
import sys
import threading

import dask
import dask.array as da
import numpy as np
import pytest
import scipy.sparse
import zarr
from hypothesis import given, settings
from hypothesis import strategies as st

from dgmm.data.numpy_array import NumpySource, block_rows
from dgmm.data.opening import open_source, open_weights
from dgmm.data.source import iter_blocks
from dgmm.errors import InvalidData, InvalidParameter, InvalidWeights, ShapeMismatch, UnsupportedDtype


def gather(source, step=2):
    """Read a source as the engine does: leaf tasks of `step` blocks."""
    leaves = []
    for first in range(0, source.n_blocks, step):
        last = min(first + step, source.n_blocks)
        leaf = dask.delayed(lambda received: list(iter_blocks(received)), pure=False)
        leaves.append(leaf(source.block_input(first, last)))
    blocks = [block for leaf in dask.compute(*leaves, scheduler="synchronous") for block in leaf]
    assert [block.first for block in blocks] == source.bounds[:-1].tolist()
    assert all(block.rows.dtype == source.dtype and block.rows.dtype.isnative for block in blocks)
    return np.concatenate([block.rows for block in blocks])


def some_rows(n_rows=100, n_features=3, dtype=np.float64):
    return np.random.default_rng(0).normal(size=(n_rows, n_features)).astype(dtype)


def test_importing_it_is_cheap():
    code = "import dgmm.data.source, sys; print([m for m in ('distributed', 'dask', 'zarr') if m in sys.modules])"
    assert subprocess.check_output([sys.executable, "-c", code], text=True).strip() == "[]"


def test_a_source_is_itself():
    source = open_source(some_rows())
    assert open_source(source) is source


@pytest.mark.parametrize("data", [[[1, 2], [3, 4]], some_rows(1000, 7), np.asfortranarray(some_rows(70000, 2))])
def test_numpy_rows(data):
    source = open_source(data)
    assert source.local
    assert source.read_bytes == (0 if isinstance(data, np.ndarray) else 2 * 2 * 8)
    np.testing.assert_array_equal(gather(source), np.asarray(data))


def test_pandas_rows():
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame({"a": [1, 2], "b": [0.5, 1.5]})
    np.testing.assert_array_equal(gather(open_source(frame)), frame.to_numpy())


@pytest.mark.parametrize("dtype", ["i1", "u8", "?", "f2", ">f8", ">f4", "f4", "g"])
def test_dtypes_become_native_floats(dtype):
    data = np.array([[0, 1], [1, 0], [1, 1]], dtype=dtype)
    source = open_source(data)
    assert source.dtype == (np.float32 if dtype in {">f4", "f4"} else np.float64)
    np.testing.assert_array_equal(gather(source), data.astype(float))


@pytest.mark.parametrize("n_features", [1, 2, 3, 10, 64, 500, 5000])
def test_numpy_blocks_follow_from_shape(n_features):
    rows = block_rows(n_features)
    assert 1024 <= rows <= 65536
    assert rows == 1024 or rows * n_features * 8 <= 2 * 2**20
    assert NumpySource(np.zeros((3, n_features))).bounds.tolist() == [0, 3]


def test_memmap_stays_on_disk(tmp_path):
    np.save(tmp_path / "x.npy", some_rows())
    mapped = np.load(tmp_path / "x.npy", mmap_mode="r")
    assert np.shares_memory(open_source(mapped).read(0, 5), mapped)


def test_a_leaf_of_numpy_rows_pickles_only_its_rows():
    source = open_source(np.zeros((200_000, 2)))
    part = source.block_input(1, 2)
    assert len(pickle.dumps(part)) < 65536 * 2 * 8 + 2000
    (block,) = iter_blocks(pickle.loads(pickle.dumps(part)))
    assert (block.first, block.rows.shape) == (65536, (65536, 2))


@pytest.mark.parametrize(
    ("data", "error", "text"),
    [
        (np.zeros(3), ShapeMismatch, "reshape"),
        (np.zeros((2, 2, 2)), ShapeMismatch, "3-D"),
        (np.zeros((0, 2)), ShapeMismatch, r"0 sample\(s\) \(shape=\(0, 2\)\) while a minimum of 1 is required"),
        (np.zeros((2, 0)), ShapeMismatch, r"0 feature\(s\)"),
        (np.zeros((2, 2), complex), UnsupportedDtype, "imaginary"),
        (np.array([["a", "b"]]), UnsupportedDtype, "real numbers"),
        (np.array([[1, {}]], dtype=object), UnsupportedDtype, "no numbers: float.. argument"),
        (np.array([[1, "a"]], dtype=object), UnsupportedDtype, "no numbers: could not convert"),
        (np.zeros((2, 2), "M8[s]"), UnsupportedDtype, "dates"),
        (np.zeros((2, 2), [("a", float)]), UnsupportedDtype, "real numbers"),
        ([[1, 2], [3]], InvalidData, "rows x features"),
        (scipy.sparse.eye(3), InvalidData, r"toarray\(\)"),
        (np.ma.masked_equal([[1, 2]], 2), InvalidData, "1 values .* masked"),
        (object(), UnsupportedDtype, "is a object"),
        (None, InvalidData, "Found None"),
        (da.zeros((2, 2), dtype=complex), UnsupportedDtype, "imaginary"),
        (da.zeros(3), ShapeMismatch, "reshape"),
        (dask.delayed(3), InvalidData, "dask.array"),
    ],
)
def test_refused(data, error, text):
    with pytest.raises(error, match=text):
        open_source(data)


def test_unknown_option_is_refused():
    with pytest.raises(InvalidParameter, match="'fil'"):
        open_source([[1.0]], missing_chunks="fil")


def test_numpy_fingerprint_follows_the_content():
    data = some_rows()
    first = open_source(data).fingerprint()
    assert open_source(np.asfortranarray(data)).fingerprint() == first
    data[50, 1] += 1
    assert open_source(data).fingerprint() != first


@settings(max_examples=25, deadline=None)
@given(
    rows=st.lists(st.integers(0, 7), min_size=1, max_size=6).filter(sum),
    columns=st.lists(st.integers(1, 3), min_size=1, max_size=3),
    dtype=st.sampled_from(["f4", "f8", "i4", ">f4", "?"]),
)
def test_any_dask_chunking(rows, columns, dtype):
    data = some_rows(sum(rows), sum(columns), dtype)
    source = open_source(da.from_array(data, chunks=(tuple(rows), tuple(columns))))
    assert not source.local
    np.testing.assert_array_equal(gather(source), data.astype(source.dtype))


def test_unknown_dask_chunks_are_measured():
    data = some_rows()
    array = da.from_array(data, chunks=(30, 3))
    kept = array[array[:, 0] > 0]
    source = open_source(kept)
    np.testing.assert_array_equal(gather(source), data[data[:, 0] > 0])
    assert np.isnan(kept.shape[0])  # the caller's array is left as it was


def test_a_dask_block_of_another_shape_is_refused():
    array = da.zeros((10, 2), chunks=(5, 2)).map_blocks(
        lambda block: block[:-1], dtype=float, chunks=((5, 5), (2,))
    )
    with pytest.raises(InvalidData, match=r"rows 0:5 of dask array has shape \(4, 2\).*\(5, 2\)"):
        gather(open_source(array))


def test_dask_source_does_not_compute():
    source = open_source(da.zeros((10, 2), chunks=(5, 2)))
    with pytest.raises(TypeError, match="block_input"):
        source.read(0, 5)
    assert source.locate(7, 1) == "block 1 of dask array, row 7, feature 1"
    assert source.fingerprint() == open_source(da.zeros((10, 2), chunks=(5, 2))).fingerprint()
    assert source.fingerprint() != open_source(da.ones((10, 2), chunks=(5, 2))).fingerprint()


def as_numpy(weights, _):
    return weights


def as_column(weights, _):
    return weights[:, None]


def as_zarr(weights, path):
    return zarr.create_array(path / "w.zarr", data=weights, chunks=(37,))


def as_path(weights, path):
    as_zarr(weights, path)
    return str(path / "w.zarr")


def as_dask(weights, _):
    return da.from_array(weights, chunks=13)


@pytest.mark.parametrize("stored", [as_numpy, as_column, as_zarr, as_path, as_dask])
@pytest.mark.parametrize("bounds", [[0, 100], [0, 10, 20, 99, 100], [0, 37, 74, 100], list(range(101))])
def test_weights_follow_the_bounds_of_the_data(stored, bounds, tmp_path):
    weights = np.arange(100.0)
    source = open_weights(stored(weights, tmp_path), open_source(some_rows()).rows(np.array(bounds)))
    assert source.bounds.tolist() == bounds
    np.testing.assert_array_equal(gather(source, step=3), weights[:, None])


@pytest.mark.parametrize("weights", [np.ones(9), np.ones((10, 2)), da.ones(11)])
def test_other_weights_are_refused(weights):
    with pytest.raises(InvalidWeights, match="for 10 rows; expected one weight a row"):
        open_weights(weights, open_source(some_rows(10)))


def test_unaligned_blocks_read_each_chunk_once(tmp_path, monkeypatch):
    rows = open_source(some_rows()).rows(np.arange(0, 101, 10))
    source = open_weights(as_zarr(np.arange(100.0), tmp_path), rows)
    reads = []
    monkeypatch.setattr(
        type(source), "read", lambda self, a, b: reads.append((a, b)) or np.arange(a, b, dtype=float)[:, None]
    )
    values = np.concatenate([block.rows for block in iter_blocks(source.block_input(0, 10))])
    assert values[:, 0].tolist() == list(range(100))
    assert reads == [(0, 37), (37, 74), (74, 100)]


def readers():
    return [thread for thread in threading.enumerate() if thread.name.startswith("dgmm-read")]


@pytest.mark.parametrize("steps", [1, 2, 10])
def test_the_reading_thread_ends_with_its_iterator(tmp_path, steps):
    array = zarr.create_array(tmp_path / "x.zarr", data=some_rows(), chunks=(10, 3))
    source = open_source(array).rows(np.arange(0, 101, 10))
    blocks = iter_blocks(source.block_input(0, 10))
    for _ in range(steps):
        next(blocks)
    assert readers()
    blocks.close()
    assert not readers()


def test_an_error_in_the_reading_thread_arrives(tmp_path, monkeypatch):
    source = open_source(zarr.create_array(tmp_path / "x.zarr", data=some_rows(), chunks=(10, 3)))

    def fail(self, start, stop):
        raise OSError("disk on fire")

    monkeypatch.setattr(type(source), "read", fail)
    with pytest.raises(OSError, match="disk on fire"):
        next(iter_blocks(source.block_input(0, 1)))
    assert not readers()
