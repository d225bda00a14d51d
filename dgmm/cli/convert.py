"""``dgmm convert``."""

from __future__ import annotations

import time

import click
import numpy as np

from dgmm.cli import signals
from dgmm.cli.options import Reading, Where, check_output, cluster_options, json_option, log, reading_options
from dgmm.cli.progress import RowsLog
from dgmm.cli.table import show
from dgmm.data.address import plain
from dgmm.data.formats import kind_at
from dgmm.engine.convert import Conversion, is_counted
from dgmm.engine.convert import convert as write_rows
from dgmm.progress import left_out


@click.command()
@click.argument("data", metavar="IN")
@click.argument("out", metavar="OUT")
@click.option("--dtype", type=click.Choice(["float32", "float64"]), help="Of what is written.  [default: as read]")
@reading_options
@cluster_options
@json_option
def convert(data: str, out: str, dtype: str | None, reading: Reading, where: Where, *, as_json: bool) -> None:
    """Write the rows of IN to OUT in chunks that suit a fit: a Zarr group, or Parquet if it ends in .parquet.

    IN is anything that a fit takes, and tables of text (CSV) too. Names of columns are kept. Missing values stay
    NaN unless --missing says otherwise. A run that was stopped or killed goes on when the same command is run
    again. Then: dgmm fit OUT.
    """
    check_output(out, "OUT")
    began = time.monotonic()
    if kind_at(plain(data)) == "csv":
        log(f"reading {data} once, to find where its lines begin")
    source = reading.open_convertible(data)
    wanted = Conversion(source, reading.missing, np.dtype(dtype or source.dtype))
    if reading.missing == "drop" and not is_counted(wanted, out):
        log("two passes: the first counts rows with a missing value")
    with signals.resumable(lambda: f"What was written so far is in {out}."), where.client(source):
        output, written = write_rows(wanted, out, RowsLog())
    if not written:
        log(f"{out} is complete already: nothing to do")
    seconds = round(time.monotonic() - began, 3)
    n_missing = source.n_rows - output.n_rows
    facts = {
        "out": out,
        "rows": output.n_rows,
        "rows_left_out": n_missing,
        "rows_written": written,
        "features": source.n_features,
        "feature_names": list(source.feature_names),
        "dtype": str(wanted.dtype),
        "rows_of_a_chunk": output.chunk_rows,
        "seconds": seconds,
    }
    text = (
        f"{out}: {output.n_rows:,} rows of {source.n_features} features ({wanted.dtype}), {written:,} written in "
        f"{seconds:.1f} s{left_out(n_missing)}"
    )
    show(facts, text, as_json=as_json)
