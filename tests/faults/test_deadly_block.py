"""A block whose workers die again and again: by chance it is computed in the end, by its own fault it is named."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import dask
import numpy as np
import pytest
import ways
import zarr
from distributed import Client
from facts import tell
from overlapping import CHUNK, ROWS, expected, fitted, small_blocks
from processes import scheduler

from dgmm.engine.events import Iterated
from dgmm.engine.run import Silence
from dgmm.errors import DeadlyTask

BLOCK = 13
# So many deaths make a task guilty.
ENOUGH = 12


@pytest.fixture
def path(tmp_path) -> Iterator[str]:
    """Rows with a chunk that the codec of the workers knows."""
    rng = np.random.default_rng(3)
    rows = rng.standard_normal((ROWS, 3)) + 1.5 * rng.integers(3, size=(ROWS, 1))
    rows[BLOCK * CHUNK, 0] = np.frombuffer(ways.BAIT)[0]
    array = zarr.create_array(
        tmp_path / "rows.zarr", shape=rows.shape, chunks=(CHUNK, 3), dtype="f8", compressors=[ways.Trap()]
    )
    array[:] = rows
    with small_blocks(), dask.config.set({"dgmm.kept-bytes": 0}):  # every pass reads
        yield str(tmp_path / "rows.zarr")


class Traps(Silence):
    """Sets traps for the readers of a block after the second iteration."""

    def __init__(self, folder: Path, count: int) -> None:
        folder.mkdir()
        self.folder = folder
        self._count = count

    def on_event(self, event: object) -> None:
        if isinstance(event, Iterated) and event.n_iter == 2:
            for number in range(self._count):
                (self.folder / str(number)).touch()


@contextmanager
def cluster(folder: Path, traps: Path, threads: int = 1, forgiven: int = 3) -> Iterator[Client]:
    """Of a user who set nothing: distributed itself forgives a task 3 deaths."""
    with (
        scheduler(folder, DASK_DISTRIBUTED__SCHEDULER__ALLOWED_FAILURES=str(forgiven)) as found,
        found.workers(2, "--nthreads", str(threads), "--preload", ways.__file__, **{ways.FOLDER: str(traps)}),
        Client(found.address) as client,
    ):
        client.wait_for_workers(2, timeout=120)
        yield client


@pytest.mark.slow
@pytest.mark.parametrize(
    ("deaths", "forgiven"),
    [(1, 0), (4, 3), (ENOUGH - 1, 3)],
)
def test_a_block_whose_workers_die_by_chance_is_computed_in_the_end(path, tmp_path, caplog, deaths, forgiven):
    traps = Traps(tmp_path / "traps", deaths)
    with cluster(tmp_path, traps.folder, forgiven=forgiven):
        assert fitted(path, 4, traps) == expected(path, 4)
    assert list(traps.folder.iterdir()) == []
    assert "a pass was lost" in caplog.text
    tell("workers of one block killed in a row", deaths, deaths, None, "parameters, history")


@pytest.mark.slow
@pytest.mark.parametrize("threads", [1, 4])
def test_a_block_that_kills_every_worker_is_named(path, tmp_path, threads):
    traps = Traps(tmp_path / "traps", 10 * ENOUGH)
    rows = (BLOCK * CHUNK, (BLOCK + 1) * CHUNK)
    with (
        cluster(tmp_path, traps.folder, threads),
        pytest.raises(DeadlyTask, match=rf"rows {rows[0]}:{rows[1]} of {path} end every worker") as caught,
    ):
        fitted(path, 4, traps, checkpoint=tmp_path / "ck")
    assert caught.value.rows == rows
    assert caught.value.deaths == ENOUGH
    with dask.config.set(scheduler="synchronous"):
        assert fitted(path, 4, checkpoint=tmp_path / "ck") == expected(path, 4)
