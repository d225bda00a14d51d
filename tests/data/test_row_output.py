"""Per-row results in each format: units, resuming, and what is refused."""

from __future__ import annotations

import errno
import io
import os
import pickle
import signal
import subprocess
import sys
import time

import dask.array as da
import numpy as np
import polars as pl
import pyarrow.dataset
import pyarrow.parquet
import pytest
import zarr
from zarr.storage import LocalStore

from dgmm.data.address import kind_of
from dgmm.data.opening import open_source
from dgmm.data.outputs import output_kind
from dgmm.data.parquet_output import ParquetOutput
from dgmm.data.store import list_objects
from dgmm.data.store import read as read_object
from dgmm.data.zarr_output import ZarrOutput
from dgmm.data.zarr_store import UrlStore
from dgmm.engine.folder import file_at
from dgmm.errors import CheckpointMismatch, ForeignFile, InvalidParameter, MissingExtra, WriteFailed

ARRAYS = {
    "labels": ((95,), np.int32),
    "responsibilities": ((95, 4), np.float32),
    "log_density": ((95,), np.float64),
    "anomalies": ((95,), np.bool_),
}
IDENTITY = {"data": "abc", "model": "def"}


@pytest.fixture(params=["zarr", "parquet"])
def name(request):
    """Of an output in each format."""
    return f"out.{request.param}"


def start(path, **changes):
    given = {"arrays": ARRAYS, "chunk_rows": 10, "identity": IDENTITY, **changes}
    return output_kind(path).open(path, **given)


def values(first, last):
    rows = np.arange(first, last)
    return {
        "labels": rows.astype(np.int32),
        "responsibilities": np.repeat(rows[:, None], 4, axis=1).astype(np.float32),
        "log_density": -rows.astype(float),
        "anomalies": rows % 7 == 0,
    }


def read(path: str) -> dict[str, np.ndarray]:
    if path.endswith(".zarr"):
        group = zarr.open_group(UrlStore(path) if kind_of(path) else path, mode="r")
        return {name: group[name][:] for name in group}
    if kind_of(path):
        parts = [stored.name for stored in list_objects(path) if stored.name.endswith(".parquet")]
        table = pyarrow.concat_tables(
            pyarrow.parquet.read_table(io.BytesIO(read_object(f"{path}/{part}"))) for part in parts
        )
    else:
        table = pyarrow.dataset.dataset(path).to_table()
    columns = {name: table[name].to_numpy() for name in table.column_names}
    wide = [columns.pop(f"responsibilities_{i}") for i in range(4)]
    return {**columns, "responsibilities": np.stack(wide, axis=1)}


def test_written_whole_and_read_back(place, name):
    output = start(f"{place}/{name}")
    assert output.units[0] == (0, 10)
    assert output.units[-1] == (90, 95)
    output.write(0, 50, values(0, 50))
    for unit in output.units[5:]:
        output.write(*unit, values(*unit))
    assert not output.complete
    output.record("note", {"half": 0.5})
    output.finish()
    again = start(f"{place}/{name}")
    assert again.complete
    assert again.recorded("note") == {"half": 0.5}
    assert again.recorded("dgmm") == IDENTITY
    found = read(f"{place}/{name}")
    assert set(found) == set(ARRAYS)
    for array, expected in values(0, 95).items():
        np.testing.assert_array_equal(found[array], expected)
        assert found[array].dtype == ARRAYS[array][1]


@pytest.mark.parametrize("file", ["out.csv", "OUT.NPY", "out.h5", "out.nc", "out.pq", "out.zarr.zip", "out.csv/"])
def test_no_folder_is_named_like_a_file_of_another_format(file, place):
    with pytest.raises(InvalidParameter, match=r"named like a \.\w+ file; .* as a Zarr group or"):
        start(f"{place}/{file}")


def test_attributes_of_a_group(tmp_path):
    start(tmp_path / "out")
    assert dict(zarr.open_group(tmp_path / "out", mode="r").attrs) == {"dgmm": IDENTITY, "complete": False}


def test_resumes_with_the_missing_units(place, name):
    output = start(f"{place}/{name}")
    assert output.missing_units() == output.units
    output.write(0, 30, values(0, 30))
    output.write(90, 95, values(90, 95))
    again = start(f"{place}/{name}")
    assert again.missing_units() == output.units[3:9]
    gone, torn = {
        "out.zarr": ("log_density/c/1", "labels/c/0"),
        "out.parquet": ("part-00001.parquet", "part-00000.parquet"),
    }[name]
    folder, own = file_at(f"{place}/{name}/{gone}")
    folder.delete(own)
    folder, own = file_at(f"{place}/{name}/{torn}")
    folder.write(own, b"")  # what a power cut can leave
    assert again.missing_units() == [(0, 10), (10, 20), *output.units[3:9]]
    with pytest.raises(WriteFailed, match="8 of 10 units"):
        again.finish()


def test_zeros_count_as_written(tmp_path, name):
    output = start(tmp_path / name)
    output.write(0, 10, {name: np.zeros((10, *shape[1:])) for name, (shape, _) in ARRAYS.items()})
    assert output.missing_units() == output.units[1:]


def test_a_kill_while_creating(tmp_path):
    start(tmp_path / "out", arrays={"labels": ARRAYS["labels"]})
    assert start(tmp_path / "out").missing_units()  # the arrays that are not there yet are created


def test_pickles_small(tmp_path, name):
    output = start(tmp_path / name)
    output.write(0, 10, values(0, 10))
    copy = pickle.dumps(output)
    assert len(copy) < 1000
    pickle.loads(copy).write(10, 20, values(10, 20))
    assert output.missing_units() == output.units[2:]


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"identity": {**IDENTITY, "model": "other"}}, "another model"),
        ({"identity": {**IDENTITY, "anomaly_quantile": "0.1"}}, "another anomaly_quantile"),
        ({"chunk_rows": 20}, r"chunks of|10 a part"),
        ({"arrays": {"labels": ((95,), np.int64)}}, r"labels of shape|labels \(int32\)"),
    ],
)
def test_another_run_is_refused(tmp_path, name, changes, text):
    start(tmp_path / name)
    with pytest.raises(CheckpointMismatch, match=f"{tmp_path}/{name} holds .*({text}).*remove that folder"):
        start(tmp_path / name, **changes)


@pytest.mark.parametrize("suffix", ["", ".parquet"])
def test_foreign_folders_are_refused(tmp_path, suffix):
    (tmp_path / f"photos{suffix}").mkdir()
    start(tmp_path / f"photos{suffix}")  # an empty folder will do
    (tmp_path / f"full{suffix}").mkdir()
    (tmp_path / f"full{suffix}/file").touch()
    zarr.open_group(tmp_path / f"group{suffix}", mode="w")
    zarr.open_group(tmp_path / f"group2{suffix}", mode="w", zarr_format=2)
    zarr.create_array(tmp_path / f"array{suffix}", shape=(3,), dtype="f4")
    (tmp_path / f"file{suffix}").touch()
    (tmp_path / f"other{suffix}").mkdir()
    (tmp_path / f"other{suffix}/_dgmm.json").write_text('["no attributes"]')
    for name in ("full", "group", "group2", "array", "file", "other"):
        with pytest.raises(ForeignFile, match="remove it"):
            start(tmp_path / f"{name}{suffix}")


@pytest.mark.parametrize(("first", "last"), [(5, 10), (0, 15), (90, 100)])
def test_only_whole_units(tmp_path, name, first, last):
    with pytest.raises(ValueError, match="whole units"):
        start(tmp_path / name).write(first, last, values(first, last))


def test_values_of_another_shape(tmp_path, name):
    with pytest.raises(ValueError, match="labels of rows 0:10 has shape"):
        start(tmp_path / name).write(0, 10, values(0, 9))


def test_a_full_disk(tmp_path, name, monkeypatch):
    output = start(tmp_path / name)

    async def full(*args, **kwargs):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(LocalStore, "set", full)
    with pytest.raises(WriteFailed, match=f"{tmp_path}/{name} cannot be written: .*No space left"):
        output.write(0, 10, values(0, 10))
    with pytest.raises(WriteFailed, match="No space left"):
        output.record("note", 1)
    with pytest.raises(WriteFailed, match="No space left"):
        start(tmp_path / f"other-{name}")


def test_no_permission(tmp_path, name):
    (tmp_path / "file").touch()
    with pytest.raises((WriteFailed, ForeignFile)):
        start(tmp_path / "file" / name)


def test_on_an_object_store(name):
    pytest.importorskip("fsspec")
    output = start(f"memory://dgmm-output/{name}")
    output.write(0, 10, values(0, 10))
    assert start(f"memory://dgmm-output/{name}").missing_units() == output.units[1:]


def test_wide_responsibilities_are_cut_into_columns(tmp_path):
    arrays = {"labels": ((300_000,), np.int32), "responsibilities": ((300_000, 9), np.float64)}
    output = start(tmp_path / "out", arrays=arrays, chunk_rows=262_144)
    assert zarr.open_array(tmp_path / "out/responsibilities", mode="r").chunks == (262_144, 4)
    output.write(262_144, 300_000, {"labels": np.ones(37_856), "responsibilities": np.ones((37_856, 9))})
    assert output.missing_units() == [(0, 262_144)]
    (tmp_path / "out/responsibilities/c/1/2").unlink()
    assert len(output.missing_units()) == 2


# --- units ---------------------------------------------------------------------------------------------------


def zarr_units(data, columns, dtype=np.float64):
    return ZarrOutput.unit_rows(open_source(data), {"x": ((1, columns), dtype)})


@pytest.mark.parametrize(
    ("chunk", "columns", "expected"),
    [
        (10_000, 1, 10_000),  # 80 kB
        (8192, 1, 8192),  # 64 KiB
        (8191, 1, 65_528),  # less: eight of them
        (1_000_000, 8, 1_000_000),  # 64 MB
        (1_000_000, 9, 500_000),  # more: halved
        (999_999, 9, 932_067),  # cannot be halved: 64 MiB
        (100, 128, 100),
        (100, 8, 51_200),
        (100, 10**6, 8),  # no more than 64 MiB of rows that are 8 MB each; 100 is 4 x 25
        (3_000_000, 1, 3_000_000),
    ],
)
def test_units_are_the_chunks_of_the_input_if_their_size_is_sensible(chunk, columns, expected):
    data = da.zeros((3_000_000, 2), chunks=(chunk, 2))
    assert zarr_units(data, columns) == expected


def test_units_of_a_stored_array(tmp_path):
    data = zarr.create_array(tmp_path / "x.zarr", shape=(100_000, 3), chunks=(9000, 2), dtype="f4")
    data[:] = 1
    assert zarr_units(data, 1) == 9000, "blocks of several chunks are no reason for larger ones"
    shards = zarr.create_array(
        tmp_path / "s.zarr", shape=(100_000, 3), chunks=(9000, 3), shards=(90_000, 3), dtype="f4"
    )
    shards[:] = 1
    assert zarr_units(shards, 1) == 9000


@pytest.mark.parametrize(("columns", "expected"), [(1, 65_536), (100, 8192), (1000, 1024), (10_000, 64)])
def test_units_of_arrays_in_memory_and_of_ragged_blocks_have_a_usual_size(columns, expected):
    memory = np.broadcast_to(np.float64(1), (200_000, 30))
    assert zarr_units(memory, columns) == expected
    ragged = da.zeros((200_000, 2), chunks=((5, 199_995), 2))
    assert zarr_units(ragged, columns) == min(65_536, 2**20 // columns)


def test_a_part_holds_as_many_rows_as_memory_allows():
    def part(columns, *, chunk=1000, features=2):
        data = da.zeros((3_000_000, features), chunks=(chunk, features))
        return ParquetOutput.unit_rows(open_source(data), {"x": ((1, columns), np.float64)})

    assert part(1) == 512_000
    assert part(30) == 128_000
    assert part(1, features=127) == 32_000
    assert part(30, chunk=300_000) == 75_000


# --- tables --------------------------------------------------------------------------------------------------


def test_columns_have_the_names_that_are_given(tmp_path):
    arrays = {"labels": ((5,), np.int32, ["label"]), "top": ((5, 2), np.float32, ["first", "second"])}
    output = start(tmp_path / "out.parquet", arrays=arrays)
    output.write(0, 5, {"labels": np.arange(5), "top": np.arange(10).reshape(5, 2)})
    table = pl.read_parquet(tmp_path / "out.parquet/*.parquet")
    assert table.columns == ["label", "first", "second"]
    assert table["second"].to_list() == [1, 3, 5, 7, 9]
    assert table.dtypes == [pl.Int32, pl.Float32, pl.Float32]


def test_more_parts_than_five_digits_count_are_in_order(tmp_path):
    output = ParquetOutput(tmp_path, {"x": ((1_000_000,), "f4")}, 1)
    names = [output._part(number) for number in (0, 7, 99_999, 100_000, 999_999)]
    assert names == sorted(names)


def test_without_pyarrow(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(MissingExtra, match=r"pip install 'dgmm\[parquet\]'"):
        start(tmp_path / "out.parquet")
    assert not (tmp_path / "out.parquet").exists()


@pytest.mark.parametrize("suffix", ["", ".parquet"])
def test_a_killed_writer_leaves_no_half_object(tmp_path, suffix):
    # The chunks are large enough for the kill to fall into the middle of a write now and then.
    code = (
        "import sys, numpy as np; from dgmm.data.outputs import output_kind\n"
        "kind = output_kind(sys.argv[1])\n"
        "out = kind.open(sys.argv[1], arrays={'x': ((10**7,), 'f8')}, chunk_rows=10**6, identity={})\n"
        "values = np.random.default_rng(0).random(10**6)\n"
        "print('ready', flush=True)\n"
        "while True:\n"
        "    for unit in out.units: out.write(*unit, {'x': values})\n"
    )
    path = tmp_path / f"out{suffix}"
    for pause in (0.1, 0.15):
        writer = subprocess.Popen([sys.executable, "-c", code, str(path)], stdout=subprocess.PIPE)
        writer.stdout.readline()
        time.sleep(pause)
        os.kill(writer.pid, signal.SIGKILL)
        writer.communicate()
        output = start(path, arrays={"x": ((10**7,), "f8")}, chunk_rows=10**6, identity={})
        assert not list(path.rglob("*.partial"))
        expected = np.random.default_rng(0).random(10**6)
        for first, last in set(output.units) - set(output.missing_units()):
            if suffix:
                found = pl.read_parquet(path / f"part-{first // 10**6:05d}.parquet")["x"].to_numpy()
            else:
                found = zarr.open_array(path / "x", mode="r")[first:last]
            np.testing.assert_array_equal(found, expected)
