"""Pairs of components that one could replace, and what that would lose."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from dgmm.errors import IllDefinedCovariance
from dgmm.mixture.covariance_type import Array
from dgmm.mixture.parameters import Parameters

# Merges looked at closely, a component.
_CLOSEST = 2
# Components whose densities are held at least; as many as there are dimensions are no larger than the rows.
_HELD = 32


@dataclass(frozen=True)
class Merge:
    """Two components that one could replace.

    Attributes
    ----------
    first, second : int
    loss : float
        In mean log-likelihood of all rows.
    """

    first: int
    second: int
    loss: float


def moments_merged(parameters: Parameters, first: int, second: int) -> Parameters:
    """The one component with the weight, mean and covariance of two; pooled covariances stay as they are."""
    covariance, d = parameters.covariance, parameters.n_features
    both = [first, second]
    weight = parameters.weights[both].sum(keepdims=True)
    share = parameters.weights[both] / weight
    mean = (share @ parameters.means[both])[None]
    if covariance.pooled:
        return Parameters(covariance, weight, mean, parameters.covariances)
    delta = parameters.means[first] - parameters.means[second]
    moment = share @ covariance.second_moments(parameters.covariances[both], d)
    moment = moment + share[0] * share[1] * covariance.outer(delta, delta)
    merged = covariance.from_moments(np.ones(1), np.zeros((1, d)), moment[None], np.zeros(d))
    return Parameters(covariance, weight, mean, merged)


def find_merges(rows: Array, weights: Array, parameters: Parameters, density: Array) -> list[Merge]:
    """The merges that lose least, best first.

    Parameters
    ----------
    rows : ndarray (m, D)
        In the frame.
    weights : ndarray (m,)
        Sample weights.
    parameters : Parameters
        In the frame.
    density : ndarray (m,)
        Log-density of each row, in the frame.
    """
    k = parameters.n_components
    bound = _merge_bounds(parameters)
    first, second = np.triu_indices(k, 1)
    ranked = np.argsort(bound[first, second], kind="stable")[: _CLOSEST * k]
    ranked = ranked[np.isfinite(bound[first, second][ranked])]

    @lru_cache(max(_HELD, parameters.n_features))
    def own(c: int) -> Array:
        share: Array = np.exp(np.minimum(log_joint(rows, parameters, c) - density, 0.0))
        return share

    merges = []
    for i, j in zip(first[ranked].tolist(), second[ranked].tolist(), strict=True):
        new = log_joint(rows, moments_merged(parameters, i, j), 0) - density
        rest = np.log(np.maximum(1.0 - own(i) - own(j), np.finfo(float).tiny))
        log_ratio = np.logaddexp(rest, new)
        merges.append(Merge(i, j, -float(weights @ log_ratio) / float(weights.sum())))
    return sorted(merges, key=lambda merge: merge.loss)


def _merge_bounds(parameters: Parameters) -> Array:
    """Upper bounds (K, K) on what merges lose: Runnalls 2007, IEEE Trans. Aerosp. Electron. Syst. 43, eq. 16."""
    covariance, w = parameters.covariance, parameters.weights
    k, d = parameters.means.shape
    cholesky = covariance.precision_cholesky(parameters.covariances)
    bound = np.full((k, k), np.inf)
    if covariance.pooled:
        for i in range(k):
            white = covariance.whiten((parameters.means - parameters.means[i]).T, cholesky, i)
            bound[i] = 0.5 * w[i] * w / (w[i] + w) * np.sum(white**2, axis=0)
        return bound
    spread = -covariance.log_det(cholesky, k, d)  # half the log-determinants of the covariances
    for i in range(k):
        for j in range(i + 1, k):
            bound[i, j] = _merge_bound(parameters, spread, i, j)
    return bound


def _merge_bound(parameters: Parameters, spread: Array, i: int, j: int) -> float:
    """Of one merge, where each component has its own covariance, of half the log-determinant `spread`."""
    covariance, w, d = parameters.covariance, parameters.weights, parameters.n_features
    try:
        factor = covariance.precision_cholesky(moments_merged(parameters, i, j).covariances)
    except IllDefinedCovariance:
        return np.inf
    both = float(-covariance.log_det(factor, 1, d)[0])
    return float((w[i] + w[j]) * both - w[i] * spread[i] - w[j] * spread[j])


def nearly_equal(parameters: Parameters, weight: float) -> list[Merge]:
    """Merges of a component and the one nearest to it that would lower BIC, those that lose least first.

    What a merge loses is put at its upper bound, so that these are sure.

    Parameters
    ----------
    parameters : Parameters
        In the frame.
    weight : float
        Sum of the sample weights.
    """
    covariance, (k, d) = parameters.covariance, parameters.means.shape
    if k < 2 or weight <= 1:
        return []
    w, cholesky = parameters.weights, covariance.precision_cholesky(parameters.covariances)
    distance = np.empty((k, k))
    for i in range(k):
        white = covariance.whiten((parameters.means - parameters.means[i]).T, cholesky, i)
        distance[i] = np.einsum("dk,dk->k", white, white)
    np.fill_diagonal(distance, np.inf)
    pairs = sorted({(min(i, j), max(i, j)) for i, j in enumerate(distance.argmin(axis=1).tolist())})
    spread = -covariance.log_det(cholesky, k, d)
    if covariance.pooled:
        bounds = [0.5 * w[i] * w[j] / (w[i] + w[j]) * distance[i, j] for i, j in pairs]
    else:
        bounds = [_merge_bound(parameters, spread, i, j) for i, j in pairs]
    spared = 1 + d + covariance.n_parameters(k, d) - covariance.n_parameters(k - 1, d)
    least = spared / 2 * np.log(weight) / weight
    found = [Merge(i, j, float(bound)) for (i, j), bound in zip(pairs, bounds, strict=True) if bound < least]
    return sorted(found, key=lambda merge: merge.loss)


def log_joint(rows: Array, parameters: Parameters, k: int) -> Array:
    """log w_k N(row; mu_k, Sigma_k), (m,)."""
    one, d = parameters.only((k,)), parameters.n_features
    cholesky = one.covariance.precision_cholesky(one.covariances)
    white = one.covariance.whiten((rows - one.means[0]).T, cholesky, 0)
    constant = np.log(one.weights[0]) + one.covariance.log_det(cholesky, 1, d)[0]
    joint: Array = constant - d / 2 * np.log(2 * np.pi) - 0.5 * np.einsum("db,db->b", white, white)
    return joint
