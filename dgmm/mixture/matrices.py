"""Covariances that are D x D matrices: full (one a component) and tied (one for all)."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache

import numpy as np
from array_api_compat import array_namespace
from numpy.typing import NDArray
from scipy.linalg import cholesky
from scipy.linalg.lapack import dpotrf, dtrtri

from dgmm.mixture.covariance_type import (
    LEAST_VARIANCE,
    AnyArray,
    Array,
    CovarianceType,
    ill_defined,
    regularisation,
)
from dgmm.mixture.namespaces import into, squared_lengths


@cache
def _upper(d: int) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Rows and columns of the upper triangle, in the order in which it is packed."""
    return np.triu_indices(d)


@cache
def _diagonal(d: int) -> NDArray[np.intp]:
    """Where the packed upper triangle has the diagonal."""
    i, j = _upper(d)
    return np.flatnonzero(i == j)


def _factor(covariance: Array, component: int) -> Array:
    # LAPACK itself: what `scipy.linalg` does around it takes longer where there are few features.
    lower, failed = dpotrf(covariance, lower=True)
    variances = np.diagonal(covariance)
    if failed or not variances.min() > LEAST_VARIANCE or not np.isfinite(lower).all():
        feature = int(np.argmin(np.where(np.isfinite(variances), variances, -np.inf)))
        raise ill_defined(component, f"feature {feature} has the smallest variance in it")
    upper: Array = dtrtri(lower, lower=True)[0].T
    return upper


class _Matrix(CovarianceType):
    """What full and tied share: covariances are D x D matrices."""

    def n_quadratic(self, d: int) -> int:
        return d * (d + 1) // 2

    def second_moment(self, delta: AnyArray, r: AnyArray) -> AnyArray:
        scatter = (delta * r) @ delta.T
        return array_namespace(delta).concat([scatter[i, i:] for i in range(delta.shape[0])])

    def second_moments(self, covariances: Array, d: int) -> Array:
        i, j = _upper(d)
        packed: Array = covariances.reshape(-1, d, d)[:, i, j]
        return packed

    def outer(self, a: Array, b: Array) -> Array:
        i, j = _upper(a.shape[-1])
        if a is b:  # the same, with less memory
            square: Array = a[..., i] * a[..., j]
            return square
        product: Array = (a[..., i] * b[..., j] + a[..., j] * b[..., i]) / 2
        return product

    def unpack(self, packed: Array, d: int) -> Array:
        """Symmetric matrices (..., D, D) from their upper triangles (..., Q)."""
        i, j = _upper(d)
        out = np.empty((*packed.shape[:-1], d, d))
        out[..., i, j] = packed
        out[..., j, i] = packed
        return out

    def precisions(self, precision_cholesky: Array) -> Array:
        product: Array = precision_cholesky @ np.swapaxes(precision_cholesky, -1, -2)
        return product

    def precision_times(self, precisions: Array, vectors: Array) -> Array:
        product: Array = np.matmul(precisions, vectors[..., None])[..., 0]
        return product

    def covariances_from_precisions(self, precisions: Array) -> Array:
        inverse: Array = np.linalg.inv(precisions)
        return (inverse + np.swapaxes(inverse, -1, -2)) / 2

    def smallest_eigenvalue(self, covariances: Array) -> float:
        return float(np.linalg.eigvalsh(covariances).min())

    def rescale_cholesky(self, precision_cholesky: Array, factor: Array) -> Array:
        scaled: Array = precision_cholesky / factor[:, None]
        return scaled

    def rescale(self, covariances: Array, factor: Array) -> Array:
        scaled: Array = covariances * factor[:, None] * factor
        return scaled

    def restrict(self, covariances: Array, features: Sequence[int]) -> Array:
        kept = list(features)
        restricted: Array = covariances[..., kept, :][..., kept]
        return restricted


class Full(_Matrix):
    name = "full"

    def shape(self, k: int, d: int) -> tuple[int, ...]:
        return (k, d, d)

    def n_parameters(self, k: int, d: int) -> int:
        return k * d * (d + 1) // 2

    def n_features(self, d: int) -> int:
        return d * (d + 1) // 2 + d + 1

    def fill_quadratic(self, z: AnyArray, out: AnyArray) -> None:
        multiply, d, start = array_namespace(z).multiply, z.shape[0], 0
        for i in range(d):
            stop = start + d - i
            into(out[start:stop, :], multiply, z[i:, :], z[i, :])
            start = stop

    def quadratic_coefficients(self, precisions: Array) -> Array:
        i, j = _upper(precisions.shape[-1])
        coefficients: Array = np.where(i == j, -0.5, -1.0) * precisions[:, i, j]
        return coefficients

    def whiten(self, delta: AnyArray, precision_cholesky: AnyArray, k: int) -> AnyArray:
        return precision_cholesky[k, ...].T @ delta

    def from_moments(self, counts: Array, shift: Array, second: Array, ridge: Array) -> Array:
        k, d = shift.shape
        moments = second / counts[:, None]
        covariances = self.unpack(moments - self.outer(shift, shift), d)
        covariances.reshape(k, d * d)[:, :: d + 1] += regularisation(ridge, moments[:, _diagonal(d)])
        return covariances

    def precision_cholesky(self, covariances: Array) -> Array:
        factors = np.empty(covariances.shape)
        for k, covariance in enumerate(covariances):
            factors[k] = _factor(covariance, k)
        return factors

    def log_det(self, precision_cholesky: Array, k: int, d: int) -> Array:
        total: Array = np.log(np.diagonal(precision_cholesky, axis1=1, axis2=2)).sum(axis=1)
        return total

    def largest_precision(self, precision_cholesky: Array, k: int) -> Array:
        largest: Array = np.linalg.norm(precision_cholesky, 2, axis=(1, 2)) ** 2
        return largest

    def full(self, covariances: Array, k: int, d: int) -> Array:
        return covariances

    def colour(self, noise: Array, covariances: Array, k: int) -> Array:
        coloured: Array = noise @ cholesky(covariances[k], lower=True).T
        return coloured


class Tied(_Matrix):
    name = "tied"
    pooled = True

    def shape(self, k: int, d: int) -> tuple[int, ...]:
        return (d, d)

    def n_parameters(self, k: int, d: int) -> int:
        return d * (d + 1) // 2

    def n_features(self, d: int) -> int:
        # With one precision the quadratic term is the same for every component and cancels in the softmax.
        return d + 1

    def fill_quadratic(self, z: AnyArray, out: AnyArray) -> None:
        pass

    def quadratic_coefficients(self, precisions: Array) -> Array:
        return np.empty((1, 0))

    def shared_log_density(self, precisions: Array, second: Array) -> float:
        i, j = _upper(len(precisions))
        return -0.5 * float((np.where(i == j, 1.0, 2.0) * precisions[i, j]) @ second[0])

    def row_log_density(self, precision_cholesky: AnyArray, z: AnyArray) -> AnyArray:
        return -0.5 * squared_lengths(precision_cholesky.T @ z)

    def whiten(self, delta: AnyArray, precision_cholesky: AnyArray, k: int) -> AnyArray:
        return precision_cholesky.T @ delta

    def from_moments(self, counts: Array, shift: Array, second: Array, ridge: Array) -> Array:
        d = shift.shape[1]
        packed = (second[0] - counts @ self.outer(shift, shift)) / counts.sum()
        moments = second[0, _diagonal(d)] / counts.sum()
        return self.unpack(packed, d) + np.diag(regularisation(ridge, moments))

    def precision_cholesky(self, covariances: Array) -> Array:
        return _factor(covariances, 0)

    def log_det(self, precision_cholesky: Array, k: int, d: int) -> Array:
        return np.full(k, np.log(np.diagonal(precision_cholesky)).sum())

    def largest_precision(self, precision_cholesky: Array, k: int) -> Array:
        return np.full(k, np.linalg.norm(precision_cholesky, 2) ** 2)

    def full(self, covariances: Array, k: int, d: int) -> Array:
        return np.broadcast_to(covariances, (k, d, d))

    def colour(self, noise: Array, covariances: Array, k: int) -> Array:
        coloured: Array = noise @ cholesky(covariances, lower=True).T
        return coloured
