"""Dask's share of a pass with many workers, and where it goes: driver, scheduler, bytes.

    python benchmarks/workers.py [--workers 8 64 200] [--leaves 4 8] [--shapes 16x10 64x32] [--seconds 1]

A real scheduler in a process of its own, and real workers of one thread that talk to it and to each other by TCP.
The pass is dgmm's own, with parameters and statistics of K components with full covariances in D features; only
that a leaf sleeps, so that few cores stand for hundreds. `--leaves` is the number for each worker, of `--seconds`
each, in blocks of half of that. Two ways to cut the pass into leaves are measured one after the other: equal
ones (the Dask setting `dgmm.blocks-per-leaf`), and dgmm's own choice, where they get shorter as the pass ends.

Ideal are the seconds of sleep that a worker gets; `longer` is what the pass takes beyond it, of the whole. Of
that Dask's share is the time of a worker before its first leaf and between leaves; `end` is the time after its
last one, when there is nothing left for it: the leaves' lengths. CPU seconds of the driver, of the scheduler and
of all workers are in the table too: where workers share few cores, theirs are what takes longer. A model of them
is fitted in the end, and says what to expect of passes over up to 1e12 rows; `--rows-per-second` is what a core
gets through (README, Measured).
"""

from __future__ import annotations

import argparse
import itertools
import os
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from typing import Any

import dask
import numpy as np
import psutil
from distributed import Client, get_task_stream
from scipy.optimize import nnls
from sleeping import NoRows, SleepingWork, sleepers

from dgmm.engine.client import DistributedScheduler, task_seconds
from dgmm.engine.leaves import ending_together, merges
from dgmm.engine.passes import Passes

BLOCKS_PER_LEAF = 2
TERMS = ("a pass", "a task", "a worker", "a MB of data")
# What is foreseen: rows of 20 float32 in blocks of 4 MiB.
FORESEEN = [(1e9, 2), (1e9, 20), (1e9, 200), (1e11, 200), (1e11, 1000), (1e12, 200), (1e12, 1000), (1e12, 4000)]
ROWS_OF_BLOCK = 2**22 // 80
HEADER = (
    f"{'workers':>7} {'leaves':>7} {'K':>4} {'D':>4} {'tasks':>6} {'messages':>9} {'data MB':>8} {'pass s':>7} "
    f"{'ideal':>6} {'longer':>6} {'Dask':>6} {'end':>6} {'build':>6} {'send':>6} {'driver':>7} {'scheduler':>9} "
    f"{'workers':>8} {'MB':>5}"
)


@dataclass(frozen=True)
class Figures:
    """Of one pass. `seconds`, `build` and `send` (by the driver, of the graph) are of the clock, and so are
    `dask` and `end`, means of all workers: before and between leaves, and after the last one.

    `driver`, `scheduler` and `workers` are seconds of CPUs. `messages` are MB that scheduler, driver and workers
    sent each other by their streams, `data` those of parameters and statistics from worker to worker, `memory`
    those of the scheduler's process, of which it gives little back after a pass.
    """

    seconds: float
    dask: float
    end: float
    build: float
    send: float
    driver: float
    scheduler: float
    workers: float
    messages: float
    data: float
    tasks: float
    memory: float


class Timed(DistributedScheduler):
    """Notes the seconds in which the driver builds and sends graphs, and how many tasks they had."""

    build_seconds = send_seconds = 0.0
    tasks = 0
    task_seconds = 1.0

    def compute(self, build: Any, on_rows: Any) -> Any:
        def timed(*arguments: Any) -> Any:
            began = time.perf_counter()
            built = build(*arguments)
            self.build_seconds += time.perf_counter() - began
            self.tasks += len(built.dask)
            return built

        return super().compute(timed, on_rows)

    def _submit(self, root: Any) -> Any:
        began = time.perf_counter()
        future = super()._submit(root)
        self.send_seconds += time.perf_counter() - began
        return future


def _sent_by_scheduler(dask_scheduler: Any) -> int:
    return sum(
        s.byte_count for s in (*dask_scheduler.stream_comms.values(), *dask_scheduler.client_comms.values())
    )


def _sent_by_worker(dask_worker: Any) -> tuple[int, int]:
    return dask_worker.batched_stream.byte_count, dask_worker.transfer_outgoing_bytes_total


def _cpu_seconds(process: psutil.Process) -> float:
    times = process.cpu_times()
    return times.user + times.system


def one_pass(
    run: Callable[[], Any], scheduler: Timed, client: Client, processes: Sequence[psutil.Process]
) -> Figures:
    """Run a pass; what it took."""

    def sent() -> tuple[float, float]:
        messages, data = np.sum(list(client.run(_sent_by_worker).values()), axis=0) / 1e6
        by_scheduler = client.run_on_scheduler(_sent_by_scheduler)
        return messages + (by_scheduler + client.scheduler_comm.byte_count) / 1e6, data

    def clocks() -> list[float]:
        driver, of_scheduler, *of_workers = map(_cpu_seconds, [psutil.Process(), *processes])
        own = [scheduler.build_seconds, scheduler.send_seconds]
        return [time.perf_counter(), *own, driver, of_scheduler, sum(of_workers)]

    tasks, sent_before, before = scheduler.tasks, sent(), clocks()
    with get_task_stream(client) as stream:
        began = time.time()
        run()
        ended = time.time()
    after, memory = clocks(), processes[0].memory_info().rss / 1e6
    spent = np.subtract([*after, *sent(), scheduler.tasks], [*before, *sent_before, tasks]).tolist()
    return Figures(spent[0], *idle(stream.data, began, ended), *spent[1:], memory)


def idle(stream: Sequence[dict[str, Any]], began: float, ended: float) -> tuple[float, float]:
    """Seconds that a worker had no leaf in a pass, before its last one and after it: means of all workers."""
    leaves: dict[str, list[tuple[float, float]]] = {}
    for task in stream:
        if not any(other in str(task["key"]) for other in ("-merge-", "-parameters-")):
            computed = [part for part in task["startstops"] if part["action"] == "compute"]
            leaves.setdefault(task["worker"], []).extend((part["start"], part["stop"]) for part in computed)
    before, after = [], []
    for of_worker in leaves.values():
        last = max(stop for _, stop in of_worker)
        before.append(last - began - sum(stop - start for start, stop in of_worker))
        after.append(ended - last)
    return statistics.mean(before), statistics.mean(after)


@dataclass(frozen=True)
class Case:
    """What a pass took: medians."""

    workers: int
    leaves: str
    shape: tuple[int, int]
    ideal: float
    figures: Figures

    @property
    def terms(self) -> list[float]:
        """What its seconds are thought to depend on."""
        return [1, self.figures.tasks, self.workers, self.figures.data]

    def __str__(self) -> str:
        f, (k, d) = self.figures, self.shape
        return (
            f"{self.workers:7} {self.leaves:>7} {k:4} {d:4} {f.tasks:6.0f} {f.messages:9.2f} {f.data:8.1f} "
            f"{f.seconds:7.2f} {self.ideal:6.1f} {1 - self.ideal / f.seconds:6.1%} "
            f"{f.dask / f.seconds:6.1%} {f.end / f.seconds:6.1%} {f.build:6.3f} {f.send:6.3f} "
            f"{f.driver:7.2f} {f.scheduler:9.2f} {f.workers:8.2f} {f.memory:5.0f}"
        )


def measure(
    client: Client, processes: Sequence[psutil.Process], each: int, shape: tuple[int, int], options: Any
) -> list[Case]:
    """Passes with equal leaves, and with dgmm's own."""
    workers = len(client.scheduler_info(n_workers=-1)["workers"])
    scheduler, work = Timed(client), SleepingWork(*shape, options.seconds / BLOCKS_PER_LEAF)
    scheduler.task_seconds = options.seconds
    n_blocks = workers * each * BLOCKS_PER_LEAF
    passes, ideal = Passes(NoRows(n_blocks, shape[1]), None, scheduler), work.total(n_blocks) / workers
    warm = Passes(NoRows(workers, shape[1]), None, scheduler)
    for _ in range(2):  # connections are made
        warm.run(SleepingWork(*shape, 0.1))
    cases = []
    for leaves, size in (("equal", BLOCKS_PER_LEAF), ("own", None)):
        with dask.config.set({"dgmm.blocks-per-leaf": size}):
            passes.run(work)  # connections are made, and it learns how long a block takes
            passes._block_seconds = options.seconds / BLOCKS_PER_LEAF
            found = [
                one_pass(lambda: passes.run(work), scheduler, client, processes) for _ in range(options.passes)
            ]
        medians = Figures(*(statistics.median(getattr(one, f.name) for one in found) for f in fields(Figures)))
        cases.append(Case(workers, leaves, shape, ideal, medians))
        print(cases[-1], flush=True)
    return cases


def fitted(cases: Sequence[Case]) -> dict[str, np.ndarray]:
    """CPU seconds, and MB of the scheduler, as sums of terms none of which is negative: least squares, printed."""
    terms = np.array([case.terms for case in cases])
    scale = terms.max(axis=0) + (terms.max(axis=0) == 0)
    print(f"\n{'fitted: ms of CPU, kB':22}" + "".join(f"{term:>14}" for term in TERMS) + "  largest error")
    models = {}
    for what in ("driver", "scheduler", "workers", "memory"):
        values = np.array([getattr(case.figures, what) for case in cases])
        models[what] = nnls(terms / scale, values)[0] / scale
        error = np.abs(terms @ models[what] - values).max() * 1e3
        print(f"{what:22}" + "".join(f"{1e3 * value:14.3f}" for value in models[what]) + f"{error:15.0f}")
    return models


def foresee(models: dict[str, np.ndarray], rows_per_second: float) -> None:
    """What passes over many rows would take, of light parameters, if each worker has a core to itself."""
    print(
        f"\n{'rows':>6} {'workers':>7} {'pass s':>8} {'leaf s':>7} {'tasks':>7} {'scheduler: CPU s':>16} "
        f"{'busy':>6} {'MB':>5} {'worker busy':>11} {'waits':>6}"
    )
    for rows, workers in FORESEEN:
        n_blocks = int(rows / ROWS_OF_BLOCK)
        block = ROWS_OF_BLOCK / rows_per_second
        leaves = ending_together(n_blocks, workers, task_seconds(workers) / block, 1)
        tasks = len(leaves) + len(merges(leaves))
        terms = np.array([1, tasks, workers, 0])
        seconds = n_blocks / workers * block
        scheduler, memory = terms @ models["scheduler"], terms @ models["memory"]
        # Of a worker: what its tasks take; and it waits for the last one half as long as that takes, on average.
        busy = models["workers"][1] * tasks / workers / seconds
        waits = (leaves[-2].last - leaves[-2].first) * block / 2 / seconds
        print(
            f"{rows:6.0e} {workers:7} {seconds:8.0f} {leaves[0].last * block:7.1f} {tasks:7} {scheduler:16.1f} "
            f"{scheduler / seconds:6.1%} {memory:5.0f} {busy:11.1%} {waits:6.1%}"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workers", nargs="*", type=int, default=[8, 64, 200])
    parser.add_argument("--leaves", nargs="*", type=int, default=[4, 8], help="of each worker")
    parser.add_argument("--shapes", nargs="*", default=["16x10", "64x32"], help="KxD")
    parser.add_argument("--seconds", type=float, default=1.0, help="that a leaf sleeps")
    parser.add_argument("--passes", type=int, default=1)
    parser.add_argument("--processes", type=int, default=2, help="that the workers share")
    parser.add_argument("--rows-per-second", type=float, default=2.4e6, help="of a core, 20 features, K=16")
    options = parser.parse_args()
    print(HEADER)
    cases: list[Case] = []
    for workers in options.workers:
        with sleepers(workers, options.processes) as (client, processes):
            for each, shape in itertools.product(options.leaves, options.shapes):
                k, d = map(int, shape.split("x"))
                cases += measure(client, processes, each, (k, d), options)
    foresee(fitted(cases), options.rows_per_second)
    print("load: " + ", ".join(f"{load:.1f}" for load in os.getloadavg()) + f" on {os.cpu_count()} cores")


if __name__ == "__main__":
    main()
