"""scikit-learn's way to fit a Gaussian mixture, on dgmm's E-step: the same iterations in a tenth of the time.

What is scikit-learn's own: its KMeans on the raw rows, from the same stream of random numbers. What is emulated:
the M-step on the clusters, EM until the mean log-likelihood changes by less than `tol`, the best of the starts.
`benchmarks/passes.py` compares it with scikit-learn itself on some of the rows, in the same run.
"""

from __future__ import annotations

import time
import warnings
from dataclasses import dataclass
from typing import Any

import numpy as np
from sklearn.cluster import KMeans
from sklearn.exceptions import ConvergenceWarning
from sklearn.mixture import GaussianMixture

from dgmm.data.opening import open_source
from dgmm.engine.blas import one_blas_thread
from dgmm.engine.likelihood import Candidate, LockstepWork
from dgmm.engine.passes import Passes
from dgmm.engine.threads import LocalScheduler
from dgmm.mixture.covariance import FULL
from dgmm.mixture.frame import Frame
from dgmm.mixture.maximization import m_step
from dgmm.mixture.parameters import Parameters
from dgmm.mixture.statistics import SufficientStatistics

TOL, MAX_ITER = 1e-3, 100


@dataclass(frozen=True, eq=False)
class Start:
    """Where one start led.

    Attributes
    ----------
    n_iter, lower_bound
        scikit-learn's `n_iter_` and `lower_bound_`.
    lloyd : int
        Iterations of k-means.
    parameters : Parameters
        In the frame.
    seconds, lloyd_seconds : float
        Of all, and of k-means in it.
    """

    n_iter: int
    lower_bound: float
    lloyd: int
    parameters: Parameters
    seconds: float
    lloyd_seconds: float

    @property
    def passes(self) -> int:
        """One for each E-step with its M-step, one for the first M-step."""
        return self.n_iter + 1


class Emulated:
    """Fits of K full covariances to rows in memory.

    Parameters
    ----------
    rows : ndarray (n, D)
    n_components : int
    reg_covar : float
    """

    def __init__(self, rows: np.ndarray, n_components: int, reg_covar: float) -> None:
        self.rows, self.n_components, self.reg_covar = rows, n_components, reg_covar
        sample = rows[:: max(len(rows) // 50_000, 1)]
        self.frame = Frame.from_sample(sample, isotropic=False)
        self._radius = float(np.quantile(np.sum(self.frame.apply(sample) ** 2, axis=1), 0.999))
        self._passes = Passes(open_source(rows), None, LocalScheduler())

    def _e_step(self, parameters: Parameters) -> tuple[SufficientStatistics, float]:
        candidate = Candidate(parameters, self.frame, self._radius)
        with one_blas_thread():
            (found,) = self._passes.run(LockstepWork([candidate], self._passes.source.dtype)).members
        return found, float(found.mean_log_likelihood - self.frame.log_volume)

    def log_likelihood(self, parameters: Parameters) -> float:
        """Mean over the rows; parameters in the frame."""
        return self._e_step(parameters)[1]

    def fit(self, n_init: int, seed: int) -> list[Start]:
        """Every start; the first is the fit with n_init=1."""
        random = np.random.RandomState(seed)
        return [self._run(random) for _ in range(n_init)]

    def _run(self, random: Any) -> Start:
        began = time.perf_counter()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)
            clusters = KMeans(self.n_components, n_init=1, random_state=random).fit(self.rows)
        lloyd_seconds = time.perf_counter() - began
        parameters = self._of_labels(clusters.labels_).to_frame(self.frame)
        ridge = self.reg_covar / self.frame.scale**2
        bounds = [-np.inf]
        while len(bounds) <= MAX_ITER:
            statistics, lower_bound = self._e_step(parameters)
            parameters = m_step(statistics, parameters, ridge)
            bounds.append(lower_bound)
            if abs(bounds[-1] - bounds[-2]) < TOL:
                break
        seconds = time.perf_counter() - began
        return Start(len(bounds) - 1, bounds[-1], clusters.n_iter_, parameters, seconds, lloyd_seconds)

    def _of_labels(self, labels: np.ndarray) -> Parameters:
        """The M-step with responsibilities of 0 and 1."""
        parts = [self.rows[labels == k] for k in range(self.n_components)]
        means = np.array([part.mean(axis=0) for part in parts])
        deltas = [part - mean for part, mean in zip(parts, means, strict=True)]
        ridge = self.reg_covar * np.eye(self.rows.shape[1])
        covariances = np.array([delta.T @ delta / len(delta) + ridge for delta in deltas])
        return Parameters(FULL, np.array([len(part) for part in parts]) / len(self.rows), means, covariances)


def best(starts: list[Start]) -> Start:
    """The one that scikit-learn keeps."""
    return max(starts, key=lambda start: start.lower_bound)


class Counted(GaussianMixture):  # type: ignore[misc]
    """scikit-learn itself; counts its passes but for k-means and the last E-step, which labels the rows."""

    passes = 0

    def _initialize(self, X: Any, resp: Any, **kwargs: Any) -> None:
        self.passes += 1
        super()._initialize(X, resp, **kwargs)

    def _m_step(self, X: Any, log_resp: Any, **kwargs: Any) -> None:
        self.passes += 1
        super()._m_step(X, log_resp, **kwargs)


def real(rows: np.ndarray, n_components: int, reg_covar: float, n_init: int, seed: int) -> Counted:
    """A fit of scikit-learn itself."""
    model = Counted(n_components, reg_covar=reg_covar, n_init=n_init, random_state=seed)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        return model.fit(rows)


def seconds_an_iteration(rows: np.ndarray, parameters: Parameters) -> float:
    """Of scikit-learn itself, from a mixture in data units: one E-step and one M-step."""
    model = GaussianMixture(parameters.n_components)
    model.weights_, model.means_ = parameters.weights, parameters.means
    model.precisions_cholesky_ = parameters.covariance.precision_cholesky(parameters.covariances)
    began = time.perf_counter()
    _, log_responsibilities = model._e_step(rows)
    model._m_step(rows, log_responsibilities)
    return time.perf_counter() - began
