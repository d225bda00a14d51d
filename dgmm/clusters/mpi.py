"""Workers that are ranks of the mpiexec that runs dgmm, by way of dask-mpi."""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Iterator
from typing import Any

import dask
from dask.utils import format_bytes

from dgmm.clusters.schema import Mpi
from dgmm.clusters.tls import config_of
from dgmm.errors import ClusterError

_DRIVER = 1
_LEAST_RANKS = 3
# mpiexec hands them to every rank: the driver alone decides when the others end.
_FOR_THE_DRIVER = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)


def describe(cluster: Mpi) -> str:
    """Who is what in an mpiexec."""
    workers = cluster.workers
    memory = "its share of the machine's memory" if workers.memory is None else format_bytes(workers.memory)
    return (
        "nothing is submitted: in mpiexec -n N dgmm ... rank 0 schedules, rank 1 drives, and the N - 2 others are "
        f"workers of {workers.threads} thread(s) and {memory} each"
    )


@contextlib.contextmanager
def start(cluster: Mpi) -> Iterator[Any]:
    """A client, in rank 1. The other ranks serve until it is done and then leave by SystemExit.

    Raises
    ------
    ClusterError
        There are fewer than three ranks.
    """
    from dask_mpi import initialize, send_close_signal
    from distributed import Client
    from mpi4py import MPI

    size, rank = MPI.COMM_WORLD.Get_size(), MPI.COMM_WORLD.Get_rank()
    if size < _LEAST_RANKS:
        msg = (
            f"found {size} MPI rank(s), expected at least {_LEAST_RANKS}: one schedules, one drives, the others "
            "work. Start it as in mpiexec -n 4 dgmm ..."
        )
        raise ClusterError(msg)
    if rank != _DRIVER:
        for number in _FOR_THE_DRIVER:
            signal.signal(number, signal.SIG_IGN)
    workers = cluster.workers
    with dask.config.set(config_of(cluster.tls)):
        drives = initialize(
            interface=cluster.interface,
            nthreads=workers.threads,
            local_directory=workers.scratch,
            memory_limit=workers.memory or "auto",
            dashboard_address=cluster.dashboard,
            protocol="tls" if cluster.tls else None,
            exit=False,
        )
        if not drives:
            raise SystemExit(0)
        try:
            with Client() as client:
                yield client
        finally:
            send_close_signal()
