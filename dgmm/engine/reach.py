"""Whether the workers see what the driver sees: data, output and checkpoints under the same paths."""

from __future__ import annotations

import contextlib
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from dgmm.data.address import Address, is_url, plain
from dgmm.data.row_output import RowOutput
from dgmm.data.source import Source
from dgmm.engine.scheduler import Scheduler
from dgmm.errors import EnvironmentWarning, UnreachablePath


def check_readable(scheduler: Scheduler, *sources: Source | None) -> None:
    """Read the first row on every host, and refuse data that some worker cannot read or that differ there.

    Parameters
    ----------
    scheduler : Scheduler
    *sources : Source or None
        Data and weights. Tasks of somebody's Dask graph are left to that graph.

    Raises
    ------
    UnreachablePath
        Naming the path and the worker.
    """
    for source in sources:
        if source is None or source.delayed:
            continue
        found = scheduler.on_hosts(_first_row, source)
        expected = source.read(0, 1).tobytes() if found else b""
        for worker, row in found.items():
            _refuse(source.name, worker, "read", row)
            if isinstance(row, np.ndarray) and row.tobytes() != expected:
                raise _unreachable(source.name, worker, "holds other rows when read from")


def check_output(scheduler: Scheduler, output: RowOutput) -> None:
    """Refuse an output that some worker cannot write to.

    Raises
    ------
    UnreachablePath
    """
    for worker, error in scheduler.on_hosts(_open_output, output).items():
        _refuse(output.path, worker, "written", error)


def warn_if_hidden(scheduler: Scheduler, directory: Address) -> None:
    """Warn of a checkpoint directory that only the driver sees: if its machine fails nobody can go on."""
    if is_url(plain(directory)):
        return
    path = Path(plain(directory)).absolute()
    with contextlib.suppress(OSError):  # for whoever writes there to report
        path.mkdir(mode=0o775, parents=True, exist_ok=True)
    hidden = [worker for worker, there in scheduler.on_hosts(_is_folder, path).items() if there is False]
    if hidden:
        msg = (
            f"the checkpoint directory {path} is not there on the host of worker {hidden[0]}: only a run on this "
            "machine can go on from it. Put it on a file system that all machines share."
        )
        warnings.warn(msg, EnvironmentWarning, stacklevel=2)


@dataclass(frozen=True)
class _Refused:
    """What a worker met at a path; other errors are those of the connection to it."""

    cause: str


def _first_row(source: Source) -> Any:
    try:
        return source.read(0, 1)
    except Exception as error:
        return _Refused(f"{type(error).__name__}: {error}")


def _open_output(output: RowOutput) -> Any:
    try:
        return output.check_writable()
    except Exception as error:
        return _Refused(f"{type(error).__name__}: {error}")


def _is_folder(path: Path) -> bool:
    return path.is_dir()


def _refuse(path: str, worker: str, what: str, answer: Any) -> None:
    if isinstance(answer, _Refused):
        raise _unreachable(path, worker, f"cannot be {what} from", f" ({answer.cause})")


def _unreachable(path: str, worker: str, fault: str, why: str = "") -> UnreachablePath:
    return UnreachablePath(
        f"{path} {fault} worker {worker}{why}. Driver and workers must see it under the same path or URL: put it "
        "on a file system that they share."
    )
