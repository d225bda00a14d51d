"""``dgmm sample``."""

from __future__ import annotations

import secrets

import click

from dgmm.cli import signals
from dgmm.cli.options import check_output, json_option, log, model_option
from dgmm.cli.progress import RowsLog
from dgmm.cli.table import show
from dgmm.engine import archive
from dgmm.engine.draw import draw
from dgmm.engine.model import Model


@click.command()
@model_option
@click.option("-n", "n_rows", required=True, type=click.IntRange(min=1), help="Rows to draw.")
@click.option("--out", metavar="OUT.zarr", required=True, help="Folder or URL of the Zarr group.")
@click.option("--seed", type=click.IntRange(min=0), help="[default: drawn, and told]")
@json_option
def sample(model_file: str, n_rows: int, out: str, seed: int | None, *, as_json: bool) -> None:
    """Draw rows from a model into a Zarr group: `rows` (n x D) and `labels`, ordered by component.

    Memory is bounded whatever n. The same model, n and seed give the same rows. What is there already is never
    overwritten; an unfinished draw of the same rows goes on.
    """
    check_output(out, "--out")
    model = Model.load(model_file)
    if seed is None:
        seed = secrets.randbits(32)
        log(f"seed {seed}")
    again = f"The chunks written so far are in {out}; to go on, give --seed {seed}."
    with signals.resumable(lambda: again):
        written = draw(model, n_rows, out, seed=seed, model_digest=archive.digest(model_file), on_rows=RowsLog())
    if not written:
        log(f"{out} is complete already: nothing to do")
    facts = {"out": out, "rows": n_rows, "rows_written": written, "seed": seed}
    show(facts, f"{out}: {n_rows:,} rows drawn with seed {seed}, {written:,} written", as_json=as_json)
