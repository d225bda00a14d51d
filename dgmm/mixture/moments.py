"""Responsibilities of tiles to sufficient statistics: the second product of each kernel."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from dgmm.mixture.components import Components
from dgmm.mixture.covariance_type import Array
from dgmm.mixture.features import Features
from dgmm.mixture.statistics import SufficientStatistics

if TYPE_CHECKING:
    from dgmm.mixture.compiled import Totals


class Moments:
    """Statistics of one mixture and one block in the making.

    Parameters
    ----------
    components : Components
    """

    def __init__(self, components: Components) -> None:
        covariance = components.parameters.covariance
        k, d = components.parameters.means.shape
        self._components = components
        self._covariance = covariance
        self._two_gemm = np.zeros(components.theta.shape)
        self._pooled = np.zeros((d, d))
        self._counts = np.zeros(k)
        self._first = np.zeros((k, d))
        self._second = np.zeros((1 if covariance.pooled else k, covariance.n_quadratic(d)))
        self._log_likelihood = 0.0
        self._weight = 0.0

    def add(self, features: Features, density: Array, responsibilities: Array, *, centred: bool) -> None:
        """Add a tile.

        Parameters
        ----------
        features : Features
        density : ndarray (b,)
            Log-densities; tied: less the term that all components share, unless centred.
        responsibilities : ndarray (K, b)
            Times the sample weights.
        centred : bool
            The kernel that they come from.
        """
        self._add_densities(density, features.weights)
        if centred:
            for k in range(len(responsibilities)):
                self._add_centred(features.z, responsibilities[k], k)
            return
        self._two_gemm += responsibilities @ features.phi.T
        if self._covariance.pooled:
            self._pooled += features.scatter
        for k in self._components.centred_indices:
            self._add_centred(features.z, responsibilities[k], k)

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
        if not self._components.centred.all():
            self._take_two_gemm()
        return SufficientStatistics(
            self._components.centres,
            self._counts,
            self._first,
            self._second,
            self._log_likelihood,
            self._weight,
        )

    def _add_densities(self, density: Array, weights: Array | None) -> None:
        if weights is None:
            self._weight += len(density)
            self._log_likelihood += float(density.sum(dtype=np.float64))
        else:
            self._weight += float(weights.sum(dtype=np.float64))
            self._log_likelihood += float(weights.astype(np.float64) @ density)

    def _add_centred(self, z: Array, r: Array, k: int) -> None:
        covariance = self._covariance
        mean = self._components.parameters.means[k]
        delta = z - mean[:, None]
        count, first, second = r.sum(), delta @ r, covariance.second_moment(delta, r)
        if not self._components.centred[k]:
            second = second + 2 * covariance.outer(first, mean) + count * covariance.outer(mean, mean)
            first = first + count * mean
        self._counts[k] += count
        self._first[k] += first
        self._second[0 if covariance.pooled else k] += second

    def _take_two_gemm(self) -> None:
        """Split T = R Phi^T, for the components about the origin, into its moments."""
        components, covariance = self._components, self._covariance
        d = components.parameters.n_features
        # A slice copies nothing: the moments of many components of many dimensions are large.
        origin = ~components.centred if components.centred.any() else slice(None)
        moments = self._two_gemm[origin]
        self._counts[origin] += moments[:, -1]
        self._first[origin] += moments[:, -1 - d : -1]
        if covariance.pooled:
            pooled = self._pooled[np.triu_indices(d)][None]
            self._second += pooled
            precisions = covariance.precisions(components.precision_cholesky)
            self._log_likelihood += covariance.shared_log_density(precisions, pooled)
        else:
            self._second[origin] += moments[:, : -1 - d]
