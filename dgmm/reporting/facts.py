"""What was fitted and how, as lines of a name and a value; and the components as a table."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from dgmm.data.source import Source
from dgmm.engine.certainty import Certainty
from dgmm.engine.model import Model
from dgmm.mixture.criteria import aic, bic
from dgmm.pages import count, plain, share
from dgmm.plot.colours import colours
from dgmm.plot.given import names_of

Fact = tuple[str, str]
# More cells than these make a page slow; more features than fit are left out.
_CELLS = 20_000


@dataclass(frozen=True)
class Cell:
    """A cell of a table: what is read, and the number that it is sorted by."""

    text: str
    value: float


@dataclass(frozen=True)
class Table:
    """The components, heaviest first.

    Attributes
    ----------
    titles : list of str
    lines : list of (int, str, list of Cell)
        Number of the component, its colour, and the cells.
    hidden : int
        Features left out.
    """

    titles: list[str]
    lines: list[tuple[int, str, list[Cell]]]
    hidden: int


def of_fit(model: Model) -> Iterator[Fact]:
    """What was fitted, and how it ended."""
    parameters, origin = model.parameters, model.origin
    k, d = parameters.means.shape
    yield "components", f"{k:,} ({parameters.covariance.name} covariances)"
    yield "features", f"{d:,}"
    yield "free parameters", f"{parameters.n_parameters:,}"
    if not model.n_rows:
        return
    rows = count(model.n_rows)
    rows += f", {count(model.n_missing)} with missing values left out" if model.n_missing else ""
    yield "rows", f"{rows} ({model.dtype.name})"
    yield "data", origin.data or "rows that were passed in Python"
    if origin.opened_with:
        yield "opened with", ", ".join(f"{name}={_spelled(value)}" for name, value in origin.opened_with.items())
    if origin.fingerprint:
        yield "fingerprint of the data", origin.fingerprint
    if origin.weights is not None:
        yield "sample weights", f"{origin.weights or 'passed in Python'}, sum {count(model.weight)}"
    if origin.choice is not None:
        choice = origin.choice
        held_out = f", {choice.holdout:.0%} of the rows held out" if choice.holdout else ""
        yield "chosen by", f"{choice.criterion}, from {len(choice.table)} candidates{held_out}"
    yield "convergence", f"{'converged' if model.converged else 'not converged'} after {model.n_iter:,} iterations"
    yield "passes over the data", f"{model.n_passes:,}"
    seconds = sum(step.seconds for step in model.trace)
    if model.trace and np.isfinite(seconds):
        yield "seconds", f"{seconds:.3g} for these iterations"
    if model.history:
        yield from _likelihood(model, model.history[-1] * model.weight, model.weight)


def of_data(model: Model, source: Source, found: Certainty) -> Iterator[Fact]:
    """What a look at data found."""
    yield "data", source.address or source.name
    left_out = source.n_rows - found.score.n_rows
    yield "rows", count(found.score.n_rows) + (f", {count(left_out)} left out" if left_out else "")
    yield from _likelihood(model, found.score.log_likelihood, found.score.weight)
    for bound in (0.5, 0.9, 0.99):
        yield f"rows with a component of {bound:.0%} or more", share(found.share(bound))


def _likelihood(model: Model, total: float, weight: float) -> Iterator[Fact]:
    n_parameters = model.parameters.n_parameters
    yield "mean log-likelihood", f"{total / weight:.9g}"
    yield "BIC, AIC (lower is better)", f"{bic(total, n_parameters, weight):,.1f}, {aic(total, n_parameters):,.1f}"


def of_settings(model: Model) -> list[Fact]:
    """Parameters of the estimator, by name, and the seed."""
    unsaid = ("n_components", "covariance_type", "random_state", "verbose", "verbose_interval", "warm_start")
    kept = {name: value for name, value in model.settings.items() if name not in unsaid}
    return sorted((name, _spelled(value)) for name, value in kept.items())


def components(model: Model, certainty: Certainty | None) -> Table:
    """Weight, and mean ± standard deviation of each feature, in data units."""
    parameters = model.in_data_units()
    k, d = parameters.means.shape
    n_shown = min(d, max(_CELLS // k, 1))
    shown = parameters.marginal(range(n_shown))
    deviations = shown.deviations
    likely = None if certainty is None else certainty.counts.sum(axis=1)
    palette, lines = colours(k), []
    for c in np.argsort(-parameters.weights, kind="stable").tolist():
        weight = float(parameters.weights[c])
        cells = [Cell(share(weight), weight)]
        if likely is not None:
            cells.append(Cell(count(float(likely[c])), float(likely[c])))
        for mean, deviation in zip(shown.means[c].tolist(), deviations[c].tolist(), strict=True):
            cells.append(Cell(plain(mean, deviation), mean))
        lines.append((c, palette[c], cells))
    titles = ["component", "weight", *([] if likely is None else ["rows"]), *names_of(model)[:n_shown]]
    return Table(titles, lines, d - n_shown)


def _spelled(value: Any) -> str:
    if isinstance(value, list):
        return ", ".join(map(str, value))
    return f"{value:g}" if isinstance(value, float) else str(value)
