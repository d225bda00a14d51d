"""Per-row results in a Zarr group, written in whole chunks and resumed where writing stopped."""

from __future__ import annotations

import os
from collections.abc import Mapping
from itertools import pairwise
from pathlib import Path
from typing import Any, Self

import numpy as np
import zarr
from numpy.typing import NDArray
from zarr.codecs import BloscCodec
from zarr.core.sync import sync
from zarr.errors import NodeNotFoundError
from zarr.storage import FsspecStore

from dgmm.data.address import is_url, kind_of, plain
from dgmm.data.rows import Bounds, regular_bounds
from dgmm.data.store import is_folder, is_object
from dgmm.data.zarr_chunks import chunk_key, list_chunks
from dgmm.data.zarr_store import UrlStore
from dgmm.errors import CheckpointMismatch, ForeignFile, SourceNotFound, StoreError, WriteFailed

UNIT_ROWS = 65536
CHUNK_BYTES = 8 * 2**20

Layout = Mapping[str, tuple[tuple[int, ...], Any]]


def unit_rows(bounds: Bounds, row_bytes: int) -> int:
    """Rows of a write unit that suit a source's blocks.

    Blocks of one length: 2^j of them, as many as stay within 65536 rows and 8 MiB, so that a leaf task of
    2^j blocks writes whole units. Ragged blocks (of a Dask array): a number of rows with the same limits;
    ``source.rows(output.bounds)`` then cuts the data into those units.

    Parameters
    ----------
    bounds : ndarray of int64, shape (n_blocks + 1,)
    row_bytes : int
        Bytes of a row in the widest array.
    """
    most = max(1, min(UNIT_ROWS, CHUNK_BYTES // row_bytes))
    lengths = np.diff(bounds)
    block = int(lengths[0])
    if np.any(lengths[:-1] != block) or lengths[-1] > block:
        return most
    return block << max(0, (most // block).bit_length() - 1)


class RowOutput:
    """Arrays with one entry a row, side by side in a Zarr group (format 3).

    The group's attributes are ``{"dgmm": identity, "complete": bool}``. All arrays are cut at the same rows;
    such a range of rows is a *unit*, and a task writes whole units, so no two tasks touch one chunk. It
    pickles to its address and layout.

    Parameters
    ----------
    path : str or path
        A folder, the URL of an object store, or another URL that fsspec understands.
    arrays : mapping of str to (shape, dtype)
        Each shape starts with the number of rows.
    chunk_rows : int
        Rows of a unit.
    """

    def __init__(self, path: str | os.PathLike[str], arrays: Layout, chunk_rows: int) -> None:
        address = plain(path)
        self.path = address if is_url(address) else os.fspath(Path(address).absolute())
        self.arrays = {name: (tuple(shape), np.dtype(dtype)) for name, (shape, dtype) in arrays.items()}
        self.chunk_rows = chunk_rows
        self.n_rows = next(iter(self.arrays.values()))[0][0]
        self._opened: dict[str, zarr.Array[Any]] = {}

    @classmethod
    def open(
        cls, path: str | os.PathLike[str], *, arrays: Layout, chunk_rows: int, identity: Mapping[str, str]
    ) -> Self:
        """Create the group, or go on with one of the same identity and layout.

        Parameters
        ----------
        path, arrays, chunk_rows
            As for the class.
        identity : mapping of str to str
            What the results belong to: fingerprints of data and model.

        Raises
        ------
        ForeignFile
            The folder holds something that dgmm did not write.
        CheckpointMismatch
            It holds results of other data, another model or other arrays.
        WriteFailed
            It cannot be written.
        """
        output = cls(path, arrays, chunk_rows)
        try:
            if not output._belongs(dict(identity)):
                zarr.create_group(output._place, attributes={"dgmm": dict(identity), "complete": False})
            output._remove_partial()
            for name in output.arrays:
                output._create_or_check(name)
        except OSError as error:
            raise output._failed(error) from error
        return output

    def _belongs(self, identity: dict[str, str]) -> bool:
        """Whether the group is there, ours and the same; False where there is nothing."""
        try:
            group = zarr.open_group(self._place, mode="r", zarr_format=3)
        except (FileNotFoundError, ValueError, KeyError, TypeError) as error:
            # FileNotFoundError is no group; the others are an array, or metadata that cannot be read.
            if isinstance(error, FileNotFoundError) and self._is_empty():
                return False
            msg = f"{self.path} exists and is not a Zarr group that dgmm wrote. Choose another path or remove it."
            raise ForeignFile(msg) from error
        found = dict(group.attrs).get("dgmm")
        if not isinstance(found, dict):
            msg = f"{self.path} is a Zarr group that dgmm did not write. Choose another path or remove it."
            raise ForeignFile(msg)
        changed = sorted(key for key in found.keys() | identity.keys() if found.get(key) != identity.get(key))
        if changed:
            raise self._mismatch("results of another " + ", ".join(changed))
        return True

    def _create_or_check(self, name: str) -> None:
        shape, dtype = self.arrays[name]
        rest = [max(1, min(n, CHUNK_BYTES // (self.chunk_rows * dtype.itemsize))) for n in shape[1:]]
        chunks = (min(self.chunk_rows, shape[0]), *rest)
        try:
            array = zarr.open_array(self._place, path=name, mode="r")
        except NodeNotFoundError:
            zarr.create_array(
                self._place,
                name=name,
                shape=shape,
                dtype=dtype,
                chunks=chunks,
                fill_value=0,
                compressors=BloscCodec(cname="lz4", clevel=5, shuffle="shuffle"),
            )
            return
        if (array.shape, array.dtype, array.chunks) != (shape, dtype, chunks):
            found = f"{name} of shape {array.shape}, {array.dtype}, in chunks of {array.chunks}"
            raise self._mismatch(found)

    def _mismatch(self, found: str) -> CheckpointMismatch:
        return CheckpointMismatch(
            f"{self.path} holds {found}. Choose another path, or remove that folder to start anew."
        )

    def _remove_partial(self) -> None:
        # A kill in the middle of a write leaves Zarr's temporary file behind.
        if (folder := Path(self.path)).is_dir():
            for left in folder.rglob("*.partial"):
                left.unlink(missing_ok=True)

    @property
    def _place(self) -> Any:
        """What Zarr opens."""
        return UrlStore(self.path) if kind_of(self.path) else self.path

    def _is_empty(self) -> bool:
        """Whether nothing is in the way, but for what a killed writer left."""
        if kind_of(self.path):
            return not (is_folder(self.path) or is_object(self.path))
        if is_url(self.path):
            return sync(FsspecStore.from_url(self.path).is_empty(""))
        folder = Path(self.path)
        return not folder.exists() or (
            folder.is_dir() and all(entry.name.endswith(".partial") for entry in folder.iterdir())
        )

    @property
    def bounds(self) -> Bounds:
        """Row offsets of the units, shape (n_units + 1,)."""
        return regular_bounds(self.n_rows, self.chunk_rows)

    @property
    def units(self) -> list[tuple[int, int]]:
        """Row ranges (start, stop) of the units."""
        return list(pairwise(self.bounds.tolist()))

    def missing_units(self) -> list[tuple[int, int]]:
        """Units of which a chunk of any array is not stored yet, found by listing."""
        # Zarr's LocalStore writes NAME.<uuid>.partial and renames it (3.1.6, since pull request 3412), and
        # object stores show an object once it is whole: a kill leaves no half chunk under its own name. It
        # does not fsync: after a power cut a chunk may be there with no bytes, and counts as missing.
        missing = set()
        for name in self.arrays:
            array = self._array(name)
            stored = list_chunks(array)
            columns = [range(-(-n // c)) for n, c in zip(array.shape[1:], array.chunks[1:], strict=True)]
            across = [(column,) for column in columns[0]] if columns else [()]
            for unit in range(len(self.bounds) - 1):
                keys = (chunk_key(array, (unit, *at)) for at in across)
                if any(key not in stored or stored[key].size == 0 for key in keys):
                    missing.add(unit)
        units = self.units
        return [units[unit] for unit in sorted(missing)]

    def check_writable(self) -> None:
        """Raise OSError unless this process sees the arrays and may write to them."""
        for name in self.arrays:
            self._array(name)
        if not is_url(self.path) and not os.access(self.path, os.W_OK):
            msg = "no permission to write"
            raise PermissionError(msg)

    def write(self, start: int, stop: int, values: Mapping[str, NDArray[Any]]) -> None:
        """Write whole units of every array.

        Parameters
        ----------
        start, stop : int
            Both are bounds of units.
        values : mapping of str to ndarray
            Rows ``start:stop`` of each array.

        Raises
        ------
        ValueError
            Not whole units, or not the arrays of this output.
        WriteFailed
            No room, no permission, an I/O error.
        """
        if start % self.chunk_rows or (stop % self.chunk_rows and stop != self.n_rows) or stop > self.n_rows:
            msg = f"rows {start}:{stop} are not whole units of {self.chunk_rows} rows"
            raise ValueError(msg)
        for name, (shape, _) in self.arrays.items():
            expected = (stop - start, *shape[1:])
            if (found := np.shape(values[name])) != expected:
                msg = f"{name} of rows {start}:{stop} has shape {found}, expected {expected}"
                raise ValueError(msg)
        try:
            for name in self.arrays:
                self._array(name)[start:stop] = np.asarray(values[name])
        except OSError as error:
            raise self._failed(error) from error

    def finish(self) -> None:
        """Mark the group as complete.

        Raises
        ------
        WriteFailed
            Units are missing, or the mark cannot be written.
        """
        if missing := self.missing_units():
            found = f"{len(missing)} of {len(self.units)} units of {self.path} are not written"
            msg = f"{found} (first: rows {missing[0]}). Run again to write them."
            raise WriteFailed(msg)
        try:
            zarr.open_group(self._place, mode="r+").attrs["complete"] = True
        except OSError as error:
            raise self._failed(error) from error

    @property
    def complete(self) -> bool:
        """Whether `finish` has been reached, in this run or an earlier one."""
        return bool(zarr.open_group(self._place, mode="r").attrs.get("complete"))

    def _array(self, name: str) -> zarr.Array[Any]:
        if name not in self._opened:
            # Otherwise Zarr leaves out chunks that are all 0, and they would look unwritten.
            array = zarr.open_array(self._place, path=name, mode="r+")
            self._opened[name] = array.with_config({"write_empty_chunks": True})
        return self._opened[name]

    def _failed(self, error: OSError) -> WriteFailed:
        if isinstance(error, StoreError | SourceNotFound):  # which say what to do
            return WriteFailed(f"{self.path} cannot be written. {error}")
        return WriteFailed(
            f"{self.path} cannot be written: {error}. Make room or choose another path, and run again."
        )

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_opened": {}}
