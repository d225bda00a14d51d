"""The M-step: sufficient statistics to the next parameters."""

from __future__ import annotations

import numpy as np

from dgmm.mixture.covariance_type import Array, CovarianceType
from dgmm.mixture.parameters import Parameters
from dgmm.mixture.statistics import SufficientStatistics

EMPTY = 1e-24
"""A component with less than this share of all weight is empty: the E-step does not resolve responsibilities
below 1e-26, and a mean of such would be that of all rows alike."""


def m_step(
    statistics: SufficientStatistics,
    previous: Parameters,
    ridge: Array,
) -> Parameters:
    """Maximise the expected log-likelihood.

    Parameters
    ----------
    statistics : SufficientStatistics
        Of one pass over all rows with `previous`.
    previous : Parameters
        A component to which no row gives any weight keeps its mean and covariance.
    ridge : ndarray (D,)
        Added to the variance of each feature, in the frame: reg_covar and reg_relative.

    Returns
    -------
    Parameters
        Weights N_k / N, means c + S1 / N_k, covariances S2 / N_k - (mean - c)(mean - c)^T + ridge.
    """
    covariance = previous.covariance
    smallest = EMPTY * statistics.weight
    empty = ~(statistics.counts > smallest)
    counts = np.maximum(statistics.counts, smallest)
    shift = statistics.first / counts[:, None]
    shift[empty] = (previous.means - statistics.centres)[empty]
    means = statistics.centres + shift
    covariances = covariance.from_moments(counts, shift, statistics.second, ridge)
    if not covariance.pooled:
        covariances[empty] = previous.covariances[empty]
    return Parameters(covariance, counts / counts.sum(), means, covariances)


def ridge_in_frame(
    covariance: CovarianceType,
    scale: Array,
    variance: Array,
    reg_covar: float,
    reg_relative: float,
) -> Array:
    """What is added to the variance of each feature, in the frame.

    Parameters
    ----------
    covariance : CovarianceType
        Isotropic ones take the mean variance.
    scale, variance : ndarray (D,)
        Of the frame, and of the data in the frame.
    reg_covar : float
        In squared data units, as in scikit-learn.
    reg_relative : float
        In units of the variance of each feature.
    """
    if covariance.isotropic:
        variance = np.full_like(variance, variance.mean())
    ridge: Array = reg_covar / scale / scale + reg_relative * variance
    return ridge
