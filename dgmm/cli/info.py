"""``dgmm info``."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import click

from dgmm.cli.options import json_option
from dgmm.cli.table import component_table, components_json, history_json, history_text, show
from dgmm.engine import archive, record
from dgmm.engine.checkpoint import Checkpoint
from dgmm.engine.model import KIND, Model
from dgmm.errors import EnvironmentWarning, SourceNotFound
from dgmm.progress import spoken


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
        "n_passes": model.n_passes,
        "converged": model.converged,
        "log_likelihood": log_likelihood,
        "history": history_json(model.trace, model.n_rows),
        "feature_names": list(model.feature_names),
        "settings": model.settings,
        "versions": versions,
        **components_json(parameters),
    }
    k, d = parameters.means.shape
    lines = [
        f"model of {k} components ({parameters.covariance.name}) in {d} features, "
        f"fitted to {model.n_rows:,} rows of {model.dtype.name}",
        f"{'converged' if model.converged else 'not converged'} after {model.n_iter} iterations and "
        f"{model.n_passes} passes over the data",
        f"mean log-likelihood: {'unknown' if log_likelihood is None else format(log_likelihood, '.9g')}",
        f"settings: {_listed(model.settings)}",
        f"versions: {_listed(versions)}",
        *([history_text(model.trace, model.n_rows)] if model.trace else []),
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
    best = max((found.finalists or found.runs).values(), key=lambda run: run.rank, default=None)
    passes = max((run.state.n_iter for run in found.finalists.values()), default=0)
    facts: dict[str, Any] = {
        "kind": "checkpoint",
        "path": str(path),
        "scanned": found.scan is not None,
        "runs": {name: run.state.log_likelihood for name, run in found.runs.items()},
        "n_init": identity["n_init"],
        "iterations": passes,
        "n_passes": passes + (found.scan is not None),
        "log_likelihood": best.state.log_likelihood if best else None,
        "history": history_json(best.trace, found.scan.n_rows) if best and found.scan else [],
        "identity": identity,
    }
    lines = [
        f"checkpoints of a fit of {identity['n_components']} components ({identity['covariance_type']})",
        "scan: "
        + (f"{found.scan.n_rows:,} rows, sample of {len(found.scan.rows):,}" if found.scan else "not done"),
        f"runs on the sample, from {identity['n_init']} start(s):",
    ]
    lines += [
        f"  {spoken(name)}: {run.state.n_iter} iterations, "
        f"log-likelihood {run.state.log_likelihood:.9g}{', failed' if run.failed else ''}"
        for name, run in sorted(found.runs.items())
    ]
    if found.finalists and best and found.scan:
        lines.append(f"iterations on all rows: {passes}, log-likelihood {best.state.log_likelihood:.9g}")
        lines.append(history_text(best.trace, found.scan.n_rows))
    elif found.scan is not None and found.scan.complete:
        lines.append("the sample is all rows: the best run is the fit")
    else:
        lines.append("iterations on all rows: none yet")
    lines.append(f"seed: {identity['seed']}")
    if best and found.scan is not None:
        parameters = best.state.parameters.to_data(found.scan.frame)
        facts |= components_json(parameters)
        lines += ["", component_table(parameters)]
    return facts, "\n".join(lines)


def _listed(values: dict[str, Any]) -> str:
    return ", ".join(f"{name} {value}" for name, value in values.items())
