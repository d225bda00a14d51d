"""Parquet tables, NumPy files, HDF5 and text on a real S3 server and on a plain web server."""

from __future__ import annotations

import gzip
import io
import os
import pickle

import dask
import h5py
import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from pyarrow import parquet
from servers.http import web_server
from servers.seaweedfs import OPEN_BUCKET
from test_source import gather

from dgmm import GaussianMixture, open_source
from dgmm.data import parquet_output, store, zarr_output
from dgmm.data.opening import open_convertible, open_weights
from dgmm.data.row_output import RowOutput
from dgmm.data.source import iter_blocks
from dgmm.engine.convert import Conversion, convert
from dgmm.errors import InvalidData, SourceNotFound, StoreError

N = 3000
ROWS = np.random.default_rng(0).normal(size=(N, 3)) + np.repeat([[0], [6]], N // 2, axis=0)
FRAME = pd.DataFrame(ROWS, columns=["a", "b", "c"]).assign(w=np.arange(N) / N)


def as_parquet(start=0, stop=N, group_rows=500):
    buffer = io.BytesIO()
    parquet.write_table(pa.Table.from_pandas(FRAME[start:stop]), buffer, row_group_size=group_rows)
    return buffer.getvalue()


def as_npy(order="C"):
    buffer = io.BytesIO()
    np.save(buffer, np.asarray(ROWS, order=order))
    return buffer.getvalue()


def as_hdf5():
    buffer = io.BytesIO()
    with h5py.File(buffer, "w") as file:
        file.create_dataset("group/rows", data=ROWS, chunks=(700, 2), compression="gzip")
    return buffer.getvalue()


@pytest.fixture
def table(s3):
    """A folder of three files."""
    for number, (start, stop) in enumerate([(0, 700), (700, 701), (701, N)]):
        store.write(f"{s3}/t/year={number}/part.parquet", as_parquet(start, stop))
    store.write(f"{s3}/t/_SUCCESS", b"")
    store.write(f"{s3}/t/_log/old.parquet", as_parquet())
    return f"{s3}/t"


def test_a_folder_a_pattern_and_a_file(table):
    for address in (table, f"{table}/", f"{table}/*/*.parquet", f"{table}/**/*.parquet", f"{table}/year=*"):
        source = open_source(address, variables=["a", "b", "c"])
        np.testing.assert_array_equal(gather(source), ROWS)
    assert open_source(f"{table}/year=2/part.parquet").n_rows == N - 701
    weights = open_weights("w", open_source(table, variables=["a"]))
    np.testing.assert_array_equal(gather(weights)[:, 0], FRAME["w"])
    with pytest.raises(SourceNotFound, match="no file at"):
        open_source(f"{table}/*.parquet")
    with pytest.raises(SourceNotFound):
        open_source(f"{table}/year=9/part.parquet")


@pytest.mark.parametrize("order", ["C", "F"])
def test_a_numpy_file(s3, order):
    store.write(f"{s3}/x.npy", as_npy(order))
    np.testing.assert_array_equal(gather(open_source(f"{s3}/x.npy").rows(np.array([0, 7, 1000, N]))), ROWS)


def test_a_dataset_of_hdf5(s3):
    store.write(f"{s3}/x.h5", as_hdf5())
    for address in (f"{s3}/x.h5", f"{s3}/x.h5/group", f"{s3}/x.h5/group/rows"):
        np.testing.assert_array_equal(gather(open_source(address)), ROWS)
    with pytest.raises(SourceNotFound, match="group/rows"):
        open_source(f"{s3}/x.h5/rows")


def test_text(s3):
    for number, start in enumerate((0, 1500)):
        store.write(f"{s3}/t/{number}.csv", FRAME[start : start + 1500].to_csv(index=False).encode())
    for address in (f"{s3}/t", f"{s3}/t/*.csv"):
        np.testing.assert_array_equal(gather(open_convertible(address, variables=["a", "b", "c"])), ROWS)
    store.write(f"{s3}/t.csv.gz", gzip.compress(FRAME.to_csv(index=False).encode()))
    np.testing.assert_array_equal(
        gather(open_convertible(f"{s3}/t.csv.gz", variables=["a", "b", "c"]), step=7), ROWS
    )
    store.write(f"{s3}/t.csv.zst", b"")
    with pytest.raises(InvalidData, match="Decompress"):
        open_convertible(f"{s3}/t.csv.zst")


def test_netcdf_is_refused(s3):
    store.write(f"{s3}/x.nc", as_hdf5())
    with pytest.raises(InvalidData, match=r"NetCDF file, which is read from a disk alone. Copy it"):
        open_source(f"{s3}/x.nc", variables="temp")


def test_a_web_server_serves_single_files(s3, seaweed, monkeypatch):
    name = s3.rpartition("/")[2]
    for kind, content in (("t.parquet", as_parquet()), ("x.npy", as_npy()), ("x.h5", as_hdf5())):
        store.write(f"s3://{OPEN_BUCKET}/{name}/{kind}", content)
    url = f"{seaweed.endpoint}/{OPEN_BUCKET}/{name}"
    np.testing.assert_array_equal(gather(open_source(f"{url}/t.parquet", variables=["a", "b", "c"])), ROWS)
    for address in ("x.npy", "x.h5", "x.h5/group/rows"):
        np.testing.assert_array_equal(gather(open_source(f"{url}/{address}")), ROWS)


def test_a_web_server_without_ranges_is_said(tmp_path):
    (tmp_path / "t.parquet").write_bytes(as_parquet())
    with web_server(tmp_path) as url, pytest.raises(StoreError, match="does not support"):
        open_source(f"{url}/t.parquet")


def test_a_pass_asks_for_each_byte_once(s3, seaweed):
    content = as_parquet(group_rows=N)
    store.write(f"{s3}/t.parquet", content)
    metadata = parquet.ParquetFile(io.BytesIO(content)).metadata
    chunks = sum(metadata.row_group(0).column(i).total_compressed_size for i in range(3))
    before = seaweed.bytes_sent()
    source = open_source(f"{s3}/t.parquet", variables=["a", "b", "c"])
    gather(source.rows(np.array([0, 700, 1700, N])), step=10)
    ends = 2 * min(len(content), 2**16)  # pyarrow asks for so much of the end: at the opening, and in the leaf
    assert chunks <= seaweed.bytes_sent() - before <= chunks + ends


def test_a_pickle_holds_the_url_and_no_credentials(table, seaweed):
    part = pickle.dumps(open_source(table, variables=["a"]).block_input(0, 1))
    assert table.encode() in part
    for secret in (seaweed.owner.key, seaweed.owner.secret):
        assert secret.encode() not in part
    (block,) = iter_blocks(pickle.loads(part))
    assert block.first == 0


def test_an_object_that_changes_is_noticed(table, s3):
    source = open_source(table, variables=["a", "b", "c"])
    first = source.fingerprint()
    store.write(f"{table}/year=2/part.parquet", as_parquet(701, N, group_rows=300))
    assert open_source(table, variables=["a", "b", "c"]).fingerprint() != first
    with pytest.raises(InvalidData, match=r"year=2/part.parquet has changed"):
        gather(source)
    store.delete(f"{table}/year=2/part.parquet")
    with pytest.raises(InvalidData, match="is gone now"):
        gather(source)


def test_a_fit_is_that_of_the_file_on_disk(table, tmp_path):
    (tmp_path / "t.parquet").write_bytes(as_parquet())
    start = {"weights_init": [0.5, 0.5], "means_init": [[0] * 3, [6] * 3], "precisions_init": [np.eye(3)] * 2}
    models = [
        GaussianMixture(2, random_state=0, sample_size=300, **start).fit(
            open_source(data, variables=["a", "b", "c"])
        )
        for data in (table, tmp_path / "t.parquet")
    ]
    np.testing.assert_allclose(models[0].means_, models[1].means_, rtol=1e-10)
    assert os.environ["AWS_SECRET_ACCESS_KEY"] not in repr(vars(models[0]))


@pytest.mark.parametrize("out", ["out.zarr", "out.parquet"])
def test_rows_are_converted_from_store_to_store(table, s3, out, monkeypatch):
    monkeypatch.setattr(zarr_output, "CHUNK_BYTES", 400 * 24)
    monkeypatch.setattr(parquet_output, "PART_BYTES", 400 * 24)
    source = open_source(table, variables=["a", "b", "c"])
    wanted, write = Conversion(source, None, source.dtype), RowOutput.write

    def failing(self, start, stop, values):
        if start == 2000:
            raise KeyboardInterrupt
        write(self, start, stop, values)

    monkeypatch.setattr(RowOutput, "write", failing)
    with dask.config.set(scheduler="synchronous"), pytest.raises(KeyboardInterrupt):
        convert(wanted, f"{s3}/{out}")
    with pytest.raises(InvalidData, match="is not complete"):
        open_source(f"{s3}/{out}")
    monkeypatch.setattr(RowOutput, "write", write)
    output, written = convert(wanted, f"{s3}/{out}")
    assert output.complete
    assert 0 < written <= N
    found = open_source(f"{s3}/{out}")
    assert found.feature_names == ("a", "b", "c")
    np.testing.assert_array_equal(gather(found), ROWS)
