"""Results on a grid: a map of the components, and one of how probable the most likely one is."""

from __future__ import annotations

from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colorbar import Colorbar
from matplotlib.colors import BoundaryNorm, ListedColormap
from numpy.typing import NDArray

from dgmm.errors import InvalidParameter, ShapeMismatch
from dgmm.plot.colours import colours
from dgmm.plot.given import axes, shown

_TICKS = 20


def label_map(
    labels: Any, *, x: Any = None, y: Any = None, n_components: int | None = None, ax: Axes | None = None
) -> Axes:
    """Draw the component of each cell of a grid.

    Parameters
    ----------
    labels : xarray.DataArray or array-like, shape (n_y, n_x)
        Numbers of components; NaN, masked and negative cells are missing, and stay blank.
    x, y : str or array-like, optional
        Names of the array's coordinates, or the coordinates: of the columns and rows (centres of the cells), or of
        each cell. By default those of its dimensions, or the numbers of columns and rows where there are none that
        can be drawn (dates of other calendars, durations, missing values).
    n_components : int, optional
        So that maps of the same mixture have the same colours; by default one more than the largest label.
    ax : matplotlib.axes.Axes, optional
        A new figure by default.

    Returns
    -------
    matplotlib.axes.Axes
        With a discrete colour bar.

    Raises
    ------
    ShapeMismatch
        Not two-dimensional, or the coordinates do not fit.
    InvalidParameter
        There are no such coordinates, or they cannot be drawn.
    """
    values = np.ma.masked_less(_values(labels), 0)
    largest = int(values.max()) if values.count() else 0
    count = max(n_components or 0, largest + 1)
    ax, bar = _draw(
        values, labels, x, y, ax, cmap=ListedColormap(colours(count)),
        norm=BoundaryNorm(np.arange(count + 1) - 0.5, count),
    )  # fmt: skip
    bar.set_ticks(list(range(0, count, -(-count // _TICKS))))
    bar.minorticks_off()
    bar.set_label("component")
    return ax


def probability_map(probability: Any, *, x: Any = None, y: Any = None, ax: Axes | None = None) -> Axes:
    """Draw how probable the most likely component of each cell of a grid is.

    Parameters
    ----------
    probability : xarray.DataArray or array-like, shape (n_y, n_x)
        Between 0 and 1; NaN and masked cells are missing, and stay blank. Of an array (n_y, n_x, K) of
        responsibilities the largest of each cell is drawn.
    x, y, ax
        See `label_map`.

    Returns
    -------
    matplotlib.axes.Axes
    """
    values = _values(probability)
    if values.ndim == 3:
        values = values.max(axis=2)
    ax, bar = _draw(values, probability, x, y, ax, cmap="cividis", vmin=0, vmax=1)
    bar.set_label("probability of the\nmost likely component")
    return ax


def _values(grid: Any) -> Any:
    """The values of an xarray.DataArray, or of an array, less those that are missing."""
    values = grid.values if hasattr(grid, "dims") and hasattr(grid, "coords") else grid
    return np.ma.masked_invalid(np.ma.asarray(values, dtype=float))


def _draw(values: NDArray[Any], grid: Any, x: Any, y: Any, ax: Axes | None, **style: Any) -> tuple[Axes, Colorbar]:
    if values.ndim != 2:
        msg = (
            f"a map needs rows and columns of cells, but found {values.ndim} dimensions; choose one time or level"
        )
        raise ShapeMismatch(msg)
    (columns, across), (rows, up) = (_coordinate(grid, values.shape, *given) for given in ((x, 1), (y, 0)))
    ax = axes(ax)
    mesh = ax.pcolormesh(columns, rows, values, shading="nearest", rasterized=True, **style)
    ax.set_xlabel(shown(across), parse_math=False)
    ax.set_ylabel(shown(up), parse_math=False)
    return ax, ax.figure.colorbar(mesh, ax=ax)


def _coordinate(grid: Any, shape: tuple[int, ...], given: Any, dimension: int) -> tuple[NDArray[Any], str]:
    """Where the columns (dimension 1) or rows (0) of a grid are, and the axis' title."""
    name, asked = "", given is not None
    if hasattr(grid, "dims") and hasattr(grid, "coords"):
        name = str(given if isinstance(given, str) else grid.dims[dimension])
        if given is None:
            given = name if name in grid.coords else None
    if isinstance(given, str):
        if given not in getattr(grid, "coords", ()):
            msg = (
                f"the grid has no coordinate {given!r}; it has {', '.join(map(str, getattr(grid, 'coords', ())))}"
            )
            raise InvalidParameter(msg)
        found = grid.coords[given]
        units = found.attrs.get("units", "")
        given, name = found.values, f"{given} ({units})" if units else given
    places = np.arange(shape[dimension]) if given is None else np.asarray(given)
    if places.shape not in ((shape[dimension],), shape):
        what = "columns" if dimension else "rows"
        msg = f"coordinates of shape {places.shape} do not fit the {shape[dimension]} {what} of a grid {shape}"
        raise ShapeMismatch(msg)
    if not _drawable(places):
        if asked:
            what = f"{name or 'coordinates'} of {places.dtype}"
            msg = f"{what} cannot be drawn; expected numbers or dates, none missing"
            raise InvalidParameter(msg)
        return np.arange(shape[dimension]), str(grid.dims[dimension])
    return places, name


def _drawable(places: NDArray[Any]) -> bool:
    """Whether Matplotlib has places for them all: it has none for other calendars, nor for what is missing."""
    if places.dtype.kind in "fM":
        return bool(np.isfinite(places).all())
    return places.dtype.kind in "iubU"
