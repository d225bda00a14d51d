"""A leaf whose read does not return, on a worker that is well otherwise, is computed by another one or named.

The chunk is a named pipe meanwhile: whoever opens or reads it waits, like for a file server that is gone.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import dask
import pytest
from distributed import Client
from facts import tell
from overlapping import CHUNK, expected, fitted, small_blocks, store
from processes import scheduler, wait_for

from dgmm.engine.events import Iterated
from dgmm.engine.run import Silence
from dgmm.errors import HangingTask

BLOCK = 13
ROWS = (BLOCK * CHUNK, (BLOCK + 1) * CHUNK)
LIMIT = {"dgmm.leaf-timeout": "1 s"}


@pytest.fixture
def path(tmp_path) -> Iterator[str]:
    with small_blocks(), dask.config.set({"dgmm.kept-bytes": 0}):  # every pass reads
        yield store(tmp_path)


class Pipe(Silence):
    """Puts a pipe in the place of a chunk after the second iteration, if `once` until somebody reads it."""

    def __init__(self, path: str, *, once: bool) -> None:
        self._chunk = Path(path, "c", str(BLOCK), "0")
        self._aside = self._chunk.with_name("aside")
        self._once = once
        self._writer: int | None = None
        self._heard = threading.Thread(target=self._wait_for_reader)
        self.at: float | None = None
        self.recovered: float | None = None

    def on_event(self, event: object) -> None:
        if isinstance(event, Iterated) and event.n_iter == 2:
            self._chunk.rename(self._aside)
            os.mkfifo(self._chunk)
            self.at = time.monotonic()
            if self._once:
                self._heard.start()
        if isinstance(event, Iterated) and event.n_iter == 3:
            self.recovered = time.monotonic() - self.at

    def _wait_for_reader(self) -> None:
        wait_for(self._heard_one, "nobody reads the chunk")
        self.restore()

    def _heard_one(self) -> bool:
        with suppress(OSError):  # ENXIO: there is no reader yet
            self._writer = os.open(self._chunk, os.O_WRONLY | os.O_NONBLOCK)
        return self._writer is not None

    def restore(self) -> None:
        self._aside.replace(self._chunk)

    def end(self) -> None:
        if self._writer is not None:  # open until now: who reads the pipe has waited all the time
            self._heard.join()
            os.close(self._writer)


@contextmanager
def cluster(folder: Path, *options: str, count: int = 2) -> Iterator[list[str]]:
    """Which forgives no death; gives the addresses of its workers."""
    with (
        scheduler(folder, DASK_DISTRIBUTED__SCHEDULER__ALLOWED_FAILURES="0") as found,
        ExitStack() as stack,
        Client(found.address) as client,
    ):
        for _ in range(count):
            stack.enter_context(found.workers(1, *options))
        client.wait_for_workers(count, timeout=120)
        yield list(client.scheduler_info(n_workers=-1)["workers"])


@pytest.mark.parametrize(
    ("nanny", "threads"), [pytest.param("--nanny", 2, marks=pytest.mark.slow), ("--no-nanny", 1)]
)
def test_a_leaf_that_hangs_is_computed_elsewhere(path, tmp_path, caplog, nanny, threads):
    pipe = Pipe(path, once=True)
    with dask.config.set(LIMIT), cluster(tmp_path, nanny, "--nthreads", str(threads)):
        assert fitted(path, 5, pipe) == expected(path, 5)
    pipe.end()
    assert f"-leaf-{BLOCK} has not ended for" in caplog.text
    assert "a pass was lost" not in caplog.text  # no other task of that worker is to blame
    tell(f"leaf hangs, limit of 1 s, {nanny}", 1, 1, pipe.recovered, "parameters, history")


@pytest.mark.slow
def test_a_leaf_that_hangs_everywhere_is_named(path, tmp_path):
    pipe = Pipe(path, once=False)
    with (
        dask.config.set(LIMIT),
        cluster(tmp_path, "--nanny", count=1) as (first,),
        pytest.raises(HangingTask, match=rf"rows {ROWS[0]}:{ROWS[1]} of {path} hang on every worker") as caught,
    ):
        fitted(path, 5, pipe, checkpoint=tmp_path / "ck")
    assert caught.value.rows == ROWS
    assert len(caught.value.workers) == 3
    assert caught.value.workers[0] == first
    noticed = time.monotonic() - pipe.at
    resumed(path, tmp_path, pipe)
    tell("leaf hangs on the only worker, limit of 1 s: error, resumed", 1, 1, noticed, "parameters, history")


@pytest.mark.slow
def test_a_leaf_that_hangs_on_the_only_worker_is_named_if_no_other_comes(path, tmp_path):
    pipe = Pipe(path, once=False)
    with (
        dask.config.set(LIMIT | {"dgmm.worker-timeout": "1 s"}),
        cluster(tmp_path, "--no-nanny", count=1) as (address,),
        pytest.raises(HangingTask, match=rf" hang on every worker that tries: on {address}, at last") as caught,
    ):
        fitted(path, 5, pipe, checkpoint=tmp_path / "ck")
    assert caught.value.rows == ROWS
    resumed(path, tmp_path, pipe)


def resumed(path: str, folder: Path, pipe: Pipe) -> None:
    """The fit goes on once the chunk can be read."""
    assert list((folder / "ck").glob("iteration-*2*"))
    pipe.restore()
    with dask.config.set(scheduler="synchronous"):
        assert fitted(path, 5, checkpoint=folder / "ck") == expected(path, 5)
