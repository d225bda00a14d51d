"""Components as a table for people, and as JSON."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import Any

import click
import numpy as np

from dgmm.data.columns import named
from dgmm.engine.trace import Trace, history_table
from dgmm.mixture.parameters import Parameters
from dgmm.pages import plain

_SHOWN_FEATURES = 8
_SHOWN_ITERATIONS = 10
_HISTORY_FORMATS = {
    "log_likelihood": ".9g", "gain": "+.2g", "seconds": ".3g", "rows_per_second": ",.0f",
    "smallest_weight": ".2g", "smallest_eigenvalue": ".2g",
}  # fmt: skip
Format = Callable[[float, float], str]


def component_table(
    parameters: Parameters,
    names: Sequence[str] = (),
    formats: Sequence[Format] = (),
    *,
    shown: int = _SHOWN_FEATURES,
) -> str:
    """One line a component, heaviest first: weight, and mean ± standard deviation of each feature.

    Parameters
    ----------
    parameters : Parameters
        In data units.
    names : sequence of str
        Of the features; x0, x1, ... by default.
    formats : sequence of callable
        How each feature's mean and standard deviation are written.
    shown : int
        Features that get a column.
    """
    d = parameters.n_features
    columns = min(d, shown)
    formats = list(formats) or [plain] * d
    spread = parameters.deviations
    rows = [["component", "weight", *named(names, d)[:columns]]]
    for k in np.argsort(-parameters.weights, kind="stable"):
        cells = [formats[i](float(parameters.means[k, i]), float(spread[k, i])) for i in range(columns)]
        rows.append([str(k), f"{parameters.weights[k]:.4f}", *cells])
    lines = aligned(rows)
    if columns < d:
        lines.append(f"... and {d - columns} more features; --json shows all")
    return "\n".join(lines)


def components_json(parameters: Parameters) -> dict[str, Any]:
    """The same for programs, in the model's order."""
    return {
        "n_components": parameters.n_components,
        "n_features": parameters.n_features,
        "covariance_type": parameters.covariance.name,
        "weights": parameters.weights.tolist(),
        "means": parameters.means.tolist(),
        "standard_deviations": parameters.deviations.tolist(),
    }


def history_json(trace: Trace, n_rows: int) -> list[dict[str, float | None]]:
    """A record an iteration; null where nothing is known."""
    table = history_table(trace, n_rows)
    names = table.dtype.names or ()
    return [{name: finite(float(row[name])) for name in names} for row in table]


def finite(value: Any) -> Any:
    """JSON has neither NaN nor infinity: null."""
    return None if isinstance(value, float) and not np.isfinite(value) else value


def history_text(trace: Trace, n_rows: int, shown: int = _SHOWN_ITERATIONS) -> str:
    """A line for each of the last iterations."""
    records = history_json(trace, n_rows)
    columns = list(records[0]) if records else []
    kept = [name for name in columns if any(record[name] is not None for record in records)]
    cells = [["iteration", *(name.replace("_", " ") for name in kept)]]
    for number, record in list(enumerate(records, 1))[-shown:]:
        values = ((name, record[name]) for name in kept)
        cells.append([str(number), *("" if v is None else format(v, _HISTORY_FORMATS[n]) for n, v in values)])
    return "\n".join(aligned(cells))


def aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    """Lines with columns that stand below each other."""
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    return ["  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True)) for row in rows]


def show(facts: dict[str, Any], text: str, *, as_json: bool) -> None:
    """Write a command's result to standard output."""
    click.echo(json.dumps(facts) if as_json else text)
