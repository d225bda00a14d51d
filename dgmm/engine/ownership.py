"""One driver at a time in a directory, without locks.

Locks do not work on every network file system, so the owner is a small file,
``owner-000007.json``: host, process, job, and when it was last renewed. The
number is the *epoch*. A directory is taken by creating the file of the next
epoch, which only one process can do, whoever else tries; the highest epoch is
the owner, found by looking. Nobody writes to another's file, so a driver that
was frozen while it was superseded can overwrite nothing when it wakes. The last
file stays after a release, so epochs never go down.

On one machine an owner is alive if its process is. From another machine only
its renewals can be seen: its file is rewritten every few seconds.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import socket
import threading
import time
import uuid
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Self

import psutil

from dgmm.engine import archive
from dgmm.errors import CheckpointError, CheckpointInUse, Superseded, WriteFailed

_OWNER = re.compile(r"owner-(\d{6,})\.json")
_LEFTOVER = re.compile(r"\.owner-(\d{6,})\.json\..*|owner-(\d{6,})\.(?:json|\w+\.claim)")
_JOB_VARIABLES = ("SLURM_JOB_ID", "PBS_JOBID", "LSB_JOBID", "JOB_ID")
_BATCH_WAIT_S = 90.0


@dataclass(frozen=True, slots=True)
class _Record:
    """What an owner's file says."""

    epoch: int
    renewed: float
    host: str
    boot: str = ""
    pid: int = 0
    started: float = 0.0
    job: str = ""
    token: str = ""
    released: bool = False


class Ownership:
    """The right of one driver to write in a directory.

    Parameters
    ----------
    directory
        An existing directory.
    clock
        Seconds since 1970, to be replaced in tests.
    lease_s
        An owner on another machine is given up after this long without renewal.
    renew_s
        Seconds between renewals.
    """

    def __init__(
        self,
        directory: Path,
        *,
        clock: Callable[[], float] = time.time,
        lease_s: float = 60.0,
        renew_s: float = 5.0,
    ) -> None:
        self._directory = directory
        self._clock = clock
        self._lease_s = lease_s
        self._renew_s = renew_s
        self._mine: _Record | None = None
        self._stop = threading.Event()
        self._renewal: threading.Thread | None = None

    @property
    def epoch(self) -> int:
        """The epoch of this ownership."""
        return self._owned().epoch

    def acquire(self, wait_s: float | None = None) -> int:
        """Take the directory and return the epoch.

        Parameters
        ----------
        wait_s
            How long to wait for an owner on another machine to end or to
            fall silent. Default: 90 s in a batch job, where the job that ran
            before may just have died elsewhere; otherwise 0.

        Raises
        ------
        CheckpointInUse
            Another driver, which may be in this very process, is at work.
        WriteFailed
            The directory cannot be written to.
        """
        if self._mine:
            return self._mine.epoch
        if wait_s is None:
            wait_s = _BATCH_WAIT_S if _job() else 0.0
        begun = since = self._clock()
        seen: _Record | None = None
        while True:
            owner = self._look()
            now = self._clock()
            if owner != seen:
                seen, since = owner, now
            if owner is None or self._is_gone(owner, now - since, wait_s):
                if self._claim(owner.epoch + 1 if owner else 1):
                    return self.epoch
            elif _is_here(owner) or now - begun >= wait_s:
                raise self._in_use(owner)
            else:
                time.sleep(min(1.0, self._renew_s, wait_s))

    def check(self) -> None:
        """Raise `Superseded` unless the directory is still ours; call before each write."""
        mine, owner = self._owned(), self._look()
        if owner is None:
            msg = f"{self._directory} was emptied while this driver was at work in it; run it again to start anew"
            raise Superseded(msg)
        if owner.token != mine.token:
            epochs = f"epoch {owner.epoch}, ours was {mine.epoch}"
            msg = f"{self._directory} was taken over by {_name(owner)} ({epochs}); it goes on, this driver stops"
            raise Superseded(msg)

    def release(self) -> None:
        """Let others have the directory. The file stays, marked as released."""
        if self._mine is None:
            return
        self._stop.set()
        if self._renewal:
            self._renewal.join()
        # An unmarked record goes stale by itself; a full disk must not hide what ended the fit.
        with contextlib.suppress(WriteFailed):
            self._renew(released=True)
        self._mine = None

    def __enter__(self) -> Self:
        self.acquire()
        return self

    def __exit__(self, *_: object) -> None:
        self.release()

    def _owned(self) -> _Record:
        if self._mine is None:
            msg = f"{self._directory} is not owned by this driver; acquire it first, in a with statement"
            raise CheckpointError(msg)
        return self._mine

    def _path(self, epoch: int) -> Path:
        return self._directory / f"owner-{epoch:06d}.json"

    def _look(self) -> _Record | None:
        """Return the record of the highest epoch."""
        while True:
            names = os.listdir(self._directory) if self._directory.is_dir() else []  # noqa: PTH208
            epochs = [int(match[1]) for name in names if (match := _OWNER.fullmatch(name))]
            if not epochs:
                return None
            # It may be gone by now, but then a higher one is there.
            with contextlib.suppress(FileNotFoundError):
                return _read(self._path(max(epochs)), max(epochs))

    def _is_gone(self, owner: _Record, silent_s: float, wait_s: float) -> bool:
        """Whether an owner, unchanged for `silent_s` of our clock, is no more."""
        if owner.released:
            return True
        if _is_here(owner):
            return not _is_running(owner)
        # Silence on our own clock is proof. The other machine's stamp is none, for
        # clocks differ; who cannot wait has nothing else, who can also listens a while.
        expired = self._clock() - owner.renewed > self._lease_s
        return silent_s > self._lease_s or (expired and silent_s >= min(wait_s, 3 * self._renew_s))

    def _claim(self, epoch: int) -> bool:
        """Try to become the owner of an epoch; of all who try, one succeeds."""
        mine = _myself(epoch, self._clock())
        claim = self._directory / f"owner-{epoch:06d}.{mine.token}.claim"
        content = _content(mine)
        archive.write(claim, content)
        try:
            # Linking never replaces, and what it creates is whole at once.
            self._path(epoch).hardlink_to(claim)
        except (FileExistsError, FileNotFoundError):
            pass
        except OSError:  # no hard links on this file system
            with contextlib.suppress(FileExistsError), self._path(epoch).open("xb") as file:
                file.write(content)
        finally:
            claim.unlink(missing_ok=True)
        owner = self._look()
        # The epoch may have been won, used and cleaned away before we linked: then a
        # higher one is there. And a network may report a link that was made as failed.
        if owner is None or owner.token != mine.token:
            with contextlib.suppress(FileNotFoundError):
                if _read(self._path(epoch), epoch).token == mine.token:
                    self._path(epoch).unlink()
            return False
        self._mine = mine
        for path in self._directory.iterdir():
            match = _LEFTOVER.fullmatch(path.name)
            if match and int(match[1] or match[2]) < epoch:
                path.unlink(missing_ok=True)
        self._stop.clear()
        self._renewal = threading.Thread(target=self._keep_renewing, name="dgmm-ownership", daemon=True)
        self._renewal.start()
        return True

    def _keep_renewing(self) -> None:
        while not self._stop.wait(self._renew_s):
            # A full disk now may have room again in five seconds.
            with contextlib.suppress(OSError):
                if not self._renew():
                    return

    def _renew(self, *, released: bool = False) -> bool:
        """Rewrite our own file, if we still are the owner."""
        mine, owner = self._owned(), self._look()
        if owner is None or owner.token != mine.token:
            return False
        archive.write(self._path(mine.epoch), _content(replace(mine, renewed=self._clock(), released=released)))
        return True

    def _in_use(self, owner: _Record) -> CheckpointInUse:
        age = max(0.0, self._clock() - owner.renewed)
        remedy = "wait for it to end, stop it, or choose another directory"
        if not _is_here(owner):
            remedy += f"; if that machine is gone, try again in {max(1.0, self._lease_s - age):.0f} s"
        msg = f"{self._directory} is in use by {_name(owner)}, last seen {age:.0f} s ago; {remedy}"
        return CheckpointInUse(msg)


def _myself(epoch: int, now: float) -> _Record:
    process = psutil.Process()
    started, token = process.create_time(), uuid.uuid4().hex
    return _Record(epoch, now, socket.gethostname(), _boot(), process.pid, started, _job(), token)


def _content(record: _Record) -> bytes:
    return json.dumps(asdict(record), sort_keys=True).encode()


def _read(path: Path, epoch: int) -> _Record:
    """Read a record; of one cut short by a crash, only its age is known."""
    text, written = path.read_bytes(), path.stat().st_mtime
    try:
        return _Record(**{**json.loads(text), "epoch": epoch})
    except (ValueError, TypeError):
        return _Record(epoch=epoch, host="an unknown host", renewed=written)


def _is_here(owner: _Record) -> bool:
    """Whether the owner's process number means something to us."""
    return owner.host == socket.gethostname() and owner.boot == _boot()


def _is_running(owner: _Record) -> bool:
    try:
        process = psutil.Process(owner.pid)
        # Numbers are used again, so the start time (to 1 s) must match; a zombie has ended.
        same = abs(process.create_time() - owner.started) <= 1.0
        return same and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False
    except psutil.AccessDenied:
        return True


def _boot() -> str:
    """Tell machines, and containers, of one name apart, where Linux lets us."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{boot} {Path('/proc/self/ns/pid').readlink()}"
    except OSError:
        return ""


def _job() -> str:
    return next((os.environ[name] for name in _JOB_VARIABLES if os.environ.get(name)), "")


def _name(owner: _Record) -> str:
    job = f", job {owner.job}" if owner.job else ""
    here = " (this very process)" if _is_here(owner) and owner.pid == os.getpid() else ""
    return f"process {owner.pid}{here} on {owner.host}{job}"
