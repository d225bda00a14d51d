"""A scheduler that dies or freezes ends a run within a known time with its state on disk, or is replaced."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import dask
import pytest
from dask.delayed import delayed
from distributed import Client
from overlapping import expected, fitted, small_blocks, store
from processes import Scheduler, scheduler, told

from dgmm.engine.client import DistributedScheduler
from dgmm.engine.events import Iterated
from dgmm.engine.run import Silence
from dgmm.engine.scheduling import client_when_needed
from dgmm.errors import SchedulerLost

ITERATIONS = 6
PATIENCE = 3.0


@pytest.fixture
def path(tmp_path) -> Iterator[str]:
    with small_blocks():
        yield store(tmp_path)


class Strike(Silence):
    """Does something to a scheduler in the third iteration: before it, or in its middle."""

    def __init__(self, strike: Callable[[], None], moment: float) -> None:
        self._strike = strike
        self._moment = moment
        self._iteration = 0
        self.at: float | None = None

    def on_event(self, event: object) -> None:
        if isinstance(event, Iterated):
            self._iteration = event.n_iter
            self.on_rows(0, 1)

    def on_rows(self, done: int, total: int) -> None:
        if self.at is None and self._iteration == 2 and done >= self._moment * total:
            self._strike()
            self.at = time.monotonic()


@contextmanager
def cluster(folder: Path) -> Iterator[tuple[Scheduler, Client]]:
    with scheduler(folder) as found, found.workers(1), Client(found.address) as client:
        client.wait_for_workers(1, timeout=120)
        yield found, client


FAULTS = {"killed": signal.SIGKILL, "frozen": signal.SIGSTOP}


@pytest.mark.parametrize("moment", [0.0, 0.25], ids=["between passes", "in a pass"])
@pytest.mark.parametrize("fault", FAULTS)
def test_a_lost_scheduler_is_an_error_with_the_state_on_disk(path, tmp_path, fault, moment):
    with dask.config.set({"dgmm.scheduler-timeout": f"{PATIENCE} s"}):
        with cluster(tmp_path) as (found, _):
            strike = Strike(lambda: found.process.send_signal(FAULTS[fault]), moment)
            with pytest.raises(
                SchedulerLost, match="is gone" if fault == "killed" else "has not answered for 3.00 s"
            ):
                fitted(path, ITERATIONS, strike, checkpoint=tmp_path / "ck")
            noticed = time.monotonic() - strike.at
            before = time.monotonic()
        print("closing", time.monotonic() - before)
    assert list((tmp_path / "ck").glob("iteration-*2*"))
    with dask.config.set(scheduler="synchronous"):
        assert fitted(path, ITERATIONS, checkpoint=tmp_path / "ck") == expected(path, ITERATIONS)
    told(f"scheduler {fault}", 1, 1, noticed, bits_equal=True)


@pytest.mark.parametrize("fault", ["killed", pytest.param("frozen", marks=pytest.mark.slow)])
def test_a_cluster_that_was_started_is_started_anew(path, tmp_path, caplog, fault):
    started: list[Scheduler] = []

    @contextmanager
    def start() -> Iterator[Client]:
        with cluster(tmp_path) as (found, client):
            started.append(found)
            yield client

    strike = Strike(lambda: started[-1].process.send_signal(FAULTS[fault]), 0.25)
    with dask.config.set({"dgmm.scheduler-timeout": f"{PATIENCE} s"}), client_when_needed(start, renewals=1):
        assert fitted(path, ITERATIONS, strike) == expected(path, ITERATIONS)
        recovered = time.monotonic() - strike.at
        assert len(started) == 2
        assert "Starting a new cluster and going on there (1 of at most 1)" in caplog.text
        with pytest.raises(SchedulerLost):
            fitted(path, ITERATIONS, Strike(lambda: started[-1].process.send_signal(FAULTS[fault]), 0.25))
    assert len(started) == 2
    told(f"scheduler {fault}, new cluster", 1, 1, recovered, bits_equal=True)


def test_whatever_is_asked_of_a_frozen_scheduler_ends(tmp_path):
    with cluster(tmp_path) as (found, client), dask.config.set({"dgmm.scheduler-timeout": "1 s"}):
        there = DistributedScheduler(client)
        assert there.n_threads == 1
        found.process.send_signal(signal.SIGSTOP)
        for ask in (
            lambda: there.n_threads,
            there.memory_per_thread,
            lambda: there.on_hosts(int),
            lambda: list(there.map(min, 1, [2, 3])),
            lambda: there.compute(lambda token, report: delayed(int)(3), lambda rows: None),
            lambda: DistributedScheduler(client),
        ):
            with pytest.raises(SchedulerLost, match=r"has not answered for 1\.00 s"):
                ask()
