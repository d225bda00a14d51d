"""Rows so far out that the sample would have to hold them, and is unlikely to: a pass that looks for them.

One value of 1e8 among 1e6 rows spoils the component that gets it, or takes it over. Where the sample holds that
row too, the search finds the mixture in which it has a component of its own.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from dgmm.data.source import Block
from dgmm.engine.passes import BlockFunction, Rows
from dgmm.mixture.frame import spreads

# In spreads of a feature (about one standard deviation) from the median.
_FAR = 1e4
# Where the sample has rows this much nearer than the farthest, tails are heavy and the sample shows them.
_SHOWN = 1e-2
# So many, and at most this share of the sample: the frame's quantiles have to withstand them.
_MOST, _SHARE = 32, 100
# Rows at a time: the memory plan has room for a tile.
_TILE = 4096


@dataclass(frozen=True, eq=False)
class Outliers:
    """The farthest rows, and how many are far; outliers add.

    Attributes
    ----------
    most : int
        Rows kept.
    count : int
        Rows that are far, kept or not.
    indices : ndarray (m,)
        Global row numbers, the farthest first.
    rows : ndarray (m, D)
    weights : ndarray (m,)
    distances : ndarray (m,)
    """

    most: int
    count: int
    indices: NDArray[np.int64]
    rows: Rows
    weights: NDArray[np.float64]
    distances: NDArray[np.float64]

    def __add__(self, other: Outliers) -> Outliers:
        both = Outliers(
            self.most,
            self.count + other.count,
            np.concatenate([self.indices, other.indices]),
            np.concatenate([self.rows, other.rows]),
            np.concatenate([self.weights, other.weights]),
            np.concatenate([self.distances, other.distances]),
        )
        return both.trimmed()

    def trimmed(self) -> Outliers:
        """The farthest alone; of equal ones those that come first."""
        kept = np.lexsort((self.indices, -self.distances))[: self.most]
        return Outliers(
            self.most, self.count, self.indices[kept], self.rows[kept], self.weights[kept], self.distances[kept]
        )


@dataclass(frozen=True, eq=False)
class OutlierWork:
    """The pass: rows whose value of a feature lies outside its range.

    Attributes
    ----------
    features : ndarray (F,) of int
        Those that have such values.
    middle, spread : ndarray (F,)
    most : int
        Rows to keep.
    """

    features: NDArray[np.intp]
    middle: NDArray[np.floating]
    spread: NDArray[np.floating]
    most: int
    name = "outliers"

    @classmethod
    def wanted(cls, sample: Rows, low: NDArray[np.float64], high: NDArray[np.float64]) -> OutlierWork | None:
        """What to look for, given a sample (m, D) and the extremes of all rows; None if there is nothing."""
        middle, spread = spreads(sample)
        with np.errstate(divide="ignore", invalid="ignore"):
            reach = np.maximum(high - middle, middle - low) / spread
            shown = np.max(np.abs(sample - middle), axis=0) / spread
        features = np.flatnonzero((spread > 0) & (reach > _FAR) & (shown < _SHOWN * reach))
        most = min(_MOST, len(sample) // _SHARE)
        if not (len(features) and most):
            return None
        return cls(features, middle[features], spread[features], most)

    def prepare(self) -> OutlierWork:
        return self

    def begin(self) -> BlockFunction:
        return self._look

    def _look(self, block: Block, weights: Rows | None) -> Outliers:
        rows = block.rows
        distances = np.empty(len(rows))
        for tile in (slice(start, start + _TILE) for start in range(0, len(rows), _TILE)):
            away = np.abs(rows[tile, self.features].astype(np.float64) - self.middle) / self.spread
            distances[tile] = away.max(axis=1)
        far = distances > _FAR if weights is None else (distances > _FAR) & (weights > 0)
        found = np.flatnonzero(far)
        own = np.ones(len(found)) if weights is None else weights[found].astype(np.float64)
        numbers = block.row_numbers()[found]
        return Outliers(self.most, len(found), numbers, rows[found], own, distances[found]).trimmed()
