"""The loops of the compiled kernel: sweeps over the rows of a tile, along contiguous memory."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numba
import numpy as np

from dgmm.mixture.covariance_type import Array
from dgmm.mixture.elementary import exp, log

FULL, DIAG, SPHERICAL, TIED = range(4)


def part(*freedoms: str) -> Callable[[Callable[..., Any]], Any]:
    """Compile as a part of the kernel; `freedoms` of the compiler besides fused multiply-add."""
    compiled: Callable[[Callable[..., Any]], Any] = numba.njit(fastmath={"contract", *freedoms}, nogil=True)
    return compiled


@part()
def to_frame(rows: Array, shift: Array, scale: Array, z: Array, limit: float) -> float:
    """Fill `z` (D, b) with rows (b, D) in the frame; |z|^2 at the farthest corner of the box around them.

    Infinity where a value is not a number, or by itself beyond the limit.
    """
    outside = 0
    for feature in range(len(z)):
        for j in range(z.shape[1]):
            value = (z.dtype.type(rows[j, feature]) - shift[feature]) / scale[feature]
            z[feature, j] = value
            outside += not np.float64(value) * np.float64(value) <= limit
    if outside:
        return np.inf
    radius_squared = 0.0
    for feature in range(len(z)):
        radius_squared += _largest_square(z[feature])
    return radius_squared


@part("nnan", "nsz")
def _largest_square(values: Array) -> float:
    largest = abs(values[0])
    for j in range(1, values.size):
        largest = max(largest, abs(values[j]))
    return np.float64(largest) * np.float64(largest)


@part()
def fill_features(z: Array, kind: int, phi: Array) -> None:
    """Quadratic features and ones beside `z`, in the order of the covariance types' `fill_quadratic`."""
    d, b = z.shape
    if kind == FULL:
        at = 0
        for i in range(d):
            for other in range(i, d):
                for j in range(b):
                    phi[at, j] = z[i, j] * z[other, j]
                at += 1
    elif kind == DIAG:
        for i in range(d):
            for j in range(b):
                phi[i, j] = z[i, j] * z[i, j]
    elif kind == SPHERICAL:
        phi[0] = 0.0
        for i in range(d):
            for j in range(b):
                phi[0, j] += z[i, j] * z[i, j]
    phi[-1] = 1.0


@part("nnan", "nsz")
def softmax(joint: Array, density: Array, factor: Array, least_exponent: float) -> None:
    """Turn log w_k N_k (K, b) into responsibilities times `1 / factor`, and give the log-densities (b,)."""
    k, b = joint.shape
    for j in range(b):
        density[j] = joint[0, j]
    for component in range(1, k):
        for j in range(b):
            density[j] = max(density[j], joint[component, j])
    factor[:] = 0.0
    for component in range(k):
        for j in range(b):
            responsibility = exp(max(joint[component, j] - density[j], least_exponent))
            joint[component, j] = responsibility
            factor[j] += responsibility
    for j in range(b):
        density[j] += log(factor[j])
        factor[j] = 1.0 / factor[j]


@part()
def weigh(weights: Array, density: Array, factor: Array) -> tuple[float, float]:
    """Multiply `factor` by the weights of a tile, if there are any; its log-likelihood and weight."""
    if not weights.size:
        return _sum(density), float(density.size)
    for j in range(weights.size):
        factor[j] *= weights[j]
    return _weighted_sum(weights, density), _sum(weights)


@part()
def weigh_rows(z: Array, weights: Array, weighted: Array) -> None:
    """Rows (D, b) times their weights, if there are any."""
    for feature in range(len(z)):
        if weights.size:
            for j in range(weights.size):
                weighted[feature, j] = z[feature, j] * weights[j]
        else:
            weighted[feature] = z[feature]


@part()
def scale_rows(joint: Array, factor: Array) -> None:
    """Multiply each row by `factor` (b,)."""
    for component in range(len(joint)):
        for j in range(factor.size):
            joint[component, j] *= factor[j]


@part("reassoc", "nsz")
def _sum(values: Array) -> float:
    total = 0.0
    for j in range(values.size):
        total += values[j]
    return total


@part("reassoc", "nsz")
def _weighted_sum(weights: Array, values: Array) -> float:
    total = 0.0
    for j in range(values.size):
        total += weights[j] * values[j]
    return total


@part()
def add(addend: Array, total: Array) -> None:
    for i in range(len(total)):
        for j in range(total.shape[1]):
            total[i, j] += addend[i, j]
