"""Per-row results: units, resuming, and what is refused."""

from __future__ import annotations

import errno
import os
import pickle
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import zarr
from servers.http import web_server
from zarr.storage import LocalStore

from dgmm.data.address import kind_of
from dgmm.data.output import RowOutput, unit_rows
from dgmm.data.zarr_store import UrlStore
from dgmm.engine.folder import folder_at
from dgmm.errors import CheckpointMismatch, ForeignFile, WriteFailed

ARRAYS = {
    "labels": ((95,), np.int32),
    "responsibilities": ((95, 4), np.float32),
    "log_density": ((95,), np.float64),
}
IDENTITY = {"data": "abc", "model": "def"}


def start(path, **changes):
    return RowOutput.open(path, **{"arrays": ARRAYS, "chunk_rows": 10, "identity": IDENTITY, **changes})


def opened(address):
    return UrlStore(address) if kind_of(address) else address


def values(first, last):
    rows = np.arange(first, last)
    return {
        "labels": rows.astype(np.int32),
        "responsibilities": np.repeat(rows[:, None], 4, axis=1).astype(np.float32),
        "log_density": -rows.astype(float),
    }


def test_written_whole_and_read_back(place):
    path = f"{place}/out.zarr"
    output = start(path)
    assert output.units[0] == (0, 10)
    assert output.units[-1] == (90, 95)
    for unit in output.units:
        output.write(*unit, values(*unit))
    assert not output.complete
    output.finish()
    assert start(path).complete
    group = zarr.open_group(opened(path), mode="r")
    assert dict(group.attrs) == {"dgmm": IDENTITY, "complete": True}
    assert {name for name, _ in group.members()} == set(ARRAYS)
    for name, expected in values(0, 95).items():
        np.testing.assert_array_equal(group[name][:], expected)
        assert group[name].dtype == ARRAYS[name][1]


def test_resumes_with_the_missing_units(place):
    output = start(f"{place}/out")
    assert output.missing_units() == output.units
    output.write(0, 30, values(0, 30))
    output.write(90, 95, values(90, 95))
    again = start(f"{place}/out")
    assert again.missing_units() == output.units[3:9]
    folder_at(f"{place}/out/log_density/c").delete("1")
    folder_at(f"{place}/out/labels/c").write("0", b"")  # what a power cut can leave
    assert again.missing_units() == [(0, 10), (10, 20), *output.units[3:9]]
    with pytest.raises(WriteFailed, match="8 of 10 units"):
        again.finish()


def test_zeros_count_as_written(place):
    output = start(f"{place}/out")
    output.write(0, 10, {name: np.zeros((10, *shape[1:])) for name, (shape, _) in ARRAYS.items()})
    assert output.missing_units() == output.units[1:]


def test_a_kill_while_creating(place):
    start(f"{place}/out", arrays={"labels": ARRAYS["labels"]})
    assert start(f"{place}/out").missing_units()  # the arrays that are not there yet are created


def test_pickles_small(place):
    output = start(f"{place}/out")
    output.write(0, 10, values(0, 10))
    copy = pickle.dumps(output)
    assert len(copy) < 1000
    assert os.environ.get("AWS_SECRET_ACCESS_KEY", "none here").encode() not in copy
    pickle.loads(copy).write(10, 20, values(10, 20))
    assert output.missing_units() == output.units[2:]


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"identity": {**IDENTITY, "model": "other"}}, "another model"),
        ({"chunk_rows": 20}, "chunks of"),
        ({"arrays": {"labels": ((95,), np.int64)}}, "labels of shape"),
    ],
)
def test_another_run_is_refused(place, changes, text):
    start(f"{place}/out")
    with pytest.raises(CheckpointMismatch, match=f"{place}/out holds .*{text}.*remove that folder"):
        start(f"{place}/out", **changes)


def test_foreign_folders_are_refused(place):
    for name in ("photos", "full"):
        folder_at(f"{place}/{name}").make()
    start(f"{place}/photos")  # an empty folder will do
    folder_at(f"{place}/full").write("file", b"")
    zarr.open_group(opened(f"{place}/group"), mode="w")
    zarr.open_group(opened(f"{place}/group2"), mode="w", zarr_format=2)
    zarr.create_array(opened(f"{place}/array"), shape=(3,), dtype="f4")
    folder_at(place).write("file", b"")
    for name in ("full", "group", "group2", "array", "file"):
        with pytest.raises(ForeignFile, match="remove it"):
            start(f"{place}/{name}")


@pytest.mark.parametrize(("first", "last"), [(5, 10), (0, 15), (90, 100)])
def test_only_whole_units(tmp_path, first, last):
    with pytest.raises(ValueError, match="whole units"):
        start(tmp_path / "out").write(first, last, values(first, last))


def test_values_of_another_shape(tmp_path):
    with pytest.raises(ValueError, match="labels of rows 0:10 has shape"):
        start(tmp_path / "out").write(0, 10, values(0, 9))


def test_a_full_disk(tmp_path, monkeypatch):
    output = start(tmp_path / "out")

    async def full(*args, **kwargs):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(LocalStore, "set", full)
    with pytest.raises(WriteFailed, match=f"{tmp_path}/out cannot be written: .*No space left"):
        output.write(0, 10, values(0, 10))
    with pytest.raises(WriteFailed, match="No space left"):
        start(tmp_path / "other")


def test_no_permission(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises((WriteFailed, ForeignFile)):
        start(tmp_path / "file/out")


def test_on_a_filesystem_of_fsspec():
    fsspec = pytest.importorskip("fsspec")
    output = start("memory://dgmm-output/out")
    output.write(0, 10, values(0, 10))
    assert start("memory://dgmm-output/out").missing_units() == output.units[1:]
    fsspec.filesystem("memory").pipe("/dgmm-output/full/file", b"")
    with pytest.raises(ForeignFile, match="remove it"):
        start("memory://dgmm-output/full")


def test_an_object_store_that_refuses(s3, seaweed, monkeypatch, tmp_path):
    output = start(f"{s3}/out")
    for name, value in seaweed.environment(seaweed.reader).items():
        monkeypatch.setenv(name, value)
    with pytest.raises(WriteFailed, match=f"{s3}/out cannot be written.*access is refused.*AWS_PROFILE"):
        pickle.loads(pickle.dumps(output)).write(0, 10, values(0, 10))
    with pytest.raises(WriteFailed, match=f"{s3}/other cannot be written.*access is refused"):
        start(f"{s3}/other")
    with pytest.raises(WriteFailed, match=r"s3://no-such-bucket does not exist.*create it"):
        start("s3://no-such-bucket/out")
    with web_server(tmp_path) as url, pytest.raises(WriteFailed, match="nothing can be written to a web server"):
        start(f"{url}/out")


def test_wide_responsibilities_are_cut_into_columns(tmp_path):
    arrays = {"labels": ((300_000,), np.int32), "responsibilities": ((300_000, 9), np.float64)}
    output = start(tmp_path / "out", arrays=arrays, chunk_rows=262_144)
    assert zarr.open_array(tmp_path / "out/responsibilities", mode="r").chunks == (262_144, 4)
    output.write(262_144, 300_000, {"labels": np.ones(37_856), "responsibilities": np.ones((37_856, 9))})
    assert output.missing_units() == [(0, 262_144)]
    (tmp_path / "out/responsibilities/c/1/2").unlink()
    assert len(output.missing_units()) == 2


@pytest.mark.parametrize(
    ("bounds", "row_bytes", "expected"),
    [
        ([0, 65536, 131072, 140000], 8, 65536),
        ([0, 1000, 2000, 2500], 8, 64_000),
        ([0, 1000, 2000, 2500], 8192, 1000),
        ([0, 500_000, 700_000], 8, 500_000),
        ([0, 5, 700_000], 8, 65536),
        ([0, 5], 8, 40960),
    ],
)
def test_units_suit_the_blocks(bounds, row_bytes, expected):
    assert unit_rows(np.array(bounds), row_bytes) == expected


def test_a_killed_writer_leaves_no_half_chunk(place, tmp_path):
    path = f"{place}/out"
    # The chunks are large enough for the kill to fall into the middle of a write now and then.
    code = (
        "import sys, numpy as np; from dgmm.data.output import RowOutput\n"
        "out = RowOutput.open(sys.argv[1], arrays={'x': ((10**7,), 'f8')}, chunk_rows=10**6, identity={})\n"
        "values = np.random.default_rng(0).random(10**6)\n"
        "print('ready', flush=True)\n"
        "while True:\n"
        "    for unit in out.units: out.write(*unit, {'x': values})\n"
    )
    for pause in (0.1, 0.15):
        writer = subprocess.Popen([sys.executable, "-c", code, path], stdout=subprocess.PIPE)
        writer.stdout.readline()
        time.sleep(pause)
        os.kill(writer.pid, signal.SIGKILL)
        writer.communicate()
        output = RowOutput.open(path, arrays={"x": ((10**7,), "f8")}, chunk_rows=10**6, identity={})
        assert not list((tmp_path / "out").rglob("*.partial"))
        missing = output.missing_units()
        expected = np.random.default_rng(0).random(10**6)
        array = zarr.open_array(opened(f"{path}/x"), mode="r")
        for unit in set(output.units) - set(missing):
            np.testing.assert_array_equal(array[slice(*unit)], expected)
