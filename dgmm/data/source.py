"""Rows in blocks, wherever they live."""

from __future__ import annotations

import copy
import os
from abc import ABC, abstractmethod
from typing import Any, Literal, Self

import numpy as np
from numpy.typing import NDArray

from dgmm.data.blocks import Block, BlockInput, Missing, StoredBlocks, iter_blocks
from dgmm.data.boxes import Box
from dgmm.data.rows import Bounds, Rows
from dgmm.errors import InvalidData, InvalidParameter, InvalidWeights

__all__ = ["Block", "BlockInput", "Missing", "Source", "iter_blocks", "open_source", "open_weights"]


class Source(ABC):
    """Rows x features in blocks of rows.

    Attributes
    ----------
    name : str
        How messages call it: the path, the URL, or "array".
    n_rows, n_features : int
        The shape of the whole.
    dtype : dtype
        Of the blocks it gives: native float32 or float64.
    bounds : ndarray of int64, shape (n_blocks + 1,)
        Block b is rows ``bounds[b]:bounds[b + 1]``. They follow from shape, dtype and chunks alone.
    feature_names : tuple of str
        Empty where the data have none.
    missing : {"error", "drop"}
        What becomes of rows with a missing value.
    local : bool
        The rows live in this process's memory and are not shipped to workers.
    read_bytes : int
        Bytes held at most while one block is read: the block, and the storage chunks in flight. The block
        that is worked on meanwhile comes on top.
    reads_ahead : bool
        Whether reading takes time that a second thread can hide.
    delayed : bool
        Blocks are tasks of somebody's Dask graph: only computing them tells what they hold.
    """

    name: str
    n_rows: int
    n_features: int
    dtype: np.dtype[Any]
    bounds: Bounds
    local: bool
    read_bytes: int
    feature_names: tuple[str, ...] = ()
    missing: Missing = "error"
    reads_ahead: bool = True
    delayed: bool = False

    @property
    def n_blocks(self) -> int:
        """Number of blocks."""
        return len(self.bounds) - 1

    @abstractmethod
    def fingerprint(self) -> str:
        """SHA-256 (hex) that changes whenever the rows do."""

    @abstractmethod
    def read(self, start: int, stop: int) -> Rows:
        """Rows ``start:stop`` in `dtype`, shape (stop - start, n_features), in C or Fortran order.

        The result may be a view of the caller's array: it is not to be written to.
        """

    @abstractmethod
    def locate(self, row: int, feature: int) -> str:
        """Where a value is stored, e.g. "chunk c/3/0 of data.zarr, row 12345, feature 2"."""

    def chunk_end(self, stop: int) -> int:
        """Where the storage chunk ends that row ``stop - 1`` is read with anyway."""
        return stop

    def box(self, first: int) -> Box | None:
        """Which cells of a grid the block that begins at position `first` is."""
        return None

    def block_input(self, first: int, last: int) -> BlockInput:
        """What a leaf task receives for blocks ``first:last``; `iter_blocks` walks through it."""
        return StoredBlocks(self.rows(self.bounds[first : last + 1]))

    def rows(self, bounds: NDArray[np.integer[Any]]) -> Self:
        """Give the same rows, cut into other blocks (or only a part of them)."""
        other = copy.copy(self)
        other.bounds = np.asarray(bounds, dtype=np.int64)
        return other


def open_source(
    data: object,
    *,
    missing: Missing | None = None,
    missing_chunks: Literal["error", "fill"] = "error",
    name: str | None = None,
) -> Source:
    """Describe data as rows in blocks; no row is read yet.

    Parameters
    ----------
    data : array-like, zarr.Array, str, path, dask.array.Array or Source
        Rows x features. A str or path is the address of a Zarr array (format 2 or 3): a folder, or a URL
        that fsspec understands. A Dask array of unknown chunk lengths is computed once to measure them.
    missing : {"error", "drop"}, optional
        What becomes of rows with a missing value (NaN): the first is an error, or they are left out of a fit
        and have no results. Default: "error".
    missing_chunks : {"error", "fill"}
        What to make of chunks that a Zarr array does not store.
    name : str, optional
        How messages call the data; by default the address, or "array".

    Returns
    -------
    Source

    Raises
    ------
    SourceNotFound
        There is nothing at the address.
    InvalidData
        Not rows x features of real numbers: its subclasses `ShapeMismatch`, `UnsupportedDtype`,
        `MissingChunks`, `NonFiniteData`; or not a Zarr array at all.
    """
    if missing not in (None, "error", "drop"):
        msg = f"missing is {missing!r}; expected 'error' or 'drop'."
        raise InvalidParameter(msg)
    source = data if isinstance(data, Source) else _open(data, missing_chunks=missing_chunks, name=name)
    if missing is None or missing == source.missing:
        return source
    source = copy.copy(source)
    source.missing = missing
    return source


def open_weights(weights: object, source: Source, *, missing_chunks: Literal["error", "fill"] = "error") -> Source:
    """Describe sample weights as a source of one feature with the data's blocks.

    Parameters
    ----------
    weights : array-like, zarr.Array, str, path, dask.array.Array or Source
        One weight a row: shape (n_rows,) or (n_rows, 1), in any chunking.
    source : Source
        The data.
    missing_chunks : {"error", "fill"}
        What to make of chunks that a Zarr array does not store.

    Raises
    ------
    InvalidWeights
        Not one weight a row.
    """
    if isinstance(weights, Source):
        found = weights
    else:
        found = _open(weights, missing_chunks=missing_chunks, name=_weights_name(weights), column=True)
    if (found.n_rows, found.n_features) != (source.n_rows, 1):
        shape = f"{found.n_rows} x {found.n_features}" if found.n_features > 1 else f"{found.n_rows}"
        msg = f"Found {shape} sample weights in {found.name} for {source.n_rows} rows; expected one weight a row."
        raise InvalidWeights(msg)
    return found.rows(source.bounds)


def _weights_name(weights: object) -> str | None:
    return None if isinstance(weights, str | os.PathLike) or hasattr(weights, "store_path") else "sample_weight"


def _open(
    data: object, *, missing_chunks: Literal["error", "fill"], name: str | None, column: bool = False
) -> Source:
    # Each kind is imported where it is met: NumPy data need neither Zarr nor Dask.
    if missing_chunks not in ("error", "fill"):
        msg = f"missing_chunks is {missing_chunks!r}; expected 'error' or 'fill'."
        raise InvalidParameter(msg)
    if isinstance(data, str | os.PathLike):
        from dgmm.data.zarr_address import open_address
        from dgmm.data.zarr_array import ZarrSource

        address = os.fspath(data)
        array = open_address(address)
        return ZarrSource(array, name=name or address, missing_chunks=missing_chunks, column=column)
    if type(data).__module__.startswith("zarr."):
        import zarr

        from dgmm.data.zarr_address import describe_group
        from dgmm.data.zarr_array import ZarrSource

        if isinstance(data, zarr.Group):
            raise describe_group(data, name or str(data.store_path))
        if isinstance(data, zarr.Array):
            return ZarrSource(data, name=name, missing_chunks=missing_chunks, column=column)
    if hasattr(data, "__dask_graph__"):
        from dgmm.data.dask_array import DaskSource

        return DaskSource(data, name=name or "dask array", column=column)
    from dgmm.data.numpy_array import NumpySource

    if data is None:
        msg = "Found None; expected rows x features: an array, a Zarr array or the path of one, a Dask array."
        raise InvalidData(msg)
    return NumpySource(data, name=name or "array", column=column)
