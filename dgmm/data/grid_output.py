"""Per-row results of a grid in a Zarr group that xarray opens: the grid's dimensions, coordinates and boxes."""

from __future__ import annotations

import os
from collections.abc import Mapping
from itertools import product
from typing import Any

import numpy as np
import zarr
from numpy.typing import NDArray
from zarr.codecs import BloscCodec
from zarr.errors import NodeNotFoundError

from dgmm.data.grid import GridSource
from dgmm.data.grid_results import sample_coordinates
from dgmm.data.row_output import Layout
from dgmm.data.rows import Bounds
from dgmm.data.zarr_chunks import chunk_key, list_chunks
from dgmm.data.zarr_output import CHUNK_BYTES, ZarrOutput


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
        """Of the array of a result and of its chunks."""
        (_, *rest), dtype, _ = self.arrays[name]
        parts = [max(1, min(n, CHUNK_BYTES // (self.chunk_rows * dtype.itemsize))) for n in rest]
        return (*self._boxes.grid, *rest), (*self._boxes.steps, *parts)

    def _create_or_check(self, name: str) -> None:
        (shape, chunks), dtype = self._shape(name), self.arrays[name].dtype
        try:
            array = zarr.open_array(self._place, path=name, mode="r")
        except NodeNotFoundError:
            missing = {"i": -1, "f": np.nan}.get(dtype.kind)
            zarr.create_array(
                self._place,
                name=name,
                shape=shape,
                dtype=dtype,
                chunks=chunks,
                dimension_names=self._dims[name],
                fill_value=0 if missing is None else missing,
                attributes={"_FillValue": missing} if dtype.kind == "i" else {},
                compressors=BloscCodec(cname="lz4", clevel=5, shuffle="shuffle"),
            )
            return
        if (array.shape, array.dtype, array.chunks) != (shape, dtype, chunks):
            found = f"{name} of shape {array.shape}, {array.dtype}, in chunks of {array.chunks}"
            raise self._mismatch(found)

    def _missing(self) -> set[int]:
        missing = set()
        cells = len(self._boxes.grid)
        for name in self.arrays:
            array = self._array(name)
            stored = list_chunks(array)
            (_, *shape), (_, *chunks) = array.shape[cells - 1 :], array.chunks[cells - 1 :]
            across = list(product(*(range(-(-n // c)) for n, c in zip(shape, chunks, strict=True))))
            for unit in range(len(self._boxes)):
                at = tuple(int(i) for i in np.unravel_index(unit, self._boxes.counts))
                keys = (chunk_key(array, (*at, *further)) for further in across)
                if any(key not in stored or stored[key].size == 0 for key in keys):
                    missing.add(unit)
        return missing

    def _write(self, start: int, stop: int, values: Mapping[str, NDArray[Any]]) -> None:
        for unit in range(self._boxes.at(start), self._boxes.at(stop - 1) + 1):
            box, first = self._boxes[unit], int(self.bounds[unit]) - start
            cells = slice(first, first + int(np.prod(box.shape)))
            for name in self.arrays:
                part = np.asarray(values[name])[cells]
                self._array(name)[box.slices] = part.reshape(*box.shape, *part.shape[1:])

    def __getstate__(self) -> dict[str, Any]:
        return {**super().__getstate__(), "_coordinates": None}
