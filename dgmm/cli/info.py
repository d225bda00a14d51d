"""``dgmm info``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import click

from dgmm.cli.data_facts import data_facts
from dgmm.cli.options import AddressType, Reading, json_option, reading_options
from dgmm.cli.table import component_table, components_json, finite, history_json, history_text, show
from dgmm.data.formats import kind_at
from dgmm.data.zarr_address import is_zarr
from dgmm.engine import archive, record
from dgmm.engine.events import Judged, Progress
from dgmm.engine.folder import is_folder
from dgmm.engine.model import KIND, Model
from dgmm.engine.sampled import Run
from dgmm.mixture.covariance import covariance_type
from dgmm.mixture.criteria import aic, bic, icl
from dgmm.progress import left_out, spoken


@click.command()
@click.argument("path", metavar="MODEL|CHECKPOINT|DATA", type=AddressType())
@reading_options
@json_option
def info(path: str, reading: Reading, *, as_json: bool) -> None:
    """Say what is in a model file, how far the fit or selection in a checkpoint directory is, or what data are.

    Of data it says, without reading them, how many rows and features there are, and whether a checksum would
    notice a flipped bit.
    """
    if _is_data(path):
        facts, text = data_facts(reading.open(path))
    else:
        facts, text = _checkpoint(path) if is_folder(path) else _model(path)
    show(facts, text, as_json=as_json)


def _is_data(path: str) -> bool:
    """Whether dgmm would fit what is there, be it of a kind that has to be converted first."""
    return kind_at(path) is not None or path.endswith(".nc") or is_zarr(path)


def _model(path: str) -> tuple[dict[str, Any], str]:
    model = Model.load(path)
    versions = archive.read(path, KIND)[0]["versions"]
    parameters = model.in_data_units()
    log_likelihood = model.history[-1] if model.history else None
    facts = {
        "kind": "model",
        "path": path,
        "sha256": archive.digest(path),
        "rows": model.n_rows,
        "rows_left_out": model.n_missing,
        "weight": model.weight,
        "dtype": model.dtype.name,
        "n_iter": model.n_iter,
        "n_passes": model.n_passes,
        "converged": model.converged,
        "log_likelihood": log_likelihood,
        "history": history_json(model.trace, model.n_rows),
        "feature_names": list(model.feature_names),
        "settings": model.settings,
        "origin": model.origin.pack(),
        "versions": versions,
        **components_json(parameters),
    }
    k, d = parameters.means.shape
    lines = [
        f"model of {k} components ({parameters.covariance.name}) in {d} features, "
        f"fitted to {model.n_rows:,} rows of {model.dtype.name}{left_out(model.n_missing)}",
        f"{'converged' if model.converged else 'not converged'} after {model.n_iter} iterations and "
        f"{model.n_passes} passes over the data",
        f"mean log-likelihood: {'unknown' if log_likelihood is None else format(log_likelihood, '.9g')}",
        *([f"data: {model.origin.data}"] if model.origin.data else []),
        f"settings: {_listed(model.settings)}",
        f"versions: {_listed(versions)}",
        *([history_text(model.trace, model.n_rows)] if model.trace else []),
        "",
        component_table(parameters, model.feature_names),
    ]
    return facts, "\n".join(lines)


def _checkpoint(path: str) -> tuple[dict[str, Any], str]:
    identity, found = record.read(path)
    facts: dict[str, Any] = {
        "kind": "checkpoint",
        "path": path,
        "scanned": found.scan is not None,
        "runs": {name: finite(run.state.log_likelihood) for name, run in found.runs.items()},
        "n_init": identity["n_init"],
        "iterations": max((run.state.n_iter for run in found.finalists.values()), default=0),
        "identity": identity,
    }
    facts["n_passes"] = facts["iterations"] + (found.scan.n_passes if found.scan else 0)
    selection = "candidates" in identity
    more, lines = _selection(identity, found, facts) if selection else _fit(identity, found, facts)
    return facts | more, "\n".join(lines)


def _fit(identity: dict[str, Any], found: Progress, facts: dict[str, Any]) -> tuple[dict[str, Any], list[str]]:
    best = max((found.finalists or found.runs).values(), key=lambda run: run.rank, default=None)
    rows = (found.scan.n_rows if found.finalists else len(found.scan.rows)) if found.scan else 0
    more: dict[str, Any] = {
        "log_likelihood": finite(best.state.log_likelihood) if best else None,
        "history": history_json(best.trace, rows) if best else [],
    }
    lines = [
        f"checkpoints of a fit of {identity['n_components']} components ({identity['covariance_type']})",
        _scanned(found),
        f"runs on the sample, from {identity['n_init']} start(s):",
        *_runs(found.runs),
    ]
    if found.finalists and best and found.scan:
        reached = f"log-likelihood {best.state.log_likelihood:.9g}"
        lines.append(f"iterations on all rows: {facts['iterations']}, {reached}")
        lines.append(history_text(best.trace, found.scan.n_rows))
    elif found.scan is not None and found.scan.complete:
        lines.append("the sample is all rows: the best run is the fit")
    else:
        lines.append("iterations on all rows: none yet")
    lines.append(f"seed: {identity['seed']}")
    if best and found.scan is not None:
        kind, standardize = covariance_type(identity["covariance_type"]), identity.get("standardize", False)
        frame = found.scan.framed_for(kind, standardize=standardize).frame
        parameters = best.state.parameters.seen_from(frame).to_data(frame)
        more |= components_json(parameters)
        lines += ["", component_table(parameters)]
    return more, lines


def _selection(
    identity: dict[str, Any], found: Progress, facts: dict[str, Any]
) -> tuple[dict[str, Any], list[str]]:
    candidates, judged = identity["candidates"], found.judged
    left_out = f", {identity['holdout']:g} of the rows held out" if identity["holdout"] else ""
    criteria = {} if judged is None else {name: _criteria(name, found, judged) for name in judged.criteria}
    more = {
        "n_passes": facts["n_passes"] + (1 + bool(judged.held_out) if judged else 0),
        "candidates": candidates,
        "finalists": {name: run.state.n_iter for name, run in found.finalists.items()},
        "criteria": criteria,
    }
    lines = [
        f"checkpoints of a selection by {identity['criterion']} of {len(candidates)} candidates{left_out}",
        _scanned(found),
        f"candidates searched for on the sample: {len(found.runs)} of {len(candidates)}",
        *_runs(found.runs),
    ]
    if found.finalists:
        lines.append(f"iterations on all rows: {facts['iterations']}, of {len(found.finalists)} candidates")
        lines += _runs(found.finalists)
    elif found.scan is not None and found.scan.complete:
        lines.append("the sample is all rows: the runs are the fits")
    else:
        lines.append("iterations on all rows: none yet")
    lines.append("criteria:" if judged else "criteria: none yet")
    lines += [
        f"  {spoken(name)}: {', '.join(f'{kind} {value:.9g}' for kind, value in values.items())}"
        for name, values in sorted(criteria.items())
    ]
    return more, [*lines, f"passes over the data: {more['n_passes']}", f"seed: {identity['seed']}"]


def _criteria(name: str, found: Progress, judged: Judged) -> dict[str, float]:
    c, run = judged.criteria[name], found.finalists.get(name) or found.runs[name]
    n_parameters = run.state.parameters.n_parameters
    values = {
        "bic": bic(c.log_likelihood, n_parameters, c.weight),
        "aic": aic(c.log_likelihood, n_parameters),
        "icl": icl(c.log_likelihood, n_parameters, c.weight, c.entropy),
    }
    if name in judged.held_out:
        values["held_out"] = judged.held_out[name].log_likelihood / judged.held_out[name].weight
    return values


def _scanned(found: Progress) -> str:
    scan = found.scan
    if scan is None:
        return "scan: not done"
    return f"scan: {scan.n_rows:,} rows, sample of {len(scan.rows):,}{left_out(scan.n_missing)}"


def _runs(runs: Mapping[str, Run]) -> list[str]:
    return [
        f"  {spoken(name)}: {run.state.n_iter} iterations, "
        f"log-likelihood {run.state.log_likelihood:.9g}{', failed' if run.failed else ''}"
        for name, run in sorted(runs.items())
    ]


def _listed(values: dict[str, Any]) -> str:
    return ", ".join(f"{name} {value}" for name, value in values.items())
