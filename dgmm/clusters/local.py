"""Worker processes of this machine."""

from __future__ import annotations

import contextlib
import logging
import multiprocessing.resource_tracker
import signal
from collections.abc import Iterator
from typing import Any

import dask
from dask.utils import format_bytes

from dgmm.clusters.schema import Local, LocalWorkers
from dgmm.clusters.settings import quiet_workers, silence_logs
from dgmm.errors import ClusterError

_log = logging.getLogger(__name__)
_LOCALHOST = "127.0.0.1"
_STARTS = 3
# What a terminal (Ctrl-C) or a batch system sends to the whole process group.
_FOR_THE_DRIVER = (signal.SIGINT, signal.SIGUSR1)


def describe(cluster: Local) -> str:
    """What `start` starts."""
    from dask.system import CPU_COUNT

    workers = cluster.workers
    memory = "its share of this machine's memory" if workers.memory is None else format_bytes(workers.memory)
    return (
        f"{workers.count or CPU_COUNT} worker process(es) of {workers.threads} thread(s) and {memory} each, "
        f"and a scheduler, on {_LOCALHOST}"
    )


@contextlib.contextmanager
def start(cluster: Local) -> Iterator[Any]:
    """A client of worker processes on this machine that listen on 127.0.0.1 only."""
    from distributed import Client

    with dask.config.set(quiet_workers()), contextlib.ExitStack() as stack:
        with _deaf_processes():
            client = stack.enter_context(Client(stack.enter_context(_processes(cluster.workers))))
        yield client


def _processes(workers: LocalWorkers) -> Any:
    """Scheduler and workers; begun again where a worker ends before it has joined."""
    from dask.system import CPU_COUNT
    from distributed import LocalCluster

    given = {"memory_limit": workers.memory, "local_directory": workers.scratch}
    left = _STARTS
    while True:
        left -= 1
        try:
            return LocalCluster(
                n_workers=workers.count or CPU_COUNT,
                threads_per_worker=workers.threads,
                processes=True,
                host=_LOCALHOST,
                dashboard_address=f"{_LOCALHOST}:0",
                silence_logs=silence_logs(),
                **{name: value for name, value in given.items() if value is not None},
            )
        except RuntimeError as error:
            if not left:
                msg = (
                    f"a worker process of this machine ended while it started, {_STARTS} times ({error}). "
                    "Not enough memory, or a limit on processes, may be why; start fewer of them."
                )
                raise ClusterError(msg) from error
            _log.warning("A worker process ended while it started (%s). Starting the cluster again.", error)


@contextlib.contextmanager
def _deaf_processes() -> Iterator[None]:
    """Threads started meanwhile, and all processes that those start, never see signals for the driver.

    Workers that died of Ctrl-C would take the pass, and the time to end it properly, with them. A signal mask
    is inherited by threads and processes, also by workers that are started again later.
    """
    # Its start would unblock SIGINT in the very thread that starts a worker.
    multiprocessing.resource_tracker.ensure_running()
    before = signal.pthread_sigmask(signal.SIG_BLOCK, _FOR_THE_DRIVER)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
