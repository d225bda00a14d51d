"""Which features show a mixture best, how far it reaches along them, and its density there."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from scipy.optimize import brentq
from scipy.special import ndtr

from dgmm.mixture.covariance_type import Array
from dgmm.mixture.parameters import Parameters

# Among more than these the heaviest components, and the features that separate them best by themselves, decide.
_COMPONENTS, _FEATURES = 200, 24
# A pair of features that adds less to what is separated adds nothing to look at.
_LEAST_GAIN = 1e-3
_TAIL = 1e-3


def separation(parameters: Parameters) -> Array:
    """How well a mixture of one or two features keeps its components apart, (K (K - 1) / 2,).

    For each pair of components 1 - exp(-B), from 0 (equal) to 1 (apart), where B is their Bhattacharyya distance
    (Kailath 1967, IEEE Trans. Commun. Technol. 15), in the order of `numpy.triu_indices(K, 1)`.
    """
    first, second = np.triu_indices(parameters.n_components, 1)
    covariances, delta = parameters.matrices(), parameters.means[first] - parameters.means[second]
    mean = (covariances[first] + covariances[second]) / 2
    own, both = _determinant(covariances), _determinant(mean)
    if parameters.n_features == 1:
        squared = delta[:, 0] ** 2 / both
    else:
        (dx, dy), (xx, xy, yy) = delta.T, (mean[:, 0, 0], mean[:, 0, 1], mean[:, 1, 1])
        squared = (yy * dx * dx - 2 * xy * dx * dy + xx * dy * dy) / both
    distance = squared / 8 + np.log(both) / 2 - (np.log(own[first]) + np.log(own[second])) / 4
    apart: Array = -np.expm1(-np.maximum(distance, 0.0))
    return apart


def _determinant(matrices: Array) -> Array:
    """Of matrices (n, 1, 1) or (n, 2, 2)."""
    if matrices.shape[1] == 1:
        return matrices[:, 0, 0]
    product: Array = matrices[:, 0, 0] * matrices[:, 1, 1]
    # Of a marginal that is singular in double precision.
    return np.maximum(product - matrices[:, 0, 1] ** 2, np.finfo(float).eps * product)


def chosen_pairs(parameters: Parameters, n_pairs: int) -> list[tuple[int, int]]:
    """Pairs of features (i, j), i < j, to look at a mixture through; the first is the best.

    The first pair is the one in which two rows of different components are apart best: the mean of `separation`,
    weighted with the product of the weights. Each further pair adds most to what those before it keep apart.
    Where nothing is left to add, the pairs that separate best by themselves follow, then those of the largest
    correlation in the mixture.

    Parameters
    ----------
    parameters : Parameters
        In any units of the features.
    n_pairs : int
        At most.
    """
    heaviest = np.sort(np.argsort(-parameters.weights, kind="stable")[:_COMPONENTS])
    mixture = parameters.only([int(k) for k in heaviest])
    first, second = np.triu_indices(mixture.n_components, 1)
    weight = mixture.weights[first] * mixture.weights[second]
    weight /= weight.sum() or 1.0
    alone = [weight @ separation(mixture.marginal([i])) for i in range(mixture.n_features)]
    features = np.sort(np.argsort(-np.array(alone), kind="stable")[:_FEATURES])
    pairs = [(int(i), int(j)) for n, i in enumerate(features) for j in features[n + 1 :]]
    apart = [separation(mixture.marginal(pair)) for pair in pairs]
    correlations = [_correlation(mixture.marginal(pair)) for pair in pairs]
    chosen: list[int] = []
    reached = np.zeros(len(weight))
    while len(chosen) < min(n_pairs, len(pairs)):
        gains = [weight @ np.maximum(found - reached, 0.0) for found in apart]
        left = [n for n in range(len(pairs)) if n not in chosen]
        best = max(
            left,
            key=lambda n: (
                gains[n] if gains[n] > _LEAST_GAIN else 0.0,
                round(float(weight @ apart[n]), 3),
                correlations[n],
            ),
        )
        chosen.append(best)
        reached = np.maximum(reached, apart[best])
    return [pairs[n] for n in chosen]


def _correlation(pair: Parameters) -> float:
    """Size of the correlation of two features in the mixture as a whole."""
    weights = pair.weights / pair.weights.sum()
    about = pair.means - weights @ pair.means
    total = np.tensordot(weights, pair.matrices(), 1) + (about.T * weights) @ about
    return float(abs(total[0, 1]) / np.sqrt(total[0, 0] * total[1, 1]))


def reach(parameters: Parameters, feature: int) -> tuple[float, float]:
    """Where a feature lies but for the thousandth of the mixture at either end."""
    marginal = parameters.marginal([feature])
    means, deviations = marginal.means[:, 0], marginal.deviations[:, 0]
    weights = marginal.weights / marginal.weights.sum()
    ends = float((means - 9 * deviations).min()), float((means + 9 * deviations).max())
    tolerance = 1e-6 * float(deviations.min())

    def end(sign: int) -> float:
        def beyond(x: float) -> float:
            return float(weights @ ndtr(sign * (x - means) / deviations)) - _TAIL

        return float(brentq(beyond, *ends, xtol=tolerance))

    return end(1), end(-1)


def density_on(parameters: Parameters, *axes: Array) -> Array:
    """Density of a mixture on a grid of one or two features: a dimension an axis.

    Parameters
    ----------
    parameters : Parameters
        A marginal of as many features as there are axes.
    *axes : ndarray
        Coordinates along each.
    """
    total = np.zeros(tuple(len(axis) for axis in axes))
    for values in component_densities_on(parameters, *axes):
        total += values
    return total


def component_densities_on(parameters: Parameters, *axes: Array) -> Iterator[Array]:
    """The same of each component, times its weight."""
    covariance, d = parameters.covariance, parameters.n_features
    cholesky = covariance.precision_cholesky(parameters.covariances)
    constants = covariance.log_det(cholesky, parameters.n_components, d) - d / 2 * np.log(2 * np.pi)
    grid = np.meshgrid(*axes, indexing="ij")
    points = np.stack([axis.ravel() for axis in grid])
    for k in range(parameters.n_components):
        white = covariance.whiten(points - parameters.means[k][:, None], cholesky, k)
        density = np.exp(constants[k] - 0.5 * np.einsum("db,db->b", white, white))
        yield parameters.weights[k] * density.reshape(grid[0].shape)
