"""``dgmm predict``."""

from __future__ import annotations

import time
from typing import Any

import click

from dgmm.cli import signals
from dgmm.cli.options import (
    Reading,
    Where,
    check_output,
    cluster_options,
    data_argument,
    json_option,
    log,
    model_option,
    reading_options,
)
from dgmm.cli.progress import RowsLog
from dgmm.cli.table import show
from dgmm.engine import archive
from dgmm.engine.model import Model
from dgmm.engine.predict import check_features, open_output, recorded_threshold
from dgmm.engine.predict import predict as write_rows
from dgmm.engine.quantities import Anomalies, Labels, LogDensity, Quantity, Responsibilities, Top


@click.command()
@data_argument
@model_option
@click.option("--out", metavar="OUT", required=True,
              help="Folder or URL: of Parquet files if it ends in .parquet, else of a Zarr group.")  # fmt: skip
@click.option("--labels", is_flag=True, help="The most likely component, int32; the default.")
@click.option("--responsibilities", is_flag=True, help="The probability of each component.")
@click.option("--top", metavar="M", type=click.IntRange(min=1),
              help="The M most likely components, int32, and their probabilities.")  # fmt: skip
@click.option("--log-density", is_flag=True, help="The log-density of the mixture, float64.")
@click.option("--anomaly-quantile", metavar="Q", type=click.FloatRange(0, 1, min_open=True, max_open=True),
              help="Flag the share Q of rows whose log-density is lowest. Takes a pass more.")  # fmt: skip
@click.option("--dtype", type=click.Choice(["float32", "float64"]), default="float64", show_default=True,
              help="Of probabilities.")  # fmt: skip
@reading_options
@cluster_options
@json_option
def predict(
    data: str,
    model_file: str,
    out: str,
    top: int | None,
    anomaly_quantile: float | None,
    dtype: str,
    reading: Reading,
    where: Where,
    *,
    labels: bool,
    responsibilities: bool,
    log_density: bool,
    as_json: bool,
) -> None:
    """Write what a model says of each row of DATA to a Zarr group, or to a folder of Parquet files.

    It is written in whole chunks (files). A run that was stopped or killed goes on when the same command is run
    again; results of another model, of other data or of another --anomaly-quantile are refused.
    """
    check_output(out, "--out")
    model = Model.load(model_file)
    source = reading.open(data)
    check_features(model, source)
    asked: list[Quantity | None] = [
        Labels() if labels else None,
        Responsibilities() if responsibilities else None,
        None if top is None else Top(top),
        LogDensity() if log_density else None,
        None if anomaly_quantile is None else Anomalies(anomaly_quantile),
    ]
    wanted = [quantity for quantity in asked if quantity is not None] or [Labels()]
    began = time.monotonic()
    output = open_output(out, source, model, archive.digest(model_file), wanted, dtype)
    written = 0
    if output.complete:
        log(f"{out} is complete already: nothing to do")
    else:
        done = source.n_rows - sum(stop - start for start, stop in output.missing_units())
        if done:
            log(f"{out} holds {done:,} of {source.n_rows:,} rows already; going on")
        if anomaly_quantile is not None and recorded_threshold(output) is None:
            log("two passes: the first finds the threshold of the anomalies")
        with signals.resumable(lambda: f"What was written so far is in {out}."), where.client(source):
            written = write_rows(source, model, output, wanted, RowsLog())
    seconds = round(time.monotonic() - began, 3)
    facts: dict[str, Any] = {
        "out": out,
        "rows": source.n_rows,
        "rows_written": written,
        "arrays": {name: {"shape": a.shape, "dtype": str(a.dtype)} for name, a in output.arrays.items()},
        "seconds": seconds,
    }
    names = ", ".join(name.replace("_", " ") for name in output.arrays)
    text = f"{out}: {names} of {source.n_rows:,} rows, {written:,} written in {seconds:.1f} s"
    if found := recorded_threshold(output):
        facts["anomalies"] = found.facts()
        text += (
            f"\nanomalies: {found.rows_below:,} of {found.rows:,} rows ({found.rows_below / found.rows:.4%}), "
            f"of a log-density below {found.threshold:.9g}"
        )
    show(facts, text, as_json=as_json)
