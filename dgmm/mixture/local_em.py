"""EM on the few rows of a component: of what is there, and of pairs of components that may take its place.

Pairs from several starts are taken as one mixture whose responsibilities add up to 1 in each pair: the rows'
feature matrix is made once, and an iteration is two products for all of them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

import numpy as np

from dgmm.errors import IllDefinedCovariance
from dgmm.mixture.components import LEAST_EXPONENT, Components
from dgmm.mixture.covariance_type import Array
from dgmm.mixture.criteria import converged, projected
from dgmm.mixture.expectation import EStep
from dgmm.mixture.features import Features, Tiles
from dgmm.mixture.frame import Frame
from dgmm.mixture.maximization import m_step
from dgmm.mixture.parameters import Parameters, side_by_side
from dgmm.mixture.statistics import SufficientStatistics

# Iterations of EM with two new components, and the gain per row at which it ends.
_ITERATIONS = 20
_TOL = 1e-6
# Iterations after which EM that is not heading for a gain of use is given up.
_PATIENCE = 5
_DOUBLE = np.dtype(np.float64)


def climb(
    rows: Array,
    r: Array,
    parameters: Parameters,
    ridge: Array,
    iterations: int = _ITERATIONS,
    above: float = -np.inf,
) -> tuple[Parameters, float]:
    """EM on weighted rows, as long as it heads above: the parameters and their mean log-likelihood.

    Raises
    ------
    IllDefinedCovariance
    """
    frame = Frame.identity(rows.shape[1])
    farthest = _farthest(rows)
    history: list[float] = []
    while True:
        components = Components.prepare(parameters, _DOUBLE, farthest)
        statistics: SufficientStatistics = EStep(components, frame)(rows, r)
        history.append(statistics.mean_log_likelihood)
        if _ended(history, iterations, above):
            return parameters, history[-1]
        parameters = m_step(statistics, parameters, ridge)


def climb_pairs(
    rows: Array,
    r: Array,
    starts: Sequence[Parameters],
    ridge: Array,
    above: float,
    useful: Callable[[Parameters], bool],
    most_values: int,
) -> Iterator[tuple[Parameters, float]]:
    """The same for mixtures of two components, of which those without a covariance are left out.

    Parameters
    ----------
    rows : ndarray (m, D)
    r : ndarray (m,)
        Weights.
    starts : sequence of Parameters
    ridge : ndarray (D,)
    above : float
        A mean log-likelihood; those that are not heading for it are given up.
    useful : callable
        Whether a result counts: the others have to head above it then.
    most_values : int
        That may be held for the rows' features.
    """
    together = _climb_together(rows, r, starts, ridge, above, useful, most_values)
    if together is not None:
        yield from together
        return
    for start in starts:
        try:
            found, reached = climb(rows, r, start, ridge, above=above)
        except IllDefinedCovariance:
            continue
        yield found, reached
        if useful(found):
            above = max(above, reached)


def _climb_together(
    rows: Array,
    r: Array,
    starts: Sequence[Parameters],
    ridge: Array,
    above: float,
    useful: Callable[[Parameters], bool],
    most_values: int,
) -> list[tuple[Parameters, float]] | None:
    """The pairs taken as one mixture; None where they cannot be."""
    if not starts or starts[0].covariance.pooled:
        return None
    covariance, (m, d) = starts[0].covariance, rows.shape
    n_features, farthest = covariance.n_features(d), _farthest(rows)
    if n_features * m > most_values:
        return None
    (tile,) = Tiles(Frame.identity(d), covariance, n_features, 2 * len(starts), m).cut(rows, r)
    features = tile.features(_DOUBLE)
    running, parameters = list(range(len(starts))), side_by_side(starts)
    histories: list[list[float]] = [[] for _ in starts]
    found: dict[int, tuple[Parameters, float]] = {}
    while running:
        try:
            components = Components.prepare(parameters, _DOUBLE, farthest)
        except IllDefinedCovariance:
            return None
        if components.centred.any():
            return None
        statistics, reached = _e_step(components, features, r)
        going = []
        for place, pair in enumerate(running):
            histories[pair].append(float(reached[place]))
            if not _ended(histories[pair], _ITERATIONS, above):
                going.append(place)
                continue
            found[pair] = parameters.only((2 * place, 2 * place + 1)), histories[pair][-1]
            if useful(found[pair][0]):
                above = max(above, found[pair][1])
        following = m_step(statistics, parameters, ridge).only([2 * place + i for place in going for i in (0, 1)])
        shares = following.weights.reshape(-1, 2)
        parameters = replace(following, weights=(shares / shares.sum(axis=1, keepdims=True)).ravel())
        running = [running[place] for place in going]
    return [found[pair] for pair in sorted(found)]


def _e_step(components: Components, features: Features, r: Array) -> tuple[SufficientStatistics, Array]:
    """Statistics of pairs side by side, and the mean log-likelihood of each pair."""
    joint = np.matmul(components.theta, features.phi, out=features.joint[: len(components.theta)])
    pairs = joint.reshape(-1, 2, joint.shape[1])
    density = pairs.max(axis=1)
    pairs -= density[:, None]
    np.exp(np.maximum(pairs, LEAST_EXPONENT[_DOUBLE], out=pairs), out=pairs)
    total = pairs.sum(axis=1)
    density += np.log(total)
    pairs *= (r / total)[:, None]
    moments, d, weight = joint @ features.phi.T, len(features.z), float(r.sum())
    log_likelihoods = density @ r
    statistics = SufficientStatistics(
        components.centres,
        moments[:, -1],
        moments[:, -1 - d : -1],
        moments[:, : -1 - d],
        float(log_likelihoods.sum()),
        weight * len(pairs),
    )
    return statistics, log_likelihoods / weight


def _farthest(rows: Array) -> float:
    """The largest squared length of a row."""
    return float(np.max(np.einsum("bd,bd->b", rows, rows)))


def _ended(history: Sequence[float], iterations: int, above: float) -> bool:
    """Whether EM has converged, is to end, or is not heading above."""
    hopeless = len(history) > _PATIENCE and projected(history) <= above
    return hopeless or len(history) > iterations or converged(history, _TOL)
