"""``dgmm sample``."""

from __future__ import annotations

import secrets
import time

import click

from dgmm.cli import signals
from dgmm.cli.options import Where, check_output, cluster_options, json_option, log, model_option
from dgmm.cli.progress import RowsLog
from dgmm.cli.table import show
from dgmm.engine import archive
from dgmm.engine.draw import Draw, draw
from dgmm.engine.model import Model


@click.command()
@model_option
@click.option("-n", "n_rows", required=True, type=click.IntRange(min=1), help="Rows to draw.")
@click.option("--out", metavar="OUT", required=True,
              help="Folder or URL: of Parquet files if it ends in .parquet, else of a Zarr group.")  # fmt: skip
@click.option("--seed", type=click.IntRange(min=0), help="[default: drawn, and told]")
@cluster_options
@json_option
def sample(model_file: str, n_rows: int, out: str, seed: int | None, where: Where, *, as_json: bool) -> None:
    """Draw rows from a model into a Zarr group or Parquet files: rows (n x D) and labels, ordered by component.

    Up to 256 MiB of rows are drawn by this process, more of them by workers. Memory is bounded whatever n. The
    same model, n and seed give the same rows, with any number of workers. What is there already is never
    overwritten; an unfinished draw of the same rows goes on.
    """
    check_output(out, "--out")
    model = Model.load(model_file)
    if seed is None:
        seed = secrets.randbits(32)
        log(f"seed {seed}")
    again = f"What was written so far is in {out}; to go on, give --seed {seed}."
    wanted = Draw(model, n_rows, seed)
    began = time.monotonic()
    output = wanted.open(out, archive.digest(model_file))
    written = 0
    if output.complete:
        log(f"{out} is complete already: nothing to do")
    else:
        with signals.resumable(lambda: again), where.client(wanted):
            written = draw(wanted, output, RowsLog())
    seconds = round(time.monotonic() - began, 3)
    facts = {"out": out, "rows": n_rows, "rows_written": written, "seed": seed, "seconds": seconds}
    text = f"{out}: {n_rows:,} rows drawn with seed {seed}, {written:,} written in {seconds:.1f} s"
    show(facts, text, as_json=as_json)
