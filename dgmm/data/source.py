"""Rows in blocks, wherever they live."""

from __future__ import annotations

import copy
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from types import MappingProxyType
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from dgmm.data.blocks import Block, BlockInput, Missing, StoredBlocks, iter_blocks
from dgmm.data.boxes import Box
from dgmm.data.rows import Bounds, Rows

__all__ = ["Block", "BlockInput", "Missing", "Source", "iter_blocks"]


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
    chunk_rows : int or None
        Rows of a storage chunk, where all but a shorter last one have the same; else None.
    feature_names : tuple of str
        Empty where the data have none.
    missing : {"error", "drop"}
        What becomes of rows with a missing value.
    local : bool
        The rows live in this process's memory and are not shipped to workers.
    reads_ahead : bool
        Whether reading takes time that a second thread can hide.
    identified : bool
        The fingerprint says what the rows are; otherwise the engine adds a hash of their content.
    delayed : bool
        Blocks are tasks of somebody's Dask graph: only computing them tells what they hold.
    run_length : int
        A power of two: so many blocks that follow one another are read with less work together than apart.
    checksum : str or None
        What notices a flipped bit in what is stored; None where nothing is known to.
    address : str
        Where they were opened; empty for rows that were passed as such.
    opened_with : mapping
        What `open_source` was told besides, by the name of the parameter, as JSON can hold it.
    """

    name: str
    n_rows: int
    n_features: int
    dtype: np.dtype[Any]
    bounds: Bounds
    local: bool
    chunk_rows: int | None = None
    feature_names: tuple[str, ...] = ()
    missing: Missing = "error"
    reads_ahead: bool = True
    identified: bool = True
    delayed: bool = False
    run_length: int = 1
    checksum: str | None = None
    address: str = ""
    opened_with: Mapping[str, Any] = MappingProxyType({})

    def feature(self, number: int) -> str:
        """How messages call a feature: "feature 2", with its name where it has one."""
        return f"feature {number}" + (f" ({self.feature_names[number]})" if self.feature_names else "")

    @property
    @abstractmethod
    def read_bytes(self) -> int:
        """Bytes held at most while one block is read: the block, and the storage chunks in flight.

        The block that is worked on meanwhile comes on top.
        """

    @property
    def worth_keeping(self) -> bool:
        """Whether it takes decoding or a network to read: blocks in memory spare the next pass that."""
        return self.identified and not (self.local or self.delayed)

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

    def check_unchanged(self) -> None:  # noqa: B027  most have nothing to add
        """Compare what is stored with what was opened, where reading alone does not see to that.

        Raises
        ------
        DataChanged
        """

    @contextmanager
    def reader(self) -> Iterator[Callable[[int, int], Rows]]:
        """Give a function like `read` for ranges that follow one another, used by one thread at a time.

        Meanwhile a file may be open, and what has been decoded of it be kept.
        """
        yield self.read

    def chunk_end(self, stop: int) -> int:
        """Where the storage chunk ends that row ``stop - 1`` is read with anyway."""
        return stop

    def box(self, first: int) -> Box | None:
        """Which cells of a grid the block that begins at position `first` is."""
        return None

    def sibling(self, name: str) -> Source | None:
        """A column of the same table, be it a feature here or not; None where there is none of that name."""
        return None

    def block_input(self, first: int, last: int) -> BlockInput:
        """What a leaf task receives for blocks ``first:last``; `iter_blocks` walks through it."""
        return StoredBlocks(self.rows(self.bounds[first : last + 1]))

    def rows(self, bounds: NDArray[np.integer[Any]]) -> Self:
        """Give the same rows, cut into other blocks (or only a part of them)."""
        other = copy.copy(self)
        other.bounds = np.asarray(bounds, dtype=np.int64)
        return other
