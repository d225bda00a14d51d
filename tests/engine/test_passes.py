"""Every cluster gives the bits of the synchronous scheduler (tests/laws has the local ones and leaf sizes)."""

from __future__ import annotations

import dask
import dask.array as da
import numpy as np
import pytest
import zarr
from dask.sizeof import sizeof
from distributed import Client, LocalCluster

import dgmm.data.zarr_array
import dgmm.engine.likelihood
import dgmm.engine.settings
from dgmm import GaussianMixture
from dgmm.data.opening import open_source
from dgmm.engine.blas import one_blas_thread
from dgmm.engine.client import task_seconds
from dgmm.engine.likelihood import Candidate, LockstepWork
from dgmm.engine.passes import Passes
from dgmm.engine.sample import SamplingRule
from dgmm.engine.scan import ScanWork
from dgmm.engine.scheduling import scheduler_for
from dgmm.engine.threads import LocalScheduler
from dgmm.mixture.covariance import FULL
from dgmm.mixture.frame import Frame
from dgmm.mixture.parameters import Parameters

N, D, CHUNK = 16_500, 3, 250  # 66 blocks


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch):
    monkeypatch.setattr(dgmm.data.zarr_array, "BLOCK_BYTES", 1)
    monkeypatch.setattr(dgmm.engine.settings, "SAMPLE_ROWS", 1000)


@pytest.fixture(scope="module")
def stored(tmp_path_factory):
    """Rows of mixed magnitude in 66 blocks, of which the sample is a small part."""
    folder = tmp_path_factory.mktemp("rows")
    rng = np.random.default_rng(7)
    rows = rng.standard_normal((N, D)) + 4 * rng.integers(3, size=(N, 1))
    rows *= np.exp(3 * rng.standard_normal((N, 1)))
    array = zarr.create_array(folder / "rows.zarr", shape=(N, D), chunks=(CHUNK, D), dtype="f8")
    array[:] = rows
    return str(folder / "rows.zarr")


@pytest.fixture(scope="module")
def expected(stored) -> bytes:
    """The bits of the synchronous scheduler."""
    with pytest.MonkeyPatch.context() as monkeypatch, dask.config.set(scheduler="synchronous"):
        monkeypatch.setattr(dgmm.data.zarr_array, "BLOCK_BYTES", 1)
        monkeypatch.setattr(dgmm.engine.settings, "SAMPLE_ROWS", 1000)
        model = fitted(stored)
    assert model.n_iter_ == 10
    return bits(model)


def fitted(path: str) -> GaussianMixture:
    start = {"weights_init": [0.3, 0.3, 0.4], "means_init": 4.0 * np.eye(3), "precisions_init": [np.eye(3)] * 3}
    model = GaussianMixture(3, random_state=0, max_iter=10, tol=0, **start)
    with dask.config.set({"dgmm.blocks-per-leaf": 1}), pytest.warns(match="did not converge"):
        return model.fit(path)


def bits(model: GaussianMixture) -> bytes:
    found = model._model
    parts = (found.parameters.weights, found.parameters.means, found.parameters.covariances)
    return b"".join(part.tobytes() for part in parts) + np.array(found.history).tobytes()


@pytest.mark.parametrize(
    ("workers", "threads", "light"),
    [
        pytest.param(1, 1, True, marks=pytest.mark.slow),
        pytest.param(3, 2, True, marks=pytest.mark.slow),
        (2, 1, True),
        pytest.param(2, 1, False, marks=pytest.mark.slow),
    ],
)
def test_clusters_give_the_same_bits(stored, expected, monkeypatch, workers, threads, light):
    if not light:  # one worker prepares the parameters for all
        monkeypatch.setattr(dgmm.engine.likelihood, "LIGHT_BYTES", 0)
    assert open_source(stored).n_blocks >= 64
    with (
        LocalCluster(workers, threads_per_worker=threads, dashboard_address="127.0.0.1:0") as cluster,
        Client(cluster),
    ):
        assert bits(fitted(stored)) == expected


def test_adding_in_arrival_order_would_not(stored):
    """The data are such that the law above can fail."""
    source = open_source(stored)
    frame = Frame.from_sample(source.read(0, N), isotropic=False)
    start = Parameters(FULL, np.full(3, 1 / 3), np.eye(3), np.stack([np.eye(3)] * 3))
    work = LockstepWork([Candidate(start, frame, 9.0)], source.dtype)
    with one_blas_thread():
        (total,) = Passes(source, None, LocalScheduler()).run(work).members
        step = work.prepare().begin()
        blocks = [step(block, None).members[0] for block in source.block_input(0, source.n_blocks)]
    arrival = np.random.default_rng(0).permutation(len(blocks))
    other = blocks[arrival[0]]
    for i in arrival[1:]:
        other = other + blocks[i]
    np.testing.assert_allclose(other.second, total.second, rtol=1e-9)
    assert other.second.tobytes() != total.second.tobytes()


def test_short_leaves_come_last(stored, client):
    """All others are begun before; but not where rows are tasks themselves, which would be computed before."""
    with scheduler_for(local=False) as scheduler:
        source = open_source(stored)
        passes = Passes(source, None, scheduler)
        passes._block_seconds = scheduler.task_seconds / 4
        leaves = passes._leaves()
        assert [last - first for first, last in leaves] == [4] * 15 + [2] * 3
        graph = passes._graph(ScanWork(SamplingRule.for_rows(10, 0, N), hash_content=False), leaves, print, "1")
        (layer,) = graph.dask.layers.values()
        late = {key for key in layer if layer.annotations["priority"](key) < 0}
        assert late == {f"dgmm-scan-leaf-{first}-1" for first in (60, 62, 64)}
        assert len(layer) == len(leaves) + 4
        rows = open_source(da.from_zarr(stored))
        passes = Passes(rows, None, scheduler)
        passes._block_seconds = scheduler.task_seconds / 4
        graph = passes._graph(ScanWork(SamplingRule.for_rows(10, 0, N), hash_content=False), leaves, print, "1")
        layer = graph.dask.layers[graph.key]
        assert all(layer.annotations["priority"](key) == 0 for key in layer)


def test_dask_knows_how_large_statistics_are(stored):
    source = open_source(stored)
    work = LockstepWork(
        [Candidate(Parameters(FULL, np.ones(1), np.zeros((1, D)), np.eye(D)[None]), Frame.identity(D), 1.0)],
        source.dtype,
    )
    prepared = work.prepare()
    (block, *_) = source.block_input(0, 1)
    assert sizeof(prepared.begin()(block, None)) >= 8 * (1 + 2 * D + D * (D + 1) // 2)
    assert sizeof(prepared) >= 2 * 8 * D * D


@pytest.mark.parametrize(("threads", "seconds"), [(1, 0.5), (100, 0.5), (1000, 4.5)])
def test_with_more_threads_a_task_has_to_be_worth_more(threads, seconds):
    """The scheduler is busy for a third of the time at most."""
    assert task_seconds(threads) == pytest.approx(seconds)


def test_memory_rows_stay_in_this_process(client):
    with scheduler_for(local=True) as scheduler:
        assert isinstance(scheduler, LocalScheduler)
    with scheduler_for(local=False) as scheduler:
        assert scheduler.client is client


@pytest.mark.slow
def test_a_fit_inside_a_task(stored, expected, client):
    """Called in a Dask task, the pass runs on the same cluster and does not block it."""
    assert client.submit(_fit_in_task, stored, pure=False).result() == expected


def _fit_in_task(path: str) -> bytes:
    dgmm.data.zarr_array.BLOCK_BYTES = 1
    dgmm.engine.settings.SAMPLE_ROWS = 1000
    return bits(fitted(path))


def test_progress_counts_every_row_once(stored, client):
    seen: list[int] = []
    with scheduler_for(local=False) as scheduler:
        source = open_source(stored)
        frame = Frame.identity(D)
        start = Parameters(FULL, np.ones(1), np.zeros((1, D)), np.eye(D)[None])
        work = LockstepWork([Candidate(start, frame, 1e4)], source.dtype)
        (statistics,) = Passes(source, None, scheduler, seen.append).run(work).members
    assert statistics.weight == N
    assert all(0 < rows <= N for rows in seen)
    assert seen == sorted(seen)


@pytest.fixture
def client():
    with (
        LocalCluster(1, threads_per_worker=2, dashboard_address="127.0.0.1:0") as cluster,
        Client(cluster) as found,
    ):
        yield found
