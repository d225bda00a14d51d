"""Rows in files, which every worker opens itself."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from dgmm.data.rows import Rows
from dgmm.data.source import Source


class FileSource(Source):
    """Rows in files, one of which stays open while ranges of it are read that follow one another."""

    local = False

    def read(self, start: int, stop: int) -> Rows:
        """Rows ``start:stop``.

        Raises
        ------
        InvalidData
            A file has changed since it was opened, or cannot be decoded.
        """
        with self.reader() as read:
            return read(start, stop)

    @abstractmethod
    @contextmanager
    def reader(self) -> Iterator[Callable[[int, int], Rows]]:
        """Give a function like `read` that keeps the file open."""
