"""Log-densities in single precision by whitened rows: y_k = C_k^T z - C_k^T mu_k, then -|y_k|^2 / 2.

Where theta . phi(z) cancels too much for single precision, this does not: its error grows with the root of
|z|^2 lambda_max(precision). C_k^T is lower triangular, and is multiplied in strips of rows, each with as many
columns as it needs, of so many components at a time as go unpacked: as quick as the products theta . phi(z) from
some 16 dimensions on (measured).
"""

from __future__ import annotations

import numpy as np

from dgmm.mixture.covariance_type import Array
from dgmm.mixture.sweeps import long_vectors, part
from dgmm.mixture.tiling import COMPILED_PRODUCT, STRIP, aligned, as_aligned


class Whitening:
    """What it needs of K components of full covariance.

    Parameters
    ----------
    precision_cholesky : ndarray (K, D, D)
    means : ndarray (K, D)
    log_constants : ndarray (K,)
    tile_rows : int

    Attributes
    ----------
    arrays : tuple of ndarray, float32
        Arguments of `log_joint` after the rows: strips of all components, one below the other; C^T mu (K, D);
        constants (K,); room for the whitened rows of a strip.
    """

    def __init__(self, precision_cholesky: Array, means: Array, log_constants: Array, tile_rows: int) -> None:
        lower = precision_cholesky.transpose(0, 2, 1)
        k, d = means.shape
        strips = [lower[:, i : i + STRIP, : min(i + STRIP, d)].ravel() for i in range(0, d, STRIP)]
        parts = (
            np.concatenate(strips),
            np.einsum("kij,kj->ki", lower, means),
            np.maximum(log_constants, np.finfo(np.float32).min),
        )
        room = aligned(k * min(STRIP, d) * tile_rows, np.float32)
        self.arrays = (*(as_aligned(part, np.float32) for part in parts), room)


def absent() -> tuple[Array, ...]:
    """The arrays of no whitening, for a kernel of any dtype."""
    return tuple(np.empty(shape) for shape in (0, (0, 0), 0, 0))


@part()
def log_joint(z: Array, strips: Array, offsets: Array, constants: Array, room: Array, joint: Array) -> None:
    """Fill log w_k N(z; mu_k, Sigma_k), (K, b), from rows (D, b) in the frame."""
    long_vectors()
    d, b = z.shape
    k = constants.size
    for component in range(k):
        joint[component] = constants[component]
    at = 0
    for first in range(0, d, STRIP):
        last = min(first + STRIP, d)
        height = last - first
        together = max(COMPILED_PRODUCT // (height * last * b), 1)
        for start in range(0, k, together):
            n_rows = (min(start + together, k) - start) * height
            strip = strips[at : at + n_rows * last].reshape(n_rows, last)
            at += strip.size
            white = room[: n_rows * b].reshape(n_rows, b)
            np.dot(strip, z[:last], white)
            for row in range(n_rows):
                component, i = start + row // height, first + row % height
                offset = offsets[component, i]
                for j in range(b):
                    y = white[row, j] - offset
                    joint[component, j] -= z.dtype.type(0.5) * y * y
