"""Files of text, be they compressed or not."""

from __future__ import annotations

import bz2
import gzip
import lzma
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import PurePath
from typing import Any, BinaryIO, NamedTuple

from dgmm.data.files import StoredFile, is_of_storage
from dgmm.errors import InvalidData

_READ_AHEAD = 4 * 2**20


class _Compression(NamedTuple):
    """How a file is decompressed.

    Attributes
    ----------
    open : callable
        A file object to one of what it holds.
    bytes : int
        Memory that it takes, by the strongest setting of whoever compressed.
    """

    open: Callable[[BinaryIO], Any]
    bytes: int


_COMPRESSIONS = {
    ".gz": _Compression(gzip.open, 2**16),
    ".bz2": _Compression(bz2.open, 2**22),
    ".xz": _Compression(lzma.open, 2**26),
}
COMPRESSED = tuple(_COMPRESSIONS)
"""How the names of files end that are decompressed as they are read."""


def _compression(file: StoredFile) -> _Compression | None:
    return _COMPRESSIONS.get(PurePath(file.path).suffix.lower())


def is_compressed(file: StoredFile) -> bool:
    """Whether any place in it is reached from its beginning alone."""
    return _compression(file) is not None


def decompression_bytes(file: StoredFile) -> int:
    """Memory that reading it takes besides the text."""
    compression = _compression(file)
    return 0 if compression is None else compression.bytes + _READ_AHEAD


@contextmanager
def open_text(file: StoredFile) -> Iterator[BinaryIO]:
    """Open a file for reading, unless it has changed; it can be sought in, forward at the cost of reading.

    Raises
    ------
    InvalidData
        It has changed since it was opened, or cannot be decompressed.
    """
    compression = _compression(file)
    if compression is None:
        with file.open() as opened:
            yield opened
        return
    with file.open(_READ_AHEAD) as stored:
        try:
            with compression.open(stored) as opened:
                yield opened
        except (EOFError, OSError, zlib.error, lzma.LZMAError) as error:
            if is_of_storage(error):
                raise
            msg = f"{file.path} cannot be decompressed: {error}. It is damaged: restore it from a copy."
            raise InvalidData(msg) from error
