"""The search on the sample: which runs are made, which are kept, and where moves lead."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from cases import mixture
from searching import Serial, bits, groups, moving, replaced, sampled, searched

import dgmm.engine.search
from dgmm import GaussianMixture
from dgmm.engine.blas import one_blas_thread
from dgmm.engine.sampled import Run, Sampled
from dgmm.engine.settings import Start
from dgmm.engine.threads import LocalScheduler
from dgmm.errors import IllDefinedCovariance
from dgmm.mixture.components import Components
from dgmm.mixture.covariance import FULL
from dgmm.mixture.em import EMState
from dgmm.mixture.expectation import EStep
from dgmm.mixture.frame import Frame
from dgmm.mixture.parameters import Parameters


@pytest.fixture(autouse=True, scope="module")
def one_thread():
    with one_blas_thread():
        yield


def test_a_run_alone_has_all_threads_and_the_same_bits():
    rows = np.random.default_rng(0).normal(size=(9_000, 70)).astype("f4")
    problem = sampled(rows, n_components=3, init_params="random", max_iter=4, tol=0.0)
    threads = []

    class Local(LocalScheduler):
        def map(self, task, shared, arguments):
            threads.extend(getattr(argument, "threads", None) for argument in arguments)
            return super().map(task, shared, arguments)

    found = [
        [(name, bits(run)) for name, run in searched(problem, tasks=Local(number))[1]] for number in (1, 2, 3)
    ]
    assert found[0] == found[1] == found[2]
    assert {1, 2, 3} <= set(threads)
    assert LocalScheduler(5).threads_each(2) == 2
    assert LocalScheduler(2).threads_each(3) == 1


# --- successive halving --------------------------------------------------------------------------------------


class Script:
    """Climbs by the book: where the run of a start gets in each stretch; its number is its mean."""

    def __init__(self, monkeypatch, values, collapsed=(), failed=()):
        self.values, self.collapsed, self.failed = values, collapsed, failed
        self.asked = []
        monkeypatch.setattr(dgmm.engine.search, "climb", self.climb)
        monkeypatch.setattr(dgmm.engine.search, "_SMALL", 0)

    def climb(self, sampled, request):
        fresh = isinstance(request.run, int)
        index = request.run if fresh else int(request.run.state.parameters.means[0, 0])
        self.asked.append((index, request.iterations))
        parameters = Parameters(FULL, np.ones(1), np.full((1, 2), float(index)), np.eye(2)[None])
        # Steady gains are no convergence.
        history = self.values[index] - 1e-3 * np.arange(request.iterations)[::-1]
        collapsed = (0,) if index in self.collapsed else ()
        failed = f"run {index} failed" if index in self.failed else ""
        return Run(EMState(parameters, tuple(history)), (), failed, collapsed)

    @property
    def stretches(self):
        """Which starts ran to each number of iterations."""
        found = {}
        for index, iterations in self.asked:
            found.setdefault(iterations, []).append(index)
        return found


def number(run):
    return int(run.state.parameters.means[0, 0])


def test_the_better_half_goes_on_twice_as_long(monkeypatch):
    script = Script(monkeypatch, [0.3, 0.8, 0.1, 0.7, 0.6, 0.2, 0.5, 0.4])
    search, events = searched(sampled(groups(), n_init=8, max_iter=100))
    assert script.stretches == {20: list(range(8)), 40: [1, 3, 4, 6], 80: [1, 3], 100: [1]}
    assert [name for name, _ in events] == [
        *(f"start-{i:04d}-0" for i in range(8)), *(f"start-{i:04d}-1" for i in (1, 3, 4, 6)),
        *(f"start-{i:04d}-2" for i in (1, 3)), "start-0001-3",
    ]  # fmt: skip
    assert [number(run) for run in search.best] == [1]


@pytest.mark.parametrize(("n_init", "sizes"), [(1, [1]), (2, [2, 1]), (5, [5, 3, 2, 1]), (9, [9, 5, 3, 2, 1])])
def test_of_an_odd_number_the_middle_one_stays(monkeypatch, n_init, sizes):
    script = Script(monkeypatch, np.linspace(0, 1, n_init))
    searched(sampled(groups(), n_init=n_init, max_iter=10_000))
    assert [len(runs) for runs in script.stretches.values()][: len(sizes)] == sizes


def test_as_many_finalists_as_wanted_run_to_their_end_best_first(monkeypatch):
    script = Script(monkeypatch, [0.3, 0.8, 0.1, 0.7, 0.6, 0.9, 0.5, 0.4])
    search, _ = searched(sampled(groups(), n_init=8, n_finalists=3, max_iter=100))
    assert script.stretches == {20: list(range(8)), 40: [1, 3, 4, 5], 80: [1, 3, 5], 100: [1, 3, 5]}
    assert [number(run) for run in search.best] == [5, 1, 3]


def test_collapsed_runs_are_set_aside_and_failed_ones_come_last(monkeypatch):
    values = [0.1, 0.2, 0.9, 0.8, 0.05, 1.0]
    script = Script(monkeypatch, values, collapsed=[2, 3], failed=[4, 5])
    search, _ = searched(sampled(groups(), n_init=6, n_finalists=6, max_iter=100))
    assert [number(run) for run in search.best] == [1, 0, 2, 3, 5, 4]
    search, _ = searched(sampled(groups(), n_init=6, max_iter=100))
    assert [number(run) for run in search.best] == [1]
    assert 4 not in script.stretches[40]  # nobody goes on with what failed


def test_ties_go_to_the_lower_number(monkeypatch):
    script = Script(monkeypatch, [0.5] * 8)
    searched(sampled(groups(), n_init=8, max_iter=100))
    assert script.stretches == {20: list(range(8)), 40: [0, 1, 2, 3], 80: [0, 1], 100: [0]}


def test_on_a_small_sample_every_start_runs_to_its_end():
    tasks = Serial()
    _, events = searched(sampled(groups(), n_components=2, n_init=5, max_iter=300), tasks=tasks)
    assert [request.iterations for _, request in tasks.asked[:5]] == [300] * 5
    starts = [name for name, _ in events if name.startswith("start")]
    assert starts == [f"start-{i:04d}-0" for i in range(5)]


# --- starts --------------------------------------------------------------------------------------------------


def test_kinds_of_starts_are_mixed_in_turn():
    mixed = sampled(groups(), n_components=4)
    for index, kind in enumerate(("k-means++", "random_from_data", "kmeans") * 2):
        alone = sampled(groups(), n_components=4, init_params=kind)
        assert bits(Run(mixed.begin(index))) == bits(Run(alone.begin(index)))


@pytest.mark.parametrize("part", [{"weights": np.full(4, 0.25)}, {"means": 4 * np.eye(4, 2)}, None])
def test_what_the_user_gave_is_neither_split_nor_merged(part):
    tasks = Serial()
    start = Start(**part) if part else Start()
    how = {"n_components": 4, "n_init": 2, "covariance_type": "diag", "start": start}
    _, events = searched(sampled(groups(200), **how), tasks=tasks)
    proposals = tasks.count("unite")
    moves = [name for name, _ in events if name.startswith("move")]
    assert (proposals == 0, moves == []) == ((True, True) if part else (False, False))


def test_one_component_is_not_moved():
    tasks = Serial()
    searched(sampled(groups()), tasks=tasks)
    assert tasks.count("unite") == 0


@pytest.fixture
def broken(monkeypatch):
    """The starts in this set have a covariance that no E-step can be made of."""
    which = set()
    begin = Sampled.begin

    def begin_badly(self, index):
        state = begin(self, index)
        if index in which:
            state.parameters.covariances[0] = 0.0
        return state

    monkeypatch.setattr(Sampled, "begin", begin_badly)
    return which


def test_a_start_without_a_covariance_does_not_end_the_others(broken):
    problem = sampled(groups(200), n_components=3, n_init=3, covariance_type="diag")
    sound, _ = searched(problem)
    broken |= {0, 2}
    search, events = searched(problem)
    runs = dict(events)
    assert "ill-defined" in runs["start-0000-0"].failed
    assert not search.best[0].failed
    assert bits(search.runs["start-0001-0"]) == bits(sound.runs["start-0001-0"])


def test_if_every_start_fails_so_does_the_fit(broken):
    broken |= {0, 1, 2}
    with pytest.raises(IllDefinedCovariance, match="component 0 has an ill-defined covariance"):
        GaussianMixture(4, n_init=3, random_state=0).fit(groups())


# --- split and merge -----------------------------------------------------------------------------------------


HARD = {  # K, D, how they are drawn, weights; seed and rows for which the start ends badly
    "separated": (8, 3, {"spread": 6.0, "low": 0.7, "high": 1.4}, np.ones(8), 3, 10_000),
    "unbalanced": (8, 3, {"spread": 5.0, "low": 0.7, "high": 1.4}, np.geomspace(1, 100, 8), 6, 12_000),
    "anisotropic": (6, 4, {"spread": 3.0, "low": 0.03, "high": 3.0}, np.ones(6), 24, 12_000),
}


@pytest.mark.parametrize(
    "kind", ["separated", *(pytest.param(kind, marks=pytest.mark.slow) for kind in ("unbalanced", "anisotropic"))]
)
def test_from_a_start_that_ends_badly_moves_reach_the_generating_model(kind):
    k, d, how, weights, seed, n = HARD[kind]
    rng = np.random.default_rng(seed)
    truth = replace(mixture("full", k, d, rng, **how), weights=weights / weights.sum())
    rows = rng.permutation(truth.sample(n, rng)[0])
    reached = EStep(Components.prepare(truth, np.dtype(float), 1e3), Frame.identity(d))(rows).mean_log_likelihood
    search, events = searched(sampled(rows, n_components=k, init_params="random_from_data"))
    ended = [run for name, run in events if name.startswith("start")][-1]
    assert ended.state.log_likelihood < reached - 0.05
    assert search.best[0].state.log_likelihood > reached


def test_a_whole_solution_is_taken_for_a_collapsed_one_even_if_that_was_likelier(monkeypatch):
    """As in the ranking of starts."""
    climb = dgmm.engine.search.climb

    def collapsing(sampled, request):
        run = climb(sampled, request)
        if not isinstance(request.run, int):
            return run
        history = tuple(value + 1.0 for value in run.state.history)
        return replace(run, state=replace(run.state, history=history), collapsed=(0,))

    monkeypatch.setattr(dgmm.engine.search, "climb", collapsing)
    search, events = searched(replaced(moving(), n_init=1, n_finalists=1))
    assert events[0][1].collapsed == (0,)
    assert search.best[0].collapsed == ()
    assert search.best[0].state.log_likelihood < events[0][1].state.log_likelihood


def test_what_moves_lead_to_is_only_better():
    search, events = searched(moving())
    for index in range(2):
        reached = [run.state.log_likelihood for name, run in events if f"-{index:04d}-" in name]
        assert reached == sorted(reached)
        assert reached[1] > reached[0] + 1e-3
    assert search.best[0].state.log_likelihood >= search.best[1].state.log_likelihood
