"""Components that two could replace, and what that would gain."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from dgmm.errors import IllDefinedCovariance
from dgmm.mixture.collapse import outlying
from dgmm.mixture.components import Components
from dgmm.mixture.covariance_type import Array
from dgmm.mixture.local_em import climb, climb_pairs
from dgmm.mixture.merging import moments_merged
from dgmm.mixture.parameters import Parameters

# Iterations of EM on the rows in question with what is there.
_PRESENT_ITERATIONS = 2
# Rows that belong to a component by less than this do not take part in its split.
_LEAST_RESPONSIBILITY = 1e-2
# Ways tried: so many halves and so many dense groups; rows round which those are looked for, half of them the
# farthest from the mean.
_HALVES, _DENSE = 2, 3
_SEEDS = 400
# Share of a direction's variance that makes a row an outlier, where there are enough rows; of so many normal ones
# none has half of that.
_LEVERAGE, _ROWS_PER_FEATURE = 0.2, 100
# Features of a component's rows are held where they are no more values than the sample has, or would have with so
# many features.
_FEATURES = 32

Mask = NDArray[np.bool_]


@dataclass(frozen=True, eq=False)
class Split:
    """One component, or a pair that overlaps, and two that could replace it.

    Attributes
    ----------
    components : tuple of int
        One or two.
    gain : float
        In mean log-likelihood of all rows.
    children : Parameters
        Two components.
    """

    components: tuple[int, ...]
    gain: float
    children: Parameters


def find_split(
    rows: Array,
    responsibilities: Array,
    parameters: Parameters,
    components: tuple[int, ...],
    least_gain: float,
    ridge: Array,
    rng: np.random.Generator,
) -> Split | None:
    """The best of a few splits of a component, or of a pair taken as one; None if none gains enough.

    Parameters
    ----------
    rows : ndarray (m, D)
        In the frame.
    responsibilities : ndarray (m,)
        Of the components together, times the sample weights.
    parameters : Parameters
        In the frame.
    components : tuple of int
        One or two.
    least_gain : float
        What a split has to gain in mean log-likelihood of all rows to be of use, at least 0.
    ridge : ndarray (D,)
        Added to the variances.
    rng : numpy.random.Generator
    """
    d = rows.shape[1]
    inside = np.flatnonzero(responsibilities > _LEAST_RESPONSIBILITY)
    if len(inside) < 2 * (2 * d + 1):
        return None
    share = responsibilities[inside].sum() / responsibilities.sum()
    z, r = rows[inside], responsibilities[inside]
    present = parameters.only(components)
    weight = float(present.weights.sum())
    present = replace(present, weights=present.weights / weight)
    try:
        settled, before = climb(z, r, present, ridge, _PRESENT_ITERATIONS)
        one = settled
        if len(components) > 1:
            one, _ = climb(z, r, moments_merged(present, 0, 1), ridge, _PRESENT_ITERATIONS)
        cholesky = one.covariance.precision_cholesky(one.covariances)
    except IllDefinedCovariance:
        return None
    white = one.covariance.whiten((z - one.means[0]).T, cholesky, 0).T
    wanted = before + least_gain / (share * weight)
    far = _far(white, r)
    groups = [*far, *_groups(white, r, rng)]
    del white  # as large as the rows

    def supported(children: Parameters) -> bool:
        smaller = int(children.weights.argmin())
        return bool(children.weights[smaller] * len(z) >= 2 * d + 1) or bool(far and _outlying(children, smaller))

    best = None
    for children, after in climb_pairs(
        z, r, _starts(z, r, groups, one, ridge), ridge, wanted, supported, len(rows) * max(d, _FEATURES)
    ):
        gain = (after - before) * share * weight
        if gain > (best.gain if best else least_gain) and supported(children):
            best = Split(components, gain, replace(children, weights=children.weights * weight))
    return best


def _far(white: Array, r: Array) -> list[Mask]:
    """Outliers, if there are any: rows that have a good part of a direction's variance for themselves."""
    n, d = white.shape
    leverage = r / r.sum() * np.sum(white**2, axis=1)
    far = leverage > _LEVERAGE
    return [far] if n > d * _ROWS_PER_FEATURE and far.any() else []


def _outlying(children: Parameters, k: int) -> bool:
    return bool(outlying(Components.prepare(children, np.dtype(np.float64), 0.0), [k]))


def _groups(white: Array, r: Array, rng: np.random.Generator) -> list[Mask]:
    """Rows to set apart, as masks: halves by distance to two seeds; places denser than one Gaussian has them.

    The second kind finds components of few rows: the log of the density that the distance to the m-th
    neighbour implies, less that of the Gaussian.
    """
    n, d = white.shape
    groups = []
    for _ in range(_HALVES):
        first = np.sum((white - white[rng.choice(n, p=r / r.sum())]) ** 2, axis=1)
        if not (r * first).any():
            return []
        second = np.sum((white - white[rng.choice(n, p=r * first / (r @ first))]) ** 2, axis=1)
        groups.append(second < first)
    neighbours = 4 * d
    if n < 3 * neighbours:
        return groups
    radius = np.sum(white**2, axis=1)
    drawn = rng.choice(n, _SEEDS // 2, p=r / r.sum())
    seeds = np.unique(np.concatenate([np.argsort(radius, kind="stable")[-_SEEDS // 2 :], drawn]))
    distances, near = cKDTree(white).query(white[seeds], range(1, neighbours + 1))
    excess = radius[seeds] / 2 - d * np.log(np.maximum(np.asarray(distances)[:, -1], np.finfo(float).tiny))
    taken = np.zeros(n, dtype=bool)
    for s in np.argsort(-excess, kind="stable"):
        if not taken[seeds[s]]:
            group = np.zeros(n, dtype=bool)
            group[np.asarray(near)[s]] = True
            taken |= group
            groups.append(group)
        if len(groups) == _HALVES + _DENSE:
            break
    return groups


def _starts(rows: Array, r: Array, groups: Sequence[Mask], one: Parameters, ridge: Array) -> list[Parameters]:
    """For each group a component of it and one of the others, where both sides have rows."""
    sides = [(group, ~group) for group in groups]
    return [_two(rows, r, two, one, ridge) for two in sides if all(r[side].any() for side in two)]


def _two(rows: Array, r: Array, sides: tuple[Mask, Mask], one: Parameters, ridge: Array) -> Parameters:
    """A component of each side."""
    covariance, d = one.covariance, one.n_features
    weights = np.array([r[side].sum() for side in sides])
    means = np.array([np.average(rows[side], axis=0, weights=r[side]) for side in sides])
    second = np.array(
        [covariance.second_moment((rows[side] - mean).T, r[side]) for side, mean in zip(sides, means, strict=True)]
    )
    if covariance.pooled:
        second = second.sum(axis=0, keepdims=True)
    covariances = covariance.from_moments(weights, np.zeros((2, d)), second, ridge)
    return Parameters(covariance, weights / weights.sum(), means, covariances)
