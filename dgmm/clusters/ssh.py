"""Workers on machines that answer to ssh, by way of distributed's SSHCluster."""

from __future__ import annotations

import asyncio
import contextlib
import secrets
import sys
from collections.abc import Coroutine, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import dask
from dask.utils import format_bytes

from dgmm.clusters.follow import TLS_FOLDER
from dgmm.clusters.schema import Certificates, Ssh
from dgmm.clusters.tls import config_of, security_of, temporary_files
from dgmm.errors import ClusterError, SchedulerLost

_CONNECT_SECONDS = 30
_SETTINGS = {
    # SSHCluster waits for what scheduler and workers log when they have started, at level info.
    "logging": {"distributed": "error", "distributed.scheduler": "info", "distributed.worker": "info"},
    "distributed.scheduler.preload": ["dgmm.clusters.follow"],
    "distributed.nanny.preload": ["dgmm.clusters.follow"],
}


def describe(cluster: Ssh) -> str:
    """What is started where."""
    workers = cluster.workers
    memory = "a share of its memory" if workers.memory is None else format_bytes(workers.memory)
    return (
        f"by ssh: a scheduler on {cluster.hosts[0]}; {workers.per_host} worker process(es) of {workers.threads} "
        f"thread(s) and {memory} each on {', '.join(cluster.hosts)}; {cluster.python or sys.executable} runs them"
    )


@contextlib.contextmanager
def start(cluster: Ssh) -> Iterator[Any]:
    """A client of a scheduler on the first host and workers on all.

    Raises
    ------
    ClusterError
        A host refuses, or cannot run a worker.
    """
    from distributed import Client, SSHCluster

    workers = cluster.workers
    with contextlib.ExitStack() as stack:
        try:
            tls = stack.enter_context(_certificates(cluster))
            protocol = {"protocol": "tls://"} if tls else {}
            common = {"interface": cluster.interface, **protocol}
            # Settings reach the hosts on a command line: paths of certificates, never keys.
            stack.enter_context(dask.config.set({**_SETTINGS, **config_of(tls)}))
            machines = SSHCluster(
                [cluster.hosts[0], *cluster.hosts],
                connect_options=_connect_options(cluster),
                scheduler_options={"port": cluster.port, "dashboard_address": cluster.dashboard, **common},
                worker_options={
                    "nthreads": workers.threads,
                    "n_workers": workers.per_host,
                    "memory_limit": workers.memory or "auto",
                    "local_directory": workers.scratch,
                    "dashboard_address": "127.0.0.1:0",
                    **common,
                },
                remote_python=cluster.python,
                security=security_of(tls),
            )
        except Exception as error:  # of asyncssh, of the network, and "Worker failed to start"
            msg = (
                f"no cluster by ssh: {_said(error)}. Check that `ssh HOST` works from here without a password for "
                f"each of {', '.join(cluster.hosts)}, that their keys are in known_hosts, and that "
                f"`{cluster.python or sys.executable} -m dgmm --version` runs there."
            )
            raise ClusterError(msg) from error
        stack.enter_context(machines)
        for process in (machines.scheduler, *machines.workers.values()):
            for stream in (process.proc.stdout, process.proc.stderr):
                machines.loop.add_callback(_drain, stream)
        client = stack.enter_context(Client(machines))
        try:
            yield client
        except SchedulerLost:
            _abandon(machines)
            raise


def _abandon(machines: Any) -> None:
    """Kill the scheduler, so that nobody asks it to end the others."""
    machines.shutdown_scheduler = False
    machines.sync(machines.scheduler.close)


async def _drain(stream: Any) -> None:
    """Read what nobody reads: a process that has written enough would stop and wait."""
    async for _ in stream:
        pass


def _said(error: BaseException | None) -> str:
    """Every cause, outermost first: SSHCluster wraps what a host said."""
    causes = []
    while error is not None:
        causes.append(f"{type(error).__name__}: {error}" if str(error) else type(error).__name__)
        error = error.__cause__
    return ", from ".join(causes)


def _connect_options(cluster: Ssh) -> dict[str, Any]:
    given = {
        "username": cluster.user,
        "port": cluster.ssh_port,
        "client_keys": None if cluster.key is None else [str(Path(cluster.key).expanduser())],
        "known_hosts": None if cluster.known_hosts is None else str(Path(cluster.known_hosts).expanduser()),
    }
    return {
        "connect_timeout": _CONNECT_SECONDS,
        **{name: value for name, value in given.items() if value is not None},
    }


@contextlib.contextmanager
def _certificates(cluster: Ssh) -> Iterator[Certificates | None]:
    """One's own, or temporary ones in a private folder of each host and of this machine."""
    if cluster.tls != "temporary":
        yield cluster.tls
        return
    folder = f"{cluster.tls_directory}/{TLS_FOLDER}{secrets.token_hex(8)}"
    with temporary_files(Path(folder)) as found:
        try:
            _wait_for(_copy(cluster, folder, found))
            yield found
        finally:
            _wait_for(_on_each_host(cluster, f"rm -rf {folder}"))


def _wait_for(coroutine: Coroutine[Any, Any, None]) -> None:
    """Run it in a thread of its own: that of a notebook runs a loop already."""
    with ThreadPoolExecutor(1) as thread:
        thread.submit(asyncio.run, coroutine).result()


async def _copy(cluster: Ssh, folder: str, found: Certificates) -> None:
    import asyncssh

    for host in dict.fromkeys(cluster.hosts):
        async with asyncssh.connect(host, **_connect_options(cluster)) as connection:
            await connection.run(f"mkdir -p -m 700 {folder}", check=True, timeout=_CONNECT_SECONDS)
            for path in {found.cert, found.key}:
                # Neither a file that others could read for a moment, nor a key on a command line.
                command = f"umask 077 && cat > {path}"
                await connection.run(command, input=Path(path).read_text(), check=True, timeout=_CONNECT_SECONDS)


async def _on_each_host(cluster: Ssh, command: str) -> None:
    import asyncssh

    for host in dict.fromkeys(cluster.hosts):
        with contextlib.suppress(OSError, asyncssh.Error):
            async with asyncssh.connect(host, **_connect_options(cluster)) as connection:
                await connection.run(command, timeout=_CONNECT_SECONDS)
