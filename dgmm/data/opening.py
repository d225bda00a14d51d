"""From whatever users have to a `Source`: arrays, addresses, grids."""

from __future__ import annotations

import copy
import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from dgmm.data.address import plain
from dgmm.data.source import Missing, Source
from dgmm.errors import InvalidData, InvalidParameter, InvalidWeights

if TYPE_CHECKING:
    import zarr

MissingChunks = Literal["error", "fill"]


@dataclass(frozen=True)
class Reading:
    """How data are read, whatever they are.

    Attributes
    ----------
    variables : tuple of str or None
        Those whose values are features; None is all.
    feature_dims : tuple of str or None
    missing_chunks : {"error", "fill"}
    name : str or None
        How messages call the data.
    column : bool
        One dimension is one feature: sample weights.
    """

    variables: tuple[str, ...] | None = None
    feature_dims: tuple[str, ...] | None = None
    missing_chunks: MissingChunks = "error"
    name: str | None = None
    column: bool = False

    def refuse_choice(self, name: str) -> None:
        """Refuse names of variables or dimensions for data that have none."""
        if self.variables is not None or self.feature_dims:
            msg = (
                f"{name} has neither variables nor dimensions to choose from. Leave variables and feature_dims "
                "out, or name the Zarr group that holds the variables."
            )
            raise InvalidParameter(msg)


def open_source(
    data: object,
    *,
    variables: str | Sequence[str] | None = None,
    feature_dims: str | Sequence[str] | None = None,
    missing: Missing | None = None,
    missing_chunks: MissingChunks = "error",
    name: str | None = None,
) -> Source:
    """Describe data as rows in blocks; no row is read yet.

    Parameters
    ----------
    data : array-like, zarr.Array, str, path, dask.array.Array, xarray.Dataset, xarray.DataArray or Source
        Rows x features. A str or path is an address: of a Zarr array or group (format 2 or 3) in a folder, a
        ``.zip`` file or at a URL (``s3://``, ``gs://``, ``az://``, ``http(s)://`` or one of fsspec's), or of a
        NetCDF file. A Dask array of unknown chunk lengths is computed once to measure them.
    variables : str or sequence of str, optional
        Of a grid (xarray, a Zarr group, NetCDF): the data variables whose values are the features, in this order.
        Default: all, where they have the same dimensions.
    feature_dims : str or sequence of str
        Of a grid: dimensions along which each value is a feature, such as ``depth``. Every other dimension is of
        samples, and a row is a cell of those, in C order. Default: none, so that variables are the features; a
        DataArray has but one, and needs them said.
    missing : {"error", "drop"}, optional
        What becomes of rows with a missing value (NaN): the first is an error, or they are left out of a fit
        and have no results. Default: "error"; for a grid "drop".
    missing_chunks : {"error", "fill"}
        What to make of chunks that a Zarr array does not store.
    name : str, optional
        How messages call the data; by default the address, or "array".

    Returns
    -------
    Source

    Raises
    ------
    SourceNotFound
        There is nothing at the address.
    StoreError
        The object store refuses, or does not answer.
    InvalidData
        Not rows x features of real numbers: its subclasses `ShapeMismatch`, `UnsupportedDtype`,
        `MissingChunks`, `NonFiniteData`; or not Zarr at all.
    InvalidParameter
        There is no such variable or dimension, or an option has another value than those above.
    MissingExtra
        xarray is not installed.

    Examples
    --------
    >>> import numpy as np
    >>> import xarray
    >>> from dgmm import open_source
    >>> levels = xarray.DataArray(np.zeros((5, 3, 4)), dims=("depth", "lat", "lon"), name="temp")
    >>> profiles = open_source(levels, feature_dims="depth")
    >>> profiles.n_rows, profiles.feature_names
    (12, ('temp[depth=0]', 'temp[depth=1]', 'temp[depth=2]', 'temp[depth=3]', 'temp[depth=4]'))
    """
    if missing not in (None, "error", "drop"):
        msg = f"missing is {missing!r}; expected 'error' or 'drop'."
        raise InvalidParameter(msg)
    if missing_chunks not in ("error", "fill"):
        msg = f"missing_chunks is {missing_chunks!r}; expected 'error' or 'fill'."
        raise InvalidParameter(msg)
    if isinstance(data, Source):
        source = data
    else:
        source = _open(data, Reading(_several(variables), _several(feature_dims), missing_chunks, name))
    if missing is None or missing == source.missing:
        return source
    source = copy.copy(source)
    source.missing = missing
    return source


def _several(names: str | Sequence[str] | None) -> tuple[str, ...] | None:
    return (names,) if isinstance(names, str) else None if names is None else tuple(names)


def open_weights(weights: object, source: Source, *, missing_chunks: MissingChunks = "error") -> Source:
    """Describe sample weights as a source of one feature with the data's blocks.

    Parameters
    ----------
    weights : array-like, zarr.Array, str, path, dask.array.Array or Source
        One weight a row: shape (n_rows,) or (n_rows, 1), in any chunking. Of a grid: one a cell, or an
        xarray.DataArray (the address of a Zarr group of one variable) on some of its sample dimensions.
    source : Source
        The data.
    missing_chunks : {"error", "fill"}
        What to make of chunks that a Zarr array does not store.

    Raises
    ------
    InvalidWeights
        Not one weight a row.
    """
    from dgmm.data.grid import GridSource

    reading = Reading(missing_chunks=missing_chunks, name=_weights_name(weights), column=True)
    if isinstance(source, GridSource):
        return source.column(_opened_node(weights, reading))
    found = weights if isinstance(weights, Source) else _open(weights, reading)
    if (found.n_rows, found.n_features) != (source.n_rows, 1):
        shape = f"{found.n_rows} x {found.n_features}" if found.n_features > 1 else f"{found.n_rows}"
        msg = f"Found {shape} sample weights in {found.name} for {source.n_rows} rows; expected one weight a row."
        raise InvalidWeights(msg)
    return found.rows(source.bounds)


def _weights_name(weights: object) -> str | None:
    return None if isinstance(weights, str | os.PathLike) or hasattr(weights, "store_path") else "sample_weight"


def _opened_node(weights: object, reading: Reading) -> Any:
    """Weights of a grid: what is at an address, the variables of a group, or as they were given."""
    if isinstance(weights, str | os.PathLike):
        from dgmm.data.zarr_address import open_address

        address = plain(weights)
        weights, reading = open_address(address), replace(reading, name=address)
    if not type(weights).__module__.startswith("zarr."):
        return weights
    import zarr

    if isinstance(weights, zarr.Group):
        return _of_zarr(weights, reading)
    import dask.array as da

    return da.from_zarr(weights)


def _open(data: object, reading: Reading) -> Source:
    # Each kind is imported where it is met: NumPy data need neither Zarr nor Dask.
    module = type(data).__module__
    if isinstance(data, str | os.PathLike):
        return _of_address(plain(data), reading)
    if module.startswith("zarr."):
        import zarr

        if isinstance(data, zarr.Array | zarr.Group):
            return _of_zarr(data, reading)
    if module.startswith("xarray."):
        return _of_xarray(data, reading)
    if data is None:
        msg = "Found None; expected rows x features: an array, a Zarr array or the path of one, a Dask array."
        raise InvalidData(msg)
    if hasattr(data, "__dask_graph__"):
        from dgmm.data.dask_array import DaskSource

        name = reading.name or "dask array"
        reading.refuse_choice(name)
        return DaskSource(data, name=name, column=reading.column)
    from dgmm.data.numpy_array import NumpySource

    name = reading.name or "array"
    reading.refuse_choice(name)
    return NumpySource(data, name=name, column=reading.column)


def _of_address(address: str, reading: Reading) -> Source:
    reading = replace(reading, name=reading.name or address)
    if address.endswith(".nc") and Path(address).is_file():
        from dgmm.data.grid_address import open_netcdf

        return open_netcdf(Path(address), reading.variables, reading.feature_dims or (), address)
    from dgmm.data.zarr_address import open_address

    return _of_zarr(open_address(address), reading)


def _of_zarr(node: zarr.Array[Any] | zarr.Group, reading: Reading) -> Source:
    import zarr

    name = reading.name or str(node.store_path).removeprefix("file://")
    if isinstance(node, zarr.Array):
        from dgmm.data.zarr_array import ZarrSource

        reading.refuse_choice(name)
        return ZarrSource(node, name=name, missing_chunks=reading.missing_chunks, column=reading.column)
    from dgmm.data.grid_address import has_dimensions, open_group
    from dgmm.data.zarr_address import describe_group

    if not has_dimensions(node):
        raise describe_group(node, name)
    return open_group(node, reading.variables, reading.feature_dims or (), reading.missing_chunks, name)


def _of_xarray(data: Any, reading: Reading) -> Source:
    from xarray import DataArray, Dataset

    from dgmm.data.grid import grid_source

    name = reading.name or "dataset"
    if isinstance(data, DataArray):
        name = reading.name or str(data.name or "array")
        if reading.feature_dims is None:
            dims = ", ".join(map(str, data.dims))
            msg = (
                f"{name} is a DataArray with the dimensions {dims}; say which of them are features: "
                "open_source(array, feature_dims='depth'), or feature_dims=() where each value is a row."
            )
            raise InvalidParameter(msg)
        data = data.to_dataset(name=str(data.name or "value"))
    elif not isinstance(data, Dataset):
        msg = f"Found a {type(data).__module__}.{type(data).__name__}; expected an xarray Dataset or DataArray."
        raise InvalidData(msg)
    return grid_source(data, reading.variables, reading.feature_dims or (), name)
