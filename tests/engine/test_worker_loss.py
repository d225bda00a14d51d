"""A worker that dies in the middle of a pass changes nothing but the time it takes."""

from __future__ import annotations

import os
import signal

import dask
import numpy as np
import pytest
import zarr
from distributed import Client, LocalCluster

import dgmm.data.zarr_array
import dgmm.engine.settings
from dgmm import GaussianMixture
from dgmm.engine.events import Iterated
from dgmm.engine.run import Silence
from dgmm.errors import ClusterError


@pytest.fixture
def stored(tmp_path, monkeypatch):
    monkeypatch.setattr(dgmm.data.zarr_array, "BLOCK_BYTES", 1)
    monkeypatch.setattr(dgmm.engine.settings, "SAMPLE_ROWS", 1000)
    rng = np.random.default_rng(3)
    rows = rng.standard_normal((16_000, 3)) + 4 * rng.integers(3, size=(16_000, 1))
    array = zarr.create_array(tmp_path / "rows.zarr", shape=rows.shape, chunks=(200, 3), dtype="f8")
    array[:] = rows
    return str(tmp_path / "rows.zarr")


def fitted(path: str, observer: Silence | None = None) -> bytes:
    model = GaussianMixture(3, random_state=1, max_iter=6, tol=0)
    with dask.config.set({"dgmm.blocks-per-leaf": 1}), pytest.warns(match="did not converge"):
        model.fit(path, observer=observer)
    return model._model.parameters.covariances.tobytes() + np.array(model.lower_bounds_).tobytes()


class Killer(Silence):
    """Kills a worker a quarter into a pass, in as many passes as asked."""

    def __init__(self, client: Client, kills: int) -> None:
        self.client = client
        self.left = kills
        self.victim: int | None = None

    def on_event(self, event: object) -> None:
        if isinstance(event, Iterated) and self.left:
            self.victim = min(self.client.run(os.getpid).values())

    def on_rows(self, done: int, total: int) -> None:
        if self.victim and done > total / 4:
            self.left -= 1
            os.kill(self.victim, signal.SIGKILL)
            self.victim = None


def test_killed_workers_change_no_bit(stored):
    with dask.config.set(scheduler="synchronous"):
        expected = fitted(stored)
    with (
        dask.config.set({"distributed.scheduler.allowed-failures": 30}),
        LocalCluster(2, threads_per_worker=1, dashboard_address="127.0.0.1:0") as cluster,
        Client(cluster) as client,
    ):
        killer = Killer(client, kills=2)
        assert fitted(stored, killer) == expected
        assert killer.left == 0


def test_a_cluster_that_goes_away_is_an_error_that_says_so(stored):
    class Closer(Silence):
        def on_event(self, event: object) -> None:
            if isinstance(event, Iterated):
                cluster.close()

    with (
        LocalCluster(1, threads_per_worker=1, dashboard_address="127.0.0.1:0") as cluster,
        Client(cluster),
        pytest.raises(ClusterError, match="run the same fit again"),
    ):
        GaussianMixture(3, random_state=1, max_iter=6, tol=0).fit(stored, observer=Closer())
