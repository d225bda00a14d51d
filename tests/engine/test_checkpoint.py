"""A directory of checkpoints always loads, keeps what it acknowledged, and belongs to one fit."""

from __future__ import annotations

import io
import socket
import time

import numpy as np
import pytest
from servers.http import stripping_proxy
from servers.seaweedfs import BUCKET, OPEN_BUCKET

from dgmm.engine import archive
from dgmm.engine.checkpoint import Checkpoint
from dgmm.engine.environment import environment
from dgmm.engine.folder import folder_at
from dgmm.engine.object_folder import ObjectFolder
from dgmm.errors import (
    CheckpointError,
    CheckpointInUse,
    CheckpointMismatch,
    DamagedFileWarning,
    EnvironmentWarning,
    InvalidParameter,
    NewerSchema,
    Superseded,
)

IDENTITY = {"data": "abc" * 20, "n_components": 16, "covariance_type": "full", "reg_covar": 1e-6, "seed": 123}
ENVIRONMENT = {"numpy": "2.0.0", "cpu": "a processor"}


def opened(directory, environment=ENVIRONMENT, **changes):
    return Checkpoint(directory, {**IDENTITY, **changes}, environment)


def save_steps(checkpoint, steps, series="iteration"):
    for step in steps:
        checkpoint.save_step(series, step, {"step": step}, {"values": np.full(3, step)})


def damage(folder, name):
    content = bytearray(folder.read(name))
    content[len(content) // 2] ^= 1
    folder.write(name, bytes(content))


def listing(directory):
    return sorted(file.name for file in folder_at(directory).list() if not file.name.startswith("owner"))


def contents(directory):
    folder = folder_at(directory)
    return {file: folder.read(file.name) for file in folder.list()}


@pytest.fixture
def directory(place):
    """The address of a folder with a scan, two restarts and iterations 0 to 5."""
    with opened(f"{place}/fits/one") as checkpoint:
        checkpoint.save("scan", {"rows": 10}, {"sample": np.arange(4.0)})
        checkpoint.save("restart-0001", {}, {})
        checkpoint.save("restart-0000", {}, {})
        save_steps(checkpoint, range(6))
    return checkpoint.folder.address


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
    header, _ = archive.read(f"{directory}/best.npz", "checkpoint")
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
    damage(folder_at(directory), "iteration-000005.npz")
    with opened(directory) as checkpoint:
        with pytest.warns(DamagedFileWarning, match=r"iteration-000005\.npz is damaged.*passed over"):
            assert checkpoint.load_latest("iteration")[0] == 4
        save_steps(checkpoint, [5])
        assert checkpoint.load_latest("iteration")[0] == 5


def test_steps_after_the_one_saved_go(directory):
    damage(folder_at(directory), "iteration-000005.npz")
    with opened(directory) as checkpoint:
        save_steps(checkpoint, [4])
        assert checkpoint.names("iteration") == ["iteration-000003", "iteration-000004"]


@pytest.mark.parametrize("content", [b"", b"garbage", bytes(4096)], ids=["empty", "garbage", "zeros"])
def test_a_destroyed_record_is_warned_of_and_computed_again(directory, content):
    folder_at(directory).write("scan.npz", content)
    with opened(directory) as checkpoint:
        with pytest.warns(DamagedFileWarning, match=r"scan\.npz.*computed again"):
            assert checkpoint.load("scan") is None
        checkpoint.save("scan", {"rows": 10}, {})
        assert checkpoint.load("scan") == ({"rows": 10}, {})


def test_all_steps_damaged_is_no_step(directory):
    for name in listing(directory):
        if name.startswith("iteration-"):
            damage(folder_at(directory), name)
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
    before = contents(directory)
    with pytest.raises(CheckpointMismatch) as caught:
        opened(directory, data="def" * 20, n_components=8, init="kmeans")
    assert str(caught.value) == (
        f"{directory} holds the checkpoints of another fit: the data changed (fingerprint abcabcabcabc… "
        "now defdefdefdef…); init was None, now 'kmeans'; n_components was 16, now 8. "
        f"Remove {directory} to start anew, or choose another checkpoint directory"
    )
    assert before == contents(directory)


def test_a_fit_that_came_between_opening_and_entering_is_refused(place):
    late = opened(place, n_components=8)
    with opened(place) as checkpoint:
        save_steps(checkpoint, [0])
    with pytest.raises(CheckpointMismatch):
        late.__enter__()
    with opened(place):  # it did not keep the directory
        pass


def test_a_single_file_of_another_fit_is_refused_when_loaded(directory, tmp_path):
    with opened(tmp_path / "other", seed=5) as checkpoint:
        checkpoint.save("restart-0002", {}, {})
    content = (tmp_path / "other" / "restart-0002.npz").read_bytes()
    with opened(directory) as checkpoint:
        folder_at(directory).write("restart-0002.npz", content)
        with pytest.raises(CheckpointMismatch, match="seed was 5, now 123"):
            checkpoint.load("restart-0002")


def test_no_seed_takes_the_recorded_one(directory, place):
    checkpoint = opened(directory, seed=None)
    assert checkpoint.identity["seed"] == 123
    assert Checkpoint.recorded_identity(directory) == IDENTITY
    assert Checkpoint.recorded_identity(f"{place}/absent") is None
    with pytest.raises(InvalidParameter, match="draw a seed"):
        opened(f"{place}/absent", seed=None)
    with pytest.raises(CheckpointMismatch, match="seed was 123, now 7"):
        opened(directory, seed=7)


def test_the_recorded_identity_is_read_past_damaged_and_foreign_files(directory):
    foreign = io.BytesIO()
    np.savez(foreign, a=1)
    archive.write(f"{directory}/mine.npz", foreign.getvalue())
    archive.write(f"{directory}/model.npz", archive.pack("model", {}, {}))
    damage(folder_at(directory), "iteration-000005.npz")
    assert Checkpoint.recorded_identity(directory) == IDENTITY


def test_identities_are_compared_as_json(place):
    with opened(place, shape=(2, 3)) as checkpoint:
        save_steps(checkpoint, [0])
    opened(place, shape=[2, 3])


def test_another_environment_warns_and_goes_on(directory):
    with pytest.warns(EnvironmentWarning, match=r"blas was unknown, now b; numpy was 2\.0\.0, now 2\.1\.0\)"):
        opened(directory, {**ENVIRONMENT, "numpy": "2.1.0", "blas": "b"})


def test_the_environment_is_complete():
    found = environment()
    assert found.keys() == {"python", "numpy", "scipy", "numba", "dgmm", "blas", "machine", "cpu"}
    assert found["numpy"] == np.__version__
    assert all(isinstance(value, str) and value for value in found.values())


def test_opening_writes_nothing(place):
    opened(f"{place}/new")
    assert listing(place) == []


def test_a_file_is_no_directory(tmp_path):
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


def test_other_objects_stay(s3):
    folder = folder_at(s3)
    for name in ("notes.txt", "below/iteration-000007.npz"):
        folder.write(name, b"")
    with opened(s3) as checkpoint:
        save_steps(checkpoint, [1])
        assert listing(s3) == ["iteration-000001.npz", "notes.txt"]
    assert folder.read("below/iteration-000007.npz") == b""


def test_saving_needs_the_with_block_and_a_plain_name(place):
    checkpoint = opened(place)
    with pytest.raises(CheckpointError, match="with statement"):
        checkpoint.save("scan", {}, {})
    with checkpoint, pytest.raises(ValueError, match="record name"):
        checkpoint.save("../scan", {}, {})


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


def takes_over(directory, monkeypatch, steps):
    """A driver on another host, an hour later, when the lease has ended: it has saved `steps`."""
    other = opened(directory)
    with monkeypatch.context() as patch:
        patch.setattr(socket, "gethostname", lambda: "node7")
        patch.setattr(other._ownership, "_clock", lambda: time.time() + 3600)
        other.__enter__()
        save_steps(other, steps)
    return other


@pytest.mark.parametrize("saved", [6, 5], ids=["new", "over another"])
def test_a_store_refuses_what_a_superseded_driver_writes(s3, monkeypatch, saved):
    """Frozen right after its look at the owner: only the condition of the write can stop it."""
    with opened(s3) as frozen:
        save_steps(frozen, range(6))
        real, found = frozen._ownership.check, []

        def check():
            real()
            if not found:
                found.append(takes_over(s3, monkeypatch, [saved]))
                found.append(contents(s3))

        monkeypatch.setattr(frozen._ownership, "check", check)
        with pytest.raises(Superseded, match="node7"):
            frozen.save(f"iteration-{saved:06d}", {"of": "the frozen one"}, {})
        assert contents(s3) == found[1]
        found[0].__exit__()


def test_a_driver_frozen_after_its_write_deletes_nothing_of_its_successor(directory, monkeypatch):
    with opened(directory) as frozen:
        real, successors = frozen.save, []

        def save(*arguments):
            real(*arguments)
            successors.append(takes_over(directory, monkeypatch, [7, 8]))

        monkeypatch.setattr(frozen, "save", save)
        save_steps(frozen, [6])
        assert frozen.names("iteration")[-2:] == ["iteration-000007", "iteration-000008"]
        successors[0].__exit__()


def test_what_a_superseded_driver_has_left_is_written_over(s3):
    """It had looked at the owner in time, and its write came before ours."""
    with opened(s3) as checkpoint:
        real = checkpoint.folder.put

        def put(name, content, over, check):
            checkpoint.folder.put = real
            checkpoint.folder.write(name, b"of the one before")
            return real(name, content, over, check)

        checkpoint.folder.put = put
        save_steps(checkpoint, [1])
        assert checkpoint.load_latest("iteration")[0] == 1


def test_a_write_whose_answer_was_lost_is_done(s3):
    with opened(s3) as checkpoint:
        real, calls = checkpoint.folder.put, []

        def put(*arguments):
            calls.append(arguments)
            real(*arguments)
            return real(*arguments)  # the same request, sent again

        checkpoint.folder.put = put
        save_steps(checkpoint, [1])
        assert len(calls) == 1


def test_a_store_without_conditions_is_refused(seaweed, s3, monkeypatch):
    """A server behind a proxy that drops the conditions, as some imitations of S3 do."""
    with stripping_proxy(seaweed.endpoint) as endpoint:
        monkeypatch.setenv("AWS_ENDPOINT_URL", endpoint)
        monkeypatch.setenv("AWS_SKIP_SIGNATURE", "true")  # the signature covers the conditions
        address = s3.replace(BUCKET, OPEN_BUCKET)
        with pytest.raises(CheckpointError, match="ignores conditions"):
            opened(address).__enter__()
        assert ObjectFolder(address).list() == []
