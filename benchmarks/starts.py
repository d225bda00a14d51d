"""How often one start reaches the optimum, by its kind, with split-and-merge moves and without.

    python benchmarks/passes.py --starts [--only separated] [--rows 50000] [--seeds 5]

The rows are those of a sample, so that the search on the sample is the whole fit. Without moves: `weights_init`
of equal weights turns them off; it also gives every start equal weights, which is what k-means++ and random rows
begin with or nearly so. The optimum is the best that any of these fits finds, or EM from the generating model.
"""

from __future__ import annotations

import statistics
import time
import warnings
from dataclasses import dataclass
from typing import Any

import numpy as np

from dgmm import GaussianMixture
from dgmm.errors import DgmmError
from dgmm.mixture.initialization import INIT_PARAMS
from dgmm.mixture.parameters import Parameters

REACHED = 1e-4


@dataclass(frozen=True)
class Tried:
    """Where a start led, and how long it took."""

    log_likelihood: float
    seconds: float


def attempt(rows: np.ndarray, n_components: int, reg_covar: float, seed: int, **settings: Any) -> Tried:
    """A fit of one start to all rows; a start that fails leads nowhere."""
    model = GaussianMixture(
        n_components, reg_covar=reg_covar, sample_size=len(rows), random_state=seed, **settings
    )
    began = time.perf_counter()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            model.fit(rows)
    except DgmmError:
        return Tried(-np.inf, time.perf_counter() - began)
    return Tried(model.lower_bound_, time.perf_counter() - began)


def table(
    title: str, rows: np.ndarray, n_components: int, truth: Parameters | None, reg_covar: float, n_seeds: int
) -> None:
    """Print how often the optimum is reached.

    Parameters
    ----------
    title : str
    rows : ndarray (n, D)
    n_components : int
    truth : Parameters or None
        The generating model.
    reg_covar : float
    n_seeds : int
    """
    uniform = np.full(n_components, 1 / n_components)
    moves: dict[bool, dict[str, Any]] = {True: {}, False: {"weights_init": uniform}}
    found = {
        (kind, moving): [
            attempt(rows, n_components, reg_covar, seed, init_params=kind, **moves[moving])
            for seed in range(n_seeds)
        ]
        for kind in INIT_PARAMS
        for moving in (True, False)
    }
    bests = [one.log_likelihood for several in found.values() for one in several]
    origin = ""
    if truth is not None:
        given = {
            "weights_init": truth.weights / truth.weights.sum(),
            "means_init": truth.means,
            "precisions_init": np.linalg.inv(truth.covariances),
        }
        from_truth = attempt(rows, n_components, reg_covar, 0, **given).log_likelihood
        origin = f" (from the generating model: {from_truth - max(bests):+.1e})"
        bests.append(from_truth)
    highest = max(bests)
    print(f"\n{title}: n_init=1, {n_seeds} seeds, best log-likelihood {highest:.7f}{origin}")
    print(f"  {'':17} {'reached':>8} {'below, median':>14} {'worst':>10} {'s':>7}   without moves: the same")
    for kind in INIT_PARAMS:
        cells = []
        for moving in (True, False):
            below = [highest - one.log_likelihood for one in found[kind, moving]]
            reached = f"{sum(b <= REACHED for b in below)}/{n_seeds}"
            seconds = statistics.median(one.seconds for one in found[kind, moving])
            cells.append(f"{reached:>8} {statistics.median(below):14.6f} {max(below):10.6f} {seconds:7.1f}")
        print(f"  {kind:17} {cells[0]}   {cells[1]}", flush=True)
