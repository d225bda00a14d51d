"""Datasets in HDF5 files."""

from __future__ import annotations

import pickle
import sys
import threading

import h5py
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from test_source import gather

from dgmm import GaussianMixture, open_source
from dgmm.data import hdf5 as module
from dgmm.data.opening import open_weights
from dgmm.data.source import iter_blocks
from dgmm.errors import (
    InvalidData,
    InvalidParameter,
    MissingChunks,
    MissingExtra,
    NonFiniteData,
    ShapeMismatch,
    SourceNotFound,
    UnsupportedDtype,
)

N = 3000
ROWS = np.random.default_rng(0).normal(size=(N, 3)) + np.repeat([[0], [6]], N // 2, axis=0)


def write(path, name="x", rows=ROWS, mode="w", **options):
    with h5py.File(path, mode) as file:
        file.create_dataset(name, data=rows, **options)
    return path


LAYOUTS = [
    {}, {"chunks": (700, 3)}, {"chunks": (512, 2), "compression": "gzip", "shuffle": True}, {"chunks": (1, 1)},
    {"chunks": (N, 3), "fletcher32": True},
]  # fmt: skip


@pytest.mark.parametrize("layout", LAYOUTS[:3] + LAYOUTS[4:], ids=str)
@pytest.mark.parametrize("dtype", ["f8", "f4", ">f4", "i2", "?"])
def test_rows_as_they_were_written(layout, dtype, tmp_path):
    rows = ROWS.astype(dtype)
    source = open_source(write(tmp_path / "t.h5", rows=rows, **layout))
    assert not source.local
    assert source.dtype == (np.float32 if dtype in ("f4", ">f4") else np.float64)
    np.testing.assert_array_equal(gather(source), rows.astype(source.dtype))


@settings(max_examples=20)
@given(cuts=st.lists(st.integers(1, N - 1), max_size=6), layout=st.sampled_from(LAYOUTS[:3]))
def test_any_bounds(cuts, layout, tmp_path):
    source = open_source(write(tmp_path / "t.h5", **layout))
    np.testing.assert_array_equal(gather(source.rows(np.array([0, *sorted(set(cuts)), N]))), ROWS)


def test_blocks_are_whole_chunks(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "BLOCK_BYTES", 1500 * 24)
    source = open_source(write(tmp_path / "t.h5", chunks=(700, 2)))
    assert source.bounds.tolist() == [0, 1400, 2800, 3000]
    assert source.chunk_end(701) == 1400
    assert source.locate(1401, 2) == f"chunk 2/1 of {tmp_path}/t.h5, row 1401, feature 2"
    assert open_source(write(tmp_path / "u.h5")).locate(3, 1) == f"dataset of {tmp_path}/u.h5, row 3, feature 1"


def test_a_dataset_within_a_file(tmp_path, monkeypatch):
    path = write(tmp_path / "t.h5", "group/x")
    write(path, "group/w", np.arange(float(N)), mode="a")
    for address in (path, f"{path}/group", f"{path}/group/x"):
        np.testing.assert_array_equal(gather(open_source(address)), ROWS)
    source = open_weights(f"{path}/group/w", open_source(path))
    np.testing.assert_array_equal(gather(source)[:, 0], np.arange(N))
    with pytest.raises(SourceNotFound, match=r"There is no .*t.h5/group/y.*: .*/group/w \(3000,\) float64"):
        open_source(f"{path}/group/y")
    write(path, "other", mode="a")
    with pytest.raises(
        InvalidData, match=r"has 2 datasets of rows x features, expected one.*e\.g\. .*t.h5/group/x"
    ):
        open_source(path)
    np.testing.assert_array_equal(gather(open_source(f"{path}/other")), ROWS)
    monkeypatch.chdir(tmp_path)
    source = pickle.loads(pickle.dumps(open_source("t.h5/other")))
    monkeypatch.chdir("/")
    np.testing.assert_array_equal(gather(source), ROWS)


def test_what_cannot_be_used(tmp_path):
    for rows, error in (
        (np.zeros(3), ShapeMismatch),
        (np.zeros((2, 2, 2)), ShapeMismatch),
        (np.zeros((0, 2)), ShapeMismatch),
        (np.zeros((2, 2), complex), UnsupportedDtype),
        (np.array([[b"a"]]), UnsupportedDtype),
    ):
        path = write(tmp_path / "t.h5", rows=rows)
        with pytest.raises(error):
            open_source(f"{path}/x")
    with pytest.raises(InvalidData, match=r"0 datasets .*/x \(1, 1\) \|S1"):
        open_source(path)
    with h5py.File(path, "w"):
        pass
    with pytest.raises(InvalidData, match="there are none"):
        open_source(path)
    with pytest.raises(InvalidParameter, match="neither variables"):
        open_source(write(path), variables="x")


def test_h5py_is_an_extra(tmp_path, monkeypatch):
    path = write(tmp_path / "t.h5")
    monkeypatch.setitem(sys.modules, "dgmm.data.hdf5", None)
    with pytest.raises(MissingExtra, match=r"pip install 'dgmm\[hdf5\]'"):
        open_source(path)


def test_values_in_other_files_are_refused(tmp_path):
    path = write(tmp_path / "t.h5")
    layout = h5py.VirtualLayout((N, 3), "f8")
    layout[:] = h5py.VirtualSource(path, "x", (N, 3))
    with h5py.File(tmp_path / "v.h5", "w") as file:
        file.create_virtual_dataset("x", layout)
        file.create_dataset("y", (N, 3), "f8", external=[("raw", 0, N * 24)])
    for name in "xy":
        with pytest.raises(InvalidData, match="lie in other files"):
            open_source(tmp_path / "v.h5" / name)


def test_a_netcdf_file_under_another_name_is_a_grid(tmp_path):
    xarray = pytest.importorskip("xarray")
    pytest.importorskip("h5netcdf")
    dataset = xarray.Dataset({"x": (("a", "b"), ROWS)})
    dataset.to_netcdf(tmp_path / "t.h5", engine="h5netcdf")
    with pytest.raises(InvalidData, match=r"NetCDF.*\.nc"):
        open_source(tmp_path / "t.h5")


def test_chunks_that_were_never_written(tmp_path):
    path = tmp_path / "t.h5"
    with h5py.File(path, "w") as file:
        dataset = file.create_dataset("x", (N, 3), "f8", chunks=(1000, 2), fillvalue=7)
        dataset[:1500] = ROWS[:1500]
        file.create_dataset("y", (N, 3), "f8")
    with pytest.raises(
        MissingChunks, match=r"2 of 6 chunks .*\(first: 2/0\).* fill value 7.*--missing-chunks fill"
    ):
        open_source(f"{path}/x")
    expected = np.where(np.arange(N)[:, None] < 1500, ROWS, 7)
    np.testing.assert_array_equal(gather(open_source(f"{path}/x", missing_chunks="fill")), expected)
    with pytest.raises(MissingChunks, match="y was never written"):
        open_source(f"{path}/y")
    np.testing.assert_array_equal(gather(open_source(f"{path}/y", missing_chunks="fill")), np.zeros((N, 3)))


def test_a_missing_value_is_named_by_its_chunk(tmp_path):
    rows = ROWS.copy()
    rows[1234, 2] = np.nan
    path = write(tmp_path / "t.h5", rows=rows, chunks=(500, 3))
    with pytest.raises(NonFiniteData, match=r"chunk 2/0 of .*t.h5, row 1234, feature 2"):
        GaussianMixture(2).fit(path)
    assert GaussianMixture(2, random_state=0).fit(open_source(path, missing="drop")).n_missing_ == 1


def test_damage_is_noticed(tmp_path):
    path = write(tmp_path / "t.h5", chunks=(1000, 3), compression="gzip", fletcher32=True)
    with h5py.File(path) as file:
        chunk = file["x"].id.get_chunk_info(1)
    content = bytearray(path.read_bytes())
    content[chunk.byte_offset + 50] ^= 1
    path.write_bytes(content)
    with pytest.raises(InvalidData, match=r"Rows 0:3000 of .*t.h5 cannot be read"):
        gather(open_source(path))
    path.write_bytes(content[:100])
    with pytest.raises(InvalidData, match="cannot be opened as an HDF5 file"):
        open_source(path)


def test_a_change_is_noticed_and_tells_in_the_fingerprint(tmp_path):
    path = write(tmp_path / "t.h5")
    source = open_source(path)
    write(path, "y", mode="a")
    assert open_source(f"{path}/x").fingerprint() != source.fingerprint()
    assert open_source(f"{path}/x").fingerprint() != open_source(f"{path}/y").fingerprint()
    with pytest.raises(InvalidData, match="has changed since it was opened"):
        gather(source)
    path.unlink()
    with pytest.raises(InvalidData, match="is gone now"):
        GaussianMixture(2).fit(source)


def test_threads_read_side_by_side(tmp_path):
    path = write(tmp_path / "t.h5", chunks=(100, 3), compression="gzip")
    source = open_source(path).rows(np.arange(0, N + 1, 100))
    found = {}

    def read(number):
        blocks = iter_blocks(source.block_input(number * 10, number * 10 + 10))
        found[number] = np.concatenate([block.rows for block in blocks])

    threads = [threading.Thread(target=read, args=(number,)) for number in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    np.testing.assert_array_equal(np.concatenate([found[number] for number in range(3)]), ROWS)


def test_a_walk_closes_its_file(tmp_path):
    path = write(tmp_path / "t.h5")
    gather(open_source(path))
    with h5py.File(path, "a") as file:  # refused while a reader holds the file
        file["y"] = 1
