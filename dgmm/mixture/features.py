"""Tiles of rows as features: all that mixtures of one frame and covariance type have in common."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cached_property

import numpy as np

from dgmm.mixture.covariance_type import Array, CovarianceType
from dgmm.mixture.frame import Frame


class Tiles:
    """Cuts blocks into tiles, and keeps the buffers of a tile from one to the next.

    Parameters
    ----------
    frame : Frame
    covariance : CovarianceType
    n_features : int
        F, rows of the feature matrix; D where nobody needs more than the rows themselves.
    n_components : int
        K, the most that a mixture has.
    tile_rows : int
    """

    def __init__(
        self, frame: Frame, covariance: CovarianceType, n_features: int, n_components: int, tile_rows: int
    ) -> None:
        self.frame = frame
        self.covariance = covariance
        self._sizes = (n_features, n_components, tile_rows)
        self._buffers: dict[np.dtype[np.floating], _Buffers] = {}

    def cut(self, rows: Array, weights: Array | None = None) -> Iterator[Tile]:
        """The tiles of a block (n, D); each is overwritten by the next."""
        size = self._sizes[-1]
        for start in range(0, len(rows), size):
            place = slice(start, min(start + size, len(rows)))
            yield Tile(self, place, rows[place], None if weights is None else weights[place])

    def buffers(self, dtype: np.dtype[np.floating]) -> _Buffers:
        """Those of a dtype, made when first asked for."""
        if dtype not in self._buffers:
            self._buffers[dtype] = _Buffers(len(self.frame.shift), *self._sizes, dtype)
        return self._buffers[dtype]


class _Buffers:
    """Memory for one tile at a time, in one dtype."""

    def __init__(
        self, d: int, n_features: int, n_components: int, rows: int, dtype: np.dtype[np.floating]
    ) -> None:
        self.phi = np.empty((max(n_features, d + 1), rows), dtype)
        self.phi[-1] = 1.0
        self.joint = np.empty((n_components, rows), dtype)
        # Vectors (b,) of a tile. Made anew they cost page faults where freed memory is given back at once, as
        # Dask's nannies have it (MALLOC_TRIM_THRESHOLD_): 15 % of a pass, measured.
        self.vectors = np.empty((3, rows), dtype)


class Tile:
    """Some rows of a block: their place in it, and their features in each dtype that is asked for."""

    def __init__(self, tiles: Tiles, place: slice, rows: Array, weights: Array | None) -> None:
        self.place = place
        self._tiles = tiles
        self._rows = rows
        self._weights = weights
        self._features: dict[np.dtype[np.floating], Features] = {}

    def features(self, dtype: np.dtype[np.floating]) -> Features:
        """The tile in a dtype."""
        if dtype not in self._features:
            self._features[dtype] = Features(self._tiles, self._rows, self._weights, dtype)
        return self._features[dtype]


class Features:
    """A tile in the frame, in one dtype. What several mixtures need is computed when the first one asks.

    Attributes
    ----------
    z : ndarray (D, b)
        Rows in the frame.
    weights : ndarray (b,) or None
    joint : ndarray (K, b)
        Room for what a mixture makes of the tile; overwritten by the next mixture.
    vectors : ndarray (3, b)
        The same.
    """

    def __init__(self, tiles: Tiles, rows: Array, weights: Array | None, dtype: np.dtype[np.floating]) -> None:
        b, d = rows.shape
        buffers = tiles.buffers(dtype)
        self._covariance = tiles.covariance
        self._phi = buffers.phi[:, :b]
        self.z: Array = self._phi[-1 - d : -1]
        np.copyto(self.z, rows.T)
        # Beyond float32: the guard sees the infinity.
        with np.errstate(over="ignore"):
            self.z -= tiles.frame.shift[:, None].astype(dtype)
            self.z /= tiles.frame.scale[:, None].astype(dtype)
        self.weights = weights
        self.joint: Array = buffers.joint[:, :b]
        self.vectors: Array = buffers.vectors[:, :b]

    @cached_property
    def phi(self) -> Array:
        """The feature matrix (F, b): quadratic features, z, 1."""
        self._covariance.fill_quadratic(self.z, self._phi[: -1 - len(self.z)])
        return self._phi

    @cached_property
    def radius_squared(self) -> float:
        """|z|^2 at the farthest corner of the box around the tile."""
        farthest = np.maximum(self.z.max(axis=1), -self.z.min(axis=1)).astype(np.float64)
        return float(farthest @ farthest)

    @cached_property
    def scatter(self) -> Array:
        """Sum of w z z^T, (D, D): the same for any responsibilities, since they add up to 1."""
        product: Array = (self.z if self.weights is None else self.z * self.weights) @ self.z.T
        return product
