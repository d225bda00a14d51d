"""Files of a data set: what is there when it is opened, and whether it is still the same later."""

from __future__ import annotations

import glob
import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Self

from dgmm.errors import InvalidData, SourceNotFound

_WILDCARD = re.compile(r"[*?\[]")
_HIDDEN = re.compile(r"(^|/)[._]")


@dataclass(frozen=True)
class StoredFile:
    """A file as it was when the data were opened.

    Attributes
    ----------
    path : str
        Absolute: workers run in other folders.
    size : int
        Bytes.
    stamp : str
        Changes when it is written again.
    """

    path: str
    size: int
    stamp: str

    @classmethod
    def at(cls, path: str | os.PathLike[str]) -> Self:
        """The file that is there now.

        Raises
        ------
        SourceNotFound
        """
        absolute = os.fspath(Path(path).absolute())
        try:
            status = Path(absolute).stat()
        except FileNotFoundError as error:
            msg = f"There is nothing at {path}."
            raise SourceNotFound(msg) from error
        return cls(absolute, status.st_size, str(status.st_mtime_ns))

    def check(self) -> None:
        """Refuse to read what is no longer what was opened.

        Raises
        ------
        InvalidData
        """
        try:
            found = StoredFile.at(self.path)
        except SourceNotFound as error:
            msg = f"{self.path} was there when the data were opened and is gone now. Restore it and start again."
            raise InvalidData(msg) from error
        if found != self:
            what = f"{self.size} bytes then, {found.size} now" if found.size != self.size else "written again"
            msg = f"{self.path} has changed since it was opened ({what}). Start again with what is there now."
            raise InvalidData(msg)

    def open(self) -> BinaryIO:
        """Open it for reading, unless it has changed."""
        self.check()
        return Path(self.path).open("rb")


def is_pattern(address: str) -> bool:
    """Whether it is a pattern of paths, as in ``data/*.parquet``."""
    return bool(_WILDCARD.search(address)) and not Path(address).exists()


def holds_files(folder: str, suffixes: Sequence[str]) -> bool:
    """Whether there is a file of a data set in a folder or below it."""
    root = Path(folder)
    return any(not _HIDDEN.search(path.relative_to(root).as_posix()) for path in _below(root, suffixes))


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
    SourceNotFound
    """
    if wildcard := _WILDCARD.search(address) if is_pattern(address) else None:
        root = Path(address[: wildcard.start()] + "_").parent
        matches = glob.glob(address, recursive=True)  # noqa: PTH207  pathlib takes no absolute patterns
        paths = [path for match in matches for path in _below(Path(match), suffixes)]
    elif Path(address).is_dir():
        root = Path(address)
        paths = list(_below(root, suffixes))
    else:
        return {Path(address).name: StoredFile.at(address)}
    by_name = {path.relative_to(root).as_posix(): path for path in paths}
    names = sorted(name for name in by_name if not _HIDDEN.search(name))
    if not names:
        msg = f"There is no file at {address}; expected some whose names end with {', '.join(suffixes)}."
        raise SourceNotFound(msg)
    return {name: StoredFile.at(by_name[name]) for name in names}


def _below(path: Path, suffixes: Sequence[str]) -> Iterator[Path]:
    if not path.is_dir():
        yield path
    for folder, _, names in os.walk(path, followlinks=True):
        yield from (Path(folder, name) for name in names if name.lower().endswith(tuple(suffixes)))
