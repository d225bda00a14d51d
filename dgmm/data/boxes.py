"""Boxes of a grid: where the rows of a block lie among all rows, and how a grid is cut into them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from dgmm.data.rows import Bounds


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


@dataclass(frozen=True)
class Boxes:
    """A grid cut into boxes, in C order.

    Attributes
    ----------
    grid : tuple of int
        Cells along each dimension.
    steps : tuple of int
        Cells of a box along each; the last ones may have fewer.
    """

    grid: tuple[int, ...]
    steps: tuple[int, ...]

    @classmethod
    def of_chunks(cls, grid: Sequence[int], chunks: Sequence[int], cell_bytes: int, box_bytes: int) -> Boxes:
        """Whole chunks, joined along the last dimensions first while a box stays within `box_bytes`."""
        steps = [min(chunk, n) for chunk, n in zip(chunks, grid, strict=True)]
        for axis in reversed(range(len(steps))):
            room = box_bytes // (int(np.prod(steps)) * cell_bytes)
            steps[axis] = min(grid[axis], steps[axis] * max(1, room))
            if steps[axis] < grid[axis]:
                break
        return cls(tuple(grid), tuple(steps))

    @property
    def counts(self) -> tuple[int, ...]:
        """Boxes along each dimension."""
        return tuple(-(-n // step) for n, step in zip(self.grid, self.steps, strict=True))

    def __len__(self) -> int:
        return int(np.prod(self.counts))

    def __getitem__(self, number: int) -> Box:
        at = np.unravel_index(number, self.counts)
        start = tuple(int(a) * step for a, step in zip(at, self.steps, strict=True))
        shape = tuple(min(step, n - a) for a, step, n in zip(start, self.steps, self.grid, strict=True))
        return Box(start, shape, self.grid)

    @cached_property
    def bounds(self) -> Bounds:
        """Position of each box's first cell, box after box, and the number of all cells: shape (n + 1,)."""
        sizes = np.ones(1, dtype=np.int64)
        for n, step in zip(self.grid, self.steps, strict=True):
            lengths = np.full(-(-n // step), step, dtype=np.int64)
            lengths[-1] = n - step * (len(lengths) - 1)
            sizes = np.multiply.outer(sizes, lengths).ravel()
        return np.concatenate([np.zeros(1, dtype=np.int64), np.cumsum(sizes)])

    def __reduce__(self) -> tuple[type[Boxes], tuple[tuple[int, ...], tuple[int, ...]]]:
        return Boxes, (self.grid, self.steps)  # the bounds are sooner found again than sent

    def at(self, position: int) -> int:
        """Number of the box that holds a position."""
        return int(np.searchsorted(self.bounds, position, side="right")) - 1
