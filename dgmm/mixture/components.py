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
# are within. Measured errors are 0.005 to 0.8 of the bound.
DOUBLE_TOLERANCE = 1e-9
SINGLE_TOLERANCE = 1e-3
# A tile's own radius is that of the box around it, which overestimates; its rows are few.
_TILE_SLACK = 16.0
# Beyond this many features of the two-GEMM kernel the product matrix leaves the caches for good and one
# triangular product a component is faster (benchmarks/kernel.py).
MAX_FEATURES = 4753
_DOUBLE, _SINGLE = np.dtype(np.float64), np.dtype(np.float32)
_EPS: dict[np.dtype[np.floating], float] = {_DOUBLE: 2.0**-52, _SINGLE: 2.0**-23}
_TOLERANCE = {_DOUBLE: DOUBLE_TOLERANCE, _SINGLE: SINGLE_TOLERANCE}


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
        Natural parameters.
    centres : ndarray (K, D)
        What the statistics of each component are about: zero, or its mean.
    centred : ndarray (K,) of bool
        Which components have a centre of their own.
    dtype : dtype
        Of the two GEMMs: float32 only where the data are and the bound allows.
    radius_limits : dict
        For each dtype the squared radius up to which a tile may go through the two GEMMs.
    """

    parameters: Parameters
    precision_cholesky: Array
    log_constants: Array
    theta: Array
    centres: Array
    centred: NDArray[np.bool_]
    dtype: np.dtype[np.floating]
    radius_limits: dict[np.dtype[np.floating], float]

    @property
    def centred_indices(self) -> list[int]:
        """Which components have a centre of their own, as numbers."""
        return [int(k) for k in np.flatnonzero(self.centred)]

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
        precisions = covariance.precisions(cholesky)
        steepest = covariance.largest_precision(cholesky, k)
        bound = _EPS[_DOUBLE] * max(radius_squared, 1.0) * steepest
        centred = ~(bound <= DOUBLE_TOLERANCE)
        if covariance.n_features(d) > MAX_FEATURES or (covariance.pooled and centred.any()):
            centred = np.ones(k, dtype=bool)
        worst = steepest[~centred].max(initial=np.finfo(float).tiny)
        limits = {t: _TILE_SLACK * _TOLERANCE[t] / (eps * worst) for t, eps in _EPS.items()}
        if dtype != _SINGLE or centred.any() or limits[_SINGLE] < _TILE_SLACK * radius_squared:
            dtype = _DOUBLE
        with np.errstate(divide="ignore"):
            constants = np.log(parameters.weights) + covariance.log_det(cholesky, k, d)
        constants -= d / 2 * np.log(2 * np.pi)
        linear = covariance.precision_times(precisions, means)
        theta = np.empty((k, covariance.n_features(d)))
        theta[:, : -d - 1] = covariance.quadratic_coefficients(precisions)
        theta[:, -d - 1 : -1] = linear
        theta[:, -1] = constants - np.sum(means * linear, axis=1) / 2
        centres = np.where(centred[:, None], means, 0.0)
        return cls(parameters, cholesky, constants, theta, centres, centred, dtype, limits)
