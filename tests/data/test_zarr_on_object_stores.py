"""Zarr arrays on a real S3 server and on a plain web server."""

from __future__ import annotations

import os
import pickle
import shutil

import numpy as np
import obstore
import pytest
import xarray
import zarr
from obstore.store import S3Store
from servers.http import web_server
from zarr.storage import ObjectStore

from dgmm.data import store
from dgmm.data.opening import open_source
from dgmm.data.source import iter_blocks
from dgmm.data.zarr_array import ZarrSource
from dgmm.data.zarr_store import UrlStore
from dgmm.errors import InvalidData, MissingChunks, SourceNotFound, StoreError

ROWS = np.random.default_rng(1).normal(size=(100, 3))


def gather(source):
    return np.concatenate([block.rows for block in iter_blocks(source.block_input(0, source.n_blocks))])


@pytest.fixture
def stored(s3):
    """The URL of a plain array of 20 chunks."""
    zarr.create_array(UrlStore(f"{s3}/x.zarr"), data=ROWS, chunks=(10, 2))
    return f"{s3}/x.zarr"


@pytest.mark.parametrize(
    "layout",
    [
        {"chunks": (10, 2)},
        {"chunks": (10, 2), "zarr_format": 2},
        {"chunks": (10, 1), "shards": (50, 2)},
        {"chunks": (33, 3), "compressors": None},
    ],
    ids=["format 3", "format 2", "shards", "plain"],
)
def test_layouts(s3, layout):
    zarr.create_array(UrlStore(f"{s3}/x"), data=ROWS, **layout)
    source = open_source(f"{s3}/x")
    assert source.name == f"{s3}/x"
    assert not source.local
    np.testing.assert_array_equal(gather(source), ROWS)


def test_a_pass_reads_the_bytes_of_the_chunks_once(stored, seaweed):
    source = open_source(stored).rows(np.array([0, 25, 50, 75, 100]))  # blocks cut through chunks
    before = seaweed.bytes_sent()
    gather(source)
    assert seaweed.bytes_sent() - before == sum(found.size for found in store.list_objects(f"{stored}/c"))


def test_a_pickle_holds_the_url_and_no_credentials(stored, seaweed, monkeypatch):
    content = pickle.dumps(open_source(stored).block_input(0, 1))
    assert stored.encode() in content
    for secret in (seaweed.owner.key, seaweed.owner.secret):
        assert secret.encode() not in content
    for name, value in seaweed.environment(seaweed.reader).items():
        monkeypatch.setenv(name, value)
    received = pickle.loads(content)
    np.testing.assert_array_equal(np.concatenate([block.rows for block in iter_blocks(received)]), ROWS)


def test_a_pickle_holds_no_credentials_of_a_profile_either(stored, seaweed, monkeypatch, tmp_path):
    pytest.importorskip("boto3")
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    keys = f"aws_access_key_id = {seaweed.reader.key}\naws_secret_access_key = {seaweed.reader.secret}\n"
    (tmp_path / "credentials").write_text(f"[default]\n{keys}")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "credentials"))
    source = open_source(stored)
    np.testing.assert_array_equal(gather(source), ROWS)
    content = pickle.dumps(source)
    for secret in (seaweed.reader.key, seaweed.reader.secret):
        assert secret.encode() not in content


def test_arriving_asks_nobody(stored, monkeypatch):
    content = pickle.dumps(open_source(stored))
    with monkeypatch.context() as patch:
        patch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:1")
        source = pickle.loads(content)  # as in a scheduler, which has no credentials
        with pytest.raises(StoreError, match="does not answer"):
            source.read(0, 10)
    np.testing.assert_array_equal(source.read(0, 10), ROWS[:10])


def test_the_fingerprint_follows_the_etags(stored):
    first = open_source(stored).fingerprint()
    assert open_source(stored).fingerprint() == first
    chunk = store.read(f"{stored}/c/3/0")
    store.write(f"{stored}/c/3/0", store.read(f"{stored}/c/4/0"))
    assert open_source(stored).fingerprint() != first
    store.write(f"{stored}/c/3/0", chunk)
    assert open_source(stored).fingerprint() == first


def test_missing_and_vanished_chunks(stored):
    source = open_source(stored)
    store.delete(f"{stored}/c/3/1")
    with pytest.raises(MissingChunks, match=r"c/3/1 .*gone now"):
        source.read(0, 100)
    with pytest.raises(MissingChunks, match=r"1 of 20 chunks .*first: c/3/1"):
        open_source(stored)
    filled = ROWS.copy()
    filled[30:40, 2] = 0
    np.testing.assert_array_equal(gather(open_source(stored, missing_chunks="fill")), filled)


def test_a_truncated_chunk(stored):
    source = open_source(stored)
    store.write(f"{stored}/c/4/1", store.read(f"{stored}/c/4/1")[:-9])
    with pytest.raises(InvalidData, match=r"Chunk c/4/1 of .*cannot be decoded"):
        source.read(0, 100)


def test_groups_and_what_is_no_array(stored, s3):
    group = zarr.open_group(UrlStore(f"{s3}/g"), mode="w")
    group.create_array("inner/x", data=ROWS, chunks=(10, 3))
    with pytest.raises(InvalidData, match=rf"inner/x \(100, 3\) float64.*{s3}/g/inner/x"):
        open_source(f"{s3}/g")
    np.testing.assert_array_equal(gather(open_source(f"{s3}/g/inner/x")), ROWS)
    with pytest.raises(SourceNotFound, match=rf"{s3}/nothing\. Check the address"):
        open_source(f"{s3}/nothing")
    with pytest.raises(SourceNotFound, match=r"20 objects below .*/c \(0/0, .*not a Zarr array"):
        open_source(f"{stored}/c")
    with pytest.raises(SourceNotFound, match="s3://no-such-bucket does not exist"):
        open_source("s3://no-such-bucket/x.zarr")


def test_refused_and_unreachable(stored, monkeypatch):
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wrong")
    with pytest.raises(StoreError, match=f"{stored}/.*access is refused"):
        open_source(stored)
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:1")
    with pytest.raises(StoreError, match=f"{stored}.*does not answer"):
        open_source(stored)


def test_refusals_in_a_pass_are_no_broken_chunks(stored, monkeypatch):
    content = pickle.dumps(open_source(stored))
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wrong")
    with pytest.raises(StoreError, match="access is refused"):
        pickle.loads(content).read(0, 10)


def test_an_array_that_the_user_has_opened(stored):
    bucket, _, prefix = stored.removeprefix("s3://").partition("/")
    array = zarr.open_array(ObjectStore(S3Store(bucket, prefix=prefix), read_only=True), mode="r")
    source = open_source(array)
    np.testing.assert_array_equal(gather(source), ROWS)
    assert source.fingerprint() == open_source(stored).fingerprint()


def test_memory_of_obstore_stays_here():
    memory = ObjectStore(obstore.store.MemoryStore())
    source = ZarrSource(zarr.create_array(memory, data=ROWS, chunks=(10, 2)))
    assert source.local
    np.testing.assert_array_equal(gather(source), ROWS)


@pytest.mark.parametrize("zarr_format", [2, 3])
def test_a_web_server(tmp_path, zarr_format):
    zarr.create_array(tmp_path / "a b.zarr", data=ROWS, chunks=(10, 2), zarr_format=zarr_format)
    with web_server(tmp_path) as url:
        source = open_source(f"{url}/a%20b.zarr")
        np.testing.assert_array_equal(gather(source), ROWS)
        np.testing.assert_array_equal(gather(pickle.loads(pickle.dumps(source))), ROWS)
        first = source.fingerprint()
        chunk = tmp_path / "a b.zarr" / ("c/3/1" if zarr_format == 3 else "3.1")
        os.utime(chunk, (0, 0))
        assert open_source(f"{url}/a%20b.zarr").fingerprint() != first
        chunk.unlink()
        with pytest.raises(MissingChunks, match="1 of 20 chunks"):
            open_source(f"{url}/a%20b.zarr")
        with pytest.raises(MissingChunks, match="gone now"):
            source.read(0, 100)
        with pytest.raises(SourceNotFound, match="Check the address"):
            open_source(f"{url}/nothing.zarr")


def test_a_web_server_of_groups_and_shards(tmp_path):
    group = zarr.open_group(tmp_path / "g", mode="w")
    group.create_array("x", data=ROWS, chunks=(10, 3))
    with web_server(tmp_path) as url:
        with pytest.raises(InvalidData, match=f"Name one of its arrays: {url}/g/ARRAY"):
            open_source(f"{url}/g")
        np.testing.assert_array_equal(gather(open_source(f"{url}/g/x")), ROWS)
        shutil.rmtree(tmp_path / "g/x")
        group.create_array("x", data=ROWS, chunks=(10, 3), shards=(50, 3))
        with pytest.raises(StoreError, match=r"does not support the request .*range"):
            open_source(f"{url}/g/x")


@pytest.fixture
def ocean():
    values = np.random.default_rng(2).normal(size=(4, 6, 8))
    values[:, 2, 3] = np.nan
    return xarray.Dataset(
        {name: (("time", "lat", "lon"), sign * values) for name, sign in (("temp", 1), ("salt", -1))},
        {"time": np.arange(4), "lat": np.arange(6.0), "lon": np.arange(8.0)},
    )


BOTH = ("temp", "salt")
ENCODING = {name: {"chunks": (2, 6, 8)} for name in BOTH}


def test_a_grid(s3, ocean, seaweed):
    ocean.to_zarr(UrlStore(f"{s3}/ocean"), encoding=ENCODING, consolidated=False)
    source = open_source(f"{s3}/ocean", variables=BOTH)
    expected = open_source(ocean, variables=BOTH)
    assert source.name == f"{s3}/ocean"
    np.testing.assert_array_equal(gather(source), gather(expected))
    content = pickle.dumps(source.block_input(0, 1))
    assert seaweed.owner.secret.encode() not in content
    first = source.fingerprint()
    assert open_source(f"{s3}/ocean", variables=BOTH).fingerprint() == first
    store.write(f"{s3}/ocean/temp/c/0/0/0", store.read(f"{s3}/ocean/temp/c/1/0/0"))
    assert open_source(f"{s3}/ocean", variables=BOTH).fingerprint() != first
    with pytest.raises(SourceNotFound, match=f"{s3}/oceans"):
        open_source(f"{s3}/oceans")


def test_a_grid_whose_store_refuses(s3, ocean, monkeypatch):
    ocean.to_zarr(UrlStore(f"{s3}/ocean"), encoding=ENCODING, consolidated=False)
    node = zarr.open_group(UrlStore(f"{s3}/ocean", read_only=True), mode="r")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wrong")
    with pytest.raises(StoreError, match="access is refused"):
        open_source(pickle.loads(pickle.dumps(node)))


def test_a_grid_on_a_web_server(tmp_path, ocean):
    ocean.to_zarr(tmp_path / "listed", encoding=ENCODING, consolidated=True, zarr_format=2)
    ocean.to_zarr(tmp_path / "unlisted", encoding=ENCODING, consolidated=False, zarr_format=2)
    with web_server(tmp_path) as url:
        np.testing.assert_array_equal(
            gather(open_source(f"{url}/listed", variables=BOTH)), gather(open_source(ocean, variables=BOTH))
        )
        with pytest.raises(InvalidData, match="Name one of its arrays"):
            open_source(f"{url}/unlisted")
