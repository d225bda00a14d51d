"""A fit's progress on disk: which event becomes which record of a checkpoint, and back."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import astuple
from typing import Any

import numpy as np

from dgmm.data.address import Address
from dgmm.engine.checkpoint import Checkpoint
from dgmm.engine.events import Event, Iterated, Judged, Progress, Scanned, Searched
from dgmm.engine.identity import check
from dgmm.engine.likelihood import Criteria
from dgmm.engine.packed import pack_runs, pack_scan, unpack_runs, unpack_scan
from dgmm.engine.sampled import Run
from dgmm.engine.trace import Trace
from dgmm.errors import CheckpointMismatch, CorruptFile, DgmmError, EnvironmentWarning, SourceNotFound

_SCAN, _RUN, _ITERATION, _JUDGED = "scan", "run-", "iteration", "judged"


def save(checkpoint: Checkpoint, event: Event) -> None:
    """Make an event durable."""
    match event:
        case Scanned(scan):
            checkpoint.save(_SCAN, *pack_scan(scan))
        case Searched(name, run):
            checkpoint.save(_RUN + name, *pack_runs({name: run}))
        case Iterated(finalists):
            checkpoint.save_step(_ITERATION, event.n_iter, *pack_runs(finalists))
        case Judged(criteria, held_out, reached):
            parts = {"criteria": criteria, "held_out": held_out}
            header = {part: {name: astuple(c) for name, c in found.items()} for part, found in parts.items()}
            checkpoint.save(_JUDGED, {**header, "reached": {name: list(r) for name, r in reached.items()}}, {})


def load(checkpoint: Checkpoint) -> Progress:
    """What earlier drivers left.

    Raises
    ------
    CorruptFile
        A record is whole, but is none that dgmm writes.
    CheckpointMismatch, NewerSchema, ReadFailed, StoreError
        As `Checkpoint.load` does.
    """
    try:
        return _load(checkpoint)
    except DgmmError:
        raise
    except Exception as error:
        # The checksum holds: the file was made to deceive, and decides what is raised.
        address = checkpoint.folder.address
        msg = f"{address} holds a record that dgmm does not write ({error!r}); remove {address} to start anew"
        raise CorruptFile(msg) from error


def _load(checkpoint: Checkpoint) -> Progress:
    record = checkpoint.load(_SCAN)
    if record is None:
        return Progress()
    runs: dict[str, Run] = {}
    for name in checkpoint.names(_RUN):
        found = checkpoint.load(name)
        if found is not None:
            runs |= unpack_runs(*found)
    latest = checkpoint.load_latest(_ITERATION)
    finalists = {} if latest is None else unpack_runs(*latest[1:])
    scan = unpack_scan(*record)
    if {run.state.parameters.n_features for run in (*runs.values(), *finalists.values())} - {len(scan.mean)}:
        msg = "runs of another number of features than the scan"
        raise ValueError(msg)
    return Progress(scan, runs, finalists, _judged(checkpoint, finalists or runs))


def read(directory: Address) -> tuple[dict[str, Any], Progress]:
    """What is in a checkpoint directory, for people: the identity of the fit or selection, and its progress.

    Raises
    ------
    SourceNotFound
        There is nothing of dgmm in it.
    CorruptFile
        What there is dgmm does not write.
    """
    identity = Checkpoint.recorded_identity(directory)
    if identity is None:
        msg = (
            f"{directory} is a folder without checkpoints of dgmm, nor data that it knows. Pass a model file, a "
            "fit's --checkpoint, or data."
        )
        raise SourceNotFound(msg)
    try:
        check(identity)
    except ValueError as error:
        msg = f"{directory} holds {error}: dgmm does not write that; remove {directory} to start anew"
        raise CorruptFile(msg) from error
    with warnings.catch_warnings():
        # It says that the fit goes on; here nothing does.
        warnings.simplefilter("ignore", EnvironmentWarning)
        return identity, load(Checkpoint(directory, identity, {}))


def timed_trace(directory: Address, trace: Trace) -> Trace:
    """The iterations of a model, which its file has without their seconds, as the fit's checkpoint has them.

    Raises
    ------
    SourceNotFound
        There is nothing of dgmm in the directory.
    CheckpointMismatch
        It holds other iterations.
    """
    _, progress = read(directory)
    wanted = [step.log_likelihood for step in trace]
    for run in (*progress.finalists.values(), *progress.runs.values()):
        if wanted and [step.log_likelihood for step in run.trace] == wanted:
            return run.trace
    msg = f"{directory} does not hold the iterations of this model; pass the --checkpoint that it was fitted with"
    raise CheckpointMismatch(msg)


def _judged(checkpoint: Checkpoint, runs: Mapping[str, Run]) -> Judged | None:
    """The criteria of the finalists, unless they went on since."""
    record = checkpoint.load(_JUDGED)
    if record is None:
        return None
    parts = [
        {name: Criteria(*values) for name, values in record[0][part].items()} for part in ("criteria", "held_out")
    ]
    for found in (*parts[0].values(), *parts[1].values()):
        if not (np.isfinite(astuple(found)).all() and found.weight > 0):
            msg = f"{found} of no rows"
            raise ValueError(msg)
    judged = Judged(parts[0], parts[1], record[0]["reached"])
    return judged if judged.applies_to(runs) else None
