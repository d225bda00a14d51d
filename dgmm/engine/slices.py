"""Cells of a grid on a map: the most likely component of each, and how probable it is, from one pass."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from dgmm.data.grid import GridSource
from dgmm.data.source import Block, Source
from dgmm.engine.likelihood import PreparedEStep
from dgmm.engine.passes import BlockFunction, Rows
from dgmm.mixture.components import Components
from dgmm.mixture.expectation import EStep
from dgmm.mixture.frame import Frame

_MOST = 400
_AXES = (("latitude", "Y", "degrees_north"), ("longitude", "X", "degrees_east"))


@dataclass(frozen=True)
class Slice:
    """Two sample dimensions of a grid, at the first place of the others; not every cell where there are many.

    Attributes
    ----------
    grid : tuple of int
        Cells along each sample dimension.
    up, across : int
        Which of them are the rows and the columns of the map.
    steps : tuple of int
        Of so many cells along each of these two one is drawn.
    """

    grid: tuple[int, ...]
    up: int
    across: int
    steps: tuple[int, int]

    @classmethod
    def of(cls, source: Source | None) -> Slice | None:
        """Latitude and longitude by their CF attributes, else the last two dimensions; None if there is no map."""
        if not isinstance(source, GridSource) or len(source.features.grid) < 2:
            return None
        dims, grid = source.features.sample_dims, source.features.grid
        up, across = len(dims) - 2, len(dims) - 1
        known = [_dimension(source, dims, names) for names in _AXES]
        if None not in known and known[0] != known[1]:
            up, across = (dims.index(str(name)) for name in known)
        if min(grid[up], grid[across]) < 2:
            return None
        return cls(grid, up, across, (-(-grid[up] // _MOST), -(-grid[across] // _MOST)))

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns of the map."""
        rows, columns = (-(-self.grid[d] // s) for d, s in zip((self.up, self.across), self.steps, strict=True))
        return rows, columns

    def places(self, row_numbers: NDArray[np.int64]) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
        """Which of some rows are on the map, and their cells there in C order."""
        at = np.unravel_index(row_numbers, self.grid)
        (up, across), (every, each) = (at[self.up], at[self.across]), self.steps
        on = (up % every == 0) & (across % each == 0)
        for dim, index in enumerate(at):
            if dim not in (self.up, self.across):
                on &= index == 0
        which = np.flatnonzero(on)
        return which, np.ravel_multi_index((up[which] // every, across[which] // each), self.shape)


def _dimension(source: GridSource, dims: tuple[str, ...], names: tuple[str, ...]) -> str | None:
    """The sample dimension whose coordinate says that it is a latitude, or a longitude."""
    coordinates = source.coordinates
    for dim in dims:
        if coordinates is not None and dim in coordinates.coords:
            attributes = coordinates[dim].attrs
            if {attributes.get("standard_name"), attributes.get("axis"), attributes.get("units")} & set(names):
                return dim
    return None


@dataclass(frozen=True, eq=False)
class Cells:
    """Cells of a map, in any order; they add by being put together.

    Attributes
    ----------
    places : ndarray (m,)
        In C order of the map.
    labels : ndarray (m,)
        Their most likely components.
    probabilities : ndarray (m,)
        And the responsibilities of these.
    """

    places: NDArray[np.intp]
    labels: NDArray[np.int32]
    probabilities: NDArray[np.float32]

    def __add__(self, other: Cells) -> Cells:
        return Cells(
            np.concatenate((self.places, other.places)),
            np.concatenate((self.labels, other.labels)),
            np.concatenate((self.probabilities, other.probabilities)),
        )

    def drawn(self, values: NDArray[np.number], shape: tuple[int, int]) -> NDArray[np.float64]:
        """Values of the cells as a map (rows, columns); NaN where there is none."""
        whole = np.full(shape, np.nan)
        whole.ravel()[self.places] = values
        return whole


class CellsWork(PreparedEStep):
    """Blocks to their `Cells`."""

    name = "map"

    def __init__(self, components: Components, frame: Frame, chosen: Slice) -> None:
        super().__init__(components, frame)
        self.chosen = chosen

    def prepare(self) -> CellsWork:
        return self

    def begin(self) -> BlockFunction:
        step = EStep(self.components, self.frame)

        def cells(block: Block, _: Rows | None) -> Cells:
            which, places = self.chosen.places(block.row_numbers())
            labels, probabilities = np.empty(len(which), np.int32), np.empty(len(which), np.float32)
            for place, _density, responsibilities in step.posterior(block.rows[which]):
                labels[place] = responsibilities.argmax(axis=0)
                probabilities[place] = responsibilities.max(axis=0)
            return Cells(places, labels, probabilities)

        return cells
