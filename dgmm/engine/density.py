"""How many rows lie where: histograms of one or two features, all from one pass.

Nothing is looked up in the data beforehand: the model says how far they reach. Cells have widths that are powers
of two and edges at multiples of them, so that the cell of a row is exact; counts are integers, so that they are
the same for any blocks, workers and order.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dgmm.data.source import Block
from dgmm.engine.passes import BlockFunction, Rows
from dgmm.engine.validity import check_finite, check_weights
from dgmm.mixture.parameters import Parameters
from dgmm.mixture.together import Together
from dgmm.mixture.views import reach

_FEWEST_CELLS, _CELLS = 32, 256


@dataclass(frozen=True)
class Axis:
    """Cells along a feature: cell c is the values from ``(first + c) * width`` up to the next cell.

    Attributes
    ----------
    feature : int
    width : float
        A power of two, in data units.
    first : int
    cells : int
    """

    feature: int
    width: float
    first: int
    cells: int

    @classmethod
    def covering(cls, feature: int, low: float, high: float, cells: int = _CELLS) -> Axis:
        """Of half as many cells to as many, whose ends are at `low` and `high` or just beyond."""
        extent = max(high - low, 2 * cells * float(np.spacing(max(abs(low), abs(high), 1e-300))))
        width = float(np.exp2(np.ceil(np.log2(extent / (cells - 1)))))
        first = int(np.floor(low / width))
        return cls(feature, width, first, int(np.floor(high / width)) - first + 1)

    @property
    def edges(self) -> NDArray[np.float64]:
        """Where the cells begin, and where the last one ends, (cells + 1,)."""
        return np.arange(self.first, self.first + self.cells + 1, dtype=np.float64) * self.width

    @property
    def ends(self) -> tuple[float, float]:
        """Where the first cell begins and the last one ends."""
        return self.first * self.width, (self.first + self.cells) * self.width

    @property
    def centres(self) -> NDArray[np.float64]:
        """Middles of the cells."""
        return self.edges[:-1] + self.width / 2

    def places(self, values: Rows) -> NDArray[np.intp]:
        """The cell of each value, counted from 1; 0 is below all cells, ``cells + 1`` above them."""
        with np.errstate(over="ignore"):
            cell = np.floor(values.astype(np.float64) / self.width)
        cell -= self.first - 1
        return np.clip(cell, 0, self.cells + 1, out=cell).astype(np.intp)


View = tuple[Axis, ...]
"""What a picture is about: one axis, or two."""


def views_of(parameters: Parameters, features: Sequence[tuple[int, ...]], n_rows: int | None = None) -> list[View]:
    """Axes over the reach of a mixture.

    Parameters
    ----------
    parameters : Parameters
        In data units.
    features : sequence of tuple of int
        One or two features for each view.
    n_rows : int, optional
        Few rows are lost in many cells: of fewer than 65,536, an axis has their root at most.
    """
    cells = _CELLS if n_rows is None else max(_FEWEST_CELLS, min(math.isqrt(n_rows), _CELLS))
    wanted = sorted({feature for view in features for feature in view})
    axes = {feature: Axis.covering(feature, *reach(parameters, feature), cells) for feature in wanted}
    return [tuple(axes[feature] for feature in view) for view in features]


@dataclass(frozen=True, eq=False)
class Density:
    """Rows, or the weight of rows, in each cell of a view.

    Attributes
    ----------
    view : tuple of Axis
    counts : ndarray
        A dimension an axis; integers where rows have no weights.
    outside : float
        Share of the rows that lie outside.
    """

    view: View
    counts: NDArray[np.number[Any]]
    outside: float

    @classmethod
    def of(cls, view: View, places: NDArray[np.number[Any]]) -> Density:
        """From what `DensityWork` adds up: the cells, and those round them."""
        counts = places[(slice(1, -1),) * places.ndim]
        return cls(view, counts, 1.0 - float(counts.sum()) / float(places.sum()))


class DensityWork:
    """Blocks to the number of rows in each cell of each view, `Together`; with weights, to their sum.

    Parameters
    ----------
    views : sequence of tuple of Axis
    """

    name = "density"

    def __init__(self, views: Sequence[View]) -> None:
        self._views = tuple(views)

    def prepare(self) -> DensityWork:
        return self

    def begin(self) -> BlockFunction:
        return self._count

    def _count(self, block: Block, weights: Rows | None) -> Together[NDArray[np.number[Any]]]:
        check_finite(block)
        if weights is not None:
            check_weights(block, weights)
            weights = weights.astype(np.float64)
        axes = {axis for view in self._views for axis in view}
        places = {axis: axis.places(block.rows[:, axis.feature]) for axis in axes}
        found = []
        for view in self._views:
            shape = tuple(axis.cells + 2 for axis in view)
            cell = np.ravel_multi_index([places[axis] for axis in view], shape)
            counts = np.bincount(cell, weights, minlength=int(np.prod(shape)))
            found.append(counts.reshape(shape))
        return Together(tuple(found))
