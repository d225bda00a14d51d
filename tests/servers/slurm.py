"""A private Slurm with one node, so that tests submit, signal and requeue real jobs."""

from __future__ import annotations

import os
import re
import shutil
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TypeVar

import psutil

COMMANDS = ("munged", "slurmctld", "slurmd", "sbatch", "scancel", "scontrol", "sinfo", "squeue")
PATH = os.pathsep.join([os.environ.get("PATH", os.defpath), "/usr/local/sbin", "/usr/sbin", "/sbin"])
T = TypeVar("T")
START, STOP = 30, 30  # seconds

# A requeued job waits until its credential has expired: 5 s is the least that Slurm accepts, 120 s its default.
CONFIGURATION = """
ClusterName=test
SlurmctldHost={host}(127.0.0.1)
SlurmUser={user}
SlurmdUser={user}
SlurmctldPort={ports[0]}
SlurmdPort={ports[1]}
AuthInfo=socket={short}/socket,cred_expire=5
StateSaveLocation={short}
SlurmdSpoolDir={short}
SlurmctldPidFile={short}/slurmctld.pid
SlurmdPidFile={short}/slurmd.pid
SlurmdParameters=config_overrides
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
MpiDefault=none
SchedulerParameters=sched_interval=2,bf_interval=2,batch_sched_delay=0
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
ReturnToService=2
KillWait=5
NodeName={host} NodeAddr=127.0.0.1 CPUs={cpus} RealMemory=1000000
PartitionName=main Nodes={host} Default=YES
"""


def missing(commands: tuple[str, ...] = COMMANDS) -> str:
    """The commands that are not installed, for the reason of a skip; '' if all are."""
    return ", ".join(command for command in commands if not shutil.which(command, path=PATH))


class Slurm:
    """A running server. Jobs start in `folder`, where their output stays; a task of an array is called '7_1'."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.environment = {"SLURM_CONF": str(folder / "slurm.conf")}

    def call(self, *command: str, env: dict[str, str] | None = None, check: bool = True) -> str:
        # the tests may themselves run in a job of a Slurm, whose variables would act as options
        outer = {name: value for name, value in os.environ.items() if not name.startswith(("SLURM_", "SBATCH_"))}
        outer |= {"PATH": PATH, **self.environment, **(env or {})}
        done = subprocess.run(command, cwd=self.folder, env=outer, capture_output=True, text=True, timeout=60)
        assert not (check and done.returncode), f"{command}: {done.stderr}"
        return done.stdout

    def submit(self, script: Path, *options: str, env: dict[str, str] | None = None) -> str:
        return self.call("sbatch", "--parsable", *options, str(script), env=env).strip()

    def details(self, job: str) -> dict[str, str]:
        """The fields of `scontrol show job`; none once Slurm has forgotten the job."""
        shown = self.call("scontrol", "show", "job", "-o", job, check=False).partition("\n")[0]
        return dict(re.findall(r"([A-Z][\w/:]*)=(.*?)(?= [A-Z][\w/:]*=|\s*$)", shown))

    def state(self, job: str) -> str:
        return self.details(job).get("JobState", "")

    def wait(self, job: str, states: set[str], timeout: float = 60) -> str:
        """The first of `states` that is seen; one that passes within a tenth of a second may not be."""

        def reached() -> str:
            return state if (state := self.state(job)) in states else ""

        return poll(reached, timeout, lambda: f"{self.details(job)} not in {states}\n{self.logs()}")

    def signal(self, job: str, name: str) -> None:
        """Only to the batch shell, as `--signal=B:` does when the time is nearly up."""
        self.call("scancel", "--batch", "--signal", name, job)

    def cancel(self, job: str) -> None:
        self.call("scancel", job)

    def jobs(self) -> list[str]:
        """Those that wait or run."""
        return self.call("squeue", "--noheader", "--array", "--format=%i").split()

    def logs(self) -> str:
        files = sorted([*self.folder.glob("*.log"), *self.folder.glob("*.out")])
        return "\n".join(f"--- {file}\n{file.read_text(errors='replace')[-4000:]}" for file in files)

    def clear(self) -> bool:
        """Cancel what waits, kill what runs. A job may be requeueing itself, so this is repeated until True."""
        self.call("scancel", "--user", psutil.Process().username())
        kill(self._in_job)
        return not self.jobs()

    def sweep(self) -> None:
        """What is left if slurmctld has crashed: the jobs, and slurmstepd, which waits to report to it."""
        kill(self._in_job)
        kill(lambda process: process.name() == "slurmstepd" and process.cwd() == str(self.folder))

    def _in_job(self, process: psutil.Process) -> bool:
        its = process.environ()
        return "SLURM_JOB_ID" in its and self.environment.items() <= its.items()


def kill(chosen: Callable[[psutil.Process], bool]) -> None:
    for process in psutil.process_iter():
        with suppress(psutil.Error):
            if chosen(process):
                process.kill()


def poll(reached: Callable[[], T], timeout: float, explain: Callable[[], str]) -> T:
    """The first true value of `reached`."""
    deadline = time.monotonic() + timeout
    while not (value := reached()):
        assert time.monotonic() < deadline, f"after {timeout} s: {explain()}"
        time.sleep(0.1)
    return value


def free_ports(count: int) -> list[int]:
    """Ports below those of outgoing connections. Workers of pytest-xdist must not find the same: by process."""
    found: list[int] = []
    port = 10_000 + os.getpid() % 900 * 20
    while len(found) < count:
        with socket.socket() as trial, suppress(OSError):
            trial.bind(("", port))
            found.append(port)
        port += 1
    return found


@contextmanager
def daemon(folder: Path, environment: dict[str, str], *command: str) -> Iterator[subprocess.Popen[bytes]]:
    """In the foreground, but out of reach of a Ctrl-C in the terminal: the jobs end first."""
    with (folder / f"{command[0]}.log").open("ab") as log:
        env = {**os.environ, "PATH": PATH, **environment}
        process = subprocess.Popen(command, cwd=folder, env=env, stdout=log, stderr=log, start_new_session=True)
    try:
        yield process
    finally:
        process.terminate()
        try:
            process.wait(STOP)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


@contextmanager
def slurm(folder: Path, cpus: int = 4) -> Iterator[Slurm]:
    """A Slurm of the current user in a new folder; its one node claims to have `cpus` processors."""
    folder = folder.resolve()
    folder.mkdir(parents=True)
    server = Slurm(folder)
    with ExitStack() as stack:
        # the path of a Unix socket has at most 107 characters, which one in a folder of pytest may exceed
        short = Path(stack.enter_context(TemporaryDirectory(prefix="slurm-")))
        values = {"short": short, "ports": free_ports(2), "user": psutil.Process().username(), "cpus": cpus}
        host = socket.gethostname().partition(".")[0]
        (folder / "slurm.conf").write_text(CONFIGURATION.format(host=host, **values))
        (short / "key").touch(mode=0o600)
        (short / "key").write_bytes(os.urandom(1024))
        stack.callback(server.sweep)
        files = [f"--{name}-file={short}/{name}" for name in ("key", "pid", "log", "seed")]
        commands = [["munged", "--foreground", "--force", f"--socket={short}/socket", *files]]
        commands += [["slurmctld", "-D"], ["slurmd", "-D"]]
        daemons = [stack.enter_context(daemon(folder, server.environment, *command)) for command in commands]

        def idle() -> bool:
            assert all(process.poll() is None for process in daemons), server.logs()
            return server.call("sinfo", "--noheader", "--format=%t", check=False).strip() == "idle"

        poll(idle, START, server.logs)
        try:
            yield server
        finally:
            poll(server.clear, STOP, server.logs)
