"""Stretches of rows in files: what is read at one go, of one file after another."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from dgmm.data.files import StoredFile
from dgmm.data.rows import Bounds


@dataclass(frozen=True, eq=False)
class Stretches:
    """Stretches of a table in order, or some that follow one another.

    Attributes
    ----------
    files : tuple of StoredFile
    file : ndarray of int, shape (n_stretches,)
        Which of the files a stretch is in.
    places : ndarray of int64, shape (n_stretches, ...)
        Where in that file.
    bounds : ndarray of int64, shape (n_stretches + 1,)
        Row offsets of the stretches in the table.
    """

    files: tuple[StoredFile, ...]
    file: NDArray[np.intp]
    places: NDArray[np.int64]
    bounds: Bounds

    @classmethod
    def of(
        cls,
        files: Sequence[StoredFile],
        places: Sequence[NDArray[np.int64]],
        lengths: Sequence[NDArray[np.int64]],
    ) -> Self:
        """Those of whole files, given for each the places and the numbers of rows; without those of no row."""
        file = np.repeat(np.arange(len(files)), [len(own) for own in lengths])
        length = np.concatenate(lengths)
        some = length > 0
        bounds = np.concatenate([[0], np.cumsum(length[some])]).astype(np.int64)
        return cls(tuple(files), file[some], np.concatenate(places)[some], bounds)

    def at(self, row: int) -> int:
        """Which stretch holds a row."""
        return int(np.searchsorted(self.bounds, row, side="right")) - 1

    def file_of(self, stretch: int) -> StoredFile:
        """The file that a stretch is in."""
        return self.files[int(self.file[stretch])]

    @property
    def longest(self) -> int:
        """Rows of the longest one."""
        return int(np.diff(self.bounds).max(initial=0))

    def part(self, start: int, stop: int) -> Self:
        """Those that hold rows ``start:stop``, and their files."""
        first, last = self.at(start), self.at(stop - 1) + 1
        files = self.files[self.file[first] : self.file[last - 1] + 1]
        own: NDArray[Any] = self.file[first:last] - self.file[first]
        return type(self)(files, own, self.places[first:last], self.bounds[first : last + 1])
