"""A fit's progress on disk: which event becomes which record of a checkpoint, and back."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dgmm.data.source import Source
from dgmm.engine.checkpoint import Checkpoint
from dgmm.engine.fit import Event, Iterated, Progress, Restart, Restarted, Scanned, Settings, Start, sample_rows
from dgmm.engine.model import parameter_arrays, parameters_from
from dgmm.engine.scan import Scan
from dgmm.mixture.em import EMState
from dgmm.mixture.expectation import tile_rows
from dgmm.mixture.frame import Frame

_SCAN, _RESTART, _ITERATION = "scan", "restart", "iteration"


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
        "sample_rows": sample_rows(source),
        "start": _start_digest(s.start),
        "seed": seed,
    }


def _start_digest(start: Start) -> str | None:
    state = hashlib.sha256()
    for name, value in sorted(vars(start).items()):
        if value is not None:
            state.update(f"{name}{value.shape}".encode() + np.ascontiguousarray(value).tobytes())
    given = any(value is not None for value in vars(start).values())
    return state.hexdigest() if given else None


def save(checkpoint: Checkpoint, event: Event) -> None:
    """Make an event durable, if it is one that a later run can start from."""
    match event:
        case Scanned(scan):
            checkpoint.save(_SCAN, *_pack_scan(scan))
        case Restarted(index, restart):
            header: dict[str, Any] = {"failed": restart.failed, "collapsed": list(restart.collapsed)}
            checkpoint.save(f"{_RESTART}-{index:04d}", header, _pack_state(restart.state))
        case Iterated(state):
            checkpoint.save_step(_ITERATION, state.n_iter, {}, _pack_state(state))


def load(checkpoint: Checkpoint) -> Progress:
    """What earlier runs left."""
    record = checkpoint.load(_SCAN)
    if record is None:
        return Progress()
    covariance = checkpoint.identity["covariance_type"]
    restarts = {}
    for name in checkpoint.names(f"{_RESTART}-"):
        found = checkpoint.load(name)
        if found is not None:
            header, arrays = found
            state = _state(covariance, arrays)
            index = int(name.removeprefix(f"{_RESTART}-"))
            restarts[index] = Restart(state, header["failed"], tuple(header["collapsed"]))
    latest = checkpoint.load_latest(_ITERATION)
    return Progress(
        scan=_unpack_scan(*record),
        restarts=restarts,
        state=None if latest is None else _state(covariance, latest[2]),
    )


def _pack_state(state: EMState) -> dict[str, NDArray[Any]]:
    return {**parameter_arrays(state.parameters), "history": np.array(state.history, dtype=np.float64)}


def _state(covariance: str, arrays: dict[str, NDArray[Any]]) -> EMState:
    parameters = parameters_from(covariance, arrays)
    return EMState(parameters, tuple(arrays["history"].tolist()))


def _pack_scan(scan: Scan) -> tuple[dict[str, Any], Mapping[str, NDArray[Any]]]:
    header = {
        "n_rows": scan.n_rows,
        "weight": scan.weight,
        "complete": scan.complete,
        "radius_squared": scan.radius_squared,
        "content": scan.content,
    }
    arrays = {
        "shift": scan.frame.shift,
        "scale": scan.frame.scale,
        "mean": scan.mean,
        "variance": scan.variance,
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
        rows=arrays["rows"],
        weights=arrays.get("row_weights"),
        **header,
    )
