"""Rows of an array in this process's memory, or of a memory-mapped file."""

from __future__ import annotations

import hashlib
from itertools import pairwise
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from dgmm.data.rows import Rows, block_dtype, check_shape, regular_bounds
from dgmm.data.source import Source
from dgmm.errors import InvalidData, UnsupportedDtype

BLOCK_VALUES = 2**18  # 2 MiB of float64
# Fewer rows than about half the features would spend more on adding D x D statistics than on the rows.
MIN_ROWS, MAX_ROWS = 1024, 65536


def block_rows(n_features: int) -> int:
    """Rows of a block: a power of two that makes 1-2 MiB of float64, between 1024 and 65536."""
    fitting = max(1, BLOCK_VALUES // n_features)
    return max(MIN_ROWS, min(MAX_ROWS, 1 << (fitting.bit_length() - 1)))


class NumpySource(Source):
    """Rows of anything NumPy can view as a 2-D array of real numbers.

    Parameters
    ----------
    data : array-like, shape (n_rows, n_features)
        A `numpy.memmap` stays on disk until its rows are read.
    name : str
        How messages call it.
    column : bool
        Take a 1-D array as one feature.

    Raises
    ------
    InvalidData
        Ragged, sparse or masked.
    ShapeMismatch, UnsupportedDtype
        Not rows x features of real numbers.
    """

    local = True
    reads_ahead = False

    def __init__(self, data: object, *, name: str = "array", column: bool = False) -> None:
        array = _as_array(data, name)
        self.name = name
        self.n_rows, self.n_features = check_shape(array.shape, name, column=column)
        self.dtype = block_dtype(array.dtype, name)
        self.bounds = regular_bounds(self.n_rows, block_rows(self.n_features))
        self._array = array.reshape(self.n_rows, self.n_features)
        self._origin = 0  # global index of the first row in _array
        self._fingerprint: str | None = None

    @property
    def read_bytes(self) -> int:
        converted = 0 if self._array.dtype == self.dtype else self.dtype.itemsize * self.n_features
        return int(np.diff(self.bounds).max(initial=0)) * converted

    def fingerprint(self) -> str:
        """SHA-256 of shape, dtype and every value."""
        if self._fingerprint is None:
            digest = hashlib.sha256(f"numpy {self._array.shape} {self._array.dtype.str}".encode())
            step = block_rows(self.n_features)
            for start, stop in pairwise(regular_bounds(self.n_rows, step).tolist()):
                digest.update(np.ascontiguousarray(self._array[start:stop]).tobytes())
            self._fingerprint = digest.hexdigest()
        return self._fingerprint

    def read(self, start: int, stop: int) -> Rows:
        """Rows ``start:stop``: a view where the dtype is right."""
        rows: Rows = np.asarray(self._array[start - self._origin : stop - self._origin], dtype=self.dtype)
        return rows

    def locate(self, row: int, feature: int) -> str:
        """Name a value."""
        return f"row {row}, {self.feature(feature)} of {self.name}"

    def rows(self, bounds: NDArray[np.integer[Any]]) -> Self:
        """Give the same rows in other blocks; of a part of them only that part is kept (and pickled)."""
        other = super().rows(bounds)
        first, last = int(bounds[0]), int(bounds[-1])
        other._array = self._array[first - self._origin : last - self._origin]
        other._origin = first
        return other


def _as_array(data: object, name: str) -> NDArray[Any]:
    if type(data).__module__.startswith("scipy.sparse"):
        shape = getattr(data, "shape", None)
        msg = f"{name} is a sparse matrix of shape {shape}; expected a dense array: pass matrix.toarray()."
        raise InvalidData(msg)
    if isinstance(data, np.ma.MaskedArray) and np.ma.is_masked(data):
        count = int(np.ma.getmaskarray(data).sum())
        msg = f"{count} values of {name} are masked; missing values cannot be used: drop or fill those rows first."
        raise InvalidData(msg)
    try:
        array = np.asarray(data)
    except ValueError as error:
        msg = f"{name} cannot be read as an array of rows x features: {error}."
        raise InvalidData(msg) from error
    except TypeError as error:  # NumPy's, of numbers beside dates
        msg = f"{name} holds values that are no numbers. Convert every feature to numbers first."
        raise UnsupportedDtype(msg) from error
    if array.ndim == 0 and array.dtype == object:
        msg = (
            f"{name} is a {type(data).__name__}; expected rows x features: an array, a Zarr array or the path "
            "of one, or a Dask array."
        )
        raise UnsupportedDtype(msg)
    if array.dtype == object:
        try:
            array = array.astype(np.float64)
        except (TypeError, ValueError) as error:
            msg = f"{name} holds objects that are no numbers: {error}. Convert every feature to numbers first."
            raise UnsupportedDtype(msg) from error
    return array
