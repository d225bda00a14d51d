"""NumPy files, which every worker reads itself."""

from __future__ import annotations

import io
import os
import pickle

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from test_source import gather

from dgmm import GaussianMixture, open_source
from dgmm.data.opening import open_weights
from dgmm.data.source import iter_blocks
from dgmm.errors import (
    InvalidData,
    InvalidParameter,
    NonFiniteData,
    ShapeMismatch,
    SourceNotFound,
    UnsupportedDtype,
)

ROWS = np.random.default_rng(0).normal(size=(3000, 3)) + np.repeat([[0], [6]], 1500, axis=0)


def saved(path, rows):
    np.save(path, rows)
    return path


@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("dtype", ["f8", "f4", ">f8", ">f4", "f2", "i8", "u1", "?"])
def test_rows_as_they_were_saved(order, dtype, tmp_path):
    rows = np.asarray(ROWS.astype(dtype), order=order)
    source = open_source(saved(tmp_path / "x.npy", rows))
    assert not source.local
    assert source.dtype == (np.float32 if dtype in ("f4", ">f4") else np.float64)
    np.testing.assert_array_equal(gather(source), rows.astype(source.dtype))


@settings(max_examples=20)
@given(cuts=st.lists(st.integers(1, 2999), max_size=6), order=st.sampled_from("CF"))
def test_any_bounds(cuts, order, tmp_path):
    source = open_source(saved(tmp_path / "x.npy", np.asarray(ROWS, order=order)))
    np.testing.assert_array_equal(gather(source.rows(np.array([0, *sorted(set(cuts)), 3000]))), ROWS)


def test_blocks_and_bits_are_those_of_the_array_in_memory(tmp_path):
    rows = np.random.default_rng(0).normal(size=(150_000, 2)).astype("f4")
    source, memory = open_source(saved(tmp_path / "x.npy", rows)), open_source(rows)
    assert source.bounds.tolist() == memory.bounds.tolist()
    ours, theirs = (GaussianMixture(2, random_state=0, max_iter=5, tol=10).fit(data) for data in (source, memory))
    np.testing.assert_array_equal(ours.means_, theirs.means_)
    np.testing.assert_array_equal(np.asarray(ours.predict(source)), theirs.predict(rows))


def test_a_leaf_opens_the_file_itself_wherever_it_runs(tmp_path, monkeypatch):
    saved(tmp_path / "x.npy", ROWS)
    monkeypatch.chdir(tmp_path)
    source = open_source("x.npy").rows(np.arange(0, 3001, 500))
    part = pickle.dumps(source.block_input(1, 2))
    assert len(part) < 1500
    monkeypatch.chdir("/")
    (block,) = iter_blocks(pickle.loads(part))
    assert block.first == 500
    np.testing.assert_array_equal(block.rows, ROWS[500:1000])


def test_weights(tmp_path):
    weights = saved(tmp_path / "w.npy", np.arange(3000.0))
    source = open_weights(weights, open_source(ROWS).rows(np.array([0, 7, 3000])))
    np.testing.assert_array_equal(gather(source)[:, 0], np.arange(3000))


def test_values_that_cannot_be_used(tmp_path):
    rows = ROWS.copy()
    rows[1234, 2] = np.nan
    path = saved(tmp_path / "x.npy", rows)
    with pytest.raises(NonFiniteData, match=r"row 1234, feature 2 of .*x.npy"):
        GaussianMixture(2).fit(path)
    assert GaussianMixture(2, random_state=0).fit(open_source(path, missing="drop")).n_missing_ == 1
    for wrong, error in (
        (np.zeros(3), ShapeMismatch),
        (np.zeros((2, 2, 2)), ShapeMismatch),
        (np.zeros((0, 2)), ShapeMismatch),
        (np.zeros((2, 2), complex), UnsupportedDtype),
        (np.zeros((2, 2), object), UnsupportedDtype),
        (np.zeros((2, 2), [("a", float)]), UnsupportedDtype),
    ):
        with pytest.raises(error):
            open_source(saved(path, wrong))


def test_files_that_are_none(tmp_path):
    path = saved(tmp_path / "x.npy", ROWS)
    content = path.read_bytes()
    path.write_bytes(content[:-1])
    with pytest.raises(InvalidData, match="bytes, but its header says"):
        open_source(path)
    path.write_bytes(content[:20])
    with pytest.raises(InvalidData, match="header of the NumPy file"):
        open_source(path)
    with pytest.raises(SourceNotFound):
        open_source(tmp_path / "y.npy")
    np.savez(tmp_path / "x.npz", rows=ROWS)
    with pytest.raises(InvalidData, match=r"x.npz is an archive .* numpy.save"):
        open_source(tmp_path / "x.npz")
    (tmp_path / "x.bin").write_bytes(b"123")
    with pytest.raises(InvalidData, match="a file of 3 bytes that dgmm cannot read"):
        open_source(tmp_path / "x.bin")
    with pytest.raises(InvalidParameter, match="neither variables nor dimensions"):
        open_source(saved(path, ROWS), variables="a")


def test_version_2_of_the_header(tmp_path):
    buffer = io.BytesIO()
    np.lib.format.write_array(buffer, ROWS, version=(2, 0))
    (tmp_path / "x.npy").write_bytes(buffer.getvalue())
    np.testing.assert_array_equal(gather(open_source(tmp_path / "x.npy")), ROWS)


def test_a_change_is_noticed_and_tells_in_the_fingerprint(tmp_path):
    path = saved(tmp_path / "x.npy", ROWS)
    source = open_source(path)
    (tmp_path / "moved").mkdir()
    path.rename(tmp_path / "moved" / "x.npy")
    assert open_source(tmp_path / "moved" / "x.npy").fingerprint() == source.fingerprint()
    with pytest.raises(InvalidData, match="is gone now"):
        gather(source)
    saved(path, ROWS + 1)
    os.utime(path, ns=(0, 0))
    assert open_source(path).fingerprint() != source.fingerprint()
    with pytest.raises(InvalidData, match=r"has changed since it was opened \(written again\)"):
        gather(source)


def test_a_pattern_is_of_tables_alone(tmp_path):
    saved(tmp_path / "a.npy", ROWS)
    for pattern in ("*.npy", "a*", "*.nc", "*.zarr"):
        with pytest.raises(InvalidData, match=r"neither Parquet nor text.* a Dask array"):
            open_source(f"{tmp_path}/{pattern}")
    with pytest.raises(SourceNotFound, match="There is no file at"):
        open_source(f"{tmp_path}/b*")
