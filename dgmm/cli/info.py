"""``dgmm info``."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import click

from dgmm.cli.options import json_option
from dgmm.cli.table import component_table, components_json, show
from dgmm.engine import archive, record
from dgmm.engine.checkpoint import Checkpoint
from dgmm.engine.model import KIND, Model
from dgmm.errors import EnvironmentWarning, SourceNotFound


@click.command()
@click.argument("path", metavar="MODEL|CHECKPOINT", type=click.Path(path_type=Path))
@json_option
def info(path: Path, *, as_json: bool) -> None:
    """Say what is in a model file, or how far the fit in a checkpoint directory is."""
    facts, text = _checkpoint(path) if path.is_dir() else _model(path)
    show(facts, text, as_json=as_json)


def _model(path: Path) -> tuple[dict[str, Any], str]:
    model = Model.load(path)
    versions = archive.read(path, KIND)[0]["versions"]
    parameters = model.in_data_units()
    log_likelihood = model.history[-1] if model.history else None
    facts = {
        "kind": "model",
        "path": str(path),
        "sha256": archive.digest(path),
        "rows": model.n_rows,
        "weight": model.weight,
        "dtype": model.dtype.name,
        "n_iter": model.n_iter,
        "converged": model.converged,
        "log_likelihood": log_likelihood,
        "feature_names": list(model.feature_names),
        "settings": model.settings,
        "versions": versions,
        **components_json(parameters),
    }
    k, d = parameters.means.shape
    lines = [
        f"model of {k} components ({parameters.covariance.name}) in {d} features, "
        f"fitted to {model.n_rows:,} rows of {model.dtype.name}",
        f"{'converged' if model.converged else 'not converged'} after {model.n_iter} iterations",
        f"mean log-likelihood: {'unknown' if log_likelihood is None else format(log_likelihood, '.9g')}",
        f"settings: {_listed(model.settings)}",
        f"versions: {_listed(versions)}",
        "",
        component_table(parameters, model.feature_names),
    ]
    return facts, "\n".join(lines)


def _checkpoint(path: Path) -> tuple[dict[str, Any], str]:
    identity = Checkpoint.recorded_identity(path)
    if identity is None:
        msg = f"{path} is a folder without checkpoints of dgmm. Pass a model file, or the --checkpoint of a fit."
        raise SourceNotFound(msg)
    with warnings.catch_warnings():
        # It says that the fit goes on; here nothing does.
        warnings.simplefilter("ignore", EnvironmentWarning)
        found = record.load(Checkpoint(path, identity, {}))
    sound = [restart for restart in found.restarts.values() if not restart.failed]
    best = max(sound, key=lambda restart: restart.rank, default=None)
    state = found.state or (best.state if best else None)
    facts: dict[str, Any] = {
        "kind": "checkpoint",
        "path": str(path),
        "scanned": found.scan is not None,
        "starts_done": len(found.restarts),
        "n_init": identity["n_init"],
        "iterations": found.state.n_iter if found.state else 0,
        "log_likelihood": state.log_likelihood if state else None,
        "identity": identity,
    }
    lines = [
        f"checkpoints of a fit of {identity['n_components']} components ({identity['covariance_type']})",
        "scan: "
        + (f"{found.scan.n_rows:,} rows, sample of {len(found.scan.rows):,}" if found.scan else "not done"),
        f"starts on the sample done: {len(found.restarts)} of {identity['n_init']}",
    ]
    lines += [
        f"  start {index + 1}: {restart.state.n_iter} iterations, "
        f"log-likelihood {restart.state.log_likelihood:.9g}{', failed' if restart.failed else ''}"
        for index, restart in sorted(found.restarts.items())
    ]
    if found.state:
        lines.append(
            f"iterations on all rows: {found.state.n_iter}, log-likelihood {found.state.log_likelihood:.9g}"
        )
    elif found.scan is not None and found.scan.complete:
        lines.append("the sample is all rows: the best start is the fit")
    else:
        lines.append("iterations on all rows: none yet")
    lines.append(f"seed: {identity['seed']}")
    if state and found.scan is not None:
        parameters = state.parameters.to_data(found.scan.frame)
        facts |= components_json(parameters)
        lines += ["", component_table(parameters)]
    return facts, "\n".join(lines)


def _listed(values: dict[str, Any]) -> str:
    return ", ".join(f"{name} {value}" for name, value in values.items())
