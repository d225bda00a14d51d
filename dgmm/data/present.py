"""Rows of another source without those that miss a value, closed up."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from dgmm.data.blocks import Block
from dgmm.data.rows import Rows
from dgmm.data.source import Source
from dgmm.errors import InvalidData


class PresentSource(Source):
    """Rows that miss no value, given how many there are in each block of a source.

    Parameters
    ----------
    source : Source
    counts : sequence of int, length source.n_blocks

    Raises
    ------
    InvalidData
        There is none.
    """

    def __init__(self, source: Source, counts: Sequence[int]) -> None:
        self._source, self._stored = source, source.bounds
        self.name, self.local, self.dtype = source.name, source.local, source.dtype
        self.n_features, self.feature_names = source.n_features, source.feature_names
        self.reads_ahead, self.run_length = source.reads_ahead, source.run_length
        self._ends = np.concatenate([[0], np.cumsum(counts, dtype=np.int64)]).astype(np.int64)
        self.n_rows = int(self._ends[-1])
        if not self.n_rows:
            msg = f"each of the {source.n_rows} rows of {source.name} has a missing value: nothing is left"
            raise InvalidData(msg)
        self.bounds = np.unique(self._ends)

    @property
    def read_bytes(self) -> int:
        row_bytes = self.n_features * self.dtype.itemsize
        block_rows = int(np.diff(self.bounds).max(initial=0))
        if not np.isin(self.bounds, self._ends).all():
            # What is left of the blocks read last, those that follow, and a block that is joined of both.
            block_rows = 3 * block_rows + 2 * int(np.diff(self._ends).max())
        return self._source.read_bytes + int(np.diff(self._stored).max()) * row_bytes + block_rows * row_bytes

    def fingerprint(self) -> str:
        """SHA-256 of the source's, which says what is missing too."""
        return hashlib.sha256(f"present {self._source.fingerprint()}".encode()).hexdigest()

    def read(self, start: int, stop: int) -> Rows:
        """Rows ``start:stop`` of those that are there.

        Raises
        ------
        InvalidData
            A block has another number of them than was counted.
        """
        with self.reader() as read:
            return read(start, stop)

    def check_unchanged(self) -> None:
        """Compare what is stored of the source."""
        self._source.check_unchanged()

    @contextmanager
    def reader(self) -> Iterator[Callable[[int, int], Rows]]:
        """Give a function like `read` over a reader of the source."""
        with self._source.reader() as read:
            yield lambda start, stop: self._read(read, start, stop)

    def _read(self, read: Callable[[int, int], Rows], start: int, stop: int) -> Rows:
        found = []
        for block in range(self._block(start), self._block(stop - 1) + 1):
            first, last = self._stored[block : block + 2].tolist()
            rows = Block.of(first, read(first, last), "drop").rows
            begin, end = self._ends[block : block + 2].tolist()
            if len(rows) != end - begin:
                msg = f"rows {first}:{last} of {self.name} have changed since missing values were counted"
                raise InvalidData(msg)
            found.append(rows[max(start - begin, 0) : stop - begin])
        return found[0] if len(found) == 1 else np.concatenate(found)

    def _block(self, row: int) -> int:
        return int(np.searchsorted(self._ends, row, side="right")) - 1

    def chunk_end(self, stop: int) -> int:
        """Where the block of the source ends that row ``stop - 1`` is read with anyway."""
        return int(self._ends[self._block(stop - 1) + 1])

    def locate(self, row: int, feature: int) -> str:
        """Name a value by the block of the source that holds it."""
        first, last = self._stored[(block := self._block(row)) : block + 2].tolist()
        return f"one of rows {first}:{last} of {self.name}, {self.feature(feature)}"

    def rows(self, bounds: NDArray[np.integer[Any]]) -> Self:
        """Give the same rows, cut into other blocks; of a part of them only its blocks of the source are kept."""
        other = super().rows(bounds)
        first, last = self._block(int(bounds[0])), self._block(int(bounds[-1]) - 1) + 1
        other._stored, other._ends = self._stored[first : last + 1], self._ends[first : last + 1]
        other._source = self._source.rows(other._stored)
        return other
