"""A folder of a file system: every write is a temporary file, synced, renamed, and the folder synced."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import re
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

from dgmm.engine.folder import Changed, File, Folder, Version
from dgmm.errors import ReadFailed, WriteFailed

_TEMPORARY = re.compile(r"\.[a-z0-9-]+\.(?:npz|json)\.[0-9a-f]+\.tmp")


class LocalFolder(Folder):
    """A folder of a file system, which may be a network's: nothing that must not fail relies on locks.

    Parameters
    ----------
    path : Path
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.address = str(path)

    def make(self) -> None:
        above = self.path.absolute().parents
        new = [folder for folder in above if not folder.exists()]
        self.path.mkdir(mode=0o775, parents=True, exist_ok=True)
        # What is in a folder is no more durable than the folder's own name. One that was there may have
        # been made by a driver that was killed before it came to this.
        for folder in above[: len(new) + 1]:
            with contextlib.suppress(PermissionError):  # then we have not made anything in it
                _sync(folder)

    def list(self) -> list[File]:
        try:
            while (found := _files(self.path)) is None:
                pass
        except FileNotFoundError:
            return []
        except NotADirectoryError:
            if self.path.exists():
                raise
            return []  # a part of the path above it is a file
        except OSError as error:
            raise _read_failed(self.path, error) from error
        return found

    def read(self, name: str) -> bytes:
        path = self.path / name
        try:
            return path.read_bytes()
        except (FileNotFoundError, IsADirectoryError):
            raise
        except OSError as error:
            raise _read_failed(path, error) from error

    def write(self, name: str, content: bytes) -> None:
        # Nobody owns this folder, who would sweep it.
        _sweep_dead(self.path, name)
        with self._writing(name, content, locked=True) as (path, temporary):
            temporary.replace(path)
            _sync(self.path)

    def version(self, name: str) -> Version | None:
        # A rename replaces whatever is there: no condition could be kept.
        return {}

    def put(
        self, name: str, content: bytes, over: Version | None, check: Callable[[], None] = lambda: None
    ) -> Version:
        with self._writing(name, content, locked=False) as (path, temporary):
            # If somebody takes the folder over from here on, the temporary file is swept away.
            check()
            if over is None:
                _link(temporary, path, content)
            else:
                temporary.replace(path)
            _sync(self.path)
        return {}

    def delete(self, name: str) -> None:
        (self.path / name).unlink(missing_ok=True)

    def sweep(self) -> None:
        # A writer that is only frozen fails to rename then, as it should.
        for file in self.list():
            if _TEMPORARY.fullmatch(file.name):
                with contextlib.suppress(OSError):
                    self.delete(file.name)

    def check_writable(self) -> None:
        if not self.path.is_dir():
            msg = f"the folder {self.path.absolute()} does not exist; create it or choose another path"
            raise FileNotFoundError(msg)
        if not os.access(self.path, os.W_OK | os.X_OK):
            msg = f"the folder {self.path.absolute()} is not writable; choose another path"
            raise PermissionError(msg)

    @contextlib.contextmanager
    def _writing(self, name: str, content: bytes, *, locked: bool) -> Iterator[tuple[Path, Path]]:
        """A temporary file that holds the content durably, and where it is to be put."""
        # Not named after the process: in containers many have the same number, and one that was frozen
        # and superseded must not find its successor's file under its own file's name.
        path, temporary = self.path / name, self.path / f".{name}.{uuid.uuid4().hex}.tmp"
        with contextlib.ExitStack() as until_it_is_in_place:
            try:
                descriptor = _create_locked(temporary) if locked else _create(temporary)
                if locked:
                    until_it_is_in_place.callback(os.close, os.dup(descriptor))
                _fill(descriptor, temporary, content)
                yield path, temporary
            except OSError as error:
                raise _write_failed(path, len(content), error) from error
            finally:
                with contextlib.suppress(OSError):
                    temporary.unlink(missing_ok=True)


def _files(folder: Path) -> list[File] | None:
    """What is in a folder, or None if a file went meanwhile: one that came in its place may be missing, too."""
    with os.scandir(folder) as entries:
        try:
            return [File(entry.name, entry.stat().st_mtime) for entry in entries]
        except FileNotFoundError:
            return None


def _link(temporary: Path, path: Path, content: bytes) -> None:
    """Put a file in place if there is none."""
    try:
        # Linking never replaces, and what it creates is whole at once.
        path.hardlink_to(temporary)
    except (FileExistsError, FileNotFoundError):
        # Somebody was faster; the temporary file may have been swept away, too.
        raise Changed from None
    except OSError:  # no hard links on this file system
        try:
            _fill(_create(path), path, content)
        except FileExistsError:
            raise Changed from None


def _sweep_dead(folder: Path, name: str) -> None:
    """Delete the temporary files of a file whose writers are dead: whoever lives has its own locked."""
    temporary = re.compile(rf"\.{re.escape(name)}\.[0-9a-f]{{32}}\.tmp")
    with contextlib.suppress(OSError):
        for file in _files(folder) or ():
            if temporary.fullmatch(file.name):
                _delete_unlocked(folder / file.name)


def _delete_unlocked(path: Path) -> None:
    with contextlib.suppress(OSError):
        descriptor = os.open(path, os.O_RDWR)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            path.unlink()
        finally:
            os.close(descriptor)


def _create(path: Path) -> int:
    return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o664)


def _create_locked(path: Path) -> int:
    """Open a new file, locked until the last copy of the descriptor is closed."""
    while True:
        descriptor = _create(path)
        with contextlib.suppress(OSError):  # no locks on this file system: then nobody sweeps
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        try:
            path.stat()
        except FileNotFoundError:
            os.close(descriptor)  # taken for a dead writer's before it was locked
        except OSError:
            return descriptor  # the next call will tell
        else:
            return descriptor


def _fill(descriptor: int, path: Path, content: bytes) -> None:
    """Write a new file, close it, and make its content durable or remove it."""
    try:
        try:
            rest = memoryview(content)
            while rest:
                rest = rest[os.write(descriptor, rest) :]
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
    except OSError:
        with contextlib.suppress(OSError):
            path.unlink()
        raise


def _sync(folder: Path) -> None:
    """Make the names in a folder durable."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        # Some network file systems cannot sync a folder and say so this way.
        if error.errno not in {errno.EINVAL, errno.ENOTSUP}:
            raise
    finally:
        os.close(descriptor)


def _read_failed(path: Path, error: OSError) -> ReadFailed:
    cause = error.strerror or str(error)
    failure = ReadFailed(f"cannot read {path}: {cause}; try again, and check its permissions and its storage")
    failure.errno = error.errno
    return failure


def _write_failed(path: Path, size: int, error: OSError) -> WriteFailed:
    cause = error.strerror or str(error)
    if error.errno in {errno.ENOSPC, errno.EDQUOT}:
        remedy = f"{size} bytes were needed; make room or choose another folder"
    else:
        remedy = "check the folder, its permissions and its storage, or choose another folder"
    failure = WriteFailed(f"cannot write {path}: {cause}; {remedy}")
    failure.errno = error.errno
    return failure
