"""Rows of a dataset in an HDF5 file, in whole chunks."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import product
from typing import Any, Literal

import h5py
import numpy as np
from numpy.typing import NDArray

from dgmm.data.columns import listed
from dgmm.data.file_source import FileSource
from dgmm.data.files import StoredFile, is_of_storage
from dgmm.data.rows import Rows, block_dtype, check_shape, held_rows, regular_bounds
from dgmm.errors import InvalidData, MissingChunks, SourceNotFound, StoreError

BLOCK_BYTES = 4 * 2**20
# Of HDF5 itself, for a dataset.
_CHUNK_CACHE = 2**20


class Hdf5Source(FileSource):
    """Rows of a dataset; a block is a whole number of row chunks. Each walk through blocks opens the file anew.

    Parameters
    ----------
    file : StoredFile
    dataset : str
        Its name in the file; '' where it is the only one of two dimensions.
    name : str
        How messages call it.
    missing_chunks : {"error", "fill"}
        Refuse chunks that were never written, or take the fill value for them.
    column : bool
        Take a 1-D dataset as one feature.

    Raises
    ------
    SourceNotFound
        There is no such dataset.
    InvalidData
        Not an HDF5 file; several datasets to choose from; one whose values lie in other files.
    MissingChunks
        Chunks were never written, with ``missing_chunks="error"``.
    ShapeMismatch, UnsupportedDtype
        Not rows x features of real numbers.
    """

    def __init__(
        self,
        file: StoredFile,
        dataset: str,
        name: str,
        *,
        missing_chunks: Literal["error", "fill"] = "error",
        column: bool = False,
    ) -> None:
        self.name, self._file = name, file
        self._chunks: tuple[int, ...] | None
        with self._opened() as opened:
            found = _find(opened, dataset, name, column=column)
            self._dataset = str(found.name)
            self.n_rows, self.n_features = check_shape(found.shape, name, column=column)
            self.dtype = block_dtype(found.dtype, name)
            if found.is_virtual or found.external:
                msg = f"The values of {name} lie in other files. Copy them into a dataset of their own first."
                raise InvalidData(msg)
            if missing_chunks == "error":
                _refuse_missing(found, name)
            self._stored, self._chunks = found.dtype, found.chunks
            self.checksum = "fletcher32" if found.fletcher32 else {"gzip": "gzip"}.get(found.compression)
        self._stride = min(self._chunks[0], self.n_rows) if self._chunks else 1
        row_bytes = self.n_features * self._stored.itemsize
        step = self._stride * max(1, BLOCK_BYTES // (self._stride * row_bytes))
        self.bounds = regular_bounds(self.n_rows, step)

    def _opened(self) -> h5py.File:
        source = self._file.source()
        # Some file systems have no locks, and who only reads can do without; objects have none to ask for.
        locking = {} if self._file.remote else {"locking": "best-effort"}
        try:
            return h5py.File(source, "r", **locking)
        except OSError as error:
            if isinstance(error, StoreError):
                raise
            msg = f"{self._file.path} cannot be opened as an HDF5 file: {error}. Restore it, or close its writer."
            raise InvalidData(msg) from error

    @property
    def read_bytes(self) -> int:
        block_rows = held_rows(self.bounds, self._stride)
        converted = 0 if self._stored == self.dtype else self.dtype.itemsize
        chunk = int(np.prod(self._chunks or (0,))) * int(self._stored.itemsize)
        decoded = block_rows * self.n_features * (int(self._stored.itemsize) + converted)
        return decoded + 2 * chunk + _CHUNK_CACHE  # a chunk as it is stored, and decoded

    def fingerprint(self) -> str:
        """SHA-256 of the dataset's name, shape, dtype and chunks, and of the file's size and mtime."""
        layout = (self._dataset, self.n_rows, self.n_features, self._stored.str, self._chunks)
        return hashlib.sha256(f"hdf5 {layout} {self._file.size} {self._file.stamp}".encode()).hexdigest()

    @contextmanager
    def reader(self) -> Iterator[Callable[[int, int], Rows]]:
        """Give a function like `read` that keeps the file open."""
        with self._opened() as opened:
            dataset = opened[self._dataset]
            yield lambda start, stop: self._read(dataset, start, stop)

    def _read(self, dataset: h5py.Dataset, start: int, stop: int) -> Rows:
        try:
            rows: NDArray[Any] = dataset[start:stop]
        except OSError as error:
            if is_of_storage(error):
                raise
            msg = (
                f"Rows {start}:{stop} of {self.name} cannot be read: {error}. They are damaged, or compressed by "
                "a filter that is not installed (HDF5_PLUGIN_PATH says where filters are)."
            )
            raise InvalidData(msg) from error
        return rows.reshape(stop - start, self.n_features).astype(self.dtype, copy=False)

    def chunk_end(self, stop: int) -> int:
        """End of the chunk of row ``stop - 1``."""
        return -(-stop // self._stride) * self._stride

    def locate(self, row: int, feature: int) -> str:
        """Name a value, and the chunk that holds it."""
        at = "/".join(str(i // n) for i, n in zip((row, feature), self._chunks or (), strict=False))
        return f"{f'chunk {at}' if at else 'dataset'} of {self.name}, row {row}, {self.feature(feature)}"


def _find(file: h5py.File, name: str, address: str, *, column: bool) -> h5py.Dataset:
    """The dataset of that name, or the only one that holds rows of features there."""
    if name and name not in file:
        msg = f"There is no {address}: {file.filename} has {_described(list(_datasets(file)))}."
        raise SourceNotFound(msg)
    if "_NCProperties" in file.attrs:
        msg = f"{address} is a NetCDF file, whose variables are a grid. Give it a name that ends with .nc."
        raise InvalidData(msg)
    found = file[name] if name else file
    if isinstance(found, h5py.Dataset):
        return found
    there = list(_datasets(found))
    usable = [d for d in there if (d.ndim == 2 or (column and d.ndim == 1)) and d.dtype.kind in "biuf"]
    if len(usable) != 1:
        example = (usable or there)[0].name if there else "/GROUP/NAME"
        msg = (
            f"{address} has {len(usable)} datasets of rows x features, expected one; there are "
            f"{_described(there)}. Name one, e.g. {file.filename}{example}."
        )
        raise InvalidData(msg)
    return usable[0]


def _datasets(group: h5py.Group) -> Iterator[h5py.Dataset]:
    found: list[h5py.Dataset] = []
    group.visititems(lambda _, node: found.append(node) if isinstance(node, h5py.Dataset) else None)
    return iter(found)


def _described(datasets: list[h5py.Dataset]) -> str:
    return listed([f"{d.name} {d.shape} {d.dtype}" for d in datasets])


def _refuse_missing(dataset: h5py.Dataset, name: str) -> None:
    """HDF5 reads what was never written as the fill value, without a word."""
    if dataset.chunks is None:
        if dataset.id.get_space_status() != h5py.h5d.SPACE_STATUS_NOT_ALLOCATED:
            return
        found = f"{name} was never written."
    else:
        grid = [-(-n // c) for n, c in zip(dataset.shape, dataset.chunks, strict=True)]
        total = int(np.prod(grid))
        absent = total - dataset.id.get_num_chunks()
        if not absent:
            return
        first = "/".join(map(str, next(_never_written(dataset, grid))))
        found = f"{absent} of {total} chunks of {name} were never written (first: {first})."
    msg = (
        f"{found} HDF5 reads the fill value {dataset.fillvalue} there without a word. Write what is missing, or "
        "pass missing_chunks='fill' (--missing-chunks fill) to accept the fill value."
    )
    raise MissingChunks(msg)


def _never_written(dataset: h5py.Dataset, grid: list[int]) -> Iterator[tuple[int, ...]]:
    for at in product(*map(range, grid)):
        corner = tuple(i * c for i, c in zip(at, dataset.chunks, strict=True))
        if dataset.id.get_chunk_info_by_coord(corner).byte_offset is None:
            yield at
