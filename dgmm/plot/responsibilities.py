"""How sure a mixture is of the component of each row."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from numpy.typing import NDArray

from dgmm.engine.certainty import CELLS, Certainty
from dgmm.engine.look import look
from dgmm.plot.given import axes, model_of, rows_of

BOUNDS = (0.0, 0.5, 0.9, 0.99, 1.0)
"""Of the classes of certainty that are drawn."""
_MOST = 30
_TITLES = ("below 50%", "50 to 90%", "90 to 99%", "99% and more")


def certainty(model: Any, data: Any, *, sample_weight: Any = None, ax: Axes | None = None) -> Axes:
    """Draw how probable the most likely component of the rows is, for the rows of each component.

    Parameters
    ----------
    model : GaussianMixture or path
        Fitted, or the path of a model file.
    data : array-like, zarr.Array, str, path, dask.array.Array or Source
        Read in one pass, on the active Dask client if there is one.
    sample_weight : like data, shape (n,), optional
    ax : matplotlib.axes.Axes, optional
        A new figure by default.

    Returns
    -------
    matplotlib.axes.Axes
        A bar for each component, of the rows whose most likely one it is, the largest first; after 30 of them the
        others are one bar. Its parts are shares of these rows.

    Raises
    ------
    DgmmError
        The data cannot be used; see `GaussianMixture.score`.
    """
    found = model_of(model)
    source, weights = rows_of(data, sample_weight)
    looked = look(source, weights, found, [], certainty=True).certainty
    assert looked is not None  # noqa: S101  it was asked for
    ax = axes(ax)
    draw_certainty(ax, looked)
    return ax


def draw_certainty(ax: Axes, found: Certainty) -> None:
    """Draw what a pass found."""
    names, counts = _bars(found.counts)
    classes = in_classes(counts)
    totals = classes.sum(axis=1)
    shares = classes / np.maximum(totals, 1)[:, None]
    left = np.zeros(len(names))
    shades = colormaps["cividis"](np.linspace(0.2, 0.95, len(_TITLES)))
    for part, title, shade in zip(shares.T, _TITLES, shades, strict=True):
        ax.barh(range(len(names)), 100 * part, left=100 * left, color=shade, label=title, height=0.8)
        left += part
    everything = totals.sum()
    labels = [f"{name}  ({total / everything:.1%})" for name, total in zip(names, totals, strict=True)]
    ax.set_yticks(range(len(names)), labels, fontsize="small" if len(names) < 16 else "x-small")
    ax.set_ylim(len(names) - 0.4, -0.6)
    ax.set_xlim(0, 100)
    ax.set_xlabel("% of the rows whose most likely component it is")
    ax.set_ylabel("component (share of rows)")
    ax.set_title(f"{found.share(0.9):.1%} of the rows have a component of 90% or more", fontsize="small", pad=34)
    ax.legend(
        loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=2, fontsize="small", frameon=False, handlelength=1,
        columnspacing=2, labelspacing=0.2,
    )  # fmt: skip


def in_classes(counts: NDArray[Any]) -> NDArray[Any]:
    """Counts (K, CELLS) in classes of certainty, (K, 4)."""
    edges = [round(bound * CELLS) for bound in BOUNDS]
    return np.add.reduceat(counts, edges[:-1], axis=1)


def _bars(counts: NDArray[Any]) -> tuple[Sequence[str], NDArray[Any]]:
    """Names and counts, the component with most rows first."""
    order = np.argsort(-counts.sum(axis=1), kind="stable")
    names, kept = [str(k) for k in order[:_MOST]], counts[order[:_MOST]]
    rest = order[_MOST:]
    if len(rest):
        return [*names, f"{len(rest)} others"], np.concatenate([kept, counts[rest].sum(axis=0, keepdims=True)])
    return names, kept
