"""Rows of a Zarr array, format 2 or 3, in whole chunks."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import numpy as np
import zarr
from numpy.typing import NDArray
from zarr.storage import FsspecStore, LocalStore, MemoryStore, ObjectStore

from dgmm.data import zarr_chunks
from dgmm.data.rows import Rows, block_dtype, check_shape, held_rows, regular_bounds
from dgmm.data.source import Source
from dgmm.data.zarr_blosc import with_whole_frames
from dgmm.data.zarr_checksum import checksum
from dgmm.data.zarr_damage import DECODING_ERRORS, is_decoding, stored_parts, undecodable
from dgmm.data.zarr_listing import Listing
from dgmm.data.zarr_store import UrlStore
from dgmm.errors import MissingChunks, NonFiniteData

BLOCK_BYTES = 4 * 2**20


class ZarrSource(Source):
    """Rows of a Zarr array; a block is a whole number of row chunks (inner chunks where there are shards).

    Opening lists the store once: for the fingerprint, and for chunks that are not stored, which Zarr would
    read as its fill value without a word. Pickled, it is the array's metadata and its address.

    Parameters
    ----------
    array : zarr.Array, shape (n_rows, n_features)
    name : str, optional
        How messages call it; by default the store's address.
    missing_chunks : {"error", "fill"}
        Refuse chunks that are not stored, or take the fill value for them.
    column : bool
        Take a 1-D array as one feature.

    Raises
    ------
    MissingChunks
        Chunks are not stored, with ``missing_chunks="error"``.
    NonFiniteData
        Chunks are not stored and the fill value is NaN or infinite, with ``missing_chunks="fill"``.
    ShapeMismatch, UnsupportedDtype
        Not rows x features of real numbers.
    """

    chunk_rows: int

    def __init__(
        self,
        array: zarr.Array[Any],
        *,
        name: str | None = None,
        missing_chunks: Literal["error", "fill"] = "error",
        column: bool = False,
    ) -> None:
        self.name = name or str(array.store_path).removeprefix("file://")
        self.n_rows, self.n_features = check_shape(array.shape, self.name, column=column)
        self.dtype = block_dtype(array.dtype, self.name)
        self.local = _in_memory(array)
        self._array = with_whole_frames(_for_any_folder(array))
        self._refuses_missing = missing_chunks == "error"

        stored = zarr_chunks.list_chunks(array)
        self._check_missing(stored)
        self._fingerprint = zarr_chunks.fingerprint(array, stored)
        self._listing = Listing(self._array, stored, self.name)
        self.checksum = checksum(array)

        self.chunk_rows = min(array.chunks[0], self.n_rows)
        row_bytes = self.n_features * array.dtype.itemsize
        step = self.chunk_rows * max(1, BLOCK_BYTES // (self.chunk_rows * row_bytes))
        self.bounds = regular_bounds(self.n_rows, step)
        self._largest_chunk = max((chunk.size for chunk in stored.values()), default=0)

    def chunk_end(self, stop: int) -> int:
        """End of the chunk (inner chunk of a shard) of row ``stop - 1``."""
        return -(-stop // self.chunk_rows) * self.chunk_rows

    @property
    def read_bytes(self) -> int:
        block_rows = held_rows(self.bounds, self.chunk_rows)
        decoded = block_rows * self.n_features * self._array.dtype.itemsize
        converted = 0 if self._array.dtype == self.dtype else block_rows * self.n_features * self.dtype.itemsize
        # Zarr decodes this many chunks at once, each beside its compressed bytes; those that are not, in place.
        chunks = -(-block_rows // self._array.chunks[0])
        for n, c in zip(self._array.shape[1:], self._array.chunks[1:], strict=True):
            chunks *= -(-n // c)
        at_once = min(chunks, int(zarr.config.get("async.concurrency")))
        chunk_bytes = int(np.prod(self._array.chunks)) * self._array.dtype.itemsize
        if not (self._array.filters or self._array.compressors or self._array.shards):
            return decoded + converted + at_once * chunk_bytes
        # Of a shard only the inner chunks in question are fetched.
        compressed = min(self._largest_chunk, chunk_bytes) if self._array.shards else self._largest_chunk
        return decoded + converted + at_once * (chunk_bytes + compressed)

    def _check_missing(self, stored: dict[str, zarr_chunks.Chunk]) -> None:
        fill = self._fill_value()
        if not self._refuses_missing and np.isfinite(fill):
            return
        missing = zarr_chunks.missing_chunks(self._array, stored)
        if missing is None:
            return
        found = (
            f"{missing.count} of {missing.total} chunks of {self.name} are not stored (first: {missing.first})."
        )
        if not self._refuses_missing:
            msg = (
                f"{found} They read as the fill value {fill}, a missing value, from row {missing.first_row} on. "
                "Write those chunks, or drop their rows."
            )
            raise NonFiniteData(msg)
        msg = (
            f"{found} Zarr reads them as the fill value {fill} without a word. That is harmless if they were "
            f"written as all {fill} with write_empty_chunks=False, Zarr's default; otherwise the data are "
            "incomplete. Write the missing chunks, or pass missing_chunks='fill' (--missing-chunks fill) to "
            "accept the fill value."
        )
        raise MissingChunks(msg)

    def _fill_value(self) -> Any:
        fill = self._array.fill_value
        return self._array.dtype.type(0) if fill is None else fill

    def fingerprint(self) -> str:
        """SHA-256 of the metadata and each chunk's key, size and mtime (ETag), as listed at opening.

        User attributes do not count. For a store in memory the chunks' contents are hashed.
        """
        return self._fingerprint

    def check_unchanged(self) -> None:
        """List the store again, if it can be listed, and compare."""
        self._listing.check()

    def read(self, start: int, stop: int) -> Rows:
        """Rows ``start:stop``.

        Raises
        ------
        InvalidData
            A chunk cannot be decoded.
        MissingChunks
            A chunk has vanished since the array was opened.
        """
        try:
            stored = np.asarray(self._array[start:stop])
        except DECODING_ERRORS as error:
            if not is_decoding(error):
                raise
            raise undecodable(self._array, self._region(start, stop), self.name, error) from error
        if self._refuses_missing:
            self._check_vanished(start, stop, stored)
        return stored.reshape(stop - start, self.n_features).astype(self.dtype, copy=False)

    def _check_vanished(self, start: int, stop: int, stored: NDArray[Any]) -> None:
        # Only a chunk that reads as nothing but the fill value can be one that is gone: ask only for those.
        fill = self._fill_value()
        for key, region in stored_parts(self._array, self._region(start, stop)):
            values = stored[(slice(region[0].start - start, region[0].stop - start), *region[1:])]
            if _only(values[:1], fill) and _only(values, fill) and not zarr_chunks.is_stored(self._array, key):
                msg = (
                    f"Chunk {key} of {self.name} (rows {region[0].start}:{region[0].stop}) was stored when the "
                    f"array was opened and is gone now. {zarr_chunks.RESTORE}."
                )
                raise MissingChunks(msg)

    def _region(self, start: int, stop: int) -> tuple[slice, ...]:
        return slice(start, stop), *(slice(0, n) for n in self._array.shape[1:])

    def locate(self, row: int, feature: int) -> str:
        """Name a value and the stored chunk (shard) that holds it."""
        lengths = zarr_chunks.storage_shape(self._array)
        at = tuple(i // length for i, length in zip((row, feature), lengths, strict=False))
        return f"chunk {zarr_chunks.chunk_key(self._array, at)} of {self.name}, row {row}, {self.feature(feature)}"


def _only(values: NDArray[Any], fill: Any) -> bool:
    return bool(np.all(values == fill)) or (fill != fill and bool(np.all(values != values)))  # noqa: PLR0124


def _in_memory(array: zarr.Array[Any]) -> bool:
    store = array.store
    if isinstance(store, FsspecStore):
        filesystem = getattr(store.fs, "sync_fs", store.fs)
        return "memory" in np.atleast_1d(filesystem.protocol)
    if isinstance(store, ObjectStore) and not isinstance(store, UrlStore):
        return type(store.store).__name__ == "MemoryStore"
    return isinstance(store, MemoryStore)


def _for_any_folder(array: zarr.Array[Any]) -> zarr.Array[Any]:
    """Make a relative path absolute: workers run in other folders."""
    store = array.store
    if not isinstance(store, LocalStore) or Path(store.root).is_absolute():
        return array
    absolute = LocalStore(Path(store.root).absolute(), read_only=True)
    return zarr.open_array(absolute, path=array.store_path.path, mode="r")
