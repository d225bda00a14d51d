"""A file comes back as it was written, or says why not; it never executes anything."""

from __future__ import annotations

import errno
import io
import json
import math
import pickle
import zipfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from dgmm.engine import archive
from dgmm.errors import CorruptFile, FileError, ForeignFile, NewerSchema, ReadFailed

DTYPES = (
    hnp.floating_dtypes(endianness="?")
    | hnp.integer_dtypes(endianness="?")
    | hnp.unsigned_integer_dtypes(endianness="?")
    | hnp.complex_number_dtypes()
    | hnp.boolean_dtypes()
)
ARRAYS = hnp.arrays(DTYPES, hnp.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=4))
SCALARS = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text()
JSON_VALUES = st.recursive(SCALARS, lambda v: st.lists(v, max_size=3) | st.dictionaries(st.text(), v, max_size=3))
NAMES = st.from_regex(r"[a-z_][a-z0-9_]{0,8}", fullmatch=True)
HEADERS = st.dictionaries(st.text().filter(lambda k: k not in archive._OWN_ENTRIES), JSON_VALUES, max_size=4)


def small() -> bytes:
    return archive.pack("model", {"n": 3, "tol": 1e-5}, {"a": np.arange(3.0), "b": np.array(7, np.int8)})


def sealed(members: dict[str, bytes], compression: int = zipfile.ZIP_STORED) -> bytes:
    """A zip of these members whose checksum holds: what somebody else could make."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", compression) as file:
        for name, content in members.items():
            file.writestr(name, content)
        file.comment = b"sha256:" + bytes(64)
    body = buffer.getvalue()[:-71]
    return body + b"sha256:" + archive.digest(body).encode()


def header_text(**entries: object) -> bytes:
    return json.dumps({"format": "dgmm", "schema": 1, "kind": "model", "versions": {}, **entries}).encode()


def npy(array: np.ndarray, **options: bool) -> bytes:
    buffer = io.BytesIO()
    np.lib.format.write_array(buffer, array, **options)
    return buffer.getvalue()


@settings(max_examples=150, deadline=None)
@given(HEADERS, st.dictionaries(NAMES, ARRAYS, max_size=3))
def test_headers_and_arrays_come_back_exactly(header, arrays):
    content = archive.pack("checkpoint", header, arrays)
    found, back = archive.unpack(content, "checkpoint", "f")
    assert {key: found[key] for key in header} == header
    assert back.keys() == arrays.keys()
    for name, array in arrays.items():
        assert back[name].dtype == array.dtype
        assert back[name].shape == array.shape
        assert back[name].tobytes() == array.tobytes()
        assert back[name].flags.writeable
    assert archive.pack("checkpoint", header, arrays) == content


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_floats_in_a_header_keep_every_bit(value):
    header, _ = archive.unpack(archive.pack("model", {"x": value}, {}), "model", "f")
    assert math.copysign(1, header["x"]) == math.copysign(1, value)
    assert header["x"] == value


def test_memory_order_is_kept():
    array = np.asfortranarray(np.arange(6.0).reshape(2, 3))
    _, back = archive.unpack(archive.pack("model", {}, {"a": array}), "model", "f")
    assert back["a"].flags.f_contiguous
    assert not back["a"].flags.c_contiguous


def test_the_file_is_a_plain_npz(tmp_path):
    path = tmp_path / "m.npz"
    archive.write(path, small())
    with np.load(path, allow_pickle=False) as file:
        np.testing.assert_array_equal(file["a"], [0, 1, 2])
    with zipfile.ZipFile(path) as file:
        assert file.testzip() is None
        assert file.namelist() == ["header.json", "a.npy", "b.npy"]
        assert {info.compress_type for info in file.infolist()} == {zipfile.ZIP_STORED}
        assert {info.date_time for info in file.infolist()} == {(1980, 1, 1, 0, 0, 0)}
        text = file.read("header.json").decode()
    header = json.loads(text)
    assert text == json.dumps(header, sort_keys=True)
    assert header.pop("versions").keys() == {"dgmm", "numba", "numpy", "python", "scipy"}
    assert header == {"format": "dgmm", "schema": 1, "kind": "model", "n": 3, "tol": 1e-5}
    assert archive.digest(path) == archive.digest(path.read_bytes())


def test_a_file_at_any_address(place):
    address = f"{place}/model.dgmm"
    with pytest.raises(FileNotFoundError):
        archive.read(address, "model")
    for content in (b"what was there before", small()):
        archive.write(address, content)
        assert archive.content(address) == content
    assert archive.read(address, "model")[0]["n"] == 3
    assert archive.digest(address) == archive.digest(small())
    archive.write(address, small()[:-1])
    with pytest.raises(CorruptFile, match=f"{address} is damaged"):
        archive.read(address, "model")


@pytest.mark.parametrize("value", [math.nan, math.inf, {"deep": [-math.inf]}])
def test_nan_in_a_header_is_refused(value):
    with pytest.raises(ValueError, match="not JSON compliant"):
        archive.pack("model", {"x": value}, {})


def test_what_cannot_be_packed_is_refused():
    with pytest.raises(ValueError, match="Object arrays"):
        archive.pack("model", {}, {"a": np.array([None])})
    with pytest.raises(ValueError, match="not an identifier"):
        archive.pack("model", {}, {"../a": np.zeros(1)})
    with pytest.raises(ValueError, match=r"\['kind'\] are written by the archive"):
        archive.pack("model", {"kind": "x"}, {})


def test_a_foreign_file_is_told_from_a_damaged_one():
    plain = io.BytesIO()
    np.savez(plain, a=np.zeros(3))
    for content in (b"some text", plain.getvalue(), b"\x89PNG" + bytes(200), sealed({"header.json": b"[1]"})):
        with pytest.raises(ForeignFile, match="not written by dgmm"):
            archive.unpack(content, "model", "f")
    with pytest.raises(ForeignFile, match="did not write it"):
        archive.unpack(sealed({"other": b""}), "model", "f")


def test_another_kind_is_refused_naming_both():
    with pytest.raises(ForeignFile, match="f is a dgmm model file, but a checkpoint file was expected"):
        archive.unpack(small(), "checkpoint", "f")


def test_a_newer_schema_is_refused_before_its_members_are_read():
    content = sealed({"header.json": header_text(schema=2, versions={"dgmm": "9.0"}), "a.new": b"?"})
    with pytest.raises(NewerSchema, match=r"schema 2, but this dgmm reads up to 1.*9\.0.*upgrade"):
        archive.unpack(content, "model", "f")


class Bomb:
    def __reduce__(self):
        return (pytest.fail, ("a pickle was executed",))


def test_nothing_is_executed_or_allocated_beyond_the_file():
    header = header_text()
    huge = npy(np.zeros(1)).replace(b"(1,), }" + b" " * 9, b"(9999999999,), }")
    assert np.lib.format.read_array_header_1_0(io.BytesIO(huge[8:]))[0] == (9999999999,)
    cases = {
        "object array": sealed({"header.json": header, "a.npy": npy(np.array([Bomb()]), allow_pickle=True)}),
        "pickle": sealed({"header.json": header, "a.npy": pickle.dumps(Bomb())}),
        "huge": sealed({"header.json": header, "a.npy": huge}),
        "trailing": sealed({"header.json": header, "a.npy": npy(np.zeros(1)) + b"more"}),
    }
    for name, content in cases.items():
        with pytest.raises(CorruptFile, match="does not write"):
            archive.unpack(content, "model", name)
    compressed = sealed({"header.json": header, "a.npy": npy(np.zeros(9999))}, zipfile.ZIP_DEFLATED)
    with pytest.raises(FileError, match="compressed"):
        archive.unpack(compressed, "model", "f")


def test_reading_what_is_no_file(tmp_path, monkeypatch):
    with pytest.raises(FileNotFoundError):
        archive.read(tmp_path / "absent", "model")
    with pytest.raises(ForeignFile, match="is a folder"):
        archive.read(tmp_path, "model")

    def broken(_):
        raise OSError(errno.EIO, "bad sector")

    monkeypatch.setattr(Path, "read_bytes", broken)
    with pytest.raises(ReadFailed, match=f"cannot read {tmp_path}/f: bad sector; try again") as caught:
        archive.read(tmp_path / "f", "model")
    assert caught.value.errno == errno.EIO
