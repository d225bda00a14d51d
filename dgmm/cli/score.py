"""``dgmm score``."""

from __future__ import annotations

import click

from dgmm.cli.options import (
    Reading,
    Where,
    cluster_options,
    data_argument,
    json_option,
    model_option,
    reading_options,
)
from dgmm.cli.progress import RowsLog
from dgmm.cli.table import show
from dgmm.engine.likelihood import Score
from dgmm.engine.model import Model
from dgmm.engine.predict import check_features
from dgmm.engine.single import single_pass
from dgmm.mixture.criteria import aic, bic


@click.command()
@data_argument
@model_option
@click.option("--weights", metavar="DATA", help="One weight a row: an address, or a column of the table.")
@reading_options
@cluster_options
@json_option
def score(
    data: str,
    model_file: str,
    weights: str | None,
    reading: Reading,
    where: Where,
    *,
    as_json: bool,
) -> None:
    """Log-likelihood, BIC and AIC of DATA under a model (lower criteria are better)."""
    model = Model.load(model_file)
    source = reading.open(data)
    check_features(model, source)
    source_weights = reading.weights(weights, source)
    with where.client(source):
        total: Score = single_pass(source, source_weights, model.score_work(), RowsLog())
    n_parameters = model.parameters.n_parameters
    facts = {
        "mean_log_likelihood": total.log_likelihood / total.weight,
        "log_likelihood": total.log_likelihood,
        "n": total.n_rows,
        "rows_left_out": source.n_rows - total.n_rows,
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
