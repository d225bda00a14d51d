"""Chunks that cannot be decoded: which they are."""

from __future__ import annotations

import lzma
import zlib
from collections.abc import Iterator, Sequence
from itertools import product
from typing import Any

import zarr

from dgmm.data.zarr_chunks import RESTORE, chunk_key, storage_grid, storage_shape
from dgmm.errors import InvalidData

DECODING_ERRORS = (
    *(ValueError, RuntimeError, TypeError, EOFError, OSError, zlib.error, lzma.LZMAError),
    SystemError,  # of Blosc
)
"""What codecs raise; and more, which `is_decoding` tells apart."""


def is_decoding(error: Exception) -> bool:
    """Whether it is a codec that failed, not a disk or a network: those errors are for the engine to retry."""
    # Codecs raise OSErrors of their own (gzip) without an errno.
    return not isinstance(error, OSError) or (
        error.errno is None and type(error).__module__ in ("builtins", "gzip")
    )


def stored_parts(array: zarr.Array[Any], region: Sequence[slice]) -> Iterator[tuple[str, tuple[slice, ...]]]:
    """Keys of the stored objects (shards where there are any) that hold a region, and their parts within it."""
    lengths = storage_shape(array)
    bounds = [cut.indices(n)[:2] for cut, n in zip(region, array.shape, strict=True)]
    grid = zip(bounds, lengths, storage_grid(array), strict=True)
    for at in product(*(range(start // n, min(-(-stop // n), most)) for (start, stop), n, most in grid)):
        ends = zip(at, lengths, bounds, strict=True)
        yield (
            chunk_key(array, at),
            tuple(slice(max(a * n, start), min((a + 1) * n, stop)) for a, n, (start, stop) in ends),
        )


def undecodable(array: zarr.Array[Any], region: Sequence[slice], name: str, error: Exception) -> InvalidData:
    """The error of a region that cannot be decoded; it names the chunks."""
    broken = []
    for key, part in stored_parts(array, region):
        try:
            array[part]
        except DECODING_ERRORS:
            broken.append(key)
    where = ", ".join(f"{cut.start}:{cut.stop}" for cut in region)
    what = f"Chunk {', '.join(broken)}" if broken else f"A chunk at {where}"
    return InvalidData(
        f"{what} of {name} cannot be decoded: {error}. It is truncated or was altered after it was written. "
        f"{RESTORE}, or write it again and start anew."
    )
