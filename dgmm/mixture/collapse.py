"""When components rest on too little to be a density: few distinct rows, or the regularisation alone."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from dgmm.mixture.components import Components
from dgmm.mixture.covariance_type import Array
from dgmm.mixture.expectation import EStep
from dgmm.mixture.maximization import EMPTY
from dgmm.mixture.parameters import Parameters

# Root mean square over the features of the distance, in standard deviations, that makes an outlier.
_OUTLYING = 30.0
# A variance of up to twice the ridge comes from the ridge; that matters where the data's own is so many times it.
_HELD, _SPREAD = 2.0, 1e4


def multiplicity(rows: Array) -> Array:
    """How often each row occurs among the rows (n, D), (n,)."""
    # A hash, since sorting whole rows takes ten times as long; equal rows have equal bits once -0 is 0.
    bits = (np.ascontiguousarray(rows, dtype=np.float64) + 0.0).view(np.uint64)
    odd = np.random.default_rng(0).integers(1 << 63, size=bits.shape[1], dtype=np.uint64) * 2 + 1
    mixed = (bits ^ (bits >> np.uint64(29))) * odd
    _, which, counts = np.unique(mixed.sum(axis=1), return_inverse=True, return_counts=True)
    found: Array = counts[which].astype(np.float64)
    return found


def too_few_rows(components: Components, step: EStep, rows: Array, times: Array) -> list[int]:
    """The components that rest on too few distinct rows to be a density.

    Their effective number of distinct rows (sum r)^2 / sum r^2 is below 2 D + 1, or the smallest eigenvalue of
    their covariance is at the rounding of the frame.

    Parameters
    ----------
    components, step
        The mixture and its E-step.
    rows : ndarray (n, D)
        In data units.
    times : ndarray (n,)
        The `multiplicity` of each row; 0 for a row that does not count.
    """
    k, d = components.parameters.means.shape
    total, squares = np.zeros(k), np.zeros(k)
    for tile, _, responsibilities in step.posterior(rows):
        counted = np.where(times[tile] > 0, responsibilities, 0.0)
        total += counted.sum(axis=1)
        squares += np.einsum("kb,kb,b->k", counted, counted, times[tile])
    effective = total**2 / np.maximum(squares, np.finfo(np.float64).tiny)
    steepest = components.parameters.covariance.largest_precision(components.precision_cholesky, k)
    bad = (effective < min(2 * d + 1, len(rows))) | (steepest > 1.0 / np.finfo(np.float64).eps)
    return [int(i) for i in np.flatnonzero(bad)]


def outlying(components: Components, few: Sequence[int]) -> list[int]:
    """Those of few rows that are so far from all others that their rows are outliers, and spare the others.

    Farther than 30 standard deviations in the root mean square over the features. A spike in the midst of other
    rows, which is spurious, is nearer.
    """
    parameters = components.parameters
    others = sorted(set(range(parameters.n_components)) - set(few))
    found = []
    for k in (k for k in few if parameters.weights[k] > 2 * EMPTY):
        delta = (parameters.means[k] - parameters.means)[:, :, None]
        whiten = parameters.covariance.whiten
        squared = [float(np.mean(whiten(delta[j], components.precision_cholesky, j) ** 2)) for j in others]
        if others and min(squared) > _OUTLYING**2:
            found.append(k)
    return found


def held_by_ridge(parameters: Parameters, ridge: Array) -> list[int]:
    """Components whose variance in some direction is the ridge's, though the data's own is much larger there.

    So it is with rows of equal values in a feature: their likelihood is whatever the ridge makes of it. Where the
    data themselves have no variance, constant and dependent features, the ridge is what it is for.

    Parameters
    ----------
    parameters : Parameters
        In the frame.
    ridge : ndarray (D,)
        Added to the variances, in the frame.
    """
    covariance, (k, d) = parameters.covariance, parameters.means.shape
    if not (ridge > 0).all():
        return []
    about, root = parameters.means - parameters.weights @ parameters.means, np.sqrt(ridge)
    if not covariance.pooled and parameters.covariances.ndim < 3:
        variances = parameters.covariances.reshape(k, -1) / ridge
        total = parameters.weights @ (variances + about**2 / ridge)
        held = ((variances <= _HELD) & (total > _SPREAD)).any(axis=1)
        return [int(c) for c in np.flatnonzero(held)]
    factors = covariance.rescale_cholesky(covariance.precision_cholesky(parameters.covariances), 1 / root)
    suspects = np.flatnonzero(covariance.largest_precision(factors, k) >= 1 / _HELD)
    if not len(suspects):
        return []
    covariances = covariance.full(parameters.covariances, k, d)
    total = np.tensordot(parameters.weights, covariances, 1) + (about.T * parameters.weights) @ about
    scaled = total / root / root[:, None]
    found = []
    for c in suspects:
        values, vectors = np.linalg.eigh(covariances[c] / root / root[:, None])
        thin = vectors[:, values <= _HELD]
        if thin.size and np.linalg.eigvalsh(thin.T @ scaled @ thin)[-1] > _SPREAD:
            found.append(int(c))
    return found
