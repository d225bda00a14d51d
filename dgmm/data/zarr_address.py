"""From an address to the Zarr array that is there, or to an error that says what is there instead."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import zarr
from zarr.abc.store import Store
from zarr.errors import NodeNotFoundError
from zarr.storage import LocalStore, ZipStore

from dgmm.data.address import Address, is_url, kind_of, plain
from dgmm.data.store import is_object, list_objects, only_serves
from dgmm.data.zarr_store import UrlStore
from dgmm.errors import InvalidData, SourceNotFound

METADATA_NAMES = ("zarr.json", ".zarray", ".zgroup")
SHOWN = 10


def open_address(address: Address) -> zarr.Array[Any] | zarr.Group:
    """Open the Zarr array or group at a path or URL for reading.

    Parameters
    ----------
    address : str or path
        A folder (also inside a group: ``data.zarr/X``), a ``.zip`` file, the URL of an object store (``s3://``,
        ``gs://``, ``az://``, ``http(s)://``), or another URL that fsspec understands.

    Raises
    ------
    SourceNotFound
        There is nothing.
    InvalidData
        There is something that is not Zarr.
    StoreError
        The object store refuses, or does not answer.
    """
    address = plain(address)
    store: Store | str
    if kind_of(address):
        store = UrlStore(address, read_only=True)
    else:
        store = address if is_url(address) else _local_store(Path(address).absolute(), address)
    try:
        node = zarr.open(store, mode="r")
    except NodeNotFoundError as error:
        raise SourceNotFound(_found_instead(address)) from error
    except FileNotFoundError as error:
        msg = f"There is nothing at {address}: {error}."
        raise SourceNotFound(msg) from error
    except ImportError as error:
        msg = f"{address} needs another package: {error}. Install it and try again."
        raise InvalidData(msg) from error
    except (ValueError, KeyError, TypeError) as error:
        msg = f"The Zarr metadata of {address} cannot be read: {error}. Restore or rewrite the array."
        raise InvalidData(msg) from error
    return node


def is_zarr(address: Address) -> bool:
    """Whether there are Zarr metadata at an address; a URL that only fsspec understands is taken to have some."""
    address = plain(address)
    if kind_of(address):
        return any(is_object(f"{address}/{name}") for name in METADATA_NAMES)
    if is_url(address):
        return True
    path = Path(address)
    return (path.is_file() and path.suffix == ".zip") or any((path / name).is_file() for name in METADATA_NAMES)


def describe_group(group: zarr.Group, name: str) -> InvalidData:
    """Build the error for a group where an array is expected: it lists the arrays within."""
    try:
        members = group.members(max_depth=None)
    except ValueError:  # of a web server, which lists nothing
        return InvalidData(f"{name} is a Zarr group, expected an array. Name one of its arrays: {name}/ARRAY.")
    arrays = sorted(f"{path} {node.shape} {node.dtype}" for path, node in members if isinstance(node, zarr.Array))
    if not arrays:
        return InvalidData(f"{name} is a Zarr group without arrays; expected an array of rows x features.")
    listed = "; ".join(arrays[:SHOWN]) + ("; ..." if len(arrays) > SHOWN else "")
    example = arrays[0].split(" (")[0]
    return InvalidData(
        f"{name} is a Zarr group, expected an array (or variables that name their dimensions, as xarray writes "
        f"them). Its arrays: {listed}. Name one, e.g. {name.rstrip('/')}/{example}."
    )


def _found_instead(address: str) -> str:
    """Say what is there where no Zarr metadata are."""
    if kind_of(address) and not only_serves(address):
        names = [found.name for found in list_objects(address)]
        if names:
            listed = ", ".join(names[:SHOWN]) + (", ..." if len(names) > SHOWN else "")
            return (
                f"There are {len(names)} objects below {address} ({listed}) but neither zarr.json nor .zarray: "
                "not a Zarr array. Pass the folder that holds the array's own metadata."
            )
    return f"There is no Zarr array at {address}. Check the address; nothing was found under that name."


def _local_store(path: Path, address: str) -> Store:
    if not path.exists():
        above = next(parent for parent in path.parents if parent.exists())
        msg = f"There is nothing at {address}; {above} is the nearest folder that exists."
        raise SourceNotFound(msg)
    if path.is_file():
        if path.suffix == ".zip":
            return ZipStore(path, mode="r")
        msg = (
            f"{address} is a file of {path.stat().st_size} bytes that dgmm cannot read; expected a Zarr folder, "
            "Parquet, HDF5, NetCDF (.nc) or NumPy (.npy)."
        )
        raise InvalidData(msg)
    if not any((path / name).is_file() for name in METADATA_NAMES):
        names = sorted(entry.name for entry in path.iterdir())
        listed = ", ".join(names[:SHOWN]) + (", ..." if len(names) > SHOWN else "")
        found = f"{len(names)} entries ({listed})" if names else "nothing in it"
        msg = (
            f"{address} is a folder with {found} but neither zarr.json nor .zarray nor Parquet files. "
            "Pass the folder that holds the array's own metadata."
        )
        raise InvalidData(msg)
    return LocalStore(path, read_only=True)
