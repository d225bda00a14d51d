"""Blocks that stay in the memory of workers: the same bits, each block read once, within the memory plan."""

from __future__ import annotations

import io
import os
import re
import signal
import warnings
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import dask
import dask.array as da
import h5py
import numpy as np
import pandas as pd
import psutil
import pytest
import xarray
import zarr
from distributed import Client, LocalCluster
from numcodecs import Zlib

import dgmm.data.parquet
import dgmm.data.zarr_array
import dgmm.engine.settings
from dgmm import GaussianMixture, open_source
from dgmm.data import store
from dgmm.data.kept import KEPT
from dgmm.data.zarr_store import UrlStore
from dgmm.engine.events import Iterated, Scanned
from dgmm.engine.keeping import Home, Keeping
from dgmm.engine.leaves import Run, equal_runs
from dgmm.engine.memory import KEPT_SHARE, PROCESS_BYTES, Plan
from dgmm.engine.passes import Passes
from dgmm.engine.run import Silence
from dgmm.engine.sample import SamplingRule
from dgmm.engine.scan import ScanWork
from dgmm.engine.scheduler import Process
from dgmm.engine.scheduling import scheduler_for
from dgmm.engine.threads import LocalScheduler
from dgmm.errors import DataChanged
from dgmm.progress import ProgressLog

N, D, CHUNK = 16_000, 3, 250  # 64 blocks
SIZE = N * D * 8
RNG = np.random.default_rng(7)
ROWS = (RNG.standard_normal((N, D)) + 4 * RNG.integers(3, size=(N, 1))) * np.exp(3 * RNG.standard_normal((N, 1)))
WEIGHTS = RNG.integers(1, 4, size=N).astype(float)
READ_AGAIN = {"dgmm.kept-bytes": 0}


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch):
    monkeypatch.setattr(dgmm.data.zarr_array, "BLOCK_BYTES", 1)
    monkeypatch.setattr(dgmm.data.parquet, "BLOCK_BYTES", 2**13)
    monkeypatch.setattr(dgmm.engine.settings, "SAMPLE_ROWS", 1000)


@pytest.fixture(scope="module")
def client() -> Iterator[Client]:
    """Two processes of one thread each."""
    with (
        LocalCluster(
            2, threads_per_worker=1, host="127.0.0.1", dashboard_address="127.0.0.1:0", memory_limit="2GiB"
        ) as cluster,
        Client(cluster, set_as_default=False) as found,
    ):
        yield found


@pytest.fixture
def stored(tmp_path) -> str:
    zarr.create_array(tmp_path / "x", data=ROWS, chunks=(CHUNK, D))
    return str(tmp_path / "x")


class Seen(Silence):
    """What a process keeps after each pass, and the plan.

    Attributes
    ----------
    kept : list of dict of str to int
        Bytes by worker, after the scan and each iteration.
    """

    def __init__(self, client: Client | None = None) -> None:
        self._client = client
        self.kept: list[dict[str, int]] = []

    def on_plan(self, plan: Plan) -> None:
        self.plan = plan

    def on_event(self, event: object) -> None:
        if isinstance(event, Scanned | Iterated):
            self.kept.append(self._client.run(kept_bytes) if self._client else {"here": kept_bytes()})


def kept_bytes() -> int:
    return KEPT.n_bytes


def fitted(data: object, observer: Silence | None = None, **options: object) -> bytes:
    start = {"weights_init": [0.3, 0.3, 0.4], "means_init": 4.0 * np.eye(3), "precisions_init": [np.eye(3)] * 3}
    model = GaussianMixture(3, random_state=0, max_iter=5, tol=0, **start)
    with warnings.catch_warnings(), dask.config.set({"dgmm.blocks-per-leaf": 2}):
        warnings.filterwarnings("ignore", message="EM did not converge")
        model.fit(data, observer=observer or Silence(), **options)
    found = model._model
    parts = (found.parameters.weights, found.parameters.means, found.parameters.covariances)
    return b"".join(part.tobytes() for part in parts) + np.array(found.history).tobytes()


def as_zarr(folder: Path) -> str:
    zarr.create_array(folder / "rows", data=ROWS, chunks=(CHUNK, D))
    return str(folder / "rows")


def as_format_2_with_holes(folder: Path) -> object:
    rows = ROWS.copy()
    rows[::11, 1] = np.nan
    zarr.create_array(folder / "two", data=rows, chunks=(CHUNK, 2), zarr_format=2, compressors=Zlib())
    return open_source(folder / "two", missing="drop")


def as_parquet(folder: Path) -> str:
    pd.DataFrame(ROWS, columns=list("abc")).to_parquet(folder / "t.parquet", row_group_size=1000)
    return str(folder / "t.parquet")


def as_hdf5(folder: Path) -> str:
    with h5py.File(folder / "x.h5", "w") as file:
        file.create_dataset("x", data=ROWS, chunks=(CHUNK, D), compression="gzip")
    return str(folder / "x.h5")


def as_grid(folder: Path) -> str:
    values = {name: (("t", "y"), ROWS[:, i].reshape(-1, 100)) for i, name in enumerate("abc")}
    xarray.Dataset(values).to_zarr(
        folder / "grid", encoding={name: {"chunks": (5, 50)} for name in "abc"}, consolidated=False
    )
    return str(folder / "grid")


@pytest.mark.parametrize("kind", [as_zarr, as_format_2_with_holes, as_parquet, as_hdf5, as_grid])
@pytest.mark.parametrize("scheduler", ["synchronous", "threads"])
def test_the_same_bits_in_this_process(kind, scheduler, tmp_path):
    data, seen = kind(tmp_path), Seen()
    with dask.config.set(scheduler=scheduler, num_workers=2):
        with dask.config.set(READ_AGAIN):
            expected = fitted(data, reading := Seen())
        assert fitted(data, seen) == expected
    assert {bytes for kept in reading.kept for bytes in kept.values()} == {0}
    assert seen.kept[0]["here"] >= 0.85 * SIZE  # of one of them some rows are left out
    assert seen.kept == [seen.kept[0]] * 6
    assert seen.plan.data_bytes == seen.plan.kept_bytes == SIZE
    assert KEPT.n_bytes == 0  # the fit is done


def test_weights_are_kept_too(stored, tmp_path):
    zarr.create_array(tmp_path / "w", data=WEIGHTS, chunks=(700,))
    seen, given = Seen(), {"sample_weight": str(tmp_path / "w")}
    with dask.config.set(READ_AGAIN):
        expected = fitted(stored, **given)
    assert fitted(stored, seen, **given) == expected
    assert seen.kept[-1] == {"here": SIZE + N * 8}


@pytest.mark.parametrize("limit", [None, SIZE // 8])
def test_the_same_bits_on_workers(stored, client, limit):
    with dask.config.set(READ_AGAIN, scheduler="synchronous"):
        expected = fitted(stored)
    seen = Seen(client)
    with client.as_current(), dask.config.set({"dgmm.kept-bytes": limit}):
        assert fitted(stored, seen) == expected
    for before, after in pairwise(seen.kept):
        assert set(after) == set(before)
        assert all(after[worker] >= before[worker] for worker in before)
    if limit is None:
        assert sum(seen.kept[0].values()) == SIZE
    else:
        assert all(0 < kept <= limit for kept in seen.kept[-1].values())
        assert seen.plan.kept_bytes == 2 * limit
    assert set(client.run(kept_bytes).values()) == {0}


def test_each_worker_reads_a_chunk_once_at_most(s3, seaweed):
    """By the count of the server that they are read from: however leaves move between two workers."""
    zarr.create_array(UrlStore(f"{s3}/x"), data=ROWS, chunks=(CHUNK, D))
    size = sum(found.size for found in store.list_objects(f"{s3}/x/c"))

    def sent(data: str, **config: object) -> int:
        before = seaweed.bytes_sent()
        with dask.config.set(config):
            fitted(data)
        return seaweed.bytes_sent() - before

    metadata = 10_000
    assert 6 * size <= sent(f"{s3}/x", **READ_AGAIN)
    assert size <= sent(f"{s3}/x") <= size + metadata
    with (
        LocalCluster(2, threads_per_worker=1, host="127.0.0.1", dashboard_address="127.0.0.1:0") as cluster,
        Client(cluster),
    ):
        assert 6 * size <= sent(f"{s3}/x", **READ_AGAIN)
        assert size <= sent(f"{s3}/x") <= 2 * size + metadata


def kept_firsts() -> list[int]:
    return [first for blocks in KEPT._blocks.values() for _, first in blocks]


def test_leaves_run_where_their_blocks_are(stored, client):
    """They are asked to; an idle worker may take one all the same."""
    with client.as_current(), scheduler_for(local=False) as scheduler:
        source = open_source(stored)
        keeping = Keeping(source)
        passes = Passes(source, None, scheduler, keeping=keeping)
        keeping.plan(scheduler.processes(), 1 << 20, 0)
        work = ScanWork(SamplingRule.for_rows(10, 0, N), hash_content=False)
        leaves = equal_runs(64, 4)
        (first,) = passes._graph(work, leaves, print, "1").dask.layers.values()
        assert set(first.annotations) == {"priority"}
        passes.run(work)
        has = {address: set(firsts) for address, firsts in client.run(kept_firsts).items()}
        assert all(has.values())
        (second,) = passes._graph(work, leaves, print, "2").dask.layers.values()
        assert second.annotations["allow_other_workers"] is True
        found = {leaf: second.annotations["workers"](f"dgmm-scan-leaf-{leaf.first}-2") for leaf in leaves}
        assert set(found.values()) >= set(has)
        for leaf, home in found.items():
            wanted = set(source.bounds[leaf.first : leaf.last].tolist())
            assert home is None or len(wanted & has[home]) >= 2
        assert second.annotations["workers"]("dgmm-scan-merge-5-0-2") is None
        keeping.end(scheduler)
        assert client.run(kept_firsts) == {address: [] for address in has}


class Kill(Seen):
    """Kills a worker after the second iteration."""

    def on_event(self, event: object) -> None:
        super().on_event(event)
        if isinstance(event, Iterated) and event.n_iter == 2:
            self.address, pid = min(self._client.run(os.getpid).items())
            process = psutil.Process(pid)
            os.kill(pid, signal.SIGKILL)
            process.wait(120)


def test_of_a_worker_that_dies_others_read_the_blocks_again(stored):
    with dask.config.set(READ_AGAIN, scheduler="synchronous"):
        expected = fitted(stored)
    with (
        LocalCluster(2, threads_per_worker=1, host="127.0.0.1", dashboard_address="127.0.0.1:0") as cluster,
        Client(cluster) as client,
    ):
        kill = Kill(client)
        assert fitted(stored, kill) == expected
    assert kill.kept[2][kill.address] > 0
    assert kill.address not in kill.kept[3]
    assert sum(kill.kept[3].values()) >= SIZE


class Rewrite(Silence):
    def __init__(self, chunk: Path) -> None:
        self._chunk = chunk

    def on_event(self, event: object) -> None:
        if isinstance(event, Iterated) and event.n_iter == 2:
            status = self._chunk.stat()
            os.utime(self._chunk, ns=(status.st_atime_ns, status.st_mtime_ns + 1))


def test_data_that_change_are_noticed_though_they_are_in_memory(stored, client):
    for where in (dask.config.set(scheduler="threads"), client.as_current()):
        with where, pytest.raises(DataChanged, match=r"Chunk c/7/0 of .* was written again"):
            fitted(stored, Rewrite(Path(stored, "c/7/0")))
        assert KEPT.n_bytes == 0
        assert set(client.run(kept_bytes).values()) == {0}


class Compare(Silence):
    """Compares what is kept with what is stored."""

    def __init__(self, rows: np.ndarray) -> None:
        self._rows = rows
        self.compared = 0

    def on_event(self, event: object) -> None:
        if isinstance(event, Iterated):
            for blocks in KEPT._blocks.values():
                for block in blocks.values():
                    np.testing.assert_array_equal(block.rows, self._rows[block.first :][: block.length])
                    self.compared += 1


@pytest.mark.parametrize("covariance_type", ["full", "tied", "diag", "spherical"])
@pytest.mark.parametrize("dtype", ["f4", "f8"])
def test_nothing_is_written_into_rows(tmp_path, covariance_type, dtype):
    rows = (RNG.standard_normal((N, D)) + 1.5 * RNG.integers(3, size=(N, 1))).astype(dtype)
    zarr.create_array(tmp_path / "y", data=rows, chunks=(CHUNK, D))
    compare = Compare(rows)
    model = GaussianMixture(3, covariance_type=covariance_type, random_state=0, max_iter=3, tol=0)
    with pytest.warns(match="did not converge"):
        model.fit(tmp_path / "y", observer=compare)
    assert compare.compared == 3 * 64


def logged(data: object, **config: object) -> list[str]:
    stream = io.StringIO()
    with dask.config.set(config):
        fitted(data, ProgressLog(stream=stream))
    return re.findall(r"^.*stay in memory.*$", stream.getvalue(), re.M)


def test_the_log_says_what_is_kept(stored, tmp_path):
    assert logged(stored) == ["the data (375.00 kiB) stay in memory after the first pass"]
    part = logged(stored, **{"dgmm.kept-bytes": "100 kiB"})
    assert part == ["100.00 kiB of the data (375.00 kiB) stay in memory after the first pass"]
    assert logged(stored, **READ_AGAIN) == []
    np.save(tmp_path / "x.npy", ROWS)
    for data in (ROWS, tmp_path / "x.npy", da.from_array(ROWS, chunks=(CHUNK, D))):
        assert logged(data) == []


def test_a_fit_to_the_sample_alone_keeps_nothing(stored, monkeypatch):
    monkeypatch.setattr(dgmm.engine.settings, "SAMPLE_ROWS", N)
    seen = Seen()
    model = GaussianMixture(3, random_state=0).fit(stored, observer=seen)
    assert model.n_passes_ == 1
    assert seen.plan.kept_bytes == 0
    assert seen.kept == [{"here": 0}]


@pytest.mark.parametrize("limit", [None, "1 GiB", 10**15])
@pytest.mark.parametrize("threads", [1, 4])
def test_what_is_kept_leaves_room_for_the_plan(stored, limit, threads):
    keeping, per_thread, source = Keeping(open_source(stored)), 100 << 20, open_source(stored)
    processes = [Process(threads, 4 << 30), Process(threads, 8 << 30)]
    with dask.config.set({"dgmm.kept-bytes": limit}):
        total = keeping.plan(processes, per_thread, 0)
    keep = keeping.kept(source, source.block_input(0, 1)).keep
    assert total == 2 * keep.most
    assert keep.most + PROCESS_BYTES + threads * per_thread <= keep.ceiling <= KEPT_SHARE * (4 << 30)
    assert keep.most == 1 << 30 or limit != "1 GiB"


@pytest.mark.parametrize("memory", [None, 0, 400 << 20])
def test_where_little_is_left_or_nothing_is_known_nothing_is_kept(stored, memory):
    keeping, source = Keeping(open_source(stored)), open_source(stored)
    assert keeping.plan([Process(1, 16 << 30), Process(1, memory)], 1 << 20, 0) == 0
    assert keeping.kept(source, source.block_input(0, 1)).keep is None


def test_data_that_fit_the_sample_are_not_kept(stored):
    keeping, source = Keeping(open_source(stored)), open_source(stored)
    assert keeping.plan([Process(1, 16 << 30)], 1 << 20, source.n_rows - 1) > 0
    assert keeping.kept(source, source.block_input(0, 1)).keep is not None
    assert keeping.plan([Process(1, 16 << 30)], 1 << 20, source.n_rows) == 0
    assert keeping.kept(source, source.block_input(0, 1)).keep is None


def runs(*bounds: int) -> list[Run]:
    return [Run(first, last) for first, last in pairwise(bounds)]


def test_a_leaf_is_at_home_where_most_of_its_blocks_are(stored):
    keeping = Keeping(open_source(stored))
    leaves = runs(0, 4, 8, 16, 64)
    assert keeping.at_home(leaves, 2) == {}
    assert keeping.worth(100.0) == 100.0
    keeping.found([Home(0, 5 * CHUNK, "a", 1), Home(5 * CHUNK, 16 * CHUNK, "b", 1)], runs(0, 8, 16))
    assert keeping.at_home(leaves, 2) == {(0, 4): "a", (4, 8): "b", (8, 16): "b"}
    # Longer ones would be of parts that are at different places.
    assert [keeping.worth(blocks) for blocks in (1.0, 8.0, 31.0, 32.0)] == [1.0, 8.0, 8.0, 32.0]
    keeping.found([Home(0, 8 * CHUNK, "c", 1)], leaves)  # these were computed by another worker
    assert keeping.at_home(leaves, 2) == {(0, 4): "c", (4, 8): "c", (8, 16): "b"}
    keeping.plan(LocalScheduler().processes(), 1, 0)  # another cluster
    assert keeping.at_home(leaves, 2) == {}


@pytest.mark.parametrize(("threads", "all_threads", "most"), [(1, 2, 32), (1, 4, 16), (2, 4, 32), (3, 4, 48)])
def test_a_worker_that_has_much_is_not_asked_for_more_than_its_share(stored, threads, all_threads, most):
    """Workers that joined late, or were slow to start, take the rest."""
    keeping, leaves = Keeping(open_source(stored)), equal_runs(64, 4)
    keeping.found([Home(0, 60 * CHUNK, "a", threads), Home(60 * CHUNK, N, "b", 1)], leaves)
    found = keeping.at_home(leaves, all_threads)
    assert [leaf for leaf, address in found.items() if address == "a"] == leaves[: most // 4]
    assert found[leaves[-1]] == "b"
