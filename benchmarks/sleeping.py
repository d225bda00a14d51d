"""Workers whose leaves sleep: many of them fit on two cores, with a real scheduler and real messages."""

from __future__ import annotations

import asyncio
import logging
import multiprocessing
import sys
import time
from collections.abc import Iterator
from contextlib import AsyncExitStack, contextmanager
from typing import Any

import dask
import numpy as np
import psutil
from distributed import Client, Scheduler, Worker

from dgmm.data.source import Block, Source
from dgmm.engine.likelihood import Candidate, LockstepWork, PreparedLockstep
from dgmm.engine.passes import BlockFunction, Rows
from dgmm.mixture.covariance import FULL
from dgmm.mixture.frame import Frame
from dgmm.mixture.parameters import Parameters
from dgmm.mixture.statistics import SufficientStatistics
from dgmm.mixture.together import Together

# What a worker does now and then, elsewhere on a machine of its own: here hundreds share two cores.
_QUIET = {
    "distributed.worker.profile.enabled": False,
    "distributed.worker.memory.monitor-interval": "1h",
    "distributed.admin.system-monitor.interval": "1h",
    "distributed.admin.tick.interval": "1h",
}
# Blocks take a fifth more or less: workers do not move in step.
_JITTER = 0.2


class NoRows(Source):
    """Blocks of one row of zeros.

    Parameters
    ----------
    n_blocks, n_features : int
    """

    name = "nothing"
    dtype = np.dtype(np.float64)
    local = reads_ahead = False
    read_bytes = 0

    def __init__(self, n_blocks: int, n_features: int) -> None:
        self.n_rows, self.n_features = n_blocks, n_features
        self.bounds = np.arange(n_blocks + 1)

    def fingerprint(self) -> str:
        return self.name

    def read(self, start: int, stop: int) -> Rows:
        return np.zeros((stop - start, self.n_features))

    def locate(self, row: int, feature: int) -> str:
        return f"row {row}, feature {feature}"


class SleepingWork(LockstepWork):
    """An E-step with full covariances: parameters and statistics are real, what takes the time is sleep.

    Parameters
    ----------
    n_components, n_features : int
    seconds : float
        That a block takes on average.
    """

    def __init__(self, n_components: int, n_features: int, seconds: float) -> None:
        rng = np.random.default_rng(0)
        means = rng.standard_normal((n_components, n_features))
        covariances = np.stack([np.eye(n_features)] * n_components)
        weights = np.full(n_components, 1 / n_components)
        start = Parameters(FULL, weights, means, covariances)
        super().__init__([Candidate(start, Frame.identity(n_features), float(n_features))], np.dtype(np.float64))
        self.seconds = seconds

    def total(self, n_blocks: int) -> float:
        """Seconds of all blocks."""
        return sum(_seconds(self.seconds, block) for block in range(n_blocks))

    def prepare(self) -> PreparedSleep:
        return PreparedSleep(super().prepare(), self.seconds)


def _seconds(usual: float, block: int) -> float:
    golden = block * 0.6180339887498949 % 1
    return usual * (1 + _JITTER * (2 * golden - 1))


class PreparedSleep:
    """What the leaves get: that of a real E-step, and how long to sleep."""

    def __init__(self, real: PreparedLockstep, seconds: float) -> None:
        self.real = real
        self.seconds = seconds

    def __sizeof__(self) -> int:
        return sys.getsizeof(self.real)

    def begin(self) -> BlockFunction:
        ((components, _),) = self.real.members
        counts, means = np.ones(len(components.theta)), components.parameters.means
        second = np.ones((len(means), FULL.n_quadratic(means.shape[1])))
        statistics = Together((SufficientStatistics(components.centres, counts, means, second, 0.0, 1.0),))
        wake = time.monotonic()

        def sleep(block: Block, weights: Rows | None) -> Together[SufficientStatistics]:
            # Until a time that was set: being late, as one of many threads, does not add up.
            nonlocal wake
            wake += _seconds(self.seconds, block.first)
            time.sleep(max(wake - time.monotonic(), 0))
            return statistics

        return sleep


@contextmanager
def sleepers(n_workers: int, processes: int) -> Iterator[tuple[Client, list[psutil.Process]]]:
    """Workers of one thread each, in so many processes; the scheduler has one of its own, which comes first.

    Yields
    ------
    Client, list of Process
    """
    spawn = multiprocessing.get_context("spawn")
    ours, theirs = spawn.Pipe()
    started = [spawn.Process(target=_run, args=(_schedule, theirs), daemon=True)]
    started[0].start()
    try:
        address = ours.recv()
        for number in range(processes):
            count = len(range(number, n_workers, processes))
            started.append(spawn.Process(target=_run, args=(_work, address, count), daemon=True))
            started[-1].start()
        with Client(address) as client:
            client.wait_for_workers(n_workers, timeout=120)
            yield client, [psutil.Process(process.pid) for process in started]
    finally:
        for process in reversed(started):
            process.terminate()
            process.join()


def _run(function: Any, *arguments: Any) -> None:
    logging.getLogger("distributed").setLevel(logging.CRITICAL)
    with dask.config.set(_QUIET):
        asyncio.run(function(*arguments))


async def _schedule(told: Any) -> None:
    async with Scheduler(host="127.0.0.1", port=0, dashboard_address="127.0.0.1:0") as scheduler:
        told.send(scheduler.address)
        await scheduler.finished()


async def _work(address: str, count: int) -> None:
    async with AsyncExitStack() as stack:
        for _ in range(count):
            worker = Worker(address, nthreads=1, memory_limit=0, dashboard=False, host="127.0.0.1")
            await stack.enter_async_context(worker)
        await asyncio.Event().wait()
