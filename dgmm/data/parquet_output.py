"""Per-row results in a folder of Parquet files, one a unit, resumed where writing stopped."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from zarr.abc.store import Store
from zarr.core.buffer import cpu, default_buffer_prototype
from zarr.core.sync import sync
from zarr.storage import FsspecStore, LocalStore

from dgmm.data.address import is_url, kind_of
from dgmm.data.row_arrays import Layout, entries
from dgmm.data.row_output import RowOutput
from dgmm.data.rows import fitting_rows, regular_length
from dgmm.data.source import Source
from dgmm.data.zarr_chunks import in_batches
from dgmm.data.zarr_store import UrlStore
from dgmm.errors import MissingExtra

PART_ROWS = 2**19
PART_BYTES = 32 * 2**20
ATTRIBUTES = "_dgmm.json"
"""Readers of Parquet folders pass over names that begin with an underscore."""


class ParquetOutput(RowOutput):
    """Arrays with one entry a row as the columns of ``part-00000.parquet`` and so on; a unit is a file.

    The files are in the order of the rows. What lies with them is in ``_dgmm.json``.
    """

    kind = "a folder of Parquet files"

    def __init__(self, path: str | os.PathLike[str], arrays: Layout, chunk_rows: int) -> None:
        _pyarrow()
        super().__init__(path, arrays, chunk_rows)

    @classmethod
    def usual_rows(cls, arrays: Layout) -> int:
        """As many as make 32 MiB, and up to 524288."""
        return max(1, min(PART_ROWS, PART_BYTES // sum(entry.row_bytes for entry in entries(arrays).values())))

    @classmethod
    def unit_rows(cls, source: Source, arrays: Layout) -> int:
        """As many blocks as stay within 524288 rows and 32 MiB, of what is read and what is written together."""
        read = source.n_features * source.dtype.itemsize
        row_bytes = read + sum(entry.row_bytes for entry in entries(arrays).values())
        return fitting_rows(regular_length(source.bounds), min(PART_ROWS, PART_BYTES // row_bytes))

    @cached_property
    def _store(self) -> Store:
        # Zarr's stores write whole objects: under another name first, where they are files.
        if kind_of(self.path):
            return UrlStore(self.path)
        return FsspecStore.from_url(self.path) if is_url(self.path) else LocalStore(self.path)

    def _attributes(self) -> dict[str, Any] | None:
        if not is_url(self.path) and Path(self.path).exists() and not Path(self.path).is_dir():
            raise self._foreign()
        content = sync(self._store.get(ATTRIBUTES, default_buffer_prototype()))
        if content is None:
            if self._is_empty():
                return None
            raise self._foreign()
        try:
            found = json.loads(content.to_bytes())
        except ValueError as error:
            raise self._foreign() from error
        return found if isinstance(found, dict) else {}

    def _create(self, attributes: dict[str, Any]) -> None:
        self._put(ATTRIBUTES, json.dumps(attributes, indent=2).encode())

    def _set_attribute(self, name: str, value: Any) -> None:
        self._create({**(self._attributes() or {}), name: value})

    def _prepare(self) -> None:
        self._remove_partial()
        columns = {name: str(self.arrays[array].dtype) for array in self.arrays for name in self._columns(array)}
        layout = {"columns": columns, "rows": self.n_rows, "rows_of_a_part": self.chunk_rows}
        found = self.recorded("layout")
        if found is None:
            self._set_attribute("layout", layout)
        elif found != layout:
            listed = ", ".join(f"{name} ({dtype})" for name, dtype in found["columns"].items())
            msg = f"a table of {found['rows']:,} rows, {found['rows_of_a_part']:,} a part, with {listed}"
            raise self._mismatch(msg)

    def _columns(self, array: str) -> list[str]:
        entry = self.arrays[array]
        numbered = [f"{array}_{number}" for number in range(entry.row_values)]
        return list(entry.columns) or (numbered if len(entry.shape) > 1 else [array])

    def describe_features(self, names: Sequence[str]) -> None:
        """Record which columns are features."""
        super().describe_features(self._columns("rows"))

    def _part(self, number: int) -> str:
        digits = max(5, len(str(len(self.bounds) - 2)))
        return f"part-{number:0{digits}d}.parquet"

    def _missing(self) -> set[int]:
        async def listed() -> list[str]:
            return [name async for name in self._store.list_dir("")]

        async def is_whole(name: str) -> bool:
            # After a power cut a file may be there with no bytes.
            return await self._store.getsize(name) > 0

        there = set(sync(listed()))
        parts = {self._part(number): number for number in range(len(self.bounds) - 1)}
        stored = [name for name in parts if name in there]
        whole = {name for name, holds in zip(stored, in_batches(is_whole, stored), strict=True) if holds}
        return {number for name, number in parts.items() if name not in whole}

    def _write(self, start: int, stop: int, values: Mapping[str, NDArray[Any]]) -> None:
        for number in range(start // self.chunk_rows, -(-stop // self.chunk_rows)):
            first = number * self.chunk_rows
            place = slice(first - start, min(first + self.chunk_rows, stop) - start)
            self._put(self._part(number), self._file({name: values[name][place] for name in self.arrays}))

    def _file(self, values: Mapping[str, NDArray[Any]]) -> memoryview:
        pyarrow, parquet = _pyarrow()
        columns: dict[str, NDArray[Any]] = {}
        for array, entry in self.arrays.items():
            rows = np.asarray(values[array]).astype(entry.dtype, copy=False).reshape(-1, entry.row_values)
            columns.update((name, rows[:, i]) for i, name in enumerate(self._columns(array)))
        repeating = [name for name, column in columns.items() if column.dtype.kind == "i"]
        buffer = pyarrow.BufferOutputStream()
        table = pyarrow.table(columns)
        parquet.write_table(table, buffer, compression="zstd", use_dictionary=repeating, write_page_checksum=True)
        return memoryview(buffer.getvalue())

    def _put(self, name: str, content: bytes | memoryview) -> None:
        sync(self._store.set(name, cpu.Buffer.from_bytes(content)))

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in self.__dict__.items() if name != "_store"}


def _pyarrow() -> tuple[Any, Any]:
    try:
        import pyarrow as pa
        from pyarrow import parquet
    except ImportError as error:
        msg = "Parquet files need pyarrow. Install it: pip install 'dgmm[parquet]'"
        raise MissingExtra(msg) from error
    return pa, parquet
