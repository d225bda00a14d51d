"""One file of arrays with a JSON header, for checkpoints and models.

The file is a plain ``.npz`` (NumPy opens it), stored without compression and
with fixed dates, so equal values give equal bytes. Its first member is
``header.json``; the comment that ends a zip holds a SHA-256 over every byte
before it. Nothing is parsed until that checksum holds, nothing is unpickled,
and nothing larger than the file is allocated.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import math
import platform
import zipfile
from collections.abc import Mapping, Sequence
from functools import cache
from importlib import metadata
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from dgmm.data.address import Address
from dgmm.engine.folder import Folder, file_at
from dgmm.errors import CorruptFile, ForeignFile, NewerSchema

SCHEMA = 1
"""Version of the layout; a file with a higher one is refused."""

JSON: TypeAlias = "str | int | float | bool | Sequence[JSON] | Mapping[str, JSON] | None"

_HEADER = "header.json"
_ZIP_MAGIC = b"PK\x03\x04"
_ZIP_NAME_AT = 30  # where a zip's first member name starts
_MARK = b"sha256:"
_COMMENT_SIZE = len(_MARK) + 64
_KINDS = "biufc"  # of dtypes: numbers
_OWN_ENTRIES = frozenset({"format", "schema", "kind", "versions"})


@cache
def versions() -> dict[str, str]:
    """Return the versions of Python and of the libraries that shape a result."""
    found = {"python": platform.python_version()}
    for name in ("dgmm", "numpy", "scipy", "numba"):
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            found[name] = "unknown"
    return found


def pack(kind: str, header: Mapping[str, JSON], arrays: Mapping[str, NDArray[Any]]) -> bytes:
    """Return the content of a file.

    Parameters
    ----------
    kind
        What the file is, such as ``"checkpoint"`` or ``"model"``.
    header
        Entries of the JSON header. Finite floats come back exactly, tuples
        as lists. The entries format, schema, kind and versions are added.
    arrays
        Arrays of any dtype but object. Their memory order (C or Fortran)
        is kept, because it decides the last bits of a matrix product.

    Returns
    -------
    bytes
        The same for the same arguments and library versions.

    Raises
    ------
    ValueError
        For NaN or infinity in the header, an object array, or a name that
        is not an identifier.
    """
    if taken := _OWN_ENTRIES & header.keys():
        msg = f"header entries {sorted(taken)} are written by the archive itself; rename yours"
        raise ValueError(msg)
    own = {"format": "dgmm", "schema": SCHEMA, "kind": kind, "versions": versions()}
    text = json.dumps({**header, **own}, sort_keys=True, allow_nan=False)

    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as file:
        file.writestr(zipfile.ZipInfo(_HEADER), text)
        for name in sorted(arrays):
            if not name.isidentifier():
                msg = f"array name {name!r} is not an identifier such as 'means'"
                raise ValueError(msg)
            # Sizes are known only afterwards; without zip64 a member over 2 GiB would fail.
            with file.open(zipfile.ZipInfo(f"{name}.npy"), "w", force_zip64=True) as member:
                np.lib.format.write_array(member, np.asarray(arrays[name]), allow_pickle=False)
        file.comment = _MARK + bytes(64)
    with buffer.getbuffer() as content:
        content[-64:] = hashlib.sha256(content[:-_COMMENT_SIZE]).hexdigest().encode()
    return buffer.getvalue()


def unpack(content: bytes, kind: str, name: str) -> tuple[dict[str, Any], dict[str, NDArray[Any]]]:
    """Return the header and the arrays of a file's content.

    Parameters
    ----------
    content
        All bytes of the file.
    kind
        The kind the caller expects.
    name
        What error messages call the file.

    Raises
    ------
    CorruptFile
        Truncated or altered since it was written.
    ForeignFile
        Not written by dgmm, or of another kind.
    NewerSchema
        Written by a later version of dgmm.
    """
    _verify(content, name)
    with contextlib.ExitStack() as stack:
        # The checksum holds, so only a file made to deceive fails from here on,
        # and it decides which exception the parsers raise.
        try:
            file = stack.enter_context(zipfile.ZipFile(io.BytesIO(content)))
            header = json.loads(_member(file, _HEADER, len(content)))
            json.dumps(header, allow_nan=False)  # which Python reads, but `pack` never writes
        except Exception as error:
            msg = f"{name} has no readable {_HEADER} ({error}); dgmm did not write it"
            raise ForeignFile(msg) from error
        _identify(header, kind, name)
        try:
            arrays = _arrays(file, len(content))
        except Exception as error:
            msg = f"{name} holds a member that dgmm does not write ({error}); do not use this file"
            raise CorruptFile(msg) from error
    return header, arrays


def write(address: Address, content: bytes) -> None:
    """Put a file in place at a path or URL, whole and durable, or leave what was there.

    Raises
    ------
    WriteFailed
        No room, no permission or an I/O error. The earlier file is intact,
        except where only the last step, syncing the folder, failed.
    StoreError
        The object store refuses, or does not answer.
    InvalidParameter
        A URL that cannot be written to.
    """
    folder, name = file_at(address)
    folder.write(name, content)


def read(address: Address, kind: str) -> tuple[dict[str, Any], dict[str, NDArray[Any]]]:
    """Return the header and the arrays of a file; see `unpack`.

    Raises
    ------
    CorruptFile, ForeignFile, NewerSchema
        As `unpack` does.
    ReadFailed
        No permission or an I/O error.
    FileNotFoundError
        There is no such file.
    StoreError
        The object store refuses, or does not answer.
    """
    folder, name = file_at(address)
    return read_from(folder, name, kind, str(address))


def read_from(folder: Folder, name: str, kind: str, called: str) -> tuple[dict[str, Any], dict[str, NDArray[Any]]]:
    """The same of a file in a folder; error messages call it `called`."""
    try:
        content = folder.read(name)
    except IsADirectoryError as error:
        msg = f"{called} is a folder; a dgmm {kind} file was expected"
        raise ForeignFile(msg) from error
    return unpack(content, kind, called)


def content(address: Address) -> bytes:
    """Return all bytes of a file; FileNotFoundError if there is none, `ReadFailed` where it cannot be read."""
    folder, name = file_at(address)
    return folder.read(name)


def digest(content_or_address: bytes | Address) -> str:
    """Return the SHA-256 of a whole file, in hex, as ``sha256sum`` prints it."""
    whole = content_or_address if isinstance(content_or_address, bytes) else content(content_or_address)
    return hashlib.sha256(whole).hexdigest()


def _verify(content: bytes, name: str) -> None:
    """Refuse a content whose checksum does not hold."""
    body, mark, recorded = content[:-_COMMENT_SIZE], content[-_COMMENT_SIZE:-64], content[-64:]
    if mark == _MARK and hashlib.sha256(body).hexdigest().encode() == recorded:
        return
    # Damage at one end leaves the other; a short or zeroed file is what a crash leaves.
    member = content[_ZIP_NAME_AT : _ZIP_NAME_AT + len(_HEADER)]
    starts_like_ours = _ZIP_MAGIC.startswith(content[:4]) and _HEADER.encode().startswith(member)
    zeroed = not any(content[: _ZIP_NAME_AT + len(_HEADER)])
    if starts_like_ours or zeroed or mark == _MARK:
        msg = (
            f"{name} is damaged: its {len(content)} bytes do not match their checksum. It was truncated or "
            "altered after it was written; restore it from a copy, or remove it and compute it again"
        )
        raise CorruptFile(msg)
    msg = f"{name} was not written by dgmm: it has neither dgmm's header nor its checksum"
    raise ForeignFile(msg)


def _identify(header: Any, kind: str, name: str) -> None:
    """Refuse a file of another program, of a later schema or of another kind."""
    if not isinstance(header, dict) or header.get("format") != "dgmm":
        msg = f"{name} was not written by dgmm: its header does not say so"
        raise ForeignFile(msg)
    schema = header.get("schema")
    if not isinstance(schema, int) or schema > SCHEMA:
        written_by = header.get("versions")
        msg = (
            f"{name} has schema {schema!r}, but this dgmm reads up to {SCHEMA}. It was written with "
            f"{written_by}; upgrade dgmm to use it"
        )
        raise NewerSchema(msg)
    if header.get("kind") != kind:
        msg = f"{name} is a dgmm {header.get('kind')} file, but a {kind} file was expected; pass another file"
        raise ForeignFile(msg)
    written_with = header.get("versions")
    if not isinstance(written_with, dict) or not all(isinstance(text, str) for text in written_with.values()):
        msg = f"{name} does not say which versions wrote it; dgmm did not write it"
        raise ForeignFile(msg)


def _member(file: zipfile.ZipFile, name: str, limit: int) -> bytes:
    """Return the bytes of a stored member, which cannot exceed those of the file."""
    info = file.getinfo(name)
    if info.compress_type != zipfile.ZIP_STORED or info.file_size > limit:
        msg = f"{name} is compressed or larger than the file"
        raise ValueError(msg)
    return file.read(info)


def _arrays(file: zipfile.ZipFile, size: int) -> dict[str, NDArray[Any]]:
    """Read every array; together they cannot exceed the size of the file."""
    names = [name for name in file.namelist() if name != _HEADER]
    if len(set(names)) != len(names) or sum(info.file_size for info in file.infolist()) > size:
        msg = "members overlap"
        raise ValueError(msg)
    return {name.removesuffix(".npy"): _array(_member(file, name, size), name) for name in names}


def _array(content: bytes, name: str) -> NDArray[Any]:
    stream = io.BytesIO(content)
    version = np.lib.format.read_magic(stream)
    header_of = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
    shape, _, dtype = header_of[version](stream)
    # read_array allocates what the header claims before it looks for the values.
    if dtype.kind not in _KINDS or math.prod(shape) * dtype.itemsize != len(content) - stream.tell():
        msg = f"{name} claims {dtype} values of shape {shape}, which it does not hold"
        raise ValueError(msg)
    stream.seek(0)
    array: NDArray[Any] = np.lib.format.read_array(stream, allow_pickle=False)
    return array
