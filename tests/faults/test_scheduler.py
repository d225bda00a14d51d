"""A scheduler that dies or freezes ends a run within a known time with its state on disk, or is replaced."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import dask
import pytest
from commands import running
from dask.delayed import delayed
from distributed import Client, LocalCluster
from facts import tell
from overlapping import expected, fitted, small_blocks, store
from processes import Scheduler, scheduler

from dgmm.engine.client import DistributedScheduler
from dgmm.engine.events import Iterated
from dgmm.engine.run import Silence
from dgmm.engine.scheduling import client_when_needed
from dgmm.errors import SchedulerLost

ITERATIONS = 5
FAULTS = {"killed": signal.SIGKILL, "frozen": signal.SIGSTOP}


@pytest.fixture(autouse=True)
def patience() -> Iterator[None]:
    """With schedulers that are well, however busy this machine is."""
    with dask.config.set({"dgmm.scheduler-timeout": "120 s"}):
        yield


@pytest.fixture
def path(tmp_path) -> Iterator[str]:
    with small_blocks():
        yield store(tmp_path)


@contextmanager
def cluster(folder: Path) -> Iterator[tuple[Scheduler, Client]]:
    with scheduler(folder) as found, found.workers(1, "--no-nanny"), Client(found.address) as client:
        client.wait_for_workers(1, timeout=120)
        yield found, client


class Strike(Silence):
    """Does something to a scheduler in the third iteration, and from then on waits 3 s for its answers."""

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
            dask.config.set({"dgmm.scheduler-timeout": "3 s"})
            self._strike()
            self.at = time.monotonic()


@pytest.mark.slow
@pytest.mark.parametrize("moment", [0.0, 0.25], ids=["between passes", "in a pass"])
@pytest.mark.parametrize("fault", FAULTS)
def test_a_lost_scheduler_is_an_error_with_the_state_on_disk(path, tmp_path, fault, moment):
    with cluster(tmp_path) as (found, _):
        strike = Strike(lambda: found.process.send_signal(FAULTS[fault]), moment)
        said = "is gone" if fault == "killed" else r"has not answered for 3\.00 s"
        with pytest.raises(SchedulerLost, match=said):
            fitted(path, ITERATIONS, strike, checkpoint=tmp_path / "ck")
        noticed = time.monotonic() - strike.at
    assert list((tmp_path / "ck").glob("iteration-*2*"))
    with dask.config.set(scheduler="synchronous"):
        assert fitted(path, ITERATIONS, checkpoint=tmp_path / "ck") == expected(path, ITERATIONS)
    tell(f"scheduler {fault}: error, resumed", 1, 1, noticed, "parameters, history")


@pytest.mark.slow
@pytest.mark.parametrize("fault", ["killed", "frozen"])
def test_a_cluster_that_was_started_is_started_anew(path, tmp_path, caplog, fault):
    started: list[Scheduler] = []

    @contextmanager
    def start() -> Iterator[Client]:
        dask.config.set({"dgmm.scheduler-timeout": "120 s"})
        with cluster(tmp_path) as (found, client):
            started.append(found)
            yield client

    def strike(moment: float) -> Strike:
        return Strike(lambda: started[-1].process.send_signal(FAULTS[fault]), moment)

    with client_when_needed(start, renewals=1):
        struck = strike(0.25)
        assert fitted(path, ITERATIONS, struck) == expected(path, ITERATIONS)
        recovered = time.monotonic() - struck.at
        assert "Starting a new cluster and going on there (1 of at most 1)" in caplog.text
        with pytest.raises(SchedulerLost):
            fitted(path, 3, strike(0.0))
    assert len(started) == 2
    tell(f"scheduler {fault}: new cluster", 1, 1, recovered, "parameters, history")


def test_whatever_is_asked_of_a_frozen_scheduler_ends(tmp_path):
    with cluster(tmp_path) as (found, client):
        there = DistributedScheduler(client)
        assert there.n_threads == 1
        found.process.send_signal(signal.SIGSTOP)
        dask.config.set({"dgmm.scheduler-timeout": "300 ms"})
        for ask in (
            lambda: there.n_threads,
            there.memory_per_thread,
            lambda: there.on_hosts(int),
            lambda: list(there.map(min, 1, [2, 3])),
            lambda: there.compute(lambda token, report: delayed(int)(3), lambda rows: None),
            lambda: DistributedScheduler(client),
        ):
            with pytest.raises(SchedulerLost, match=r"has not answered for 300\.00 ms"):
                ask()


@pytest.mark.slow
@pytest.mark.parametrize("fault", FAULTS)
def test_the_command_says_what_became_of_the_scheduler(path, tmp_path, fault):
    with scheduler(tmp_path) as found, found.workers(1, "--no-nanny"):
        command = ("fit", path, "-k", 3, "--seed", 1, "--tol", 0, "--max-iter", 10_000)
        command += ("--sample-size", 1000, "--model", "m", "--checkpoint", "ck", "--scheduler", found.address)
        with running(*command, cwd=tmp_path, DASK_DGMM__SCHEDULER_TIMEOUT="10 s") as fit:
            fit.wait_for("iteration 3:")
            found.process.send_signal(FAULTS[fault])
            finished = fit.finish()
    assert finished.code == 1
    assert "Traceback" not in finished.err
    assert "Error: the scheduler at tcp://127.0.0.1:" in finished.err
    assert finished.err.splitlines()[-1].endswith("then run the same fit again.")
    assert list((tmp_path / "ck").glob("iteration-*3*"))


@pytest.mark.slow
def test_a_cluster_that_is_closed_is_an_error_that_says_so(path):
    with (
        LocalCluster(1, threads_per_worker=1, host="127.0.0.1", dashboard_address="127.0.0.1:0") as local,
        Client(local),
        pytest.raises(SchedulerLost, match=r"is gone.*run the same fit again"),
    ):
        fitted(path, ITERATIONS, Strike(local.close, 0.0))
