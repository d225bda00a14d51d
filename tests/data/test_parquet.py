"""Parquet tables: rows as they were written, however they are cut into files and row groups."""

from __future__ import annotations

import decimal
import os
import pickle
import shutil
import sys
from itertools import pairwise

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pyarrow import parquet
from test_source import gather

from dgmm import GaussianMixture, open_source
from dgmm.data import parquet as module
from dgmm.data.opening import open_weights
from dgmm.data.source import iter_blocks
from dgmm.engine.passes import Passes
from dgmm.engine.scan import scan
from dgmm.engine.threads import LocalScheduler
from dgmm.errors import (
    InvalidData,
    InvalidParameter,
    InvalidWeights,
    MissingExtra,
    NonFiniteData,
    ShapeMismatch,
    SourceNotFound,
    UnsupportedDtype,
)

N = 2000
ROWS = np.random.default_rng(0).normal(size=(N, 3)) + np.repeat([[0], [6]], N // 2, axis=0)


def table(rows=ROWS, **more):
    columns = {name: rows[:, i] for i, name in enumerate("abcdefgh"[: rows.shape[1]])}
    return pa.table({**columns, **more})


def write(folder, cuts, group_rows, content=None):
    """A folder of files, cut at these rows, in row groups of so many."""
    content = table() if content is None else content
    folder.mkdir(parents=True)
    ends = [0, *sorted(cuts), content.num_rows]
    for number, (start, stop) in enumerate(pairwise(ends)):
        part = content.slice(start, stop - start)
        parquet.write_table(part, folder / f"part-{number:04}.parquet", row_group_size=group_rows)
    return folder


def walk(source):
    """Rows as one leaf task gets them."""
    return np.concatenate([block.rows for block in iter_blocks(source.block_input(0, source.n_blocks))])


@pytest.fixture
def small_blocks(monkeypatch):
    """Blocks of some 100 rows of three float64."""
    monkeypatch.setattr(module, "BLOCK_BYTES", 100 * 24)


@pytest.fixture
def decoded(monkeypatch):
    """Row groups as they are decoded: (file, group)."""
    found = []
    original = parquet.ParquetFile.iter_batches

    def counting(self, batch_size, row_groups, *args, **kwargs):
        found.extend((os.fspath(self._path), group) for group in row_groups)
        return original(self, batch_size, row_groups, *args, **kwargs)

    opened = parquet.ParquetFile.__init__

    def remembering(self, source, *args, **kwargs):
        self._path = source
        opened(self, source, *args, **kwargs)

    monkeypatch.setattr(parquet.ParquetFile, "iter_batches", counting)
    monkeypatch.setattr(parquet.ParquetFile, "__init__", remembering)
    return found


# --- what is a table -----------------------------------------------------------------------------------------


def test_a_file_a_folder_and_a_pattern(tmp_path, monkeypatch):
    folder = write(tmp_path / "t", [700, 1500], 300)
    for address in (
        folder,
        str(folder),
        f"{folder}/",
        f"{folder}/*.parquet",
        f"{tmp_path}/t*",
        f"{tmp_path}/**/*.parquet",
    ):
        source = open_source(address)
        assert (source.n_rows, source.feature_names, source.dtype) == (N, ("a", "b", "c"), np.float64)
        assert not source.local
        np.testing.assert_array_equal(gather(source), ROWS)
    np.testing.assert_array_equal(gather(open_source(folder / "part-0001.parquet")), ROWS[700:1500])
    monkeypatch.chdir(folder)
    source = pickle.loads(pickle.dumps(open_source("*-0002.parquet")))
    monkeypatch.chdir(tmp_path)
    np.testing.assert_array_equal(gather(source), ROWS[1500:])
    (folder / "part-0000.parquet").rename(folder / "anything")
    np.testing.assert_array_equal(gather(open_source(folder / "anything")), ROWS[:700])


def test_partition_folders_in_the_order_of_paths(tmp_path):
    for year, rows in (("2021", ROWS[1000:]), ("2020", ROWS[:1000])):
        write(tmp_path / "t" / f"year={year}", [500], 200, table(rows))
    (tmp_path / "t" / "_SUCCESS").touch()
    (tmp_path / "t" / "README").write_text("what it is")
    shutil.copytree(tmp_path / "t" / "year=2020", tmp_path / "t" / "_delta_log")
    shutil.copytree(tmp_path / "t" / "year=2020", tmp_path / "t" / ".staging")
    for address in (tmp_path / "t", f"{tmp_path}/t/*/*.parquet"):
        np.testing.assert_array_equal(gather(open_source(address)), ROWS)


def test_what_dask_and_pandas_write(tmp_path):
    import dask.dataframe as dd

    frame = table().to_pandas()
    frame.to_parquet(tmp_path / "pandas.parquet")
    np.testing.assert_array_equal(gather(open_source(tmp_path / "pandas.parquet")), ROWS)
    dd.from_pandas(frame, npartitions=3).to_parquet(tmp_path / "dask", write_index=False)
    np.testing.assert_array_equal(gather(open_source(tmp_path / "dask")), ROWS)


def test_nothing_there(tmp_path):
    for address in (tmp_path / "x.parquet", tmp_path / "*.parquet"):
        with pytest.raises(SourceNotFound, match=r"parquet"):
            open_source(address)
    (tmp_path / "empty").mkdir()
    with pytest.raises(InvalidData, match="nothing in it"):
        open_source(tmp_path / "empty")
    parquet.write_table(table(ROWS[:0]), tmp_path / "no-rows.parquet")
    with pytest.raises(ShapeMismatch, match="0 sample"):
        open_source(tmp_path / "no-rows.parquet")


def test_pyarrow_is_an_extra(tmp_path, monkeypatch):
    folder = write(tmp_path / "t", [], N)
    monkeypatch.setitem(sys.modules, "dgmm.data.parquet", None)
    with pytest.raises(MissingExtra, match=r"pip install 'dgmm\[parquet\]'"):
        open_source(folder)


# --- columns -------------------------------------------------------------------------------------------------


def test_chosen_columns(tmp_path):
    content = table(**{"name": ["x"] * N, "a.b": np.arange(N), "w": np.ones(N)})
    folder = write(tmp_path / "t", [900], 400, content)
    source = open_source(folder, variables=["c", "a"])
    assert source.feature_names == ("c", "a")
    np.testing.assert_array_equal(gather(source), ROWS[:, [2, 0]])
    np.testing.assert_array_equal(gather(open_source(folder, variables="a.b"))[:, 0], np.arange(N))
    with pytest.raises(UnsupportedDtype, match=r"1 of 6 columns .* name \(.*string\)\. Choose .*--variables"):
        open_source(folder)
    with pytest.raises(UnsupportedDtype, match="1 of 6"):
        open_source(folder, variables=["a", "name"])
    with pytest.raises(InvalidParameter, match=r"no column 'nam'; did you mean 'name'\? There are: a, b, c, name"):
        open_source(folder, variables=["a", "nam"])
    with pytest.raises(InvalidParameter, match="is a table: it has no dimension depth"):
        open_source(folder, feature_dims="depth")


def test_columns_may_come_in_another_order_but_must_be_there(tmp_path):
    folder = write(tmp_path / "t", [], N)
    other = folder / "part-0001.parquet"
    parquet.write_table(table().select(["c", "a", "b"]), other)
    np.testing.assert_array_equal(gather(open_source(folder)), np.concatenate([ROWS, ROWS]))
    parquet.write_table(table().select(["c", "a"]), other)
    with pytest.raises(InvalidData, match=r"part-0001.parquet of .* has no column 'b'; it has c, a"):
        open_source(folder)
    assert open_source(folder, variables=["a"]).n_rows == 2 * N
    parquet.write_table(table(extra=np.ones(N)), other)
    with pytest.raises(InvalidData, match=r"part-0001.parquet of .* a column 'extra' that the first file has not"):
        open_source(folder)
    parquet.write_table(table().set_column(1, "b", pa.array(["x"] * N)), other)
    with pytest.raises(UnsupportedDtype, match=r"part-0001.parquet of .*: b \((large_)?string\)"):
        open_source(folder)


def test_types_may_differ_as_long_as_they_are_numbers(tmp_path):
    folder = write(tmp_path / "t", [], N, table(np.ones((N, 2), "f4")))
    assert open_source(folder).dtype == np.float32
    parquet.write_table(table(np.ones((3, 2), "i8")), folder / "part-0001.parquet")
    assert open_source(folder).dtype == np.float64
    np.testing.assert_array_equal(gather(open_source(folder)), np.ones((N + 3, 2)))


TYPES = [
    *(getattr(pa, f"{kind}{bits}")() for kind in ("int", "uint") for bits in (8, 16, 32, 64)),
    *(pa.float16(), pa.float32(), pa.float64(), pa.bool_(), pa.decimal128(10, 3), pa.decimal256(40, 3)),
]


@pytest.mark.parametrize("kind", TYPES, ids=str)
@pytest.mark.parametrize("nulls", [False, True])
def test_every_number_is_read_and_a_null_is_missing(kind, nulls, tmp_path):
    plain = [0, 1, 1, 0, 1]
    given_values = [decimal.Decimal(v) for v in plain] if pa.types.is_decimal(kind) else plain
    if pa.types.is_boolean(kind):
        given_values = [bool(v) for v in plain]
    if kind == pa.float16():
        given_values = [np.float16(v) for v in plain]
    if nulls:
        given_values[3] = None
    column = pa.array(given_values, kind)
    columns = {"x": column, "coded": column.dictionary_encode() if kind != pa.float16() else column}
    parquet.write_table(pa.table(columns), tmp_path / "t.parquet")
    source = open_source(tmp_path / "t.parquet")
    assert source.dtype == (np.float32 if kind == pa.float32() and source.dtype == np.float32 else np.float64)
    expected = np.array(plain, float)
    if nulls:
        expected[3] = np.nan
    np.testing.assert_array_equal(gather(source), np.column_stack([expected, expected]))


@pytest.mark.parametrize(
    "column",
    [pa.array(["x"]), pa.array([0], pa.timestamp("s")), pa.array([[1.0]]), pa.array([None]), pa.array([{"a": 1}])],
    ids=lambda column: str(column.type),
)
def test_other_types_are_refused(column, tmp_path):
    parquet.write_table(pa.table({"x": column, "y": [1.0]}), tmp_path / "t.parquet")
    with pytest.raises(UnsupportedDtype, match=r"1 of 2 columns of .*t.parquet hold no real numbers: x \("):
        open_source(tmp_path / "t.parquet")


# --- blocks --------------------------------------------------------------------------------------------------


@settings(max_examples=25)
@given(
    cuts=st.lists(st.integers(0, N), max_size=5),
    group_rows=st.integers(1, N),
    bounds=st.lists(st.integers(1, N - 1), max_size=12),
    step=st.integers(1, 5),
)
def test_any_files_row_groups_and_bounds(cuts, group_rows, bounds, step, tmp_path, small_blocks):
    folder = tmp_path / "t"
    shutil.rmtree(folder, ignore_errors=True)
    source = open_source(write(folder, cuts, max(group_rows, 20)))
    lengths = np.diff(source.bounds)
    assert lengths.min() > 0
    assert lengths.max() * 24 <= 1.25**2 * module.BLOCK_BYTES + 24
    np.testing.assert_array_equal(gather(source, step), ROWS)
    other = source.rows(np.array([0, *sorted(set(bounds)), N]))
    np.testing.assert_array_equal(gather(other, step), ROWS)


@pytest.mark.parametrize("group_rows", [7, 100, 500, N])
def test_leaf_tasks_decode_each_row_group_once(group_rows, tmp_path, small_blocks, decoded):
    folder = write(tmp_path / "t", [1000], group_rows)
    source = open_source(folder)
    groups = 2 * -(-1000 // group_rows)
    decoded.clear()
    np.testing.assert_array_equal(gather(source, source.run_length), ROWS)
    assert len(decoded) == len(set(decoded)) == groups
    # Cut anywhere, in one walk.
    decoded.clear()
    other = source.rows(np.array([0, *range(13, N, 64), N]))
    np.testing.assert_array_equal(walk(other), ROWS)
    assert len(decoded) == len(set(decoded)) == groups


def test_leaf_tasks_take_whole_row_groups_while_each_thread_has_one(tmp_path, small_blocks):
    source = open_source(write(tmp_path / "t", [500, 1000, 1500], 500))
    assert (source.n_blocks, source.run_length) == (16, 4)

    class Threads(LocalScheduler):
        task_seconds = 1e-9

        def __init__(self, n_threads):
            super().__init__()
            self.n_threads = n_threads

    assert Passes(source, None, Threads(2))._leaves() == [(0, 4), (4, 8), (8, 12), (12, 16)]
    assert len(Passes(source, None, Threads(16))._leaves()) == 16  # rather decoded again than idle


def test_memory_is_that_of_blocks_however_long_a_row_group(tmp_path):
    rows = np.random.default_rng(0).normal(size=(400_000, 8))
    path = tmp_path / "t.parquet"
    parquet.write_table(table(rows), path, row_group_size=len(rows), use_dictionary=False)
    source = open_source(path)
    assert source.n_blocks >= 5
    before, peak = pa.total_allocated_bytes(), 0
    for block in iter_blocks(source.block_input(0, source.n_blocks)):
        peak = max(peak, pa.total_allocated_bytes() - before)
        assert block.rows.nbytes < 6 * 2**20
    assert 0 < peak < min(source.read_bytes, rows.nbytes / 2)


def test_a_leaf_carries_its_own_files_alone(tmp_path):
    folder = write(tmp_path / "t", range(10, N, 10), 10)
    source = open_source(folder)
    whole = source.rows(np.arange(0, N + 1, 10))
    assert len(pickle.dumps(whole.block_input(3, 4))) < 2000
    (block,) = iter_blocks(pickle.loads(pickle.dumps(whole.block_input(3, 4))))
    assert block.first == 30
    np.testing.assert_array_equal(block.rows, ROWS[30:40])


# --- the same fit --------------------------------------------------------------------------------------------

START = {"weights_init": [0.5, 0.5], "means_init": [[0] * 3, [6] * 3], "precisions_init": [np.eye(3)] * 2}


@settings(max_examples=6)
@given(cuts=st.lists(st.integers(0, N), max_size=4), group_rows=st.integers(20, N))
def test_a_fit_does_not_depend_on_files_and_row_groups(cuts, group_rows, tmp_path, small_blocks):
    folder = tmp_path / "t"
    shutil.rmtree(folder, ignore_errors=True)
    source = open_source(write(folder, cuts, group_rows))
    mixture = GaussianMixture(2, random_state=0, sample_size=200, **START)
    expected = GaussianMixture(2, random_state=0, sample_size=200, **START).fit(ROWS)
    for name in ("weights_", "means_", "covariances_", "lower_bound_"):
        np.testing.assert_allclose(getattr(mixture.fit(source), name), getattr(expected, name), rtol=1e-10)
    recorded = np.array([0, 300, 777, 1000, N])
    one = GaussianMixture(2, random_state=0, sample_size=200).fit(source.rows(recorded))
    shutil.rmtree(folder)
    plain = open_source(write(folder, [], N)).rows(recorded)
    other = GaussianMixture(2, random_state=0, sample_size=200).fit(plain)
    for name in ("weights_", "means_", "covariances_", "lower_bound_"):
        np.testing.assert_array_equal(getattr(one, name), getattr(other, name))


# --- weights and missing values ------------------------------------------------------------------------------


def test_a_column_of_weights(tmp_path):
    weights = np.random.default_rng(1).random(N)
    folder = write(tmp_path / "t", [700], 300, table(w=weights, name=["x"] * N))
    source = open_source(folder, variables=["a", "b", "c"])
    found = open_weights("w", source)
    assert found.bounds.tolist() == source.bounds.tolist()
    np.testing.assert_array_equal(gather(found)[:, 0], weights)
    ours = GaussianMixture(2, random_state=0, sample_size=200, **START).fit(source, sample_weight="w")
    theirs = GaussianMixture(2, random_state=0, sample_size=200, **START).fit(ROWS, sample_weight=weights)
    np.testing.assert_allclose(ours.means_, theirs.means_, rtol=1e-10)
    assert ours.score(source, sample_weight="w") == pytest.approx(theirs.score(ROWS, sample_weight=weights))
    with pytest.raises(InvalidWeights, match="'a' is a feature of"):
        open_weights("a", source)
    with pytest.raises(UnsupportedDtype, match=r"name \("):
        open_weights("name", source)
    with pytest.raises(SourceNotFound):
        open_weights("v", source)


def test_missing_values_are_named_by_file_row_group_and_column(tmp_path):
    rows = ROWS.copy()
    rows[1234, 1] = np.nan
    folder = write(tmp_path / "t", [1000], 100, table(rows))
    with pytest.raises(NonFiniteData, match=r"row group 2 of .*part-0001.parquet, row 1234, feature 1 \(b\)"):
        GaussianMixture(2).fit(folder)
    assert GaussianMixture(2, random_state=0).fit(open_source(folder, missing="drop")).n_missing_ == 1


# --- files that change, or are damaged -----------------------------------------------------------------------


def test_the_fingerprint_follows_the_table(tmp_path):
    folder = write(tmp_path / "t", [1000], 100)
    first = open_source(folder).fingerprint()
    assert open_source(f"{folder}/*.parquet").fingerprint() == first
    assert open_source(folder, variables=["a", "b"]).fingerprint() != first
    assert open_source(folder, variables=["b", "a", "c"]).fingerprint() != first
    folder.rename(tmp_path / "moved")
    assert open_source(tmp_path / "moved").fingerprint() == first
    path = tmp_path / "moved" / "part-0001.parquet"
    os.utime(path, ns=(0, 0))
    assert open_source(tmp_path / "moved").fingerprint() != first
    path.unlink()
    assert open_source(tmp_path / "moved").fingerprint() != first


def test_a_file_that_changes_is_noticed(tmp_path):
    folder = write(tmp_path / "t", [1000], 100)
    source = open_source(folder)
    path = folder / "part-0001.parquet"
    parquet.write_table(table(ROWS[1000:] + 1), path, row_group_size=100)
    with pytest.raises(InvalidData, match=r"part-0001.parquet has changed since it was opened \(.*\)"):
        walk(source)
    path.unlink()
    with pytest.raises(InvalidData, match=r"part-0001.parquet was there when .* is gone now"):
        GaussianMixture(2).fit(source)


def test_a_damaged_file_is_named(tmp_path):
    folder = write(tmp_path / "t", [1000], 100)
    path = folder / "part-0001.parquet"
    content = bytearray(path.read_bytes())
    path.write_bytes(content[:-9])
    with pytest.raises(
        InvalidData, match=r"part-0001.parquet cannot be read as a Parquet file: .*[^.]\. Restore it"
    ):
        open_source(folder)
    offset = parquet.ParquetFile(folder / "part-0000.parquet").metadata.row_group(3).column(1).data_page_offset
    content[offset : offset + 200] = bytes(200)
    path.write_bytes(content)
    with pytest.raises(InvalidData, match=r"row group .* of .*part-0001.parquet cannot be decoded"):
        walk(open_source(folder))


def test_a_flipped_bit_is_noticed_where_pages_have_checksums(tmp_path):
    path = tmp_path / "t.parquet"
    parquet.write_table(table(), path, compression=None, use_dictionary=False, write_page_checksum=True)
    chunk = parquet.ParquetFile(path).metadata.row_group(0).column(1)
    content = bytearray(path.read_bytes())
    content[chunk.data_page_offset + chunk.total_compressed_size // 2] ^= 1
    path.write_bytes(content)
    with pytest.raises(InvalidData, match=r"cannot be decoded.*(CRC|checksum)"):
        walk(open_source(path))


def test_the_sample_is_that_of_the_rows(tmp_path, small_blocks):
    source = open_source(write(tmp_path / "t", [3, 1111], 77))
    found = scan(Passes(source, None, LocalScheduler()), sample_rows=100, seed=1)
    plain = scan(Passes(open_source(ROWS), None, LocalScheduler()), sample_rows=100, seed=1)
    np.testing.assert_array_equal(found.rows, plain.rows)
