"""``dgmm report``."""

from __future__ import annotations

import time
from dataclasses import replace

import click

from dgmm.cli.options import (
    AddressType,
    FileAddressType,
    Reading,
    Where,
    check_writable,
    cluster_options,
    json_option,
    reading_options,
)
from dgmm.cli.progress import RowsLog
from dgmm.cli.table import show
from dgmm.data.address import split_name
from dgmm.engine.model import Model
from dgmm.engine.predict import check_features
from dgmm.engine.record import timed_trace


@click.command()
@click.argument("model_file", metavar="MODEL", type=FileAddressType())
@click.argument("data", required=False)
@click.option(
    "-o", "--out", metavar="FILE|URL", default="report.html", show_default=True, type=FileAddressType(),
    help="The page.",
)  # fmt: skip
@click.option("--weights", metavar="DATA", help="One weight a row of DATA.")
@click.option("--checkpoint", metavar="DIR|URL", type=AddressType(), help="Of the fit: adds its seconds.")
@reading_options
@cluster_options
@json_option
def report(
    model_file: str,
    data: str | None,
    out: str,
    weights: str | None,
    checkpoint: str | None,
    reading: Reading,
    where: Where,
    *,
    as_json: bool,
) -> None:
    """Write what is known of a model to one self-contained HTML page.

    With DATA, a pass over them adds their density behind the components, how sure the most likely component of the
    rows is, and their log-likelihood.
    """
    check_writable(out, "--out")
    model, called = Model.load(model_file), split_name(model_file)[1]
    if checkpoint is not None:
        model = replace(model, trace=timed_trace(checkpoint, model.trace))
    if data is None and weights is not None:
        msg = "--weights are those of the rows of DATA: give DATA too"
        raise click.UsageError(msg)
    # Matplotlib, which nobody has to install for the rest.
    from dgmm.reporting.page import page, write

    began = time.monotonic()
    if data is None:
        made = page(model, called)
    else:
        source = reading.open(data)
        check_features(model, source)
        with where.client(source):
            made = page(model, called, source, reading.weights(weights, source), RowsLog())
    write(out, made.html)
    facts = {"report": out, "cautions": made.cautions, "seconds": round(time.monotonic() - began, 3)}
    lines = [*(f"- {caution}" for caution in made.cautions), f"report written to {out}"]
    show(facts, "\n".join(lines), as_json=as_json)
