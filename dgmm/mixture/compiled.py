"""The two-GEMM kernel compiled: a block's statistics in one call, which leaves Python's lock free.

The mathematics of the NumPy kernel in `dgmm.mixture.expectation`, which stays the reference. What makes the
difference: tiles small enough for the first caches, whose products run near the machine's peak (in Python the
calls would cost more), and exponentials, maxima and sums in few sweeps.

To import this module takes half a second, to compile the kernel some seconds once for each installation (it is
cached on disk); `dgmm.mixture.expectation` does so when there is enough to compute.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any, NamedTuple

import numba
import numpy as np
from numba import types

from dgmm.mixture.components import Components
from dgmm.mixture.covariance_type import Array
from dgmm.mixture.elementary import exp, log
from dgmm.mixture.frame import Frame

# OpenBLAS does products of up to a million multiplications without packing; under 256 rows the sweeps between the
# products cost more than they do, and beyond 1024 nothing is gained (measured).
_TILE_PRODUCT = 1_000_000
_TILE_ROWS = (256, 1024)
_FULL, _DIAG, _SPHERICAL, _TIED = range(4)
_KINDS = {"full": _FULL, "diag": _DIAG, "spherical": _SPHERICAL, "tied": _TIED}


def compiled_tile_rows(n_components: int, n_features: int) -> int:
    """Rows of a tile; the bits of a sum depend on it, so on K and the features of the kernel alone."""
    low, high = _TILE_ROWS
    return max(low, min(_TILE_PRODUCT // (n_components * n_features), high) // 32 * 32)


class Totals(NamedTuple):
    """What the tiles of a block add up to, in float64.

    Attributes
    ----------
    product : ndarray (K, F)
        R Phi^T.
    scatter : ndarray (D, D)
        Sum of w z z^T where the components share one covariance; otherwise (0, 0).
    log_likelihood, weight : float
        Tied: the log-likelihood is less the term that all components share.
    refused : list of slice
        Tiles left out: a row of theirs is not finite, or farther out than the guard allows.
    """

    product: Array
    scatter: Array
    log_likelihood: float
    weight: float
    refused: list[slice]


class CompiledKernel:
    """The two GEMMs of one mixture; it keeps its buffers from block to block.

    Parameters
    ----------
    components : Components
        None of them centred.
    frame : Frame
    least_exponent : float
        Responsibilities are at least exp of it.
    """

    def __init__(self, components: Components, frame: Frame, least_exponent: float) -> None:
        self._dtype = components.dtype
        k, f = components.theta.shape
        d = components.parameters.n_features
        self._size = compiled_tile_rows(k, f)
        self._kind = _KINDS[components.parameters.covariance.name]
        self._limits = components.radius_limits[self._dtype], least_exponent
        self._theta = np.ascontiguousarray(components.theta, self._dtype)
        self._frame = frame.shift.astype(self._dtype), frame.scale.astype(self._dtype)
        pooled = d if self._kind == _TIED else 0
        self._buffers = (
            np.empty((f + k + 2 + pooled) * self._size, self._dtype),
            np.empty((k, f), self._dtype),
            np.empty((pooled, pooled), self._dtype),
        )

    def __call__(self, rows: Array, weights: Array | None) -> Totals:
        """Take a block.

        Parameters
        ----------
        rows : ndarray (n, D)
            In data units, float32 or float64; float32 where the kernel is.
        weights : ndarray (n,), optional
            Sample weights.
        """
        totals = np.zeros(self._theta.shape), np.zeros(self._buffers[-1].shape)
        refused = np.zeros(-(-len(rows) // self._size), dtype=np.bool_)
        log_likelihood, weight = _kernel(rows.dtype, self._dtype)(
            rows,
            np.empty(0) if weights is None else weights.astype(np.float64, copy=False),
            self._kind, self._size, *self._limits, self._theta, *self._frame, *self._buffers, *totals, refused,
        )  # fmt: skip
        starts = (np.flatnonzero(refused) * self._size).tolist()
        places = [slice(start, min(start + self._size, len(rows))) for start in starts]
        return Totals(*totals, log_likelihood, weight, places)


@cache
def _kernel(rows: np.dtype[Any], dtype: np.dtype[Any]) -> Any:
    """The function for rows and a kernel of these dtypes: from the cache on disk, or compiled."""
    real, double = numba.from_dtype(dtype), types.float64

    def given(of: np.dtype[Any], ndim: int) -> types.Array:
        return types.Array(numba.from_dtype(of), ndim, "A", readonly=True)

    signature = types.UniTuple(double, 2)(
        given(rows, 2), given(np.dtype(np.float64), 1), types.int64, types.int64, double, real,
        real[:, ::1], real[::1], real[::1], real[::1], real[:, ::1], real[:, ::1],
        double[:, ::1], double[:, ::1], types.boolean[::1],
    )  # fmt: skip
    return numba.njit(signature, cache=True, nogil=True, fastmath={"contract"})(_add_block)


def _inlined(*freedoms: str) -> Callable[[Callable[..., Any]], Any]:
    """Compile as a part of the kernel; `freedoms` of the compiler besides fused multiply-add."""
    compiled: Callable[[Callable[..., Any]], Any] = numba.njit(fastmath={"contract", *freedoms}, nogil=True)
    return compiled


def _add_block(
    rows: Array,
    weights: Array,
    kind: int,
    size: int,
    radius_limit: float,
    least_exponent: float,
    theta: Array,
    shift: Array,
    scale: Array,
    room: Array,
    product: Array,
    scatter: Array,
    total_product: Array,
    total_scatter: Array,
    refused: Array,
) -> tuple[float, float]:
    """Log-likelihood and weight of a block; its other totals, and the refused tiles, in place."""
    k, f = theta.shape
    d, n_vectors = shift.size, room.size // size
    log_likelihood = weight = 0.0
    for tile in range(refused.size):
        start = tile * size
        b = min(size, len(rows) - start)
        matrix = room[: n_vectors * b].reshape(n_vectors, b)
        phi, joint, density, factor = matrix[:f], matrix[f : f + k], matrix[f + k], matrix[f + k + 1]
        z = phi[f - 1 - d : f - 1]
        if not _radius_squared(rows[start : start + b], shift, scale, z, radius_limit) <= radius_limit:
            refused[tile] = True
            continue
        _fill_features(z, kind, phi)
        np.dot(theta, phi, joint)
        _softmax(joint, density, factor, least_exponent)
        z_weighted = z
        if weights.size:
            of_tile = weights[start : start + b]
            weight += _sum(of_tile)
            log_likelihood += _weighted_sum(of_tile, density)
            for j in range(b):
                factor[j] *= of_tile[j]
            if kind == _TIED:
                z_weighted = matrix[f + k + 2 :]
                for feature in range(d):
                    for j in range(b):
                        z_weighted[feature, j] = z[feature, j] * of_tile[j]
        else:
            weight += b
            log_likelihood += _sum(density)
        for component in range(k):
            for j in range(b):
                joint[component, j] *= factor[j]
        np.dot(joint, phi.T, product)
        _add(product, total_product)
        if kind == _TIED:
            np.dot(z_weighted, z.T, scatter)
            _add(scatter, total_scatter)
    return log_likelihood, weight


@_inlined()
def _radius_squared(rows: Array, shift: Array, scale: Array, z: Array, limit: float) -> float:
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


@_inlined("nnan", "nsz")
def _largest_square(values: Array) -> float:
    largest = abs(values[0])
    for j in range(1, values.size):
        largest = max(largest, abs(values[j]))
    return np.float64(largest) * np.float64(largest)


@_inlined()
def _fill_features(z: Array, kind: int, phi: Array) -> None:
    """Quadratic features and ones beside `z`, in the order of the covariance types' `fill_quadratic`."""
    d, b = z.shape
    if kind == _FULL:
        at = 0
        for i in range(d):
            for other in range(i, d):
                for j in range(b):
                    phi[at, j] = z[i, j] * z[other, j]
                at += 1
    elif kind == _DIAG:
        for i in range(d):
            for j in range(b):
                phi[i, j] = z[i, j] * z[i, j]
    elif kind == _SPHERICAL:
        phi[0] = 0.0
        for i in range(d):
            for j in range(b):
                phi[0, j] += z[i, j] * z[i, j]
    phi[-1] = 1.0


@_inlined("nnan", "nsz")
def _softmax(joint: Array, density: Array, factor: Array, least_exponent: float) -> None:
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


@_inlined("reassoc", "nsz")
def _sum(values: Array) -> float:
    total = 0.0
    for j in range(values.size):
        total += values[j]
    return total


@_inlined("reassoc", "nsz")
def _weighted_sum(weights: Array, values: Array) -> float:
    total = 0.0
    for j in range(values.size):
        total += weights[j] * values[j]
    return total


@_inlined()
def _add(addend: Array, total: Array) -> None:
    for i in range(len(total)):
        for j in range(total.shape[1]):
            total[i, j] += addend[i, j]
