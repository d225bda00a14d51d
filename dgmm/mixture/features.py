"""Tiles of rows as features: all that mixtures of one frame and covariance type have in common."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cached_property

import numpy as np

from dgmm.mixture.components import LEAST_EXPONENT
from dgmm.mixture.covariance_type import AnyArray, CovarianceType
from dgmm.mixture.frame import Frame
from dgmm.mixture.namespaces import DOUBLE, Namespace


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
        self._buffers: dict[tuple[Namespace, np.dtype[np.floating]], _Buffers] = {}

    def cut(self, rows: AnyArray, weights: AnyArray | None = None) -> Iterator[Tile]:
        """The tiles of a block (n, D); each is overwritten by the next."""
        namespace, n, size = Namespace.of(rows, weights), rows.shape[0], self._sizes[-1]
        for start in range(0, n, size):
            place = slice(start, min(start + size, n))
            yield Tile(self, namespace, place, rows[place, :], None if weights is None else weights[place])

    def buffers(self, namespace: Namespace, dtype: np.dtype[np.floating]) -> _Buffers:
        """Those of a namespace and dtype, made when first asked for."""
        key = namespace, dtype
        if key not in self._buffers:
            self._buffers[key] = _Buffers(namespace, self.frame, *self._sizes, dtype)
        return self._buffers[key]


class _Buffers:
    """Memory for one tile at a time, in one namespace and dtype; the frame beside it."""

    def __init__(
        self,
        namespace: Namespace,
        frame: Frame,
        n_features: int,
        n_components: int,
        rows: int,
        dtype: np.dtype[np.floating],
    ) -> None:
        self.phi = namespace.empty((max(n_features, len(frame.shift) + 1), rows), dtype)
        self.phi[-1, :] = 1.0
        self.joint = namespace.empty((n_components, rows), dtype)
        # Vectors (b,) of a tile. Made anew they cost page faults where freed memory is given back at once, as
        # Dask's nannies have it (MALLOC_TRIM_THRESHOLD_): 15 % of a pass, measured.
        self.vectors = namespace.empty((3, rows), dtype)
        self.least_exponent = namespace.array(np.asarray(LEAST_EXPONENT[dtype]), dtype)
        with np.errstate(over="ignore"):  # beyond float32: the guard sees the infinity
            self.shift = namespace.array(frame.shift[:, None], dtype)
            self.scale = namespace.array(frame.scale[:, None], dtype)


class Tile:
    """Some rows of a block: their place in it, and their features in each dtype that is asked for."""

    def __init__(
        self, tiles: Tiles, namespace: Namespace, place: slice, rows: AnyArray, weights: AnyArray | None
    ) -> None:
        self.place = place
        self._tiles = tiles
        self._namespace = namespace
        self._rows = rows
        self._weights = weights
        self._features: dict[np.dtype[np.floating], Features] = {}

    def features(self, dtype: np.dtype[np.floating]) -> Features:
        """The tile in a dtype."""
        if dtype not in self._features:
            self._features[dtype] = Features(self._tiles, self._namespace, self._rows, self._weights, dtype)
        return self._features[dtype]


class Features:
    """A tile in the frame, in one dtype. What several mixtures need is computed when the first one asks.

    Attributes
    ----------
    namespace : Namespace
        Of the rows, and of everything that is made of them.
    dtype : dtype
    z : array (D, b)
        Rows in the frame.
    weights : array (b,) or None
        As they were given.
    joint : array (K, b)
        Room for what a mixture makes of the tile; overwritten by the next mixture.
    vectors : array (3, b)
        The same.
    least_exponent : array ()
        That of the dtype.
    """

    def __init__(
        self,
        tiles: Tiles,
        namespace: Namespace,
        rows: AnyArray,
        weights: AnyArray | None,
        dtype: np.dtype[np.floating],
    ) -> None:
        b, d = rows.shape
        buffers = tiles.buffers(namespace, dtype)
        self._covariance = tiles.covariance
        self.namespace = namespace
        self.dtype = dtype
        self._phi = buffers.phi[:, :b]
        self.z = self._phi[-1 - d : -1, :]
        self.z[...] = rows.T if dtype == DOUBLE else namespace.astype(rows.T, dtype)
        # Beyond float32: the guard sees the infinity.
        with np.errstate(over="ignore"):
            self.z -= buffers.shift
            self.z /= buffers.scale
        self.weights = weights
        self.joint = buffers.joint[:, :b]
        self.vectors = buffers.vectors[:, :b]
        self.least_exponent = buffers.least_exponent

    @cached_property
    def phi(self) -> AnyArray:
        """The feature matrix (F, b): quadratic features, z, 1."""
        self._covariance.fill_quadratic(self.z, self._phi[: -1 - self.z.shape[0], :])
        return self._phi

    @cached_property
    def radius_squared(self) -> float:
        """|z|^2 at the farthest corner of the box around the tile."""
        xp = self.namespace.xp
        farthest = self.namespace.astype(xp.maximum(xp.max(self.z, axis=1), -xp.min(self.z, axis=1)))
        return float(farthest @ farthest)

    @cached_property
    def scatter(self) -> AnyArray:
        """Sum of w z z^T, (D, D): the same for any responsibilities, since they add up to 1."""
        weighted = self.z if self.weights is None else self.z * self.namespace.astype(self.weights, self.dtype)
        return weighted @ self.z.T
