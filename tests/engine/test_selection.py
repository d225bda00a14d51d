"""A selection's steps: what is dropped, what passes are spent, what an interruption leaves."""

from __future__ import annotations

import warnings

import dask
import dask.array as da
import numpy as np
import pytest
from distributed import Client, LocalCluster
from sklearn.exceptions import ConvergenceWarning

import dgmm
import dgmm.engine.search
from dgmm import GaussianMixture
from dgmm.data.opening import open_source, open_weights
from dgmm.engine.blas import one_blas_thread
from dgmm.engine.events import Iterated, Judged, Scanned, Searched
from dgmm.engine.passes import Passes
from dgmm.engine.run import Silence
from dgmm.engine.selection import Selection
from dgmm.engine.settings import Contest
from dgmm.engine.subset import Subset
from dgmm.engine.threads import LocalScheduler
from dgmm.errors import CheckpointMismatch

N, SAMPLE = 4000, 400
FRESH = {"random_state": 1, "tol": 1e-4, "sample_size": SAMPLE}


@pytest.fixture(autouse=True, scope="module")
def quick():
    """Without moves: how good the fits are does not matter here."""
    with pytest.MonkeyPatch.context() as patch, one_blas_thread():
        patch.setattr(dgmm.engine.search, "_ROUNDS_PER_COMPONENT", 0)
        yield


def groups(n=N, seed=0, distance=6.0):
    """Three groups in a row, the last one wider."""
    rng = np.random.default_rng(seed)
    label = rng.integers(3, size=n)
    return rng.standard_normal((n, 2)) * (1 + label // 2)[:, None] + distance * label[:, None]


class Events(Silence):
    """Remembers the events; raises at one of them."""

    def __init__(self, stop_at=None):
        self.seen, self.stop_at = [], stop_at

    def on_event(self, event):
        self.seen.append(event)
        if len(self.seen) - 1 == self.stop_at:
            raise Stop

    def count(self, kind):
        return sum(isinstance(event, kind) for event in self.seen)


class Stop(Exception):
    pass


class PassCount:
    """Counts passes over the data by what they do."""

    def __init__(self, monkeypatch):
        self.names = []
        run = Passes.run

        def counted(passes, work):
            if passes.source.name != "the sample":
                self.names.append(work.name)
            return run(passes, work)

        monkeypatch.setattr(Passes, "run", counted)

    def __len__(self):
        return len(self.names)


def select(rows, sizes=(2, 3, 4), types=("full", "spherical"), *, events=None, **settings):
    return dgmm.select(rows, sizes, types, observer=events, **{**FRESH, **settings})


def steps(rows, candidates, criterion="bic", holdout=0.0, weights=None, **settings):
    """A selection after its last event."""
    template = GaussianMixture(max(k for k, _ in candidates), **{**FRESH, **settings})
    source = open_source(rows)
    opened = None if weights is None else open_weights(weights, source)
    contest = Contest(template._settings(source)[0], tuple(candidates), criterion, holdout)
    selection = Selection(Passes(source, opened, LocalScheduler()), contest)
    for _ in selection.events():
        pass
    return selection


def bits(found):
    parameters = found.best._model.parameters
    arrays = (parameters.weights, parameters.means, parameters.covariances, found.best.lower_bounds_)
    table = [{k: v for k, v in record.items() if k != "seconds"} for record in found.records()]
    return b"".join(np.asarray(a).tobytes() for a in arrays), str(table), found.n_passes


def continued(rows, start, selection, name, **fit):
    """A fit of one candidate alone, from where the full passes begin."""
    settings, frame = selection._contest.of(name), selection.scan_of(name).frame
    given = start.to_data(frame)
    precisions = given.covariance.precisions(given.covariance.precision_cholesky(given.covariances))
    model = GaussianMixture(
        settings.n_components, covariance_type=settings.covariance_type, weights_init=given.weights,
        means_init=given.means, precisions_init=precisions, **FRESH,
    )  # fmt: skip
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        return model.fit(rows, **fit)


# --- passes --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("n", [SAMPLE, N], ids=["complete", "sampled"])
@pytest.mark.parametrize("holdout", [0.0, 0.2])
def test_passes_are_counted(monkeypatch, n, holdout):
    passes, events = PassCount(monkeypatch), Events()
    found = select(groups(n), holdout=holdout, events=events)
    assert found.n_passes == found.best.n_passes_ == len(passes)
    assert passes.names == ["scan", *["e-step"] * events.count(Iterated), *["criteria"] * (1 + bool(holdout))]
    assert (events.count(Iterated) > 0) == (n > SAMPLE)
    assert max(entry.n_passes for entry in found.table) == found.n_passes
    assert all(entry.n_passes == 1 for entry in found.table if entry.dropped)


def test_events_come_in_order_and_say_what_was_found():
    events = Events()
    found = select(groups(), events=events)
    kinds = [type(event) for event in events.seen]
    assert kinds == [Scanned, *[Searched] * 6, *[Iterated] * events.count(Iterated), Judged]
    names = {event.name for event in events.seen if isinstance(event, Searched)}
    assert names == {f"{kind}-000{k}" for kind in ("full", "spherical") for k in (2, 3, 4)}
    judged = events.seen[-1]
    kept = [entry for entry in found.table if not entry.dropped]
    assert [c.log_likelihood / c.weight for c in judged.criteria.values()] == [e.log_likelihood for e in kept]


# --- what is dropped -----------------------------------------------------------------------------------------


def test_what_the_sample_foresees_is_near_what_a_full_fit_finds():
    rows = groups()
    candidates = [(k, kind) for kind in ("full", "diag", "spherical") for k in (1, 2, 3)]
    selection = steps(rows, candidates)
    dropped = [name for name, entry in selection.table().items() if entry.dropped]
    assert len(dropped) >= 4
    for name in dropped:
        alone = continued(rows, selection.progress.runs[name].state.parameters, selection, name)
        spread = selection.foreseen[name].density.std() / np.sqrt(SAMPLE)
        assert abs(selection.table()[name].log_likelihood - alone.score(rows)) < 4 * spread, name


def test_collapsed_candidates_lose_to_a_sound_one():
    """Three rows in a heap: a component of their own has a high likelihood and no meaning."""
    heap = np.full((3, 2), 100.0) + 1e-3 * np.eye(3, 2)
    found = select(np.concatenate([groups(300), heap]), (1, 2, 3), "full")
    sound, *collapsed = found.table
    assert found.best.n_components == 1
    assert not sound.collapsed
    assert all(entry.collapsed and entry.bic < sound.bic for entry in collapsed)


def test_collapsed_on_the_sample_is_no_reason_to_drop_sound_ones():
    rows = groups()
    rows[np.random.default_rng(0).choice(N, 40, replace=False)] += 100
    found = select(rows, (1, 2), "full")
    sound, collapsed = found.table
    assert (found.best.n_components, sound.dropped, sound.collapsed) == (1, False, False)
    assert collapsed.collapsed
    assert sound.converged


# --- rows held out -------------------------------------------------------------------------------------------


def test_the_fits_see_the_other_rows_only():
    rows, weights = groups(), np.random.default_rng(2).uniform(0.5, 2, N)
    selection = steps(rows, [(3, "full"), (2, "full"), (3, "diag")], "holdout", 0.25, weights)
    subset = Subset(0.25, FRESH["random_state"])
    kept, left_out = subset.weights(np.arange(N), weights), weights - subset.weights(np.arange(N), weights)
    assert selection.scan.weight == pytest.approx(kept.sum())
    table = selection.table()
    for name, run in selection.progress.finalists.items():
        alone = continued(
            rows, selection.progress.runs[name].state.parameters, selection, name, sample_weight=kept
        )
        assert alone.n_iter_ == run.state.n_iter
        np.testing.assert_allclose(alone.lower_bounds_, run.state.history, rtol=1e-9)
        mine = run.state.parameters.to_data(selection.scan_of(name).frame)
        np.testing.assert_allclose(mine.means, alone.means_, rtol=1e-8)
        np.testing.assert_allclose(mine.covariances, alone.covariances_, rtol=1e-7)
        scored = rows[left_out > 0]
        expected = alone.score(scored, sample_weight=left_out[left_out > 0])
        assert table[name].held_out == pytest.approx(expected, rel=1e-9)
        assert table[name].log_likelihood == pytest.approx(alone.score(rows, sample_weight=kept), rel=1e-9)
    judged = [name for name in table if not table[name].dropped]
    assert selection.best() == max(judged, key=lambda name: table[name].held_out)


# --- interruptions -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("n", "settings"), [(SAMPLE, {}), (N, {"criterion": "holdout"})])
def test_stopped_at_each_event_in_turn_it_goes_on(monkeypatch, tmp_path, n, settings):
    rows, whole = groups(n), Events()
    expected = bits(select(rows, (2, 3), events=whole, **settings))
    for stop_at in range(len(whole.seen)):
        passes, first, rest = PassCount(monkeypatch), Events(stop_at), Events()
        folder = tmp_path / str(stop_at)
        with pytest.raises(Stop):
            select(rows, (2, 3), events=first, checkpoint=folder, **settings)
        assert bits(select(rows, (2, 3), events=rest, checkpoint=folder, **settings)) == expected
        assert len(passes) == expected[2], "no pass twice"
        assert [str(type(e)) for e in first.seen + rest.seen] == [str(type(e)) for e in whole.seen]
        names = [event.name for event in first.seen + rest.seen if isinstance(event, Searched)]
        assert len(names) == len(set(names)) == 4


def test_finished_it_returns_without_a_pass(monkeypatch, tmp_path):
    first = select(groups(), checkpoint=tmp_path)
    passes, events = PassCount(monkeypatch), Events()
    again = select(groups(), checkpoint=tmp_path, events=events, random_state=None)
    assert not passes.names
    assert not events.seen
    assert bits(again) == bits(first)


def test_a_lower_tol_goes_on(monkeypatch, tmp_path):
    rows = groups(distance=3.0)
    coarse = select(rows, checkpoint=tmp_path, tol=1e-2)
    events = Events()
    fine = select(rows, checkpoint=tmp_path, events=events, tol=1e-6)
    assert {type(event) for event in events.seen} == {Iterated, Judged}
    assert fine.best.n_iter_ > coarse.best.n_iter_
    assert fine.best.converged_
    lowest = min(entry.bic for entry in fine.table if not entry.dropped)
    assert fine.best.bic(rows) == pytest.approx(lowest, rel=1e-12)


def test_a_lower_tol_judges_anew_where_the_sample_is_all_rows(tmp_path):
    rows = groups(SAMPLE, distance=2.5)
    select(rows, 3, "full", checkpoint=tmp_path, tol=0.1)
    fine = select(rows, 3, "full", checkpoint=tmp_path, tol=1e-7)
    assert fine.table[0].bic == pytest.approx(fine.best.bic(rows), rel=1e-12)
    assert bits(fine) == bits(select(rows, 3, "full", tol=1e-7))


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"criterion": "aic"}, "criterion was 'bic', now 'aic'"),
        ({"holdout": 0.1}, "holdout"),
        ({"sizes": (2, 3)}, "candidates"),
        ({"types": "full"}, "candidates"),
        ({"reg_covar": 1e-3}, "reg_covar"),
        ({"random_state": 2}, "seed"),
    ],
)
def test_another_selection_is_refused_by_name(tmp_path, change, named):
    rows = groups(SAMPLE)
    select(rows, checkpoint=tmp_path)
    with pytest.raises(CheckpointMismatch, match=named):
        select(rows, checkpoint=tmp_path, **change)
    with pytest.raises(CheckpointMismatch, match="candidates"):
        GaussianMixture(3, **FRESH).fit(rows, checkpoint=tmp_path)


# --- schedulers ----------------------------------------------------------------------------------------------


def test_the_same_bits_on_one_thread_and_several():
    rows = da.from_array(groups(), chunks=(300, 2))
    found = []
    for name, threads in (("synchronous", 1), ("threads", 2), ("threads", 5)):
        with dask.config.set(scheduler=name, num_workers=threads):
            found.append(bits(select(rows, criterion="icl", holdout=0.1)))
    assert found[0] == found[1] == found[2]


@pytest.mark.slow
@pytest.mark.parametrize("workers", [1, 2])
def test_the_same_bits_on_a_cluster(monkeypatch, workers):
    monkeypatch.setattr(dgmm.engine.search, "_ROUNDS_PER_COMPONENT", 2)  # as the workers have it
    rows = da.from_array(groups(), chunks=(300, 2))
    with dask.config.set(scheduler="synchronous"):
        expected = bits(select(rows, holdout=0.1))
    with LocalCluster(workers, threads_per_worker=1, dashboard_address=":0") as cluster, Client(cluster):
        assert bits(select(rows, holdout=0.1)) == expected
