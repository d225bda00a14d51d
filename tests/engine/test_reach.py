"""Paths that a worker does not see are named before a pass is spent; waiting for workers is said, and ends."""

from __future__ import annotations

import os
import subprocess
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import dask
import numpy as np
import pytest
import zarr
from distributed import Client, LocalCluster
from servers.slurm import poll
from sklearn.exceptions import ConvergenceWarning

import dgmm.data.zarr_array
import dgmm.engine.settings
from dgmm import GaussianMixture
from dgmm.engine.events import Iterated
from dgmm.engine.predict import open_output, predict
from dgmm.engine.quantities import Labels
from dgmm.engine.run import Silence
from dgmm.engine.scheduling import client_when_needed, scheduler_for
from dgmm.errors import ClusterError, EnvironmentWarning, UnreachablePath

ROWS = np.random.default_rng(0).normal(size=(4000, 2)) + 1.0


@pytest.fixture
def empty_cluster() -> Iterator[Client]:
    """A scheduler without workers."""
    with (
        LocalCluster(
            n_workers=0, host="127.0.0.1", dashboard_address="127.0.0.1:0", silence_logs=False
        ) as cluster,
        Client(cluster) as client,
    ):
        yield client


@contextmanager
def worker_of_another_host(client: Client, hidden: Path, then: str = "true") -> Iterator[None]:
    """A worker for which a folder is as empty as on a machine that does not mount it, but for what `then` puts."""
    worker = f"{sys.executable} -m distributed.cli.dask_worker {client.scheduler.address}"
    options = "--no-nanny --no-dashboard --nthreads 1 --host 127.0.0.1 --memory-limit 4GiB --death-timeout 60"
    command = f"mount -t tmpfs none {hidden} && {then} && exec {worker} {options}"
    with subprocess.Popen(["unshare", "--mount", "sh", "-c", command], stderr=subprocess.DEVNULL) as process:
        try:
            client.wait_for_workers(1, timeout=60)
            yield
        finally:
            process.kill()


@pytest.fixture
def folders(tmp_path: Path) -> tuple[Path, Path]:
    """One that all see, and one that the worker does not."""
    if os.geteuid() != 0:
        pytest.skip("hiding a folder from a worker needs root")
    for name in ("shared", "hidden"):
        (tmp_path / name).mkdir()
        zarr.create_array(tmp_path / name / "x.zarr", data=ROWS, chunks=(1000, 2))
    return tmp_path / "shared", tmp_path / "hidden"


def test_paths_that_the_worker_does_not_see(empty_cluster, folders):
    shared, hidden = folders
    with worker_of_another_host(empty_cluster, hidden):
        with pytest.raises(UnreachablePath, match=r"hidden/x.zarr cannot be read from worker tcp://127.0.0.1:\d+"):
            GaussianMixture(2).fit(str(hidden / "x.zarr"))
        with pytest.warns(EnvironmentWarning, match="hidden/ck is not there on the host of worker tcp://127"):
            mixture = GaussianMixture(2, random_state=0).fit(str(shared / "x.zarr"), checkpoint=hidden / "ck")
        mixture.fit(str(shared / "x.zarr"), checkpoint=shared / "ck")
        source, _ = mixture._open(str(shared / "x.zarr"))
        wanted = [Labels()]
        for out in ("out.zarr", "out.parquet"):
            output = open_output(hidden / out, source, mixture._model, "digest", wanted)
            with pytest.raises(UnreachablePath, match=rf"hidden/{out} cannot be written from worker tcp://127"):
                predict(source, mixture._model, output, wanted)
            output = open_output(shared / out, source, mixture._model, "digest", wanted)
            assert predict(source, mixture._model, output, wanted) == len(ROWS)


def test_other_rows_under_the_same_path(empty_cluster, folders):
    shared, hidden = folders
    zarr.create_array(shared / "other.zarr", data=ROWS + 1.0, chunks=(1000, 2))
    with (
        worker_of_another_host(empty_cluster, hidden, f"cp -r {shared}/other.zarr {hidden}/x.zarr"),
        pytest.raises(UnreachablePath, match="holds other rows when read from worker"),
    ):
        GaussianMixture(2).fit(str(hidden / "x.zarr"))


def test_waiting_for_workers_is_said_and_ends(empty_cluster, tmp_path, caplog):
    zarr.create_array(tmp_path / "x.zarr", data=ROWS, chunks=(1000, 2))
    with (
        dask.config.set({"dgmm.worker-timeout": "1 s"}),
        pytest.raises(ClusterError, match=r"no worker joined tcp://127.0.0.1:\d+ within 1.00 s. Check the queue"),
    ):
        GaussianMixture(2).fit(str(tmp_path / "x.zarr"))
    assert "waiting for one, 1.00 s at most" in caplog.text


def test_workers_that_come_late_are_used(empty_cluster, tmp_path, caplog):
    zarr.create_array(tmp_path / "x.zarr", data=ROWS, chunks=(1000, 2))
    empty_cluster.cluster.loop.call_later(1.0, lambda: empty_cluster.cluster.scale(1))
    GaussianMixture(2, random_state=0).fit(str(tmp_path / "x.zarr"))
    assert "workers have joined" in caplog.text


def test_a_client_that_is_not_needed_is_not_started(tmp_path):
    zarr.create_array(tmp_path / "x.zarr", data=ROWS, chunks=(1000, 2))
    fit = GaussianMixture(2, random_state=0).fit(str(tmp_path / "x.zarr"), checkpoint=tmp_path / "ck")

    @contextmanager
    def no_client() -> Iterator[None]:
        pytest.fail("a client was started")
        yield

    with client_when_needed(no_client):
        again = GaussianMixture(2, random_state=0).fit(str(tmp_path / "x.zarr"), checkpoint=tmp_path / "ck")
    assert again.lower_bound_ == fit.lower_bound_
    started = []
    with LocalCluster(n_workers=1, threads_per_worker=1, dashboard_address="127.0.0.1:0") as cluster:

        @contextmanager
        def client() -> Iterator[Client]:
            with Client(cluster, set_as_default=False) as found:
                started.append(found)
                yield found

        with client_when_needed(client):
            for _ in range(2):
                with scheduler_for(local=False) as scheduler:
                    assert scheduler.n_threads == 1
            with scheduler_for(local=True) as scheduler:
                assert type(scheduler).__name__ == "LocalScheduler"
    assert len(started) == 1, "one for all passes"


@pytest.mark.slow
def test_no_worker_left_in_the_middle_gives_up_with_the_state_on_disk(empty_cluster, tmp_path, monkeypatch):
    monkeypatch.setattr(dgmm.data.zarr_array, "BLOCK_BYTES", 1)
    monkeypatch.setattr(dgmm.engine.settings, "SAMPLE_ROWS", 1000)
    zarr.create_array(tmp_path / "x.zarr", data=ROWS, chunks=(200, 2))

    class Leave(Silence):
        def on_event(self, event: object) -> None:
            if isinstance(event, Iterated) and event.n_iter == 3:
                empty_cluster.cluster.scale(0)
                poll(lambda: not empty_cluster.nthreads(), 120, lambda: "the worker stays")

    def fitted(observer: Silence, **where: object) -> bytes:
        mixture = GaussianMixture(2, random_state=0, max_iter=6, tol=0)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)
            mixture.fit(str(tmp_path / "x.zarr"), observer=observer, **where)
        return mixture.covariances_.tobytes()

    empty_cluster.cluster.scale(1)
    empty_cluster.wait_for_workers(1, timeout=120)
    with (
        dask.config.set({"dgmm.worker-timeout": "1 s"}),
        pytest.raises(ClusterError, match="The last state is in the checkpoint"),
    ):
        fitted(Leave(), checkpoint=tmp_path / "ck")
    assert list((tmp_path / "ck").glob("iteration-*3*"))
    empty_cluster.cluster.scale(1)
    assert fitted(Silence(), checkpoint=tmp_path / "ck") == fitted(Silence())
