"""A folder of small files, on a disk or in an object store: where checkpoints, owners and models are kept."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NamedTuple

from dgmm.data.address import Address, is_url, kind_of, plain, split_name
from dgmm.errors import InvalidParameter

Version = Mapping[str, str]
"""Which writing of a file: a condition for the next one. Empty where there are no conditions."""


class File(NamedTuple):
    """A file of a folder.

    Attributes
    ----------
    name : str
    modified : float
        Seconds since 1970, by the clock of whoever keeps it.
    """

    name: str
    modified: float


class Changed(Exception):
    """Somebody else has written the file: nothing was written over it."""


class Folder(ABC):
    """Files that are whole and durable once they are written, whoever is killed meanwhile.

    Attributes
    ----------
    address : str
        How messages call it.
    """

    address: str

    @abstractmethod
    def make(self) -> None:
        """Create it, if it has to be, durably; OSError where it cannot be."""

    @abstractmethod
    def list(self) -> list[File]:
        """What is in it now; nothing where it does not exist. NotADirectoryError for a file.

        Raises
        ------
        ReadFailed, StoreError
        """

    @abstractmethod
    def read(self, name: str) -> bytes:
        """All of a file; FileNotFoundError if there is none, IsADirectoryError for a folder.

        Raises
        ------
        ReadFailed, StoreError
        """

    @abstractmethod
    def write(self, name: str, content: bytes) -> None:
        """Put a file in place, whole and durable, or leave what was there.

        Raises
        ------
        WriteFailed, StoreError
        """

    @abstractmethod
    def version(self, name: str) -> Version | None:
        """What `put` may be told to write over; None if there is no such file."""

    @abstractmethod
    def put(
        self, name: str, content: bytes, over: Version | None, check: Callable[[], None] = lambda: None
    ) -> Version:
        """Write only over that version of the file; where it is None, only if there is no file.

        A disk keeps the second condition alone. What `check` raises stops the
        write: on a disk it is called when the content is ready to be put in
        place, where `sweep` by somebody else stops the write, too.

        Raises
        ------
        Changed
            There is another one.
        CheckpointError
            This store keeps no conditions.
        WriteFailed, StoreError
        """

    @abstractmethod
    def delete(self, name: str) -> None:
        """Delete a file; none is as good."""

    @abstractmethod
    def sweep(self) -> None:
        """Delete what writers left that were killed."""

    @abstractmethod
    def check_writable(self) -> None:
        """Raise OSError where a file cannot be written."""


def folder_at(address: Address) -> Folder:
    """The folder at a path or at the URL of an object store.

    Raises
    ------
    InvalidParameter
        Another URL, or one that holds a password.
    """
    text = _kept_at(address)
    if kind_of(text):
        from dgmm.engine.object_folder import ObjectFolder

        return ObjectFolder(text)
    from dgmm.engine.local_folder import LocalFolder

    return LocalFolder(Path(text))


def file_at(address: Address) -> tuple[Folder, str]:
    """The folder that holds the file at an address, and the file's name; see `folder_at`."""
    folder, name = split_name(_kept_at(address))
    return folder_at(folder), name


def is_folder(address: Address) -> bool:
    """Whether there is a folder, and no file, at an address."""
    text = plain(address)
    if not kind_of(text):
        return Path(text).is_dir()
    from dgmm.data import store

    return not store.is_object(text) and store.is_folder(text)


def _kept_at(address: Address) -> str:
    """The address as text, if files are kept there."""
    text = plain(address)
    if is_url(text) and not kind_of(text):
        msg = (
            f"{text}: checkpoints and models are kept in folders and in object stores (s3://, gs://, az://). "
            "Choose another address."
        )
        raise InvalidParameter(msg)
    return text
