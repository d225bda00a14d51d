"""Pairs of components that one could replace, and what that would lose."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from dgmm.errors import IllDefinedCovariance
from dgmm.mixture.components import Components
from dgmm.mixture.covariance_type import Array
from dgmm.mixture.expectation import EStep
from dgmm.mixture.frame import Frame
from dgmm.mixture.parameters import Parameters, side_by_side

# Merges looked at closely, a component.
_CLOSEST = 2
# Merges looked at together, at least; as many as there are dimensions hold no more than the rows do.
_TOGETHER = 32


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


def closest_pairs(parameters: Parameters) -> list[tuple[int, int]]:
    """The pairs whose merges have the least upper bounds, so many a component, best first."""
    bound = _merge_bounds(parameters)
    first, second = np.triu_indices(parameters.n_components, 1)
    ranked = np.argsort(bound[first, second], kind="stable")[: _CLOSEST * parameters.n_components]
    ranked = ranked[np.isfinite(bound[first, second][ranked])]
    return list(zip(first[ranked].tolist(), second[ranked].tolist(), strict=True))


def looked_at_together(parameters: Parameters) -> int:
    """Merges for `find_merges` at a time: their components take no more memory than the mixture's."""
    return min(max(_TOGETHER, parameters.n_features), parameters.n_components)


def find_merges(
    rows: Array, weights: Array, parameters: Parameters, radius_squared: float, pairs: Sequence[tuple[int, int]]
) -> list[Merge]:
    """What merges lose.

    Parameters
    ----------
    rows : ndarray (m, D)
        In the frame.
    weights : ndarray (m,)
        Sample weights.
    parameters : Parameters
        In the frame.
    radius_squared : float
        See `Components.prepare`.
    pairs : sequence of (int, int)
    """
    frame = Frame.identity(rows.shape[1])

    def posterior(mixture: Parameters) -> Iterator[tuple[slice, Array, Array]]:
        return EStep(Components.prepare(mixture, np.dtype(np.float64), radius_squared), frame).posterior(rows)

    density, shares = np.empty(len(rows)), np.empty((len(pairs), len(rows)))
    first, second = [i for i, _ in pairs], [j for _, j in pairs]
    for tile, found, responsibilities in posterior(parameters):
        density[tile] = found
        shares[:, tile] = responsibilities[first] + responsibilities[second]
    losses = np.zeros(len(pairs))
    merged = side_by_side([moments_merged(parameters, i, j) for i, j in pairs])
    for tile, found, responsibilities in posterior(merged):
        new = np.log(responsibilities) + (found - density[tile])
        rest = np.log(np.maximum(1.0 - shares[:, tile], np.finfo(float).tiny))
        losses -= np.logaddexp(rest, new) @ weights[tile]
    losses /= weights.sum()
    return [Merge(i, j, loss) for (i, j), loss in zip(pairs, losses.tolist(), strict=True)]


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
