"""A folder of a file system: every write is a temporary file, synced, renamed, and the folder synced."""

from __future__ import annotations

import contextlib
import errno
import os
import re
import uuid
from collections.abc import Iterator
from pathlib import Path

from dgmm.engine.folder import Changed, File, Folder, Version
from dgmm.errors import WriteFailed

_TEMPORARY = re.compile(r"\.[a-z0-9-]+\.(?:npz|json)\.[0-9a-f]+\.tmp")


class LocalFolder(Folder):
    """A folder of a file system, which may be a network's: there are no locks.

    Parameters
    ----------
    path : Path
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.address = str(path)

    def make(self) -> None:
        self.path.mkdir(parents=True, exist_ok=True)

    def list(self) -> list[File]:
        if not self.path.exists():
            return []
        found = []
        with os.scandir(self.path) as entries:
            for entry in entries:
                with contextlib.suppress(FileNotFoundError):
                    found.append(File(entry.name, entry.stat().st_mtime))
        return found

    def read(self, name: str) -> bytes:
        return (self.path / name).read_bytes()

    def write(self, name: str, content: bytes) -> None:
        path = self.path / name
        temporary = self.path / f".{name}.{os.getpid()}.tmp"
        with self._writing(path, temporary, len(content)):
            _write_synced(temporary, content)
            temporary.replace(path)
            self._sync()

    def version(self, name: str) -> Version | None:
        # A rename replaces whatever is there: no condition could be kept.
        return {}

    def put(self, name: str, content: bytes, over: Version | None) -> Version:
        if over is not None:
            self.write(name, content)
            return {}
        path = self.path / name
        temporary = self.path / f".{name}.{uuid.uuid4().hex}.tmp"
        with self._writing(path, temporary, len(content)):
            _write_synced(temporary, content)
            try:
                # Linking never replaces, and what it creates is whole at once.
                path.hardlink_to(temporary)
            except (FileExistsError, FileNotFoundError):
                # Somebody was faster; the temporary file may have been swept away, too.
                raise Changed from None
            except OSError:  # no hard links on this file system
                try:
                    with path.open("xb") as file:
                        file.write(content)
                except FileExistsError:
                    raise Changed from None
            self._sync()
        return {}

    def delete(self, name: str) -> None:
        (self.path / name).unlink(missing_ok=True)

    def sweep(self) -> None:
        # A writer that is only frozen fails to rename then, as it should.
        for file in self.list():
            if _TEMPORARY.fullmatch(file.name):
                self.delete(file.name)

    def check_writable(self) -> None:
        if not self.path.is_dir():
            msg = f"the folder {self.path.absolute()} does not exist; create it or choose another path"
            raise FileNotFoundError(msg)
        if not os.access(self.path, os.W_OK | os.X_OK):
            msg = f"the folder {self.path.absolute()} is not writable; choose another path"
            raise PermissionError(msg)

    @contextlib.contextmanager
    def _writing(self, path: Path, temporary: Path, size: int) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise _write_failed(path, size, error) from error
        finally:
            with contextlib.suppress(OSError):
                temporary.unlink(missing_ok=True)

    def _sync(self) -> None:
        """Make a rename durable."""
        descriptor = os.open(self.path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        except OSError as error:
            # Some network file systems cannot sync a folder and say so this way.
            if error.errno not in {errno.EINVAL, errno.ENOTSUP}:
                raise
        finally:
            os.close(descriptor)


def _write_synced(path: Path, content: bytes) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o666)
    try:
        rest = memoryview(content)
        while rest:
            rest = rest[os.write(descriptor, rest) :]
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _write_failed(path: Path, size: int, error: OSError) -> WriteFailed:
    cause = error.strerror or str(error)
    if error.errno in {errno.ENOSPC, errno.EDQUOT}:
        remedy = f"{size} bytes were needed; make room or choose another folder"
    else:
        remedy = "check the folder, its permissions and its storage, or choose another folder"
    failure = WriteFailed(f"cannot write {path}: {cause}; {remedy}")
    failure.errno = error.errno
    return failure
