"""Decoded blocks that stay in this process's memory, so that the next pass need not read them."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import psutil

if TYPE_CHECKING:
    from dgmm.data.blocks import Block

# Of the machine's memory, so much is left to whatever else runs there.
_LEFT_ALONE = 0.2
# Nobody has asked for so long: the driver that was to drop them was killed.
_IDLE_SECONDS = 600.0


@dataclass(frozen=True)
class Keep:
    """Which blocks are kept, and in how much memory.

    Attributes
    ----------
    owner : str
        The fit that they are kept for.
    data : str
        Tells one source of that fit from another, and from what it was before it changed.
    most : int
        Bytes of blocks that a process keeps at most, whoever they are for.
    ceiling : int
        Bytes of memory of a process; one that has more keeps no more blocks.
    """

    owner: str
    data: str
    most: int
    ceiling: int


class KeptBlocks:
    """What one process keeps. None makes room for another: what is kept stays until its owner is done.

    Attributes
    ----------
    n_bytes : int
        That it takes.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._blocks: dict[str, dict[tuple[str, int], Block]] = {}
        self._asked: dict[str, float] = {}
        # A leaf of a fit that was interrupted may still run.
        self._done: deque[str] = deque(maxlen=1000)
        self._timer: threading.Timer | None = None
        self._clock = time.monotonic
        self.n_bytes = 0

    def find(self, keep: Keep, firsts: Iterable[int]) -> list[Block | None]:
        """The blocks that begin at these positions, None for those that are not here."""
        with self._lock:
            own = self._blocks.get(keep.owner, {})
            if own:
                self._asked[keep.owner] = self._clock()
            return [own.get((keep.data, first)) for first in firsts]

    def add(self, keep: Keep, block: Block) -> Block:
        """Keep a block if there is room.

        Returns
        -------
        Block
            The same; a copy of it if it was a part of something larger that would have been kept with it.
        """
        size = _size(block)
        with self._lock:
            full = self.n_bytes + size > keep.most
            if full or keep.owner in self._done or not _room(size, keep.ceiling):
                return block
            if self._timer is None:
                self._look_later()
            own = self._blocks.setdefault(keep.owner, {})
            if (keep.data, block.first) not in own:
                own[keep.data, block.first] = block = _alone(block)
                self.n_bytes += size
            self._asked[keep.owner] = self._clock()
        return block

    def drop(self, owner: str) -> None:
        """Let go of an owner's blocks, and keep no more of them."""
        with self._lock:
            self._done.append(owner)
            self._drop(owner)
            if not self._blocks and self._timer is not None:
                self._timer.cancel()
                self._timer = None

    def _drop(self, owner: str) -> None:
        self._asked.pop(owner, None)
        self.n_bytes -= sum(map(_size, self._blocks.pop(owner, {}).values()))

    def drop_idle(self) -> None:
        """Let go of blocks that nobody has asked for in 10 minutes."""
        with self._lock:
            before = self._clock() - _IDLE_SECONDS
            for owner in [owner for owner, asked in self._asked.items() if asked <= before]:
                self._drop(owner)
            self._timer = None
            if self._blocks:
                self._look_later()

    def _look_later(self) -> None:
        self._timer = threading.Timer(_IDLE_SECONDS, self.drop_idle)
        self._timer.daemon = True
        self._timer.start()


KEPT = KeptBlocks()


def drop_kept(owner: str) -> None:
    """Let go of what this process keeps for a fit."""
    KEPT.drop(owner)


def _size(block: Block) -> int:
    return block.rows.nbytes + (0 if block.kept is None else block.kept.nbytes)


def _room(size: int, ceiling: int) -> bool:
    """Whether this process and its machine have so much memory left, whatever else is in it."""
    machine = psutil.virtual_memory()
    free = machine.available - size >= _LEFT_ALONE * machine.total
    return bool(free and psutil.Process().memory_info().rss + size <= ceiling)


def _alone(block: Block) -> Block:
    held = block.rows
    while isinstance(held.base, np.ndarray):
        held = held.base
    return block if held.nbytes <= block.rows.nbytes else replace(block, rows=block.rows.copy(order="K"))
