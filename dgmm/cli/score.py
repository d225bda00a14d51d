"""``dgmm score``."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import click

from dgmm.cli.options import (
    Where,
    cluster_options,
    data_argument,
    json_option,
    missing_option,
    model_option,
)
from dgmm.cli.progress import RowsLog
from dgmm.cli.table import show
from dgmm.data.source import open_source, open_weights
from dgmm.engine.likelihood import total_score
from dgmm.engine.model import Model
from dgmm.engine.predict import check_features
from dgmm.mixture.criteria import aic, bic


@click.command()
@data_argument
@model_option
@click.option("--weights", metavar="DATA", help="A Zarr array of one weight a row.")
@missing_option
@cluster_options
@json_option
def score(
    data: str,
    model_file: Path,
    weights: str | None,
    missing_chunks: Literal["error", "fill"],
    where: Where,
    *,
    as_json: bool,
) -> None:
    """Log-likelihood, BIC and AIC of DATA under a model (lower criteria are better)."""
    model = Model.load(model_file)
    source = open_source(data, missing_chunks=missing_chunks)
    check_features(model, source)
    source_weights = None
    if weights is not None:
        source_weights = open_weights(weights, source.n_rows, source.bounds, missing_chunks=missing_chunks)
    with where.client(source):
        total = total_score(source, source_weights, model.score_work(), RowsLog())
    n_parameters = model.parameters.n_parameters
    facts = {
        "mean_log_likelihood": total.log_likelihood / total.weight,
        "log_likelihood": total.log_likelihood,
        "n": source.n_rows,
        "weight": total.weight,
        "n_parameters": n_parameters,
        "bic": bic(total.log_likelihood, n_parameters, total.weight),
        "aic": aic(total.log_likelihood, n_parameters),
    }
    show(
        facts,
        "\n".join(f"{name.replace('_', ' ')}: {value:.12g}" for name, value in facts.items()),
        as_json=as_json,
    )
