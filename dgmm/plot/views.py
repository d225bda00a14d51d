"""Components over the density of the data, or over the mixture's own."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import ListedColormap, LogNorm, to_rgb
from matplotlib.figure import Figure
from matplotlib.patches import Ellipse
from matplotlib.patheffects import withStroke
from numpy.typing import NDArray

from dgmm.engine.density import Density, View, views_of
from dgmm.engine.look import look
from dgmm.engine.model import Model
from dgmm.errors import InvalidParameter
from dgmm.mixture.parameters import Parameters
from dgmm.mixture.views import chosen_pairs, component_densities_on, density_on
from dgmm.plot.colours import colours
from dgmm.plot.given import axes, features_of, model_of, names_of, rows_of, shown

SIGMAS = (1, 2)
_PANEL = (4.6, 4.2)  # inches
# Of the axes, the width and the height of a number.
_LABEL = (0.05, 0.045)
_LABELLED, _NAMED = 30, 5
# Of the mixture's own density, what is so much less than the highest is not drawn.
_FAINTEST = 1e-4
_SHADES = ListedColormap(
    [(*to_rgb("#7b8494"), alpha) for alpha in np.linspace(0.25, 1.0, 256)], name="dgmm-density"
).with_extremes(under=(0, 0, 0, 0), bad=(0, 0, 0, 0))


def components(
    model: Any, data: Any = None, features: Any = None, *, sample_weight: Any = None, ax: Axes | None = None
) -> Axes:
    """Draw each component as an ellipse over the density of the data.

    Parameters
    ----------
    model : GaussianMixture or path
        Fitted, or the path of a model file.
    data : array-like, zarr.Array, str, path, dask.array.Array or Source, optional
        Its rows are counted in cells in one pass, on the active Dask client if there is one; not a single row is
        drawn. The shading is logarithmic. Without data the mixture's own density is drawn.
    features : pair of str or int, or one of them, optional
        Names or numbers of the features. By default the pair in which the components are apart best, see
        `component_pairs`. Of a single feature the densities are drawn as curves.
    sample_weight : like data, shape (n,), optional
    ax : matplotlib.axes.Axes, optional
        A new figure by default.

    Returns
    -------
    matplotlib.axes.Axes
        With an ellipse of one and of two standard deviations for each component: the heavier it is, the stronger
        its line. The axes leave out the thousandth of the mixture at either end of each feature; the title says
        what share of the rows is outside, and which components.

    Raises
    ------
    InvalidParameter
        There is no such feature.
    DgmmError
        The data cannot be used; see `GaussianMixture.score`.
    """
    found = model_of(model)
    wanted = _first(found) if features is None else features_of(found, features)
    ((view, density),) = looked_at(found, [wanted], data, sample_weight)
    ax = axes(ax)
    draw_view(ax, found, view, density)
    return ax


def component_pairs(
    model: Any, data: Any = None, pairs: int | Iterable[Any] = 3, *, sample_weight: Any = None
) -> Figure:
    """Draw several pairs of features as `components` does, all from one pass over the data.

    Parameters
    ----------
    model, data, sample_weight
        See `components`.
    pairs : int or iterable of pairs of features
        A number asks for pairs to be chosen: the first is the one in which two rows of different components are
        apart best, in the mean of 1 - exp(-Bhattacharyya distance) over pairs of components, weighted with the
        product of their weights; each further one adds most to what those before it keep apart.

    Returns
    -------
    matplotlib.figure.Figure
    """
    import matplotlib.pyplot as plt

    found = model_of(model)
    if isinstance(pairs, int | np.integer):
        wanted = chosen(found, int(pairs)) if pairs > 0 else []
    else:
        wanted = [features_of(found, pair) for pair in pairs]
    if not wanted:
        msg = f"pairs is {pairs!r}; ask for one pair of features at least"
        raise InvalidParameter(msg)
    views = looked_at(found, wanted, data, sample_weight)
    columns = min(len(views), 3)
    lines = -(-len(views) // columns)
    size = (_PANEL[0] * columns, _PANEL[1] * lines)
    figure, panels = plt.subplots(lines, columns, figsize=size, squeeze=False, layout="constrained")
    for ax, (view, density) in zip(panels.flat, views, strict=False):
        draw_view(ax, found, view, density)
    for ax in panels.flat[len(views) :]:
        ax.remove()
    return figure


def chosen(model: Model, n_pairs: int) -> list[tuple[int, ...]]:
    """The features of so many pictures at most; of data of one feature, that one."""
    if model.parameters.n_features == 1:
        return [(0,)]
    return list(chosen_pairs(model.parameters, n_pairs))


def _first(model: Model) -> tuple[int, ...]:
    return chosen(model, 1)[0]


def looked_at(
    model: Model, features: Sequence[tuple[int, ...]], data: Any, sample_weight: Any
) -> list[tuple[View, Density | None]]:
    """The views of some features, with the density of the data there if there are data."""
    parameters = model.in_data_units()
    if data is None:
        return [(view, None) for view in views_of(parameters, features)]
    source, weights = rows_of(data, sample_weight)
    views = views_of(parameters, features, source.n_rows)
    return list(zip(views, look(source, weights, model, views).densities, strict=True))


def draw_view(ax: Axes, model: Model, view: View, density: Density | None) -> None:
    """Draw a view of a mixture, over what lies there of the data, or over its own density."""
    names = names_of(model)
    marginal = model.in_data_units().marginal([axis.feature for axis in view])
    if len(view) == 1:
        _draw_curves(ax, marginal, view, density)
        ax.set_ylabel("density")
    else:
        _draw_shades(ax, marginal, view, density)
        _draw_ellipses(ax, marginal, view)
        ax.set_ylim(view[1].ends)
        ax.set_ylabel(shown(names[view[1].feature]), parse_math=False)
    ax.set_xlim(view[0].ends)
    ax.set_xlabel(shown(names[view[0].feature]), parse_math=False)
    ax.set_title(_said(marginal, view, density), fontsize="small")


def _said(marginal: Parameters, view: View, density: Density | None) -> str:
    """What the shades are, and what the axes leave out."""
    low, high = np.array([axis.ends for axis in view]).T
    beyond = np.flatnonzero(((marginal.means < low) | (marginal.means > high)).any(axis=1)).tolist()
    named = f"component{'s' if len(beyond) > 1 else ''} {', '.join(map(str, beyond[:_NAMED]))}"
    named += ", ..." if len(beyond) > _NAMED else ""
    if density is None:
        return "the mixture's own density" + (f"; outside: {named}" if beyond else "")
    share = "less than 0.01%" if 0 < density.outside < 1e-4 else f"{density.outside:.2%}"
    return f"outside: {share} of the rows" + (f", {named}" if beyond else "")


def _draw_shades(ax: Axes, marginal: Parameters, view: View, density: Density | None) -> None:
    if density is None:
        values = density_on(marginal, *(axis.centres for axis in view))
        low, high = values.max() * _FAINTEST, values.max()
    else:
        values = density.counts.astype(np.float64)
        low, high = values[values > 0].min(initial=1.0), values.max(initial=2.0)
    extent = (*view[0].ends, *view[1].ends)
    norm = LogNorm(low, max(high, 2 * low))
    ax.imshow(
        np.ma.masked_less(values.T, low), origin="lower", extent=extent, aspect="auto", norm=norm, cmap=_SHADES,
        interpolation="nearest", zorder=0,
    )  # fmt: skip


def _draw_ellipses(ax: Axes, marginal: Parameters, view: View) -> None:
    palette, paper = colours(marginal.n_components), ax.get_facecolor()
    order = np.argsort(marginal.weights, kind="stable")
    strength, matrices = np.sqrt(marginal.weights / marginal.weights.max()), marginal.matrices()
    for place, k in enumerate(order):
        for sigma in SIGMAS:
            width = (1.0 + 1.4 * strength[k]) * (1.0 if sigma == 1 else 0.6)
            ax.add_patch(
                Ellipse(
                    marginal.means[k],
                    *_size(matrices[k], sigma),
                    angle=_angle(matrices[k]),
                    fill=False,
                    edgecolor=palette[k],
                    linewidth=width,
                    alpha=0.65 + 0.35 * float(strength[k]),
                    path_effects=[withStroke(linewidth=width + 1.2, foreground=paper, alpha=0.6)],
                    zorder=2 + place / len(order),
                )
            )
    for k in _labelled(marginal.means, order[::-1], view):
        ax.annotate(
            str(k), marginal.means[k], ha="center", va="center", fontsize="small", fontweight="bold", zorder=4,
            path_effects=[withStroke(linewidth=2.5, foreground=paper)], annotation_clip=True,
        )  # fmt: skip


def _labelled(means: NDArray[np.floating], heaviest: NDArray[np.intp], view: View) -> list[int]:
    """Components that get a number: the heaviest whose numbers do not cover each other."""
    low, high = np.array([axis.ends for axis in view]).T
    places = (means - low) / (high - low) / _LABEL
    found: list[int] = []
    for k in heaviest:
        if all(np.abs(places[k] - places[other]).max() > 1 for other in found):
            found.append(int(k))
    return found


def _size(covariance: NDArray[np.floating], sigma: float) -> tuple[float, float]:
    """Long and short axis of the ellipse at a Mahalanobis distance of `sigma`."""
    short, long = 2 * sigma * np.sqrt(np.maximum(np.linalg.eigvalsh(covariance), 0.0))
    return float(long), float(short)


def _angle(covariance: NDArray[np.floating]) -> float:
    """Of its long axis, in degrees."""
    (x, y) = np.linalg.eigh(covariance)[1][:, 1]
    return float(np.degrees(np.arctan2(y, x)))


def _draw_curves(ax: Axes, marginal: Parameters, view: View, density: Density | None) -> None:
    (axis,) = view
    if density is not None:
        total = density.counts.sum() / max(1.0 - density.outside, np.finfo(float).eps)
        ax.stairs(density.counts / max(total, 1) / axis.width, axis.edges, fill=True, color=_SHADES(0.4))
    x = np.linspace(*axis.ends, 1001)
    ax.plot(x, density_on(marginal, x), color=ax.xaxis.label.get_color(), linewidth=1.2, label="mixture")
    palette, labelled = colours(marginal.n_components), np.argsort(-marginal.weights)[:_LABELLED]
    for k, values in enumerate(component_densities_on(marginal, x)):
        ax.plot(x, values, color=palette[k], linewidth=1.5)
        if k in labelled:
            peak = np.interp(marginal.means[k, 0], x, values)
            ax.annotate(
                str(k), (marginal.means[k, 0], peak), (0, 4), textcoords="offset points", ha="center",
                fontsize="small", fontweight="bold", annotation_clip=True,
                path_effects=[withStroke(linewidth=2.5, foreground=ax.get_facecolor())],
            )  # fmt: skip
    ax.set_ylim(bottom=0)
