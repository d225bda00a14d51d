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
from dgmm.engine.predict import check_features, open_output
from dgmm.engine.predict import predict as write_rows
from dgmm.engine.rowwise import QUANTITIES


@click.command()
@data_argument
@model_option
@click.option("--out", metavar="OUT.zarr", required=True, help="Folder or URL of the Zarr group.")
@click.option("--labels", is_flag=True, help="The most likely component, int32; the default.")
@click.option("--responsibilities", is_flag=True, help="The probability of each component.")
@click.option("--log-density", is_flag=True, help="The log-density of the mixture, float64.")
@click.option("--dtype", type=click.Choice(["float32", "float64"]), default="float64", show_default=True,
              help="Of responsibilities.")  # fmt: skip
@reading_options
@cluster_options
@json_option
def predict(
    data: str,
    model_file: str,
    out: str,
    dtype: str,
    reading: Reading,
    where: Where,
    *,
    as_json: bool,
    **flags: bool,
) -> None:
    """Write what a model says of each row of DATA to a Zarr group.

    Arrays are written in whole chunks. A run that was stopped or killed goes on when the same command is run
    again; results of another model or of other data are refused.
    """
    check_output(out, "--out")
    model = Model.load(model_file)
    source = reading.open(data)
    check_features(model, source)
    wanted = [name for name in QUANTITIES if flags[name]] or ["labels"]
    began = time.monotonic()
    output = open_output(out, source, model, archive.digest(model_file), wanted, dtype)
    written = 0
    if output.complete:
        log(f"{out} is complete already: nothing to do")
    else:
        done = source.n_rows - sum(stop - start for start, stop in output.missing_units())
        if done:
            log(f"{out} holds {done:,} of {source.n_rows:,} rows already; going on")
        with signals.resumable(lambda: f"The chunks written so far are in {out}."), where.client(source):
            written = write_rows(source, model, output, RowsLog())
    seconds = round(time.monotonic() - began, 3)
    facts: dict[str, Any] = {
        "out": out,
        "rows": source.n_rows,
        "rows_written": written,
        "arrays": {name: {"shape": shape, "dtype": str(kind)} for name, (shape, kind) in output.arrays.items()},
        "seconds": seconds,
    }
    text = f"{out}: {', '.join(wanted)} of {source.n_rows:,} rows, {written:,} written in {seconds:.1f} s"
    show(facts, text, as_json=as_json)
