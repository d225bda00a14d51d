"""The page: everything that is known of a fit, in one file that needs nothing else."""

from __future__ import annotations

import base64
import datetime as dt
import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np

from dgmm.data.address import Address
from dgmm.data.source import Source
from dgmm.engine import archive
from dgmm.engine.certainty import Certainty
from dgmm.engine.density import Density, View, views_of
from dgmm.engine.look import look
from dgmm.engine.model import Model
from dgmm.engine.slices import Slice
from dgmm.pages import render, source_of
from dgmm.plot.candidates import draw_criteria
from dgmm.plot.given import names_of, shown
from dgmm.plot.iterations import draw_history
from dgmm.plot.responsibilities import draw_certainty
from dgmm.plot.views import chosen, draw_view
from dgmm.reporting import facts
from dgmm.reporting.cautions import cautions, cautions_of_data
from dgmm.reporting.command import command
from dgmm.reporting.maps import maps
from dgmm.reporting.pictures import Picture, picture

_VIEWS = 4
_ROUNDING = 1e4
_FALLS = "; it can fall, since reg_covar and reg_relative widen the components."


@dataclass(frozen=True)
class Page:
    """A page, and what of it deserves a look."""

    html: str
    cautions: list[str]


def write(path: Address, content: str) -> None:
    """Put a page in place, whole."""
    archive.write(path, content.encode())


def page(
    model: Model,
    name: str,
    source: Source | None = None,
    weights: Source | None = None,
    on_rows: Callable[[int, int], None] = lambda done, total: None,
) -> Page:
    """The page of a model.

    Parameters
    ----------
    model : Model
    name : str
        Of its file.
    source, weights : Source, optional
        Data to look at.
    on_rows : callable
        Hears of the rows of the pass over them.
    """
    n_rows = None if source is None else source.n_rows
    views = views_of(model.in_data_units(), chosen(model, _VIEWS), n_rows)
    chosen_map = Slice.of(source)
    found = (
        None
        if source is None
        else look(source, weights, model, views, certainty=True, chosen=chosen_map, on_rows=on_rows)
    )
    densities: Sequence[Density | None] = [None] * len(views) if found is None else found.densities
    pairs = zip(views, densities, strict=True)
    certainty = None if found is None else found.certainty
    remarks = list(cautions(model))
    if source is not None and found is not None:
        remarks += cautions_of_data(model, source, found)
    script = source_of("sort.js")
    html = render(
        "report.html",
        title=_title(model),
        name=name,
        cautions=remarks,
        fit=list(facts.of_fit(model)),
        data=[] if source is None or certainty is None else list(facts.of_data(model, source, certainty)),
        table=facts.components(model, certainty),
        pictures=[
            *(_view(model, *pair) for pair in pairs),
            *maps(source, chosen_map, None if found is None else found.cells, model.parameters.n_components),
            *_others(model, certainty),
        ],
        settings=facts.of_settings(model),
        versions=sorted(model.origin.versions.items()),
        command=command(model, name),
        script=script,
        script_hash=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
        written=dt.datetime.now(dt.UTC).replace(microsecond=0),
    )
    return Page(html, remarks)


def _title(model: Model) -> str:
    k = model.parameters.n_components
    what = f"{k} Gaussian component{'s' if k > 1 else ''}"
    return f"{what} of {model.origin.data}" if model.origin.data else what


def _view(model: Model, view: View, density: Density | None) -> Picture:
    names = [shown(names_of(model)[axis.feature]) for axis in view]
    what = "the mixture's own density" if density is None else "the density of the data"
    seen = f"Components over {what}: {' and '.join(names)}"
    if len(view) == 1:
        caption = f"{names[0]}: {what}, the mixture, and each component."
    else:
        caption = f"{names[0]} and {names[1]}: ellipses at one and two standard deviations over {what}, in shades."
    return Picture(picture(partial(draw_view, model=model, view=view, density=density)), seen, caption)


def _others(model: Model, certainty: Certainty | None) -> Iterator[Picture]:
    history = [value for value in model.history if np.isfinite(value)]
    if len(history) > 1:
        shows = f"Mean log-likelihood from {history[0]:.6g} to {history[-1]:.6g} in {len(history)} iterations"
        falls = min(np.diff(history)) < -np.spacing(abs(history[-1])) * _ROUNDING
        caption = "Mean log-likelihood by iteration" + (_FALLS if falls else ".")
        yield Picture(picture(partial(draw_history, history=history)), shows, caption)
    k, kind = model.parameters.n_components, model.parameters.covariance.name
    if certainty is not None and k > 1:
        drawn = picture(partial(draw_certainty, found=certainty), height=max(2.6, 1.4 + 0.22 * min(k, 31)))
        shows = f"{certainty.share(0.9):.1%} of the rows have a component of 90% or more"
        yield Picture(drawn, shows, "How probable the most likely component of the rows is.")
    choice = model.origin.choice
    if choice is not None:
        candidates = partial(draw_criteria, table=choice.table, best=(k, kind), criterion=choice.criterion)
        shows = f"{choice.criterion} of {len(choice.table)} candidates; chosen: {k} components, {kind}"
        yield Picture(
            picture(candidates), shows, "Candidates; hollow ones were dropped, as foreseen on the sample."
        )
