"""Rows of any kind of file into a Zarr group or a Parquet folder that is data itself."""

from __future__ import annotations

import hashlib
from itertools import pairwise
from pathlib import Path

import dask
import dask.dataframe as dd
import h5py
import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
import zarr
from pyarrow import parquet

from dgmm import GaussianMixture, open_source
from dgmm.data import parquet_output, zarr_output
from dgmm.data.opening import open_convertible
from dgmm.data.row_output import RowOutput
from dgmm.engine.convert import Conversion, CountWork, convert
from dgmm.engine.draw import Draw, draw
from dgmm.engine.memory import PROCESS_BYTES
from dgmm.errors import (
    CheckpointMismatch,
    ForeignFile,
    InvalidData,
    InvalidParameter,
    InvalidWeights,
    NonFiniteData,
    NotEnoughMemory,
    WriteFailed,
)

N, NAMES = 3000, ("a", "b", "c")
ROWS = np.random.default_rng(0).normal(size=(N, 3)) + np.repeat([[0], [6]], N // 2, axis=0)
START = {"weights_init": [0.5, 0.5], "means_init": [[0] * 3, [6] * 3], "precisions_init": [np.eye(3)] * 2}


def as_csv(rows, folder):
    pd.DataFrame(rows, columns=NAMES).to_csv(folder / "t.csv", index=False)
    return folder / "t.csv"


def as_csv_gz(rows, folder):
    pd.DataFrame(rows, columns=NAMES).to_csv(folder / "t.csv.gz", index=False)
    return folder / "t.csv.gz"


def as_parquet(rows, folder):
    (folder / "t").mkdir()
    for number, (start, stop) in enumerate(pairwise([0, 700, 701, len(rows)])):
        table = pa.table(dict(zip(NAMES, rows[start:stop].T, strict=True)))
        parquet.write_table(table, folder / "t" / f"{number}.parquet", row_group_size=500)
    return folder / "t"


def as_hdf5(rows, folder):
    with h5py.File(folder / "t.h5", "w") as file:
        file.create_dataset("group/rows", data=rows, chunks=(77, 2))
    return folder / "t.h5"


def as_npy(rows, folder):
    np.save(folder / "t.npy", rows)
    return folder / "t.npy"


def as_zarr(rows, folder):
    zarr.create_array(folder / "t.zarr", data=rows, chunks=(70, 1))
    return folder / "t.zarr"


KINDS = [as_csv, as_csv_gz, as_parquet, as_hdf5, as_npy, as_zarr]


@pytest.fixture(autouse=True)
def small_units(monkeypatch):
    """Of 400 rows of three float64."""
    monkeypatch.setattr(zarr_output, "CHUNK_BYTES", 400 * 24)
    monkeypatch.setattr(parquet_output, "PART_BYTES", 400 * 24)


def converted(data, path, missing=None, dtype=None, **options):
    source = data if not isinstance(data, str | Path) else open_convertible(str(data), missing=missing, **options)
    return convert(Conversion(source, missing, np.dtype(dtype or source.dtype)), path)


def contents(folder):
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("out", ["out.zarr", "out.parquet"])
def test_rows_and_names_are_kept_and_fitted(kind, out, tmp_path):
    output, written = converted(kind(ROWS, tmp_path), tmp_path / out)
    assert (output.complete, output.n_rows, output.chunk_rows, written) == (True, N, 400, N)
    source = open_source(tmp_path / out)
    named = kind in (as_csv, as_csv_gz, as_parquet)
    names = NAMES if named else () if out == "out.zarr" else ("x0", "x1", "x2")
    assert (source.feature_names, source.dtype) == (names, np.float64)
    np.testing.assert_array_equal(source.read(0, N), ROWS)
    if out == "out.zarr":
        assert zarr.open_array(tmp_path / out / "rows").chunks == (400, 3)
    ours = GaussianMixture(2, random_state=0, sample_size=300, **START).fit(source)
    (tmp_path / "plain").mkdir()
    plain = open_source(as_zarr(ROWS, tmp_path / "plain"))
    theirs = GaussianMixture(2, random_state=0, sample_size=300, **START).fit(plain)
    for name in ("weights_", "means_", "covariances_", "lower_bound_"):
        np.testing.assert_allclose(getattr(ours, name), getattr(theirs, name), rtol=1e-10)


@pytest.mark.parametrize("kind", [k for k in KINDS if k not in (as_csv, as_csv_gz)])
def test_the_files_themselves_give_the_fit_of_the_plain_array(kind, tmp_path):
    ours = GaussianMixture(2, random_state=0, sample_size=300, **START).fit(kind(ROWS, tmp_path))
    theirs = GaussianMixture(2, random_state=0, sample_size=300, **START).fit(ROWS)
    for name in ("weights_", "means_", "covariances_", "lower_bound_"):
        np.testing.assert_allclose(getattr(ours, name), getattr(theirs, name), rtol=1e-10)


def test_columns_of_what_was_converted_are_chosen_and_weigh(tmp_path):
    weights = np.random.default_rng(1).random(N)
    frame = pd.DataFrame(ROWS, columns=NAMES).assign(w=weights)
    for out in ("out.zarr", "out.parquet"):
        frame.to_csv(tmp_path / "t.csv", index=False)
        converted(tmp_path / "t.csv", tmp_path / out)
        source = open_source(tmp_path / out, variables=["c", "a", "b"])
        assert source.feature_names == ("c", "a", "b")
        ours = GaussianMixture(2, random_state=0, **START).fit(source, sample_weight="w")
        theirs = GaussianMixture(2, random_state=0, **START).fit(ROWS[:, [2, 0, 1]], sample_weight=weights)
        np.testing.assert_allclose(ours.means_, theirs.means_, rtol=1e-10)
        with pytest.raises(InvalidWeights, match="'w' is a feature"):
            GaussianMixture(2).fit(tmp_path / out, sample_weight="w")
        with pytest.raises(InvalidParameter, match="no column 'd'"):
            open_source(tmp_path / out, variables="d")


def test_a_dask_frame_is_converted(tmp_path):
    frame = dd.from_pandas(pd.DataFrame(ROWS, columns=NAMES), npartitions=7)
    converted(open_source(frame), tmp_path / "out.zarr")
    np.testing.assert_array_equal(zarr.open_array(tmp_path / "out.zarr/rows")[:], ROWS)


# --- dtypes and missing values -------------------------------------------------------------------------------


@pytest.mark.parametrize("stored", ["f4", "f8"])
@pytest.mark.parametrize("wanted", [None, "f4", "f8"])
def test_dtypes(stored, wanted, tmp_path):
    converted(as_npy(ROWS.astype(stored), tmp_path), tmp_path / "out.zarr", dtype=wanted)
    found = zarr.open_array(tmp_path / "out.zarr/rows")
    assert found.dtype == np.dtype(wanted or stored)
    np.testing.assert_array_equal(found[:], ROWS.astype(stored).astype(wanted or stored))


def test_what_float32_cannot_hold_is_refused(tmp_path):
    rows = ROWS.copy()
    rows[1234, 1] = -1e300
    with pytest.raises(InvalidData, match=r"row 1234, feature 1 is -1e\+300, which float32 cannot hold"):
        converted(as_npy(rows, tmp_path), tmp_path / "out.zarr", dtype="f4")


def holey(share=0.3):
    rows = ROWS.copy()
    rng = np.random.default_rng(2)
    rows[rng.random(N) < share, 1] = np.nan
    rows[1000:1600] = np.nan  # whole blocks
    return rows, ~np.isnan(rows).any(axis=1)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("share", [0, 0.3, 0.99])
def test_rows_with_missing_values_are_kept_refused_or_left_out(kind, share, tmp_path):
    rows, kept = holey(share)
    data = kind(rows, tmp_path)
    converted(data, tmp_path / "kept.zarr")
    np.testing.assert_array_equal(open_source(tmp_path / "kept.zarr").read(0, N), rows)
    with pytest.raises(NonFiniteData, match=r"row \d+.*--missing drop"):
        converted(data, tmp_path / "refused.zarr", missing="error")
    output, _ = converted(data, tmp_path / "dropped.zarr", missing="drop")
    assert output.n_rows == kept.sum()
    np.testing.assert_array_equal(open_source(tmp_path / "dropped.zarr").read(0, int(kept.sum())), rows[kept])


def test_infinity_is_named_by_its_place(tmp_path):
    rows = ROWS.copy()
    rows[1234, 2] = np.inf
    data = as_npy(rows, tmp_path)
    converted(data, tmp_path / "kept.zarr")
    with pytest.raises(NonFiniteData, match=r"infinity \(row 1234, feature 2 of .*t.npy"):
        converted(data, tmp_path / "refused.zarr", missing="error")
    rows[::2, 0] = np.nan
    rows[1234, 0] = 1
    np.save(data, rows)
    with pytest.raises(NonFiniteData, match=r"infinity .*one of rows 0:3000 of .*t.npy, feature 2"):
        converted(data, tmp_path / "dropped.zarr", missing="drop")


# --- faults --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [as_parquet, as_csv_gz])
@pytest.mark.parametrize("out", ["out.zarr", "out.parquet"])
@pytest.mark.parametrize("missing", [None, "drop"])
def test_what_was_stopped_goes_on_to_the_same_bytes(kind, out, missing, tmp_path, monkeypatch):
    data = kind(holey()[0], tmp_path)
    converted(data, tmp_path / "whole" / out, missing=missing)
    write, units = RowOutput.write, []

    def failing(self, start, stop, values):
        if len(units) == 3:
            raise KeyboardInterrupt
        units.append(start)
        write(self, start, stop, values)

    monkeypatch.setattr(RowOutput, "write", failing)
    with dask.config.set(scheduler="synchronous"), pytest.raises(KeyboardInterrupt):
        converted(data, tmp_path / out, missing=missing)
    with pytest.raises(InvalidData, match=f"{out} is not complete: run the command that writes it again"):
        open_source(tmp_path / out)
    seen = []
    monkeypatch.setattr(RowOutput, "write", lambda self, a, b, v: seen.append(a) or write(self, a, b, v))
    monkeypatch.delattr(CountWork, "begin")  # what was counted is not counted again
    output, written = converted(data, tmp_path / out, missing=missing)
    assert written == output.n_rows - sum(min(400, output.n_rows - start) for start in units) > 0
    assert not set(seen) & set(units)
    assert contents(tmp_path / out) == contents(tmp_path / "whole" / out)
    assert converted(data, tmp_path / out, missing=missing)[1] == 0


def test_rows_are_counted_anew_where_a_run_was_stopped_meanwhile(tmp_path, monkeypatch):
    rows, kept = holey()
    data, out = as_parquet(rows, tmp_path), tmp_path / "out.zarr"

    def stopped(self):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(CountWork, "begin", stopped)
        with dask.config.set(scheduler="synchronous"), pytest.raises(KeyboardInterrupt):
            converted(data, out, missing="drop")
    output, written = converted(data, out, missing="drop")
    assert output.n_rows == written == kept.sum()


@pytest.mark.parametrize("missing", [None, "drop"])
def test_another_output_is_refused_before_anything_is_read(missing, tmp_path, monkeypatch):
    data = as_parquet(ROWS, tmp_path)
    monkeypatch.delattr(CountWork, "begin")
    with pytest.raises(ForeignFile, match=r"did not write|exists and is not"):
        converted(data, as_zarr(ROWS, tmp_path), missing=missing)
    converted(as_npy(ROWS, tmp_path), tmp_path / "out.zarr")
    with pytest.raises(CheckpointMismatch, match="another data"):
        converted(data, tmp_path / "out.zarr", missing=missing)


def test_other_data_and_other_folders_are_refused(tmp_path):
    data = as_npy(ROWS, tmp_path)
    converted(data, tmp_path / "out.zarr")
    with pytest.raises(CheckpointMismatch, match="another missing"):
        converted(data, tmp_path / "out.zarr", missing="error")
    with pytest.raises(CheckpointMismatch, match="rows of shape"):
        converted(data, tmp_path / "out.zarr", dtype="f4")
    np.save(data, ROWS + 1)
    with pytest.raises(CheckpointMismatch, match="another data"):
        converted(data, tmp_path / "out.zarr")
    with pytest.raises(ForeignFile, match=r"did not write|exists and is not"):
        converted(data, as_zarr(ROWS, tmp_path))


def test_a_full_disk_is_said(tmp_path, monkeypatch):
    def full(self, *args):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(zarr_output.ZarrOutput, "_write", full)
    with pytest.raises(WriteFailed, match="No space left"):
        converted(as_npy(ROWS, tmp_path), tmp_path / "out.zarr")


def test_memory_is_planned(tmp_path, monkeypatch):
    data = as_npy(ROWS, tmp_path)
    monkeypatch.setattr("dgmm.engine.threads.LocalScheduler.memory_per_thread", lambda self: PROCESS_BYTES)
    for missing in (None, "drop"):
        with pytest.raises(NotEnoughMemory, match=r"converting .*t.npy .* smaller chunks of rows"):
            converted(data, tmp_path / f"{missing}.zarr", missing=missing)


def test_a_grid_is_not_converted(tmp_path):
    xarray = pytest.importorskip("xarray")
    grid = open_source(xarray.DataArray(np.zeros((3, 4, 5)), dims=list("xyz"), name="t"), feature_dims="z")
    with pytest.raises(InvalidData, match="t is a grid"):
        converted(grid, tmp_path / "out.zarr")


# --- rows drawn from a model ---------------------------------------------------------------------------------


@pytest.mark.parametrize("out", ["out.zarr", "out.parquet"])
@pytest.mark.parametrize("names", [True, False])
def test_rows_that_were_drawn_are_data(out, names, tmp_path):
    data = pd.DataFrame(ROWS, columns=NAMES) if names else ROWS
    model = GaussianMixture(2, random_state=0).fit(data)
    wanted = Draw(model._model, 1000, 7)
    output = wanted.open(tmp_path / out, "digest")
    with pytest.raises(InvalidData, match="is not complete"):
        open_source(tmp_path / out)
    draw(wanted, output)
    source = open_source(tmp_path / out)
    assert source.n_features == 3
    assert source.feature_names == (NAMES if names else () if out == "out.zarr" else ("x0", "x1", "x2"))
    again = GaussianMixture(2, random_state=0).fit(source)
    np.testing.assert_allclose(np.sort(again.means_[:, 0]), np.sort(model.means_[:, 0]), atol=0.5)
