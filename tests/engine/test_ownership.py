"""One driver at a time: claims, leases, take-overs, and drivers that wake up too late."""

from __future__ import annotations

import errno
import json
import os
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import psutil
import pytest

from dgmm.engine import archive, ownership
from dgmm.engine.ownership import Ownership
from dgmm.errors import CheckpointError, CheckpointInUse, Superseded, WriteFailed


class Clock:
    """A clock that only sleeping moves."""

    def __init__(self) -> None:
        self.now = 1e9

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch):
    clock = Clock()

    def sleep(seconds):
        assert seconds > 0
        clock.now += seconds

    monkeypatch.setattr(ownership.time, "sleep", sleep)
    return clock


@pytest.fixture(autouse=True)
def no_batch_job(monkeypatch):
    for name in ownership._JOB_VARIABLES:
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def elsewhere(monkeypatch):
    """Give what runs inside another host's name."""

    def run(function, host="node7"):
        with monkeypatch.context() as patch:
            patch.setattr(socket, "gethostname", lambda: host)
            return function()

    return run


@pytest.fixture
def driver(clock):
    """Make ownerships that do not renew themselves, and release them at the end."""
    made = []

    def make(directory):
        made.append(Ownership(directory, clock=clock, renew_s=5.0))
        made[-1]._keep_renewing = lambda: None
        return made[-1]

    yield make
    for owner in made:
        owner.release()


def write_owner(directory: Path, **changes: object) -> None:
    record = {
        "epoch": 4,
        "token": "t",
        "host": socket.gethostname(),
        "boot": ownership._boot(),
        "pid": os.getpid(),
        "started": psutil.Process().create_time(),
        "job": "",
        "renewed": 1e9,
        "released": False,
        **changes,
    }
    (directory / "owner-000004.json").write_text(json.dumps(record))


def dead_pid() -> int:
    process = subprocess.Popen([sys.executable, "-S", "-c", ""])
    process.wait()
    return process.pid


def test_epochs_rise_across_releases_and_one_file_stays(tmp_path, driver):
    for epoch in (1, 2, 3):
        owner = driver(tmp_path)
        assert owner.acquire() == owner.acquire() == owner.epoch == epoch
        owner.check()
        owner.release()
        owner.release()
        assert [path.name for path in tmp_path.iterdir()] == [f"owner-00000{epoch}.json"]


def test_what_is_not_owned_cannot_be_checked(tmp_path, driver):
    with pytest.raises(CheckpointError, match="acquire it first"):
        driver(tmp_path).check()


def test_a_second_driver_in_the_same_process_is_refused(tmp_path, driver, monkeypatch):
    monkeypatch.setenv("SLURM_JOB_ID", "4711")
    with driver(tmp_path) as first:
        expected = (
            rf"{tmp_path} is in use by process {os.getpid()} \(this very process\) on .*, job 4711, last seen"
        )
        with pytest.raises(CheckpointInUse, match=expected):
            driver(tmp_path).acquire()
        first.check()
    driver(tmp_path).acquire()


@pytest.mark.parametrize(
    "changes",
    [{"pid": None}, {"started": 1.0}, {"released": True}, {"released": True, "host": "node7"}],
    ids=["no such process", "number used again", "released", "released elsewhere"],
)
def test_a_dead_owner_is_taken_over_at_once(tmp_path, driver, changes):
    if "pid" in changes:
        changes = {"pid": dead_pid()}
    write_owner(tmp_path, **changes)
    assert driver(tmp_path).acquire(0) == 5


def test_a_zombie_is_dead(tmp_path, driver):
    process = subprocess.Popen([sys.executable, "-S", "-c", ""], stdout=subprocess.PIPE)
    process.stdout.read()  # ends when the process does
    process.stdout.close()
    started = psutil.Process(process.pid).create_time()
    os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
    write_owner(tmp_path, pid=process.pid, started=started)
    assert driver(tmp_path).acquire() == 5
    process.wait()


def test_a_fresh_owner_elsewhere_is_refused(tmp_path, driver, clock):
    write_owner(tmp_path, host="node7", job="12")
    clock.now += 20
    expected = "process .* on node7, job 12, last seen 20 s ago; .*try again in 40 s"
    with pytest.raises(CheckpointInUse, match=expected):
        driver(tmp_path).acquire()
    assert clock.now == 1e9 + 20


def test_a_machine_of_the_same_name_is_another(tmp_path, driver):
    write_owner(tmp_path, boot="another", pid=dead_pid())
    with pytest.raises(CheckpointInUse):
        driver(tmp_path).acquire()


def test_an_owner_elsewhere_with_an_old_stamp_is_taken_over(tmp_path, driver, clock):
    write_owner(tmp_path, host="node7")
    clock.now += 61
    assert driver(tmp_path).acquire() == 5


def test_a_batch_job_waits_until_the_lease_ends(tmp_path, driver, clock, monkeypatch):
    monkeypatch.setenv("PBS_JOBID", "1")
    write_owner(tmp_path, host="node7")
    assert driver(tmp_path).acquire() == 5
    assert 60 < clock.now - 1e9 < 63


def test_silence_counts_whatever_the_other_clock_says(tmp_path, driver, clock):
    write_owner(tmp_path, host="node7", renewed=2e9)
    with pytest.raises(CheckpointInUse):
        driver(tmp_path).acquire(0)
    assert driver(tmp_path).acquire(90) == 5
    assert 60 < clock.now - 1e9 < 63


def test_an_owner_whose_clock_is_late_but_who_renews_is_left_alone(tmp_path, driver, clock, monkeypatch):
    def sleep(seconds):
        clock.now += seconds
        if clock.now % 5 == 0:
            write_owner(tmp_path, host="node7", renewed=clock.now - 3600)

    write_owner(tmp_path, host="node7", renewed=clock.now - 3600)
    monkeypatch.setattr(ownership.time, "sleep", sleep)
    with pytest.raises(CheckpointInUse):
        driver(tmp_path).acquire(90)
    assert clock.now == 1e9 + 90


def test_a_record_cut_short_is_judged_by_its_age(tmp_path, driver, clock):
    path = tmp_path / "owner-000004.json"
    path.write_text('{"epoch"')
    os.utime(path, (clock.now, clock.now))
    with pytest.raises(CheckpointInUse, match="an unknown host"):
        driver(tmp_path).acquire()
    clock.now += 61
    assert driver(tmp_path).acquire() == 5


def test_a_frozen_driver_that_wakes_superseded_stops_and_overwrites_nothing(tmp_path, driver, clock, elsewhere):
    frozen = driver(tmp_path)
    frozen.acquire()
    clock.now += 61
    successor = driver(tmp_path)
    assert elsewhere(successor.acquire) == 2
    with pytest.raises(Superseded, match=r"taken over by process .* on node7 \(epoch 2, ours was 1\)"):
        frozen.check()
    assert not frozen._renew()
    frozen.release()
    successor.check()
    # Even one frozen between looking and writing writes only its own, lower file.
    write_owner(tmp_path, epoch=1)
    (tmp_path / "owner-000004.json").rename(tmp_path / "owner-000001.json")
    successor.check()
    elsewhere(successor.release)
    assert driver(tmp_path).acquire() == 3
    assert [path.name for path in tmp_path.iterdir()] == ["owner-000003.json"]


def test_an_emptied_directory_stops_its_driver(tmp_path, driver):
    owner = driver(tmp_path)
    owner.acquire()
    (tmp_path / "owner-000001.json").unlink()
    with pytest.raises(Superseded, match="was emptied"):
        owner.check()


def test_a_late_claim_of_a_past_epoch_fails(tmp_path, driver):
    with driver(tmp_path) as owner:
        owner.release()
        owner.acquire()
        late = driver(tmp_path)
        assert not late._claim(1)
        owner.check()
        assert [path.name for path in tmp_path.iterdir()] == ["owner-000002.json"]


def test_leftovers_of_dead_claims_and_renewals_go(tmp_path, driver):
    write_owner(tmp_path, pid=dead_pid())
    for name in ("owner-000004.abc.claim", ".owner-000004.json.12.tmp", "owner-notes.json"):
        (tmp_path / name).touch()
    driver(tmp_path).acquire()
    assert {path.name for path in tmp_path.iterdir()} == {"owner-000005.json", "owner-notes.json"}


def test_without_hard_links_a_claim_is_exclusive_too(tmp_path, driver, monkeypatch):
    def no_links(*_, **__):
        raise OSError(errno.EPERM, "no hard links")

    monkeypatch.setattr(os, "link", no_links)
    owner = driver(tmp_path)
    assert owner.acquire() == 1
    assert not driver(tmp_path)._claim(1)
    owner.check()
    assert [path.name for path in tmp_path.iterdir()] == ["owner-000001.json"]


def test_a_directory_that_cannot_be_written_to(tmp_path, driver, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, "full")

    monkeypatch.setattr(os, "write", full)
    with pytest.raises(WriteFailed, match="bytes were needed"):
        driver(tmp_path).acquire()
    assert list(tmp_path.iterdir()) == []


def test_renewal_goes_on_after_a_failure_and_ends_with_release(tmp_path, monkeypatch):
    stamps, enough = [], threading.Event()
    real = archive.write

    def write(path, content):
        stamps.append(json.loads(content)["renewed"])
        if len(stamps) == 2:
            raise WriteFailed("disk full")
        if len(stamps) == 5:
            enough.set()
        real(path, content)

    monkeypatch.setattr(archive, "write", write)
    owner = Ownership(tmp_path, renew_s=0.001)
    owner.acquire()
    assert enough.wait(10)
    thread = owner._renewal
    owner.release()
    assert not thread.is_alive()
    assert stamps == sorted(stamps)
    assert json.loads((tmp_path / "owner-000001.json").read_text())["released"]


def test_renewal_ends_when_superseded(tmp_path):
    owner = Ownership(tmp_path, renew_s=0.001)
    owner.acquire()
    write_owner(tmp_path)
    owner._renewal.join(10)
    assert not owner._renewal.is_alive()
    owner.release()


# Only the code under test: the whole package takes long to load.
CONTENDER = f"""
import sys, types
sys.modules["dgmm"] = package = types.ModuleType("dgmm")
package.__path__ = [{str(Path(archive.__file__).parents[1])!r}]
from pathlib import Path
from dgmm.engine.ownership import Ownership
from dgmm.errors import CheckpointInUse
held = []
print("ready", flush=True)
for line in sys.stdin:
    owner = Ownership(Path(line.strip()))
    try:
        print(owner.acquire(), flush=True)
        held.append(owner)
    except CheckpointInUse:
        print("in use", flush=True)
"""


@pytest.mark.parametrize("before", ["nobody", "a dead owner"])
def test_of_many_that_race_one_wins(tmp_path, before):
    pid = dead_pid()
    contenders = [
        subprocess.Popen(
            [sys.executable, "-c", CONTENDER], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        for _ in range(6)
    ]
    try:
        for contender in contenders:
            assert contender.stdout.readline() == "ready\n"
        for number in range(40):
            directory = tmp_path / str(number)
            directory.mkdir()
            if before == "a dead owner":
                write_owner(directory, pid=pid, renewed=time.time())
            for contender in contenders:
                contender.stdin.write(f"{directory}\n")
                contender.stdin.flush()
            answers = sorted(contender.stdout.readline().strip() for contender in contenders)
            assert answers == ["1" if before == "nobody" else "5"] + ["in use"] * 5
            assert len(list(directory.iterdir())) == 1
    finally:
        for contender in contenders:
            contender.kill()
            contender.communicate()
