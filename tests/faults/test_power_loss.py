"""Whenever the power fails, what was acknowledged is there; without one of the syncs, or the rename, it is not.

A kill loses nothing that was written, and so tests no sync. Here a saver's calls are recorded, and after each of
them every state is tried in which a file system may be found.
"""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pytest
from facts import tell
from file_calls import Call, Perform, intercepted
from power_loss import Disk, Image, Operation, Recording, Told, power_losses, restore
from saver import checkpoint_at, last, lost, save_rounds

from dgmm.engine import owner

Change = Callable[[Call, Perform], object]


def no_change(_: Call, perform: Perform) -> object:
    return perform()


def recorded(root: Path, rounds: int, change: Change = no_change) -> list[Operation]:
    """What two drivers do, one after the other, where `change` may do another thing for a call."""
    root.mkdir()
    recording = Recording(root)

    def on_call(call: Call, perform: Perform) -> object:
        return change(call, partial(recording.on_call, call, perform))

    with intercepted(root, on_call):
        for first in (0, rounds):
            with checkpoint_at(str(root)) as checkpoint:
                assert last(checkpoint) == first - 1
                for number in range(first, first + rounds):
                    save_rounds(checkpoint, str(root), range(number, number + 1), 3, recording.tell)
                    checkpoint._ownership._renew()
    return recording.operations


def losses(operations: list[Operation], folder: Path) -> Iterator[str]:
    """What each image lacks of the acknowledged; '' for those that have it all."""
    for told, image in power_losses(operations):
        restore(image, folder)
        yield lost(str(folder), told)
        shutil.rmtree(folder)


def last_image(operations: list[Operation]) -> Image:
    disk = Disk()
    for operation in operations:
        disk.do(operation)
    return list(disk.images())[-1]


def on_disk(root: Path) -> Image:
    return {str(p.relative_to(root)): None if p.is_dir() else p.read_bytes() for p in root.rglob("*")}


@pytest.mark.parametrize("rounds", [3, pytest.param(50, marks=pytest.mark.slow)])
def test_after_a_power_loss_all_that_was_acknowledged_is_there(tmp_path, rounds):
    operations = recorded(tmp_path / "saved", rounds)
    assert last_image(operations) == on_disk(tmp_path / "saved")  # nothing escapes the recording
    assert sum(isinstance(operation, Told) for operation in operations) == 2 * 3 * rounds
    began = time.monotonic()
    verdicts = list(losses(operations, tmp_path / "image"))
    assert len(verdicts) > 100 * rounds
    assert [verdict for verdict in verdicts if verdict] == []
    cuts, mean = len(operations), (time.monotonic() - began) / len(verdicts)
    tell(f"power loss after each of {cuts} file operations", len(verdicts), len(verdicts), mean, "all states")


@pytest.mark.parametrize("every", [10, pytest.param(1, marks=pytest.mark.slow)])
def test_after_a_power_loss_a_driver_takes_over_and_goes_on(tmp_path, monkeypatch, every):
    images = list(power_losses(recorded(tmp_path / "saved", 2)))
    monkeypatch.setattr(owner, "boot_id", lambda: "of another start of this machine")
    for _, image in images[::every]:
        restore(image, tmp_path / "image")
        with_owner = checkpoint_at(str(tmp_path / "image"))
        with_owner._ownership._clock = lambda: time.time() + 3600  # which no lease outlives
        with with_owner as checkpoint:
            number = last(checkpoint) + 1
            save_rounds(checkpoint, str(tmp_path / "image"), range(number, number + 1), 3, lambda *_: None)
            names = [file.name for file in checkpoint.folder.list()]
            assert not [name for name in names if name.endswith(".tmp")]
            assert len([name for name in names if name.startswith("owner")]) == 1
        assert lost(str(tmp_path / "image"), dict.fromkeys(("step", "record", "model"), number)) == ""
        shutil.rmtree(tmp_path / "image")


def is_folder(call: Call) -> bool:
    return not call.paths[0].endswith(".tmp")


def without_file_sync(call: Call, perform: Perform) -> object:
    return None if call.name == "fsync" and not is_folder(call) else perform()


def without_folder_sync(call: Call, perform: Perform) -> object:
    return None if call.name == "fsync" and is_folder(call) else perform()


def without_sync_of_the_folder_above(call: Call, perform: Perform) -> object:
    return None if call.name == "fsync" and call.paths[0].endswith("saved") else perform()


def written_in_place(temporary: Path, path: Path) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.write(descriptor, temporary.read_bytes())
    os.fsync(descriptor)
    os.close(descriptor)


def deleted_before_the_rename(temporary: Path, path: Path) -> None:
    path.unlink(missing_ok=True)
    os.replace(temporary, path)  # noqa: PTH105 (this is Path.replace)


@pytest.mark.parametrize(
    "change", [without_file_sync, without_folder_sync, without_sync_of_the_folder_above], ids=lambda c: c.__name__
)
def test_without_a_sync_something_is_lost(tmp_path, change):
    operations = recorded(tmp_path / "saved", 2, change)
    assert any(losses(operations, tmp_path / "image"))


@pytest.mark.parametrize("instead", [written_in_place, deleted_before_the_rename], ids=lambda c: c.__name__)
def test_without_the_rename_something_is_lost(tmp_path, monkeypatch, instead):
    monkeypatch.setattr(Path, "replace", instead)
    operations = recorded(tmp_path / "saved", 2)
    assert any(losses(operations, tmp_path / "image"))
