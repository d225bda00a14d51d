"""A directory of checkpoints always loads, keeps what it acknowledged, and belongs to one fit."""

from __future__ import annotations

import errno
import os
import random
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from dgmm.engine import archive
from dgmm.engine.checkpoint import Checkpoint, environment
from dgmm.errors import (
    CheckpointError,
    CheckpointInUse,
    CheckpointMismatch,
    DamagedFileWarning,
    EnvironmentWarning,
    InvalidParameter,
    NewerSchema,
    Superseded,
    WriteFailed,
)

IDENTITY = {"data": "abc" * 20, "n_components": 16, "covariance_type": "full", "reg_covar": 1e-6, "seed": 123}
ENVIRONMENT = {"numpy": "2.0.0", "cpu": "a processor"}


def opened(directory, environment=ENVIRONMENT, **changes):
    return Checkpoint(directory, {**IDENTITY, **changes}, environment)


def save_steps(checkpoint, steps, series="iteration"):
    for step in steps:
        checkpoint.save_step(series, step, {"step": step}, {"values": np.full(3, step)})


def damage(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def listing(directory):
    return sorted(path.name for path in directory.iterdir() if not path.name.startswith("owner"))


@pytest.fixture
def directory(tmp_path):
    """A directory with a scan, two restarts and iterations 0 to 5."""
    with opened(tmp_path / "fits" / "one") as checkpoint:
        checkpoint.save("scan", {"rows": 10}, {"sample": np.arange(4.0)})
        checkpoint.save("restart-0001", {}, {})
        checkpoint.save("restart-0000", {}, {})
        save_steps(checkpoint, range(6))
    return checkpoint.directory


def test_records_come_back(directory):
    with opened(directory) as checkpoint:
        header, arrays = checkpoint.load("scan")
        assert header == {"rows": 10}
        np.testing.assert_array_equal(arrays["sample"], [0, 1, 2, 3])
        assert checkpoint.load("absent") is None
        assert checkpoint.names("restart-") == ["restart-0000", "restart-0001"]


def test_the_last_three_steps_stay_and_the_newest_is_found(directory):
    with opened(directory) as checkpoint:
        assert checkpoint.names("iteration") == [f"iteration-00000{n}" for n in (3, 4, 5)]
        step, header, arrays = checkpoint.load_latest("iteration")
        assert (step, header) == (5, {"step": 5})
        np.testing.assert_array_equal(arrays["values"], [5, 5, 5])
        assert checkpoint.load_latest("restart") is None
        save_steps(checkpoint, [1_000_000])
        assert checkpoint.load_latest("iteration")[0] == 1_000_000


def test_series_do_not_touch_each_other(directory):
    with opened(directory) as checkpoint:
        save_steps(checkpoint, range(9, 14), "iteration-2")
        save_steps(checkpoint, range(9, 14), "iter")
        assert checkpoint.load_latest("iteration")[0] == 5
        assert checkpoint.names("iteration-2-") == [f"iteration-2-0000{n}" for n in (11, 12, 13)]


def test_every_file_says_what_it_belongs_to(directory):
    with opened(directory) as checkpoint:
        epoch = checkpoint.epoch
        checkpoint.save("best", {"score": 0.5}, {})
    header, _ = archive.read(directory / "best.npz", "checkpoint")
    assert epoch == 2
    assert header == {
        "format": "dgmm",
        "schema": archive.SCHEMA,
        "kind": "checkpoint",
        "versions": archive.versions(),
        "identity": IDENTITY,
        "environment": ENVIRONMENT,
        "epoch": epoch,
        "state": {"score": 0.5},
    }


def test_a_damaged_newest_step_falls_back_one(directory):
    damage(directory / "iteration-000005.npz")
    with opened(directory) as checkpoint:
        with pytest.warns(DamagedFileWarning, match=r"iteration-000005\.npz is damaged.*passed over"):
            assert checkpoint.load_latest("iteration")[0] == 4
        save_steps(checkpoint, [5])
        assert checkpoint.load_latest("iteration")[0] == 5


def test_steps_after_the_one_saved_go(directory):
    damage(directory / "iteration-000005.npz")
    with opened(directory) as checkpoint:
        save_steps(checkpoint, [4])
        assert checkpoint.names("iteration") == ["iteration-000003", "iteration-000004"]


@pytest.mark.parametrize("content", [b"", b"garbage", bytes(4096)], ids=["empty", "garbage", "zeros"])
def test_a_destroyed_record_is_warned_of_and_computed_again(directory, content):
    (directory / "scan.npz").write_bytes(content)
    with opened(directory) as checkpoint:
        with pytest.warns(DamagedFileWarning, match=r"scan\.npz.*computed again"):
            assert checkpoint.load("scan") is None
        checkpoint.save("scan", {"rows": 10}, {})
        assert checkpoint.load("scan") == ({"rows": 10}, {})


def test_all_steps_damaged_is_no_step(directory):
    for path in directory.glob("iteration-*"):
        damage(path)
    with opened(directory) as checkpoint, pytest.warns(DamagedFileWarning) as warned:
        assert checkpoint.load_latest("iteration") is None
    assert len(warned) == 3


def test_a_file_of_a_later_dgmm_is_refused(directory, monkeypatch):
    with monkeypatch.context() as patch, opened(directory) as checkpoint:
        patch.setattr(archive, "SCHEMA", archive.SCHEMA + 1)
        checkpoint.save("scan", {}, {})
    with pytest.raises(NewerSchema, match="upgrade dgmm"):
        opened(directory)


def test_a_mismatch_names_every_difference_and_changes_nothing(directory):
    before = {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in directory.iterdir()}
    with pytest.raises(CheckpointMismatch) as caught:
        opened(directory, data="def" * 20, n_components=8, init="kmeans")
    assert str(caught.value) == (
        f"{directory} holds the checkpoints of another fit: the data changed (fingerprint abcabcabcabc… "
        "now defdefdefdef…); init was None, now 'kmeans'; n_components was 16, now 8. "
        f"Remove {directory} to start anew, or choose another checkpoint directory"
    )
    assert before == {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in directory.iterdir()}


def test_a_fit_that_came_between_opening_and_entering_is_refused(tmp_path):
    late = opened(tmp_path, n_components=8)
    with opened(tmp_path) as checkpoint:
        save_steps(checkpoint, [0])
    with pytest.raises(CheckpointMismatch):
        late.__enter__()
    with opened(tmp_path):  # it did not keep the directory
        pass


def test_a_single_file_of_another_fit_is_refused_when_loaded(directory, tmp_path):
    with opened(tmp_path / "other", seed=5) as checkpoint:
        checkpoint.save("restart-0002", {}, {})
    content = (tmp_path / "other" / "restart-0002.npz").read_bytes()
    with opened(directory) as checkpoint:
        (directory / "restart-0002.npz").write_bytes(content)
        with pytest.raises(CheckpointMismatch, match="seed was 5, now 123"):
            checkpoint.load("restart-0002")


def test_no_seed_takes_the_recorded_one(directory, tmp_path):
    checkpoint = opened(directory, seed=None)
    assert checkpoint.identity["seed"] == 123
    assert Checkpoint.recorded_identity(directory) == IDENTITY
    assert Checkpoint.recorded_identity(tmp_path / "absent") is None
    with pytest.raises(InvalidParameter, match="draw a seed"):
        opened(tmp_path / "absent", seed=None)
    with pytest.raises(CheckpointMismatch, match="seed was 123, now 7"):
        opened(directory, seed=7)


def test_the_recorded_identity_is_read_past_damaged_and_foreign_files(directory):
    np.savez(directory / "mine.npz", a=1)
    archive.write(directory / "model.npz", archive.pack("model", {}, {}))
    damage(directory / "iteration-000005.npz")
    assert Checkpoint.recorded_identity(directory) == IDENTITY


def test_identities_are_compared_as_json(tmp_path):
    with opened(tmp_path, shape=(2, 3)) as checkpoint:
        save_steps(checkpoint, [0])
    opened(tmp_path, shape=[2, 3])


def test_another_environment_warns_and_goes_on(directory):
    with pytest.warns(EnvironmentWarning, match=r"blas was unknown, now b; numpy was 2\.0\.0, now 2\.1\.0\)"):
        opened(directory, {**ENVIRONMENT, "numpy": "2.1.0", "blas": "b"})


def test_the_environment_is_complete():
    found = environment()
    assert found.keys() == {"python", "numpy", "scipy", "dgmm", "blas", "machine", "cpu"}
    assert found["numpy"] == np.__version__
    assert all(isinstance(value, str) and value for value in found.values())


def test_opening_writes_nothing_and_a_file_is_no_directory(tmp_path):
    opened(tmp_path / "new")
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "file").touch()
    with pytest.raises(CheckpointError, match="is a file"):
        opened(tmp_path / "file")
    with pytest.raises(CheckpointError, match="cannot create"):
        opened(tmp_path / "file" / "below").__enter__()


def test_temporary_files_of_dead_writers_go_and_other_files_stay(tmp_path):
    (tmp_path / ".iteration-000003.npz.99.tmp").touch()
    (tmp_path / "notes.txt").touch()
    with opened(tmp_path):
        assert listing(tmp_path) == ["notes.txt"]


def test_saving_needs_the_with_block_and_a_plain_name(tmp_path):
    checkpoint = opened(tmp_path)
    with pytest.raises(CheckpointError, match="with statement"):
        checkpoint.save("scan", {}, {})
    with checkpoint, pytest.raises(ValueError, match="record name"):
        checkpoint.save("../scan", {}, {})


@pytest.mark.parametrize("function", ["write", "fsync", "replace"])
def test_a_full_disk_loses_no_step(directory, monkeypatch, function):
    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    with opened(directory) as checkpoint:
        before = listing(directory)
        with monkeypatch.context() as patch:
            patch.setattr(os, function, full)
            with pytest.raises(WriteFailed, match=r"bytes were needed"):
                save_steps(checkpoint, [6])
        assert listing(directory) == before
        assert checkpoint.load_latest("iteration")[0] == 5
        save_steps(checkpoint, [6])


def test_a_second_driver_is_refused_and_a_superseded_one_stops(directory, monkeypatch):
    for name in ("SLURM_JOB_ID", "PBS_JOBID", "LSB_JOBID", "JOB_ID"):
        monkeypatch.delenv(name, raising=False)
    with opened(directory) as checkpoint:
        with pytest.raises(CheckpointInUse):
            opened(directory).__enter__()
        other = opened(directory)
        with monkeypatch.context() as patch:
            # From another host, an hour later: the lease has ended.
            patch.setattr(socket, "gethostname", lambda: "node7")
            patch.setattr(other._ownership, "_clock", lambda: time.time() + 3600)
            other.__enter__()
            save_steps(other, [6])
        before = listing(directory)
        with pytest.raises(Superseded, match="node7"):
            save_steps(checkpoint, [6])
        assert listing(directory) == before
        other.__exit__()


# Only the checkpoint code and NumPy: the whole package would take longer to load than to kill.
SAVER = f"""
import sys, types
sys.modules["dgmm"] = package = types.ModuleType("dgmm")
package.__path__ = [{str(Path(archive.__file__).parents[1])!r}]
import numpy as np
from dgmm.engine.checkpoint import Checkpoint
with Checkpoint(sys.argv[1], {{"seed": 1}}, {{}}) as checkpoint:
    latest = checkpoint.load_latest("iteration")
    step = latest[0] + 1 if latest else 0
    print("from", step, flush=True)
    while True:
        checkpoint.save_step("iteration", step, {{"step": step}}, {{"values": np.full(50_000, float(step))}})
        print(step, flush=True)
        step += 1
"""


def test_twenty_kills_lose_no_acknowledged_step(tmp_path):
    seed = random.SystemRandom().randrange(2**32)
    sys.stdout.write(f"seed {seed}\n")  # pytest shows it if the test fails
    generator = random.Random(seed)
    acknowledged = -1
    for _ in range(20):
        saver = subprocess.Popen([sys.executable, "-c", SAVER, str(tmp_path)], stdout=subprocess.PIPE, text=True)
        try:
            begun = int(saver.stdout.readline().removeprefix("from "))
            assert begun > acknowledged
            for _ in range(generator.randrange(1, 6)):
                acknowledged = int(saver.stdout.readline())
            time.sleep(generator.random() * 0.004)  # so that the kill meets every stage of a write
        finally:
            saver.send_signal(signal.SIGKILL)
            rest = saver.communicate()[0]
        assert saver.returncode == -signal.SIGKILL
        lines = [line for line in rest.splitlines(keepends=True) if line.endswith("\n")]
        acknowledged = int(lines[-1]) if lines else acknowledged
        latest = Checkpoint(tmp_path, {"seed": 1}, {}).load_latest("iteration")
        assert latest is not None
        step, header, arrays = latest
        assert step >= acknowledged
        assert header == {"step": step}
        assert np.all(arrays["values"] == step)
        assert len(list(tmp_path.glob("*.npz"))) <= 4
    with Checkpoint(tmp_path, {"seed": 1}, {}) as checkpoint:
        assert checkpoint.epoch == 21
        assert not list(Path(tmp_path).glob(".*"))
