"""A small disk of its own, which can be full."""

from __future__ import annotations

import os
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path


def missing() -> str:
    """What is not there to mount one; empty if all is."""
    with tempfile.TemporaryDirectory() as folder:
        try:
            with small_disk(Path(folder) / "disk", 4096):
                return ""
        except (OSError, subprocess.CalledProcessError) as error:
            return f"the right to mount a tmpfs: {getattr(error, 'stderr', error)}"


@dataclass
class Disk:
    """A tmpfs."""

    path: Path

    def resize(self, size: int) -> None:
        _run("mount", "-o", f"remount,size={size}", self.path)

    @property
    def free(self) -> int:
        status = os.statvfs(self.path)
        return status.f_bavail * status.f_frsize


@contextmanager
def small_disk(path: Path, size: int) -> Iterator[Disk]:
    """A disk of so many bytes, mounted meanwhile.

    Parameters
    ----------
    path : Path
        A folder that is made for it.
    size : int
        Rounded up to whole pages.
    """
    path.mkdir()
    _run("mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", path)
    try:
        yield Disk(path)
    finally:
        _run("umount", path)


def _run(*command: object) -> None:
    subprocess.run([str(part) for part in command], check=True, capture_output=True, text=True)
