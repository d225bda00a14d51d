"""Maps of a grid: the most likely component of its cells, and how probable it is."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from dgmm.data.grid import GridSource
from dgmm.data.grid_results import sample_coordinates
from dgmm.data.source import Source
from dgmm.engine.slices import Cells, Slice
from dgmm.plot.maps import label_map, probability_map
from dgmm.reporting.pictures import Picture, picture

if TYPE_CHECKING:
    import xarray

_WIDTH = 6.4


def maps(source: Source | None, chosen: Slice | None, cells: Cells | None, n_components: int) -> Iterator[Picture]:
    """Pictures of the cells that a look has found on a map; none where there is no map.

    Parameters
    ----------
    source : Source or None
    chosen : Slice or None
    cells : Cells or None
    n_components : int
    """
    if not isinstance(source, GridSource) or chosen is None or cells is None or not len(cells.places):
        return
    where = _where(source, chosen)
    labels, probabilities = (
        _on_map(source, chosen, cells.drawn(values, chosen.shape))
        for values in (cells.labels, cells.probabilities)
    )
    missing = 1 - len(cells.places) / labels.size
    every = "" if chosen.steps == (1, 1) else f" One cell in {chosen.steps[0]} x {chosen.steps[1]} is drawn."
    yield Picture(
        picture(lambda ax: label_map(labels, n_components=n_components, ax=ax), width=_WIDTH),
        f"Map of the most likely components over {where}",
        f"The most likely component over {where}; {missing:.0%} of the cells are missing.{every}",
    )
    yield Picture(
        picture(lambda ax: probability_map(probabilities, ax=ax), width=_WIDTH),
        f"Map of the probability of the most likely component over {where}",
        "How probable the most likely component of these cells is.",
    )


def _where(source: GridSource, chosen: Slice) -> str:
    """As in "lat and lon at time 2001-01-16, level 0"."""
    dims = source.features.sample_dims
    fixed = []
    for dim in (dim for number, dim in enumerate(dims) if number not in (chosen.up, chosen.across)):
        known = source.coordinates is not None and dim in source.coordinates.coords
        value = source.coordinates[dim].values[0] if known and source.coordinates is not None else 0
        fixed.append(f"{dim} {str(value).removesuffix('T00:00:00.000000000')}")
    at = f" at {', '.join(fixed)}" if fixed else ""
    return f"{dims[chosen.up]} and {dims[chosen.across]}{at}"


def _on_map(source: GridSource, chosen: Slice, values: NDArray[np.float64]) -> xarray.DataArray:
    """A map with the coordinates of its two dimensions."""
    import xarray

    names = [source.features.sample_dims[number] for number in (chosen.up, chosen.across)]
    known = sample_coordinates(source)
    coordinates = {
        name: known[name][::step] for name, step in zip(names, chosen.steps, strict=True) if name in known.coords
    }
    return xarray.DataArray(values, coordinates, names)
