"""Which jobs are submitted again, and when: on a stand-in for a cluster, with a clock of its own."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace

import pytest

import dgmm.clusters.keeper
from dgmm.clusters.keeper import Keeper


class Jobs:
    """What the keeper looks at of a dask-jobqueue cluster of two jobs."""

    def __init__(self) -> None:
        self.worker_spec = {"j-0": {}, "j-1": {}}
        self.closed: list[str] = []
        self.workers = {name: self.job(name, "7") for name in self.worker_spec}
        self.scheduler = SimpleNamespace(workers={})
        self.scaled: list[int] = []

    def job(self, name: str, job_id: str | None) -> SimpleNamespace:
        async def close() -> None:
            self.closed.append(name)

        return SimpleNamespace(job_id=job_id, close=close)

    def joined(self, *names: str) -> None:
        self.scheduler.workers = {name: SimpleNamespace(name=name) for name in names}

    def scale(self, jobs: int) -> None:
        self.scaled.append(jobs)


@pytest.fixture
def clock(monkeypatch):
    now = [0.0]
    monkeypatch.setattr(dgmm.clusters.keeper.time, "monotonic", lambda: now[0])
    return now


def test_jobs_that_have_gone_or_were_refused(clock):
    jobs = Jobs()
    keeper = Keeper(jobs)

    def check(at: float) -> list[str]:
        clock[0] = at
        asyncio.run(keeper.check())
        closed, jobs.closed = jobs.closed, []
        return closed

    assert check(5) == [], "both wait in the queue"
    jobs.joined("j-0", "j-1-0", "j-1-1")
    assert check(10) == []
    jobs.joined("j-1-1")
    assert check(20) == [], "a nanny may start it again"
    assert check(39) == []
    assert check(41) == ["j-0"]
    assert jobs.scaled == [2]
    jobs.workers["j-0"] = jobs.job("j-0", None)
    assert check(50) == [], "refused: not at once again"
    assert check(70) == ["j-0"]
    assert jobs.scaled[-1] == 2
    jobs.workers["j-0"] = jobs.job("j-0", "8")
    assert check(1000) == [], "a job in the queue may wait as long as it likes"
    jobs.joined()
    assert check(1031) == ["j-1"]
