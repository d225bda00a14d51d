"""The clusters that a command runs on: one of this machine, or one that is there already."""

from __future__ import annotations

import contextlib
import multiprocessing.resource_tracker
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dask

from dgmm.errors import ClusterError, InvalidParameter

_LOCALHOST = "127.0.0.1"
# A task that was merely queued on a dying worker is blamed as well.
_ALLOWED_FAILURES = 20
# What a terminal (Ctrl-C) or a batch system sends to the whole process group.
_FOR_THE_DRIVER = {signal.SIGINT, signal.SIGUSR1}


@contextlib.contextmanager
def local_cluster(n_workers: int | None = None, memory_limit: int | None = None) -> Iterator[Any]:
    """A client of worker processes on this machine, one thread each, that listen on 127.0.0.1 only.

    Parameters
    ----------
    n_workers : int, optional
        By default one for each core, as `dask.system.CPU_COUNT` counts them.
    memory_limit : int, optional
        Bytes for each worker; by default an equal share of what the machine, or its cgroup, allows.
    """
    from dask.system import CPU_COUNT
    from distributed import Client, LocalCluster

    settings: dict[str, Any] = {"distributed.scheduler.allowed-failures": _ALLOWED_FAILURES}
    if levels := dask.config.get("logging", None):
        settings["distributed.nanny.pre-spawn-environ.DASK_LOGGING"] = repr(levels)
    limit = {} if memory_limit is None else {"memory_limit": memory_limit}
    with dask.config.set(settings), contextlib.ExitStack() as stack:
        with _deaf_processes():
            cluster = stack.enter_context(
                LocalCluster(
                    n_workers=n_workers or CPU_COUNT,
                    threads_per_worker=1,
                    processes=True,
                    host=_LOCALHOST,
                    dashboard_address=f"{_LOCALHOST}:0",
                    silence_logs=False,
                    **limit,
                )
            )
            client = stack.enter_context(Client(cluster))
        yield client


@contextlib.contextmanager
def connect(scheduler: str) -> Iterator[Any]:
    """A client of a scheduler that runs already.

    Parameters
    ----------
    scheduler : str
        Its address, such as ``tcp://node17:8786`` or ``node17:8786``, or the path of its scheduler file.

    Raises
    ------
    InvalidParameter
        It is neither.
    ClusterError
        Nobody answers.
    """
    from distributed import Client

    where: dict[str, Any] = {"scheduler_file": scheduler} if Path(scheduler).is_file() else {"address": scheduler}
    try:
        client = Client(**where)
    except (OSError, TimeoutError) as error:
        msg = f"no scheduler answers at {scheduler}: {error}. Check that it runs and can be reached from here."
        raise ClusterError(msg) from error
    with client:
        yield client


def check_scheduler(scheduler: str) -> None:
    """Refuse what is neither the address of a scheduler nor a scheduler file.

    Raises
    ------
    InvalidParameter
    """
    if Path(scheduler).is_file():
        return
    host, _, port = scheduler.rpartition(":")
    if not host or not port.isdecimal():
        msg = (
            f"{scheduler!r} is not a file and not an address; expected a scheduler file that exists, or an "
            "address such as tcp://127.0.0.1:8786"
        )
        raise InvalidParameter(msg)


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
