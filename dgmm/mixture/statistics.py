"""The sufficient statistics of a mixture: what one pass over the rows leaves behind."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from dgmm.mixture.covariance_type import Array


@dataclass(frozen=True, eq=False)
class SufficientStatistics:
    """Moments of the rows, weighted by responsibilities, about stated centres.

    They add over tiles, blocks and workers: a commutative monoid up to rounding. Moments about unlike centres
    are refused, since moving them would throw away the accuracy that the centres are there for.

    Attributes
    ----------
    centres : ndarray (K, D)
        What the moments of each component are about: the frame's origin or a point near its mean.
    counts : ndarray (K,)
        Sum of responsibilities times sample weights, N_k.
    first : ndarray (K, D)
        Sum of r (z - c).
    second : ndarray (K, Q), or (1, Q) where the components share one covariance
        Sum of r (z - c)(z - c)^T in the layout of the covariance type.
    log_likelihood : float
        Sum of weighted log-densities, in the frame.
    weight : float
        Sum of sample weights.
    """

    centres: Array
    counts: Array
    first: Array
    second: Array
    log_likelihood: float
    weight: float

    def __add__(self, other: SufficientStatistics) -> SufficientStatistics:
        if not np.array_equal(self.centres, other.centres):
            msg = "statistics about unlike centres cannot be added: they belong to different parameters"
            raise ValueError(msg)
        return SufficientStatistics(
            self.centres,
            self.counts + other.counts,
            self.first + other.first,
            self.second + other.second,
            self.log_likelihood + other.log_likelihood,
            self.weight + other.weight,
        )

    def __sizeof__(self) -> int:
        """Bytes of the arrays: Dask, which moves statistics between workers, wants to know."""
        return sum(array.nbytes for array in (self.centres, self.counts, self.first, self.second))

    def scale(self, factor: float) -> SufficientStatistics:
        """The statistics of the same rows, each `factor` times as heavy."""
        return SufficientStatistics(
            self.centres,
            self.counts * factor,
            self.first * factor,
            self.second * factor,
            self.log_likelihood * factor,
            self.weight * factor,
        )

    @property
    def mean_log_likelihood(self) -> float:
        """Log-likelihood per unit of weight."""
        return self.log_likelihood / self.weight
