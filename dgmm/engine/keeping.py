"""Blocks that stay in the memory of workers from one pass to the next: how many may, and which worker has them."""

from __future__ import annotations

import sys
import uuid
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import dask
import numpy as np
from dask.utils import parse_bytes

from dgmm.data.blocks import BlockInput, StoredBlocks
from dgmm.data.kept import Keep, drop_kept
from dgmm.data.source import Source
from dgmm.engine.leaves import Run
from dgmm.engine.memory import KEPT_SHARE, keepable_bytes
from dgmm.engine.scheduler import Process, Scheduler

# A leaf that would better be so many times as long is made so, though its parts may be with different workers.
_TOO_SHORT = 4


class Home(NamedTuple):
    """A range of rows that are in memory, and the worker that has them, with its number of threads."""

    start: int
    stop: int
    address: str
    n_threads: int


class Keeping:
    """Has the blocks of a fit's data kept where they were read, and leaves computed where their blocks are.

    The Dask setting ``dgmm.kept-bytes`` bounds what a process keeps beside its plan; 0 keeps nothing.

    Parameters
    ----------
    source : Source
    """

    def __init__(self, source: Source) -> None:
        self._source = source
        self._owner = uuid.uuid4().hex
        self._most = self._ceiling = 0
        self._forget()

    def _forget(self) -> None:
        # Of each block, the number of the worker that has it, or -1: blocks may be many.
        self._homes = np.full(self._source.n_blocks, -1, np.int32)
        self._workers: list[tuple[str, int]] = []
        self._numbers: dict[str, int] = {}
        self._longest = 0

    def plan(self, processes: Sequence[Process], per_thread: int, sample_rows: int) -> int:
        """Decide how much is kept.

        Parameters
        ----------
        processes : sequence of Process
        per_thread : int
            Bytes that the work of a thread needs.
        sample_rows : int
            Rows of the sample: where that is all of them, no second pass needs any.

        Returns
        -------
        int
            Bytes of blocks that all processes together may keep; 0 where the data are not worth it.
        """
        self._forget()
        if self._source.n_rows <= sample_rows:
            self._most = self._ceiling = 0
            return 0
        most = min((keepable_bytes(*process, per_thread) for process in processes), default=0)
        limit = dask.config.get("dgmm.kept-bytes", None)
        self._most = most if limit is None else min(most, parse_bytes(limit))
        self._ceiling = int(KEPT_SHARE * min((process.memory or 0 for process in processes), default=0))
        return self._most * len(processes) if self._source.worth_keeping else 0

    def kept(self, source: Source, received: BlockInput) -> BlockInput:
        """What a leaf receives of rows or weights, kept if that is worth it."""
        if not (self._most and source.worth_keeping and isinstance(received, StoredBlocks)):
            return received
        data = f"{source.fingerprint()} {source.missing}"
        return StoredBlocks(received.source, Keep(self._owner, data, self._most, self._ceiling))

    def found(self, homes: Iterable[Home], leaves: Sequence[Run]) -> None:
        """Hear where rows are after a pass of these leaves."""
        for start, stop, address, n_threads in homes:
            if address not in self._numbers:
                self._numbers[address] = len(self._workers)
                self._workers.append((address, n_threads))
            first, last = np.searchsorted(self._source.bounds, (start, stop)).tolist()
            self._homes[first:last] = self._numbers[address]
        self._longest = max(leaf.last - leaf.first for leaf in leaves) if self._workers else 0

    def worth(self, blocks: float) -> float:
        """Of so many blocks that are worth a task, as many as one had while they were read, if that will do."""
        return min(blocks, self._longest) if blocks < _TOO_SHORT * self._longest else blocks

    def at_home(self, leaves: Sequence[Run], n_threads: int) -> dict[Run, str]:
        """Addresses of the workers that have most of the blocks of leaves, where one has any.

        A worker that has more than the share of its threads gets that many; the others take what is left as they
        are free, or it does itself.

        Parameters
        ----------
        leaves : sequence of Run
        n_threads : int
            Of all workers.
        """
        found, given = {}, dict.fromkeys(range(len(self._workers)), 0)
        for leaf in leaves:
            there = self._homes[slice(*leaf)]
            there = there[there >= 0]
            if not len(there):
                continue
            number = int(np.bincount(there).argmax())
            address, own = self._workers[number]
            if given[number] * n_threads < self._source.n_blocks * own:
                given[number] += leaf.last - leaf.first
                found[leaf] = address
        return found

    def end(self, scheduler: Scheduler) -> None:
        """Have everything dropped."""
        if self._most:
            scheduler.tell(drop_kept, self._owner)


def homes(received: BlockInput) -> list[Home]:
    """What the worker that runs this has in memory of what a leaf received."""
    distributed = sys.modules.get("distributed")
    if distributed is None or not isinstance(received, StoredBlocks) or received.keep is None:
        return []
    try:
        worker = distributed.get_worker()
    except ValueError:
        return []  # a thread of the driver: there is no choice of processes
    return [Home(start, stop, worker.address, worker.state.nthreads) for start, stop in received.kept_rows()]
