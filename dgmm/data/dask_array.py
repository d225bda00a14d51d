"""Rows of a Dask array: described here, computed by the engine's own graph."""

from __future__ import annotations

import hashlib
from itertools import pairwise
from typing import Any, NoReturn, Self

import numpy as np
from numpy.typing import NDArray

from dgmm.data.blocks import BlockInput, ComputedBlocks
from dgmm.data.rows import block_dtype, check_shape, regular_length
from dgmm.data.source import Source
from dgmm.errors import InvalidData


class DaskSource(Source):
    """Rows of a Dask array, one block a chunk of rows.

    Chunks of features are joined. Where chunk lengths are unknown (a filtered array, a data frame's values),
    the array is computed once, here, to measure them: ``compute_chunk_sizes()``.

    Parameters
    ----------
    data : dask.array.Array, shape (n_rows, n_features)
    name : str
        How messages call it.
    column : bool
        Take a 1-D array as one feature.

    Raises
    ------
    InvalidData
        Another Dask collection.
    ShapeMismatch, UnsupportedDtype
        Not rows x features of real numbers.
    """

    local = False
    reads_ahead = False
    delayed = True
    identified = False

    def __init__(self, data: Any, *, name: str = "dask array", column: bool = False) -> None:
        from dask.array import Array

        if not isinstance(data, Array):
            msg = (
                f"{name} is a {type(data).__module__}.{type(data).__name__}; expected a dask.array.Array "
                "(of a data frame: frame.to_dask_array(lengths=True))."
            )
            raise InvalidData(msg)
        if column and data.ndim == 1:
            data = data[:, np.newaxis]
        if any(np.isnan(length) for lengths in data.chunks for length in lengths):
            data = data.copy().compute_chunk_sizes()  # a copy: it changes the array it is called on
        self.name = name
        self.n_rows, self.n_features = check_shape(data.shape, name)
        self.dtype = block_dtype(data.dtype, name)
        self._identity = f"dask {data.shape} {data.dtype.str} {data.chunks} {data.name}"
        self._arrange(data, tuple(length for length in data.chunks[0] if length > 0))

    def _arrange(self, data: Any, lengths: tuple[int, ...]) -> None:
        self._array = data if data.chunks == (lengths, (self.n_features,)) else data.rechunk((lengths, -1))
        self.bounds = np.concatenate([[0], np.cumsum(lengths, dtype=np.int64)]).astype(np.int64)
        self.chunk_rows = regular_length(self.bounds)
        self._delayed: list[Any] | None = None

    @property
    def read_bytes(self) -> int:
        # The array as given, the same with its features joined, and its float64.
        row_bytes: int = self.n_features * (2 * self._array.dtype.itemsize + self.dtype.itemsize)
        return int(np.diff(self.bounds).max()) * row_bytes

    def fingerprint(self) -> str:
        """SHA-256 of shape, dtype, chunks and Dask's name of the array.

        Dask's name stands for the graph, not for the values: the engine adds a hash of the contents once it
        has seen them.
        """
        return hashlib.sha256(self._identity.encode()).hexdigest()

    def read(self, start: int, stop: int) -> NoReturn:
        """Only the engine computes with Dask: use `block_input`."""
        msg = f"rows {start}:{stop} of {self.name} come from a Dask graph: use block_input and iter_blocks"
        raise TypeError(msg)

    def locate(self, row: int, feature: int) -> str:
        """Name a value and the block of the Dask array."""
        block = int(np.searchsorted(self.bounds, row, side="right")) - 1
        return f"block {block} of {self.name}, row {row}, {self.feature(feature)}"

    def block_input(self, first: int, last: int) -> BlockInput:
        """A list that starts with the promised shapes and goes on with Dask's delayed blocks."""
        if self._delayed is None:
            self._delayed = self._array.to_delayed()[:, 0].tolist()
        bounds = self.bounds[first : last + 1]
        boxes = [None] * (last - first)
        promise = ComputedBlocks(self.name, bounds, self.n_features, self.dtype, self.missing, boxes)
        return [promise, *self._delayed[first:last]]

    def rows(self, bounds: NDArray[np.integer[Any]]) -> Self:
        """Give the same rows in other blocks: the array is rechunked unless its chunks are those already."""
        other = super().rows(bounds)
        lengths = tuple(stop - start for start, stop in pairwise(other.bounds.tolist()))
        if other.bounds[0] != 0 or other.bounds[-1] != self.n_rows:
            msg = (
                f"bounds {other.bounds[0]}..{other.bounds[-1]} do not cover the {self.n_rows} rows of {self.name}"
            )
            raise ValueError(msg)
        other._arrange(self._array, lengths)
        return other
