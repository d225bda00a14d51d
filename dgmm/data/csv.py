"""Rows of tables of text (CSV), parsed anew each time they are read: to be converted, rather than fitted."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from typing import Any, BinaryIO, Self

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from pyarrow import csv

from dgmm.data.arrow import is_real, said, values
from dgmm.data.columns import chosen, listed, not_numbers
from dgmm.data.csv_index import MISSING, Layout, fields, index_of, is_number
from dgmm.data.file_source import FileSource
from dgmm.data.files import StoredFile
from dgmm.data.rows import Rows, check_shape
from dgmm.data.stretches import Stretches
from dgmm.data.text_file import decompression_bytes, is_compressed, open_text
from dgmm.errors import InvalidData, InvalidParameter

BLOCK_BYTES = 4 * 2**20
_INDEXED_AT_ONCE = 4
_NULLS = [*MISSING, *(f" {spelling}" for spelling in MISSING)]


class CsvSource(FileSource):
    """Rows of the files of a table of text, one after another, in float64.

    Opening reads every byte once, for an index of where rows begin; what is compressed is decompressed then, and
    again as it is read.

    Parameters
    ----------
    files, variables, name
        See `ParquetSource`.

    Raises
    ------
    InvalidData
        See `index_of`; or the files are written differently.
    InvalidParameter
        There is no such column.
    UnsupportedDtype
        A column holds no numbers.
    ShapeMismatch
        There is no row.
    """

    dtype = np.dtype(np.float64)

    def __init__(self, files: Mapping[str, StoredFile], variables: Sequence[str] | None, name: str) -> None:
        self.name = name
        with ThreadPoolExecutor(_INDEXED_AT_ONCE, thread_name_prefix="dgmm-index") as pool:
            indices = list(pool.map(index_of, files.values()))
        self._layout = _common(list(files.values()), [index.layout for index in indices])
        places = [np.column_stack([i.offsets[:-1], i.offsets[1:], i.rows[:-1]]) for i in indices]
        lengths = [np.diff(index.rows) for index in indices]
        self._pieces = Stretches.of(list(files.values()), places, lengths)
        self.n_rows = int(self._pieces.bounds[-1])
        check_shape((self.n_rows, self._layout.n_columns), name)
        self._columns = self._chosen(variables)
        self.n_features = len(self._columns)
        self.feature_names = tuple(self._layout.names[column] for column in self._columns if self._layout.names)
        self._fingerprint = self._identity(files)
        self.bounds = self._block_bounds()
        self.run_length = self._together()

    def _chosen(self, variables: Sequence[str] | None) -> list[int]:
        """Numbers of the columns that are the features."""
        layout = self._layout
        if variables is not None and not layout.names:
            msg = f"{self.name} has no header, so columns cannot be chosen by name. Write one as its first line."
            raise InvalidParameter(msg)
        if variables is None and "" in layout.names:
            msg = (
                f"Column {layout.names.index('') + 1} of {self.name} has no name (an index that pandas wrote?). "
                "Choose the columns that are features with variables=[...] (--variables a,b)."
            )
            raise InvalidParameter(msg)
        if layout.names:
            number = {name: column for column, name in enumerate(layout.names)}
            columns = [number[name] for name in chosen(variables, layout.names, self.name)]
        else:
            columns = list(range(layout.n_columns))
        with open_text(self._pieces.file_of(0)) as opened:
            text = self._text(opened, 0, 1)
        found = self._parsed(text, 0, 1, columns, typed=False).schema
        kinds = [(column, found.field(str(column)).type) for column in columns]
        if others := [column for column, kind in kinds if not (is_real(kind) or pa.types.is_null(kind))]:
            first = [next(self._no_numbers(text, 0, [column])) for column in others]
            named = [(self._named(column), f"{value!r} in line {line}") for line, column, value in first]
            raise not_numbers(named, layout.n_columns, self.name)
        return columns

    def _named(self, column: int) -> str:
        return self._layout.names[column] if self._layout.names else f"number {column + 1}"

    def _identity(self, files: Mapping[str, StoredFile]) -> str:
        digest = hashlib.sha256(f"csv {self._layout} {self._columns}".encode())
        for name, file in files.items():
            digest.update(f"\n{name!r} {file.size} {file.stamp}".encode())
        return digest.hexdigest()

    def _block_bounds(self) -> NDArray[np.int64]:
        """Whole pieces, joined to about 4 MiB of rows."""
        most = BLOCK_BYTES // (self.n_features * self.dtype.itemsize)
        bounds = [0]
        for stop, after in zip(self._pieces.bounds[1:], self._pieces.bounds[2:], strict=False):
            if after - bounds[-1] > most:
                bounds.append(int(stop))
        return np.array([*bounds, self.n_rows], dtype=np.int64)

    def _together(self) -> int:
        """Blocks of the longest compressed file: those that are read apart are each reached from its beginning."""
        pieces = self._pieces
        rows = np.bincount(pieces.file, np.diff(pieces.bounds), len(pieces.files))
        longest = float(np.max(rows, initial=0, where=list(map(is_compressed, pieces.files))))
        return 1 << int(np.ceil(np.log2(max(1.0, longest / np.diff(self.bounds).mean()))))

    @property
    def read_bytes(self) -> int:
        pieces = self._pieces
        text = np.concatenate([[0], np.cumsum(pieces.places[:, 1] - pieces.places[:, 0])])
        first = np.searchsorted(pieces.bounds, self.bounds[:-1], side="right") - 1
        last = np.searchsorted(pieces.bounds, self.bounds[1:])
        rows = int((pieces.bounds[last] - pieces.bounds[first]).max())
        block_rows = int(np.diff(self.bounds).max())
        if rows > block_rows:
            # What is left of the pieces parsed last, those that follow, and a block that is joined of both.
            block_rows = 2 * rows + block_rows
        # Pieces as text, as fields, and as columns of Arrow.
        parsing = 3 * int((text[last] - text[first]).max()) + rows * self.n_features * 8
        reading = max(map(decompression_bytes, pieces.files))
        return reading + parsing + block_rows * self.n_features * 8

    def fingerprint(self) -> str:
        """SHA-256 of the columns, and of each file's path in the table, size and mtime (ETag)."""
        return self._fingerprint

    @contextmanager
    def reader(self) -> Iterator[Callable[[int, int], Rows]]:
        """Give a function like `read` that keeps the file open."""
        with ExitStack() as stack:
            open_now: dict[StoredFile, BinaryIO] = {}

            def opened(file: StoredFile) -> BinaryIO:
                if file not in open_now:
                    stack.close()
                    open_now.clear()
                    open_now[file] = stack.enter_context(open_text(file))
                return open_now[file]

            yield lambda start, stop: self._read(opened, start, stop)

    def _read(self, opened: Callable[[StoredFile], BinaryIO], start: int, stop: int) -> Rows:
        columns = np.empty((self.n_features, stop - start), self.dtype)
        pieces = self._pieces
        first, end = pieces.at(start), pieces.at(stop - 1) + 1
        while first < end:
            # Those of one file are parsed together.
            last = min(end, int(np.searchsorted(pieces.file, pieces.file[first], side="right")))
            text = self._text(opened(pieces.file_of(first)), first, last)
            table = self._parsed(text, first, last, self._columns)
            row = int(pieces.bounds[first])
            wanted = table.slice(max(start - row, 0), stop - max(start, row))
            at = max(row - start, 0)
            for feature, number in zip(columns, self._columns, strict=True):
                feature[at : at + len(wanted)] = values(wanted.column(str(number)).combine_chunks())
            first = last
        return columns.T

    def _text(self, opened: BinaryIO, first: int, last: int) -> bytes:
        begin, end = int(self._pieces.places[first, 0]), int(self._pieces.places[last - 1, 1])
        opened.seek(begin)
        return opened.read(end - begin)

    def _parsed(
        self, text: bytes, first: int, last: int, columns: Sequence[int], *, typed: bool = True
    ) -> pa.Table:
        names = [str(number) for number in range(self._layout.n_columns)]
        wanted = [str(column) for column in columns]
        try:
            table = csv.read_csv(
                pa.BufferReader(text),
                csv.ReadOptions(column_names=names, use_threads=False, block_size=len(text) + 1),
                csv.ParseOptions(delimiter=self._layout.delimiter, ignore_empty_lines=False),
                csv.ConvertOptions(
                    include_columns=wanted,
                    column_types=dict.fromkeys(wanted, pa.float64()) if typed else None,
                    null_values=_NULLS,
                ),
            )
        except pa.ArrowInvalid as error:
            raise self._explained(text, first, columns, error) from error
        rows = int(self._pieces.bounds[last] - self._pieces.bounds[first])
        if len(table) != rows:
            msg = f"{len(table)} rows instead of {rows}"
            raise self._explained(text, first, columns, ValueError(msg))
        return table

    def _lines(self, text: bytes, piece: int) -> Iterator[tuple[int, list[str]]]:
        """Number in its file, and fields, of each line of a piece."""
        first = int(self._pieces.places[piece, 2]) + self._layout.header_lines + 1
        for number, line in enumerate(text.decode("utf-8", "replace").split("\n"), first):
            if line:
                yield number, fields(line.rstrip("\r"), self._layout.delimiter)

    def _no_numbers(self, text: bytes, piece: int, columns: Sequence[int]) -> Iterator[tuple[int, int, str]]:
        """Line, column and content of fields that are no numbers."""
        for number, found in self._lines(text, piece):
            for column in columns:
                if column < len(found) and not is_number(found[column]):
                    yield number, column, found[column]

    def _explained(self, text: bytes, piece: int, columns: Sequence[int], error: Exception) -> InvalidData:
        """Say which line, and which column, cannot be parsed."""
        path, expected = self._pieces.file_of(piece).path, self._layout.n_columns
        for number, found in self._lines(text, piece):
            if len(found) != expected:
                return InvalidData(
                    f"Line {number} of {path} has {len(found)} fields between {self._layout.delimiter!r}, "
                    f"expected {expected}. Mend or remove that line."
                )
        for number, column, value in self._no_numbers(text, piece, columns):
            return InvalidData(
                f"Line {number} of {path} has {value!r} in column {self._named(column)}; expected a number with a "
                "decimal point, or NaN, NA or nothing for a missing value. Mend it, or choose other columns with "
                "--variables."
            )
        first = int(self._pieces.places[piece, 2]) + self._layout.header_lines + 1
        return InvalidData(f"Rows from line {first} of {path} on cannot be parsed: {said(error)}")

    def chunk_end(self, stop: int) -> int:
        """End of the piece of text that holds row ``stop - 1``."""
        return int(self._pieces.bounds[self._pieces.at(stop - 1) + 1])

    def locate(self, row: int, feature: int) -> str:
        """Name a value, and the line that holds it."""
        piece = self._pieces.at(row)
        within = int(self._pieces.places[piece, 2]) + row - int(self._pieces.bounds[piece])
        line = within + self._layout.header_lines + 1
        return f"line {line} of {self._pieces.file_of(piece).path}, row {row}, {self.feature(feature)}"

    def rows(self, bounds: NDArray[np.integer[Any]]) -> Self:
        """Give the same rows, cut into other blocks; of a part of them only its pieces are kept."""
        other = super().rows(bounds)
        other._pieces = self._pieces.part(int(bounds[0]), int(bounds[-1]))
        other.run_length = other._together()
        return other


def _common(files: Sequence[StoredFile], layouts: Sequence[Layout]) -> Layout:
    """How all files of a table are written.

    Raises
    ------
    InvalidData
        They are not written alike.
    """
    first = layouts[0]
    for file, layout in zip(files, layouts, strict=True):
        if (layout.delimiter, layout.names, layout.n_columns) != (first.delimiter, first.names, first.n_columns):
            msg = (
                f"{files[0].path} has {_spelled(first)}, but {file.path} has {_spelled(layout)}. Write the files "
                "of a table alike, or convert them one by one."
            )
            raise InvalidData(msg)
    return first


def _spelled(layout: Layout) -> str:
    header = f"called {listed(layout.names)}" if layout.names else "without a header"
    return f"{layout.n_columns} columns between {layout.delimiter!r}, {header}"
