"""What a checkpoint directory does for a fit, in one process."""

from __future__ import annotations

import warnings

import dask.array as da
import numpy as np
import pytest
import zarr
from fittings import SLOW_ON_S3
from sklearn.exceptions import ConvergenceWarning

import dgmm.engine.run
import dgmm.engine.settings
from dgmm import GaussianMixture
from dgmm.data.opening import open_source
from dgmm.engine.checkpoint import Checkpoint
from dgmm.engine.environment import environment
from dgmm.engine.events import Event, Iterated, Searched
from dgmm.engine.folder import folder_at
from dgmm.engine.run import Silence
from dgmm.errors import CheckpointInUse, CheckpointMismatch, DamagedFileWarning, NotEnoughMemory


@pytest.fixture
def rows(monkeypatch):
    monkeypatch.setattr(dgmm.engine.settings, "SAMPLE_ROWS", 1000)
    rng = np.random.default_rng(5)
    return rng.standard_normal((5000, 2)) + 2 * rng.integers(3, size=(5000, 1))


class Events(Silence):
    def __init__(self) -> None:
        self.seen: list[Event] = []

    def on_event(self, event: Event) -> None:
        self.seen.append(event)

    def count(self, kind: type) -> int:
        return sum(isinstance(event, kind) for event in self.seen)


def fit(rows: object, directory: str, events: Events | None = None, **settings: object) -> GaussianMixture:
    model = GaussianMixture(**{"n_components": 3, "random_state": 2, "max_iter": 8, "tol": 0, **settings})
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        return model.fit(rows, checkpoint=directory, observer=events)


def states(directory: str) -> dict[str, bytes]:
    folder = folder_at(directory)
    return {file.name: folder.read(file.name) for file in folder.list() if file.name.endswith(".npz")}


def bits(model: GaussianMixture) -> bytes:
    return model._model.parameters.covariances.tobytes() + np.array(model.lower_bounds_).tobytes()


def test_a_damaged_newest_file_is_one_step_back(rows, place):
    expected = fit(rows, place)
    folder, newest = folder_at(place), "iteration-000008.npz"
    content = bytearray(folder.read(newest))
    content[len(content) // 2] ^= 1
    folder.write(newest, bytes(content))
    events = Events()
    with pytest.warns(DamagedFileWarning, match="iteration-000008"):
        again = fit(rows, place, events)
    assert events.count(Iterated) == 1
    assert bits(again) == bits(expected)


def test_a_higher_max_iter_goes_on(rows, place):
    fit(rows, f"{place}/a", max_iter=5, n_init=2)
    events = Events()
    longer = fit(rows, f"{place}/a", events, max_iter=9, n_init=2)
    assert events.count(Iterated) == 4
    assert events.count(Searched) == 0
    assert longer.n_iter_ == 9


@SLOW_ON_S3
def test_a_lower_tol_goes_on_and_a_converged_fit_returns_at_once(rows, place):
    coarse = fit(rows, place, max_iter=500, tol=1e-3)
    assert coarse.converged_
    events = Events()
    assert bits(fit(rows, place, events, max_iter=500, tol=1e-3)) == bits(coarse)
    assert not events.seen
    fine = fit(rows, place, max_iter=500, tol=1e-6)
    assert fine.n_iter_ > coarse.n_iter_


def test_a_small_data_set_goes_on_in_its_restarts(rows, place):
    small = rows[:900]
    whole = fit(small, f"{place}/whole", max_iter=9, n_init=2)
    fit(small, f"{place}/parts", max_iter=4, n_init=2)
    events = Events()
    parts = fit(small, f"{place}/parts", events, max_iter=9, n_init=2)
    assert events.count(Searched) >= 2
    assert bits(parts) == bits(whole)


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"n_components": 4}, "n_components"),
        ({"covariance_type": "diag"}, "covariance_type"),
        ({"reg_covar": 1e-3}, "reg_covar"),
        ({"random_state": 3}, "seed"),
        ({"n_init": 2}, "n_init"),
        ({"init_params": "kmeans"}, "init_params"),
        ({"weights_init": [0.2, 0.3, 0.5]}, "start"),
    ],
)
def test_another_fit_is_refused_by_name(rows, place, change, named):
    fit(rows, place)
    before = states(place)
    with pytest.raises(CheckpointMismatch, match=named):
        fit(rows, place, **change)
    assert before == states(place)


def test_other_data_and_weights_are_refused(rows, place):
    fit(rows, place)
    other = rows.copy()
    other[17, 1] += 1e-9
    with pytest.raises(CheckpointMismatch, match="data changed"):
        fit(other, place)
    with pytest.raises(CheckpointMismatch, match="weights"):
        GaussianMixture(3, random_state=2).fit(rows, sample_weight=np.ones(len(rows)), checkpoint=place)


def test_dask_data_are_known_by_their_content(rows, place):
    expected = fit(da.from_array(rows, chunks=(700, 2)), place)
    events = Events()
    again = fit(da.from_array(rows.copy(), chunks=(700, 1)), place, events)
    assert events.count(Iterated) == 0
    assert bits(again) == bits(expected)
    other = rows.copy()
    other[-1, 0] += 1e-9
    with pytest.raises(CheckpointMismatch, match="data changed"):
        fit(da.from_array(other, chunks=(700, 2)), place)


@pytest.mark.parametrize("n", [500, 5000])
def test_dask_weights_with_rows_in_memory(rows, n):
    """Also where the pass is one leaf, which needs no graph for its rows."""
    weights = np.random.default_rng(1).uniform(0.5, 2, n)
    models = [GaussianMixture(2, random_state=0) for _ in range(2)]
    models[0].fit(rows[:n], sample_weight=weights)
    models[1].fit(rows[:n], sample_weight=da.from_array(weights, chunks=77))
    assert bits(models[0]) == bits(models[1])


def test_a_second_driver_is_kept_out(rows, place):
    fit(rows, place)
    identity = Checkpoint.recorded_identity(place)
    with Checkpoint(place, identity, environment()), pytest.raises(CheckpointInUse):
        fit(rows, place, max_iter=20)


def test_the_plan_is_checked_before_the_first_task(tmp_path, monkeypatch):
    array = zarr.create_array(tmp_path / "x.zarr", shape=(1000, 2), chunks=(100, 2), dtype="f8")
    array[:] = 1.0
    monkeypatch.setattr("dgmm.engine.threads.LocalScheduler.memory_per_thread", lambda _: 100 << 20)

    def no_scan(*_: object, **__: object) -> None:
        pytest.fail("a pass was started")

    monkeypatch.setattr("dgmm.engine.passes.Passes.run", no_scan)
    with pytest.raises(NotEnoughMemory, match=r"needs [12]\d\d\.\d\d MiB .* has 100\.00 MiB"):
        GaussianMixture(2).fit(open_source(str(tmp_path / "x.zarr")))
