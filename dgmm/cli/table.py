"""Components as a table for people, and as JSON."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import Any

import click
import numpy as np
from numpy.typing import NDArray

from dgmm.mixture.parameters import Parameters

_SHOWN_FEATURES = 8
Format = Callable[[float, float], str]


def deviations(parameters: Parameters) -> NDArray[np.float64]:
    """Standard deviation of each feature in each component, (K, D)."""
    k, d = parameters.means.shape
    full = parameters.covariance.full(parameters.covariances, k, d)
    deviation: NDArray[np.float64] = np.sqrt(np.diagonal(full, axis1=1, axis2=2))
    return deviation


def plain(mean: float, deviation: float) -> str:
    """Mean ± standard deviation without units."""
    return f"{mean:.4g} ± {deviation:.2g}"


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
    names = list(names) or [f"x{i}" for i in range(d)]
    formats = list(formats) or [plain] * d
    spread = deviations(parameters)
    rows = [["component", "weight", *names[:columns]]]
    for k in np.argsort(-parameters.weights, kind="stable"):
        cells = [formats[i](float(parameters.means[k, i]), float(spread[k, i])) for i in range(columns)]
        rows.append([str(k), f"{parameters.weights[k]:.4f}", *cells])
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    lines = ["  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True)) for row in rows]
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
        "standard_deviations": deviations(parameters).tolist(),
    }


def show(facts: dict[str, Any], text: str, *, as_json: bool) -> None:
    """Write a command's result to standard output."""
    click.echo(json.dumps(facts) if as_json else text)
