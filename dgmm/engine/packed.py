"""Scans and runs as the header and the arrays of a checkpoint's file, and back."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import astuple
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dgmm.engine.model import parameter_arrays, parameters_from
from dgmm.engine.sampled import Run
from dgmm.engine.scan import Scan
from dgmm.engine.trace import pack_trace, unpack_trace
from dgmm.mixture.acceleration import Acceleration
from dgmm.mixture.em import EMState
from dgmm.mixture.frame import Frame


def pack_runs(runs: Mapping[str, Run]) -> tuple[dict[str, Any], dict[str, NDArray[Any]]]:
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


def unpack_runs(header: dict[str, Any], arrays: Mapping[str, NDArray[Any]]) -> dict[str, Run]:
    """The inverse."""
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
        _check_run(name, runs[name])
    return runs


def _check_run(name: Any, run: Run) -> None:
    """`ValueError` or `TypeError` for what no run has; a checksum says nothing of who wrote a file."""
    right = {
        "name": isinstance(name, str),
        "failed": isinstance(run.failed, str),
        "components": all(type(k) is int for k in (*run.collapsed, *run.outlying)),
        "searched": type(run.searched) in (int, float),
        "history": all(type(value) is float for value in run.state.history),
        "trace": all(type(value) is float for step in run.trace for value in astuple(step)),
    }
    _refuse("run", right)


def _acceleration_header(memory: Acceleration | None) -> dict[str, Any] | None:
    if memory is None:
        return None
    # JSON has no infinity.
    least = None if np.isneginf(memory.least) else memory.least
    plain = ("rate", "succeeded", "stretching", "reach", "over")
    return {"least": least, **{name: getattr(memory, name) for name in plain}}


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
        # The first checkpoints had no longer steps.
        **{name: header[name] for name in ("stretching", "reach") if name in header},
    )


def pack_scan(scan: Scan) -> tuple[dict[str, Any], Mapping[str, NDArray[Any]]]:
    """A scan as header and arrays of one record."""
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


def unpack_scan(header: dict[str, Any], arrays: dict[str, NDArray[Any]]) -> Scan:
    """The inverse."""
    scan = Scan(
        frame=Frame(arrays["shift"], arrays["scale"]),
        mean=arrays["mean"],
        variance=arrays["variance"],
        low=arrays["low"],
        high=arrays["high"],
        rows=arrays["rows"],
        weights=arrays.get("row_weights"),
        **header,
    )
    _check_scan(scan)
    return scan


def _check_scan(scan: Scan) -> None:
    """The same of a scan."""
    d = scan.frame.shift.shape
    of_features = (scan.frame.shift, scan.frame.scale, scan.mean, scan.variance, scan.low, scan.high)
    right = {
        "counts": all(type(n) is int and n >= 0 for n in (scan.n_rows, scan.n_missing, scan.n_passes)),
        "features": len(d) == 1 and d[0] > 0
        and all(a.shape == d and a.dtype.kind == "f" and np.isfinite(a).all() for a in of_features),
        "frame": (scan.frame.scale > 0).all() and (scan.variance >= 0).all(),
        "rows": scan.rows.ndim == 2 and scan.rows.shape[1:] == d and len(scan.rows) > 0
        and scan.rows.dtype.kind == "f" and np.isfinite(scan.rows).all(),
        "weights": scan.weights is None
        or (scan.weights.shape == scan.rows.shape[:1] and scan.weights.dtype.kind == "f"),
        "weight": type(scan.weight) in (int, float) and 0 <= scan.weight < np.inf,
        "radius_squared": type(scan.radius_squared) in (int, float) and 0 <= scan.radius_squared < np.inf,
        "complete": isinstance(scan.complete, bool),
        "content": isinstance(scan.content, str),
    }  # fmt: skip
    _refuse("scan", right)


def _refuse(what: str, right: Mapping[str, Any]) -> None:
    if wrong := [name for name, is_right in right.items() if not is_right]:
        msg = f"a {what} whose {', '.join(wrong)} is of another kind or size"
        raise ValueError(msg)
