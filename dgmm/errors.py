"""Every error and warning that dgmm raises, one tree.

Each message says what was found, what was expected, and what to do.

::

    DgmmError
    ├── InvalidInput (ValueError)            exit code 2 of the command line
    │   ├── InvalidParameter                 an option has a value that means nothing
    │   ├── InvalidData                      the rows cannot be used
    │   │   ├── NonFiniteData                NaN or infinity: chunk, row, feature
    │   │   ├── MissingChunks                chunks of a Zarr array that are not stored
    │   │   ├── DataChanged                  they are no longer what was opened
    │   │   ├── UnsupportedDtype (TypeError) complex, text, objects that are no numbers
    │   │   └── ShapeMismatch                1-D, other feature counts, too few rows
    │   ├── InvalidWeights                   negative, NaN, all zero, another length
    │   ├── SourceNotFound (FileNotFoundError)
    │   ├── UnreachablePath                  workers do not see what the driver sees
    │   ├── InvalidClusterFile               a cluster's YAML file: key, value, what is valid
    │   ├── MissingExtra (ImportError)       an optional package has to be installed
    │   └── NotEnoughMemory (MemoryError)    the plan exceeds what a worker has
    ├── IllDefinedCovariance (ValueError)    a component has no invertible covariance
    ├── FileError                            a checkpoint, model or output file
    │   ├── CorruptFile                      truncated or altered
    │   ├── ForeignFile                      not written by dgmm
    │   ├── NewerSchema                      written by a later version
    │   ├── ReadFailed (OSError)             no permission, I/O error
    │   └── WriteFailed (OSError)            no room, no permission, I/O error
    ├── StoreError (OSError)                 an object store refuses, or does not answer
    ├── CheckpointError                      a checkpoint directory
    │   ├── CheckpointMismatch               it belongs to another fit
    │   ├── CheckpointInUse                  another driver is at work in it
    │   └── Superseded                       another driver took it over
    ├── ClusterError                         the Dask cluster cannot finish the pass
    │   ├── SchedulerLost                    its scheduler is gone, or does not answer
    │   └── DeadlyTask                       rows that end every worker that computes them
    └── Interrupted                          asked to stop; the state is on disk (exit 75)

    DgmmWarning (UserWarning)
    ├── DamagedFileWarning                   a damaged file was passed over
    ├── EnvironmentWarning                   resumed elsewhere, or could not be
    ├── CollapsedComponentWarning            components that rest on a few rows
    ├── SecurityWarning                      others could read or change what is computed
    └── DataWarning                          the data will work, but not well
"""

from __future__ import annotations


class DgmmError(Exception):
    """Base of every error that dgmm raises."""


class InvalidInput(DgmmError, ValueError):
    """What the caller passed cannot be used; nothing was computed."""


class InvalidParameter(InvalidInput, TypeError):
    """An option has a value that means nothing; a `TypeError` too, as scikit-learn's is."""


class InvalidData(InvalidInput):
    """The rows cannot be used."""


class NonFiniteData(InvalidData):
    """NaN or infinity among the values.

    Attributes
    ----------
    value : float
    row, feature : int or None
        Global row and feature of the first such value, where they are known.
    """

    value: float = float("nan")
    row: int | None = None
    feature: int = 0


class MissingChunks(InvalidData):
    """Chunks of a Zarr array are not stored."""


class DataChanged(InvalidData):
    """What is stored is no longer what was opened."""


class UnsupportedDtype(InvalidData, TypeError):
    """Values are not real numbers."""


class ShapeMismatch(InvalidData):
    """The array has the wrong number of dimensions, rows or features."""


class InvalidWeights(InvalidInput):
    """Sample weights are negative, not finite, all zero or of another length."""


class SourceNotFound(InvalidInput, FileNotFoundError):
    """There is no data at this address."""

    # FileNotFoundError formats its arguments as (errno, text): keep the message.
    def __str__(self) -> str:
        return str(self.args[0]) if self.args else ""


class UnreachablePath(InvalidInput):
    """A path that the driver sees is missing, or another, where a worker runs."""


class InvalidClusterFile(InvalidInput):
    """A file that describes a cluster cannot be used."""


class MissingExtra(InvalidInput, ImportError):
    """An optional package is not installed."""


class NotEnoughMemory(InvalidInput, MemoryError):
    """The planned memory of a worker exceeds its limit."""


class IllDefinedCovariance(DgmmError, ValueError):
    """A component has no invertible covariance."""


class FileError(DgmmError):
    """A checkpoint, model or output file cannot be used."""


class CorruptFile(FileError):
    """The file is truncated or was altered after it was written."""


class ForeignFile(FileError):
    """The file was not written by dgmm."""


class NewerSchema(FileError):
    """The file was written by a later version of dgmm."""


class ReadFailed(FileError, OSError):
    """A file or folder that may be sound could not be read."""

    def __str__(self) -> str:
        return str(self.args[0]) if self.args else ""


class WriteFailed(FileError, OSError):
    """A file could not be written; what was there before is intact."""

    def __str__(self) -> str:
        return str(self.args[0]) if self.args else ""


class StoreError(DgmmError, OSError):
    """An object store refuses a request, or does not answer."""

    def __str__(self) -> str:
        return str(self.args[0]) if self.args else ""


class CheckpointError(DgmmError):
    """A checkpoint directory cannot be used."""


class CheckpointMismatch(CheckpointError):
    """The directory holds the checkpoints of another fit."""


class CheckpointInUse(CheckpointError):
    """Another driver is at work in the directory."""


class Superseded(CheckpointError):
    """Another driver took the directory over; this one stops."""


class ClusterError(DgmmError):
    """The Dask cluster cannot finish the pass."""


class SchedulerLost(ClusterError):
    """The Dask scheduler is gone, or does not answer."""


class DeadlyTask(ClusterError):
    """A task ends every worker that runs it.

    Attributes
    ----------
    task : str
        Its name.
    deaths : int
        Workers that died of it.
    rows : tuple of int or None
        Start and stop of the rows that it reads, if it reads some.
    """

    task: str = ""
    deaths: int = 0
    rows: tuple[int, int] | None = None


class HangingTask(ClusterError):
    """A task does not end, on any worker that tries it.

    Attributes
    ----------
    task : str
        Its name.
    workers : tuple of str
        Where it hung.
    seconds : float
        For so long, the last time.
    rows : tuple of int or None
        Start and stop of the rows that it reads, if it reads some.
    """

    task: str = ""
    workers: tuple[str, ...] = ()
    seconds: float = 0.0
    rows: tuple[int, int] | None = None


class Interrupted(DgmmError):
    """The run was asked to stop; its last state is on disk."""


class DgmmWarning(UserWarning):
    """Base of every warning that dgmm issues."""


class DamagedFileWarning(DgmmWarning):
    """A damaged file was passed over for an older one."""


class EnvironmentWarning(DgmmWarning):
    """A fit goes on with other library versions or another processor, or could not go on elsewhere."""


class CollapsedComponentWarning(DgmmWarning):
    """Components of the result rest on a few distinct rows."""


class SecurityWarning(DgmmWarning):
    """Others could read, or change, what is computed."""


class DataWarning(DgmmWarning):
    """The data can be used, but something about them deserves a look."""
