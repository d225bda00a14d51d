"""Workers die at every moment and in every way, stop, or leave: the fit goes on, to the same bits."""

from __future__ import annotations

import itertools
import os
import random
import signal
import threading
import time
from collections.abc import Iterator

import dask
import psutil
import pytest
import ways
from distributed import Client
from facts import new_seed, tell
from overlapping import expected, fitted, small_blocks, store
from processes import pids, scheduler, wait_for

import dgmm.engine.likelihood
from dgmm.engine.client import DistributedScheduler
from dgmm.engine.events import Iterated
from dgmm.engine.run import Silence

# Of the rows of a pass: none is read yet, some are, all are and the sums are merged.
MOMENTS = {"before the leaves": 0.0, "amid the leaves": 0.25, "at the merge": 1.0}
WAYS = ("SIGKILL", "segfault", "out of memory", "SIGKILL of the parameters' holder")


@pytest.fixture
def path(tmp_path) -> Iterator[str]:
    with small_blocks():
        yield store(tmp_path)


class Killer(Silence):
    """Kills one worker an iteration; moments and ways take turns."""

    def __init__(self, client: Client, kills: int, seed: int) -> None:
        self._client = client
        turns = list(itertools.product(MOMENTS, WAYS))
        random.Random(seed).shuffle(turns)
        self._turns = itertools.islice(itertools.cycle(turns), kills)
        self._random = random.Random(seed)
        self._struck = threading.Event()
        self._struck.set()
        self._at: float | None = None
        self._ready = threading.Lock()
        self._began: float | None = None
        self.killed: list[str] = []
        self.recoveries: list[float] = []

    def on_event(self, event: object) -> None:
        if not isinstance(event, Iterated):
            return
        self._strike_at(2.0)  # none that came late is left out
        assert self._struck.wait(120)
        if self._began is not None:
            self.recoveries.append(time.monotonic() - self._began)
            self._began = None
        turn = next(self._turns, None)
        if turn is not None:
            self._moment, self._way = turn
            self._pids: dict[str, int] = {}
            wait_for(lambda: self._pids.update(pids(self._client)) or self._pids, "no worker to kill")
            self._struck.clear()
            self._at = MOMENTS[self._moment]
            self._strike_at(0.0)

    def on_rows(self, done: int, total: int) -> None:
        self._strike_at(done / total)

    def _strike_at(self, moment: float) -> None:
        with self._ready:
            if self._at is None or moment < self._at:
                return
            self._at = None
        # This is the thread of the client's loop, which must not ask the scheduler.
        threading.Thread(target=self._strike).start()

    def _strike(self) -> None:
        address = self._random.choice(sorted(self._pids))
        if self._way.endswith("holder"):
            holders = [
                holder
                for key, who in self._client.who_has().items()
                if "-parameters-" in str(key)
                for holder in who
                if holder in self._pids
            ]
            address = holders[0] if holders else address
        process = psutil.Process(self._pids[address])
        self._began = time.monotonic()
        if self._way == "segfault":
            self._client.run(ways.segfault, workers=[address], on_error="ignore")
        elif self._way == "out of memory":
            self._client.run(ways.take_too_much, workers=[address], on_error="ignore")
        else:
            process.kill()
        process.wait(120)
        self.killed.append(f"{self._way}, {self._moment}")
        self._struck.set()


@pytest.mark.parametrize(
    "kills", [3, pytest.param(15, marks=pytest.mark.slow), pytest.param(100, marks=pytest.mark.long)]
)
def test_workers_that_die_change_no_bit(path, tmp_path, monkeypatch, kills):
    monkeypatch.setattr(dgmm.engine.likelihood, "LIGHT_BYTES", 0)  # one worker holds the parameters
    seed = new_seed()
    bits = expected(path, kills + 1)
    with (
        scheduler(tmp_path) as found,
        found.workers(2, "--memory-limit", str(ways.MEMORY_LIMIT)),
        Client(found.address) as client,
    ):
        client.wait_for_workers(2, timeout=120)
        killer = Killer(client, kills, seed)
        assert fitted(path, kills + 1, killer) == bits
    assert len(killer.killed) == kills
    tell("worker killed", kills, len(killer.recoveries), max(killer.recoveries), "parameters, history")


class Stop(Silence):
    """Stops a worker in the middle of the third iteration, which from then on is to be noticed."""

    def __init__(self, client: Client, limit: str) -> None:
        self._client = client
        self._limit = limit
        self._pids: dict[str, int] = {}
        self.at: float | None = None
        self.recovered: float | None = None

    def on_event(self, event: object) -> None:
        if isinstance(event, Iterated) and event.n_iter == 2:
            self._pids = pids(self._client)
        if isinstance(event, Iterated) and event.n_iter == 3:
            self.recovered = time.monotonic() - self.at

    def on_rows(self, done: int, total: int) -> None:
        if self._pids and self.at is None and done > total / 4:
            dask.config.set({"dgmm.heartbeat-timeout": self._limit})
            os.kill(min(self._pids.values()), signal.SIGSTOP)
            self.at = time.monotonic()


@pytest.mark.slow
@pytest.mark.parametrize(("limit", "nanny"), [("2 s", "--no-nanny"), ("2 s", "--nanny"), ("30 s", "--nanny")])
def test_a_worker_that_is_stopped_is_replaced(path, tmp_path, caplog, limit, nanny):
    with (
        dask.config.set({"dgmm.heartbeat-timeout": "120 s"}),
        scheduler(tmp_path) as found,
        found.workers(1, nanny),
        found.workers(1, nanny),
        Client(found.address) as client,
    ):
        client.wait_for_workers(2, timeout=120)
        stop = Stop(client, limit)
        assert fitted(path, 4, stop) == expected(path, 4)
    assert "restarting worker tcp://127.0.0.1" in caplog.text
    tell(f"worker stopped, heartbeat-timeout {limit}, {nanny}", 1, 1, stop.recovered, "parameters, history")


@pytest.mark.slow
def test_what_is_asked_of_a_stopped_worker_ends(tmp_path):
    with (
        dask.config.set({"dgmm.heartbeat-timeout": "120 s"}),
        scheduler(tmp_path) as found,
        found.workers(1, "--no-nanny"),
        Client(found.address) as client,
    ):
        client.wait_for_workers(1, timeout=120)
        there = DistributedScheduler(client)
        ((address, pid),) = pids(client).items()
        assert there.on_hosts(os.getpid) == {address: pid}
        os.kill(pid, signal.SIGSTOP)
        dask.config.set({"dgmm.heartbeat-timeout": "1 s"})
        with found.workers(1, "--no-nanny"):
            assert isinstance(there.on_hosts(os.getpid)[address], OSError)
