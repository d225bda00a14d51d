"""The directory of a fit: what it has reached, durable and found by looking.

Records (the scan, each restart) are written once. Steps (each iteration) form
a series of which the last few are kept. Every file is an archive that states
which fit it belongs to, so a directory is never mixed up with another fit's.
"""

from __future__ import annotations

import contextlib
import json
import platform
import re
import warnings
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from dgmm.engine import archive
from dgmm.engine.archive import JSON
from dgmm.engine.ownership import Ownership
from dgmm.errors import (
    CheckpointError,
    CheckpointMismatch,
    CorruptFile,
    DamagedFileWarning,
    EnvironmentWarning,
    ForeignFile,
    InvalidParameter,
)

KEPT_STEPS = 3
"""Steps of a series that stay: the newest, and some to fall back on."""

_KIND = "checkpoint"
_TEMPORARY = re.compile(r"\.[a-z0-9-]+\.npz\.\d+\.tmp")
_NAME = re.compile(r"[a-z0-9]+(-[a-z0-9]+)*")

Record = tuple[dict[str, Any], dict[str, NDArray[Any]]]


class Checkpoint:
    """A fit's directory, owned while the ``with`` block lasts.

    Constructing reads and compares, and writes nothing; entering takes the
    directory.

    Parameters
    ----------
    directory
        Created where it does not exist. Other files in it are left alone.
    identity
        What makes it this fit: fingerprints, options, seed. Where the seed is
        None, the recorded one is used (see `recorded_identity`).
    environment
        Versions and processor, as `environment` returns them.

    Attributes
    ----------
    directory : Path
    identity : dict
        As given, with the recorded seed where None was given.

    Raises
    ------
    CheckpointMismatch
        The directory holds another fit.
    CheckpointError
        The path is a file.

    Examples
    --------
    >>> with Checkpoint(directory, identity, environment()) as checkpoint:  # doctest: +SKIP
    ...     checkpoint.save_step("iteration", 12, header, arrays)
    """

    def __init__(
        self, directory: str | Path, identity: Mapping[str, JSON], environment: Mapping[str, str]
    ) -> None:
        self.directory = Path(directory)
        self.identity: dict[str, Any] = json.loads(json.dumps(dict(identity), allow_nan=False))
        self._environment = dict(environment)
        self._ownership = Ownership(self.directory)
        recorded = self._compare()
        if recorded is not None:
            _warn_of_differences(self.directory, recorded.get("environment", {}), self._environment)
        if "seed" in self.identity and self.identity["seed"] is None:
            msg = f"seed is None and {self.directory} records none; draw a seed and pass it"
            raise InvalidParameter(msg)

    @staticmethod
    def recorded_identity(directory: str | Path) -> dict[str, Any] | None:
        """Return the identity of the fit in a directory, or None if there is none."""
        newest = _newest_header(Path(directory))
        return None if newest is None else newest["identity"]

    @property
    def epoch(self) -> int:
        """The number of this ownership, higher than any before it."""
        return self._ownership.epoch

    def __enter__(self) -> Self:
        try:
            self.directory.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            msg = f"cannot create {self.directory}: {error.strerror}; choose another checkpoint directory"
            raise CheckpointError(msg) from error
        self._ownership.acquire()
        try:
            # Another driver may have begun and ended a fit here since we looked.
            self._compare()
            self._clear_temporaries()
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
            Another driver took the directory over; nothing was written.
        WriteFailed
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
        content = archive.pack(_KIND, whole, arrays)
        self._ownership.check()
        archive.write(self._path(name), content)

    def load(self, name: str) -> Record | None:
        """Return the header and arrays of a record, or None if there is none.

        A damaged record is warned of and counts as none.
        """
        try:
            header, arrays = archive.read(self._path(name), _KIND)
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
        return sorted(path.stem for path in _archives(self.directory) if path.stem.startswith(prefix))

    def save_step(
        self, series: str, step: int, header: Mapping[str, JSON], arrays: Mapping[str, NDArray[Any]]
    ) -> None:
        """Write a step of a series, then delete those no longer needed.

        The last few before it stay. Steps after it, which only a damaged or
        abandoned continuation leaves, go.
        """
        self.save(f"{series}-{step:06d}", header, arrays)
        found = self._steps(series)
        kept = [number for number in found if number <= step][-KEPT_STEPS:]
        for number in set(found) - set(kept):
            # The step is durable; a file too many does no harm.
            with contextlib.suppress(OSError):
                self._path(f"{series}-{number:06d}").unlink()

    def load_latest(self, series: str) -> tuple[int, dict[str, Any], dict[str, NDArray[Any]]] | None:
        """Return number, header and arrays of the newest sound step, or None."""
        for step in reversed(self._steps(series)):
            record = self.load(f"{series}-{step:06d}")
            if record is not None:
                return step, *record
        return None

    def _path(self, name: str) -> Path:
        return self.directory / f"{name}.npz"

    def _steps(self, series: str) -> list[int]:
        pattern = re.compile(rf"{re.escape(series)}-(\d{{6,}})")
        return sorted(int(match[1]) for name in self.names(series) if (match := pattern.fullmatch(name)))

    def _compare(self) -> dict[str, Any] | None:
        """Refuse another fit's directory; return the newest header in ours."""
        newest = _newest_header(self.directory)
        if newest is not None:
            self._match(newest["identity"])
        return newest

    def _match(self, recorded: Mapping[str, Any]) -> None:
        """Refuse another identity; adopt the recorded seed where ours is None."""
        if "seed" in self.identity and self.identity["seed"] is None and recorded.get("seed") is not None:
            self.identity["seed"] = recorded["seed"]
        differences = [
            _difference(key, recorded.get(key), self.identity.get(key))
            for key in sorted(recorded.keys() | self.identity.keys())
            if recorded.get(key) != self.identity.get(key)
        ]
        if differences:
            msg = (
                f"{self.directory} holds the checkpoints of another fit: {'; '.join(differences)}. "
                f"Remove {self.directory} to start anew, or choose another checkpoint directory"
            )
            raise CheckpointMismatch(msg)

    def _clear_temporaries(self) -> None:
        """Remove what dead writers left; one that is only frozen fails to rename, as it should."""
        for path in self.directory.iterdir():
            if _TEMPORARY.fullmatch(path.name):
                path.unlink(missing_ok=True)


def environment() -> dict[str, str]:
    """Return what decides the last bits of a result: library versions, BLAS, processor."""
    config: Mapping[str, Any] = np.show_config(mode="dicts") or {}
    blas = config.get("Build Dependencies", {}).get("blas", {})
    return {
        **archive.versions(),
        "blas": f"{blas.get('name', 'unknown')} {blas.get('version', '')}".strip(),
        "machine": platform.machine(),
        "cpu": _cpu_model(),
    }


def _cpu_model() -> str:
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or "unknown"


def _archives(directory: Path) -> Iterable[Path]:
    if not directory.exists():
        return []
    if not directory.is_dir():
        msg = f"{directory} is a file; a checkpoint needs a directory: choose another path"
        raise CheckpointError(msg)
    return directory.glob("*.npz")


def _newest_header(directory: Path) -> dict[str, Any] | None:
    """Return the header of the newest readable checkpoint file, if there is any."""
    ages = []
    for path in _archives(directory):
        with contextlib.suppress(FileNotFoundError):
            ages.append((path.stat().st_mtime_ns, path))
    for _, path in sorted(ages, reverse=True):
        # A damaged file is warned of where it is needed; other people's files are none of our business.
        with contextlib.suppress(CorruptFile, ForeignFile, FileNotFoundError):
            return archive.read(path, _KIND)[0]
    return None


def _difference(key: str, recorded: JSON, ours: JSON) -> str:
    if key in {"data", "weights"} and isinstance(recorded, str) and isinstance(ours, str):
        return f"the {key} changed (fingerprint {recorded:.12}… now {ours:.12}…)"
    return f"{key} was {recorded!r}, now {ours!r}"


def _warn_of_differences(directory: Path, recorded: Mapping[str, str], ours: Mapping[str, str]) -> None:
    changed = [
        f"{key} was {recorded.get(key, 'unknown')}, now {ours.get(key, 'unknown')}"
        for key in sorted(recorded.keys() | ours.keys())
        if recorded.get(key) != ours.get(key)
    ]
    if changed:
        msg = (
            f"{directory} was written in another environment ({'; '.join(changed)}): the fit goes on, "
            "but its results may differ in the last bits from an unbroken run"
        )
        warnings.warn(msg, EnvironmentWarning, stacklevel=3)
