"""Mixtures to test with, and the definition of their densities and moments in extended precision.

The reference knows nothing of frames, tiles or kernels: it is the textbook, term by term.
"""

from __future__ import annotations

import numpy as np
import pytest

from dgmm.mixture.covariance import COVARIANCE_TYPES
from dgmm.mixture.parameters import Parameters

TYPES = tuple(COVARIANCE_TYPES)
LONG = np.longdouble

extended = pytest.mark.skipif(
    np.finfo(LONG).eps >= np.finfo(float).eps, reason="longdouble is no longer than double on this machine"
)


def error(actual, expected) -> float:
    """Largest difference in units of the largest expected value."""
    actual, expected = np.asarray(actual), np.asarray(expected)
    assert actual.shape == expected.shape
    difference = np.abs(actual - expected).max(initial=0.0)
    size = np.abs(expected).max(initial=0.0)
    return float(difference / size if size > 0 else difference)


def assert_close(actual, expected, tolerance, what=""):
    found = error(actual, expected)
    assert found <= tolerance, f"{what} differs by {found:.3g}, tolerance {tolerance:.3g}"


def covariances(name, k, d, rng, low=0.1, high=3.0):
    """Random covariances in the shape of a type, standard deviations from `low` to `high`."""

    def one():
        basis, _ = np.linalg.qr(rng.standard_normal((d, d)))
        matrix = (basis * rng.uniform(low, high, d) ** 2) @ basis.T
        return (matrix + matrix.T) / 2

    shape = COVARIANCE_TYPES[name].shape(k, d)
    if name == "full":
        return np.array([one() for _ in range(k)])
    return one() if name == "tied" else rng.uniform(low, high, shape) ** 2


def mixture(name, k, d, rng, spread=3.0, evenness=5.0, **deviations) -> Parameters:
    """A random mixture about the origin."""
    weights = rng.dirichlet(np.full(k, evenness))
    means = spread * rng.standard_normal((k, d))
    return Parameters(COVARIANCE_TYPES[name], weights, means, covariances(name, k, d, rng, **deviations))


def matrices(parameters: Parameters) -> np.ndarray:
    """Covariances as K matrices, in extended precision."""
    k, d = parameters.means.shape
    c, eye = np.asarray(parameters.covariances, dtype=LONG), np.eye(d, dtype=LONG)
    if parameters.covariance.name == "tied":
        return np.array([c] * k)
    if parameters.covariance.name == "full":
        return c
    return c.reshape(k, -1, 1) * eye


def _lower(a):
    lower = np.zeros_like(a)
    for i in range(len(a)):
        for j in range(i + 1):
            rest = a[i, j] - lower[i, :j] @ lower[j, :j]
            lower[i, j] = np.sqrt(rest) if i == j else rest / lower[j, j]
    return lower


def _solve(lower, b):
    x = np.zeros_like(b)
    for i in range(len(b)):
        x[i] = (b[i] - lower[i, :i] @ x[:i]) / lower[i, i]
    return x


def reference(parameters: Parameters, rows):
    """Log-densities (n,) and responsibilities (K, n)."""
    rows, means = np.asarray(rows, dtype=LONG), np.asarray(parameters.means, dtype=LONG)
    d = rows.shape[1]
    joint = []
    for weight, mean, matrix in zip(parameters.weights, means, matrices(parameters), strict=True):
        lower = _lower(matrix)
        white = _solve(lower, (rows - mean).T)
        constant = np.log(LONG(weight)) - np.log(np.diag(lower)).sum() - LONG(d) / 2 * np.log(2 * LONG(np.pi))
        joint.append(constant - (white**2).sum(axis=0) / 2)
    joint = np.array(joint)
    top = joint.max(axis=0)
    r = np.exp(joint - top)
    total = r.sum(axis=0)
    return top + np.log(total), r / total


def m_step(parameters: Parameters, rows, weights=None) -> Parameters:
    """The next parameters (no regularisation), from the reference's responsibilities."""
    rows = np.asarray(rows, dtype=LONG)
    w = np.ones(len(rows), dtype=LONG) if weights is None else np.asarray(weights, dtype=LONG)
    _, r = reference(parameters, rows)
    r = r * w
    counts = r.sum(axis=1)
    means = (r @ rows) / counts[:, None]
    scatter = np.array([((rows - m).T * s) @ (rows - m) for m, s in zip(means, r, strict=True)])
    name, d = parameters.covariance.name, rows.shape[1]
    found = scatter.sum(axis=0) / counts.sum() if name == "tied" else scatter / counts[:, None, None]
    if name == "diag":
        found = np.diagonal(found, axis1=1, axis2=2)
    if name == "spherical":
        found = np.trace(found, axis1=1, axis2=2) / d
    return Parameters(parameters.covariance, counts / counts.sum(), means, found)


def assert_same_mixture(actual: Parameters, expected: Parameters, tolerance):
    """Equal weights, means in units of the spread, covariances each in units of its own size."""
    assert_close(actual.weights, expected.weights, tolerance, "weights")
    for k, (a, e) in enumerate(zip(matrices(actual), matrices(expected), strict=True)):
        deviation = np.sqrt(np.diag(e))
        whitened = (a - e) / deviation / deviation[:, None]
        assert_close(whitened + 1, np.ones_like(whitened), tolerance, f"covariance {k}")
        shift = (actual.means[k] - expected.means[k]) / deviation
        assert_close(shift + 1, np.ones_like(shift), tolerance, f"mean {k}")


def order(actual, expected):
    """The permutation of `actual`'s means that brings them nearest to `expected`."""
    from scipy.optimize import linear_sum_assignment

    distances = np.linalg.norm(np.asarray(expected)[:, None] - np.asarray(actual)[None], axis=2)
    return linear_sum_assignment(distances)[1]
