"""What was stored of a Zarr array when it was opened, to be compared with what is there later."""

from __future__ import annotations

import hashlib
from typing import Any

import numpy as np
import zarr
from numpy.typing import NDArray
from zarr.storage import FsspecStore, LocalStore, ObjectStore

from dgmm.data.zarr_chunks import RESTORE, Chunk, expected_chunks, list_chunks
from dgmm.errors import DataChanged

_ABSENT = 0


class Listing:
    """Size and stamp of each stored chunk, as a mark of eight bytes.

    Parameters
    ----------
    array : zarr.Array
    stored : dict of str to Chunk
        As `list_chunks` gives it.
    name : str
        How messages call the array.
    """

    def __init__(self, array: zarr.Array[Any], stored: dict[str, Chunk], name: str) -> None:
        self.array, self.name = array, name
        # A web server, an archive and memory would have to be asked for each chunk.
        listable = isinstance(array.store, LocalStore | ObjectStore | FsspecStore) and array.store.supports_listing
        self._marks = _marks(array, stored) if listable else None

    def check(self) -> None:
        """List again, and compare.

        Raises
        ------
        DataChanged
            A chunk is gone, is new, or was written again: the first such one is named.
        """
        if self._marks is None:
            return
        stored = list_chunks(self.array)
        changed = np.flatnonzero(_marks(self.array, stored) != self._marks)
        if not len(changed):
            return
        first = int(changed[0])
        key = next(key for number, (_, key) in enumerate(expected_chunks(self.array)) if number == first)
        more = f" (and {len(changed) - 1} more)" if len(changed) > 1 else ""
        if key not in stored:
            found = "was stored when the data were opened and is gone now"
        elif self._marks[first] == _ABSENT:
            found = "was not stored when the data were opened and is there now"
        else:
            found = f"was written again since the data were opened; it has {stored[key].size} bytes now"
        msg = f"Chunk {key}{more} of {self.name} {found}. {RESTORE}, or start anew with what is there."
        raise DataChanged(msg)

    def __getstate__(self) -> dict[str, Any]:
        # Workers do not compare.
        return {**self.__dict__, "_marks": None}


def _marks(array: zarr.Array[Any], stored: dict[str, Chunk]) -> NDArray[np.uint64]:
    keys = (key for _, key in expected_chunks(array))
    return np.fromiter((_mark(stored.get(key)) for key in keys), np.uint64)


def _mark(chunk: Chunk | None) -> int:
    if chunk is None:
        return _ABSENT
    return int.from_bytes(hashlib.blake2b(f"{chunk.size} {chunk.stamp}".encode(), digest_size=8).digest()) or 1
