"""Per-row results of a grid as arrays with its dimensions and coordinates."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from dgmm.data.grid import GridSource

if TYPE_CHECKING:
    import xarray


def on_grid(source: GridSource, pieces: Sequence[Any], name: str, trailing: tuple[str, ...]) -> xarray.DataArray:
    """Results of each block, put together.

    Parameters
    ----------
    source : GridSource
    pieces : sequence of array, each (cells, ...)
        Of each of its blocks: NumPy arrays, or Dask arrays.
    name : str
    trailing : tuple of str
        Names of the dimensions after the cells.
    """
    import xarray

    boxes = source.boxes
    shaped = [piece.reshape(*boxes[i].shape, *piece.shape[1:]) for i, piece in enumerate(pieces)]
    if isinstance(shaped[0], np.ndarray):
        values: Any = np.empty((*boxes.grid, *shaped[0].shape[len(boxes.grid) :]), shaped[0].dtype)
        for number, piece in enumerate(shaped):
            values[boxes[number].slices] = piece
    else:
        values = _concatenated(shaped, boxes.counts)
    dims = (*source.features.sample_dims, *trailing)
    return xarray.DataArray(values, dims=dims, coords=sample_coordinates(source).coords, name=name)


def sample_coordinates(source: GridSource) -> xarray.Dataset:
    """The coordinates that belong to samples."""
    coordinates = source.coordinates
    assert coordinates is not None  # noqa: S101  only what was sent to a worker lacks them
    others = [
        key for key, v in coordinates.variables.items() if not set(v.dims) <= set(source.features.sample_dims)
    ]
    return coordinates.drop_vars(others)


def _concatenated(pieces: Sequence[Any], counts: tuple[int, ...]) -> Any:
    """Dask arrays in C order of a grid of so many."""
    import dask.array as da

    joined = list(pieces)
    for axis in reversed(range(len(counts))):
        run = counts[axis]
        joined = [da.concatenate(joined[i : i + run], axis=axis) for i in range(0, len(joined), run)]
    return joined[0]
