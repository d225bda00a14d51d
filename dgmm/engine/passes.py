"""One pass over the data: leaf tasks over aligned runs of blocks, merged in a fixed tree."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Protocol

import dask
import numpy as np
from dask.delayed import Delayed, delayed
from numpy.typing import NDArray

from dgmm.data.source import Block, Source, iter_blocks
from dgmm.engine.blas import limit_worker_blas
from dgmm.engine.guilty import naming_rows
from dgmm.engine.scheduling import LocalScheduler, RowCount, Scheduler
from dgmm.engine.subset import Subset
from dgmm.engine.summation import BinaryCounter
from dgmm.errors import ClusterError, DeadlyTask, HangingTask

Rows = NDArray[np.floating]
BlockFunction = Callable[[Block, Rows | None], Any]

# Children of a merge task; wider means fewer tasks, and more partial sums held at once.
_MERGE_LEVELS = 3
# Until a pass has been timed: bytes of rows that a thread gets through in a second.
_FIRST_GUESS = 2e8


class Prepared(Protocol):
    """What every leaf needs, made once by a task of the graph."""

    def begin(self) -> BlockFunction:
        """A function of a block and its rows' weights whose results add up; it may keep buffers between calls."""


class Work(Protocol):
    """What a pass does."""

    name: str

    def prepare(self) -> Prepared:
        """Run as a task: if its holder dies, the scheduler computes it again."""


def _prepare(work: Work) -> Prepared:
    limit_worker_blas()
    return work.prepare()


def _leaf(
    prepared: Prepared, rows: Any, weights: Any, subset: Subset | None, report: Callable[[int], None]
) -> Any:
    limit_worker_blas()
    step, total = prepared.begin(), BinaryCounter[Any]()
    weight_blocks = None if weights is None else iter_blocks(weights)
    for block in iter_blocks(rows):
        w = None if weight_blocks is None else block.of_kept(next(weight_blocks).rows[:, 0])
        if subset is not None:
            w = subset.weights(block.row_numbers(), w)
        total.add(step(block, w))
        report(block.length)
    if hasattr(report, "flush"):
        report.flush()
    return total.total()


def _leaf_name(work: Work, first: int) -> str:
    return f"dgmm-{work.name}-leaf-{first}"


def _merge(*values: Any) -> Any:
    total = BinaryCounter[Any]()
    for value in values:
        total.add(value)
    return total.total()


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
    """

    source: Source
    weights: Source | None
    scheduler: Scheduler
    on_rows: Callable[[int], None] = lambda _: None
    subset: Subset | None = None
    _block_seconds: float | None = field(default=None, init=False)

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
        started = time.perf_counter()
        leaves = self._leaves()
        try:
            total = self._computed(work, leaves)
        except HangingTask:
            raise  # to look at the data may hang as well
        except ClusterError:
            self._check_unchanged()  # broken data may be what workers die of
            raise
        self._check_unchanged()
        seconds = time.perf_counter() - started
        self._block_seconds = seconds * min(self.scheduler.n_threads, len(leaves)) / self.source.n_blocks
        return total

    def _computed(self, work: Work, leaves: list[tuple[int, int]]) -> Any:
        if len(leaves) == 1 and isinstance(self.scheduler, LocalScheduler) and not self.delayed:
            first, last = leaves[0]
            return _leaf(work.prepare(), *self._inputs(first, last), self.subset, RowCount(self.on_rows))
        try:
            return self.scheduler.compute(
                lambda token, report: self._graph(work, leaves, report, token), self.on_rows
            )
        except (DeadlyTask, HangingTask) as error:
            for first, last in leaves:
                if error.task == _leaf_name(work, first):
                    start, stop = int(self.source.bounds[first]), int(self.source.bounds[last])
                    raise naming_rows(error, start, stop, self.source.name) from error
            raise

    def _check_unchanged(self) -> None:
        """What was computed from data that changed meanwhile is no result."""
        for source in (self.source, self.weights):
            if source is not None:
                source.check_unchanged()

    def _inputs(self, first: int, last: int) -> tuple[Any, Any]:
        weights = None if self.weights is None else self.weights.block_input(first, last)
        return self.source.block_input(first, last), weights

    def _leaves(self) -> list[tuple[int, int]]:
        """Aligned runs of 2^j blocks: long enough to be worth a task, enough of them to keep all threads busy."""
        n_blocks = self.source.n_blocks
        size = dask.config.get("dgmm.blocks-per-leaf", None)
        if size is None:
            seconds = self._block_seconds
            if seconds is None:
                row_bytes = self.source.n_features * self.source.dtype.itemsize
                seconds = self.source.n_rows / n_blocks * row_bytes / _FIRST_GUESS
            worth = self.scheduler.task_seconds / max(seconds, 1e-9)
            size = max(1.0, min(worth, n_blocks / (4 * self.scheduler.n_threads)))
            together = max(source.run_length for source in (self.source, self.weights) if source is not None)
            size = max(size, min(together, n_blocks / self.scheduler.n_threads))
        run = 1 << int(np.log2(size))
        return [(first, min(first + run, n_blocks)) for first in range(0, n_blocks, run)]

    def _graph(
        self, work: Work, leaves: list[tuple[int, int]], report: Callable[[int], None], token: str
    ) -> Delayed:
        name = f"dgmm-{work.name}"
        prepared = delayed(_prepare, pure=False)(work, dask_key_name=f"{name}-parameters-{token}")
        level = [
            delayed(_leaf, pure=False)(
                prepared,
                *self._inputs(first, last),
                self.subset,
                report,
                dask_key_name=f"{_leaf_name(work, first)}-{token}",
            )
            for first, last in leaves
        ]
        depth, width = 0, 1 << _MERGE_LEVELS
        while len(level) > 1:
            level = [
                delayed(_merge, pure=False)(
                    *level[i : i + width], dask_key_name=f"{name}-merge-{depth}-{i}-{token}"
                )
                for i in range(0, len(level), width)
            ]
            depth += 1
        return level[0]
