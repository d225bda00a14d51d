"""Results with one entry a row: what their writers have in common, whatever the format."""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np
from numpy.typing import NDArray
from zarr.core.sync import sync
from zarr.storage import FsspecStore

from dgmm.data.address import is_url, kind_of, plain
from dgmm.data.row_arrays import Layout, entries
from dgmm.data.rows import Bounds, regular_bounds
from dgmm.data.source import Source
from dgmm.data.store import is_folder, is_object
from dgmm.errors import CheckpointMismatch, ForeignFile, SourceNotFound, StoreError, WriteFailed


class RowOutput(ABC):
    """Arrays with one entry a row, written side by side.

    All are cut at the same rows; such a range of rows is a *unit*, and a task writes whole units, so no two tasks
    touch one stored object. With them lie attributes: ``{"dgmm": identity, "complete": bool}`` and what `record`
    adds. It pickles to its address and layout.

    Parameters
    ----------
    path : str or path
        A folder, the URL of an object store, or another URL that fsspec understands.
    arrays : mapping of str to Entry, or to (shape, dtype)
    chunk_rows : int
        Rows of a unit.
    """

    kind: ClassVar[str]
    """What messages call it."""

    def __init__(self, path: str | os.PathLike[str], arrays: Layout, chunk_rows: int) -> None:
        address = plain(path)
        self.path = address if is_url(address) else os.fspath(Path(address).absolute())
        self.arrays = entries(arrays)
        self.chunk_rows = chunk_rows

    @classmethod
    def open(
        cls, path: str | os.PathLike[str], *, arrays: Layout, chunk_rows: int, identity: Mapping[str, str]
    ) -> Self:
        """Describe the output, and `begin` it."""
        return cls(path, arrays, chunk_rows).begin(identity)

    def begin(self, identity: Mapping[str, str]) -> Self:
        """Create the output, or go on with one of the same identity and layout.

        Parameters
        ----------
        identity : mapping of str to str
            What the results belong to: fingerprints of data and model.

        Raises
        ------
        ForeignFile
            There is something that dgmm did not write.
        CheckpointMismatch
            It holds results of other data, another model or other arrays.
        WriteFailed
            It cannot be written.
        MissingExtra
            The format needs another package.
        """
        self.claim(identity)
        try:
            self._prepare()
        except OSError as error:
            raise self._failed(error) from error
        return self

    def claim(self, identity: Mapping[str, str]) -> Self:
        """The first half of `begin`, for which no array need be known: then attributes can be recorded."""
        try:
            if not self._belongs(dict(identity)):
                self._create({"dgmm": dict(identity), "complete": False})
        except OSError as error:
            raise self._failed(error) from error
        return self

    def _belongs(self, identity: dict[str, str]) -> bool:
        """Whether it is there, ours and the same; False where there is nothing."""
        attributes = self._attributes()
        if attributes is None:
            return False
        found = attributes.get("dgmm")
        if not isinstance(found, dict):
            msg = f"{self.path} is {self.kind} that dgmm did not write. Choose another path or remove it."
            raise ForeignFile(msg)
        changed = sorted(key for key in found.keys() | identity.keys() if found.get(key) != identity.get(key))
        if changed:
            raise self._mismatch("results of another " + ", ".join(changed))
        return True

    @classmethod
    @abstractmethod
    def unit_rows(cls, source: Source, arrays: Layout) -> int:
        """Rows of a unit that suit a source's blocks and the arrays that are written of them."""

    @classmethod
    @abstractmethod
    def usual_rows(cls, arrays: Layout) -> int:
        """Rows of a unit that suit the arrays, whatever they are made from."""

    @property
    def n_rows(self) -> int:
        """Rows of every array."""
        return next(iter(self.arrays.values())).shape[0]

    @property
    def bounds(self) -> Bounds:
        """Row offsets of the units, shape (n_units + 1,)."""
        return regular_bounds(self.n_rows, self.chunk_rows)

    @property
    def units(self) -> list[tuple[int, int]]:
        """Row ranges (start, stop) of the units."""
        return list(pairwise(self.bounds.tolist()))

    def describe_features(self, names: Sequence[str]) -> None:
        """Record what the features of the array `rows` are called: `open_source` takes the output as data."""
        if self.recorded("features") is None:
            self.record("features", list(names))

    def missing_units(self) -> list[tuple[int, int]]:
        """Units that are not stored yet in whole, found by listing."""
        units = self.units
        return [units[number] for number in sorted(self._missing())]

    def check_writable(self) -> None:
        """Raise OSError unless this process sees the output and may write to it."""
        if is_url(self.path):
            return
        if not Path(self.path).is_dir():
            msg = "no such folder"
            raise FileNotFoundError(msg)
        if not os.access(self.path, os.W_OK):
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
        self._check_whole(start, stop)
        for name, entry in self.arrays.items():
            expected = (stop - start, *entry.shape[1:])
            if (found := np.shape(values[name])) != expected:
                msg = f"{name} of rows {start}:{stop} has shape {found}, expected {expected}"
                raise ValueError(msg)
        try:
            self._write(start, stop, values)
        except OSError as error:
            raise self._failed(error) from error

    def _check_whole(self, start: int, stop: int) -> None:
        if start % self.chunk_rows or (stop % self.chunk_rows and stop != self.n_rows) or stop > self.n_rows:
            msg = f"rows {start}:{stop} are not whole units of {self.chunk_rows} rows"
            raise ValueError(msg)

    def finish(self) -> None:
        """Mark the output as complete.

        Raises
        ------
        WriteFailed
            Units are missing, or the mark cannot be written.
        """
        if missing := self.missing_units():
            found = f"{len(missing)} of {len(self.units)} units of {self.path} are not written"
            msg = f"{found} (first: rows {missing[0]}). Run again to write them."
            raise WriteFailed(msg)
        self.record("complete", True)

    @property
    def complete(self) -> bool:
        """Whether `finish` has been reached, in this run or an earlier one."""
        return bool(self.recorded("complete"))

    def record(self, name: str, value: Any) -> None:
        """Write an attribute, of what JSON can hold.

        Raises
        ------
        WriteFailed
        """
        try:
            self._set_attribute(name, value)
        except OSError as error:
            raise self._failed(error) from error

    def recorded(self, name: str) -> Any:
        """An attribute, or None."""
        return (self._attributes() or {}).get(name)

    @abstractmethod
    def _attributes(self) -> dict[str, Any] | None:
        """What lies with the arrays; None where there is nothing. Raises ForeignFile for anything else."""

    @abstractmethod
    def _create(self, attributes: dict[str, Any]) -> None:
        """Begin where there is nothing."""

    @abstractmethod
    def _prepare(self) -> None:
        """Make what is written of the arrays ready to go on, or refuse another layout."""

    @abstractmethod
    def _missing(self) -> set[int]:
        """Numbers of the units that are not stored in whole."""

    @abstractmethod
    def _write(self, start: int, stop: int, values: Mapping[str, NDArray[Any]]) -> None: ...

    @abstractmethod
    def _set_attribute(self, name: str, value: Any) -> None: ...

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

    def _remove_partial(self) -> None:
        # A kill in the middle of a write leaves Zarr's temporary file behind.
        if (folder := Path(self.path)).is_dir():
            for left in folder.rglob("*.partial"):
                left.unlink(missing_ok=True)

    def _foreign(self) -> ForeignFile:
        return ForeignFile(
            f"{self.path} exists and is not {self.kind} that dgmm wrote. Choose another path or remove it."
        )

    def _mismatch(self, found: str) -> CheckpointMismatch:
        return CheckpointMismatch(
            f"{self.path} holds {found}. Choose another path, or remove that folder to start anew."
        )

    def _failed(self, error: OSError) -> WriteFailed:
        if isinstance(error, StoreError | SourceNotFound):  # which say what to do
            return WriteFailed(f"{self.path} cannot be written. {error}")
        return WriteFailed(
            f"{self.path} cannot be written: {error}. Make room or choose another path, and run again."
        )
