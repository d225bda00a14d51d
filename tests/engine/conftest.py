"""What tests see of a checkpoint's folder."""

from __future__ import annotations

import pytest

from dgmm.engine.folder import Folder, folder_at


@pytest.fixture
def folder(place: str) -> Folder:
    """The folder at `place`."""
    return folder_at(place)
