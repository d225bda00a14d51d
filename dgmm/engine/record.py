"""A fit's progress on disk: which event becomes which record of a checkpoint, and back."""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Mapping
from dataclasses import astuple
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dgmm.data.address import Address
from dgmm.data.source import Source
from dgmm.engine.checkpoint import Checkpoint
from dgmm.engine.events import Event, Iterated, Judged, Progress, Scanned, Searched
from dgmm.engine.likelihood import Criteria
from dgmm.engine.model import parameter_arrays, parameters_from
from dgmm.engine.sampled import Run
from dgmm.engine.scan import Scan
from dgmm.engine.settings import Contest, Settings, Start
from dgmm.engine.trace import Trace, pack_trace, unpack_trace
from dgmm.errors import CheckpointMismatch, CorruptFile, DgmmError, EnvironmentWarning, SourceNotFound
from dgmm.mixture.acceleration import Acceleration
from dgmm.mixture.em import EMState
from dgmm.mixture.expectation import tile_rows
from dgmm.mixture.frame import Frame

_SCAN, _RUN, _ITERATION, _JUDGED = "scan", "run-", "iteration", "judged"


def identity(
    source: Source, weights: Source | None, settings: Settings, seed: int | None, content: str
) -> dict[str, Any]:
    """What makes a fit this fit. How long it runs, and where, is not part of it.

    Parameters
    ----------
    source, weights : Source
    settings : Settings
    seed : int or None
        None matches any recorded one.
    content : str
        Digest from the scan, where the source has no fingerprint of its own.
    """
    s = settings
    features = s.covariance.n_features(source.n_features)
    return {
        "data": content or source.fingerprint(),
        "weights": None if weights is None else content or weights.fingerprint(),
        "blocks": hashlib.sha256(np.ascontiguousarray(source.bounds, dtype="<i8").tobytes()).hexdigest(),
        "tile_rows": tile_rows(s.n_components, features),
        "n_components": s.n_components,
        "covariance_type": s.covariance_type,
        "reg_covar": float(s.reg_covar),
        "reg_relative": float(s.reg_relative),
        "init_params": s.init_params,
        "n_init": s.n_init,
        "n_finalists": s.n_finalists,
        "accelerate": s.accelerate,
        "sample_rows": s.sample_rows(source),
        "start": _start_digest(s.start),
        "seed": seed,
        **({"standardize": True} if s.standardize else {}),
    }


def contest_identity(
    source: Source, weights: Source | None, contest: Contest, seed: int | None, content: str
) -> dict[str, Any]:
    """The same of a selection."""
    shared = identity(source, weights, contest.settings, seed, content)
    for of_one in ("n_components", "covariance_type", "tile_rows", "n_finalists", "accelerate"):
        del shared[of_one]
    return {
        **shared,
        "sample_rows": contest.sample_rows(source),
        "candidates": contest.names,
        "criterion": contest.criterion,
        "holdout": contest.holdout,
    }


def _start_digest(start: Start) -> str | None:
    state = hashlib.sha256()
    for name, value in sorted(vars(start).items()):
        if value is not None:
            state.update(f"{name}{value.shape}".encode() + np.ascontiguousarray(value).tobytes())
    return state.hexdigest() if start.given else None


def save(checkpoint: Checkpoint, event: Event) -> None:
    """Make an event durable."""
    match event:
        case Scanned(scan):
            checkpoint.save(_SCAN, *_pack_scan(scan))
        case Searched(name, run):
            checkpoint.save(_RUN + name, *_pack_runs({name: run}))
        case Iterated(finalists):
            checkpoint.save_step(_ITERATION, event.n_iter, *_pack_runs(finalists))
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
            runs |= _unpack_runs(*found)
    latest = checkpoint.load_latest(_ITERATION)
    finalists = {} if latest is None else _unpack_runs(*latest[1:])
    return Progress(_unpack_scan(*record), runs, finalists, _judged(checkpoint, finalists or runs))


def read(directory: Address) -> tuple[dict[str, Any], Progress]:
    """What is in a checkpoint directory, for people: the identity of the fit or selection, and its progress.

    Raises
    ------
    SourceNotFound
        There is nothing of dgmm in it.
    """
    identity = Checkpoint.recorded_identity(directory)
    if identity is None:
        msg = (
            f"{directory} is a folder without checkpoints of dgmm, nor data that it knows. Pass a model file, a "
            "fit's --checkpoint, or data."
        )
        raise SourceNotFound(msg)
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
    judged = Judged(parts[0], parts[1], record[0]["reached"])
    return judged if judged.applies_to(runs) else None


def _pack_runs(runs: Mapping[str, Run]) -> tuple[dict[str, Any], dict[str, NDArray[Any]]]:
    """Runs as header and arrays of one record."""
    header: dict[str, Any] = {
        "names": list(runs),
        "failed": [run.failed for run in runs.values()],
        "collapsed": [list(run.collapsed) for run in runs.values()],
        "outlying": [list(run.outlying) for run in runs.values()],
        "searched": [run.searched for run in runs.values()],
        "accelerations": [_acceleration_header(run.state.acceleration) for run in runs.values()],
        "covariance_types": [run.state.parameters.covariance.name for run in runs.values()],
    }
    arrays = {
        f"{key}_{i}": value
        for i, run in enumerate(runs.values())
        for key, value in {
            **parameter_arrays(run.state.parameters),
            "history": np.array(run.state.history, dtype=np.float64),
            "trace": pack_trace(run.trace),
            **_acceleration_arrays(run.state.acceleration),
        }.items()
    }
    return header, arrays


def _unpack_runs(header: dict[str, Any], arrays: Mapping[str, NDArray[Any]]) -> dict[str, Run]:
    runs = {}
    for i, name in enumerate(header["names"]):
        kind, suffix = header["covariance_types"][i], f"_{i}"
        own = {key.removesuffix(suffix): value for key, value in arrays.items() if key.endswith(suffix)}
        memory = _unpack_acceleration(kind, header["accelerations"][i], own)
        state = EMState(parameters_from(kind, own), tuple(own["history"].tolist()), memory)
        runs[name] = Run(
            state,
            unpack_trace(own["trace"]),
            header["failed"][i],
            tuple(header["collapsed"][i]),
            tuple(header["outlying"][i]),
            header["searched"][i],
        )
    return runs


def _acceleration_header(memory: Acceleration | None) -> dict[str, Any] | None:
    if memory is None:
        return None
    # JSON has no infinity.
    least = None if np.isneginf(memory.least) else memory.least
    return {"rate": memory.rate, "least": least, "succeeded": memory.succeeded, "over": memory.over}


def _acceleration_arrays(memory: Acceleration | None) -> dict[str, NDArray[Any]]:
    if memory is None:
        return {}
    trial = {} if memory.trial is None else parameter_arrays(memory.trial)
    return {
        "run": np.array(memory.run, dtype=np.float64),
        "points": memory.points,
        "residuals": memory.residuals,
        **{f"trial_{key}": value for key, value in trial.items()},
    }


def _unpack_acceleration(
    kind: str, header: dict[str, Any] | None, arrays: Mapping[str, NDArray[Any]]
) -> Acceleration | None:
    if header is None:
        return None
    trial = {key.removeprefix("trial_"): value for key, value in arrays.items() if key.startswith("trial_")}
    return Acceleration(
        run=tuple(arrays["run"].tolist()),
        points=arrays["points"],
        residuals=arrays["residuals"],
        rate=header["rate"],
        trial=parameters_from(kind, trial) if trial else None,
        least=-np.inf if header["least"] is None else header["least"],
        succeeded=header["succeeded"],
        over=header["over"],
    )


def _pack_scan(scan: Scan) -> tuple[dict[str, Any], Mapping[str, NDArray[Any]]]:
    header = {
        "n_rows": scan.n_rows,
        "n_missing": scan.n_missing,
        "weight": scan.weight,
        "complete": scan.complete,
        "n_passes": scan.n_passes,
        "radius_squared": scan.radius_squared,
        "content": scan.content,
    }
    arrays = {
        "shift": scan.frame.shift,
        "scale": scan.frame.scale,
        "mean": scan.mean,
        "variance": scan.variance,
        "low": scan.low,
        "high": scan.high,
        "rows": scan.rows,
    }
    if scan.weights is not None:
        arrays["row_weights"] = scan.weights
    return header, arrays


def _unpack_scan(header: dict[str, Any], arrays: dict[str, NDArray[Any]]) -> Scan:
    return Scan(
        frame=Frame(arrays["shift"], arrays["scale"]),
        mean=arrays["mean"],
        variance=arrays["variance"],
        low=arrays["low"],
        high=arrays["high"],
        rows=arrays["rows"],
        weights=arrays.get("row_weights"),
        **header,
    )
