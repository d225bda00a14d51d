"""Seconds per EM iteration beside scikit-learn and oneDAL: same data, start and number of threads, in one run.

    python benchmarks/em_iteration.py [--only A C] [--repeats 5] [--scale 1.0] [--threads 2]
    pip install scikit-learn-intelex    # for oneDAL; it is left out where that is not installed

All sides alternate, so that a busy machine slows all; medians are compared. Each begins when the threads of the
one before have stopped waiting busily for more. The start is the generating model. What oneDAL (its C++ `em_gmm`)
prepares, and its first iteration, are not counted; nor is the first of dgmm each time.
"""

from __future__ import annotations

import argparse
import statistics
import time
import warnings
from collections.abc import Callable

import dask
import numpy as np
from sklearn.mixture import GaussianMixture as Sklearn
from threadpoolctl import threadpool_limits

from dgmm.data.opening import open_source
from dgmm.engine.blas import one_blas_thread
from dgmm.engine.likelihood import Candidate, LockstepWork
from dgmm.engine.passes import Passes
from dgmm.engine.threads import LocalScheduler
from dgmm.mixture.covariance import covariance_type
from dgmm.mixture.frame import Frame
from dgmm.mixture.maximization import m_step
from dgmm.mixture.parameters import Parameters

WORKLOADS = {
    "A": (1_000_000, 2, 8, "full"),
    "B": (1_000_000, 10, 16, "full"),
    "C": (200_000, 32, 16, "full"),
    "D": (100_000, 64, 32, "full"),
    "E": (2_000_000, 20, 64, "diag"),
}
# Threads of BLAS and OpenMP keep a core busy for some tenths of a second after their last work.
SETTLING_SECONDS = 0.5
# A fit has many iterations: a processor takes some milliseconds to reach its speed.
ITERATING_SECONDS = 0.3


def generate(n: int, d: int, k: int, kind: str, seed: int) -> tuple[np.ndarray, Parameters]:
    """Rows of a mixture with overlapping components, and the mixture."""
    rng = np.random.default_rng(seed)
    covariance = covariance_type(kind)
    means = rng.standard_normal((k, d)) * 2
    if kind == "full":
        root = rng.standard_normal((k, d, d)) / np.sqrt(d) + np.eye(d)
        covariances = root @ root.transpose(0, 2, 1) + 0.1 * np.eye(d)
    else:
        covariances = rng.uniform(0.3, 2.0, (k, d))
    truth = Parameters(covariance, np.full(k, 1 / k), means, covariances)
    rows, _ = truth.sample(n, rng)
    rng.shuffle(rows)
    return rows, truth


def sklearn_iteration(rows: np.ndarray, truth: Parameters) -> Callable[[], float]:
    """One E-step and one M-step of scikit-learn from the generating model."""
    k = truth.n_components
    model = Sklearn(k, covariance_type=truth.covariance.name)
    cholesky = truth.covariance.precision_cholesky(truth.covariances)

    def iteration() -> float:
        model.weights_ = truth.weights.astype(rows.dtype)
        model.means_ = truth.means.astype(rows.dtype)
        model.precisions_cholesky_ = cholesky.astype(rows.dtype)
        log_likelihood, log_responsibilities = model._e_step(rows)
        model._m_step(rows, log_responsibilities)
        return float(log_likelihood)

    return iteration


def dgmm_iteration(rows: np.ndarray, truth: Parameters) -> Callable[[], float]:
    """One pass and one M-step of dgmm from the same model."""
    sample = rows[:: max(len(rows) // 50_000, 1)]
    frame = Frame.from_sample(sample, isotropic=truth.covariance.isotropic)
    radius = float(np.quantile(np.sum(frame.apply(sample) ** 2, axis=1), 0.999))
    start = truth.to_frame(frame)
    ridge = 1e-6 / frame.scale**2
    passes = Passes(open_source(rows), None, LocalScheduler())
    work = LockstepWork([Candidate(start, frame, radius)], passes.source.dtype, len(rows))

    def iteration() -> float:
        (found,) = passes.run(work).members
        m_step(found, start, ridge)
        return float(found.mean_log_likelihood - frame.log_volume)

    return iteration


def onedal_iterations(rows: np.ndarray, truth: Parameters, threads: int) -> Callable[[int], float] | None:
    """So many iterations of oneDAL from the same model; None where it is not installed."""
    try:
        import daal4py
    except ImportError:
        return None
    daal4py.daalinit(threads)
    start = (
        np.atleast_2d(truth.weights).astype(rows.dtype),
        truth.means.astype(rows.dtype),
        [np.atleast_2d(covariance).astype(rows.dtype) for covariance in truth.covariances],
    )

    def iterations(number: int) -> float:
        algorithm = daal4py.em_gmm(
            fptype="double" if rows.dtype == np.float64 else "float",
            nComponents=truth.n_components,
            maxIterations=number,
            accuracyThreshold=0.0,
            covarianceStorage="full" if truth.covariance.name == "full" else "diagonal",
        )
        return float(algorithm.compute(rows, *start).goalFunction[0, 0])

    return iterations


def seconds(function: Callable[..., float], *arguments: object) -> tuple[float, float]:
    """Wall time of a call, and its value."""
    began = time.perf_counter()
    value = function(*arguments)
    return time.perf_counter() - began, value


def onedal_seconds(iterations: Callable[[int], float] | None) -> float:
    """Of one iteration, by the difference of three and one; NaN where there is none, or it failed on the data.

    With more, it ends before them where float32 does not show that the likelihood still grows.
    """
    if iterations is None:
        return np.nan
    try:
        return (seconds(iterations, 3)[0] - seconds(iterations, 1)[0]) / 2
    except RuntimeError:
        return np.nan


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", nargs="*", default=list(WORKLOADS), choices=list(WORKLOADS))
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--scale", type=float, default=1.0, help="fraction of the rows")
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    print(
        f"{'workload':33} {'dtype':8}{'sklearn':>9}{'oneDAL':>9}{'dgmm':>9}{'sklearn/':>9}{'oneDAL/':>9}"
        "  difference of log-likelihood"
    )
    warnings.simplefilter("ignore")
    for name in options.only:
        n, d, k, kind = WORKLOADS[name]
        rows64, truth = generate(int(n * options.scale), d, k, kind, seed=0)
        for dtype in (np.float64, np.float32):
            rows = rows64.astype(dtype)
            theirs, ours = sklearn_iteration(rows, truth), dgmm_iteration(rows, truth)
            onedal = onedal_iterations(rows, truth, options.threads)
            times: tuple[list[float], list[float], list[float]] = ([], [], [])
            ours()
            number = max(2, min(20, int(ITERATING_SECONDS / seconds(ours)[0])))
            for _ in range(options.repeats):
                time.sleep(SETTLING_SECONDS)
                with threadpool_limits(options.threads):
                    spent, expected = seconds(theirs)
                times[0].append(spent)
                time.sleep(SETTLING_SECONDS)
                times[1].append(onedal_seconds(onedal))
                time.sleep(SETTLING_SECONDS)
                with one_blas_thread(), dask.config.set(num_workers=options.threads):
                    ours()
                    for _ in range(number):
                        spent, found = seconds(ours)
                        times[2].append(spent)
            a, b, c = map(statistics.median, times)
            label = f"{name}: {len(rows):,} x {d}, K={k}, {kind}"
            print(
                f"{label:33} {rows.dtype.name:8}{a:9.4f}{b:9.4f}{c:9.4f}{a / c:9.1f}{b / c:9.2f}"
                f"  {found - expected:+.1e}",
                flush=True,
            )


if __name__ == "__main__":
    main()
