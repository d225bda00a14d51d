"""Responsibilities of tiles to sufficient statistics: the second product of each kernel."""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from dgmm.mixture.components import Components
from dgmm.mixture.covariance_type import AnyArray, Array
from dgmm.mixture.features import Features
from dgmm.mixture.namespaces import Namespace, to_numpy
from dgmm.mixture.statistics import SufficientStatistics

if TYPE_CHECKING:
    from dgmm.mixture.compiled import Totals


class Moments:
    """Statistics of one mixture and one block in the making.

    The sums of the two GEMMs and those of the centred kernel, which are about the means, stay apart until all
    tiles are in. They are where the rows are until then.

    Parameters
    ----------
    components : Components
    namespace : Namespace
        Of the rows.
    """

    def __init__(self, components: Components, namespace: Namespace) -> None:
        covariance = components.parameters.covariance
        k, d = components.parameters.means.shape
        self._components = components
        self._covariance = covariance
        self._namespace = namespace
        self._two_gemm = namespace.zeros(components.theta.shape)
        self._pooled = namespace.zeros((d, d) if covariance.pooled else (0, 0))
        self._counts = namespace.zeros((k,))
        self._first = namespace.zeros((k, d))
        self._second = namespace.zeros((1 if covariance.pooled else k, covariance.n_quadratic(d)))
        self._log_likelihood: AnyArray = 0.0
        self._weight: AnyArray = 0.0
        self._far = False

    def add(self, features: Features, density: AnyArray, responsibilities: AnyArray, *, centred: bool) -> None:
        """Add a tile.

        Parameters
        ----------
        features : Features
        density : array (b,)
            Log-densities; tied: less the term that all components share, unless centred.
        responsibilities : array (K, b)
            Times the sample weights.
        centred : bool
            The kernel that they come from.
        """
        self._add_densities(density, features.weights)
        if not centred:
            self._two_gemm += responsibilities @ features.phi.T
            if self._covariance.pooled:
                self._pooled += features.scatter
        self._far |= centred
        for k in range(responsibilities.shape[0]) if centred else self._components.centred_indices:
            self._add_centred(features.z, responsibilities[k, :], k)

    def add_block(self, totals: Totals) -> list[slice]:
        """Add what the compiled kernel made of a block; the places that it leaves to others."""
        self._two_gemm += totals.product
        if self._covariance.pooled:
            self._pooled += totals.scatter
        self._log_likelihood += totals.log_likelihood
        self._weight += totals.weight
        return totals.refused

    def statistics(self) -> SufficientStatistics:
        """Statistics of the tiles so far, all of them."""
        components = self._components
        counts, first, second = to_numpy(self._counts), to_numpy(self._first), to_numpy(self._second)
        log_likelihood = float(self._log_likelihood)
        if not components.centred.all():
            if self._far:
                self._move_to_origin(counts, first, second)
            log_likelihood += self._add_two_gemm(counts, first, second)
        return SufficientStatistics(components.centres, counts, first, second, log_likelihood, float(self._weight))

    def _add_densities(self, density: AnyArray, weights: AnyArray | None) -> None:
        xp = self._namespace.xp
        if weights is None:
            self._weight += density.shape[0]
            self._log_likelihood += xp.sum(density, dtype=xp.float64)
        else:
            weights = self._namespace.astype(weights)
            self._weight += xp.sum(weights)
            self._log_likelihood += weights @ self._namespace.astype(density)

    @cached_property
    def _means(self) -> AnyArray:
        return self._namespace.array(self._components.parameters.means[:, :, None])

    def _add_centred(self, z: AnyArray, r: AnyArray, k: int) -> None:
        delta = z - self._means[k, ...]
        self._counts[k] += self._namespace.xp.sum(r)
        self._first[k, :] += delta @ r
        self._second[0 if self._covariance.pooled else k, :] += self._covariance.second_moment(delta, r)

    def _move_to_origin(self, counts: Array, first: Array, second: Array) -> None:
        """Moments about the means to moments about the origin, of the components that are about it, in place."""
        covariance, means = self._covariance, self._components.parameters.means
        for k in np.flatnonzero(~self._components.centred):
            moved = 2 * covariance.outer(first[k], means[k]) + counts[k] * covariance.outer(means[k], means[k])
            second[0 if covariance.pooled else k] += moved
            first[k] += counts[k] * means[k]

    def _add_two_gemm(self, counts: Array, first: Array, second: Array) -> float:
        """Split T = R Phi^T, for the components about the origin, into its moments, and add them.

        Returns the log-likelihood that the densities left out.
        """
        components, covariance = self._components, self._covariance
        d = components.parameters.n_features
        # A slice copies nothing: the moments of many components of many dimensions are large.
        origin = ~components.centred if components.centred.any() else slice(None)
        moments = to_numpy(self._two_gemm)[origin]
        counts[origin] += moments[:, -1]
        first[origin] += moments[:, -1 - d : -1]
        if not covariance.pooled:
            second[origin] += moments[:, : -1 - d]
            return 0.0
        pooled = to_numpy(self._pooled)[np.triu_indices(d)][None]
        second += pooled
        return covariance.shared_log_density(covariance.precisions(components.precision_cholesky), pooled)
