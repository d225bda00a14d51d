"""Files of a data set, on a disk or in an object store: what they were when they were opened."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import BinaryIO, Self

from fsspec.utils import glob_translate

from dgmm.data.address import kind_of
from dgmm.errors import DataChanged, DgmmError, SourceNotFound

_READ_AHEAD = 256 * 2**10
_WILDCARD = re.compile(r"[*?\[]")
_HIDDEN = re.compile(r"(^|/)[._]")


@dataclass(frozen=True)
class StoredFile:
    """A file as it was when the data were opened.

    Attributes
    ----------
    path : str
        Absolute, for workers run in other folders; or the URL of an object.
    size : int
        Bytes.
    stamp : str
        Changes when it is written again.
    """

    path: str
    size: int
    stamp: str

    @classmethod
    def at(cls, address: str | os.PathLike[str]) -> Self:
        """The file that is there now.

        Raises
        ------
        SourceNotFound, StoreError
        """
        path = os.fspath(address)
        try:
            if kind_of(path):
                from dgmm.data.store import describe

                found = describe(path)
                return cls(path, found.size, found.stamp)
            path = os.fspath(Path(path).absolute())
            status = Path(path).stat()
        except FileNotFoundError as error:
            msg = f"There is nothing at {address}."
            raise SourceNotFound(msg) from error
        return cls(path, status.st_size, str(status.st_mtime_ns))

    @property
    def remote(self) -> bool:
        """Whether it is an object: every read is a request."""
        return kind_of(self.path) is not None

    def check(self) -> None:
        """Refuse to read what is no longer what was opened.

        Raises
        ------
        DataChanged
        """
        try:
            found = StoredFile.at(self.path)
        except SourceNotFound as error:
            msg = f"{self.path} was there when the data were opened and is gone now. Restore it and start again."
            raise DataChanged(msg) from error
        if found != self:
            what = f"{self.size} bytes then, {found.size} now" if found.size != self.size else "written again"
            msg = f"{self.path} has changed since it was opened ({what}). Start again with what is there now."
            raise DataChanged(msg)

    def open(self, read_ahead: int = _READ_AHEAD) -> BinaryIO:
        """Open it for reading, unless it has changed.

        Parameters
        ----------
        read_ahead : int
            Bytes of a request to an object store at least.
        """
        self.check()
        if not self.remote:
            return Path(self.path).open("rb")
        from dgmm.data.store_reader import open_reader

        return open_reader(self.path, read_ahead=read_ahead)

    def source(self, read_ahead: int = _READ_AHEAD) -> str | BinaryIO:
        """What libraries that read files themselves open, unless it has changed: a path, or an open object."""
        if self.remote:
            return self.open(read_ahead)
        self.check()
        return self.path


def is_of_storage(error: BaseException) -> bool:
    """Whether an error of a library that reads files is the disk's or the network's, not of what it has read."""
    return isinstance(error, DgmmError) or getattr(error, "errno", None) is not None


def is_pattern(address: str) -> bool:
    """Whether it is a pattern of paths, as in ``data/*.parquet``."""
    return bool(_WILDCARD.search(address)) and (kind_of(address) is not None or not Path(address).exists())


def some_file(address: str, suffixes: Sequence[str]) -> str | None:
    """The name of a file of a data set, in a folder or below it, or of a pattern; None where there is none."""
    return next((name for name, _ in _below(address, suffixes)), None)


def list_files(address: str, suffixes: Sequence[str]) -> dict[str, StoredFile]:
    """Find the files of a data set: one, those in a folder and below it, or those of a pattern.

    Files and folders whose names begin with ``.`` or ``_`` are no data: that is how writers of tables mark what
    else they leave in a folder.

    Parameters
    ----------
    address : str
    suffixes : sequence of str
        What names in folders end with, in lower case.

    Returns
    -------
    dict of str to StoredFile
        By their paths below the folder (for a pattern, the folder before the first wildcard), in order of them.

    Raises
    ------
    SourceNotFound, StoreError
    """
    if not is_pattern(address) and _is_file(address):
        found = StoredFile.at(address)
        return {found.path.rpartition("/")[2]: found}
    files = dict(_below(address, suffixes))
    if not files:
        msg = f"There is no file at {address}; expected some whose names end with {', '.join(suffixes)}."
        raise SourceNotFound(msg)
    return {name: files[name]() for name in sorted(files)}


def _is_file(address: str) -> bool:
    if kind_of(address) is None:
        return Path(address).is_file()
    from dgmm.data.store import is_object

    return is_object(address)


def _below(address: str, suffixes: Sequence[str]) -> Iterator[tuple[str, Callable[[], StoredFile]]]:
    """Names of the files in a folder, or of a pattern, and how to describe each."""
    wildcard = _WILDCARD.search(address) if is_pattern(address) else None
    pattern = ""
    if wildcard:
        begin = address[: wildcard.start()].rfind("/") + 1
        address, pattern = address[:begin] or ".", address[begin:]
    found = _objects(address.rstrip("/"), pattern) if kind_of(address) else _paths(Path(address), pattern)
    for name, describe, named in found:
        if not _HIDDEN.search(name) and (named or name.lower().endswith(tuple(suffixes))):
            yield name, describe


_Found = Iterator[tuple[str, Callable[[], StoredFile], bool]]
"""Name, how to describe it, and whether a pattern fits the name itself, rather than a folder above it."""


def _paths(root: Path, pattern: str) -> _Found:
    for match in root.glob(pattern) if pattern else [root]:
        if not match.is_dir():
            yield match.relative_to(root).as_posix(), partial(StoredFile.at, match), True
        for folder, _, names in os.walk(match, followlinks=True):
            for path in (Path(folder, name) for name in names):
                yield path.relative_to(root).as_posix(), partial(StoredFile.at, path), False


def _objects(root: str, pattern: str) -> _Found:
    from dgmm.data.store import list_objects

    fits = re.compile(glob_translate(pattern)).match
    for found in list_objects(root):
        above = [found.name[: slash.start()] for slash in re.finditer("/", found.name)]
        named = bool(pattern and fits(found.name))
        if named or not pattern or any(map(fits, above)):
            yield found.name, partial(StoredFile, f"{root}/{found.name}", found.size, found.stamp), named
