"""When EM has converged, when a solution has collapsed, and what a model costs."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from dgmm.mixture.components import Components
from dgmm.mixture.covariance_type import Array
from dgmm.mixture.expectation import EStep
from dgmm.mixture.maximization import EMPTY

_STEPS = 3
LONGEST_RUN = _STEPS + 2
"""Values that `converged` looks at."""
_OUTLYING = 30.0
_ROUNDING = 16 * np.finfo(np.float64).eps


def converged(history: Sequence[float], tol: float) -> bool:
    """Whether what EM could still gain is below `tol`.

    With gain ratios a = gain / previous gain, the log-likelihood still to come is gain a / (1 - a) (Aitken;
    Boehning et al. 1994, Ann. Inst. Statist. Math. 46). That estimate has to be below `tol` in three successive
    steps with 0 <= a < 1. A gain below the rounding of the mean log-likelihood ends the fit in any case. So do
    gains below `tol` that change sign twice in four steps: near-singular covariances magnify the rounding, and
    all that is left of EM is a cycle in it.

    Parameters
    ----------
    history : sequence of float
        Mean log-likelihood per row after each iteration.
    tol : float
        Per row.
    """
    if len(history) < 2:
        return False
    gains = np.diff(np.asarray(history[-LONGEST_RUN:]))
    if abs(gains[-1]) <= _ROUNDING * max(abs(history[-1]), 1.0):
        return True
    if len(gains) < _STEPS + 1:
        return False
    if np.all(np.abs(gains) < tol) and np.count_nonzero(np.diff(np.sign(gains))) > 1:
        return True
    ratios = gains[1:] / gains[:-1]
    if not np.all((ratios >= 0) & (ratios < 1)):
        return False
    remaining = np.abs(gains[1:] * ratios / (1 - ratios))
    return bool(np.all(remaining < tol))


def projected(history: Sequence[float]) -> float:
    """Where the log-likelihood is heading: the last one and what Aitken's estimate says is still to come."""
    if len(history) < 3:
        return np.inf
    previous, gain = np.diff(np.asarray(history[-3:]))
    if not 0 < gain < previous:
        return np.inf if gain > 0 else history[-1]
    return float(history[-1] + gain * gain / (previous - gain))


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


def bic(log_likelihood: float, n_parameters: int, weight: float) -> float:
    """Bayesian information criterion of the total log-likelihood; lower is better."""
    return float(-2 * log_likelihood + n_parameters * np.log(weight))


def aic(log_likelihood: float, n_parameters: int) -> float:
    """Akaike information criterion of the total log-likelihood; lower is better."""
    return -2 * log_likelihood + 2 * n_parameters


def icl(log_likelihood: float, n_parameters: int, weight: float, entropy: float) -> float:
    """Integrated completed likelihood; lower is better.

    BIC plus twice the entropy of the responsibilities (Biernacki, Celeux & Govaert 2000, IEEE Trans. PAMI 22,
    with responsibilities in place of labels; the sign is BIC's, mclust's is the opposite).
    """
    return bic(log_likelihood, n_parameters, weight) + 2 * entropy
