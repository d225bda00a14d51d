"""What a constraint on the covariances has to say; the four of them are in `dgmm.mixture.covariance`."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dgmm.errors import IllDefinedCovariance

Array = NDArray[np.floating]
# One of any namespace that conforms to the array API standard: there is no type of them all.
AnyArray = Any

LEAST_VARIANCE = 1e-290
"""The inverse of a smaller one is not a double."""
# Relative error of a second moment, times D; a factor that holds for all that the tests try.
_ROUNDING = 8 * np.finfo(np.float64).eps


class CovarianceType(ABC):
    """A constraint on the covariances.

    Attributes
    ----------
    name : str
        What scikit-learn calls it.
    pooled : bool
        The components share one covariance, hence one second moment.
    isotropic : bool
        Only a frame with one scale for all features maps the family onto itself.
    """

    name: str
    pooled = False
    isotropic = False

    def __repr__(self) -> str:
        return self.name.upper()

    @abstractmethod
    def shape(self, k: int, d: int) -> tuple[int, ...]:
        """Shape of the covariances."""

    @abstractmethod
    def n_quadratic(self, d: int) -> int:
        """Q, the length of a second moment."""

    @abstractmethod
    def n_parameters(self, k: int, d: int) -> int:
        """Free parameters in the covariances."""

    @abstractmethod
    def n_features(self, d: int) -> int:
        """Rows of the feature matrix Phi of the two-GEMM kernel."""

    @abstractmethod
    def fill_quadratic(self, z: AnyArray, out: AnyArray) -> None:
        """Write the quadratic features of a tile `z` (D, b) into `out` (n_features - D - 1, b)."""

    @abstractmethod
    def quadratic_coefficients(self, precisions: Array) -> Array:
        """Coefficients (K, n_features - D - 1) of the quadratic features in the log-density."""

    def shared_log_density(self, precisions: Array, second: Array) -> float:
        """Sum over rows, from their pooled second moment, of what the feature matrix leaves out (tied alone)."""
        return 0.0

    def row_log_density(self, precision_cholesky: AnyArray, z: AnyArray) -> AnyArray | float:
        """What the feature matrix leaves out of the log-density of each column of `z` (tied alone)."""
        return 0.0

    @abstractmethod
    def whiten(self, delta: AnyArray, precision_cholesky: AnyArray, k: int) -> AnyArray:
        """Coordinates (D, b) of `delta` in which component `k` is a standard normal."""

    @abstractmethod
    def second_moment(self, delta: AnyArray, r: AnyArray) -> AnyArray:
        """Second moment (Q,) of the columns of `delta` (D, b), weighted by `r` (b,)."""

    @abstractmethod
    def outer(self, a: Array, b: Array) -> Array:
        """Symmetric product of vectors (..., D) in the layout (..., Q) of a second moment."""

    @abstractmethod
    def from_moments(self, counts: Array, shift: Array, second: Array, ridge: Array) -> Array:
        """Covariances from counts (K,), mean minus centre (K, D), second moments about the centre, ridge (D,)."""

    @abstractmethod
    def second_moments(self, covariances: Array, d: int) -> Array:
        """Second moments (K, Q) about their means of components that weigh 1; (1, Q) where they are pooled."""

    @abstractmethod
    def precision_cholesky(self, covariances: Array) -> Array:
        """Cholesky factors of the precisions; `IllDefinedCovariance` names the component without one."""

    @abstractmethod
    def covariances_from_precisions(self, precisions: Array) -> Array:
        """Inverse of each precision."""

    @abstractmethod
    def precisions(self, precision_cholesky: Array) -> Array:
        """C C^T, in the shape of the covariances."""

    @abstractmethod
    def precision_times(self, precisions: Array, vectors: Array) -> Array:
        """Each precision times its own vector: (K, D) from `vectors` (K, D)."""

    @abstractmethod
    def log_det(self, precision_cholesky: Array, k: int, d: int) -> Array:
        """Half the log-determinant of each precision, (K,)."""

    @abstractmethod
    def largest_precision(self, precision_cholesky: Array, k: int) -> Array:
        """Largest eigenvalue of each precision, (K,)."""

    @abstractmethod
    def smallest_eigenvalue(self, covariances: Array) -> float:
        """Of all covariances."""

    @abstractmethod
    def rescale(self, covariances: Array, factor: Array) -> Array:
        """Covariances of the data after feature i is multiplied by `factor[i]`."""

    def for_each_feature(self, covariances: Array, d: int) -> tuple[CovarianceType, Array]:
        """The same covariances in a type that can hold them after any rescaling."""
        return self, covariances

    @abstractmethod
    def rescale_cholesky(self, precision_cholesky: Array, factor: Array) -> Array:
        """Factors of the precisions of the data after feature i is multiplied by `factor[i]`."""

    @abstractmethod
    def restrict(self, covariances: Array, features: Sequence[int]) -> Array:
        """Covariances of some of the features."""

    @abstractmethod
    def full(self, covariances: Array, k: int, d: int) -> Array:
        """The same covariances as matrices (K, D, D)."""

    @abstractmethod
    def colour(self, noise: Array, covariances: Array, k: int) -> Array:
        """Turn standard normal rows (b, D) into rows with the covariance of component `k`."""


def regularisation(ridge: Array, moments: Array) -> Array:
    """What to add to variances (..., D) that are `moments` (..., D) about a centre less the squared shift from it.

    The ridge; where there is one, at least the rounding of the moments. It may be larger where a component in
    transit holds an outlier and a trace of other rows, whose covariance is singular in double precision.
    """
    rounding = _ROUNDING * ridge.shape[-1] * np.maximum(moments, 0.0)
    added: Array = np.where(ridge > 0, np.maximum(ridge, rounding), ridge)
    return added


def ill_defined(component: int, what: str) -> IllDefinedCovariance:
    msg = (
        f"component {component} has an ill-defined covariance ({what}): it has collapsed onto too few distinct "
        "rows, or features are constant or linearly dependent. Use fewer components, increase reg_covar or "
        "reg_relative, or remove the dependent features."
    )
    return IllDefinedCovariance(msg)
