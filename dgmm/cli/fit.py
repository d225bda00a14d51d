"""``dgmm fit``."""

from __future__ import annotations

import inspect
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import click

from dgmm.cli import signals
from dgmm.cli.options import (
    Command,
    Where,
    check_writable,
    cluster_options,
    data_argument,
    json_option,
    missing_option,
)
from dgmm.cli.progress import FitLog
from dgmm.cli.table import component_table, components_json, show
from dgmm.data.source import Source
from dgmm.engine.checkpoint import Checkpoint
from dgmm.estimator import GaussianMixture
from dgmm.mixture.covariance import COVARIANCE_TYPES
from dgmm.mixture.initialization import INIT_PARAMS

_DEFAULTS = {name: p.default for name, p in inspect.signature(GaussianMixture).parameters.items()}


def _setting(flag: str, name: str, help: str, **kind: Any) -> Callable[[Command], Command]:
    """Make an option of one of the class's parameters, with the class's default."""
    return click.option(flag, name, default=_DEFAULTS[name], show_default=True, help=help, **kind)


@click.command()
@data_argument
@click.option(
    "--model", "model_file", metavar="OUT", required=True, type=click.Path(path_type=Path, dir_okay=False)
)
@click.option(
    "-k", "--n-components", default=_DEFAULTS["n_components"], show_default=True, type=click.IntRange(min=1),
    help="Number of Gaussians.",
)  # fmt: skip
@_setting("--covariance-type", "covariance_type", "Shape.", type=click.Choice(list(COVARIANCE_TYPES)))
@_setting("--n-init", "n_init", "Starts tried on a sample.", type=click.IntRange(min=1))
@_setting("--n-finalists", "n_finalists", "Best starts that go on to all rows.", type=click.IntRange(min=1))
@_setting("--init-params", "init_params", "How a start is drawn.", type=click.Choice(INIT_PARAMS))
@_setting("--tol", "tol", "What EM may still gain when it stops, per row.", type=click.FloatRange(min=0))
@_setting("--max-iter", "max_iter", "Iterations at most.", type=click.IntRange(min=0))
@click.option("--max-passes", type=click.IntRange(min=1), help="Passes over the data at most.")
@click.option("--sample-size", type=click.IntRange(min=1), help="Rows of the sample.  [default: 50,000]")
@_setting("--reg-covar", "reg_covar", "Added to each variance.", type=click.FloatRange(min=0))
@_setting("--reg-relative", "reg_relative", "Added, times the data's variance.", type=click.FloatRange(min=0))
@click.option("--seed", "random_state", type=click.IntRange(min=0), help="Of sample and starts.  [default: drawn]")
@click.option("--weights", metavar="DATA", help="A Zarr array of one weight a row.")
@click.option("--checkpoint", metavar="DIR", type=click.Path(path_type=Path), help="Makes the fit resumable.")
@missing_option
@cluster_options
@json_option
def fit(
    data: str,
    model_file: Path,
    weights: str | None,
    checkpoint: Path | None,
    missing_chunks: Literal["error", "fill"],
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
    source, source_weights = mixture._open(data, weights, missing_chunks)
    began = time.monotonic()
    run_fit(mixture, source, source_weights, checkpoint, where)
    mixture.save(model_file)
    parameters = mixture._model.in_data_units()
    facts = {
        "model": str(model_file),
        "rows": source.n_rows,
        "n_iter": mixture.n_iter_,
        "n_passes": mixture.n_passes_,
        "converged": mixture.converged_,
        "log_likelihood": mixture.lower_bound_,
        "seconds": round(time.monotonic() - began, 3),
        **components_json(parameters),
    }
    text = (
        f"{component_table(parameters)}\n\n"
        f"mean log-likelihood {mixture.lower_bound_:.9g} after {mixture.n_iter_} iterations"
        f" and {mixture.n_passes_} passes over the data"
        f"{'' if mixture.converged_ else ' (not converged)'}; model written to {model_file}"
    )
    show(facts, text, as_json=as_json)


def run_fit(
    mixture: GaussianMixture, source: Source, weights: Source | None, checkpoint: Path | None, where: Where
) -> None:
    """Fit on the cluster that was asked for; a signal leaves a resumable state if there is a checkpoint."""

    def compute() -> None:
        with where.client(source):
            mixture.fit(source, sample_weight=weights, checkpoint=checkpoint, observer=FitLog())

    if checkpoint is None:
        try:
            compute()
        except signals.StopRequested as stop:
            stop.advice = "With --checkpoint DIR a fit can go on where it was stopped."
            raise
    else:
        with signals.resumable(lambda: _on_disk(checkpoint)):
            compute()


def _on_disk(checkpoint: Path) -> str:
    if Checkpoint.recorded_identity(checkpoint) is None:
        return f"The scan of the data had not ended, so {checkpoint} holds nothing yet."
    return f"What was found so far is in {checkpoint}."
