"""``dgmm fit``."""

from __future__ import annotations

import time
from typing import Any

import click

from dgmm.cli.fitting import DEFAULTS, fit_options, resumable, say_if_complete, setting
from dgmm.cli.options import (
    FileAddressType,
    Reading,
    Where,
    check_writable,
    cluster_options,
    data_argument,
    json_option,
    reading_options,
)
from dgmm.cli.progress import FitLog
from dgmm.cli.table import component_table, components_json, show
from dgmm.estimator import GaussianMixture
from dgmm.mixture.covariance import COVARIANCE_TYPES


@click.command()
@data_argument
@click.option(
    "--model", "model_file", metavar="OUT", required=True, type=FileAddressType(), help="Path or URL to write to."
)
@click.option(
    "-k", "--n-components", default=DEFAULTS["n_components"], show_default=True, type=click.IntRange(min=1),
    help="Number of Gaussians.",
)  # fmt: skip
@setting("--covariance-type", "covariance_type", "Shape.", type=click.Choice(list(COVARIANCE_TYPES)))
@click.option(
    "--accelerate/--no-accelerate", default=DEFAULTS["accelerate"], show_default=True,
    help="Extrapolate where EM crawls.",
)  # fmt: skip
@setting("--n-finalists", "n_finalists", "Best starts that go on to all rows.", type=click.IntRange(min=1))
@fit_options
@reading_options
@cluster_options
@json_option
def fit(
    data: str,
    model_file: str,
    weights: str | None,
    checkpoint: str | None,
    reading: Reading,
    where: Where,
    *,
    as_json: bool,
    **settings: Any,
) -> None:
    """Fit a mixture to DATA, the path or URL of a Zarr array (rows x features).

    With --checkpoint, every finished start and every iteration is on disk; a fit that was stopped or killed goes
    on when the same command is run again, and ends with the same bits.
    """
    check_writable(model_file, "--model")
    mixture = GaussianMixture(**settings)
    source = reading.open(data)
    source, source_weights = mixture._open(source, reading.weights(weights, source))
    began, observer = time.monotonic(), FitLog()
    with resumable(checkpoint), where.client(source):
        mixture.fit(source, sample_weight=source_weights, checkpoint=checkpoint, observer=observer)
    say_if_complete(checkpoint, observer)
    mixture.save(model_file)
    parameters = mixture._model.in_data_units()
    facts = {
        "model": model_file,
        "rows": mixture._model.n_rows,
        "rows_left_out": mixture.n_missing_,
        "n_iter": mixture.n_iter_,
        "n_passes": mixture.n_passes_,
        "converged": mixture.converged_,
        "log_likelihood": mixture.lower_bound_,
        "seconds": round(time.monotonic() - began, 3),
        **components_json(parameters),
    }
    text = (
        f"{component_table(parameters, source.feature_names)}\n\n"
        f"mean log-likelihood {mixture.lower_bound_:.9g} after {mixture.n_iter_} iterations"
        f" and {mixture.n_passes_} passes over the data"
        f"{'' if mixture.converged_ else ' (not converged)'}; model written to {model_file}"
    )
    show(facts, text, as_json=as_json)
