"""Who owns a folder, as a small file says it, and whether that process still runs."""

from __future__ import annotations

import json
import os
import socket
import uuid
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Self

import psutil

JOB_VARIABLES = ("SLURM_JOB_ID", "PBS_JOBID", "LSB_JOBID", "JOB_ID")


@dataclass(frozen=True, slots=True)
class Owner:
    """What an owner's file says.

    Attributes
    ----------
    epoch : int
        Higher than any owner's before.
    renewed : float
        When it was last written, in seconds since 1970 by its own clock.
    host, boot : str
        The machine, and what tells it from others of the same name.
    pid : int
    started : float
    job : str
        Of a batch system.
    token : str
        Tells this owner from any other.
    released : bool
        It has ended its work.
    """

    epoch: int
    renewed: float
    host: str
    boot: str = ""
    pid: int = 0
    started: float = 0.0
    job: str = ""
    token: str = ""
    released: bool = False

    @classmethod
    def myself(cls, epoch: int, now: float) -> Self:
        """This process."""
        process = psutil.Process()
        started, token = process.create_time(), uuid.uuid4().hex
        return cls(epoch, now, socket.gethostname(), boot_id(), process.pid, started, job(), token)

    @classmethod
    def unpack(cls, content: bytes, epoch: int, written: float) -> Self:
        """Read a record; of one cut short by a crash, only its age is known."""
        try:
            return cls(**{**json.loads(content), "epoch": epoch})
        except (ValueError, TypeError):
            return cls(epoch=epoch, host="an unknown host", renewed=written)

    def pack(self) -> bytes:
        """The content of the file."""
        return json.dumps(asdict(self), sort_keys=True).encode()

    def is_here(self) -> bool:
        """Whether the process number means something to us."""
        return self.host == socket.gethostname() and self.boot == boot_id()

    def is_running(self) -> bool:
        """Whether the process, which is here, has not ended."""
        try:
            process = psutil.Process(self.pid)
            # Numbers are used again, so the start time (to 1 s) must match; a zombie has ended.
            same = abs(process.create_time() - self.started) <= 1.0
            return same and process.status() != psutil.STATUS_ZOMBIE
        except psutil.NoSuchProcess:
            return False
        except psutil.AccessDenied:
            return True

    def __str__(self) -> str:
        job = f", job {self.job}" if self.job else ""
        here = " (this very process)" if self.is_here() and self.pid == os.getpid() else ""
        return f"process {self.pid}{here} on {self.host}{job}"


def boot_id() -> str:
    """Tell machines, and containers, of one name apart, where Linux lets us."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{boot} {Path('/proc/self/ns/pid').readlink()}"
    except OSError:
        return ""


def job() -> str:
    """The batch job that this process runs in, or ''."""
    return next((os.environ[name] for name in JOB_VARIABLES if os.environ.get(name)), "")
