"""What a leaf task receives, and how it walks through it block by block."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np

from dgmm.data.rows import Bounds, Rows, block_dtype
from dgmm.errors import InvalidData

if TYPE_CHECKING:
    from dgmm.data.source import Source


class StoredBlocks:
    """Blocks that the task reads itself; small when pickled.

    Iterating gives ``(start_row, block)`` in row order. While one block is worked on, the next is read in
    a background thread; the thread ends with the iterator, also when that is closed early.

    Parameters
    ----------
    source : Source
        Its bounds are the blocks to read; they need not start at row 0.
    """

    # Dask looks into lists, dicts and dataclasses for more tasks: this is none of them on purpose.

    def __init__(self, source: Source) -> None:
        self.source = source

    def __iter__(self) -> Iterator[tuple[int, Rows]]:
        blocks = _in_order(self.source)
        if not self.source.reads_ahead:
            yield from blocks
            return
        with ThreadPoolExecutor(1, thread_name_prefix="dgmm-read") as reader:
            pending = reader.submit(next, blocks, None)
            while (block := pending.result()) is not None:
                pending = reader.submit(next, blocks, None)
                yield block
                del block  # or it would stay in memory while the next one is awaited


def _in_order(source: Source) -> Iterator[tuple[int, Rows]]:
    """Read the source's blocks, each storage chunk once even where blocks cut through chunks."""
    bounds = source.bounds.tolist()
    position = bounds[0]  # rows before this one have been read
    rest: Rows | None = None  # rows read but not given yet
    for start, stop in pairwise(bounds):
        if stop > position:
            until = min(-(-stop // source.stride) * source.stride, bounds[-1])
            fresh = source.read(position, until)
            rest = fresh if rest is None else np.concatenate([rest, fresh])
            del fresh
            position = until
        assert rest is not None  # noqa: S101  (blocks are not empty)
        yield start, rest[: stop - start]
        rest = rest[stop - start :] if position > stop else None


class ComputedBlocks:
    """What the blocks of a Dask array must look like once they are computed.

    Parameters
    ----------
    name : str
        How messages call the array.
    bounds : ndarray of int64, shape (n_blocks + 1,)
        Row offsets of the blocks.
    n_features : int
        Features of each block.
    dtype : dtype
        Native float32 or float64: what the blocks are converted to.
    """

    def __init__(self, name: str, bounds: Bounds, n_features: int, dtype: np.dtype[Any]) -> None:
        self.name = name
        self.bounds = bounds
        self.n_features = n_features
        self.dtype = dtype

    def walk(self, blocks: list[Any]) -> Iterator[tuple[int, Rows]]:
        """Give ``(start_row, block)`` for each computed block.

        Raises
        ------
        InvalidData
            A block is not what the Dask array said it would be.
        """
        for (start, stop), computed in zip(pairwise(self.bounds.tolist()), blocks, strict=True):
            block = np.asarray(computed)
            expected = (stop - start, self.n_features)
            where = f"the block of rows {start}:{stop} of {self.name}"
            if block.shape != expected:
                msg = (
                    f"{where} has shape {block.shape} once computed; the Dask array promised {expected}. "
                    "Correct the chunks given to map_blocks/from_delayed, or call compute_chunk_sizes()."
                )
                raise InvalidData(msg)
            block_dtype(block.dtype, where)
            yield start, block.astype(self.dtype, copy=False)


BlockInput = StoredBlocks | list[Any]
"""What `Source.block_input` gives to a leaf task: `StoredBlocks`, or a list of a `ComputedBlocks` and Dask's
delayed blocks, which arrive computed."""


def iter_blocks(received: BlockInput) -> Iterator[tuple[int, Rows]]:
    """Walk through what a leaf task received.

    Parameters
    ----------
    received : BlockInput
        The result of `Source.block_input` as it arrives in the task: Dask has computed what was delayed.

    Yields
    ------
    (int, ndarray of shape (rows, n_features))
        Global index of the block's first row, and the block as native float32 or float64.

    Raises
    ------
    InvalidData
        A block cannot be decoded, or is not what was promised.
    """
    if isinstance(received, StoredBlocks):
        return iter(received)
    promise, *blocks = received
    walk: Iterator[tuple[int, Rows]] = promise.walk(blocks)
    return walk
