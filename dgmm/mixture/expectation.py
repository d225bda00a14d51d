"""The E-step: rows and components to sufficient statistics, log-densities and responsibilities.

Rows are cut into tiles that stay in cache, and everything is held feature-major (the feature matrix Phi is
F x b, log-densities K x b), so that products, maxima, sums and exponentials run along contiguous memory. A tile
takes one of two kernels:

- *two GEMMs*: L = Theta Phi, R = softmax over components, T = R Phi^T;
- *centred*: for each component the differences to its mean, a triangular product, and moments about the mean;
  slower, right for any parameters. See `dgmm.mixture.components` for who gets which.

Where there is much to compute, tiles for the two GEMMs go to `dgmm.mixture.compiled`, many in one call.

Phi does not depend on the parameters: mixtures in *lockstep* take each tile in turn and share it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from dgmm.mixture.components import LEAST_EXPONENT, Components
from dgmm.mixture.covariance_type import Array
from dgmm.mixture.features import Features, Tile, Tiles
from dgmm.mixture.frame import Frame
from dgmm.mixture.moments import Moments
from dgmm.mixture.statistics import SufficientStatistics
from dgmm.mixture.tiling import tile_rows, worth_compiling
from dgmm.mixture.together import Together

if TYPE_CHECKING:
    from dgmm.mixture.compiled import CompiledKernel


class Lockstep:
    """One E-step of several mixtures, applied to block after block; it keeps its buffers between them.

    Mixtures of the same frame, covariance type and number of features form a group, which shares tiles and
    feature matrices. Groups of one K give each mixture the bits that it would get alone; in others the tiles,
    hence the rounding of the sums, are those of the largest K.

    Parameters
    ----------
    members : sequence of (Components, Frame)
        Each in its frame.
    n_rows : int
        Rows of the data, of which blocks come: many are worth compiling for.
    """

    def __init__(self, members: Sequence[tuple[Components, Frame]], n_rows: int = 0) -> None:
        self._n_members = len(members)
        grouped: dict[tuple[object, ...], list[int]] = {}
        for index, (components, frame) in enumerate(members):
            key = (
                frame.shift.tobytes(),
                frame.scale.tobytes(),
                components.parameters.covariance.name,
                _n_features(components),
            )
            grouped.setdefault(key, []).append(index)
        self._groups = [
            _Group(members[indices[0]][1], {index: _Mixture(members[index][0]) for index in indices}, n_rows)
            for indices in grouped.values()
        ]

    def __call__(self, rows: Array, weights: Array | None = None) -> Together[SufficientStatistics]:
        """Statistics of a block under each mixture.

        Parameters
        ----------
        rows : ndarray (n, D)
            In data units, float32 or float64.
        weights : ndarray (n,), optional
            Sample weights.

        Returns
        -------
        Together
            Sufficient statistics in the order of the mixtures, each in its frame.
        """
        found: dict[int, SufficientStatistics] = {}
        for group in self._groups:
            found.update(group.statistics(rows, weights))
        return Together(tuple(found[index] for index in range(self._n_members)))

    def posterior(self, rows: Array) -> Iterator[tuple[int, slice, Array, Array]]:
        """For each tile and mixture: number of the mixture, then as `EStep.posterior`.

        The arrays are overwritten by the next one. A group takes all tiles before the next group begins.
        """
        for group in self._groups:
            yield from group.posterior(rows)


class EStep:
    """One E-step of one mixture, applied to block after block; it keeps its buffers between them.

    Parameters
    ----------
    components : Components
        In the frame.
    frame : Frame
    n_rows : int
        Rows of the data, of which blocks come: many are worth compiling for.
    """

    def __init__(self, components: Components, frame: Frame, n_rows: int = 0) -> None:
        self._alone = Lockstep([(components, frame)], n_rows)

    def __call__(self, rows: Array, weights: Array | None = None) -> SufficientStatistics:
        """Statistics of a block.

        Parameters
        ----------
        rows : ndarray (n, D)
            In data units, float32 or float64.
        weights : ndarray (n,), optional
            Sample weights.

        Returns
        -------
        SufficientStatistics
            In the frame, float64 whatever the dtype of the rows.
        """
        return self._alone(rows, weights).members[0]

    def posterior(self, rows: Array) -> Iterator[tuple[slice, Array, Array]]:
        """For each tile: its place in the block, log-densities (b,), responsibilities (K, b); in float64.

        The arrays are overwritten by the next tile. Log-densities are in data units.
        """
        for _, place, density, responsibilities in self._alone.posterior(rows):
            yield place, density, responsibilities


class _Group:
    """Mixtures, by number, that share tiles."""

    def __init__(self, frame: Frame, mixtures: dict[int, _Mixture], n_rows: int) -> None:
        self._frame = frame
        self._mixtures = mixtures
        self._n_rows = n_rows
        components = [mixture.components for mixture in mixtures.values()]
        most = max(c.parameters.n_components for c in components)
        features = _n_features(components[0])
        covariance = components[0].parameters.covariance
        self._tiles = Tiles(frame, covariance, features, most, tile_rows(most, features))

    @cached_property
    def _compiled(self) -> dict[int, CompiledKernel]:
        """Of the mixtures that have enough to do for it."""
        busy = {
            index: mixture.components
            for index, mixture in self._mixtures.items()
            if worth_compiling(self._n_rows, *mixture.components.theta.shape)
            and not mixture.components.centred.any()  # it has no way for them
        }
        if not busy:
            return {}
        from dgmm.mixture.compiled import CompiledKernel

        return {index: CompiledKernel(c, self._frame) for index, c in busy.items()}

    def statistics(self, rows: Array, weights: Array | None) -> dict[int, SufficientStatistics]:
        totals = {index: Moments(mixture.components) for index, mixture in self._mixtures.items()}
        for index, kernel in self._compiled.items():
            refused = totals[index].add_block(kernel(rows, weights))
            for place in refused:
                self._add(rows[place], None if weights is None else weights[place], {index: totals[index]})
        self._add(rows, weights, {index: totals[index] for index in totals if index not in self._compiled})
        return {index: total.statistics() for index, total in totals.items()}

    def _add(self, rows: Array, weights: Array | None, totals: dict[int, Moments]) -> None:
        for tile in self._tiles.cut(rows, weights) if totals else ():
            for index, total in totals.items():
                mixture = self._mixtures[index]
                features, centred = mixture.guarded(tile, mixture.components.dtype)
                density, responsibilities = mixture.responsibilities(features, centred=centred)
                total.add(features, density, responsibilities, centred=centred)

    def posterior(self, rows: Array) -> Iterator[tuple[int, slice, Array, Array]]:
        for tile in self._tiles.cut(rows):
            for index, mixture in self._mixtures.items():
                features, centred = mixture.guarded(tile, np.dtype(np.float64))
                density, responsibilities = mixture.responsibilities(features, centred=centred)
                if not centred:
                    density += mixture.shared_log_density(features)
                density -= self._frame.log_volume
                yield index, tile.place, density, responsibilities


class _Mixture:
    """What one mixture makes of a tile."""

    def __init__(self, components: Components) -> None:
        self.components = components
        self._covariance = components.parameters.covariance
        self._theta: dict[np.dtype[np.floating], Array] = {}

    def guarded(self, tile: Tile, dtype: np.dtype[np.floating]) -> tuple[Features, bool]:
        """The tile in the narrowest dtype, from `dtype`, that the guard allows; whether it must be centred."""
        features = tile.features(dtype)
        if self.components.centred.all():
            return features, True
        if features.radius_squared <= self.components.radius_limits[dtype]:
            return features, False
        if dtype == np.float32:
            return self.guarded(tile, np.dtype(np.float64))
        return features, True

    def responsibilities(self, features: Features, *, centred: bool) -> tuple[Array, Array]:
        """Log-densities (b,) and responsibilities (K, b) times sample weights, in the room of the tile.

        Tied: log-densities are less the term that all components share, unless centred.
        """
        joint = self._log_joint(features, centred=centred)
        return _softmax(joint, features), joint

    def shared_log_density(self, features: Features) -> Array | float:
        """The term that all components share and the two GEMMs leave out, (b,)."""
        return self._covariance.row_log_density(self.components.precision_cholesky, features.z)

    def _log_joint(self, features: Features, *, centred: bool) -> Array:
        """log w_k N(z; mu_k, Sigma_k), (K, b)."""
        components, z = self.components, features.z
        means = components.parameters.means
        joint = features.joint[: len(means)]
        if not centred:
            if z.dtype not in self._theta:
                self._theta[z.dtype] = components.theta.astype(z.dtype, copy=False)
            np.matmul(self._theta[z.dtype], features.phi, out=joint)
        for k in range(len(means)) if centred else components.centred_indices:
            white = self._covariance.whiten(z - means[k][:, None], components.precision_cholesky, k)
            joint[k] = components.log_constants[k] - 0.5 * np.einsum("db,db->b", white, white)
        return joint


def _n_features(components: Components) -> int:
    """Features of a group: those of the two GEMMs, or the rows themselves where no component takes them."""
    return components.parameters.n_features if components.centred.all() else components.theta.shape[1]


def _softmax(joint: Array, features: Features) -> Array:
    """Turn log w_k N_k into (weighted) responsibilities, in place, and give the log-densities (b,)."""
    density: Array = features.vectors[0]
    total, log_total = features.vectors[1:]
    np.max(joint, axis=0, out=density)
    joint -= density
    np.maximum(joint, LEAST_EXPONENT[joint.dtype], out=joint)
    np.exp(joint, out=joint)
    np.sum(joint, axis=0, out=total)
    density += np.log(total, out=log_total)
    np.divide(1.0 if features.weights is None else features.weights, total, out=total)
    joint *= total
    return density
