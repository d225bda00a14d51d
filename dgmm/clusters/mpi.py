"""Workers that are ranks of the mpiexec that runs dgmm, by way of dask-mpi."""

from __future__ import annotations

import atexit
import contextlib
import faulthandler
import signal
import sys
import traceback
from collections.abc import Iterator
from typing import Any

import dask
from dask.utils import format_bytes

from dgmm.clusters.schema import Mpi
from dgmm.clusters.settings import quiet_workers
from dgmm.clusters.tls import config_of
from dgmm.errors import ClusterError, SchedulerLost

_SCHEDULER, _DRIVER = 0, 1
_LEAST_RANKS = 3
_START_SECONDS = 120
_JOIN_SECONDS = 60
# mpiexec hands them to every rank: the driver alone decides when the others end.
_FOR_THE_DRIVER = {signal.SIGINT, signal.SIGTERM, signal.SIGUSR1}


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
        There are fewer than three ranks, or not all of them join.
    """
    # Held back until the cluster stands: a rank that leaves earlier would let the others wait for ever.
    before = signal.pthread_sigmask(signal.SIG_BLOCK, _FOR_THE_DRIVER)
    try:
        with dask.config.set({**quiet_workers(), **config_of(cluster.tls)}), _joined(cluster) as client:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
            yield client
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


@contextlib.contextmanager
def _joined(cluster: Mpi) -> Iterator[Any]:
    from dask_mpi import initialize
    from distributed import Client

    # A rank that ended before it came here (a file that only its machine lacks) would let the others wait in MPI
    # for ever, deaf to signals: this ends them nevertheless, and with them the mpiexec.
    faulthandler.dump_traceback_later(_START_SECONDS, exit=True)
    from mpi4py import MPI

    world = MPI.COMM_WORLD
    size, rank = world.Get_size(), world.Get_rank()
    if size < _LEAST_RANKS:
        faulthandler.cancel_dump_traceback_later()
        msg = (
            f"found {size} MPI rank(s), expected at least {_LEAST_RANKS}: one schedules, one drives, the others "
            "work. Start it as in mpiexec -n 4 dgmm ..."
        )
        raise ClusterError(msg)
    world.Barrier()
    faulthandler.cancel_dump_traceback_later()
    if rank != _DRIVER:
        for number in _FOR_THE_DRIVER:
            signal.signal(number, signal.SIG_IGN)  # also for the workers of nannies
    workers = cluster.workers
    try:
        drives = initialize(
            interface=cluster.interface,
            nthreads=workers.threads,
            local_directory=workers.scratch,
            memory_limit=workers.memory or "auto",
            dashboard_address=cluster.dashboard,
            protocol="tls" if cluster.tls else None,
            # mpiexec ends all ranks when one dies: a nanny starts a worker again that ran out of memory.
            worker_class="distributed.Nanny",
            worker_options={"death_timeout": _JOIN_SECONDS, "dashboard_address": "127.0.0.1:0"},
            exit=False,
        )
    except Exception:
        if rank in (_SCHEDULER, _DRIVER):
            # The others wait for it in MPI, deaf to signals.
            traceback.print_exc(file=sys.stderr)
            world.Abort(1)
        drives = False  # a worker that comes when all is over
    if not drives:
        raise SystemExit(0)
    with Client() as client:
        end = client.shutdown
        try:
            _wait_for_all(client, size - _LEAST_RANKS + 1)
            yield client
        except SchedulerLost:
            # Nobody ends the other ranks, and MPI would wait for them: to be done when all is said.
            atexit.register(world.Abort, 1)
            end = client.close
            raise
        finally:
            # What ended the run is to be said, not that its scheduler is gone already.
            with contextlib.suppress(Exception):
                end()


def _wait_for_all(client: Any, workers: int) -> None:
    """A nanny that joins after the end would wait for ever."""
    try:
        client.wait_for_workers(workers, timeout=_JOIN_SECONDS)
    except TimeoutError as error:
        msg = f"not all of {workers} worker ranks joined within {_JOIN_SECONDS} s: {error}"
        raise ClusterError(msg) from error
