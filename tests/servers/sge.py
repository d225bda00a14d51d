"""A private Grid Engine with one host, so that tests submit real jobs to it."""

from __future__ import annotations

import os
import re
import socket
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from xml.etree import ElementTree as ET

import psutil

from servers.slurm import PATH, START, STOP, daemon, free_ports, kill, poll
from servers.slurm import missing as missing_commands

LIBRARY, SHARE, ROOT = Path("/usr/lib/gridengine"), Path("/usr/share/gridengine"), Path("/var/lib/gridengine")

BOOTSTRAP = """
admin_user {user}
default_domain none
ignore_fqdn false
spooling_method classic
spooling_lib libspoolc
spooling_params {common};{master}
binary_path /usr/sbin
qmaster_spool_dir {master}
security_mode none
listener_threads 2
worker_threads 2
scheduler_threads 1
"""
# What differs from the defaults. The groups mark the processes of a job: no other server's may be the same. A job
# that exits with 99 runs again only after the host's next report.
CONFIGURATION = """
execd_spool_dir {folder}/execd
min_uid 0
min_gid 0
load_report_time 00:00:01
gid_range {group}-{last_group}
reporting_params accounting=true reporting=false accounting_flush_time=00:00:00 joblog=false
"""
SCHEDULER = """
schedule_interval 0:0:1
flush_submit_sec 1
flush_finish_sec 1
job_load_adjustments NONE
"""
QUEUE = """
qname main.q
hostlist localhost
slots {slots}
rerun TRUE
pe_list smp
load_thresholds NONE
notify 00:00:05
"""


def missing() -> str:
    """What is not installed, for the reason of a skip; '' if all is."""
    return missing_commands(("sge_qmaster", "sge_execd", "qacct", "qconf", "qdel", "qhost", "qstat", "qsub"))


class Sge:
    """A running server. Jobs start in `folder`, where their output stays."""

    def __init__(self, folder: Path, ports: list[int]) -> None:
        self.folder = folder
        self.environment = {
            "SGE_ROOT": str(folder),
            "SGE_CELL": "default",
            "SGE_QMASTER_PORT": str(ports[0]),
            "SGE_EXECD_PORT": str(ports[1]),
        }

    def call(self, *command: str, env: dict[str, str] | None = None, check: bool = True) -> str:
        env = {**os.environ, "PATH": PATH, **self.environment, **(env or {})}
        done = subprocess.run(command, cwd=self.folder, env=env, capture_output=True, text=True, timeout=60)
        assert not (check and done.returncode), f"{command}: {done.stdout}{done.stderr}"
        return done.stdout

    def submit(self, script: Path, *options: str, env: dict[str, str] | None = None) -> str:
        # `-terse` answers '7' for a job and '7.1-4:1' for an array
        return self.call("qsub", "-terse", "-cwd", *options, str(script), env=env).strip().partition(".")[0]

    def states(self) -> dict[str, str]:
        """Of all jobs that wait or run."""
        entries = ET.fromstring(self.call("qstat", "-xml", "-u", "*")).iter("job_list")
        return {entry.findtext("JB_job_number", ""): entry.findtext("state", "") for entry in entries}

    def state(self, job: str) -> str:
        """'qw' waiting, 'r' running, 'Rr' running again, 'Eqw' failed to start; '' once it is gone."""
        return self.states().get(job, "")

    def wait(self, job: str, states: set[str], timeout: float = 60) -> None:
        poll(
            lambda: self.state(job) in states,
            timeout,
            lambda: f"{self.states()}[{job}] not in {states}\n{self.logs()}",
        )

    def wait_gone(self, job: str, timeout: float = 60) -> None:
        self.wait(job, {""}, timeout)

    def accounting(self, job: str) -> list[dict[str, str]]:
        """The fields of qacct, such as `exit_status` and `failed`, of each time that the job ran."""
        runs = self.call("qacct", "-j", job, check=False).split("=" * 62)[1:]
        return [dict(re.findall(r"^(\w+) +(.*?) *$", run, re.MULTILINE)) for run in runs]

    def delete(self, job: str) -> None:
        self.call("qdel", job)

    def logs(self) -> str:
        files = sorted([*self.folder.glob("*.log"), *self.folder.glob("*/messages"), *self.folder.glob("*.o*")])
        return "\n".join(f"--- {file}\n{file.read_text(errors='replace')[-4000:]}" for file in files)

    def clear(self) -> bool:
        """Delete what waits, kill what runs."""
        if jobs := self.states():
            self.call("qdel", *jobs, check=False)
        self.sweep()
        return not jobs

    def sweep(self) -> None:
        kill(self._in_job)

    def _in_job(self, process: psutil.Process) -> bool:
        its = process.environ()
        return "JOB_ID" in its and its.get("SGE_ROOT") == self.environment["SGE_ROOT"]

    def initialize(self, group: int) -> None:
        """What installing the packages does for a server of the whole machine."""
        common, master = self.folder / "default" / "common", self.folder / "qmaster"
        user = psutil.Process().username()
        for new in (common, master / "job_scripts", self.folder / "execd"):
            new.mkdir(parents=True)
        for name in ("bin", "lib", "util", "utilbin"):
            (self.folder / name).symlink_to(ROOT / name)
        (common / "bootstrap").write_text(BOOTSTRAP.format(common=common, master=master, user=user))
        (common / "act_qmaster").write_text("localhost\n")
        (common / "host_aliases").write_text(f"localhost {socket.gethostname()} {socket.getfqdn()}\n")
        changes = CONFIGURATION.format(folder=self.folder, group=group, last_group=group + 15)
        configuration = self.write("configuration", (SHARE / "default-configuration").read_text(), changes)
        self.call(f"{LIBRARY}/spoolinit", "classic", "libspoolc", f"{common};{master}", "init")
        for kind, value in {
            "configuration": configuration,
            "complexes": f"{SHARE}/util/resources/centry",
            "usersets": f"{SHARE}/util/resources/usersets",
            "managers": user,
        }.items():
            self.call(f"{LIBRARY}/spooldefaults", kind, value)

    def add_queue(self, slots: int) -> None:
        self.call("qconf", "-as", "localhost")
        self.call("qconf", "-Msconf", self.write("scheduler", self.call("qconf", "-ssconf"), SCHEDULER))
        self.call("qconf", "-Ap", f"{SHARE}/util/resources/pe/smp")
        self.call("qconf", "-Aq", self.write("queue", self.call("qconf", "-sq"), QUEUE.format(slots=slots)))

    def write(self, name: str, defaults: str, changes: str) -> str:
        """A file of lines of a name and its value."""
        lines = dict(re.findall(r"^(\w+)[ \t]+(.*)$", defaults + changes, re.MULTILINE))
        path = self.folder / name
        path.write_text("".join(f"{key} {value}\n" for key, value in lines.items()))
        return str(path)


@contextmanager
def sge(folder: Path, slots: int = 4) -> Iterator[Sge]:
    """A Grid Engine of the current user in a new folder, with one queue of at most 15 slots."""
    folder = folder.resolve()
    folder.mkdir(parents=True)
    ports = free_ports(2)
    server = Sge(folder, ports)
    server.initialize(group=8 * ports[0])
    with ExitStack() as stack:
        stack.callback(server.sweep)

        def start(command: str, *probe: str, answer: str) -> None:
            def up() -> bool:
                assert process.poll() is None, server.logs()
                return answer in server.call(*probe, check=False)

            process = stack.enter_context(daemon(folder, {**server.environment, "SGE_ND": "1"}, command))
            stack.callback(process.kill)  # in good order it takes 8 s to save what is then thrown away
            poll(up, START, server.logs)

        start("sge_qmaster", "qconf", "-sh", answer="localhost")
        server.add_queue(slots)
        start("sge_execd", "qhost", "-h", "localhost", answer="lx-")
        try:
            yield server
        finally:
            poll(server.clear, STOP, server.logs)
