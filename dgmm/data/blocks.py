"""What a leaf task receives, and how it walks through it block by block."""

from __future__ import annotations

from collections.abc import Generator, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from itertools import groupby, pairwise
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from dgmm.data.boxes import Box
from dgmm.data.kept import KEPT, Keep
from dgmm.data.rows import Bounds, Rows, block_dtype
from dgmm.errors import InvalidData

if TYPE_CHECKING:
    from dgmm.data.source import Source


Missing = Literal["error", "drop"]
"""What becomes of rows with a missing value (NaN): a pass that looks for them fails, or they are left out."""


@dataclass(frozen=True, eq=False)
class Block:
    """Rows that lie together, as a step of a pass gets them.

    Attributes
    ----------
    first : int
        Position of its first row in the source.
    length : int
        Rows that it has there.
    rows : ndarray (n, D)
        Those that are not left out, native float32 or float64.
    kept : ndarray (n,) or None
        Their offsets from `first`; None where that is all of them.
    box : Box or None
        Where the rows are cells of a grid, which ones; else positions are the global row numbers.
    """

    first: int
    length: int
    rows: Rows
    kept: NDArray[np.intp] | None = None
    box: Box | None = None

    @classmethod
    def of(cls, first: int, rows: Rows, missing: Missing = "error", box: Box | None = None) -> Block:
        """Rows (length, D) as they were read, less those that are to be left out."""
        block = cls(first, len(rows), rows, None, box)
        if missing == "error":
            return block
        absent = np.isnan(rows[:, 0])
        for feature in range(1, rows.shape[1]):
            absent |= np.isnan(rows[:, feature])
        if not absent.any():
            return block
        kept = np.flatnonzero(~absent)
        return cls(first, len(rows), rows[kept], kept, box)

    def of_kept(self, values: NDArray[Any]) -> NDArray[Any]:
        """Of values (length, ...), one for each row of the block, those of the rows that are not left out."""
        return values if self.kept is None else values[self.kept]

    def with_left_out(self, values: NDArray[Any], fill: float) -> NDArray[Any]:
        """Values (n, ...) for the rows, with `fill` for those left out: (length, ...)."""
        if self.kept is None:
            return values
        whole = np.full((self.length, *values.shape[1:]), fill, values.dtype)
        whole[self.kept] = values
        return whole

    def row_numbers(self) -> NDArray[np.int64]:
        """Global numbers (n,) of the rows, which do not depend on how the data are cut into blocks."""
        if self.kept is None and self.box is None:
            return np.arange(self.first, self.first + self.length)
        offsets = np.arange(self.length) if self.kept is None else self.kept
        return self.first + offsets if self.box is None else self.box.row_numbers(offsets)


class StoredBlocks:
    """Blocks that the task reads itself; small when pickled.

    Iterating gives them in the source's order. While one block is worked on, the next is read in
    a background thread; the thread ends with the iterator, also when that is closed early.

    Parameters
    ----------
    source : Source
        Its bounds are the blocks to read; they need not start at row 0.
    keep : Keep, optional
        Keep what was read in memory, and take what is there from there.
    """

    # Dask looks into lists, dicts and dataclasses for more tasks: this is none of them on purpose.

    def __init__(self, source: Source, keep: Keep | None = None) -> None:
        self.source = source
        self.keep = keep

    def __iter__(self) -> Iterator[Block]:
        for first, last, blocks in self._stretches():
            if blocks[0] is not None:
                yield from (block for block in blocks if block is not None)
            elif last - first == self.source.n_blocks:
                yield from self._read(self.source)
            else:
                yield from self._read(self.source.rows(self.source.bounds[first : last + 1]))

    def kept_rows(self) -> list[tuple[int, int]]:
        """Ranges of positions whose blocks are in this process's memory."""
        bounds = self.source.bounds.tolist()
        stretches = self._stretches()
        return [(bounds[first], bounds[last]) for first, last, blocks in stretches if blocks[0] is not None]

    def _stretches(self) -> Iterator[tuple[int, int, list[Block | None]]]:
        """Blocks that follow one another and are in memory, all of them or none: first, last, and the blocks."""
        firsts = self.source.bounds[:-1].tolist()
        found = [None] * len(firsts) if self.keep is None else KEPT.find(self.keep, firsts)
        first = 0
        for _, group in groupby(found, lambda block: block is None):
            blocks = list(group)
            yield first, first + len(blocks), blocks
            first += len(blocks)

    def _read(self, source: Source) -> Iterator[Block]:
        with closing(_in_order(source, self.keep)) as blocks:
            if not source.reads_ahead:
                yield from blocks
                return
            with ThreadPoolExecutor(1, thread_name_prefix="dgmm-read") as reader:
                pending = reader.submit(next, blocks, None)
                while (block := pending.result()) is not None:
                    pending = reader.submit(next, blocks, None)
                    yield block
                    del block  # or it would stay in memory while the next one is awaited


def _in_order(source: Source, keep: Keep | None) -> Generator[Block]:
    """Read the source's blocks, each storage chunk once even where blocks cut through chunks."""
    bounds = source.bounds.tolist()
    position = bounds[0]  # rows before this one have been read
    pieces: list[Rows] = []  # read but not given yet
    with source.reader() as read:
        for start, stop in pairwise(bounds):
            if stop > position:
                until = min(source.chunk_end(stop), bounds[-1])
                pieces.append(read(position, until))
                position = until
            # No name here: it would hold a block in memory while the next one is read.
            yield _kept(Block.of(start, _taken(pieces, stop - start), source.missing, source.box(start)), keep)


def _kept(block: Block, keep: Keep | None) -> Block:
    return block if keep is None else KEPT.add(keep, block)


def _taken(pieces: list[Rows], length: int) -> Rows:
    """Take so many rows away from the first pieces."""
    taken: list[Rows] = []
    while length:
        piece = pieces.pop(0)
        if len(piece) > length:
            pieces.insert(0, piece[length:])
        taken.append(piece[:length])
        length -= len(taken[-1])
    return taken[0] if len(taken) == 1 else np.concatenate(taken)


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
    missing : {"error", "drop"}
    boxes : sequence of (Box or None)
        Of each block.
    """

    def __init__(
        self,
        name: str,
        bounds: Bounds,
        n_features: int,
        dtype: np.dtype[Any],
        missing: Missing,
        boxes: Sequence[Box | None],
    ) -> None:
        self.name = name
        self.bounds = bounds
        self.n_features = n_features
        self.dtype = dtype
        self.missing = missing
        self.boxes = boxes

    def walk(self, blocks: list[Any]) -> Iterator[Block]:
        """Give each computed block.

        Raises
        ------
        InvalidData
            A block is not what the Dask array said it would be.
        """
        ranges = pairwise(self.bounds.tolist())
        for (start, stop), computed, box in zip(ranges, blocks, self.boxes, strict=True):
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
            yield Block.of(start, block.astype(self.dtype, copy=False), self.missing, box)


BlockInput = StoredBlocks | list[Any]
"""What `Source.block_input` gives to a leaf task: `StoredBlocks`, or a list of a `ComputedBlocks` and Dask's
delayed blocks, which arrive computed."""


def iter_blocks(received: BlockInput) -> Iterator[Block]:
    """Walk through what a leaf task received.

    Parameters
    ----------
    received : BlockInput
        The result of `Source.block_input` as it arrives in the task: Dask has computed what was delayed.

    Yields
    ------
    Block

    Raises
    ------
    InvalidData
        A block cannot be decoded, or is not what was promised.
    """
    if isinstance(received, StoredBlocks):
        return iter(received)
    promise, *blocks = received
    walk: Iterator[Block] = promise.walk(blocks)
    return walk
