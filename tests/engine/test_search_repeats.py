"""Nothing but the problem decides what the search finds: not who runs its tasks, not how often it stops."""

from __future__ import annotations

import dask
import numpy as np
import pytest
from distributed import Client, LocalCluster
from searching import Serial, bits, groups, moving, replaced, sampled, searched

import dgmm.engine.search
from dgmm.engine.blas import one_blas_thread
from dgmm.engine.client import DistributedScheduler
from dgmm.engine.sampled import Run
from dgmm.engine.settings import Start
from dgmm.engine.threads import LocalScheduler


@pytest.fixture(autouse=True, scope="module")
def one_thread():
    with one_blas_thread():
        yield


# --- schedulers ----------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def alone():
    """What the search finds with one thread: the best runs' bits, and those of every run."""
    search, events = searched(moving())
    moves = [name for name, _ in events if name.startswith("move")]
    assert len(moves) >= 4, "the data are such that moves gain"
    return outcome(search)


def outcome(search):
    return [bits(run) for run in search.best], {name: bits(run) for name, run in search.runs.items()}


@pytest.mark.parametrize(
    ("name", "workers"), [("synchronous", None), ("threads", 1), ("threads", 2), ("threads", 3)]
)
def test_local_schedulers_give_the_same_bits(alone, name, workers):
    with dask.config.set(scheduler=name, num_workers=workers):
        assert outcome(searched(moving(), tasks=LocalScheduler())[0]) == alone


@pytest.mark.slow
@pytest.mark.parametrize("workers", [1, 2])
def test_clusters_give_the_same_bits(alone, workers):
    with (
        LocalCluster(workers, threads_per_worker=1, dashboard_address=":0") as cluster,
        Client(cluster) as client,
    ):
        assert outcome(searched(moving(), tasks=DistributedScheduler(client))[0]) == alone


# --- going on ------------------------------------------------------------------------------------------------


def test_after_any_event_the_rest_is_done_and_nothing_twice():
    problem, whole = replaced(moving(), n_finalists=1), Serial()
    unbroken, events = searched(problem, tasks=whole)
    assert [name for name, _ in events] == [
        "start-0000-0",
        "start-0001-0",
        "move-0001-0000",
        "move-0001-0001",
        "last-0001",
    ]
    before = len(whole.asked)
    for done in range(1, len(events) + 1):
        tasks = Serial()
        search, rest = searched(problem, events[:done], tasks)
        assert [name for name, _ in rest] == [name for name, _ in events[done:]]
        assert outcome(search) == outcome(unbroken)
        assert len(tasks.asked) < before
        before = len(tasks.asked)
    assert before == 0


def test_halving_goes_on_in_the_middle_of_a_stretch(monkeypatch):
    monkeypatch.setattr(dgmm.engine.search, "_SMALL", 0)
    problem = sampled(groups(seed=5, spread=1.0), n_components=4, n_init=4, max_iter=100, tol=0)
    whole, events = searched(problem)
    assert len(events) > 6
    for done in range(len(events)):
        search, rest = searched(problem, events[:done])
        assert len(rest) == len(events) - done
        assert outcome(search) == outcome(whole)


@pytest.mark.parametrize("small", [0, 1 << 15])
def test_a_higher_max_iter_goes_on(monkeypatch, small):
    monkeypatch.setattr(dgmm.engine.search, "_SMALL", small)
    rows = groups(seed=5, spread=0.5)  # one blur: slow
    short, longer = (
        sampled(rows, n_components=4, n_init=3, max_iter=n, tol=0, start=Start(weights=np.full(4, 0.25)))
        for n in (15, 60)
    )
    first, _ = searched(short)
    tasks = Serial()
    gone_on, _ = searched(longer, first.runs, tasks)
    assert [bits(run) for run in gone_on.best] == [bits(run) for run in searched(longer)[0].best]
    assert all(isinstance(request.run, Run) for _, request in tasks.asked)
    assert gone_on.best[0].state.n_iter == 60


def test_a_lower_tol_goes_on():
    rows = groups(200, seed=6, spread=1.0)
    start = Start(weights=np.array([0.5, 0.5]))
    coarse, fine = (sampled(rows, start, n_components=2, tol=tol) for tol in (1e-2, 1e-7))
    first, _ = searched(coarse)
    tasks = Serial()
    second, _ = searched(fine, first.runs, tasks)
    climbs = [request for name, request in tasks.asked if name == "climb"]
    assert climbs
    assert all(isinstance(request.run, Run) for request in climbs)
    assert second.best[0].state.log_likelihood > first.best[0].state.log_likelihood
    assert searched(fine, second.runs)[1] == []
