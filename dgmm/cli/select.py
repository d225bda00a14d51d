"""``dgmm select``."""

from __future__ import annotations

import re
import time
from typing import Any

import click

from dgmm.cli.fitting import fit_options, resumable, say_if_complete
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
from dgmm.cli.table import components_json, finite, show
from dgmm.engine.selection import CRITERIA
from dgmm.mixture.covariance import COVARIANCE_TYPES
from dgmm.selection import prepare
from dgmm.selection import select as select_best

_RANGE = re.compile(r"(\d+)(?:\.\.(\d+))?")


class Sizes(click.ParamType):  # type: ignore[type-arg]
    """Numbers of components, as in 1..20 or 2,4,8..12."""

    name = "sizes"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> list[int]:
        """Expand the ranges."""
        found: list[int] = []
        for part in value.split(","):
            match = _RANGE.fullmatch(part.strip())
            first, last = (int(match[1]), int(match[2] or match[1])) if match else (0, 0)
            if not 1 <= first <= last:
                self.fail(
                    f"{value!r} is not a list of sizes; expected something like 1..20 or 2,4,8..12", param, ctx
                )
            found += range(first, last + 1)
        return found


class Types(click.ParamType):  # type: ignore[type-arg]
    """Covariance types, separated by commas."""

    name = "types"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> list[str]:
        """Check each."""
        found = [part.strip() for part in value.split(",")]
        for part in found:
            if part not in COVARIANCE_TYPES:
                self.fail(
                    f"{part!r} is no covariance type; expected some of {','.join(COVARIANCE_TYPES)}", param, ctx
                )
        return found


@click.command()
@data_argument
@click.option(
    "--model", "model_file", metavar="BEST", required=True, type=FileAddressType(),
    help="Where the best model goes.",
)  # fmt: skip
@click.option("--components", type=Sizes(), default="1..20", show_default=True, help="Numbers of Gaussians.")
@click.option(
    "--covariance-types", type=Types(), default=",".join(COVARIANCE_TYPES), show_default=True, help="Shapes."
)
@click.option("--criterion", type=click.Choice(CRITERIA), default="bic", show_default=True, help="What decides.")
@click.option(
    "--holdout", type=click.FloatRange(0, 1, max_open=True),
    help="Fraction of rows left out.  [default: 0.1 for --criterion holdout, else 0]",
)  # fmt: skip
@fit_options
@reading_options
@cluster_options
@json_option
def select(
    data: str,
    model_file: str,
    components: list[int],
    covariance_types: list[str],
    criterion: str,
    holdout: float | None,
    weights: str | None,
    checkpoint: str | None,
    reading: Reading,
    where: Where,
    *,
    as_json: bool,
    **settings: Any,
) -> None:
    """Choose the number of components and the covariance type for DATA, in a handful of passes.

    Every candidate starts on a sample; those hopeless there are dropped, the others share passes over all rows.
    With --checkpoint it goes on where it stopped, like a fit.
    """
    check_writable(model_file, "--model")
    opened = reading.open(data)
    source, source_weights, *_ = prepare(
        opened, components, covariance_types, criterion, holdout, reading.weights(weights, opened), settings
    )
    began, observer = time.monotonic(), FitLog()
    with resumable(checkpoint), where.client(source):
        found = select_best(
            source,
            components,
            covariance_types,
            criterion=criterion,
            holdout=holdout,
            sample_weight=source_weights,
            checkpoint=checkpoint,
            observer=observer,
            **settings,
        )
    say_if_complete(checkpoint, observer)
    found.best.save(model_file)
    facts = {
        "model": model_file,
        "rows": found.best._model.n_rows,
        "rows_left_out": found.best.n_missing_,
        "criterion": criterion,
        "n_passes": found.n_passes,
        "seconds": round(time.monotonic() - began, 3),
        "candidates": [{name: finite(value) for name, value in record.items()} for record in found.records()],
        **components_json(found.best._model.in_data_units()),
    }
    best = f"{found.best.n_components} components, {found.best.covariance_type}"
    text = f"{found}\n\n{best}, after {found.n_passes} passes over the data; model written to {model_file}"
    show(facts, text, as_json=as_json)
