"""Rows of a NumPy file (.npy), which every worker reads itself."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, BinaryIO

import numpy as np
from numpy.lib import format as npy_format
from numpy.typing import NDArray

from dgmm.data.file_source import FileSource
from dgmm.data.files import StoredFile
from dgmm.data.numpy_array import block_rows
from dgmm.data.rows import Rows, block_dtype, check_shape, regular_bounds
from dgmm.errors import InvalidData


class NpySource(FileSource):
    """Rows of an array in a file, in C or in Fortran order, in the blocks that it would have in memory.

    They are read, not mapped: mapped pages would count as memory of a worker until it is killed for it.

    Parameters
    ----------
    file : StoredFile
    name : str
        How messages call it.
    column : bool
        Take a 1-D array as one feature.

    Raises
    ------
    InvalidData
        Not a NumPy file, or shorter than its header says.
    ShapeMismatch, UnsupportedDtype
        Not rows x features of real numbers.
    """

    def __init__(self, file: StoredFile, name: str, *, column: bool = False) -> None:
        with file.open() as opened:
            shape, self._fortran, stored, self._offset = _header(opened, name)
        self.name = name
        self.n_rows, self.n_features = check_shape(shape, name, column=column)
        self.dtype = block_dtype(stored, name)
        expected = self._offset + self.n_rows * self.n_features * stored.itemsize
        if file.size < expected:
            msg = f"{name} has {file.size} bytes, but its header says {expected}: restore it or write it again."
            raise InvalidData(msg)
        self._file, self._stored = file, stored
        self.bounds = regular_bounds(self.n_rows, block_rows(self.n_features))

    @property
    def read_bytes(self) -> int:
        converted = 0 if self._stored == self.dtype else self.dtype.itemsize
        return int(np.diff(self.bounds).max(initial=0)) * self.n_features * (self._stored.itemsize + converted)

    @property
    def worth_keeping(self) -> bool:
        """Of a local file the system keeps the pages, and nothing is to be decoded."""
        return self._file.remote

    def fingerprint(self) -> str:
        """SHA-256 of shape, dtype, order, size and mtime (ETag)."""
        layout = (self.n_rows, self.n_features, self._stored.str, self._fortran, self._file.size, self._file.stamp)
        return hashlib.sha256(f"npy {layout}".encode()).hexdigest()

    @contextmanager
    def reader(self) -> Iterator[Callable[[int, int], Rows]]:
        """Give a function like `read` that keeps the file open."""
        with self._file.open() as opened:
            yield lambda start, stop: self._read(opened, start, stop)

    def _read(self, opened: BinaryIO, start: int, stop: int) -> Rows:
        item = self._stored.itemsize
        if self._fortran:
            columns = np.empty((self.n_features, stop - start), self._stored)
            for number, column in enumerate(columns):
                self._fill(opened, self._offset + (number * self.n_rows + start) * item, column)
            rows = columns.T
        else:
            rows = np.empty((stop - start, self.n_features), self._stored)
            self._fill(opened, self._offset + start * self.n_features * item, rows)
        return rows.astype(self.dtype, copy=False)

    def _fill(self, opened: BinaryIO, offset: int, array: NDArray[Any]) -> None:
        opened.seek(offset)
        if opened.readinto(array.data.cast("B")) != array.nbytes:  # type: ignore[attr-defined]
            msg = f"{self._file.path} has become shorter while it was read. Restore it and start again."
            raise InvalidData(msg)

    def locate(self, row: int, feature: int) -> str:
        """Name a value."""
        return f"row {row}, {self.feature(feature)} of {self.name}"


def _header(opened: BinaryIO, name: str) -> tuple[tuple[int, ...], bool, np.dtype[Any], int]:
    """Shape, whether it is in Fortran order, dtype, and where the values begin."""
    readers = {(1, 0): npy_format.read_array_header_1_0, (2, 0): npy_format.read_array_header_2_0}
    try:
        version = npy_format.read_magic(opened)
        if version not in readers:
            msg = f"format {version[0]}.{version[1]}, expected 1.0 or 2.0"
            raise ValueError(msg)
        shape, fortran, dtype = readers[version](opened)
    except ValueError as error:
        msg = f"The header of the NumPy file {name} cannot be read: {error}. Restore the file or write it again."
        raise InvalidData(msg) from error
    return shape, fortran, dtype, opened.tell()
