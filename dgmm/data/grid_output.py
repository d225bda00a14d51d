"""Per-row results of a grid in a Zarr group that xarray opens: the grid's dimensions, coordinates and boxes."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

import numpy as np
import zarr
from numpy.typing import NDArray

from dgmm.data.grid import GridSource
from dgmm.data.grid_results import sample_coordinates
from dgmm.data.row_arrays import Layout
from dgmm.data.rows import Bounds
from dgmm.data.zarr_output import ZarrOutput


class GridOutput(ZarrOutput):
    """Arrays with one entry a cell; a unit is a box of the source's, and a chunk of each array.

    Where a cell was left out integers are -1, the arrays' ``_FillValue``, and floats are NaN: xarray reads both as
    missing.

    Parameters
    ----------
    path : str or path
    arrays : mapping of str to (shape, dtype)
        As for a `RowOutput`: each shape starts with the number of cells.
    source : GridSource
        What the results belong to.
    trailing : mapping of str to tuple of str
        By array, the names of its dimensions after the cells.
    """

    kind = "a Zarr group"

    def __init__(
        self,
        path: str | os.PathLike[str],
        arrays: Layout,
        source: GridSource,
        trailing: Mapping[str, tuple[str, ...]],
    ) -> None:
        self._boxes = source.boxes
        super().__init__(path, arrays, int(np.diff(self._boxes.bounds).max()))
        self._dims = {name: (*source.features.sample_dims, *trailing[name]) for name in self.arrays}
        self._coordinates: Any = sample_coordinates(source)

    @property
    def bounds(self) -> Bounds:
        """Positions of the boxes, shape (n_units + 1,)."""
        return self._boxes.bounds

    def _check_whole(self, start: int, stop: int) -> None:
        at = np.searchsorted(self.bounds, [start, stop])
        if at[1] >= len(self.bounds) or self.bounds[at].tolist() != [start, stop]:
            msg = f"cells {start}:{stop} are not whole boxes of {self.path}"
            raise ValueError(msg)

    def _prepare(self) -> None:
        super()._prepare()
        group = zarr.open_group(self._place, mode="r")
        if any(str(name) not in group for name in self._coordinates.variables):
            # xarray writes the group's attributes anew.
            kept = self._coordinates.drop_attrs(deep=False).assign_attrs(dict(group.attrs))
            kept.to_zarr(self._place, mode="a", zarr_format=3, consolidated=False)

    def _shape(self, name: str) -> tuple[tuple[int, ...], tuple[int, ...]]:
        (_, *rest), (_, *parts) = super()._shape(name)
        return (*self._boxes.grid, *rest), (*self._boxes.steps, *parts)

    def _described(self, name: str) -> dict[str, Any]:
        missing = {"i": -1, "f": np.nan}.get(self.arrays[name].dtype.kind)
        return {
            "fill_value": 0 if missing is None else missing,
            "attributes": {"_FillValue": missing} if missing == -1 else {},
            "dimension_names": self._dims[name],
        }

    def _at(self, unit: int) -> tuple[int, ...]:
        return tuple(int(i) for i in np.unravel_index(unit, self._boxes.counts))

    def _write(self, start: int, stop: int, values: Mapping[str, NDArray[Any]]) -> None:
        for unit in range(self._boxes.at(start), self._boxes.at(stop - 1) + 1):
            box, first = self._boxes[unit], int(self.bounds[unit]) - start
            cells = slice(first, first + int(np.prod(box.shape)))
            for name in self.arrays:
                part = np.asarray(values[name])[cells]
                self._array(name)[box.slices] = part.reshape(*box.shape, *part.shape[1:])

    def __getstate__(self) -> dict[str, Any]:
        return {**super().__getstate__(), "_coordinates": None}
