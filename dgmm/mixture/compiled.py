"""The two-GEMM kernel compiled: a block's statistics in one call, which leaves Python's lock free.

The mathematics of the NumPy kernel in `dgmm.mixture.expectation`, which stays the reference. What makes the
difference: tiles small enough for the first caches, whose products run near the machine's peak (in Python the
calls would cost more), and exponentials, maxima and sums in few sweeps.

To import this module takes half a second, to compile the kernel some seconds once for each installation (it is
cached on disk); `dgmm.mixture.expectation` does so when there is enough to compute.
"""

from __future__ import annotations

import contextlib
import hashlib
import inspect
from functools import cache
from typing import Any, NamedTuple

import numba
import numpy as np
from numba import types

from dgmm.mixture import elementary, sweeps, tiling, whitening
from dgmm.mixture.components import LEAST_EXPONENT, Components
from dgmm.mixture.covariance_type import Array
from dgmm.mixture.frame import Frame
from dgmm.mixture.sweeps import (
    DIAG,
    FULL,
    OPTIONS,
    SPHERICAL,
    TIED,
    add,
    fill_features,
    scale_rows,
    scaled_transpose,
    softmax,
    to_frame,
    weigh,
    weigh_rows,
)
from dgmm.mixture.tiling import aligned, as_aligned, compiled_chunk, compiled_tile_rows
from dgmm.mixture.whitening import Whitening, absent, log_joint

_KINDS = {"full": FULL, "diag": DIAG, "spherical": SPHERICAL, "tied": TIED}


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

    Where the first of them would cancel too much in single precision, whitened rows may take its place.

    Parameters
    ----------
    components : Components
        None of them centred.
    frame : Frame

    Attributes
    ----------
    dtype : dtype
        That it computes in.
    tile_rows : int
    """

    def __init__(self, components: Components, frame: Frame) -> None:
        whitened = components.whitening_limit > 0
        self.dtype = np.dtype(np.float32) if whitened else components.dtype
        limit = components.whitening_limit if whitened else components.radius_limits[self.dtype]
        k, f = components.theta.shape
        d = components.parameters.n_features
        self.tile_rows = compiled_tile_rows(k, f)
        self._kind = _KINDS[components.parameters.covariance.name]
        self._limits = limit, LEAST_EXPONENT[self.dtype]
        if whitened:
            means, constants = components.parameters.means, components.log_constants
            self._whitening = Whitening(components.precision_cholesky, means, constants, self.tile_rows).arrays
        else:
            self._whitening = tuple(part.astype(self.dtype) for part in absent())
        self._theta = as_aligned(components.theta.T, self.dtype)
        self._chunk = compiled_chunk(k, self.tile_rows)
        with np.errstate(over="ignore"):  # of an infinity come values that are not finite, which are refused
            self._frame = frame.shift.astype(self.dtype), (1 / frame.scale).astype(self.dtype)
        pooled = d if self._kind == TIED else 0
        self._buffers = (
            aligned((f + 2 * k + 2 + pooled) * self.tile_rows, self.dtype),
            aligned((f, k), self.dtype),
            aligned((pooled, pooled), self.dtype),
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
        refused = np.zeros(-(-len(rows) // self.tile_rows), dtype=np.bool_)
        log_likelihood, weight = _kernel(rows.dtype, self.dtype)(
            rows,
            np.empty(0) if weights is None else weights.astype(np.float64, copy=False),
            self._kind, self.tile_rows, self._chunk, *self._limits, self._theta, *self._frame, *self._whitening,
            *self._buffers, *totals, refused,
        )  # fmt: skip
        starts = (np.flatnonzero(refused) * self.tile_rows).tolist()
        places = [slice(start, min(start + self.tile_rows, len(rows))) for start in starts]
        return Totals(totals[0].T, totals[1], log_likelihood, weight, places)


@cache
def _kernel(rows: np.dtype[Any], dtype: np.dtype[Any]) -> Any:
    """The function for rows and a kernel of these dtypes: from the cache on disk, or compiled."""
    real, double = numba.from_dtype(dtype), types.float64

    def given(of: np.dtype[Any], ndim: int) -> types.Array:
        return types.Array(numba.from_dtype(of), ndim, "A", readonly=True)

    signature = types.UniTuple(double, 2)(
        given(rows, 2), given(np.dtype(np.float64), 1), types.int64, types.int64, types.int64, real, real,
        real[:, ::1], real[::1], real[::1],
        real[::1], real[:, ::1], real[::1], real[::1],
        real[::1], real[:, ::1], real[:, ::1],
        double[:, ::1], double[:, ::1], types.boolean[::1],
    )  # fmt: skip
    for cache_on_disk in (True, False):
        with contextlib.suppress(RuntimeError):  # of a machine without a folder to write to
            return numba.njit(signature, cache=cache_on_disk, fastmath={"contract"}, **OPTIONS)(_add_block)
    raise AssertionError


def _add_block(
    rows: Array,
    weights: Array,
    kind: int,
    size: int,
    chunk: int,
    radius_limit: float,
    least_exponent: float,
    theta: Array,
    shift: Array,
    inverse_scale: Array,
    strips: Array,
    offsets: Array,
    constants: Array,
    strip_room: Array,
    room: Array,
    product: Array,
    scatter: Array,
    total_product: Array,
    total_scatter: Array,
    refused: Array,
) -> tuple[float, float]:
    """Log-likelihood and weight of a block; its other totals, and the refused tiles, in place."""
    f, k = theta.shape
    d, n_vectors = shift.size, room.size // size
    log_likelihood = weight = 0.0
    for tile in range(refused.size):
        start = tile * size
        b = min(size, len(rows) - start)
        matrix = room[: n_vectors * b].reshape(n_vectors, b)
        phi, joint, other = matrix[:f], matrix[f : f + k], matrix[f + k : f + 2 * k]
        density, factor = matrix[f + 2 * k], matrix[f + 2 * k + 1]
        z = phi[f - 1 - d : f - 1]
        if not to_frame(rows[start : start + b], shift, inverse_scale, z, density, radius_limit):
            refused[tile] = True
            continue
        fill_features(z, kind, phi)
        if strips.size:
            log_joint(z, strips, offsets, constants, strip_room, joint)
        else:
            np.dot(theta[:chunk].T, phi[:chunk], joint)
            for first in range(chunk, f, chunk):
                np.dot(theta[first : first + chunk].T, phi[first : first + chunk], other)
                add(other, joint)
        softmax(joint, density, factor, least_exponent)
        of_tile = weights[start : start + b]
        found = weigh(of_tile, density, factor)
        log_likelihood += found[0]
        weight += found[1]
        if f < k:
            scale_rows(joint, factor)
            np.dot(phi, joint.T, product)
        else:
            responsibilities = other.reshape(b, k)
            scaled_transpose(joint, factor, responsibilities)
            for first in range(0, f, chunk):
                np.dot(phi[first : first + chunk], responsibilities, product[first : first + chunk])
        add(product, total_product)
        if kind == TIED:
            weighted = matrix[f + 2 * k + 2 :]
            weigh_rows(z, of_tile, weighted)
            np.dot(weighted, z.T, scatter)
            add(scatter, total_scatter)
    return log_likelihood, weight


# numba's cache knows functions by their names and the content of their own file: the name stands for the others.
_SOURCES = "".join(map(inspect.getsource, (elementary, sweeps, tiling, whitening)))
_add_block.__qualname__ += "_" + hashlib.sha256(_SOURCES.encode()).hexdigest()[:16]
