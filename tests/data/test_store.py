"""Objects of a real S3 server: what is written comes back, and every refusal says what to do."""

from __future__ import annotations

import os
import time

import pytest
from servers.http import amazon, silence, web_server
from servers.seaweedfs import OPEN_BUCKET

from dgmm.data import store
from dgmm.data.store_reader import open_reader
from dgmm.errors import InvalidParameter, SourceNotFound, StoreError


def test_objects_come_back(s3):
    for name in ("a/x", "a/b/y%20 z?#", "c"):
        store.write(f"{s3}/{name}", name.encode())
    assert store.read(f"{s3}/a/b/y%20 z?#") == b"a/b/y%20 z?#"
    listed = {found.name: found for found in store.list_objects(f"{s3}/a/")}
    assert listed.keys() == {"x", "b/y%20 z?#"}
    assert listed["x"].size == 3
    assert abs(listed["x"].modified - time.time()) < 3600
    assert store.describe(f"{s3}/a/x") == listed["x"]
    store.write(f"{s3}/a/x", b"other")
    assert store.describe(f"{s3}/a/x").stamp != listed["x"].stamp
    store.delete(f"{s3}/a/x")
    store.delete(f"{s3}/a/x")
    with pytest.raises(FileNotFoundError, match=f"no object {s3}/a/x"):
        store.read(f"{s3}/a/x")


def test_more_objects_than_a_page_of_a_listing(s3):
    names = {f"{number:04d}" for number in range(1100)}
    for name in names:
        store.write(f"{s3}/{name}", b"")
    assert {found.name for found in store.list_objects(s3)} == names


def test_folders_and_objects_are_told_apart(s3):
    store.write(f"{s3}/a/x", b"")
    assert store.is_folder(f"{s3}/a")
    assert not store.is_folder(f"{s3}/a/x")
    assert store.is_object(f"{s3}/a/x")
    assert not store.is_object(f"{s3}/a")
    assert store.list_objects(f"{s3}/a/xx") == []


def test_conditions_are_kept(s3):
    url = f"{s3}/x"
    first = store.put(url, b"1", None)
    with pytest.raises(FileExistsError):
        store.put(url, b"2", None)
    second = store.put(url, b"2", first)
    with pytest.raises(FileExistsError):
        store.put(url, b"3", first)
    assert store.read(url) == b"2"
    store.delete(url)
    with pytest.raises(FileExistsError):
        store.put(url, b"3", second)
    assert not store.is_object(url)


def test_nothing_to_replace_as_amazon_says_it(s3, monkeypatch):
    with amazon() as endpoint:
        monkeypatch.setenv("AWS_ENDPOINT_URL", endpoint)
        with pytest.raises(FileExistsError, match="written, or deleted, by somebody else"):
            store.put(f"{s3}/x", b"1", {"e_tag": '"1"'})
        with pytest.raises(SourceNotFound, match="does not exist"):
            store.put(f"{s3}/x", b"1", None)
        with pytest.raises(FileNotFoundError, match=f"no object {s3}/x"):
            store.read(f"{s3}/x")


def test_a_reader_at_any_place(s3):
    content = os.urandom(1_000_000)
    store.write(f"{s3}/x", content)
    with open_reader(f"{s3}/x", read_ahead=1000) as file:
        assert file.read(10) == content[:10]
        assert file.seek(-7, os.SEEK_END) == len(content) - 7
        assert file.read() == content[-7:]
        assert file.read(1) == b""
        file.seek(500_000)
        assert file.read(400_000) == content[500_000:900_000]
        assert file.tell() == 900_000
    with pytest.raises(FileNotFoundError):
        open_reader(f"{s3}/absent")


def test_no_bucket(s3):
    for ask in (lambda url: store.write(url, b""), store.list_objects, store.read):
        with pytest.raises(SourceNotFound, match=r"s3://no-such-bucket/x: s3://no-such-bucket does not exist"):
            ask("s3://no-such-bucket/x")


def test_no_key(s3):
    for url in (f"{s3}//x", f"{s3}/../x"):
        with pytest.raises(InvalidParameter, match="is no key"):
            store.read(url)


ASKS = [lambda url: store.write(url, b""), store.list_objects, store.read, store.describe]


@pytest.mark.parametrize("ask", ASKS, ids=["write", "list", "read", "describe"])
def test_wrong_secret(s3, monkeypatch, ask):
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "a-wrong-secret")
    with pytest.raises(StoreError, match=rf"{s3}/x: access is refused.*AWS_SECRET_ACCESS_KEY") as caught:
        ask(f"{s3}/x")
    assert "a-wrong-secret" not in str(caught.value)


def test_no_permission_to_write(s3, seaweed, monkeypatch):
    store.write(f"{s3}/x", b"1")
    for name, value in seaweed.environment(seaweed.reader).items():
        monkeypatch.setenv(name, value)
    assert store.read(f"{s3}/x") == b"1"
    with pytest.raises(StoreError, match=r"access is refused, 403 Forbidden \(AccessDenied\)"):
        store.write(f"{s3}/x", b"2")


def test_mended_credentials_count_at_once(s3, monkeypatch):
    store.write(f"{s3}/x", b"1")
    with monkeypatch.context() as patch:
        patch.setenv("AWS_SECRET_ACCESS_KEY", "wrong")
        with pytest.raises(StoreError):
            store.read(f"{s3}/x")
    assert store.read(f"{s3}/x") == b"1"


def test_no_credentials(s3, monkeypatch):
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    # Machines of Amazon's are asked for credentials; this one is none.
    monkeypatch.setenv("AWS_METADATA_ENDPOINT", "http://127.0.0.1:1")
    with pytest.raises(StoreError, match=r"no credentials were found\. Set AWS_ACCESS_KEY_ID"):
        store.read(f"{s3}/x")


@pytest.mark.parametrize("url", ["az://container/x", "gs://bucket/x"])
def test_no_credentials_elsewhere(s3, url):
    with pytest.raises(StoreError, match=rf"{url}: no credentials were found\. (Set AZURE|Run `gcloud)"):
        store.read(url)


def test_a_public_bucket(s3, monkeypatch):
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_SKIP_SIGNATURE", "true")
    url = f"s3://{OPEN_BUCKET}/x"
    store.write(url, b"1")
    assert store.read(url) == b"1"


def test_nobody_answers(s3, monkeypatch):
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:1")
    with pytest.raises(StoreError, match=r":1 does not answer \(Connection refused\).*AWS_ENDPOINT_URL"):
        store.read(f"{s3}/x")


def test_a_password_in_the_endpoint_is_not_repeated(s3, monkeypatch):
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://user:pass-word@127.0.0.1:1")
    with pytest.raises(StoreError, match=r"127\.0\.0\.1:1 does not answer") as caught:
        store.read(f"{s3}/x")
    assert "pass-word" not in str(caught.value)


@pytest.mark.slow
def test_an_endpoint_that_is_silent(s3, monkeypatch):
    with silence() as endpoint:
        monkeypatch.setenv("AWS_ENDPOINT_URL", endpoint)
        with pytest.raises(StoreError, match="does not answer"):
            store.read(f"{s3}/x")


def test_plain_http_has_to_be_allowed(s3, monkeypatch):
    monkeypatch.delenv("AWS_ALLOW_HTTP")
    with pytest.raises(StoreError, match="AWS_ALLOW_HTTP=true"):
        store.read(f"{s3}/x")


def test_client_options_of_the_environment_hold(s3, monkeypatch):
    monkeypatch.setenv("AWS_PROXY_URL", "http://127.0.0.1:1")
    with pytest.raises(StoreError, match="does not answer"):
        store.read(f"{s3}/x")


def profile(folder, monkeypatch, credentials, config=""):
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_REGION", "AWS_ENDPOINT_URL"):
        monkeypatch.delenv(name)
    for name, variable, text in (
        ("credentials", "AWS_SHARED_CREDENTIALS_FILE", credentials),
        ("config", "AWS_CONFIG_FILE", config),
    ):
        (folder / name).write_text(text)
        monkeypatch.setenv(variable, str(folder / name))


def test_shared_files_and_profiles(s3, seaweed, tmp_path, monkeypatch):
    pytest.importorskip("boto3")
    store.write(f"{s3}/x", b"1")
    keys = "aws_access_key_id = {0.key}\naws_secret_access_key = {0.secret}\n"
    profile(
        tmp_path,
        monkeypatch,
        f"[default]\n{keys.format(seaweed.owner)}\n[readers]\n{keys.format(seaweed.reader)}",
        f"[default]\nregion = eu-west-1\nendpoint_url = {seaweed.endpoint}\n"
        f"[profile readers]\nregion = eu-west-1\nservices = here\n"
        f"[services here]\ns3 =\n  endpoint_url = {seaweed.endpoint}\n",
    )
    store.write(f"{s3}/x", b"2")
    monkeypatch.setenv("AWS_PROFILE", "readers")
    assert store.read(f"{s3}/x") == b"2"
    with pytest.raises(StoreError, match="AccessDenied"):
        store.write(f"{s3}/x", b"3")
    monkeypatch.setenv("AWS_PROFILE", "nobody")
    with pytest.raises(StoreError, match=r"cannot be used: .*nobody"):
        store.read(f"{s3}/x")


def test_the_environment_comes_before_the_files(s3, tmp_path, monkeypatch):
    pytest.importorskip("boto3")
    kept = {name: os.environ[name] for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_ENDPOINT_URL")}
    profile(tmp_path, monkeypatch, "[default]\naws_access_key_id = other\naws_secret_access_key = other\n")
    for name, value in kept.items():
        monkeypatch.setenv(name, value)
    store.write(f"{s3}/x", b"1")


def test_a_web_server_takes_nothing_and_lists_nothing(s3, tmp_path):
    (tmp_path / "a b").write_bytes(b"1")
    with web_server(tmp_path) as url:
        assert store.read(f"{url}/a%20b") == b"1"
        assert store.describe(f"{url}/a%20b").size == 1
        assert not store.is_folder(url)
        for put in (store.write, lambda url, content: store.put(url, content, None)):
            with pytest.raises(StoreError, match="nothing can be written to a web server"):
                put(f"{url}/x", b"1")
        with pytest.raises(StoreError, match="does not support the request"):
            open_reader(f"{url}/a%20b").read(1)
        with pytest.raises(FileNotFoundError):
            store.read(f"{url}/x")
