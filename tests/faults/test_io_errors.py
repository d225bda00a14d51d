"""Whichever call of the file system fails: the last good state loads, the error says what and where, no litter.

A fault that is past is past: in the same process, whoever failed can try again.
"""

from __future__ import annotations

import contextlib
import errno
import os
import re
import shutil
import subprocess
import sys
import time
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from unittest import mock

import numpy as np
import pytest
from facts import tell
from file_calls import Call, Perform, intercepted
from fittings import need
from saver import IDENTITY, KINDS, checkpoint_at, last, lost, save_rounds

from dgmm.engine.checkpoint import Checkpoint
from dgmm.errors import DgmmError, WriteFailed

ROUNDS = 4
NEED_ROOM = ("write", "fsync", "link", "replace", "mkdir")
CHANGES = ("link", "replace", "unlink", "mkdir", "close", "fsync")
SHORT = "short"
LEFT_BEFORE = ".iteration-000009.npz.0a.tmp"


def name_of(code: int | str) -> str:
    return code if isinstance(code, str) else errno.errorcode[code]


@dataclass
class Fault:
    """Lets call number `at` fail, or every call from there on.

    Attributes
    ----------
    code : int or str
        Of the error; or `SHORT`, for writes that write a part.
    after : bool
        The call does what it should, and reports a failure all the same, as networks do.
    """

    at: int
    code: int | str
    always: bool = False
    after: bool = False

    def __post_init__(self) -> None:
        self.seen, self.met = list[Call](), list[Call]()

    def on_call(self, call: Call, perform: Perform) -> object:
        self.seen.append(call)
        count = len(self.seen)
        if count < self.at or (count > self.at and not self.always) or not self.applies_to(call):
            return perform()
        self.met.append(call)
        if self.code == SHORT:
            return perform(1 + len(call.data) // 3)
        # What is closed is closed, whatever close says.
        if self.after or call.name == "close":
            done = perform()
            if call.name == "open":
                os.close(done)
        raise OSError(self.code, os.strerror(self.code), call.paths[0])

    def applies_to(self, call: Call) -> bool:
        creates = call.name == "open" and call.flags & os.O_CREAT
        if self.code == SHORT:
            return call.name == "write" and not self.after
        if self.code == errno.ENOSPC and not creates and call.name not in NEED_ROOM:
            return False
        # Whose new file it is cannot be known of one that was created under its final name.
        temporary = Path(call.paths[0]).name.startswith(".")
        return not self.after or bool(creates and temporary) or call.name in CHANGES


class Act:
    """Something that drivers do in a folder that holds the rounds before `ROUNDS`."""

    saves: tuple[str, ...] = ()
    lease_s = 0

    def prepare(self, root: Path) -> Checkpoint:
        return checkpoint_at(str(root)).__enter__()

    def do(self, root: Path, checkpoint: Checkpoint) -> None:
        """May fail; what it `saves` is there if it does not."""


class SaveAll(Act):
    saves = KINDS

    def do(self, root: Path, checkpoint: Checkpoint) -> None:
        save_rounds(checkpoint, str(root), range(ROUNDS, ROUNDS + 1), 3, lambda *_: None)


class TakeOver(Act):
    def prepare(self, root: Path) -> Checkpoint:
        (root / "checkpoint" / LEFT_BEFORE).touch()
        return checkpoint_at(str(root))

    def do(self, root: Path, checkpoint: Checkpoint) -> None:
        checkpoint.__enter__()


class Begin(TakeOver):
    """Where there is no folder yet."""

    def prepare(self, root: Path) -> Checkpoint:
        return checkpoint_at(f"{root}/new/one")


class BeginWithoutLinks(Begin):
    """Without hard links a record that can be neither written nor deleted ends with its lease."""

    lease_s = 61

    def do(self, root: Path, checkpoint: Checkpoint) -> None:
        with mock.patch.object(os, "link", side_effect=OSError(errno.EPERM, os.strerror(errno.EPERM))):
            super().do(root, checkpoint)


class Renew(Act):
    def do(self, root: Path, checkpoint: Checkpoint) -> None:
        checkpoint._ownership._renew()


class Release(Act):
    def do(self, root: Path, checkpoint: Checkpoint) -> None:
        checkpoint.__exit__()


class Load(Act):
    def do(self, root: Path, checkpoint: Checkpoint) -> None:
        opened = checkpoint_at(str(root))
        record, latest = opened.load("judged"), opened.load_latest("iteration")
        assert record is not None
        assert record[0] == {"number": ROUNDS - 1}
        assert latest is not None
        assert latest[0] >= ROUNDS - 2  # the one before, with a warning
        assert np.all(latest[2]["values"] == latest[0])


def met(act: Act, before: Path, root: Path, fault: Fault) -> bool:
    """Let an act meet a fault in a copy of a folder; check what is there then, and that one can go on."""
    shutil.copytree(before, root)
    checkpoint, failure = act.prepare(root), None
    with warnings.catch_warnings(record=True) as told, intercepted(root, fault.on_call):
        warnings.simplefilter("always")
        try:
            act.do(root, checkpoint)
        except DgmmError as error:
            failure = error
    checkpoint.__exit__()
    says = [str(failure)] if failure else []
    for text in (*says, *(str(warning.message) for warning in told)):
        assert str(root) in text
        assert fault.code == SHORT or os.strerror(fault.code) in text
    assert not (fault.code == SHORT and failure)

    number = ROUNDS - 1 if failure or not act.saves else ROUNDS
    assert lost(str(root), dict.fromkeys(KINDS, number)) == ""
    could_delete = not any(call.name == "unlink" for call in fault.met)
    assert not could_delete or {path.name for path in root.rglob(".*.tmp")} <= {LEFT_BEFORE}

    later = Checkpoint(checkpoint.folder.address, IDENTITY, {})
    later._ownership._clock = lambda: time.time() + act.lease_s
    with later as again:
        assert not list(Path(checkpoint.folder.address).glob(".*.tmp"))
        number = last(again) + 1
        again.save_step("iteration", number, {"number": number}, {})
        assert last(again) == number
    shutil.rmtree(root)
    return bool(fault.met)


def faults(code: int | str, calls: list[Call]) -> Iterator[Fault]:
    """One at a time in each of the calls, and all from each of them on."""
    for at, call in enumerate(calls, 1):
        for fault in (Fault(at, code), Fault(at, code, always=True), Fault(at, code, after=True)):
            if fault.applies_to(call):
                yield fault


@pytest.fixture(autouse=True)
def nothing_is_synced(monkeypatch):
    """What is synced is the subject of test_power_loss.py; here it would only take time."""
    monkeypatch.setattr(os, "fsync", lambda _: None)


@pytest.fixture
def before(tmp_path):
    """A folder with four rounds."""
    (tmp_path / "before").mkdir()
    with checkpoint_at(str(tmp_path / "before")) as checkpoint:
        save_rounds(checkpoint, str(tmp_path / "before"), range(ROUNDS), 3, lambda *_: None)
    return tmp_path / "before"


@pytest.mark.parametrize(
    "code", [errno.EIO, *(pytest.param(code, marks=pytest.mark.slow) for code in (errno.ENOSPC, errno.EINTR))],
    ids=name_of,
)  # fmt: skip
@pytest.mark.parametrize(
    "act",
    [SaveAll, TakeOver, BeginWithoutLinks, Renew, Release, Load, pytest.param(Begin, marks=pytest.mark.slow)],
)
def test_each_call_fails_once_and_from_then_on(tmp_path, before, act, code):
    count = count_met(act(), before, tmp_path / "run", code)
    assert count > 0 or (act is Load and code == errno.ENOSPC)
    tell(f"{name_of(code)} in a call of {act.__name__}", count, count, None, "all states")


@pytest.mark.parametrize("act", [SaveAll, Begin, BeginWithoutLinks, Renew])
def test_writes_that_write_a_part_are_completed(tmp_path, before, act):
    count = count_met(act(), before, tmp_path / "run", SHORT)
    assert count > 0
    tell(f"short writes of {act.__name__}", count, count, None, "all states")


def count_met(act: Act, before: Path, root: Path, code: int | str) -> int:
    none = Fault(sys.maxsize, code)
    assert not met(act, before, root, none)
    return sum(met(act, before, root, fault) for fault in faults(code, none.seen))


@pytest.fixture
def small_disk(tmp_path):
    """A file system of 512 KiB."""
    disk, as_root = tmp_path / "disk", [] if os.geteuid() == 0 else ["sudo", "-n"]
    disk.mkdir()
    mount = [*as_root, "mount", "-t", "tmpfs", "-o", f"size=512k,uid={os.getuid()}", "none", str(disk)]
    try:
        failed = subprocess.run(mount, stderr=subprocess.PIPE, text=True).stderr
    except FileNotFoundError as error:
        failed = str(error)
    need(f"the right to mount a disk: {failed}" if failed else "")
    yield disk
    subprocess.run([*as_root, "umount", str(disk)], check=True)


@pytest.mark.parametrize("rounds", [1, pytest.param(20, marks=pytest.mark.slow)])
def test_a_full_disk_loses_no_state(small_disk, rounds):
    root, page = str(small_disk), 4096
    acknowledged: dict[str, int] = {}

    def save(checkpoint: Checkpoint) -> None:
        number = last(checkpoint) + 1
        save_rounds(checkpoint, root, range(number, number + 1), 5_000, acknowledged.__setitem__)

    with checkpoint_at(root) as checkpoint:
        for _ in range(ROUNDS):
            save(checkpoint)
    failures, filler = 0, small_disk / "filler"
    expected = rf"cannot write {root}/.*: No space left on device; \d+ bytes were needed; make room"
    for free in list(range(30)) * rounds:
        with filler.open("wb", buffering=0) as file, contextlib.suppress(OSError):
            while True:
                file.write(bytes(page))
        os.truncate(filler, max(0, filler.stat().st_size - free * page))
        try:
            with checkpoint_at(root) as checkpoint:
                save(checkpoint)
        except WriteFailed as error:
            failures += bool(re.match(expected, str(error)))
        assert lost(root, acknowledged) == ""
        assert not list(small_disk.rglob(".*"))
        filler.unlink()
    assert 5 * rounds < failures < 30 * rounds
    with checkpoint_at(root) as checkpoint:  # there is room again
        before = last(checkpoint)
        save(checkpoint)
        assert last(checkpoint) == before + 1
    assert lost(root, acknowledged) == ""
    tell("a full disk (tmpfs)", failures, failures, None, "all states")
