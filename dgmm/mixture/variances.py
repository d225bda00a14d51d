"""Covariances that are variances: diag (one a feature and component) and spherical (one a component)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from array_api_compat import array_namespace

from dgmm.mixture.covariance_type import (
    LEAST_VARIANCE,
    AnyArray,
    Array,
    CovarianceType,
    ill_defined,
    regularisation,
)
from dgmm.mixture.namespaces import into, squared_lengths


def _inverse_root(variances: Array) -> Array:
    bad = ~(variances > LEAST_VARIANCE)
    if bad.any():
        index = np.argwhere(bad)[0]
        where = f"feature {index[1]} has no variance in it" if len(index) > 1 else "it has no variance"
        raise ill_defined(int(index[0]), where)
    root: Array = 1.0 / np.sqrt(variances)
    return root


class _Variances(CovarianceType):
    """What diag and spherical share: features are independent within a component."""

    def precision_cholesky(self, covariances: Array) -> Array:
        return _inverse_root(covariances)

    def precisions(self, precision_cholesky: Array) -> Array:
        squared: Array = precision_cholesky**2
        return squared

    def precision_times(self, precisions: Array, vectors: Array) -> Array:
        product: Array = precisions.reshape(len(vectors), -1) * vectors
        return product

    def smallest_eigenvalue(self, covariances: Array) -> float:
        return float(covariances.min())

    def covariances_from_precisions(self, precisions: Array) -> Array:
        inverse: Array = 1.0 / precisions
        return inverse


class Diag(_Variances):
    name = "diag"

    def shape(self, k: int, d: int) -> tuple[int, ...]:
        return (k, d)

    def n_quadratic(self, d: int) -> int:
        return d

    def n_parameters(self, k: int, d: int) -> int:
        return k * d

    def n_features(self, d: int) -> int:
        return 2 * d + 1

    def fill_quadratic(self, z: AnyArray, out: AnyArray) -> None:
        into(out, array_namespace(z).multiply, z, z)

    def quadratic_coefficients(self, precisions: Array) -> Array:
        coefficients: Array = -0.5 * precisions
        return coefficients

    def whiten(self, delta: AnyArray, precision_cholesky: AnyArray, k: int) -> AnyArray:
        return delta * precision_cholesky[k, :, None]

    def second_moment(self, delta: AnyArray, r: AnyArray) -> AnyArray:
        return (delta * delta) @ r

    def outer(self, a: Array, b: Array) -> Array:
        product: Array = a * b
        return product

    def from_moments(self, counts: Array, shift: Array, second: Array, ridge: Array) -> Array:
        moments = second / counts[:, None]
        variances: Array = moments - shift**2 + regularisation(ridge, moments)
        return variances

    def second_moments(self, covariances: Array, d: int) -> Array:
        return covariances

    def log_det(self, precision_cholesky: Array, k: int, d: int) -> Array:
        total: Array = np.log(precision_cholesky).sum(axis=1)
        return total

    def largest_precision(self, precision_cholesky: Array, k: int) -> Array:
        largest: Array = precision_cholesky.max(axis=1) ** 2
        return largest

    def rescale_cholesky(self, precision_cholesky: Array, factor: Array) -> Array:
        scaled: Array = precision_cholesky / factor
        return scaled

    def rescale(self, covariances: Array, factor: Array) -> Array:
        scaled: Array = covariances * factor * factor
        return scaled

    def restrict(self, covariances: Array, features: Sequence[int]) -> Array:
        restricted: Array = covariances[:, list(features)]
        return restricted

    def full(self, covariances: Array, k: int, d: int) -> Array:
        matrices: Array = covariances[:, :, None] * np.eye(d)
        return matrices

    def colour(self, noise: Array, covariances: Array, k: int) -> Array:
        coloured: Array = noise * np.sqrt(covariances[k])
        return coloured


DIAG = Diag()


def _common(factor: Array) -> float:
    """One factor for all features, or the one that keeps volumes where they differ."""
    return float(factor[0] if np.all(factor == factor[0]) else np.exp(np.log(factor).mean()))


class Spherical(_Variances):
    name = "spherical"
    isotropic = True

    def shape(self, k: int, d: int) -> tuple[int, ...]:
        return (k,)

    def n_quadratic(self, d: int) -> int:
        return 1

    def n_parameters(self, k: int, d: int) -> int:
        return k

    def n_features(self, d: int) -> int:
        return d + 2

    def fill_quadratic(self, z: AnyArray, out: AnyArray) -> None:
        out[0, :] = squared_lengths(z)

    def quadratic_coefficients(self, precisions: Array) -> Array:
        coefficients: Array = -0.5 * precisions[:, None]
        return coefficients

    def whiten(self, delta: AnyArray, precision_cholesky: AnyArray, k: int) -> AnyArray:
        return delta * precision_cholesky[k, ...]

    def second_moment(self, delta: AnyArray, r: AnyArray) -> AnyArray:
        return array_namespace(delta).reshape(squared_lengths(delta) @ r, (1,))

    def outer(self, a: Array, b: Array) -> Array:
        product: Array = np.sum(a * b, axis=-1, keepdims=True)
        return product

    def second_moments(self, covariances: Array, d: int) -> Array:
        moments: Array = covariances[:, None] * d
        return moments

    def from_moments(self, counts: Array, shift: Array, second: Array, ridge: Array) -> Array:
        d = shift.shape[1]
        moments = second / counts[:, None] / d
        added = regularisation(ridge.mean(keepdims=True), moments)
        variances: Array = moments[:, 0] - np.sum(shift**2, axis=1) / d + added[:, 0]
        return variances

    def log_det(self, precision_cholesky: Array, k: int, d: int) -> Array:
        total: Array = d * np.log(precision_cholesky)
        return total

    def largest_precision(self, precision_cholesky: Array, k: int) -> Array:
        largest: Array = precision_cholesky**2
        return largest

    def rescale_cholesky(self, precision_cholesky: Array, factor: Array) -> Array:
        scaled: Array = precision_cholesky / _common(factor)
        return scaled

    def rescale(self, covariances: Array, factor: Array) -> Array:
        scaled: Array = covariances * _common(factor) ** 2
        return scaled

    def for_each_feature(self, covariances: Array, d: int) -> tuple[CovarianceType, Array]:
        return DIAG, np.repeat(covariances[:, None], d, axis=1)

    def restrict(self, covariances: Array, features: Sequence[int]) -> Array:
        return covariances

    def full(self, covariances: Array, k: int, d: int) -> Array:
        matrices: Array = covariances[:, None, None] * np.eye(d)
        return matrices

    def colour(self, noise: Array, covariances: Array, k: int) -> Array:
        coloured: Array = noise * np.sqrt(covariances[k])
        return coloured
