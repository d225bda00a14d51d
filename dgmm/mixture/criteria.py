"""When EM has converged, and what a model costs."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

_STEPS = 3
LONGEST_RUN = _STEPS + 2
"""Values that `converged` looks at."""
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


def iterations_left(history: Sequence[float], tol: float) -> int | None:
    """So many iterations until `converged`, if gains go on shrinking as they did; None where they do not shrink.

    After j more with the ratio a, gain a^(j + 1) / (1 - a) is left.
    """
    if len(history) < 3 or tol <= 0:
        return None
    previous, gain = np.diff(np.asarray(history[-3:]))
    if not 0 < gain < previous:
        return None
    ratio = gain / previous
    further = np.log(tol * (1 - ratio) / gain) / np.log(ratio) - 1
    # The estimate has to be below `tol` in three successive steps.
    return max(0, int(np.ceil(further))) + _STEPS - 1


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
