"""Rows of variables on a grid: a row is a cell of the sample dimensions."""

from __future__ import annotations

import copy
import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Self

import numpy as np
from numpy.typing import NDArray

from dgmm.data.blocks import BlockInput, ComputedBlocks, StoredBlocks
from dgmm.data.boxes import Box, Boxes
from dgmm.data.grid_features import GridFeatures, chosen
from dgmm.data.grid_weights import on_grid, refuse_another_grid
from dgmm.data.rows import Rows
from dgmm.data.source import Missing, Source

if TYPE_CHECKING:
    import xarray

    from dgmm.data.files import StoredFile
    from dgmm.data.zarr_listing import Listing

BOX_BYTES = 4 * 2**20
# Chunks of different variables are joined to boxes that suit all of them, up to so many of the largest.
_MOST_JOINED = 8


def grid_source(
    dataset: xarray.Dataset,
    variables: Sequence[str] | None,
    feature_dims: Sequence[str],
    name: str,
    fingerprint: str | None = None,
) -> GridSource:
    """Describe a dataset's cells as rows.

    Parameters
    ----------
    dataset : xarray.Dataset
    variables : sequence of str or None
        Data variables whose values are features; None is all.
    feature_dims : sequence of str
        Dimensions along which the values of a variable are features too, not samples.
    name : str
    fingerprint : str, optional
        Of what is stored; without one, the content of rows is hashed.

    Raises
    ------
    InvalidParameter, InvalidData, ShapeMismatch, UnsupportedDtype
    """
    dataset = chosen(dataset, variables, name)
    features = GridFeatures.of(dataset, feature_dims, name)
    kind = DaskGrid if any(variable.chunks for variable in dataset.data_vars.values()) else GridSource
    return kind(dataset, features, name, fingerprint)


class GridSource(Source):
    """Cells of variables that lie on disk or in memory; a block is a box of whole chunks.

    Positions run box after box; the global number of a row is its C order in the sample dimensions. Cells with a
    missing value are left out, unless ``missing="error"`` is asked for.

    Parameters
    ----------
    dataset : xarray.Dataset
        Its data variables are the features.
    features : GridFeatures
    name : str
    fingerprint : str or None
    """

    missing: Missing = "drop"
    stored: Mapping[str, Listing | StoredFile] = MappingProxyType({})
    """What lies on disk, by variable, to be compared with what is there later."""

    def __init__(
        self, dataset: xarray.Dataset, features: GridFeatures, name: str, fingerprint: str | None
    ) -> None:
        self.name = name
        self.features = features
        self.feature_names = features.names
        self.n_features = len(features.names)
        self.n_rows = int(np.prod(features.grid))
        self.dtype = features.dtype
        self.coordinates: xarray.Dataset | None = dataset.drop_vars(list(dataset.data_vars))
        self._variables = [dataset[part.variable].variable for part in features.parts]
        # xarray has no public way to tell a lazy array on disk from one in memory.
        self.local = all(variable._in_memory for variable in self._variables)
        self.reads_ahead = not self.local
        self._fingerprint = fingerprint
        self.identified = self.local or fingerprint is not None
        cell_bytes = self.n_features * self.dtype.itemsize
        self.boxes = Boxes.of_chunks(features.grid, self._chunks(), cell_bytes, BOX_BYTES)
        self.bounds = self.boxes.bounds

    @property
    def read_bytes(self) -> int:
        stored = sum(int(np.prod(part.shape)) * int(v.dtype.itemsize) for part, v in self._parts())
        # What is read, its decoded copy, and the rows.
        return int(np.diff(self.bounds).max()) * (2 * stored + self.n_features * self.dtype.itemsize)

    def _parts(self) -> list[tuple[Any, Any]]:
        return list(zip(self.features.parts, self._variables, strict=True))

    def _chunks(self) -> list[int]:
        """Cells that are read at one go along each sample dimension."""
        lengths: list[list[int]] = [[1] for _ in self.features.sample_dims]
        for variable in self._variables:
            for dim, chunk in self._stored_chunks(variable).items():
                if dim in self.features.sample_dims:
                    lengths[self.features.sample_dims.index(dim)].append(max(1, int(chunk)))
        joined = [(int(np.lcm.reduce(given)), max(given)) for given in lengths]
        return [lcm if lcm <= _MOST_JOINED * largest else largest for lcm, largest in joined]

    def _stored_chunks(self, variable: Any) -> dict[str, int]:
        return {str(dim): n for dim, n in variable.encoding.get("preferred_chunks", {}).items()}

    def fingerprint(self) -> str:
        """SHA-256 of what is stored and of which of it are the features; of the values where they are in memory.

        Where neither tells (variables that a user opened lazily, tasks of a Dask graph) it is of the layout, and
        the engine adds a hash of the contents once it has seen them.
        """
        if self._fingerprint is None and self.local:
            digest = hashlib.sha256()
            for variable in self._variables:
                digest.update(np.ascontiguousarray(variable.values).data)
            self._fingerprint = digest.hexdigest()
        f = self.features
        layout = [f.sample_dims, f.grid, f.feature_dims, f.names, [p.dims for p in f.parts], str(f.dtype)]
        return hashlib.sha256(json.dumps([layout, self.boxes.steps, self._fingerprint]).encode()).hexdigest()

    def check_unchanged(self) -> None:
        """List what is stored again, and compare."""
        for part in self.stored.values():
            part.check()

    def read(self, start: int, stop: int) -> Rows:
        """Rows at positions ``start:stop``, which lie in one box."""
        number = self.boxes.at(start)
        first = int(self.boxes.bounds[number])
        return self._rows(self.boxes[number])[start - first : stop - first]

    def _rows(self, box: Box) -> Rows:
        return self.features.rows(box, [self._read(part, variable, box) for part, variable in self._parts()])

    def _read(self, part: Any, variable: Any, box: Box) -> NDArray[Any]:
        cut = variable.isel(self.features.of_part(part, box))
        try:
            values: NDArray[Any] = cut.values
        except Exception as error:
            from dgmm.data.zarr_damage import is_decoding, undecodable
            from dgmm.data.zarr_listing import Listing

            stored = self.stored.get(part.variable)
            if not isinstance(stored, Listing) or not is_decoding(error):
                raise
            region = dict.fromkeys(variable.dims, slice(None)) | self.features.of_part(part, box)
            raise undecodable(stored.array, list(region.values()), stored.name, error) from error
        return values

    def box(self, first: int) -> Box:
        """The box of the block that begins at position `first`."""
        return self.boxes[self.boxes.at(first)]

    def locate(self, row: int, feature: int) -> str:
        """Name a value by its variable and the coordinates of its cell."""
        at = np.unravel_index(row, self.features.grid)
        where = []
        for dim, index in zip(self.features.sample_dims, at, strict=True):
            known = self.coordinates is not None and dim in self.coordinates.coords
            value = self.coordinates[dim].values[index] if known and self.coordinates is not None else int(index)
            where.append(f"{dim}={value}" if known else f"{dim} {value}")
        return f"{self.features.names[feature]} at {', '.join(where)} of {self.name}"

    def rows(self, bounds: NDArray[np.integer[Any]]) -> Self:
        """Give a part of the blocks; boxes cannot be cut."""
        other = super().rows(bounds)
        first = self.boxes.at(int(bounds[0]))
        if not np.array_equal(bounds, self.boxes.bounds[first : first + len(bounds)]):
            msg = f"bounds {bounds[0]}..{bounds[-1]} are not boxes of {self.name}"
            raise ValueError(msg)
        return other

    def column(self, weights: Any) -> GridSource:
        """Sample weights in this grid's boxes.

        Parameters
        ----------
        weights : GridSource, xarray.DataArray, xarray.Dataset of one variable, or array
            On some of the sample dimensions (an area for each latitude, say); or one for each cell, as an array of
            the grid's shape or in C order.

        Raises
        ------
        InvalidWeights
            Other dimensions, extents or coordinates.
        """
        found = (
            weights
            if isinstance(weights, GridSource)
            else grid_source(on_grid(weights, self), None, (), "sample_weight")
        )
        refuse_another_grid(self, found)
        return found._broadcast(self)

    def _broadcast(self, source: GridSource) -> Self:
        """The same variable on the grid, and in the boxes, of another source."""
        other, f = copy.copy(self), source.features
        other.features = replace(self.features, sample_dims=f.sample_dims, grid=f.grid)
        other.n_rows, other.missing = source.n_rows, "error"
        other.boxes, other.bounds = source.boxes, source.bounds
        return other

    def block_input(self, first: int, last: int) -> BlockInput:
        """What a leaf task receives: without the coordinates, which may be many and are of no use there."""
        part = self.rows(self.bounds[first : last + 1])
        part.coordinates = None
        return StoredBlocks(part)


class DaskGrid(GridSource):
    """Cells of variables that are tasks of a Dask graph; computed by the engine's own."""

    delayed = True

    def __init__(
        self, dataset: xarray.Dataset, features: GridFeatures, name: str, fingerprint: str | None
    ) -> None:
        super().__init__(dataset, features, name, fingerprint)
        self.local = self.reads_ahead = False
        self.identified = fingerprint is not None
        names = [getattr(variable.data, "name", "") for variable in self._variables]
        self._fingerprint = fingerprint or hashlib.sha256(json.dumps(names).encode()).hexdigest()
        self._pieces: list[Any] | None = None

    def _stored_chunks(self, variable: Any) -> dict[str, int]:
        return {str(dim): max(lengths) for dim, lengths in variable.chunksizes.items()}

    def block_input(self, first: int, last: int) -> BlockInput:
        """A list that starts with the promised shapes and goes on with the boxes' rows, as delayed tasks."""
        if self._pieces is None:
            self._pieces = [self._cut(part, variable) for part, variable in self._parts()]
        begin = self.boxes.at(int(self.bounds[first]))
        boxes = [self.boxes[number] for number in range(begin, begin + last - first)]
        promise = ComputedBlocks(
            self.name, self.bounds[first : last + 1], self.n_features, self.dtype, self.missing, list(boxes)
        )
        return [promise, *(self._delayed_rows(box) for box in boxes)]

    def _cut(self, part: Any, variable: Any) -> Any:
        """Delayed pieces of a variable, one for each box, along the sample dimensions it has."""
        from dask.array import asarray

        steps = dict(zip(self.features.sample_dims, self.boxes.steps, strict=True))
        return asarray(variable.data).rechunk([steps.get(dim, -1) for dim in part.dims]).to_delayed()

    def _delayed_rows(self, box: Box) -> Any:
        from dask.delayed import delayed

        number = {
            dim: start // step
            for dim, start, step in zip(self.features.sample_dims, box.start, self.boxes.steps, strict=True)
        }
        assert self._pieces is not None  # noqa: S101  block_input has cut them
        pieces = [
            cut[tuple(number.get(dim, 0) for dim in part.dims)]
            for part, cut in zip(self.features.parts, self._pieces, strict=True)
        ]
        return delayed(_assembled, pure=False)(self.features, box, *pieces)

    def _broadcast(self, source: GridSource) -> Self:
        other = super()._broadcast(source)
        other._pieces = None
        return other


def _assembled(features: GridFeatures, box: Box, *pieces: NDArray[Any]) -> Rows:
    return features.rows(box, [np.asarray(piece) for piece in pieces])
