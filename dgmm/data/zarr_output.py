"""Per-row results in a Zarr group, written in whole chunks and resumed where writing stopped."""

from __future__ import annotations

import os
from collections.abc import Mapping
from itertools import product
from typing import Any

import numpy as np
import zarr
from numpy.typing import NDArray
from zarr.codecs import BloscCodec, Crc32cCodec
from zarr.errors import NodeNotFoundError

from dgmm.data.address import kind_of
from dgmm.data.row_arrays import Layout, entries
from dgmm.data.row_output import RowOutput
from dgmm.data.rows import fitting_rows, regular_length
from dgmm.data.source import Source
from dgmm.data.zarr_chunks import chunk_key, list_chunks
from dgmm.data.zarr_store import UrlStore

UNIT_ROWS = 65536
CHUNK_BYTES = 8 * 2**20
# The input's chunks of rows are the output's too, where those of the widest array come out between these sizes.
SENSIBLE_BYTES = (64 * 2**10, 64 * 2**20)


class ZarrOutput(RowOutput):
    """Arrays with one entry a row, side by side in a Zarr group (format 3); a unit is a chunk of rows."""

    kind = "a Zarr group"

    def __init__(self, path: str | os.PathLike[str], arrays: Layout, chunk_rows: int) -> None:
        super().__init__(path, arrays, chunk_rows)
        self._opened: dict[str, zarr.Array[Any]] = {}

    @classmethod
    def usual_rows(cls, arrays: Layout) -> int:
        """As many as make 8 MiB of the widest array."""
        return max(1, CHUNK_BYTES // max(entry.row_bytes for entry in entries(arrays).values()))

    @classmethod
    def unit_rows(cls, source: Source, arrays: Layout) -> int:
        """Rows of the input's chunks, where that makes chunks of 64 KiB to 64 MiB of the widest array.

        Smaller chunks are joined, up to 65536 rows and 8 MiB, and larger ones halved.
        """
        row_bytes = max(entry.row_bytes for entry in entries(arrays).values())
        least, most = SENSIBLE_BYTES
        usual = min(UNIT_ROWS, CHUNK_BYTES // row_bytes)
        chunk = source.chunk_rows
        if chunk is None:
            return fitting_rows(regular_length(source.bounds), usual)
        return fitting_rows(chunk, usual if chunk * row_bytes < least else min(chunk, most // row_bytes))

    def check_writable(self) -> None:
        """Raise OSError unless this process sees the arrays and may write to them."""
        for name in self.arrays:
            self._array(name)
        super().check_writable()

    @property
    def _place(self) -> Any:
        """What Zarr opens."""
        return UrlStore(self.path) if kind_of(self.path) else self.path

    def _attributes(self) -> dict[str, Any] | None:
        try:
            group = zarr.open_group(self._place, mode="r", zarr_format=3)
        except (FileNotFoundError, ValueError, KeyError, TypeError) as error:
            # FileNotFoundError is no group; the others are an array, or metadata that cannot be read.
            if isinstance(error, FileNotFoundError) and self._is_empty():
                return None
            raise self._foreign() from error
        return dict(group.attrs)

    def _create(self, attributes: dict[str, Any]) -> None:
        zarr.create_group(self._place, attributes=attributes)

    def _set_attribute(self, name: str, value: Any) -> None:
        zarr.open_group(self._place, mode="r+").attrs[name] = value

    def _prepare(self) -> None:
        self._remove_partial()
        for name in self.arrays:
            self._create_or_check(name)

    def _shape(self, name: str) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """Of an array, and of its chunks."""
        (n, *rest), dtype, _ = self.arrays[name]
        parts = [max(1, min(m, CHUNK_BYTES // (self.chunk_rows * dtype.itemsize))) for m in rest]
        return (n, *rest), (min(self.chunk_rows, n), *parts)

    def _described(self, name: str) -> dict[str, Any]:
        """What an array is created with besides."""
        return {"fill_value": 0}

    def _at(self, unit: int) -> tuple[int, ...]:
        """Which chunks along the rows a unit is."""
        return (unit,)

    def _create_or_check(self, name: str) -> None:
        (shape, chunks), dtype = self._shape(name), self.arrays[name].dtype
        try:
            array = zarr.open_array(self._place, path=name, mode="r")
        except NodeNotFoundError:
            zarr.create_array(
                self._place,
                name=name,
                shape=shape,
                dtype=dtype,
                chunks=chunks,
                # The checksum costs nothing that can be measured, and finds what flips on the way.
                compressors=[BloscCodec(cname="lz4", clevel=5, shuffle="shuffle"), Crc32cCodec()],
                **self._described(name),
            )
            return
        if (array.shape, array.dtype, array.chunks) != (shape, dtype, chunks):
            found = f"{name} of shape {array.shape}, {array.dtype}, in chunks of {array.chunks}"
            raise self._mismatch(found)

    def _missing(self) -> set[int]:
        # Zarr's LocalStore writes NAME.<uuid>.partial and renames it (3.1.6, since pull request 3412), and
        # object stores show an object once it is whole: a kill leaves no half chunk under its own name. It
        # does not fsync: after a power cut a chunk may be there with no bytes, and counts as missing.
        missing = set()
        along_rows = len(self._at(0))
        for name in self.arrays:
            array = self._array(name)
            stored = list_chunks(array)
            rest = zip(array.shape[along_rows:], array.chunks[along_rows:], strict=True)
            across = list(product(*(range(-(-n // c)) for n, c in rest)))
            for unit in range(len(self.bounds) - 1):
                keys = (chunk_key(array, (*self._at(unit), *further)) for further in across)
                if any(key not in stored or stored[key].size == 0 for key in keys):
                    missing.add(unit)
        return missing

    def _write(self, start: int, stop: int, values: Mapping[str, NDArray[Any]]) -> None:
        for name in self.arrays:
            self._array(name)[start:stop] = np.asarray(values[name])

    def _array(self, name: str) -> zarr.Array[Any]:
        if name not in self._opened:
            # Otherwise Zarr leaves out chunks that are all 0, and they would look unwritten.
            array = zarr.open_array(self._place, path=name, mode="r+")
            self._opened[name] = array.with_config({"write_empty_chunks": True})
        return self._opened[name]

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_opened": {}}
