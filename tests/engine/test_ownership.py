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

from dgmm.engine import owner, ownership
from dgmm.engine.folder import Changed, Folder, folder_at
from dgmm.engine.object_folder import ObjectFolder
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
    for name in owner.JOB_VARIABLES:
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

    def make(folder):
        made.append(Ownership(folder, clock=clock, renew_s=5.0))
        made[-1]._keep_renewing = lambda: None
        return made[-1]

    yield make
    for each in made:
        each.release()


def names(folder: Folder) -> list[str]:
    return sorted(file.name for file in folder.list())


def write_owner(folder: Folder, **changes: object) -> None:
    record = {
        "epoch": 4,
        "token": "t",
        "host": socket.gethostname(),
        "boot": owner.boot_id(),
        "pid": os.getpid(),
        "started": psutil.Process().create_time(),
        "job": "",
        "renewed": 1e9,
        "released": False,
        **changes,
    }
    folder.write("owner-000004.json", json.dumps(record).encode())


def dead_pid() -> int:
    process = subprocess.Popen([sys.executable, "-S", "-c", ""])
    process.wait()
    return process.pid


def test_epochs_rise_across_releases_and_one_file_stays(folder, driver):
    for epoch in (1, 2, 3):
        owner = driver(folder)
        assert owner.acquire() == owner.acquire() == owner.epoch == epoch
        owner.check()
        owner.release()
        owner.release()
        assert names(folder) == [f"owner-00000{epoch}.json"]


def test_what_is_not_owned_cannot_be_checked(folder, driver):
    with pytest.raises(CheckpointError, match="acquire it first"):
        driver(folder).check()


def test_a_second_driver_in_the_same_process_is_refused(folder, driver, monkeypatch):
    monkeypatch.setenv("SLURM_JOB_ID", "4711")
    with driver(folder) as first:
        me = rf"process {os.getpid()} \(this very process\) on .*, job 4711"
        with pytest.raises(CheckpointInUse, match=rf"{folder.address} is in use by {me}, last seen"):
            driver(folder).acquire()
        first.check()
    driver(folder).acquire()


@pytest.mark.parametrize(
    "changes",
    [{"pid": None}, {"started": 1.0}, {"released": True}, {"released": True, "host": "node7"}],
    ids=["no such process", "number used again", "released", "released elsewhere"],
)
def test_a_dead_owner_is_taken_over_at_once(folder, driver, changes):
    if "pid" in changes:
        changes = {"pid": dead_pid()}
    write_owner(folder, **changes)
    assert driver(folder).acquire(0) == 5


def test_a_zombie_is_dead(folder, driver):
    process = subprocess.Popen([sys.executable, "-S", "-c", ""], stdout=subprocess.PIPE)
    process.stdout.read()  # ends when the process does
    process.stdout.close()
    started = psutil.Process(process.pid).create_time()
    os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
    write_owner(folder, pid=process.pid, started=started)
    assert driver(folder).acquire() == 5
    process.wait()


def test_a_fresh_owner_elsewhere_is_refused(folder, driver, clock):
    write_owner(folder, host="node7", job="12")
    clock.now += 20
    expected = "process .* on node7, job 12, last seen 20 s ago; .*try again in 40 s"
    with pytest.raises(CheckpointInUse, match=expected):
        driver(folder).acquire()
    assert clock.now == 1e9 + 20


def test_a_machine_of_the_same_name_is_another(folder, driver):
    write_owner(folder, boot="another", pid=dead_pid())
    with pytest.raises(CheckpointInUse):
        driver(folder).acquire()


def test_an_owner_elsewhere_with_an_old_stamp_is_taken_over(folder, driver, clock):
    write_owner(folder, host="node7")
    clock.now += 61
    assert driver(folder).acquire() == 5


def test_a_batch_job_waits_until_the_lease_ends(folder, driver, clock, monkeypatch):
    monkeypatch.setenv("PBS_JOBID", "1")
    write_owner(folder, host="node7")
    assert driver(folder).acquire() == 5
    assert 60 < clock.now - 1e9 < 63


def test_silence_counts_whatever_the_other_clock_says(folder, driver, clock):
    write_owner(folder, host="node7", renewed=2e9)
    with pytest.raises(CheckpointInUse):
        driver(folder).acquire(0)
    assert driver(folder).acquire(90) == 5
    assert 60 < clock.now - 1e9 < 63


def test_an_owner_whose_clock_is_late_but_who_renews_is_left_alone(folder, driver, clock, monkeypatch):
    def sleep(seconds):
        clock.now += seconds
        if clock.now % 5 == 0:
            write_owner(folder, host="node7", renewed=clock.now - 3600)

    write_owner(folder, host="node7", renewed=clock.now - 3600)
    monkeypatch.setattr(ownership.time, "sleep", sleep)
    with pytest.raises(CheckpointInUse):
        driver(folder).acquire(90)
    assert clock.now == 1e9 + 90


def test_a_record_cut_short_is_judged_by_its_age(folder, driver, clock):
    folder.write("owner-000004.json", b'{"epoch"')
    clock.now = folder.list()[0].modified
    with pytest.raises(CheckpointInUse, match="an unknown host"):
        driver(folder).acquire()
    clock.now += 61
    assert driver(folder).acquire() == 5


def test_a_frozen_driver_that_wakes_superseded_stops_and_overwrites_nothing(folder, driver, clock, elsewhere):
    frozen = driver(folder)
    frozen.acquire()
    clock.now += 61
    successor = driver(folder)
    assert elsewhere(successor.acquire) == 2
    with pytest.raises(Superseded, match=r"taken over by process .* on node7 \(epoch 2, ours was 1\)"):
        frozen.check()
    assert not frozen._renew()
    frozen.release()
    successor.check()
    # Even one frozen between looking and writing writes only its own, lower file.
    folder.write("owner-000001.json", b"{}")
    successor.check()
    elsewhere(successor.release)
    assert driver(folder).acquire() == 3
    assert names(folder) == ["owner-000003.json"]


def test_an_emptied_directory_stops_its_driver(folder, driver):
    owner = driver(folder)
    owner.acquire()
    folder.delete("owner-000001.json")
    with pytest.raises(Superseded, match="was emptied"):
        owner.check()


def test_a_late_claim_of_a_past_epoch_fails(folder, driver):
    with driver(folder) as owner:
        owner.release()
        owner.acquire()
        late = driver(folder)
        assert not late._claim(1)
        owner.check()
        assert names(folder) == ["owner-000002.json"]


def test_leftovers_of_dead_claims_and_renewals_go(tmp_path, driver):
    folder = folder_at(tmp_path)
    write_owner(folder, pid=dead_pid())
    for name in (".owner-000004.json.12.tmp", ".owner-000005.json.0a1b.tmp", "owner-notes.json", ".notes.tmp"):
        (tmp_path / name).touch()
    driver(folder).acquire()
    assert names(folder) == [".notes.tmp", "owner-000005.json", "owner-notes.json"]


def test_without_hard_links_a_claim_is_exclusive_too(tmp_path, driver, monkeypatch):
    def no_links(*_, **__):
        raise OSError(errno.EPERM, "no hard links")

    monkeypatch.setattr(os, "link", no_links)
    folder = folder_at(tmp_path)
    owner = driver(folder)
    assert owner.acquire() == 1
    assert not driver(folder)._claim(1)
    owner.check()
    assert names(folder) == ["owner-000001.json"]


def test_renewal_goes_on_after_a_failure_and_ends_with_release(folder, monkeypatch):
    stamps, enough = [], threading.Event()
    real = folder.put

    def put(name, content, over):
        stamps.append(json.loads(content)["renewed"])
        if len(stamps) == 2:
            raise WriteFailed("disk full")
        if len(stamps) == 5:
            enough.set()
        return real(name, content, over)

    monkeypatch.setattr(folder, "put", put)
    owner = Ownership(folder, renew_s=0.001)
    owner.acquire()
    assert enough.wait(10)
    thread = owner._renewal
    owner.release()
    assert not thread.is_alive()
    assert stamps == sorted(stamps)
    assert json.loads(folder.read("owner-000001.json"))["released"]


def test_renewal_ends_when_superseded(folder):
    owner = Ownership(folder, renew_s=0.001)
    owner.acquire()
    write_owner(folder)
    owner._renewal.join(10)
    assert not owner._renewal.is_alive()
    owner.release()


def test_a_renewal_whose_answer_was_lost_is_no_loss(folder, driver):
    owner = driver(folder)
    owner.acquire()
    before = owner._version
    assert owner._renew()
    owner._version = before  # as if we had never heard of it
    assert owner._renew()
    owner.release()
    assert json.loads(folder.read("owner-000001.json"))["released"]


def test_a_claim_whose_answer_was_lost_is_ours(folder, driver, monkeypatch):
    real = folder.put

    def put(name, content, over):
        real(name, content, over)
        raise Changed  # of the same request, sent again

    owner = driver(folder)
    with monkeypatch.context() as patch:
        patch.setattr(folder, "put", put)
        assert owner.acquire() == 1
    owner.check()
    assert owner._renew()


def test_a_store_refuses_what_a_superseded_owner_renews(s3, driver, elsewhere):
    """Frozen between looking and writing: only the condition of the write can stop it."""
    folder = ObjectFolder(s3)
    frozen = driver(folder)
    frozen.acquire()
    mine = frozen._look()
    folder.delete("owner-000001.json")  # by a successor
    frozen._look = lambda: mine
    assert not frozen._renew()
    assert names(folder) == []


# Only the code under test: the whole package takes long to load.
CONTENDER = f"""
import sys, types
sys.modules["dgmm"] = package = types.ModuleType("dgmm")
package.__path__ = [{str(Path(ownership.__file__).parents[1])!r}]
from dgmm.engine.folder import folder_at
from dgmm.engine.ownership import Ownership
from dgmm.errors import CheckpointInUse
held = []
print("ready", flush=True)
for line in sys.stdin:
    owner = Ownership(folder_at(line.strip()))
    try:
        print(owner.acquire(), flush=True)
        held.append(owner)
    except CheckpointInUse:
        print("in use", flush=True)
"""


@pytest.mark.parametrize("before", ["nobody", "a dead owner"])
def test_of_many_that_race_one_wins(place, before):
    pid = dead_pid()
    many, rounds = (6, 40) if place.startswith("/") else (4, 6)
    contenders = [
        subprocess.Popen(
            [sys.executable, "-c", CONTENDER], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        for _ in range(many)
    ]
    try:
        for contender in contenders:
            assert contender.stdout.readline() == "ready\n"
        for number in range(rounds):
            folder = folder_at(f"{place}/{number}")
            folder.make()
            if before == "a dead owner":
                write_owner(folder, pid=pid, renewed=time.time())
            for contender in contenders:
                contender.stdin.write(f"{folder.address}\n")
                contender.stdin.flush()
            answers = sorted(contender.stdout.readline().strip() for contender in contenders)
            assert answers == ["1" if before == "nobody" else "5"] + ["in use"] * (many - 1)
            assert len(folder.list()) == 1
    finally:
        for contender in contenders:
            contender.kill()
            contender.communicate()
