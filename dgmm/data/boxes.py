"""Boxes of a grid: where the rows of a block lie among all rows."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Box:
    """A box of the cells of a grid. The cells are rows, and their C order in the grid gives their global numbers.

    Attributes
    ----------
    start, shape : tuple of int
        Lowest corner and extent along each sample dimension.
    grid : tuple of int
        Shape of the whole grid.
    """

    start: tuple[int, ...]
    shape: tuple[int, ...]
    grid: tuple[int, ...]

    @property
    def slices(self) -> tuple[slice, ...]:
        """What it is of the grid."""
        return tuple(slice(a, a + n) for a, n in zip(self.start, self.shape, strict=True))

    def row_numbers(self, offsets: NDArray[np.integer]) -> NDArray[np.int64]:
        """Global row numbers of cells given by their C order within the box."""
        within = np.unravel_index(offsets, self.shape)
        at = tuple(w + a for w, a in zip(within, self.start, strict=True))
        return np.ravel_multi_index(at, self.grid).astype(np.int64)
