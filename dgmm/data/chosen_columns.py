"""Some columns of a source whose rows are stored together."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from dgmm.data.columns import chosen
from dgmm.data.rows import Rows
from dgmm.data.source import Source


class ChosenColumns(Source):
    """Features of another source, by their names.

    Parameters
    ----------
    source : Source
        Its features have names.
    variables : sequence of str

    Raises
    ------
    InvalidParameter
        There is no such feature.
    """

    def __init__(self, source: Source, variables: Sequence[str]) -> None:
        self._source = source
        self.feature_names = chosen(variables, source.feature_names, source.name)
        self._columns = [source.feature_names.index(name) for name in self.feature_names]
        self.n_rows, self.n_features = source.n_rows, len(self.feature_names)
        self.name, self.dtype, self.bounds, self.local = source.name, source.dtype, source.bounds, source.local
        self.chunk_rows, self.run_length = source.chunk_rows, source.run_length
        self.reads_ahead, self.checksum = source.reads_ahead, source.checksum

    @property
    def read_bytes(self) -> int:
        block_rows = int(np.diff(self.bounds).max(initial=0))
        return self._source.read_bytes + block_rows * self.n_features * self.dtype.itemsize

    def fingerprint(self) -> str:
        """SHA-256 of the source's and of the columns."""
        return hashlib.sha256(f"{self._source.fingerprint()} {self._columns}".encode()).hexdigest()

    def read(self, start: int, stop: int) -> Rows:
        """Rows ``start:stop``."""
        return self._source.read(start, stop)[:, self._columns]

    def check_unchanged(self) -> None:
        """Compare what is stored of the source."""
        self._source.check_unchanged()

    @contextmanager
    def reader(self) -> Iterator[Callable[[int, int], Rows]]:
        """Give a function like `read` over a reader of the source."""
        with self._source.reader() as read:
            yield lambda start, stop: read(start, stop)[:, self._columns]

    def chunk_end(self, stop: int) -> int:
        """That of the source."""
        return self._source.chunk_end(stop)

    def locate(self, row: int, feature: int) -> str:
        """Name a value as the source does."""
        return self._source.locate(row, self._columns[feature])

    def rows(self, bounds: NDArray[np.integer[Any]]) -> Self:
        """Give the same rows, cut into other blocks (or only a part of them)."""
        other = super().rows(bounds)
        other._source = self._source.rows(bounds)
        other.run_length = other._source.run_length
        return other

    def sibling(self, name: str) -> Self | None:
        """Another feature of the same source."""
        return type(self)(self._source, (name,)) if name in self._source.feature_names else None
