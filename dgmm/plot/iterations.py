"""The log-likelihood of a fit, iteration by iteration."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from dgmm.data.address import Address
from dgmm.engine import record
from dgmm.engine.events import best_of
from dgmm.engine.folder import is_folder
from dgmm.plot.given import axes, model_of
from dgmm.progress import spoken

_NAMED = 10
_STYLE = ("linewidth", "alpha", "zorder")


def convergence(fit: Any, *, ax: Axes | None = None) -> Axes:
    """Draw the mean log-likelihood that each iteration found.

    Parameters
    ----------
    fit : GaussianMixture or path
        Fitted; or the path (or URL) of a model file, or of the checkpoint directory of a fit or selection, which
        may be running: then each mixture in the passes over all rows is drawn, or before the first of them each
        run on the sample.
    ax : matplotlib.axes.Axes, optional
        A new figure by default.

    Returns
    -------
    matplotlib.axes.Axes

    Raises
    ------
    DgmmError
        The file or the directory cannot be read.
    """
    if isinstance(fit, str | os.PathLike) and is_folder(fit):
        return _of_checkpoint(fit, ax)
    model = model_of(fit)
    ax = axes(ax)
    draw_history(ax, model.history)
    if not model.converged and model.history:
        ax.set_title("not converged", fontsize="small")
    return ax


def draw_history(ax: Axes, history: Sequence[float], label: str = "", **style: Any) -> None:
    """Draw one fit's."""
    marker = "o" if len(history) < 60 else ""
    ax.plot(range(1, len(history) + 1), history, marker=marker, markersize=3, label=label, **style)
    ax.set_xlabel("iteration")
    ax.set_ylabel("mean log-likelihood")
    ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    ax.ticklabel_format(axis="y", useOffset=False)
    ax.grid(visible=True, alpha=0.25)


def _of_checkpoint(directory: Address, ax: Axes | None) -> Axes:
    _, progress = record.read(directory)
    runs = progress.finalists or progress.runs
    ax = axes(ax)
    ax.set_title("on all rows" if progress.finalists else "runs on the sample", fontsize="small")
    best = best_of(runs) if runs else None
    for name, run in sorted(runs.items()):
        strong: dict[str, Any] = (
            {"linewidth": 2.0, "zorder": 3} if run is best else {"linewidth": 1.0, "alpha": 0.7}
        )
        draw_history(ax, run.state.history, _spoken(name), **strong)
    if 1 < len(runs) <= _NAMED:
        ax.legend(fontsize="small")
    return ax


def _spoken(name: str) -> str:
    return f"finalist {int(name) + 1}" if name.isdecimal() else spoken(name)
