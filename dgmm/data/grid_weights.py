"""Sample weights on the dimensions of a grid, or on some of them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from dgmm.errors import InvalidWeights

if TYPE_CHECKING:
    import xarray

    from dgmm.data.grid import GridSource


def on_grid(weights: Any, source: GridSource) -> xarray.Dataset:
    """Weights as a variable on a grid's dimensions.

    Raises
    ------
    InvalidWeights
        An array of another shape.
    """
    import xarray

    if not isinstance(weights, xarray.DataArray | xarray.Dataset):
        values = weights if hasattr(weights, "shape") else np.asarray(weights)
        f = source.features
        if values.shape in ((source.n_rows,), (source.n_rows, 1)):
            values = values.reshape(f.grid)
        if values.shape != f.grid:
            grid = _spelled(dict(zip(f.sample_dims, f.grid, strict=True)))
            msg = f"sample weights have the shape {values.shape}; expected one a cell of {source.name}: {grid}."
            raise InvalidWeights(msg)
        weights = xarray.DataArray(values, dims=f.sample_dims)
    found: xarray.Dataset = weights.to_dataset(name="weight") if isinstance(weights, xarray.DataArray) else weights
    return found


def refuse_another_grid(source: GridSource, weights: GridSource) -> None:
    """Refuse weights that are not one for each cell of a grid, by name.

    Raises
    ------
    InvalidWeights
        Other dimensions, extents or coordinates.
    """
    mine, theirs = source.features, weights.features
    extents = dict(zip(mine.sample_dims, mine.grid, strict=True))
    for dim, n in zip(theirs.sample_dims, theirs.grid, strict=True):
        if extents.get(dim) != n:
            msg = (
                f"the sample weights in {weights.name} have {n} values along {dim}; the sample dimensions of "
                f"{source.name} are {_spelled(extents)}."
            )
            raise InvalidWeights(msg)
        if not _same_coordinate(source, weights, dim):
            msg = f"the sample weights in {weights.name} have other coordinates along {dim} than {source.name}."
            raise InvalidWeights(msg)
    if len(theirs.names) != 1:
        listed = ", ".join(theirs.names)
        msg = f"{weights.name} has {len(theirs.names)} variables ({listed}); expected one weight a cell."
        raise InvalidWeights(msg)


def _same_coordinate(source: GridSource, other: GridSource, dim: str) -> bool:
    known = (source.coordinates, other.coordinates)
    pair = [found[dim].values for found in known if found is not None and dim in found.coords]
    return len(pair) < 2 or bool(np.array_equal(pair[0], pair[1]))


def _spelled(extents: dict[str, int]) -> str:
    return ", ".join(f"{dim}: {n}" for dim, n in extents.items())
