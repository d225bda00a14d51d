"""One driver at a time in a folder, without locks.

Locks do not work on every network file system, nor in object stores, so the
owner is a small file, ``owner-000007.json``: host, process, job, and when it was
last renewed. The number is the *epoch*. A folder is taken by creating the file
of the next epoch, which only one process can do, whoever else tries; the highest
epoch is the owner, found by looking. Nobody writes to another's file, so a
driver that was frozen while it was superseded can overwrite nothing when it
wakes. The last file stays after a release, so epochs never go down.

On one machine an owner is alive if its process is. From another machine only
its renewals can be seen: its file is rewritten every few seconds.
"""

from __future__ import annotations

import contextlib
import os
import re
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Self

from dgmm.engine.folder import Changed, Folder, Version
from dgmm.engine.owner import Owner, job
from dgmm.errors import CheckpointError, CheckpointInUse, Superseded

_OWNER = re.compile(r"owner-(\d{6,})\.json")
_BATCH_WAIT_S = 90.0
_held: set[str] = set()  # tokens of this process's owners: a full disk may keep a release from its file


class Ownership:
    """The right of one driver to write in a folder.

    Parameters
    ----------
    folder
        An existing one.
    clock
        Seconds since 1970, to be replaced in tests.
    lease_s
        An owner on another machine is given up after this long without renewal.
    renew_s
        Seconds between renewals.
    """

    def __init__(
        self,
        folder: Folder,
        *,
        clock: Callable[[], float] = time.time,
        lease_s: float = 60.0,
        renew_s: float = 5.0,
    ) -> None:
        self._folder = folder
        self._version: Version | None = None
        self._clock = clock
        self._lease_s = lease_s
        self._renew_s = renew_s
        self._mine: Owner | None = None
        self._stop = threading.Event()
        self._renewal: threading.Thread | None = None

    @property
    def epoch(self) -> int:
        """The epoch of this ownership."""
        return self._owned().epoch

    def acquire(self, wait_s: float | None = None) -> int:
        """Take the folder and return the epoch.

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
        ReadFailed, WriteFailed, StoreError
            The folder cannot be read, or written to. It is no more taken than before.
        CheckpointError
            This store cannot keep drivers apart.
        """
        if self._mine:
            return self._mine.epoch
        if wait_s is None:
            wait_s = _BATCH_WAIT_S if job() else 0.0
        begun = since = self._clock()
        seen: Owner | None = None
        while True:
            owner = self._look()
            now = self._clock()
            if owner != seen:
                seen, since = owner, now
            if owner is None or self._is_gone(owner, now - since, wait_s):
                if self._claim(owner.epoch + 1 if owner else 1):
                    return self.epoch
            elif owner.is_here() or now - begun >= wait_s:
                raise self._in_use(owner)
            else:
                time.sleep(min(1.0, self._renew_s, wait_s))

    def check(self) -> None:
        """Raise `Superseded` unless the folder is still ours; call before each write."""
        mine, owner = self._owned(), self._look()
        if owner is None:
            emptied = f"{self._folder.address} was emptied while this driver was at work in it"
            msg = f"{emptied}; run it again to start anew"
            raise Superseded(msg)
        if owner.token != mine.token:
            epochs = f"epoch {owner.epoch}, ours was {mine.epoch}"
            taken = f"{self._folder.address} was taken over by {owner} ({epochs})"
            msg = f"{taken}; it goes on, this driver stops"
            raise Superseded(msg)

    def release(self) -> None:
        """Let others have the folder. The file stays, marked as released."""
        if self._mine is None:
            return
        self._stop.set()
        if self._renewal:
            self._renewal.join()
        # An unmarked record goes stale by itself; a full disk must not hide what ended the fit.
        with contextlib.suppress(OSError):
            self._renew(released=True)
        _held.discard(self._mine.token)
        self._mine = None

    def __enter__(self) -> Self:
        self.acquire()
        return self

    def __exit__(self, *_: object) -> None:
        self.release()

    def _owned(self) -> Owner:
        if self._mine is None:
            msg = f"{self._folder.address} is not owned by this driver; acquire it first, in a with statement"
            raise CheckpointError(msg)
        return self._mine

    def _look(self) -> Owner | None:
        """Return the record of the highest epoch."""
        while True:
            found = ((_OWNER.fullmatch(file.name), file) for file in self._folder.list())
            owners = {int(match[1]): file for match, file in found if match}
            if not owners:
                return None
            # It may be gone by now, but then a higher one is there.
            with contextlib.suppress(FileNotFoundError):
                newest = max(owners)
                return self._read(newest, owners[newest].modified)

    def _read(self, epoch: int, written: float = 0.0) -> Owner:
        return Owner.unpack(self._folder.read(_name_of(epoch)), epoch, written)

    def _is_gone(self, owner: Owner, silent_s: float, wait_s: float) -> bool:
        """Whether an owner, unchanged for `silent_s` of our clock, is no more."""
        if owner.released:
            return True
        if owner.is_here():
            return owner.token not in _held if owner.pid == os.getpid() else not owner.is_running()
        # Silence on our own clock is proof. The other machine's stamp is none, for
        # clocks differ; who cannot wait has nothing else, who can also listens a while.
        expired = self._clock() - owner.renewed > self._lease_s
        return silent_s > self._lease_s or (expired and silent_s >= min(wait_s, 3 * self._renew_s))

    def _claim(self, epoch: int) -> bool:
        """Try to become the owner of an epoch; of all who try, one succeeds."""
        mine, name = Owner.myself(epoch, self._clock()), _name_of(epoch)
        _held.add(mine.token)
        try:
            # That it is there already may be the answer to our own request, sent again when one was lost.
            with contextlib.suppress(Changed):
                self._folder.put(name, mine.pack(), None)
            owner, version = self._look(), self._folder.version(name)
        except BaseException:
            self._withdraw(mine)
            raise
        # The epoch may have been won, used and cleaned away before we created it: then a
        # higher one is there. And a network may report what was created as failed.
        if owner is None or owner.token != mine.token:
            self._withdraw(mine)
            return False
        self._mine, self._version = mine, version
        self._tidy(epoch)
        self._stop.clear()
        self._renewal = threading.Thread(target=self._keep_renewing, name="dgmm-ownership", daemon=True)
        self._renewal.start()
        return True

    def _withdraw(self, mine: Owner) -> None:
        """Delete our own file, and nobody else's, as far as that is possible."""
        with contextlib.suppress(OSError):
            if self._read(mine.epoch).token == mine.token:
                self._folder.delete(_name_of(mine.epoch))
        _held.discard(mine.token)

    def _tidy(self, epoch: int) -> None:
        """Delete the files of earlier owners, and what killed writers left, as far as that is possible."""
        # Files too many do no harm, for the highest epoch counts.
        with contextlib.suppress(OSError):
            self._folder.sweep()
            for file in self._folder.list():
                match = _OWNER.fullmatch(file.name)
                if match and int(match[1]) < epoch:
                    self._folder.delete(file.name)

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
        name, content = _name_of(mine.epoch), replace(mine, renewed=self._clock(), released=released).pack()
        for _ in range(2):
            try:
                self._version = self._folder.put(name, content, self._version)
            except Changed:
                # By us, in a request whose answer was lost; or a successor has deleted it.
                self._version = self._folder.version(name)
                if self._version is None:
                    return False
            else:
                return True
        return True

    def _in_use(self, owner: Owner) -> CheckpointInUse:
        age = max(0.0, self._clock() - owner.renewed)
        remedy = "wait for it to end, stop it, or choose another directory"
        if not owner.is_here():
            remedy += f"; if that machine is gone, try again in {max(1.0, self._lease_s - age):.0f} s"
        msg = f"{self._folder.address} is in use by {owner}, last seen {age:.0f} s ago; {remedy}"
        return CheckpointInUse(msg)


def _name_of(epoch: int) -> str:
    return f"owner-{epoch:06d}.json"
