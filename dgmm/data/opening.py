"""From whatever users have to a `Source`: arrays, addresses, grids."""

from __future__ import annotations

import copy
import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dgmm.data.address import plain
from dgmm.data.formats import kind_at, open_files
from dgmm.data.reading import MissingChunks, Reading
from dgmm.data.source import Missing, Source
from dgmm.errors import InvalidData, InvalidParameter, InvalidWeights

if TYPE_CHECKING:
    import zarr


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
    data : array-like, table, zarr.Array, str, path, Dask array or data frame, xarray object or Source
        Rows x features. A str or path is an address: of a Zarr array or group (format 2 or 3) in a folder or a
        ``.zip`` file, of a Parquet file, a folder of them or a pattern, of an HDF5 dataset
        (``file.h5/group/name``), of a NumPy file, or of a NetCDF file. It may be a URL (``s3://``, ``gs://``,
        ``az://``, ``http(s)://``; for Zarr also one of fsspec's). A table is a data frame of pandas or polars, or
        an Arrow table. Dask chunks and partitions of unknown lengths are computed once to measure them.
    variables : str or sequence of str, optional
        Of a table: the columns that are the features, in this order. Of a grid (xarray, a Zarr group, NetCDF):
        the data variables whose values are. Default: all; of a grid, where they have the same dimensions.
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
        `MissingChunks`, `NonFiniteData`; or nothing that dgmm can read.
    InvalidParameter
        There is no such variable or dimension, or an option has another value than those above.
    MissingExtra
        An optional package is not installed.

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
    reading = _reading(variables, feature_dims, missing, missing_chunks, name)
    return _with_missing(_opened(data, reading), missing)


def open_convertible(
    address: str,
    *,
    variables: str | Sequence[str] | None = None,
    feature_dims: str | Sequence[str] | None = None,
    missing: Missing | None = None,
    missing_chunks: MissingChunks = "error",
) -> Source:
    """Describe data that are read once: what `open_source` takes, and tables of text (CSV) too."""
    reading = _reading(variables, feature_dims, missing, missing_chunks, None)
    return _with_missing(_opened(address, replace(reading, text=True)), missing)


def _reading(
    variables: str | Sequence[str] | None,
    feature_dims: str | Sequence[str] | None,
    missing: Missing | None,
    missing_chunks: MissingChunks,
    name: str | None,
) -> Reading:
    if missing not in (None, "error", "drop"):
        msg = f"missing is {missing!r}; expected 'error' or 'drop'."
        raise InvalidParameter(msg)
    if missing_chunks not in ("error", "fill"):
        msg = f"missing_chunks is {missing_chunks!r}; expected 'error' or 'fill'."
        raise InvalidParameter(msg)
    return Reading(_several(variables, "variables"), _several(feature_dims, "feature_dims"), missing_chunks, name)


def _opened(data: object, reading: Reading) -> Source:
    if isinstance(data, Source):
        if reading.told():
            msg = f"{data.name} is open already: pass {', '.join(reading.told())} where it is opened."
            raise InvalidParameter(msg)
        return data
    source = _open(data, reading)
    source.address = _address(data)
    source.opened_with = reading.told()
    return source


def _with_missing(source: Source, missing: Missing | None) -> Source:
    if missing is None:
        return source
    source = copy.copy(source)
    source.missing = missing
    source.opened_with = {**source.opened_with, "missing": missing}
    return source


def _address(data: object) -> str:
    return os.fspath(data) if isinstance(data, str | os.PathLike) else ""


def _several(names: str | Sequence[str] | None, option: str) -> tuple[str, ...] | None:
    if names is None:
        return None
    several = (names,) if isinstance(names, str) else tuple(names)
    if not all(isinstance(name, str) for name in several) or (option == "variables" and not several):
        msg = f"{option} is {names!r}; expected a name, or several of them."
        raise InvalidParameter(msg)
    if repeated := [name for i, name in enumerate(several) if name in several[:i]]:
        msg = f"{option} names {repeated[0]!r} twice: name each once."
        raise InvalidParameter(msg)
    return several


def open_weights(weights: object, source: Source, *, missing_chunks: MissingChunks = "error") -> Source:
    """Describe sample weights as a source of one feature with the data's blocks.

    Parameters
    ----------
    weights : array-like, zarr.Array, str, path, dask.array.Array or Source
        One weight a row: shape (n_rows,) or (n_rows, 1), in any chunking. A str is the name of a column of the
        data where they are a stored table that has one of that name, else an address (``./w`` is one in any case).
        Of a grid: one a cell, or an xarray.DataArray (the address of a Zarr group of one variable) on some of its
        sample dimensions.
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
        on_grid = source.column(_opened_node(weights, reading))
        on_grid.address = _address(weights)
        return on_grid
    if isinstance(weights, str) and weights in source.feature_names:
        msg = (
            f"{weights!r} is a feature of {source.name}, and cannot be the sample weights too: choose the other "
            f"columns as features with variables=[...] (--variables a,b). Should it be a file, write ./{weights}."
        )
        raise InvalidWeights(msg)
    column = source.sibling(weights) if isinstance(weights, str) else None
    found = weights if isinstance(weights, Source) else column or _open(weights, reading)
    found.address = found.address or _address(weights)
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
        from dgmm.data.grid_address import open_xarray

        return open_xarray(data, reading.variables, reading.feature_dims, reading.name)
    if data is None:
        msg = "Found None; expected rows x features: an array, a table, a grid, a Dask collection or an address."
        raise InvalidData(msg)
    if hasattr(data, "__dask_graph__"):
        return _of_dask(data, reading)
    from dgmm.data.frames import is_frame, open_frame
    from dgmm.data.numpy_array import NumpySource

    if is_frame(data):
        name = reading.name or "data frame"
        reading.refuse_dims(name)
        return open_frame(data, reading.variables, name)
    name = reading.name or "array"
    reading.refuse_choice(name)
    return NumpySource(data, name=name, column=reading.column)


def _of_dask(data: Any, reading: Reading) -> Source:
    from dask.array import Array

    if isinstance(data, Array):
        from dgmm.data.dask_array import DaskSource

        name = reading.name or "dask array"
        reading.refuse_choice(name)
        return DaskSource(data, name=name, column=reading.column)
    from dgmm.data.dask_frame import open_dask_frame

    name = reading.name or "dask data frame"
    reading.refuse_dims(name)
    return open_dask_frame(data, reading.variables, name, column=reading.column)


def _of_address(address: str, reading: Reading) -> Source:
    reading = replace(reading, name=reading.name or address)
    if address.endswith(".nc") and Path(address).is_file():
        from dgmm.data.grid_address import open_netcdf

        return open_netcdf(Path(address), reading.variables, reading.feature_dims or (), address)
    if (kind := kind_at(address)) is not None:
        return open_files(kind, address, reading)
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
    from dgmm.data.written import open_rows, rows_within
    from dgmm.data.zarr_address import describe_group

    if (rows := rows_within(node)) is not None:
        return open_rows(node, rows, reading, name)
    if not has_dimensions(node):
        raise describe_group(node, name)
    return open_group(node, reading.variables, reading.feature_dims or (), reading.missing_chunks, name)
