"""From a Zarr group or a NetCDF file to the dataset in it, and a fingerprint of what is stored."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Hashable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import zarr

from dgmm.data import zarr_chunks
from dgmm.data.files import StoredFile
from dgmm.data.grid import GridSource, grid_source
from dgmm.data.grid_features import chosen
from dgmm.data.zarr_checksum import checksum
from dgmm.data.zarr_listing import Listing
from dgmm.errors import InvalidData, InvalidParameter, MissingChunks, MissingExtra, StoreError

if TYPE_CHECKING:
    import xarray

# What xarray decodes values by (CF conventions 1.12, sections 2.5.1 and 8.1).
_DECODING = ("scale_factor", "add_offset", "_FillValue", "missing_value", "_Unsigned", "dtype")


def has_dimensions(group: zarr.Group) -> bool:
    """Whether some array of a group names its dimensions, as xarray writes them."""
    try:
        return any(_dimensions(array) for _, array in group.arrays())
    except ValueError:  # of a web server, which lists nothing
        return False


def open_group(
    group: zarr.Group,
    variables: Sequence[str] | None,
    feature_dims: Sequence[str],
    missing_chunks: Literal["error", "fill"],
    name: str,
) -> GridSource:
    """Describe the variables of a Zarr group as rows, decoded by the CF conventions.

    Chunks that are not stored are read as missing values where the fill value means that; otherwise they are an
    error, unless ``missing_chunks="fill"``.

    Raises
    ------
    MissingChunks
    InvalidData
        xarray cannot read the group.
    InvalidParameter, ShapeMismatch, UnsupportedDtype
        See `grid_source`.
    """
    consolidated = group.metadata.consolidated_metadata is not None
    found = _open(group.store, name, engine="zarr", group=group.path or None, consolidated=consolidated)
    # A store lists its arrays in any order, another one each time.
    dataset = chosen(found[sorted(found.data_vars, key=str)], variables, name)
    digest = hashlib.sha256()
    listings, checksums = {}, []
    for key, variable in dataset.data_vars.items():
        array = group[str(key)]
        assert isinstance(array, zarr.Array)  # noqa: S101  a variable of the dataset
        stored = zarr_chunks.list_chunks(array)
        if missing_chunks == "error" and not _fill_is_missing(array, variable.encoding):
            _refuse_missing(array, stored, f"{name.rstrip('/')}/{key}")
        listings[str(key)] = Listing(array, stored, f"{name.rstrip('/')}/{key}")
        checksums.append(checksum(array))
        attributes = {entry: array.attrs[entry] for entry in _DECODING if entry in array.attrs}
        digest.update(zarr_chunks.fingerprint(array, stored).encode())
        digest.update(json.dumps(attributes, sort_keys=True, default=str).encode())
    source = grid_source(dataset, variables, feature_dims, name, digest.hexdigest())
    source.stored = listings
    source.checksum = ", ".join(sorted({found for found in checksums if found})) if all(checksums) else None
    return source


def open_netcdf(path: Path, variables: Sequence[str] | None, feature_dims: Sequence[str], name: str) -> GridSource:
    """Describe the variables of a NetCDF file as rows; its fingerprint is size and mtime.

    Raises
    ------
    InvalidData
        xarray cannot read the file.
    InvalidParameter, ShapeMismatch, UnsupportedDtype
        See `grid_source`.
    """
    status = path.stat()
    fingerprint = hashlib.sha256(f"{status.st_size} {status.st_mtime_ns}".encode()).hexdigest()
    source = grid_source(_open(path.absolute(), name), variables, feature_dims, name, fingerprint)
    source.stored = {"": StoredFile.at(path)}
    return source


def open_xarray(
    data: Any, variables: Sequence[str] | None, feature_dims: Sequence[str] | None, name: str | None
) -> GridSource:
    """Describe the cells of an xarray Dataset or DataArray as rows.

    Raises
    ------
    InvalidData
        Another object of xarray.
    InvalidParameter
        Which dimensions of a DataArray are features is not said; or see `grid_source`.
    ShapeMismatch, UnsupportedDtype
        See `grid_source`.
    """
    from xarray import DataArray, Dataset

    if isinstance(data, Dataset):
        return grid_source(data, variables, feature_dims or (), name or "dataset")
    if not isinstance(data, DataArray):
        msg = f"Found a {type(data).__module__}.{type(data).__name__}; expected an xarray Dataset or DataArray."
        raise InvalidData(msg)
    name = name or str(data.name or "array")
    if feature_dims is None:
        dims = ", ".join(map(str, data.dims))
        msg = (
            f"{name} is a DataArray with the dimensions {dims}; say which of them are features: "
            "open_source(array, feature_dims='depth'), or feature_dims=() where each value is a row."
        )
        raise InvalidParameter(msg)
    return grid_source(data.to_dataset(name=str(data.name or "value")), variables, feature_dims, name)


def _open(store: Any, name: str, **options: Any) -> xarray.Dataset:
    try:
        import xarray
    except ImportError as error:
        msg = f"{name} is a grid, which needs xarray. Install it with: pip install 'dgmm[xarray]'"
        raise MissingExtra(msg) from error
    try:
        # Not cached: each pass reads each chunk anew.
        return xarray.open_dataset(store, chunks=None, cache=False, decode_timedelta=False, **options)
    except StoreError:
        raise
    except (ValueError, KeyError, TypeError, OSError) as error:
        msg = f"xarray cannot read {name}: {error}. Restore it, or install the package that reads its format."
        raise InvalidData(msg) from error


def _dimensions(array: zarr.Array[Any]) -> Any:
    return getattr(array.metadata, "dimension_names", None) or array.attrs.get("_ARRAY_DIMENSIONS")


def _fill_is_missing(array: zarr.Array[Any], encoding: Mapping[Hashable, Any]) -> bool:
    """Whether xarray reads a chunk that is not stored as missing values."""
    fill = np.asarray(array.fill_value)
    if fill.dtype.kind == "f" and np.isnan(fill):
        return True
    marks = [encoding[key] for key in ("_FillValue", "missing_value") if encoding.get(key) is not None]
    return any(np.any(fill == np.asarray(mark)) for mark in marks)


def _refuse_missing(array: zarr.Array[Any], stored: dict[str, zarr_chunks.Chunk], name: str) -> None:
    missing = zarr_chunks.missing_chunks(array, stored)
    if missing is not None:
        msg = (
            f"{missing.count} of {missing.total} chunks of {name} are not stored (first: {missing.first}), and "
            f"their fill value {array.fill_value} does not stand for missing values (_FillValue). Write them, "
            "or pass missing_chunks='fill' (--missing-chunks fill) to accept the fill value."
        )
        raise MissingChunks(msg)
