"""The E-step: rows and components to sufficient statistics, log-densities and responsibilities.

Rows are cut into tiles that stay in cache, and everything is held feature-major (the feature matrix Phi is
F x b, log-densities K x b), so that products, maxima, sums and exponentials run along contiguous memory. A tile
takes one of two kernels:

- *two GEMMs*: L = Theta Phi, R = softmax over components, T = R Phi^T;
- *centred*: for each component the differences to its mean, a triangular product, and moments about the mean;
  slower, right for any parameters. See `dgmm.mixture.components` for who gets which.

Where there is much to compute, tiles for the two GEMMs go to `dgmm.mixture.compiled`, many in one call.

Rows of other libraries that keep to the array API standard (PyTorch, CuPy) take the same kernels in their own
namespace, on their own device, but never the compiled one. Statistics are summed up there in float64 and come back
as NumPy's once a block; see `dgmm.mixture.namespaces`.

Phi does not depend on the parameters: mixtures in *lockstep* take each tile in turn and share it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import cached_property, partial
from typing import TYPE_CHECKING

import numpy as np

from dgmm.mixture.components import Components
from dgmm.mixture.covariance_type import AnyArray
from dgmm.mixture.features import Features, Tile, Tiles
from dgmm.mixture.frame import Frame
from dgmm.mixture.moments import Moments
from dgmm.mixture.namespaces import DOUBLE, Namespace, into, squared_lengths
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

    def __call__(self, rows: AnyArray, weights: AnyArray | None = None) -> Together[SufficientStatistics]:
        """Statistics of a block under each mixture.

        Parameters
        ----------
        rows : array (n, D)
            In data units, float32 or float64; of any namespace of the array API standard.
        weights : array (n,), optional
            Sample weights, of the same.

        Returns
        -------
        Together
            Sufficient statistics in the order of the mixtures, each in its frame.
        """
        found: dict[int, SufficientStatistics] = {}
        for group in self._groups:
            found.update(group.statistics(rows, weights))
        return Together(tuple(found[index] for index in range(self._n_members)))

    def posterior(self, rows: AnyArray) -> Iterator[tuple[int, slice, AnyArray, AnyArray]]:
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

    def __call__(self, rows: AnyArray, weights: AnyArray | None = None) -> SufficientStatistics:
        """Statistics of a block.

        Parameters
        ----------
        rows : array (n, D)
            In data units, float32 or float64; of any namespace of the array API standard.
        weights : array (n,), optional
            Sample weights, of the same.

        Returns
        -------
        SufficientStatistics
            In the frame, float64 whatever the dtype of the rows.
        """
        return self._alone(rows, weights).members[0]

    def posterior(self, rows: AnyArray) -> Iterator[tuple[slice, AnyArray, AnyArray]]:
        """For each tile: its place in the block, log-densities (b,), responsibilities (K, b); in float64.

        The arrays are of the namespace of the rows, and overwritten by the next tile. Log-densities are in data
        units.
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

    def statistics(self, rows: AnyArray, weights: AnyArray | None) -> dict[int, SufficientStatistics]:
        namespace = Namespace.of(rows, weights)
        totals = {index: Moments(mixture.components, namespace) for index, mixture in self._mixtures.items()}
        compiled = self._compiled if namespace.is_numpy else {}
        for index, kernel in compiled.items():
            refused = totals[index].add_block(kernel(rows, weights))
            for place in refused:
                self._add(rows[place], None if weights is None else weights[place], {index: totals[index]})
        self._add(rows, weights, {index: totals[index] for index in totals if index not in compiled})
        return {index: total.statistics() for index, total in totals.items()}

    def _add(self, rows: AnyArray, weights: AnyArray | None, totals: dict[int, Moments]) -> None:
        for tile in self._tiles.cut(rows, weights) if totals else ():
            for index, total in totals.items():
                mixture = self._mixtures[index]
                features, centred = mixture.guarded(tile, mixture.components.dtype)
                density, responsibilities = mixture.responsibilities(features, centred=centred)
                total.add(features, density, responsibilities, centred=centred)

    def posterior(self, rows: AnyArray) -> Iterator[tuple[int, slice, AnyArray, AnyArray]]:
        for tile in self._tiles.cut(rows):
            for index, mixture in self._mixtures.items():
                features, centred = mixture.guarded(tile, DOUBLE)
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
        self._converted: dict[tuple[Namespace, np.dtype[np.floating]], _Converted] = {}

    def guarded(self, tile: Tile, dtype: np.dtype[np.floating]) -> tuple[Features, bool]:
        """The tile in the narrowest dtype, from `dtype`, that the guard allows; whether it must be centred."""
        features = tile.features(dtype)
        if self.components.centred.all():
            return features, True
        if features.radius_squared <= self.components.radius_limits[dtype]:
            return features, False
        if dtype != DOUBLE:
            return self.guarded(tile, DOUBLE)
        return features, True

    def responsibilities(self, features: Features, *, centred: bool) -> tuple[AnyArray, AnyArray]:
        """Log-densities (b,) and responsibilities (K, b) times sample weights, in the room of the tile.

        Tied: log-densities are less the term that all components share, unless centred.
        """
        joint = self._log_joint(features, centred=centred)
        return _softmax(joint, features), joint

    def shared_log_density(self, features: Features) -> AnyArray | float:
        """The term that all components share and the two GEMMs leave out, (b,)."""
        return self._covariance.row_log_density(self._for(features).precision_cholesky, features.z)

    def _for(self, features: Features) -> _Converted:
        key = features.namespace, features.dtype
        if key not in self._converted:
            self._converted[key] = _Converted(self.components, *key)
        return self._converted[key]

    def _log_joint(self, features: Features, *, centred: bool) -> AnyArray:
        """log w_k N(z; mu_k, Sigma_k), (K, b)."""
        components, z, here = self.components, features.z, self._for(features)
        n_components = components.parameters.n_components
        joint = features.joint[:n_components, :]
        if not centred:
            into(joint, features.namespace.xp.matmul, here.theta, features.phi)
        for k in range(n_components) if centred else components.centred_indices:
            white = self._covariance.whiten(z - here.means[k, ...], here.precision_cholesky, k)
            joint[k, :] = float(components.log_constants[k]) - 0.5 * squared_lengths(white)
        return joint


class _Converted:
    """Components in a namespace and dtype; each array when it is first asked for."""

    def __init__(self, components: Components, namespace: Namespace, dtype: np.dtype[np.floating]) -> None:
        self._components = components
        self._array = partial(namespace.array, dtype=dtype)

    @cached_property
    def theta(self) -> AnyArray:
        return self._array(self._components.theta)

    @cached_property
    def means(self) -> AnyArray:
        """As columns, (K, D, 1)."""
        return self._array(self._components.parameters.means[:, :, None])

    @cached_property
    def precision_cholesky(self) -> AnyArray:
        return self._array(self._components.precision_cholesky)


def _n_features(components: Components) -> int:
    """Features of a group: those of the two GEMMs, or the rows themselves where no component takes them."""
    return components.parameters.n_features if components.centred.all() else components.theta.shape[1]


def _softmax(joint: AnyArray, features: Features) -> AnyArray:
    """Turn log w_k N_k into (weighted) responsibilities, in place, and give the log-densities (b,)."""
    xp, weights = features.namespace.xp, features.weights
    density, total, factor = (features.vectors[i, :] for i in range(3))
    into(density, xp.max, joint, axis=0)
    joint -= density
    into(joint, xp.maximum, joint, features.least_exponent)
    into(joint, xp.exp, joint)
    into(total, xp.sum, joint, axis=0)
    factor[...] = 1.0 if weights is None else features.namespace.astype(weights, features.dtype)
    factor /= total
    joint *= factor
    into(total, xp.log, total)
    density += total
    return density
