"""Which variables, and which of their dimensions, are the features of a grid; the others are of samples."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from dgmm.data.boxes import Box
from dgmm.data.columns import choices, listed
from dgmm.data.rows import Rows, block_dtype
from dgmm.errors import InvalidData, InvalidParameter, ShapeMismatch

if TYPE_CHECKING:
    import xarray


@dataclass(frozen=True)
class Part:
    """The features that one variable gives.

    Attributes
    ----------
    variable : str
    dims : tuple of str
        Its dimensions, as they are stored.
    shape : tuple of int
        Extents of its feature dimensions, in the order of `GridFeatures.feature_dims`.
    first : int
        Number of its first feature; they are in C order of its feature dimensions.
    """

    variable: str
    dims: tuple[str, ...]
    shape: tuple[int, ...]
    first: int


@dataclass(frozen=True)
class GridFeatures:
    """How variables on a grid become rows x features.

    Attributes
    ----------
    sample_dims, feature_dims : tuple of str
    grid : tuple of int
        Extents of the sample dimensions.
    parts : tuple of Part
    names : tuple of str
        Of the features, such as ``ssh`` or ``temp[depth=5]``.
    dtype : dtype
        Of the rows.
    """

    sample_dims: tuple[str, ...]
    feature_dims: tuple[str, ...]
    grid: tuple[int, ...]
    parts: tuple[Part, ...]
    names: tuple[str, ...]
    dtype: np.dtype[Any]

    @classmethod
    def of(cls, dataset: xarray.Dataset, feature_dims: Sequence[str], name: str) -> GridFeatures:
        """Of all data variables of a dataset.

        Raises
        ------
        ShapeMismatch
            No dimension is left for samples, or some extent is 0.
        InvalidParameter
            There is no such dimension.
        UnsupportedDtype
            A variable does not hold real numbers.
        """
        variables = dataset.data_vars
        for dim in feature_dims:
            if not any(dim in variable.dims for variable in variables.values()):
                msg = f"no variable of {name} has a dimension {dim!r}{choices(dim, map(str, dataset.sizes))}"
                raise InvalidParameter(msg)
        # The variable of most dimensions knows their order best.
        fullest = sorted(variables.values(), key=lambda v: -len(v.dims))
        dims = dict.fromkeys(str(dim) for variable in fullest for dim in variable.dims)
        sample_dims = tuple(dim for dim in dims if dim not in feature_dims)
        grid = tuple(int(dataset.sizes[dim]) for dim in sample_dims)
        if not sample_dims or 0 in grid:
            found = ", ".join(f"{dim}: {n}" for dim, n in dataset.sizes.items())
            msg = f"{name} has no cells: its dimensions are {found or 'none'}, of which the features take "
            raise ShapeMismatch(msg + (", ".join(feature_dims) or "none"))
        parts: list[Part] = []
        names: list[str] = []
        for key, variable in variables.items():
            own = [dim for dim in feature_dims if dim in variable.dims]
            shape = tuple(int(dataset.sizes[dim]) for dim in own)
            parts.append(Part(str(key), tuple(map(str, variable.dims)), shape, len(names)))
            names += _feature_names(dataset, str(key), own)
        dtypes = {block_dtype(v.dtype, f"variable {key} of {name}") for key, v in variables.items()}
        dtype = np.dtype(np.float32 if dtypes == {np.dtype(np.float32)} else np.float64)
        return cls(sample_dims, tuple(feature_dims), grid, tuple(parts), tuple(names), dtype)

    def of_part(self, part: Part, box: Box) -> dict[str, slice]:
        """What a box is of a variable, by dimension."""
        return {dim: cut for dim, cut in zip(self.sample_dims, box.slices, strict=True) if dim in part.dims}

    def rows(self, box: Box, arrays: Sequence[NDArray[Any]]) -> Rows:
        """Rows (cells, D), in Fortran order, of a box, given what it is of each variable."""
        columns = np.empty((len(self.names), int(np.prod(box.shape))), self.dtype)
        for part, values in zip(self.parts, arrays, strict=True):
            own = [dim for dim in self.feature_dims if dim in part.dims]
            order = own + [dim for dim in self.sample_dims if dim in part.dims]
            cells = tuple(n if dim in part.dims else 1 for dim, n in zip(self.sample_dims, box.shape, strict=True))
            ordered = values.transpose([part.dims.index(dim) for dim in order]).reshape(*part.shape, *cells)
            of_part = columns[part.first : part.first + int(np.prod(part.shape))]
            of_part.reshape(*part.shape, *box.shape)[...] = ordered
        return columns.T


def chosen(dataset: xarray.Dataset, variables: Sequence[str] | None, name: str) -> xarray.Dataset:
    """A dataset of the chosen data variables, in that order, with its coordinates.

    Raises
    ------
    InvalidParameter
        There is no such variable.
    InvalidData
        None is chosen, and those that there are have different dimensions.
    """
    available = list(map(str, dataset.data_vars))
    if variables is not None:
        for variable in variables:
            if variable not in dataset.variables:
                msg = f"{name} has no variable {variable!r}{choices(variable, available)}"
                raise InvalidParameter(msg)
            if variable not in dataset.data_vars:
                msg = f"{variable!r} is a coordinate of {name}, not a data variable{choices(variable, available)}"
                raise InvalidParameter(msg)
        return dataset[list(variables)]
    if not available:
        msg = f"{name} has no data variables."
        raise InvalidData(msg)
    if len({frozenset(variable.dims) for variable in dataset.data_vars.values()}) > 1:
        found = listed([f"{key}({', '.join(map(str, v.dims))})" for key, v in dataset.data_vars.items()])
        msg = (
            f"{name} has variables of different dimensions: {found}. Choose those that are features with "
            "variables=[...] (--variables a,b)."
        )
        raise InvalidData(msg)
    return dataset


def _feature_names(dataset: xarray.Dataset, variable: str, dims: Sequence[str]) -> list[str]:
    labels = [[f"{dim}={_label(dataset, dim, i)}" for i in range(dataset.sizes[dim])] for dim in dims]
    return [variable + (f"[{','.join(at)}]" if at else "") for at in product(*labels)]


def _label(dataset: xarray.Dataset, dim: str, index: int) -> str:
    if dim not in dataset.coords:
        return str(index)
    value = dataset[dim].values[index]
    return f"{value:g}" if isinstance(value, np.floating) else str(value)
