"""Addresses are told apart, and none brings a secret with it."""

from __future__ import annotations

from pathlib import Path

import pytest

from dgmm.data.address import kind_of, plain, split_name, split_url
from dgmm.errors import InvalidParameter


@pytest.mark.parametrize(
    ("address", "kind"),
    [
        ("s3://bucket/a/b", "s3"),
        ("S3://bucket", "s3"),
        ("gs://bucket/a", "gs"),
        ("az://container/a", "az"),
        ("abfss://container@account.dfs.core.windows.net/a", "az"),
        ("http://127.0.0.1:8000/a", "http"),
        ("https://[::1]:8000/a", "http"),
        ("memory://a", None),
        ("simplecache::s3://bucket/a", None),
        ("gcs::x", None),
        ("data/x.zarr", None),
        ("C:/data", None),
    ],
)
def test_kinds(address, kind):
    assert kind_of(address) == kind
    assert plain(address) == address


def test_files_are_paths():
    assert plain(Path("a/b")) == "a/b"
    assert plain("file:///data/a%20b.zarr") == "/data/a b.zarr"


@pytest.mark.parametrize(
    ("url", "root", "key"),
    [
        ("s3://bucket", "s3://bucket", ""),
        ("s3://bucket/a/b/", "s3://bucket", "a/b"),
        ("s3://bucket/a b/50%25?x#y", "s3://bucket", "a b/50%25?x#y"),
        ("https://host:8000/a%20b/c", "https://host:8000", "a b/c"),
        ("abfs://c@account.dfs.core.windows.net/a", "abfs://c@account.dfs.core.windows.net", "a"),
    ],
)
def test_roots_and_keys(url, root, key):
    assert split_url(url) == (root, key)


def test_folders_and_names():
    assert split_name("s3://bucket/a/model") == ("s3://bucket/a", "model")
    assert split_name("s3://bucket/model/") == ("s3://bucket", "model")
    assert split_name("model") == (".", "model")
    assert split_name("a/model/") == ("a", "model")
    with pytest.raises(InvalidParameter, match="is a bucket, and a file was expected"):
        split_name("s3://bucket/")


@pytest.mark.parametrize("address", ["s3://", "gs:///key", "http://"])
def test_no_bucket(address):
    with pytest.raises(InvalidParameter, match="names no"):
        plain(address)


@pytest.mark.parametrize(
    "address",
    [
        "s3://KEY:SECRET@bucket/a",
        "s3://KEY:SEC/RET@bucket/a",
        "s3://SECRET@bucket/a",
        "gs://user:SECRET@bucket/a",
        "az://account:SECRET@container/a",
        "abfss://container:SECRET@account.dfs.core.windows.net/a",
        "https://user:SECRET@host/a",
        "https://SECRET@host:80/a",
        "http://user:SEC/RET@host/a",
        "ftp://user:SECRET@host/a",
        "simplecache::ftp://user:SECRET@host/a",
        "https://host/x.zarr?X-Amz-Signature=SECRET",
        "https://host/x.zarr#SECRET",
    ],
)
def test_secrets_are_refused_and_not_repeated(address):
    with pytest.raises(InvalidParameter, match=r"user name or a password|signature") as caught:
        plain(address)
    for part in ("SECRET", "SEC", "RET", "KEY"):
        assert part not in str(caught.value).replace("secret", "")
