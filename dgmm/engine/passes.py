"""One pass over the data: leaf tasks over aligned runs of blocks, merged in a fixed tree."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any, NamedTuple, Protocol

import dask
import numpy as np
from dask.delayed import Delayed
from dask.highlevelgraph import HighLevelGraph
from numpy.typing import NDArray

from dgmm.data.source import Block, BlockInput, Source, iter_blocks
from dgmm.engine.blas import limit_worker_blas
from dgmm.engine.guilty import naming_rows
from dgmm.engine.keeping import Home, Keeping, homes
from dgmm.engine.leaves import Run, ending_together, equal_runs, merges
from dgmm.engine.scheduler import RowCount, Scheduler
from dgmm.engine.subset import Subset
from dgmm.engine.summation import BinaryCounter
from dgmm.engine.threads import LocalScheduler
from dgmm.errors import ClusterError, DeadlyTask, HangingTask

Rows = NDArray[np.floating]
BlockFunction = Callable[[Block, Rows | None], Any]

# Until a pass has been timed: bytes of rows that a thread gets through in a second.
_FIRST_GUESS = 2e8
# A leaf that reads a block while it works on the one before should do so for at least as long.
_READING_AHEAD_SECONDS = 0.05


class Prepared(Protocol):
    """What every leaf needs, made once by a task of the graph."""

    def begin(self) -> BlockFunction:
        """A function of a block and its rows' weights whose results add up; it may keep buffers between calls."""


class Work(Protocol):
    """What a pass does.

    It may have an attribute `light`: if that is true it goes with each leaf, which prepares for itself; else all
    workers ask the one that prepared it.
    """

    name: str

    def prepare(self) -> Prepared:
        """Run as a task: if its holder dies, the scheduler computes it again."""


class _Part(NamedTuple):
    """The sum of some blocks, and where their rows are in memory now."""

    total: Any
    homes: list[Home]


def _prepare(work: Work) -> Prepared:
    limit_worker_blas()
    return work.prepare()


def _leaf(
    step: BlockFunction, rows: Any, weights: Any, subset: Subset | None, report: Callable[[int], None]
) -> _Part:
    limit_worker_blas()
    total = BinaryCounter[Any]()
    weight_blocks = None if weights is None else iter_blocks(weights)
    for block in iter_blocks(rows):
        w = None if weight_blocks is None else block.of_kept(next(weight_blocks).rows[:, 0])
        if subset is not None:
            w = subset.weights(block.row_numbers(), w)
        total.add(step(block, w))
        report(block.length)
    if hasattr(report, "flush"):
        report.flush()
    return _Part(total.total(), homes(rows))


def _beginning_leaf(prepared: Prepared, *others: Any) -> _Part:
    return _leaf(prepared.begin(), *others)


def _preparing_leaf(work: Work, *others: Any) -> _Part:
    return _beginning_leaf(_prepare(work), *others)


def _leaf_name(work: Work, leaf: Run) -> str:
    return f"dgmm-{work.name}-leaf-{leaf.first}"


def _priority(short: frozenset[str], key: str) -> int:
    return -1 if key in short else 0


def _home(addresses: dict[str, str], key: str) -> str | None:
    return addresses.get(key)


def _merge(levels: tuple[int, ...], *parts: _Part) -> _Part:
    total = BinaryCounter[Any]()
    for level, part in zip(levels, parts, strict=True):
        total.add(part.total, level)
    return _Part(total.total(), [home for part in parts for home in part.homes])


def _keys(received: Any) -> tuple[Any, list[Delayed]]:
    """What a leaf receives, with keys in place of what is delayed; and that."""
    if not isinstance(received, list):
        return received, []
    promise, *blocks = received
    return [promise, *(block.key for block in blocks)], blocks


@dataclass
class Passes:
    """Runs passes over one data set.

    Attributes
    ----------
    source : Source
    weights : Source or None
        One feature, the same blocks.
    scheduler : Scheduler
    on_rows : callable
        Hears the rows done so far in the running pass, from 0 again if it is lost.
    subset : Subset or None
        Rows that count; None is all of them.
    keeping : Keeping or None
        Has blocks stay in memory for the next pass.
    """

    source: Source
    weights: Source | None
    scheduler: Scheduler
    on_rows: Callable[[int], None] = lambda _: None
    subset: Subset | None = None
    keeping: Keeping | None = None
    _block_seconds: float | None = field(default=None, init=False)
    _told: int = field(default=0, init=False)

    @property
    def delayed(self) -> bool:
        """Whether rows or weights are tasks of somebody's Dask graph."""
        return self.source.delayed or (self.weights is not None and self.weights.delayed)

    @property
    def identified(self) -> bool:
        """Whether fingerprints say what rows and weights are."""
        return self.source.identified and (self.weights is None or self.weights.identified)

    def run(self, work: Work) -> Any:
        """The sum of the work's results over all blocks.

        Raises
        ------
        DataChanged
            Data or weights are no longer what was opened.
        """
        started, self._told = time.perf_counter(), 0
        leaves = self._leaves()
        try:
            total, found = self._computed(work, leaves)
        except HangingTask:
            raise  # to look at the data may hang as well
        except ClusterError:
            self._check_unchanged()  # broken data may be what workers die of
            raise
        self._check_unchanged()
        if self.keeping is not None:
            self.keeping.found(found, leaves)
        if self._told < self.source.n_rows:  # workers have not told of the last ones
            self._tell(self.source.n_rows)
        seconds = time.perf_counter() - started
        self._block_seconds = seconds * min(self.scheduler.n_threads, len(leaves)) / self.source.n_blocks
        return total

    def _tell(self, done: int) -> None:
        self._told = done
        self.on_rows(done)

    def _computed(self, work: Work, leaves: list[Run]) -> _Part:
        if isinstance(self.scheduler, LocalScheduler) and not self.delayed:
            return self._here(work, leaves)
        try:
            part: _Part = self.scheduler.compute(
                lambda token, report: self._graph(work, leaves, report, token), self._tell
            )
        except (DeadlyTask, HangingTask) as error:
            for leaf in leaves:
                if error.task == _leaf_name(work, leaf):
                    start, stop = (int(self.source.bounds[edge]) for edge in leaf)
                    raise naming_rows(error, start, stop, self.source.name) from error
            raise
        return part

    def _here(self, work: Work, leaves: list[Run]) -> _Part:
        """Without a graph: threads take leaf after leaf, and their sums are added in order as they come."""
        prepared, of_thread, report = work.prepare(), threading.local(), RowCount(self._tell)

        def leaf(_: None, run: Run) -> _Part:
            if not hasattr(of_thread, "step"):
                of_thread.step = prepared.begin()
            return _leaf(of_thread.step, *self._inputs(run), self.subset, report)

        total, waiting, added = BinaryCounter[Any](), dict[int, Any](), 0
        for number, part in self.scheduler.map(leaf, None, leaves):
            waiting[number] = part.total
            while added in waiting:
                total.add(waiting.pop(added), leaves[added].level)
                added += 1
        return _Part(total.total(), [])

    def _check_unchanged(self) -> None:
        """What was computed from data that changed meanwhile is no result."""
        for source in (self.source, self.weights):
            if source is not None:
                source.check_unchanged()

    def _inputs(self, leaf: Run) -> tuple[Any, Any]:
        weights = None if self.weights is None else self._received(self.weights, leaf)
        return self._received(self.source, leaf), weights

    def _received(self, source: Source, leaf: Run) -> BlockInput:
        received = source.block_input(*leaf)
        return received if self.keeping is None else self.keeping.kept(source, received)

    def _leaves(self) -> list[Run]:
        """Aligned runs of blocks: long enough to be worth a task, enough of them to keep all threads busy."""
        n_blocks = self.source.n_blocks
        size = dask.config.get("dgmm.blocks-per-leaf", None)
        if size is not None:
            return equal_runs(n_blocks, int(size))
        seconds = self._block_seconds
        if seconds is None:
            row_bytes = self.source.n_features * self.source.dtype.itemsize
            seconds = self.source.n_rows / n_blocks * row_bytes / _FIRST_GUESS
        least = _READING_AHEAD_SECONDS if self.source.reads_ahead else 0.0
        worth = max(self.scheduler.task_seconds, least) / max(seconds, 1e-9)
        if self.keeping is not None:
            worth = self.keeping.worth(worth)
        together = max(source.run_length for source in (self.source, self.weights) if source is not None)
        return ending_together(n_blocks, self.scheduler.n_threads, worth, together)

    def _graph(self, work: Work, leaves: list[Run], report: Callable[[int], None], token: str) -> Delayed:
        # A plain graph: one of `delayed` functions takes ten times as long to build.
        name = f"dgmm-{work.name}"
        tasks: dict[str, tuple[Any, ...]] = {}
        if isinstance(self.scheduler, LocalScheduler):
            head: tuple[Any, Any] = (_beginning_leaf, work.prepare())  # all threads share it
        elif getattr(work, "light", False):
            head = (_preparing_leaf, work)
        else:
            prepared = f"{name}-parameters-{token}"
            tasks[prepared] = (_prepare, work)
            head = (_beginning_leaf, prepared)
        keys = {leaf: f"{_leaf_name(work, leaf)}-{token}" for leaf in leaves}
        delayed: list[Delayed] = []
        for leaf in leaves:
            (rows, of_rows), (weights, of_weights) = map(_keys, self._inputs(leaf))
            tasks[keys[leaf]] = (*head, rows, weights, self.subset, report)
            delayed += of_rows + of_weights
        for run, parts in merges(leaves):
            keys[run] = f"{name}-merge-{run.level}-{run.first}-{token}"
            tasks[keys[run]] = (_merge, tuple(part.level for part in parts), *(keys[part] for part in parts))
        root = keys[Run(0, self.source.n_blocks)]
        # Short leaves come last; but rows that are tasks themselves would be computed before, and be held.
        short = frozenset(keys[leaf] for leaf in leaves if leaf.level < leaves[0].level and not self.delayed)
        annotations: dict[str, Any] = {"priority": partial(_priority, short)}
        at_home = {} if self.keeping is None else self.keeping.at_home(leaves, self.scheduler.n_threads)
        if at_home:
            addresses = {keys[leaf]: address for leaf, address in at_home.items()}
            annotations |= {"workers": partial(_home, addresses), "allow_other_workers": True}
        with dask.annotate(**annotations):
            return Delayed(root, HighLevelGraph.from_collections(root, tasks, delayed))
