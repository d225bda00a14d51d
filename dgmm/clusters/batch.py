"""Workers that are jobs of Slurm, PBS, LSF or Grid Engine, by way of dask-jobqueue."""

from __future__ import annotations

import contextlib
import logging
import secrets
import shlex
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from dgmm.clusters.follow import TLS_FOLDER
from dgmm.clusters.keeper import Keeper
from dgmm.clusters.schema import Batch, Certificates, Lsf, Pbs, Sge
from dgmm.clusters.tls import security_of, temporary_files
from dgmm.errors import ClusterError

_log = logging.getLogger(__name__)
_CLASSES = {"slurm": "SLURMCluster", "pbs": "PBSCluster", "lsf": "LSFCluster", "sge": "SGECluster"}
# Workers leave before their job is ended, not all at once, and hand on what they hold.
_MARGIN = 1 / 20
_LONGEST_MARGIN_S = 120
_LOGS = "FOLDER-OF-THE-LOGS"
_POLL_SECONDS = 0.1


def describe(cluster: Batch) -> str:
    """How many jobs are submitted, and the script of one."""
    # The real ones are made when the cluster starts; a key never shows in a script.
    tls = cluster.tls if isinstance(cluster.tls, Certificates) else None
    if cluster.tls == "temporary":
        folder = cluster.tls_directory or str(Path.cwd())
        tls = Certificates(**{name: f"{folder}/temporary-{name}.pem" for name in ("ca", "cert", "key")})
    job_class = _cluster_class(cluster).job_cls
    protocol = "tls://" if tls else "tcp://"
    # dask-jobqueue makes the folder of the logs as soon as it describes a job: it gets another one.
    options, logs = _job_options(cluster), cluster.log_directory
    options["log_directory"] = logs and _LOGS
    with tempfile.TemporaryDirectory() as elsewhere, contextlib.chdir(elsewhere):
        script = job_class(
            scheduler=f"{protocol}SCHEDULER:{cluster.port or 'PORT'}",
            name="WORKER",
            protocol=protocol if tls else None,
            security=_unchecked_security(tls),
            **options,
        ).job_script()
    script = script.replace(_LOGS, logs or "")
    workers, each = cluster.workers, cluster.processes
    if workers.count is not None:
        size = f"{workers.count // each} job(s)"
    else:
        size = f"{-(-workers.minimum // each)} to {-(-workers.maximum // each)} job(s)"  # type: ignore[operator]
    return f"{size} of {each} worker(s), each by {job_class.submit_command} of this script:\n\n{script}"


@contextlib.contextmanager
def start(cluster: Batch) -> Iterator[Any]:
    """A client of a scheduler in this process whose workers are jobs; those that end are submitted again.

    Raises
    ------
    ClusterError
        The batch system refuses the jobs.
    """
    from distributed import Client

    refusals: list[str] = []
    with contextlib.ExitStack() as stack:
        try:
            jobs = _scheduler_of(cluster, refusals, stack)
        except (OSError, RuntimeError, ValueError) as error:
            msg = (
                f"no scheduler for the jobs can be started here: {error}. Check interface, port, "
                "log_directory and tls_directory of the cluster file."
            )
            raise ClusterError(msg) from error
        stack.enter_context(jobs)
        workers = cluster.workers
        if workers.count is None:
            jobs.adapt(minimum=workers.minimum, maximum=workers.maximum)
        else:
            jobs.scale(workers.count)
            _wait_until_submitted(jobs, workers.count // cluster.processes, refusals, workers.wait)
        client = stack.enter_context(Client(jobs))
        keeper = Keeper(jobs)
        jobs.loop.add_callback(keeper.start)
        try:
            yield client
        finally:
            jobs.loop.add_callback(keeper.stop)


def _scheduler_of(cluster: Batch, refusals: list[str], stack: contextlib.ExitStack) -> Any:
    if isinstance(cluster.tls, str):
        folder = Path(cluster.tls_directory or ".").absolute() / f"{TLS_FOLDER}{secrets.token_hex(8)}"
        tls: Certificates | None = stack.enter_context(temporary_files(folder))
    else:
        tls = cluster.tls
    cluster_class = _cluster_class(cluster)
    return cluster_class(
        job_cls=_recording(cluster_class.job_cls, refusals),
        scheduler_options={"dashboard_address": cluster.dashboard, "port": cluster.port},
        security=security_of(tls),
        silence_logs=False,
        **_job_options(cluster),
    )


def _cluster_class(cluster: Batch) -> Any:
    import dask_jobqueue

    return getattr(dask_jobqueue, _CLASSES[cluster.kind])  # type: ignore[attr-defined]


def _unchecked_security(tls: Certificates | None) -> Any:
    from distributed.security import Security

    if tls is None:
        return None
    return Security(tls_ca_file=tls.ca, tls_worker_cert=tls.cert, tls_worker_key=tls.key)


def _job_options(cluster: Batch) -> dict[str, Any]:
    workers = cluster.workers
    walltime = cluster.walltime
    if isinstance(cluster, Lsf):
        walltime = max(walltime // 60, 1) * 60  # it counts minutes
    margin = int(min(walltime * _MARGIN, _LONGEST_MARGIN_S))
    lifetime = ["--lifetime", f"{walltime - 2 * margin}s", "--lifetime-stagger", f"{margin}s"]
    exports = [f"export {name}={shlex.quote(value)}" for name, value in workers.environment.items()]
    cores = cluster.processes * workers.threads
    options: dict[str, Any] = {
        "cores": cores,
        "memory": f"{workers.memory * cluster.processes}B",
        "processes": cluster.processes,
        "queue": cluster.queue,
        "walltime": _clock(walltime),
        "job_name": cluster.job_name,
        "job_extra_directives": list(cluster.directives),
        "job_script_prologue": [*exports, *cluster.prologue],
        "worker_extra_args": [*lifetime, "--dashboard-address", "127.0.0.1:0"],
        "local_directory": workers.scratch,
        "python": cluster.python,
        "log_directory": cluster.log_directory,
        "interface": cluster.interface,
        "project" if isinstance(cluster, Lsf | Sge) else "account": cluster.account,
    }
    match cluster:
        case Pbs(resources=resources):
            options["resource_spec"] = resources
        case Lsf(memory_unit=unit):
            options |= {"lsf_units": unit, "walltime": _clock(walltime).rsplit(":", 1)[0]}
        case Sge(resources=resources, parallel_environment=environment):
            options["resource_spec"] = resources
            if environment is not None:
                options["job_extra_directives"].append(f"-pe {environment} {cores}")
    return options


def _clock(seconds: int) -> str:
    minutes, seconds = divmod(seconds, 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours:02d}:{minutes:02d}:{seconds:02d}"


def _recording(job_class: Any, refusals: list[str]) -> Any:
    """A job class that notes a refused submission: dask-jobqueue would take the job for a running one."""
    from distributed.core import Status

    class Job(job_class):  # type: ignore[misc]
        async def start(self) -> None:
            try:
                await super().start()
            except (RuntimeError, ValueError, OSError) as error:
                refusals.append(" ".join(str(error).split()))
                _log.warning("%s refused a worker job: %s", self.submit_command, refusals[-1])
                self.status = Status.running

        async def close(self) -> None:
            await super().close()
            self.status = Status.closed

    return Job


def _wait_until_submitted(jobs: Any, expected: int, refusals: list[str], limit: float) -> None:
    """Return once the batch system has answered; refuse to wait in a queue where no job stands."""
    deadline = time.monotonic() + limit
    while len(jobs.workers) < expected:
        if time.monotonic() > deadline:
            msg = f"the batch system has not answered for {limit} s; look at it, and run the same command again"
            raise ClusterError(msg)
        time.sleep(_POLL_SECONDS)
    if len(refusals) >= expected:
        msg = (
            f"the batch system refused all {expected} worker job(s): {refusals[0]} Correct the cluster file; "
            "`dgmm cluster check` shows the script."
        )
        raise ClusterError(msg)
