"""An object as a file, for libraries that want one."""

from __future__ import annotations

import io
from typing import Any, BinaryIO

from dgmm.data.store import describe, read_range

READ_AHEAD = 256 * 1024


def open_reader(url: str, *, read_ahead: int = READ_AHEAD) -> BinaryIO:
    """A file-like reader at any place of an object.

    Parameters
    ----------
    url : str
    read_ahead : int
        Bytes of a request at least.

    Raises
    ------
    FileNotFoundError, StoreError
    """
    return io.BufferedReader(_Ranges(url, describe(url).size), read_ahead)


class _Ranges(io.RawIOBase):
    """A seekable raw file; each read is one request for a range."""

    def __init__(self, url: str, size: int) -> None:
        self._url, self._size, self._at = url, size, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        self._at = offset + {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._size}[whence]
        return self._at

    def readinto(self, buffer: Any) -> int:
        stop = min(self._at + len(buffer), self._size)
        if stop <= self._at:
            return 0
        content = read_range(self._url, self._at, stop)
        buffer[: len(content)] = content
        self._at += len(content)
        return len(content)
