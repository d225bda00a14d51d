"""The folder of a fit: what it has reached, durable and found by looking.

Records (the scan, each restart) are written once. Steps (each iteration) form
a series of which the last few are kept. Every file is an archive that states
which fit it belongs to, so a folder is never mixed up with another fit's.
"""

from __future__ import annotations

import contextlib
import json
import re
import warnings
from collections.abc import Mapping
from typing import Any, Self

from numpy.typing import NDArray

from dgmm.data.address import Address
from dgmm.engine import archive
from dgmm.engine.archive import JSON
from dgmm.engine.differences import refuse_another, warn_of_another
from dgmm.engine.folder import Changed, File, Folder, folder_at
from dgmm.engine.ownership import Ownership
from dgmm.errors import (
    CheckpointError,
    CorruptFile,
    DamagedFileWarning,
    ForeignFile,
    InvalidParameter,
    ReadFailed,
    WriteFailed,
)

KEPT_STEPS = 3
"""Steps of a series that stay: the newest, and some to fall back on."""

_KIND, _SUFFIX = "checkpoint", ".npz"
_TRIES = 3
_NAME = re.compile(r"[a-z0-9]+(-[a-z0-9]+)*")

Record = tuple[dict[str, Any], dict[str, NDArray[Any]]]


class Checkpoint:
    """A fit's folder, owned while the ``with`` block lasts.

    Constructing reads and compares, and writes nothing; entering takes the
    folder.

    Parameters
    ----------
    directory
        A path, or the URL of an object store. Created where it does not exist.
        Other files in it are left alone.
    identity
        What makes it this fit: fingerprints, options, seed. Where the seed is
        None, the recorded one is used (see `recorded_identity`).
    environment
        Versions and processor, as `environment` returns them.

    Attributes
    ----------
    folder : Folder
    identity : dict
        As given, with the recorded seed where None was given.

    Raises
    ------
    CheckpointMismatch
        The folder holds another fit.
    CheckpointError
        The path is a file.
    StoreError
        The object store refuses, or does not answer.

    Examples
    --------
    >>> with Checkpoint(directory, identity, environment()) as checkpoint:  # doctest: +SKIP
    ...     checkpoint.save_step("iteration", 12, header, arrays)
    """

    def __init__(self, directory: Address, identity: Mapping[str, JSON], environment: Mapping[str, str]) -> None:
        self.folder = folder_at(directory)
        self.identity: dict[str, Any] = json.loads(json.dumps(dict(identity), allow_nan=False))
        self._environment = dict(environment)
        self._ownership = Ownership(self.folder)
        recorded = self._compare()
        if recorded is not None:
            warn_of_another(self.folder.address, recorded.get("environment", {}), self._environment)
        if "seed" in self.identity and self.identity["seed"] is None:
            msg = f"seed is None and {self.folder.address} records none; draw a seed and pass it"
            raise InvalidParameter(msg)

    @staticmethod
    def recorded_identity(directory: Address) -> dict[str, Any] | None:
        """Return the identity of the fit in a folder, or None if there is none."""
        newest = _newest_header(folder_at(directory))
        return None if newest is None else newest["identity"]

    @property
    def epoch(self) -> int:
        """The number of this ownership, higher than any before it."""
        return self._ownership.epoch

    def __enter__(self) -> Self:
        try:
            self.folder.make()
        except OSError as error:
            why = error.strerror or error
            msg = f"cannot create {self.folder.address}: {why}; choose another checkpoint directory"
            raise CheckpointError(msg) from error
        self._ownership.acquire()
        try:
            # Another driver may have begun and ended a fit here since we looked.
            self._compare()
        except BaseException:
            self._ownership.release()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._ownership.release()

    def save(self, name: str, header: Mapping[str, JSON], arrays: Mapping[str, NDArray[Any]]) -> None:
        """Write a record; when this returns it is durable.

        Raises
        ------
        Superseded
            Another driver took the folder over; nothing was written.
        WriteFailed, StoreError
            The record of that name, if there was one, is intact.
        """
        if not _NAME.fullmatch(name):
            msg = f"record name {name!r} must be lower-case letters and digits with hyphens, as 'restart-0003'"
            raise ValueError(msg)
        whole: dict[str, JSON] = {
            "identity": self.identity,
            "environment": self._environment,
            "epoch": self.epoch,
            "state": header,
        }
        self._put(_file_of(name), archive.pack(_KIND, whole, arrays))

    def load(self, name: str) -> Record | None:
        """Return the header and arrays of a record, or None if there is none.

        A damaged record is warned of and counts as none.

        Raises
        ------
        ReadFailed, StoreError
            It may be sound, but cannot be read.
        """
        try:
            header, arrays = _read(self.folder, _file_of(name))
        except FileNotFoundError:
            return None
        except (CorruptFile, ForeignFile) as error:
            msg = f"{error}. It is passed over, and what it held is computed again from what came before"
            warnings.warn(msg, DamagedFileWarning, stacklevel=2)
            return None
        self._match(header["identity"])
        return header["state"], arrays

    def names(self, prefix: str) -> list[str]:
        """Return the names of the records that start with `prefix`, in order."""
        found = (file.name.removesuffix(_SUFFIX) for file in _archives(self.folder))
        return sorted(name for name in found if name.startswith(prefix))

    def save_step(
        self, series: str, step: int, header: Mapping[str, JSON], arrays: Mapping[str, NDArray[Any]]
    ) -> None:
        """Write a step of a series, then delete those no longer needed.

        The last few before it stay. Steps after it, which only a damaged or
        abandoned continuation leaves, go.
        """
        # Looked for before the folder is known to be ours: then none of them is a successor's.
        found = {*self._steps(series), step}
        self.save(f"{series}-{step:06d}", header, arrays)
        kept = sorted(number for number in found if number <= step)[-KEPT_STEPS:]
        for number in found - set(kept):
            # The step is durable; a file too many does no harm.
            with contextlib.suppress(OSError):
                self.folder.delete(_file_of(f"{series}-{number:06d}"))

    def load_latest(self, series: str) -> tuple[int, dict[str, Any], dict[str, NDArray[Any]]] | None:
        """Return number, header and arrays of the newest sound step, or None.

        Raises
        ------
        ReadFailed
            No step could be read, but one of them may be sound: to start anew would
            delete it.
        StoreError
            The object store refuses, or does not answer.
        """
        failure: ReadFailed | None = None
        for step in reversed(self._steps(series)):
            try:
                record = self.load(f"{series}-{step:06d}")
            except ReadFailed as error:
                msg = f"{error}. It is passed over for the step before it"
                warnings.warn(msg, DamagedFileWarning, stacklevel=2)
                failure = error
            else:
                if record is not None:
                    return step, *record
        if failure:
            raise failure
        return None

    def _put(self, file: str, content: bytes) -> None:
        """Write a file as long as the folder is ours."""
        for _ in range(_TRIES):
            # A version that is older than the proof of ownership is of no successor's writing: where the folder
            # keeps conditions, what a successor has written meanwhile is not overwritten.
            over = self.folder.version(file)
            try:
                self.folder.put(file, content, over, self._ownership.check)
            except Changed:
                with contextlib.suppress(FileNotFoundError):
                    # By us, in a request whose answer was lost.
                    if self.folder.read(file) == content:
                        return
            except WriteFailed:
                # Whoever took the folder over sweeps away what a frozen writer was about to rename.
                with contextlib.suppress(OSError):
                    self._ownership.check()
                raise
            else:
                return
        self._ownership.check()
        msg = f"{self.folder.address}/{file} is written by somebody else again and again; stop the other driver"
        raise WriteFailed(msg)

    def _steps(self, series: str) -> list[int]:
        pattern = re.compile(rf"{re.escape(series)}-(\d{{6,}})")
        return sorted(int(match[1]) for name in self.names(series) if (match := pattern.fullmatch(name)))

    def _compare(self) -> dict[str, Any] | None:
        """Refuse another fit's folder; return the newest header in ours."""
        newest = _newest_header(self.folder)
        if newest is not None:
            self._match(newest["identity"])
        return newest

    def _match(self, recorded: Mapping[str, Any]) -> None:
        """Refuse another identity; adopt the recorded seed where ours is None."""
        if "seed" in self.identity and self.identity["seed"] is None and recorded.get("seed") is not None:
            self.identity["seed"] = recorded["seed"]
        refuse_another(self.folder.address, recorded, self.identity)


def _file_of(name: str) -> str:
    return f"{name}{_SUFFIX}"


def _read(folder: Folder, file: str) -> Record:
    called = f"{folder.address}/{file}"
    header, arrays = archive.read_from(folder, file, _KIND, called)
    if not all(isinstance(header.get(part), dict) for part in ("identity", "environment", "state")):
        msg = f"{called} has the form of a checkpoint but lacks a part; do not use this file"
        raise CorruptFile(msg)
    return header, arrays


def _archives(folder: Folder) -> list[File]:
    try:
        return [file for file in folder.list() if file.name.endswith(_SUFFIX)]
    except NotADirectoryError as error:
        msg = f"{folder.address} is a file; a checkpoint needs a directory: choose another path"
        raise CheckpointError(msg) from error


def _newest_header(folder: Folder) -> dict[str, Any] | None:
    """Return the header of the newest readable checkpoint file, if there is any."""
    failure: ReadFailed | None = None
    for file in sorted(_archives(folder), key=lambda file: (file.modified, file.name), reverse=True):
        try:
            # A damaged file is warned of where it is needed; other people's files are none of our business.
            with contextlib.suppress(CorruptFile, ForeignFile, FileNotFoundError):
                return _read(folder, file.name)[0]
        except ReadFailed as error:
            failure = error
    if failure:
        raise failure
    return None
