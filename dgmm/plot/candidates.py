"""What `select` found: a criterion over the number of components."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from dgmm.engine.candidates import Entry
from dgmm.engine.origin import Choice
from dgmm.engine.selection import CRITERIA
from dgmm.errors import InvalidParameter
from dgmm.plot.colours import colours
from dgmm.plot.given import axes, model_of
from dgmm.selection import Selection

_TITLES = {"bic": "BIC", "aic": "AIC", "icl": "ICL", "holdout": "mean log-likelihood of the rows held out"}
# A difference in an information criterion that leaves no doubt (Kass & Raftery 1995, J. Amer. Statist. Assoc. 90).
_DECISIVE = 10.0
_MARKERS = "osD^vP"


def criteria(selection: Any, criterion: str | None = None, *, ax: Axes | None = None) -> Axes:
    """Draw a criterion over the number of components, a line for each covariance type.

    Parameters
    ----------
    selection : Selection, GaussianMixture or path
        The result of `dgmm.select`, or a mixture (file) that it chose.
    criterion : {'bic', 'aic', 'icl', 'holdout'}, optional
        By default the one that decided.
    ax : matplotlib.axes.Axes, optional
        A new figure by default.

    Returns
    -------
    matplotlib.axes.Axes
        BIC, AIC and ICL are drawn as the difference to the lowest: linear up to 10, logarithmic beyond. Of
        candidates with hollow markers, dropped on the sample, the figure is what the sample foresees. A ring is
        round the chosen one.

    Raises
    ------
    InvalidParameter
        No selection is behind this mixture, or there is no such criterion.
    """
    table, best, decided = _found(selection)
    wanted = decided if criterion is None else criterion
    if wanted not in CRITERIA:
        msg = f"criterion is {wanted!r}; it must be one of {', '.join(CRITERIA)}"
        raise InvalidParameter(msg)
    if not np.isfinite([entry.value(wanted) for entry in table]).any():
        msg = f"this selection held out no rows: it has no {_TITLES[wanted]}; choose another criterion"
        raise InvalidParameter(msg)
    ax = axes(ax)
    draw_criteria(ax, table, best, wanted)
    return ax


def draw_criteria(ax: Axes, table: Sequence[Entry], best: tuple[int, str], criterion: str) -> None:
    """Draw the table of a selection."""
    held_out = criterion == "holdout"
    lowest = min(entry.value(criterion) for entry in table if np.isfinite(entry.value(criterion)))
    kinds = list(dict.fromkeys(entry.covariance_type for entry in table))
    for kind, colour, marker in zip(kinds, colours(len(kinds)), _MARKERS, strict=False):
        entries = sorted((e for e in table if e.covariance_type == kind), key=lambda entry: entry.n_components)
        entries = [entry for entry in entries if np.isfinite(entry.value(criterion))]
        sizes = [entry.n_components for entry in entries]
        values = [entry.held_out if held_out else entry.value(criterion) - lowest for entry in entries]
        ax.plot(sizes, values, color=colour, linewidth=1.2, zorder=1)
        for size, value, entry in zip(sizes, values, entries, strict=True):
            hollow: dict[str, Any] = {"markerfacecolor": ax.get_facecolor()} if entry.dropped else {}
            ax.plot([size], [value], marker, color=colour, markersize=5, zorder=2, **hollow)
            if (size, kind) == best:
                ax.plot(
                    [size], [value], "o", markersize=13, markerfacecolor="none", markeredgewidth=1.5, zorder=3,
                    color=ax.xaxis.label.get_color(),
                )  # fmt: skip
    _scale(ax, held_out=held_out)
    ax.set_xlabel("components")
    ax.set_ylabel(_TITLES[criterion] if held_out else f"{_TITLES[criterion]} above the lowest")
    ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    ax.grid(visible=True, alpha=0.25)
    ax.legend(handles=_legend(ax, kinds, dropped=any(entry.dropped for entry in table)), fontsize="small")


def _scale(ax: Axes, *, held_out: bool) -> None:
    if not held_out:
        ax.set_yscale("symlog", linthresh=_DECISIVE)
        ax.set_ylim(bottom=-0.15 * _DECISIVE)


def _legend(ax: Axes, kinds: Sequence[str], *, dropped: bool) -> list[Line2D]:
    handles = [
        Line2D([], [], color=colour, marker=marker, markersize=5, label=kind)
        for kind, colour, marker in zip(kinds, colours(len(kinds)), _MARKERS, strict=False)
    ]
    ink = ax.xaxis.label.get_color()
    ring: dict[str, Any] = {"marker": "o", "linestyle": "", "color": ink, "markerfacecolor": "none"}
    handles.append(Line2D([], [], markersize=10, markeredgewidth=1.5, label="chosen", **ring))
    if dropped:
        handles.append(Line2D([], [], markersize=5, label="dropped: as foreseen", **ring))
    return handles


def _found(selection: Any) -> tuple[Sequence[Entry], tuple[int, str], str]:
    if isinstance(selection, Selection):
        best = selection.best
        return selection.table, (best.n_components, best.covariance_type), selection.criterion
    model = model_of(selection)
    choice: Choice | None = model.origin.choice
    if choice is None:
        msg = "this mixture was not chosen by `select`: there are no other candidates to compare it with"
        raise InvalidParameter(msg)
    parameters = model.parameters
    return choice.table, (parameters.n_components, parameters.covariance.name), choice.criterion
