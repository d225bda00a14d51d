"""Parameters made ready for an E-step: natural parameters, centres, and the guard that chooses the kernel.

With phi(z) = [quadratic features, z, 1] the weighted log-density of component k is theta_k . phi(z): the natural
parameters of the exponential family. That sum cancels where a component is thin or far from the frame's origin;
its error is bounded by about eps * |z|^2 * lambda_max(precision). Components whose bound passes a tolerance get
a centre of their own and the centred kernel.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from dgmm.mixture.covariance_type import Array
from dgmm.mixture.parameters import Parameters

# Bounds on the error of a log-density that the two-GEMM kernel may make, at the radius that nearly all rows
# are within. Errors are 0.005 to 0.8 of the bound in double precision; in single precision up to 0.33 of it
# (D = 2 to 64), hence at most about 1e-4 a row.
DOUBLE_TOLERANCE = 1e-9
SINGLE_TOLERANCE = 3.2e-4
# A tile's own radius is that of its farthest row (compiled) or of the box around it, which overestimates; its rows
# are few.
_TILE_SLACK = 16.0
# Single precision by whitened rows (`dgmm.mixture.whitening`): |z|^2 lambda_max times epsilon at most so much, for
# the moments about the origin, which cancel in the M-step; and its root times epsilon and the root of D within the
# tolerance above (measured: up to 0.3 of it). From so many dimensions on they pay.
WHITENING_TOLERANCE = 5e-3
WHITENING_FEATURES = 16
# The two GEMMs pay while they have fewer features than this a component and dimension (measured: full
# covariances up to D of about 6 K), and while a tile of them fits a cache (benchmarks/kernels.py).
FEATURES_PER_COMPONENT = 3
MAX_FEATURES = 33153
# Responsibilities below 1e-26 (1e-304 in double precision) are set to that: they weigh nothing, and subnormal
# numbers would slow the products 3-9 times (measured).
LEAST_EXPONENT = {np.dtype(np.float32): -60.0, np.dtype(np.float64): -700.0}
# A log-density below that of any row in a tile that the two-GEMM kernel may take; float32 holds it.
_NO_DENSITY = -1e30
_DOUBLE, _SINGLE = np.dtype(np.float64), np.dtype(np.float32)
_EPS: dict[np.dtype[np.floating], float] = {_DOUBLE: 2.0**-52, _SINGLE: 2.0**-23}
_TOLERANCE = {_DOUBLE: DOUBLE_TOLERANCE, _SINGLE: SINGLE_TOLERANCE}


def two_gemms_pay(n_components: int, n_features: int, n_kernel_features: int) -> bool:
    """Whether the two-GEMM kernel is the faster one for K components in D dimensions with F kernel features."""
    most = min(FEATURES_PER_COMPONENT * n_components * n_features, MAX_FEATURES)
    return n_kernel_features <= max(most, 2 * n_features + 1)


def _whitening_reach(n_features: int) -> float:
    """|z|^2 lambda_max up to which whitened rows are accurate enough in single precision."""
    eps = _EPS[_SINGLE]
    return min(WHITENING_TOLERANCE / eps, (SINGLE_TOLERANCE / eps) ** 2 / n_features)


@dataclass(frozen=True, eq=False)
class Components:
    """A mixture ready for the E-step, in its frame.

    Attributes
    ----------
    parameters : Parameters
    precision_cholesky : ndarray
        As scikit-learn keeps it.
    log_constants : ndarray (K,)
        log w_k + log det C_k - D/2 log 2 pi.
    theta : ndarray (K, F)
        Natural parameters; F is 0 where every component is centred.
    centres : ndarray (K, D)
        What the statistics of each component are about: zero, or its mean.
    centred : ndarray (K,) of bool
        Which components have a centre of their own.
    dtype : dtype
        Of the two GEMMs: float32 only where the data are and the bound allows.
    radius_limits : dict
        For each dtype the squared radius up to which a tile may go through the two GEMMs.
    whitening_limit : float
        The same for whitened rows in float32, where they are to replace two GEMMs in float64; otherwise 0.
    single : bool
        Whether rows in float32 may be taken in single precision, one way or the other.
    """

    parameters: Parameters
    precision_cholesky: Array
    log_constants: Array
    theta: Array
    centres: Array
    centred: NDArray[np.bool_]
    dtype: np.dtype[np.floating]
    radius_limits: dict[np.dtype[np.floating], float]
    whitening_limit: float
    single: bool

    @property
    def centred_indices(self) -> list[int]:
        """Which components have a centre of their own, as numbers."""
        return [int(k) for k in np.flatnonzero(self.centred)]

    def __sizeof__(self) -> int:
        """Bytes of the large arrays: Dask, which moves components between workers, wants to know."""
        return self.parameters.covariances.nbytes + self.precision_cholesky.nbytes + self.theta.nbytes

    @classmethod
    def prepare(cls, parameters: Parameters, dtype: np.dtype[np.floating], radius_squared: float) -> Components:
        """Make parameters ready.

        Parameters
        ----------
        parameters : Parameters
            In the frame.
        dtype : dtype
            float32 to allow single precision where the guard does, else float64.
        radius_squared : float
            A high quantile of |z|^2 over the rows.

        Raises
        ------
        IllDefinedCovariance
            A component has no invertible covariance.
        """
        covariance, means = parameters.covariance, parameters.means
        k, d = means.shape
        cholesky = covariance.precision_cholesky(parameters.covariances)
        guard = _Guard.of(parameters, cholesky, dtype, radius_squared)
        centred = guard.centred
        with np.errstate(divide="ignore"):
            constants = np.log(parameters.weights) + covariance.log_det(cholesky, k, d)
        constants -= d / 2 * np.log(2 * np.pi)
        theta = np.empty((k, 0 if centred.all() else covariance.n_features(d)))
        if theta.size:
            precisions = covariance.precisions(cholesky)
            theta[:, : -d - 1] = covariance.quadratic_coefficients(precisions)
            with np.errstate(over="ignore"):  # only of components that are centred, whose theta nobody uses
                linear = covariance.precision_times(precisions, means)
                shift = np.sum(means * linear, axis=1) / 2
            theta[:, -d - 1 : -1] = linear
            # A weight of 0: an infinity would raise the invalid flag in a GEMM.
            theta[:, -1] = np.maximum(constants - shift, _NO_DENSITY)
        centres = np.where(centred[:, None], means, 0.0)
        return cls(
            parameters,
            cholesky,
            constants,
            theta,
            centres,
            centred,
            guard.dtype,
            guard.limits,
            guard.whitening_limit,
            guard.single,
        )


@dataclass(frozen=True, eq=False)
class _Guard:
    """Which kernel may take which component, and rows how far out: see the attributes of `Components`."""

    centred: NDArray[np.bool_]
    dtype: np.dtype[np.floating]
    limits: dict[np.dtype[np.floating], float]
    whitening_limit: float

    @classmethod
    def of(
        cls, parameters: Parameters, cholesky: Array, dtype: np.dtype[np.floating], radius_squared: float
    ) -> _Guard:
        covariance, (k, d) = parameters.covariance, parameters.means.shape
        steepest = np.full(k, np.inf)
        if two_gemms_pay(k, d, covariance.n_features(d)):
            steepest = covariance.largest_precision(cholesky, k)
        with np.errstate(over="ignore"):
            bound = _EPS[_DOUBLE] * max(radius_squared, 1.0) * steepest
        centred = ~(bound <= DOUBLE_TOLERANCE)
        if covariance.pooled and centred.any():
            centred = np.ones(k, dtype=bool)
        worst = steepest[~centred].max(initial=np.finfo(float).eps)
        limits = {t: _TILE_SLACK * _TOLERANCE[t] / (eps * worst) for t, eps in _EPS.items()}
        single = dtype == _SINGLE and not centred.any()
        dtype = _SINGLE if single and limits[_SINGLE] >= _TILE_SLACK * radius_squared else _DOUBLE
        whitening_limit = 0.0
        if single and dtype == _DOUBLE and covariance.name == "full" and d >= WHITENING_FEATURES:
            reach = _whitening_reach(d) / worst
            whitening_limit = _TILE_SLACK * reach if reach >= radius_squared else 0.0
        return cls(centred, dtype, limits, whitening_limit)

    @property
    def single(self) -> bool:
        return self.dtype == _SINGLE or self.whitening_limit > 0


def single_precision_will_do(parameters: Parameters, radius_squared: float) -> bool:
    """Whether `Components` made of these would take rows in single precision, at the cost of the guard alone.

    Raises
    ------
    IllDefinedCovariance
        A component has no invertible covariance.
    """
    cholesky = parameters.covariance.precision_cholesky(parameters.covariances)
    return _Guard.of(parameters, cholesky, _SINGLE, radius_squared).single
