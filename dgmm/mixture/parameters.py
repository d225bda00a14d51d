"""Weights, means and covariances of a mixture: an immutable value."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from dgmm.mixture.covariance_type import Array, CovarianceType
from dgmm.mixture.frame import Frame


@dataclass(frozen=True, eq=False)
class Parameters:
    """A Gaussian mixture of K components in D dimensions.

    Attributes
    ----------
    covariance : CovarianceType
    weights : ndarray (K,)
        Positive, summing to 1.
    means : ndarray (K, D)
    covariances : ndarray
        In the shape of the covariance type.
    """

    covariance: CovarianceType
    weights: Array
    means: Array
    covariances: Array

    @property
    def n_components(self) -> int:
        """K."""
        return len(self.means)

    @property
    def n_features(self) -> int:
        """D."""
        return int(self.means.shape[1])

    @property
    def n_parameters(self) -> int:
        """Free parameters: K - 1 weights, K D means, and the covariances."""
        k, d = self.means.shape
        return int(k - 1 + k * d) + self.covariance.n_parameters(k, d)

    @property
    def deviations(self) -> Array:
        """Standard deviation of each feature in each component, (K, D)."""
        variances = [self.marginal([i]).matrices()[:, 0, 0] for i in range(self.n_features)]
        deviations: Array = np.sqrt(np.stack(variances, axis=1))
        return deviations

    def matrices(self) -> Array:
        """Covariances as matrices (K, D, D), whatever their type."""
        return self.covariance.full(self.covariances, *self.means.shape)

    def marginal(self, features: Sequence[int]) -> Parameters:
        """The mixture of some of the features: Gaussians again, of the same type."""
        restricted = self.covariance.restrict(self.covariances, features)
        return Parameters(self.covariance, self.weights, self.means[:, list(features)], restricted)

    def only(self, components: Sequence[int]) -> Parameters:
        """Some of the components, with the weights they have."""
        kept = list(components)
        covariances = self.covariances if self.covariance.pooled else self.covariances[kept]
        return Parameters(self.covariance, self.weights[kept], self.means[kept], covariances)

    def seen_from(self, frame: Frame) -> Parameters:
        """The same mixture in `frame`, with covariances of a type that data units can hold too."""
        if frame.isotropic or not self.covariance.isotropic:
            return self
        kind, covariances = self.covariance.for_each_feature(self.covariances, self.n_features)
        return Parameters(kind, self.weights, self.means, covariances)

    def to_data(self, frame: Frame) -> Parameters:
        """The same mixture in data units, of parameters that are in `frame`.

        Spheres of a frame that is not isotropic become spheres of the same volume: see `seen_from`.
        """
        means = self.means * frame.scale + frame.shift
        covariances = self.covariance.rescale(self.covariances, frame.scale)
        return Parameters(self.covariance, self.weights, means, covariances)

    def to_frame(self, frame: Frame) -> Parameters:
        """The same mixture in `frame`, of parameters that are in data units."""
        means = (self.means - frame.shift) / frame.scale
        covariances = self.covariance.rescale(self.covariances, 1.0 / frame.scale)
        return Parameters(self.covariance, self.weights, means, covariances)

    def sample(self, n_rows: int, rng: np.random.Generator) -> tuple[Array, NDArray[np.int64]]:
        """Draw rows, ordered by component.

        Returns
        -------
        rows : ndarray (n_rows, D)
        labels : ndarray (n_rows,)
            The component of each row, ascending.
        """
        counts = rng.multinomial(n_rows, self.weights / self.weights.sum())
        parts = [
            mean + self.covariance.colour(rng.standard_normal((n, self.n_features)), self.covariances, k)
            for k, (mean, n) in enumerate(zip(self.means, counts, strict=True))
        ]
        return np.concatenate(parts), np.repeat(np.arange(self.n_components), counts)


def side_by_side(mixtures: Sequence[Parameters]) -> Parameters:
    """The components of all mixtures, weights as they are; covariances that are pooled are those of the first."""
    weights = np.concatenate([mixture.weights for mixture in mixtures])
    means = np.concatenate([mixture.means for mixture in mixtures])
    covariance, covariances = mixtures[0].covariance, mixtures[0].covariances
    if not covariance.pooled:
        covariances = np.concatenate([mixture.covariances for mixture in mixtures])
    return Parameters(covariance, weights, means, covariances)
