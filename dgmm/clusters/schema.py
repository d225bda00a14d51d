"""What a cluster's YAML file may say, kind by kind."""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal, Self

from dask.utils import parse_bytes, parse_timedelta
from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Discriminator,
    Field,
    StringConstraints,
    Tag,
    model_validator,
)

_CLOCK = re.compile(r"(?:(?P<d>\d+)-)?(?P<h>\d+):(?P<m>\d\d):(?P<s>\d\d)")


def _number(value: Any) -> Any:
    """Read what an environment variable gave."""
    return int(value) if isinstance(value, str) and value.isdecimal() else value


def _bytes(value: Any) -> Any:
    if not isinstance(value, str):
        return value
    try:
        return int(parse_bytes(value))
    except ValueError:
        msg = f"{value!r} is not a size; expected bytes such as 4GiB or 500MB"
        raise ValueError(msg) from None


def _seconds(value: Any) -> Any:
    """Read 04:00:00, 1-00:00:00 or 10m; not 04:00, which is hours to some batch systems and minutes to others."""
    if not isinstance(value, str):
        return value
    if match := _CLOCK.fullmatch(value):
        days, hours, minutes, seconds = (int(match[part] or 0) for part in "dhms")
        return ((days * 24 + hours) * 60 + minutes) * 60 + seconds
    try:
        return int(parse_timedelta(value))
    except (ValueError, KeyError):
        msg = f"{value!r} is not a time; expected hours, minutes and seconds as in 04:00:00, or 10m"
        raise ValueError(msg) from None


Number = Annotated[int, BeforeValidator(_number), Field(ge=1)]
Port = Annotated[int, BeforeValidator(_number), Field(ge=0, le=65535)]
Bytes = Annotated[int, BeforeValidator(_bytes), Field(ge=1)]
Seconds = Annotated[int, BeforeValidator(_seconds), Field(ge=1)]
Text = Annotated[str, StringConstraints(min_length=1)]


class Part(BaseModel):
    """A mapping of the file: unknown keys and values of other types are refused, nothing is guessed."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class Certificates(Part):
    """TLS with certificates of one's own: PEM files, under the same paths for driver and workers."""

    ca: Text = Field(description="who signed them")
    cert: Text = Field(description="what this side shows")
    key: Text = Field(description="its private key")


def _tls_form(value: Any) -> str:
    return "files" if isinstance(value, dict | Certificates) else "temporary"


Tls = Annotated[
    Annotated[Literal["temporary"], Tag("temporary")] | Annotated[Certificates, Tag("files")],
    Discriminator(_tls_form),
]
_TLS = "'temporary' (certificates made for this run), or the files ca, cert and key"


class Waiting(Part):
    """Workers that somebody else starts."""

    wait: Seconds = Field(3600, description="time without any worker after which a run gives up")


class Processes(Waiting):
    """Worker processes."""

    threads: Number = Field(1, description="threads of a worker process; one is best")
    memory: Bytes | None = Field(None, description="memory of a worker process; a share of the machine's if unset")
    scratch: Text | None = Field(None, description="folder for what does not fit in memory")


class LocalWorkers(Processes):
    """Worker processes of this machine."""

    count: Number | None = Field(None, description="worker processes; one for each core if unset")


class SizedWorkers(Processes):
    """A fixed number of workers (`count`), or one that follows the load (`minimum` to `maximum`)."""

    memory: Bytes = Field(description="memory of a worker process, such as 4GiB")
    count: Number | None = Field(None, description="worker processes, fixed")
    minimum: Number | None = Field(None, description="worker processes at least, instead of count")
    maximum: Number | None = Field(None, description="worker processes at most, instead of count")
    environment: dict[str, str] = Field({}, description="environment variables of the workers")

    @model_validator(mode="after")
    def _one_size(self) -> Self:
        bounds = (self.minimum, self.maximum)
        if (self.count is None) == (bounds == (None, None)) or (self.count is None and None in bounds):
            msg = "expected either count, or both minimum and maximum"
            raise ValueError(msg)
        if self.minimum is not None and self.maximum is not None and self.minimum > self.maximum:
            msg = f"minimum {self.minimum} exceeds maximum {self.maximum}"
            raise ValueError(msg)
        return self


class HostWorkers(Processes):
    """Worker processes of several hosts."""

    per_host: Number = Field(1, description="worker processes on each host")


class Local(Part):
    """Worker processes of this machine."""

    kind: Literal["local"]
    workers: LocalWorkers = LocalWorkers()


class Batch(Part):
    """Workers that are jobs of a batch system."""

    workers: SizedWorkers
    queue: Text | None = Field(None, description="queue (Slurm: partition); the system's default if unset")
    account: Text | None = Field(None, description="who pays: account or project")
    walltime: Seconds = Field(description="time limit of a job, such as 04:00:00; workers leave a little earlier")
    processes: Number = Field(1, description="worker processes in a job")
    job_name: Text = Field("dgmm-worker", description="name of the jobs")
    directives: list[Text] = Field([], description="more lines for the batch system, without its prefix")
    prologue: list[Text] = Field([], description="shell lines before the worker starts")
    python: Text | None = Field(None, description="interpreter of the workers; the driver's if unset")
    log_directory: Text | None = Field(None, description="folder of the jobs' logs")
    interface: Text | None = Field(None, description="network interface of scheduler and workers, such as ib0")
    port: Port = Field(0, description="of the scheduler; any free one if 0")
    dashboard: Text = Field("127.0.0.1:0", description="where the dashboard listens, on the driver's machine")
    tls: Tls | None = Field(None, description=_TLS)
    tls_directory: Text | None = Field(
        None, description="where temporary certificates are put for the workers; the working directory if unset"
    )

    @model_validator(mode="after")
    def _whole_jobs(self) -> Self:
        if self.workers.count is not None and self.workers.count % self.processes:
            msg = f"workers.count {self.workers.count} is not a multiple of processes {self.processes}"
            raise ValueError(msg)
        return self


class Slurm(Batch):
    """Workers that are Slurm jobs."""

    kind: Literal["slurm"]


class Pbs(Batch):
    """Workers that are PBS jobs."""

    kind: Literal["pbs"]
    resources: Text | None = Field(None, description="in place of select=1:ncpus=...:mem=...")


class Lsf(Batch):
    """Workers that are LSF jobs."""

    kind: Literal["lsf"]
    memory_unit: Literal["kb", "mb", "gb", "tb"] | None = Field(
        None, description="LSF_UNIT_FOR_LIMITS; read from lsf.conf if unset"
    )


class Sge(Batch):
    """Workers that are Grid Engine jobs."""

    kind: Literal["sge"]
    resources: Text | None = Field(
        None, description="such as h_vmem=4G: what limits memory has another name in every installation"
    )
    parallel_environment: Text | None = Field(None, description="what gives a job several cores, such as smp")

    @model_validator(mode="after")
    def _cores(self) -> Self:
        cores = self.processes * self.workers.threads
        if cores > 1 and self.parallel_environment is None:
            msg = f"a job of {cores} cores needs parallel_environment, such as smp (qconf -spl lists them)"
            raise ValueError(msg)
        return self


class Mpi(Part):
    """Workers that are ranks of the mpiexec that runs dgmm: rank 0 schedules, rank 1 drives, the others work."""

    kind: Literal["mpi"]
    workers: Processes = Processes()
    interface: Text | None = Field(None, description="network interface of scheduler and workers, such as ib0")
    dashboard: Text = Field("127.0.0.1:0", description="where the dashboard listens, on the machine of rank 0")
    tls: Certificates | None = Field(None, description="the files ca, cert and key")


class Ssh(Part):
    """Workers on machines that answer to ssh; the scheduler runs on the first of them."""

    kind: Literal["ssh"]
    hosts: Annotated[list[Text], Field(min_length=1, description="names or addresses; each gets workers")]
    workers: HostWorkers = HostWorkers()
    user: Text | None = Field(None, description="who logs in; you if unset")
    ssh_port: Port | None = Field(None, description="of the ssh servers; 22 if unset")
    key: Text | None = Field(None, description="private key; ssh-agent and ~/.ssh if unset")
    known_hosts: Text | None = Field(None, description="keys of the hosts; ~/.ssh/known_hosts if unset")
    python: Text | None = Field(None, description="interpreter on the hosts; the driver's path if unset")
    interface: Text | None = Field(None, description="network interface of scheduler and workers, such as eth0")
    port: Port = Field(0, description="of the scheduler; any free one if 0")
    dashboard: Text = Field("127.0.0.1:0", description="where the dashboard listens, on the first host")
    tls: Tls | None = Field(None, description=_TLS)
    tls_directory: Text = Field("/tmp", description="where temporary certificates are put, on every machine")  # noqa: S108


class Volume(Part):
    """A persistent volume claim, mounted where the workers run."""

    claim: Text = Field(description="its name")
    path: Text = Field(description="where it is mounted")


class Kubernetes(Part):
    """Workers that are pods, made by the Dask operator."""

    kind: Literal["kubernetes"]
    workers: SizedWorkers
    image: Text = Field(description="container image with dgmm in it, of the driver's version")
    name: Annotated[str, StringConstraints(pattern=r"^[a-z]([-a-z0-9]{0,51}[a-z0-9])?$")] = Field(
        "dgmm", description="name of the DaskCluster; two runs at the same time need two"
    )
    namespace: Text | None = Field(None, description="the current one if unset")
    volumes: list[Volume] = Field([], description="where the data are: claim and path of each")


class Existing(Part):
    """A cluster that runs already."""

    kind: Literal["scheduler"]
    workers: Waiting = Waiting()
    address: Text | None = Field(None, description="of the scheduler, such as tls://node17:8786")
    file: Text | None = Field(None, description="the scheduler file, instead of address")
    tls: Certificates | None = Field(None, description="the files ca, cert and key")

    @model_validator(mode="after")
    def _one_place(self) -> Self:
        if (self.address is None) == (self.file is None):
            msg = "expected either address or file"
            raise ValueError(msg)
        return self


Cluster = Local | Slurm | Pbs | Lsf | Sge | Mpi | Ssh | Kubernetes | Existing
KINDS: dict[str, type[Cluster]] = {
    "local": Local, "slurm": Slurm, "pbs": Pbs, "lsf": Lsf, "sge": Sge, "mpi": Mpi, "ssh": Ssh,
    "kubernetes": Kubernetes, "scheduler": Existing,
}  # fmt: skip
# Lines that the shell of a worker's job reads: their variables are those of its machine.
SHELL_KEYS = ("prologue", "workers.scratch")
