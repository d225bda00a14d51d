"""Rows of a Parquet table: a file, a folder of files, or a pattern of their paths."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import pairwise
from typing import Any, Self

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from pyarrow import parquet

from dgmm.data.arrow import common_dtype, said, values
from dgmm.data.file_source import FileSource
from dgmm.data.files import StoredFile, is_of_storage
from dgmm.data.parquet_footers import read_footers
from dgmm.data.rows import Bounds, Rows, check_shape
from dgmm.data.stretches import Stretches
from dgmm.errors import InvalidData

BLOCK_BYTES = 4 * 2**20
# Row groups are joined up to so many times the largest: what a writer left over gets no blocks of its own.
_JOINED = 1.25
# A column is read through a buffer of this size and decoded page by page: by the defaults of writers about 1 MiB
# each, once compressed and once not, beside a dictionary of no more. Arrow's allocator keeps about as
# much again as one of them.
_BUFFER = 256 * 2**10
_PAGES = 4 * 2**20


class ParquetSource(FileSource):
    """Rows of the files of a table, one after another.

    Row groups are decoded as streams, so that a block is about 4 MiB of rows however long the group that holds
    it. Each row group, or some short ones joined, makes up the same number of blocks, a power of two: leaf tasks
    of that many decode every group once. Pickled, it is paths and numbers; workers open the files themselves.

    Parameters
    ----------
    files : mapping of str to StoredFile
        By their paths within the table.
    variables : sequence of str or None
        Columns that are the features; None is all.
    name : str
        How messages call it.

    Raises
    ------
    InvalidData, InvalidParameter, UnsupportedDtype
        See `read_footers`.
    ShapeMismatch
        There is no row.
    """

    checksum = "those of its pages, where their writer made some"

    def __init__(self, files: Mapping[str, StoredFile], variables: Sequence[str] | None, name: str) -> None:
        footers = read_footers(files, variables, name)
        self.name = name
        self.feature_names = footers.columns
        self.n_features = len(footers.columns)
        self.n_rows = sum(int(rows.sum()) for rows in footers.rows)
        check_shape((self.n_rows, self.n_features), name)
        self.dtype = common_dtype(footers.kinds)
        self._files: Mapping[str, StoredFile] = files
        self._known = footers.known
        self._groups = Stretches.of(list(files.values()), [np.arange(len(r)) for r in footers.rows], footers.rows)
        self._fingerprint = _fingerprint(files, footers.columns, footers.rows)
        self.bounds, self.run_length = _block_bounds(self._groups.bounds, self.n_features * self.dtype.itemsize)

    @property
    def read_bytes(self) -> int:
        block_rows = int(np.diff(self.bounds).max(initial=0))
        # Rows as Arrow has them, and as features.
        decoded = block_rows * self.n_features * (8 + self.dtype.itemsize)
        # Of an object, a row group as it is stored.
        fetched = self._groups.longest * self.n_features * 8 if self._groups.files[0].remote else 0
        return decoded + self.n_features * min(_PAGES, 16 * self._groups.longest) + fetched

    def fingerprint(self) -> str:
        """SHA-256 of the columns, and of each file's path in the table, size, mtime (ETag) and row groups."""
        return self._fingerprint

    @contextmanager
    def reader(self) -> Iterator[Callable[[int, int], Rows]]:
        """Give a function like `read` that goes on decoding where it stopped, if it is asked for what follows."""
        reader = _Reader(self)
        try:
            yield reader
        finally:
            reader.close()

    def batches(self, start: int) -> Generator[pa.RecordBatch]:
        """Decode rows from `start` on, some at a time."""
        first = self._groups.at(start)
        skip = start - int(self._groups.bounds[first])
        rows = max(1, BLOCK_BYTES // (self.n_features * self.dtype.itemsize))
        for file, runs in _runs(self._groups, first, rows):
            for batch in self._decoded(file, runs, rows):
                if skip < len(batch):
                    yield batch.slice(skip)
                skip = max(0, skip - len(batch))

    def _decoded(self, file: StoredFile, runs: list[list[int]], rows: int) -> Iterator[pa.RecordBatch]:
        numbers = runs[0]
        # Of an object, columns that lie together are asked for together.
        reading = {"pre_buffer": True} if file.remote else {"pre_buffer": False, "buffer_size": _BUFFER}
        try:
            with parquet.ParquetFile(
                file.source(read_ahead=1), page_checksum_verification=True, **reading
            ) as opened:
                for numbers in runs:
                    yield from opened.iter_batches(rows, numbers, list(self.feature_names), use_threads=False)
        except (pa.ArrowException, OSError) as error:
            if is_of_storage(error):
                raise
            which = f"row group {numbers[0]}" + (f" to {numbers[-1]}" if len(numbers) > 1 else "")
            msg = (
                f"{which} of {file.path} cannot be decoded: {said(error)} The file is damaged: restore it from a "
                "copy or write it again."
            )
            raise InvalidData(msg) from error

    def locate(self, row: int, feature: int) -> str:
        """Name a value, and the file and row group that hold it."""
        group = self._groups.at(row)
        file, number = self._groups.file_of(group), self._groups.places[group]
        return f"row group {number} of {file.path}, row {row}, {self.feature(feature)}"

    def rows(self, bounds: NDArray[np.integer[Any]]) -> Self:
        """Give the same rows, cut into other blocks; of a part of them only the files that hold it are kept."""
        other = super().rows(bounds)
        if not np.isin(other.bounds, self.bounds).all():
            # Leaf tasks then begin within row groups, and decode what is before them for nothing.
            longest = self._groups.longest / np.diff(other.bounds).mean()
            other.run_length = 1 << int(np.ceil(np.log2(max(1.0, 4 * longest if longest > 1 else 1.0))))
        other._groups = self._groups.part(int(bounds[0]), int(bounds[-1]))
        return other

    def sibling(self, name: str) -> Self | None:
        """Another column of the table as the only feature."""
        return type(self)(self._files, (name,), f"{name} of {self.name}") if name in self._known else None

    def __getstate__(self) -> dict[str, Any]:
        # Workers have no use for what else there is in the table.
        return {**self.__dict__, "_files": {}, "_known": ()}


class _Reader:
    """Reads ranges of rows of a source; decodes on as long as each begins where the last one ended."""

    def __init__(self, source: ParquetSource) -> None:
        self._source = source
        self._position = -1
        self._batches: Generator[pa.RecordBatch] | None = None
        self._rest: pa.RecordBatch | None = None

    def __call__(self, start: int, stop: int) -> Rows:
        if self._batches is None or start != self._position:
            self.close()
            self._batches = self._source.batches(start)
        columns = np.empty((self._source.n_features, stop - start), self._source.dtype)
        filled = 0
        while filled < stop - start:
            batch = next(self._batches) if self._rest is None else self._rest
            taken = batch.slice(0, stop - start - filled)
            for feature, name in zip(columns, self._source.feature_names, strict=True):
                feature[filled : filled + len(taken)] = values(taken.column(name))
            self._rest = batch.slice(len(taken)) if len(taken) < len(batch) else None
            filled += len(taken)
        self._position = stop
        return columns.T

    def close(self) -> None:
        """Close the file, and forget what was decoded."""
        if self._batches is not None:
            self._batches.close()
        self._batches = self._rest = None


def _runs(groups: Stretches, first: int, rows: int) -> Iterator[tuple[StoredFile, list[list[int]]]]:
    """From one row group on: each file, and its groups in lists of about so many rows."""
    while first < len(groups.file):
        last = int(np.searchsorted(groups.file, groups.file[first], side="right"))
        lists: list[list[int]] = [[]]
        begin = groups.bounds[first]
        for group in range(first, last):
            if lists[-1] and groups.bounds[group + 1] - begin > rows:
                lists.append([])
                begin = groups.bounds[group]
            lists[-1].append(int(groups.places[group]))
        yield groups.file_of(first), lists
        first = last


def _block_bounds(groups: Bounds, row_bytes: int) -> tuple[Bounds, int]:
    """Bounds of blocks, and how many make up a row group, or some short ones joined."""
    most = _JOINED * max(BLOCK_BYTES, int(np.diff(groups).max()) * row_bytes) / row_bytes
    ends = [0]
    for start, stop in pairwise(groups.tolist()):
        if stop - ends[-1] > most:
            ends.append(start)
    ends.append(int(groups[-1]))
    joined = np.unique(ends)
    largest = int(np.diff(joined).max()) * row_bytes
    pieces = 1 << max(0, int(np.ceil(np.log2(largest / (_JOINED * BLOCK_BYTES)))))
    cuts = joined[:-1, None] + np.diff(joined)[:, None] * np.arange(pieces) // pieces
    return np.unique(np.append(cuts, groups[-1])).astype(np.int64), pieces


def _fingerprint(
    files: Mapping[str, StoredFile], columns: Sequence[str], rows: Sequence[NDArray[np.int64]]
) -> str:
    digest = hashlib.sha256(repr(list(columns)).encode())
    for (name, file), own in zip(files.items(), rows, strict=True):
        digest.update(f"\n{name!r} {file.size} {file.stamp} {own.tolist()}".encode())
    return digest.hexdigest()
