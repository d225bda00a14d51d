"""Full passes that several mixtures share, alone and as the end of a fit."""

from __future__ import annotations

import warnings
from dataclasses import replace

import numpy as np
import pytest
from cases import mixture
from sklearn.exceptions import ConvergenceWarning

import dgmm.engine.settings
from dgmm import GaussianMixture
from dgmm.data.opening import open_source
from dgmm.engine.blas import one_blas_thread
from dgmm.engine.events import Iterated
from dgmm.engine.lockstep import Member, shared_passes
from dgmm.engine.passes import Passes
from dgmm.engine.run import Silence
from dgmm.engine.sampled import Run
from dgmm.engine.threads import LocalScheduler
from dgmm.errors import IllDefinedCovariance
from dgmm.mixture.em import EM, EMState
from dgmm.mixture.frame import Frame

D, N = 2, 3000


@pytest.fixture(autouse=True)
def one_thread():
    with one_blas_thread():
        yield


@pytest.fixture(scope="module")
def rows():
    rng = np.random.default_rng(0)
    return rng.permutation(mixture("full", 4, D, rng, spread=2.0).sample(N, rng)[0])


class Counted(Passes):
    """Remembers how many mixtures took part in each pass."""

    def run(self, work):
        self.__dict__.setdefault("widths", []).append(len(work._candidates))
        return super().run(work)


def member(seed, max_iter=6, tol=0.0, k=3) -> Member:
    """A mixture that knows nothing of the rows."""
    start = mixture("full", k, D, np.random.default_rng(seed), low=1.0)
    return Member(EM(Frame.identity(D), np.full(D, 1e-6), tol, max_iter), 30.0, Run(EMState(start)))


def collapsing(seed, after):
    """One whose covariance goes missing in its iteration number `after`."""

    class Losing(EM):
        def advance(self, state, statistics):
            found = super().advance(state, statistics)
            if found.n_iter == after:
                found.parameters.covariances[1] = 0.0
            return found

    sound = member(seed)
    return replace(sound, em=Losing(**vars(sound.em)))


def passed(rows, members):
    """All that the passes yielded, and how many took part in each."""
    passes = Counted(open_source(rows), None, LocalScheduler())
    return list(shared_passes(passes, members)), passes.__dict__.get("widths", [])


def bits(run):
    p = run.state.parameters
    return b"".join(a.tobytes() for a in (p.weights, p.means, p.covariances, np.array(run.state.history)))


# --- passes --------------------------------------------------------------------------------------------------


def test_each_gets_the_bits_that_it_gets_alone(rows):
    members = {"a": member(1), "b": member(2, max_iter=9), "c": member(3)}
    together, _ = passed(rows, members)
    assert list(together[-1]) == ["a", "b", "c"]
    for name, one in members.items():
        alone, _ = passed(rows, {name: one})
        assert bits(alone[-1][name]) == bits(together[-1][name])
        n = len(alone)
        assert [bits(step[name]) for step in alone] == [bits(step[name]) for step in together[:n]]


def test_who_has_finished_takes_part_no_more(rows):
    members = {"short": member(1, max_iter=2), "long": member(2, max_iter=5), "none": member(3, max_iter=0)}
    yielded, widths = passed(rows, members)
    assert widths == [2, 2, 1, 1, 1]
    assert [step["short"].state.n_iter for step in yielded] == [1, 2, 2, 2, 2]
    assert yielded[-1]["short"] is yielded[1]["short"]
    assert {name: len(run.trace) for name, run in yielded[-1].items()} == {"short": 2, "long": 5, "none": 0}


def test_who_has_converged_has_finished(rows):
    coarse, fine = member(1, max_iter=500, tol=1e-2), member(1, max_iter=500, tol=1e-6)
    yielded, widths = passed(rows, {"coarse": coarse, "fine": fine})
    n, m = (yielded[-1][name].state.n_iter for name in ("coarse", "fine"))
    assert n < m
    assert widths == [2] * n + [1] * (m - n)


def test_nobody_left_is_no_pass(rows):
    assert passed(rows, {"a": member(1, max_iter=0)}) == ([], [])
    assert passed(rows, {}) == ([], [])


def test_one_without_a_covariance_is_marked_and_the_other_goes_on(rows):
    yielded, widths = passed(rows, {"bad": collapsing(1, after=2), "good": member(2)})
    assert widths == [2, 2, 1, 1, 1, 1]
    assert [bool(step["bad"].failed) for step in yielded] == [False, False, True, True, True, True]
    assert "component 1 has an ill-defined covariance" in yielded[-1]["bad"].failed
    alone, _ = passed(rows, {"good": member(2)})
    assert bits(yielded[-1]["good"]) == bits(alone[-1]["good"])


def test_the_last_one_without_a_covariance_ends_the_passes(rows):
    with pytest.raises(IllDefinedCovariance, match="component 1"):
        passed(rows, {"a": collapsing(1, after=2), "b": collapsing(2, after=4)})
    with pytest.raises(IllDefinedCovariance, match="component 1"):
        passed(rows, {"a": collapsing(1, after=1)})


def test_what_one_finished_before_another_failed_stands(rows):
    yielded, widths = passed(rows, {"done": member(1, max_iter=2), "bad": collapsing(2, after=3)})
    assert widths == [2, 2, 1]  # and no pass for nobody
    assert yielded[-1]["done"].state.n_iter == 2
    assert not yielded[-1]["done"].failed


# --- finalists of a fit --------------------------------------------------------------------------------------


class Watch(Silence):
    """Counts passes, and stops the fit after so many."""

    def __init__(self, stop_after=None):
        self.passes, self.finalists, self.stop_after = 0, [], stop_after

    def on_event(self, event):
        if isinstance(event, Iterated):
            self.passes += 1
            self.finalists.append(event.finalists)
            if self.passes == self.stop_after:
                raise KeyboardInterrupt


@pytest.fixture
def small_sample(monkeypatch):
    monkeypatch.setattr(dgmm.engine.settings, "SAMPLE_ROWS", 1)  # 1000 rows


def fitted(rows, watch=None, checkpoint=None, **settings):
    how = {"n_components": 4, "n_init": 4, "init_params": "random_from_data", "random_state": 0, "max_iter": 12}
    model = GaussianMixture(**{**how, "weights_init": np.full(4, 0.25), "tol": 0.0, **settings})
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        return model.fit(rows, observer=watch, checkpoint=checkpoint)


@pytest.mark.parametrize("seed", range(4))
def test_more_finalists_are_never_worse(rows, small_sample, seed):
    one, two = (fitted(rows, n_finalists=n, random_state=seed) for n in (1, 2))
    assert two.lower_bound_ >= one.lower_bound_


def test_the_best_finalist_is_the_result(rows, small_sample):
    watch = Watch()
    model = fitted(rows, watch, n_finalists=3)
    assert [len(finalists) for finalists in watch.finalists] == [3] * 12
    scores = [run.state.log_likelihood for run in watch.finalists[-1].values()]
    assert len(set(scores)) == 3
    assert model.lower_bound_ == max(scores)
    assert model.n_passes_ == 13


@pytest.mark.parametrize("stop_after", [1, 2, 5, 12])
def test_stopped_after_any_pass_it_ends_with_the_same_bits(rows, small_sample, tmp_path, stop_after):
    whole = fitted(rows, n_finalists=2)
    with pytest.raises(KeyboardInterrupt):
        fitted(rows, Watch(stop_after), tmp_path, n_finalists=2)
    rest = Watch()
    again = fitted(rows, rest, tmp_path, n_finalists=2)
    assert rest.passes == 12 - stop_after
    assert again.n_passes_ == whole.n_passes_ == 13
    assert again.lower_bounds_ == whole.lower_bounds_
    for attribute in ("weights_", "means_", "covariances_"):
        assert getattr(again, attribute).tobytes() == getattr(whole, attribute).tobytes()


@pytest.mark.parametrize("n_finalists", [1, 2])
@pytest.mark.parametrize("max_passes", [1, 2, 3])
def test_max_passes_counts_the_scan(rows, small_sample, max_passes, n_finalists):
    watch = Watch()
    how = {"n_init": 2, "n_finalists": n_finalists, "weights_init": np.full(4, 0.25), "random_state": 0, "tol": 0}
    model = GaussianMixture(4, max_passes=max_passes, **how)
    with pytest.warns(ConvergenceWarning, match=f"did not converge in {max_passes - 1} iterations"):
        model.fit(rows, observer=watch)
    assert watch.passes == model.n_iter_ == max_passes - 1
    assert model.n_passes_ == max_passes
    assert np.isfinite(model.score(rows))
    assert not model.converged_


def test_more_passes_go_on(rows, small_sample, tmp_path):
    fitted(rows, None, tmp_path, max_passes=4)
    watch = Watch()
    model = fitted(rows, watch, tmp_path, max_passes=8)
    assert (watch.passes, model.n_passes_) == (4, 8)
    assert model.lower_bounds_ == fitted(rows, max_passes=8).lower_bounds_


def test_max_passes_does_not_limit_the_sample(rows):
    model = GaussianMixture(4, max_passes=1, random_state=0).fit(rows)
    assert model.converged_
    assert model.n_iter_ > 1
    assert model.n_passes_ == 1
