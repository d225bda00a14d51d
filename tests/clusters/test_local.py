"""Worker processes of this machine that are killed before they have joined."""

from __future__ import annotations

import contextlib
import logging
import threading
from collections.abc import Iterator

import psutil
import pytest

from dgmm.clusters.schema import Local, LocalWorkers
from dgmm.clusters.start import client_of
from dgmm.errors import ClusterError

ONE = Local(kind="local", workers=LocalWorkers(count=1, memory="1GiB"))


@contextlib.contextmanager
def killing(most: int) -> Iterator[list[int]]:
    """Meanwhile the first worker processes of this one are killed as soon as they are there; their numbers."""
    killed: list[int] = []
    over = threading.Event()

    def kill() -> None:
        while not over.wait(0.005) and len(killed) < most:
            for child in psutil.Process().children():
                with contextlib.suppress(psutil.Error):
                    if child.pid not in killed and "spawn_main" in " ".join(child.cmdline()):
                        child.kill()
                        killed.append(child.pid)

    thread = threading.Thread(target=kill)
    thread.start()
    try:
        yield killed
    finally:
        over.set()
        thread.join()


def test_the_cluster_is_started_again(caplog):
    with caplog.at_level(logging.WARNING, "dgmm"), killing(1) as killed, client_of(ONE) as client:
        assert client.submit(lambda: 7).result() == 7
    assert len(killed) == 1
    assert "ended while it started" in caplog.text


def test_but_not_for_ever():
    with (
        killing(100) as killed,
        pytest.raises(ClusterError, match="ended while it started, 3 times"),
        client_of(ONE),
    ):
        pass
    assert len(killed) >= 3
