"""Starts for EM, on rows that are in memory."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence

import numpy as np
from threadpoolctl import threadpool_limits

from dgmm.mixture.covariance_type import Array, CovarianceType
from dgmm.mixture.maximization import m_step
from dgmm.mixture.merging import log_joint
from dgmm.mixture.parameters import Parameters
from dgmm.mixture.statistics import SufficientStatistics
from dgmm.mixture.tiling import tile_rows

# Several starts mix kinds: where one kind fails another often does not.
_MIXED = ("k-means++", "random_from_data", "kmeans")
# Rows count as no farther from the middle of the data than this, in the frame: a few outliers would decide what
# the covariance of all rows is, and be all that k-means++ chooses.
_FAR = 30.0
INIT_PARAMS = ("mixed", "kmeans", "k-means++", "random", "random_from_data")


def kind_of_start(init_params: str, index: int) -> str:
    """The kind of start number `index`: `mixed` takes k-means++, random_from_data and kmeans in turn."""
    return _MIXED[index % len(_MIXED)] if init_params == "mixed" else init_params


def start(
    rows: Array,
    weights: Array | None,
    n_components: int,
    covariance: CovarianceType,
    kind: str,
    ridge: Array,
    rng: np.random.Generator,
) -> Parameters:
    """A start for EM.

    Parameters
    ----------
    rows : ndarray (m, D)
        A sample of the data, in the frame.
    weights : ndarray (m,) or None
        Sample weights.
    n_components : int
        K.
    covariance : CovarianceType
    kind : {'kmeans', 'k-means++', 'random', 'random_from_data'}
        `kmeans`: the clusters of k-means; `k-means++`: the rows nearest to each of its seeds; both on whitened
        rows, since Euclidean distance misleads where features correlate. `random_from_data`: random rows as
        means with the covariance of all rows. `random`: random responsibilities.
    ridge : ndarray (D,)
        Added to the variances.
    rng : numpy.random.Generator
    """
    w: Array = np.ones(len(rows)) if weights is None else weights.astype(np.float64)
    rows, w = _usable(rows, w)
    near = _near(rows)
    everything = _one_component(near, w, covariance, ridge)
    if kind == "random":
        return _from_random_responsibilities(rows, w, everything, n_components, ridge, rng)
    if kind == "random_from_data":
        chosen = rng.choice(len(rows), n_components, replace=False, p=w / w.sum())
        return _around(rows[chosen], everything)
    # Imported where it is used: workers that never need it start a second earlier.
    from sklearn.cluster import KMeans, kmeans_plusplus
    from sklearn.exceptions import ConvergenceWarning

    white = near if covariance.isotropic else _whitened(near, w)
    seed = int(rng.integers(2**31))
    if kind == "kmeans":
        # With several threads the order of its sums would depend on which ends first.
        with warnings.catch_warnings(), threadpool_limits(1, user_api="openmp"):
            # Fewer distinct rows than clusters: the empty ones keep the covariance of all rows.
            warnings.simplefilter("ignore", ConvergenceWarning)
            labels = KMeans(n_components, n_init=1, random_state=seed).fit(white, sample_weight=w).labels_
        centres = rows[rng.choice(len(rows), n_components)]
    else:
        _, seeds = kmeans_plusplus(white, n_components, sample_weight=w, random_state=seed)
        labels = np.concatenate([_nearest(tile, white[seeds]) for tile in _tiles(white, n_components)])
        centres = rows[seeds]
    return _from_labels(rows, w, labels, _around(centres, everything), ridge)


def reseed(
    rows: Array, weights: Array | None, parameters: Parameters, lost: Sequence[int], ridge: Array
) -> Parameters:
    """Begin some components anew, each at the row that the mixture explains worst by then.

    They get the covariance of all rows (a pooled one stays as it is) and a weight of 1 / K.

    Parameters
    ----------
    rows : ndarray (m, D)
        In the frame.
    weights : ndarray (m,) or None
        Sample weights; rows of weight 0 are not looked at.
    parameters : Parameters
        In the frame.
    lost : sequence of int
        Components to begin anew.
    ridge : ndarray (D,)
        Added to the variances, in the frame.
    """
    k, covariance = parameters.n_components, parameters.covariance
    w: Array = np.ones(len(rows)) if weights is None else weights.astype(np.float64)
    rows, w = _usable(rows, w)
    everything = _one_component(_near(rows), w, covariance, ridge)
    new = parameters
    present = [c for c in range(k) if c not in lost and parameters.weights[c] > 0]
    for c in lost:
        density = np.logaddexp.reduce([log_joint(rows, new, i) for i in present])
        shares, means, covariances = new.weights.copy(), new.means.copy(), new.covariances.copy()
        means[c], shares[c] = rows[np.argmin(density)], 1 / k
        if not covariance.pooled:
            covariances[c] = everything.covariances[0]
        new = Parameters(covariance, shares / shares.sum(), means, covariances)
        present.append(c)
    return new


def _usable(rows: Array, weights: Array) -> tuple[Array, Array]:
    """Rows that weigh something, and their weights; no copy where that is all of them."""
    usable = weights > 0
    return (rows, weights) if usable.all() else (rows[usable], weights[usable])


def _near(rows: Array) -> Array:
    """Rows, those too far out drawn near; no copy where there are none."""
    return rows if max(rows.max(), -rows.min()) <= _FAR else np.clip(rows, -_FAR, _FAR)


def _tiles(rows: Array, n_components: int) -> Iterator[Array]:
    size = tile_rows(n_components, rows.shape[1])
    for first in range(0, len(rows), size):
        yield rows[first : first + size]


def _nearest(rows: Array, seeds: Array) -> Array:
    distances = np.sum(seeds**2, axis=1) - 2 * rows @ seeds.T
    nearest: Array = distances.argmin(axis=1)
    return nearest


def _whitened(rows: Array, weights: Array) -> Array:
    """Rows in coordinates in which their covariance is the identity; directions without spread vanish."""
    mean = np.average(rows, axis=0, weights=weights)
    delta = rows - mean
    values, vectors = np.linalg.eigh((delta.T * weights) @ delta / weights.sum())
    kept = values > values[-1] * len(values) * np.finfo(np.float64).eps
    if not kept.any():
        return delta
    white: Array = delta @ (vectors[:, kept] / np.sqrt(values[kept]))
    return white


def _statistics(
    rows: Array, responsibilities: Array, centres: Array, covariance: CovarianceType
) -> SufficientStatistics:
    """Moments of rows about centres (K, D), given responsibilities (K, m) that already hold the weights."""
    first, second = [], []
    for centre, r in zip(centres, responsibilities, strict=True):
        inside, weights = _usable(rows, r)
        delta = (inside - centre).T
        first.append(delta @ weights)
        second.append(covariance.second_moment(delta, weights))
    moments = np.array(second)
    if covariance.pooled:
        moments = moments.sum(axis=0, keepdims=True)
    counts = responsibilities.sum(axis=1)
    return SufficientStatistics(centres, counts, np.array(first), moments, 0.0, float(counts.sum()))


def _one_component(rows: Array, weights: Array, covariance: CovarianceType, ridge: Array) -> Parameters:
    d = rows.shape[1]
    mean = np.average(rows, axis=0, weights=weights)[None]
    statistics = _statistics(rows, weights[None], mean, covariance)
    empty = Parameters(covariance, np.ones(1), mean, np.empty(covariance.shape(1, d)))
    return m_step(statistics, empty, ridge)


def _around(means: Array, everything: Parameters) -> Parameters:
    """Equal weights, these means, and the covariance of all rows."""
    k, d = means.shape
    shape = everything.covariance.shape(k, d)
    covariances = np.broadcast_to(everything.covariances, shape).copy()
    return Parameters(everything.covariance, np.full(k, 1 / k), means, covariances)


def _from_labels(rows: Array, weights: Array, labels: Array, fallback: Parameters, ridge: Array) -> Parameters:
    """Each component from its own rows; where they are too few for a covariance, that of all rows."""
    k, d = fallback.means.shape
    centres = fallback.means.copy()
    counts, first, second, few = np.zeros(k), np.zeros((k, d)), [], np.zeros(k, dtype=bool)
    covariance = fallback.covariance
    for i in range(k):
        inside = labels == i
        few[i] = inside.sum() < 2 * d + 1
        if inside.any():
            centres[i] = np.average(rows[inside], axis=0, weights=weights[inside])
        delta = (rows[inside] - centres[i]).T
        counts[i] = weights[inside].sum()
        first[i] = delta @ weights[inside]
        second.append(covariance.second_moment(delta, weights[inside]))
    moments = np.array(second)
    if covariance.pooled:
        moments = moments.sum(axis=0, keepdims=True)
    statistics = SufficientStatistics(centres, counts, first, moments, 0.0, float(counts.sum()))
    found = m_step(statistics, fallback, ridge)
    covariances = found.covariances
    if not covariance.pooled:
        covariances[few] = fallback.covariances[few]
    floor = 1.0 / (2 * weights.sum())
    share = np.maximum(found.weights, floor)
    return Parameters(covariance, share / share.sum(), found.means, covariances)


def _from_random_responsibilities(
    rows: Array, weights: Array, everything: Parameters, k: int, ridge: Array, rng: np.random.Generator
) -> Parameters:
    total: SufficientStatistics | None = None
    centres = np.repeat(everything.means, k, axis=0)
    size = tile_rows(k, rows.shape[1])
    for first in range(0, len(rows), size):
        tile = slice(first, first + size)
        drawn = rng.random((k, len(rows[tile])))
        drawn *= weights[tile] / drawn.sum(axis=0)
        part = _statistics(rows[tile], drawn, centres, everything.covariance)
        total = part if total is None else total + part
    assert total is not None  # noqa: S101  there are rows
    return m_step(total, _around(centres, everything), ridge)
