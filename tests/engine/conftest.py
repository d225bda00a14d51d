"""Where folders are: tests of checkpoints run on a disk and on a real S3 server."""

from __future__ import annotations

from pathlib import Path

import pytest

from dgmm.engine.folder import Folder, folder_at


@pytest.fixture(params=["disk", "s3"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The address of a folder that is empty, or not there yet."""
    return str(tmp_path) if request.param == "disk" else request.getfixturevalue("s3")


@pytest.fixture
def folder(place: str) -> Folder:
    """The same, as tests look into it."""
    return folder_at(place)
