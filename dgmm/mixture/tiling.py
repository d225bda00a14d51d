"""How many rows make a tile, and which data are worth the compiled kernel.

The bits of a sum depend on the tiles: their size is a function of the components and features of the kernel alone.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import DTypeLike

from dgmm.mixture.covariance_type import Array

# Log-densities of a tile should stay in the second-level cache, its feature matrix in the third (measured).
_TILE_COMPONENT_BYTES = 1 << 20
_TILE_FEATURE_BYTES = 1 << 24
_TILE_ROWS = (64, 16384)
# Compiled: OpenBLAS does products of up to a million multiplications without packing, up to twice as fast. Tiles
# have at most half of them while that leaves enough rows (under 128 the calls weigh, over 512 nothing is gained);
# else they are taken some features at a time. Many components are packed well (measured).
COMPILED_PRODUCT = 1_000_000
_COMPILED_TILE_ROWS = (128, 512)
_LEAST_CHUNK = 64
_LINE_BYTES = 64
# Rows of a strip of the triangular matrices that whiten.
STRIP = 16
# Half a second for each process is what the compiled kernel costs to load, and some hundredths what it saves in
# every iteration of so many rows times components times features (measured).
WORTH_COMPILING = 8_000_000


def tile_rows(n_components: int, n_features: int) -> int:
    """Rows of a tile for NumPy, with K components and F features of the kernel."""
    rows = min(_TILE_COMPONENT_BYTES // (8 * n_components), _TILE_FEATURE_BYTES // (8 * n_features))
    low, high = _TILE_ROWS
    return min(max(rows // low * low, low), high)


def compiled_tile_rows(n_components: int, n_features: int) -> int:
    """Rows of a tile for the compiled kernel."""
    low, high = _COMPILED_TILE_ROWS
    if COMPILED_PRODUCT // (n_components * low) < _LEAST_CHUNK:
        return high
    return max(low, min(COMPILED_PRODUCT // (n_components * n_features) // 2, high) // 32 * 32)


def compiled_chunk(n_components: int, n_rows: int) -> int:
    """Features that a product of the compiled kernel takes at a time, from a tile of so many rows."""
    chunk = COMPILED_PRODUCT // (n_components * n_rows) // 32 * 32
    return chunk if chunk >= _LEAST_CHUNK else 1 << 62


def worth_compiling(n_rows: int, n_components: int, n_features: int) -> bool:
    """Whether the E-step of so many rows, components and features of the kernel is worth compiling for."""
    return n_rows * n_components * n_features >= WORTH_COMPILING


def aligned(shape: int | tuple[int, ...], dtype: DTypeLike) -> Array:
    """An array that begins with a line of the cache, as long vectors do: up to a fifth faster (measured)."""
    size = math.prod(shape) if isinstance(shape, tuple) else shape
    room = np.empty(size * np.dtype(dtype).itemsize + _LINE_BYTES, np.uint8)
    first = -room.ctypes.data % _LINE_BYTES
    return room[first : first + size * np.dtype(dtype).itemsize].view(dtype).reshape(shape)


def as_aligned(values: Array, dtype: DTypeLike) -> Array:
    """A copy of an array, aligned and in C order."""
    copy = aligned(values.shape, dtype)
    copy[...] = values
    return copy
