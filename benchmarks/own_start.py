"""Fits from their own default starts to their own stops: dgmm beside scikit-learn and oneDAL, rows in memory.

    python benchmarks/own_start.py [--only A C] [--repeats 3] [--scale 1.0] [--subsample 100000]
    pip install scikit-learn-intelex    # for oneDAL; it is left out where that is not installed

What people do today is to let scikit-learn fit a subsample. Here dgmm fits all rows: the goal is to be done within
the time of scikit-learn on the subsample and of five passes over all rows (of dgmm's, which are the shortest), and
that no other fit has a higher mean log-likelihood on all rows. One start each, seed 0 to `repeats`; medians of the
seconds, best log-likelihood less that of the generating model. oneDAL's own start tries 20 of 10 iterations each.
"""

from __future__ import annotations

import argparse
import statistics
import time
import warnings
from collections.abc import Callable

import numpy as np
from em_iteration import WORKLOADS, dgmm_iteration, generate, seconds
from sklearn.mixture import GaussianMixture as Sklearn
from threadpoolctl import threadpool_limits

import dgmm
from dgmm.engine.blas import one_blas_thread
from dgmm.mixture.parameters import Parameters

Fit = Callable[[np.ndarray, Parameters, int], dgmm.GaussianMixture]


def by_dgmm(rows: np.ndarray, truth: Parameters, seed: int) -> dgmm.GaussianMixture:
    kind = truth.covariance.name
    return dgmm.GaussianMixture(truth.n_components, covariance_type=kind, random_state=seed).fit(rows)


def by_sklearn(rows: np.ndarray, truth: Parameters, seed: int) -> dgmm.GaussianMixture:
    kind = truth.covariance.name
    model = Sklearn(truth.n_components, covariance_type=kind, random_state=seed).fit(rows)
    return dgmm.GaussianMixture.from_sklearn(model)


def by_onedal(rows: np.ndarray, truth: Parameters, seed: int) -> dgmm.GaussianMixture:
    import daal4py

    storage = "full" if truth.covariance.name == "full" else "diagonal"
    size = {"nComponents": truth.n_components, "covarianceStorage": storage, "fptype": "double"}
    engine = daal4py.engines_mt19937(seed=seed, fptype="double")
    start = daal4py.em_gmm_init(**size, engine=engine).compute(rows)
    start = start.weights, start.means, start.covariances
    found = daal4py.em_gmm(**size, maxIterations=100, accuracyThreshold=1e-3).compute(rows, *start)
    covariances = np.array([np.squeeze(covariance) for covariance in found.covariances])
    return fitted(Parameters(truth.covariance, np.ravel(found.weights), found.means, covariances))


def fitted(parameters: Parameters) -> dgmm.GaussianMixture:
    """An estimator with these parameters."""
    model = Sklearn(parameters.n_components, covariance_type=parameters.covariance.name)
    model.weights_, model.means_, model.covariances_ = parameters.weights, parameters.means, parameters.covariances
    model.precisions_cholesky_ = parameters.covariance.precision_cholesky(parameters.covariances)
    model.converged_, model.n_iter_, model.lower_bound_ = True, 1, np.nan
    model.n_features_in_ = parameters.n_features
    return dgmm.GaussianMixture.from_sklearn(model)


def timed(
    fit: Fit, rows: np.ndarray, all_rows: np.ndarray, truth: Parameters, repeats: int
) -> tuple[float, float]:
    """Median seconds, and the highest mean log-likelihood on all rows; NaN where no fit succeeds."""
    spent, reached = [], []
    for seed in range(repeats):
        began = time.perf_counter()
        try:
            model = fit(rows, truth, seed)
        except (RuntimeError, ValueError) as error:
            print(f"  {fit.__name__}, seed {seed}: {str(error)[:100]}")
            continue
        spent.append(time.perf_counter() - began)
        reached.append(model.score(all_rows))
    return (statistics.median(spent), max(reached)) if spent else (np.nan, np.nan)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="*", default=list(WORKLOADS), choices=list(WORKLOADS))
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--scale", type=float, default=1.0, help="fraction of the rows")
    parser.add_argument("--subsample", type=int, default=100_000)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--whole", action="store_true", help="scikit-learn on all rows too")
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    fits: dict[str, Fit] = {"oneDAL": by_onedal}
    try:
        import daal4py
    except ImportError:
        fits = {}
    else:
        daal4py.daalinit(options.threads)
    if options.whole:
        fits["scikit-learn"] = by_sklearn
    print(f"{'workload':34}{'fit':28}{'seconds':>9}  mean log-likelihood less the generating model's")
    for name in options.only:
        n, d, k, kind = WORKLOADS[name]
        rows, truth = generate(int(n * options.scale), d, k, kind, seed=0)
        best = fitted(truth).score(rows)
        label = f"{name}: {len(rows):,} x {d}, K={k}, {kind}"

        def tell(fit: str, spent: float, reached: float, label: str = label, best: float = best) -> None:
            print(f"{label:34}{fit:28}{spent:9.2f}  {reached - best:+.6f}", flush=True)

        iteration = dgmm_iteration(rows, truth)
        with one_blas_thread():
            passing = statistics.median(seconds(iteration)[0] for _ in range(7))
        ours, reached = timed(by_dgmm, rows, rows, truth, options.repeats)
        tell("dgmm", ours, reached)
        subsample = rows[: options.subsample]
        with threadpool_limits(options.threads):
            theirs, reached = timed(by_sklearn, subsample, rows, truth, options.repeats)
            tell(f"scikit-learn, {len(subsample):,} rows", theirs, reached)
            tell("  and five passes of dgmm", theirs + 5 * passing, reached)
            for fit, function in fits.items():
                tell(fit, *timed(function, rows, rows, truth, options.repeats))
        print(f"{'':34}{'dgmm / the goal':28}{ours / (theirs + 5 * passing):9.2f}", flush=True)


if __name__ == "__main__":
    main()
