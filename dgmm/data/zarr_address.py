"""From an address to the Zarr array that is there, or to an error that says what is there instead."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import zarr
from zarr.abc.store import Store
from zarr.errors import NodeNotFoundError
from zarr.storage import LocalStore, ZipStore

from dgmm.errors import InvalidData, SourceNotFound

METADATA_NAMES = ("zarr.json", ".zarray", ".zgroup")
SHOWN = 10


def open_address(address: str) -> zarr.Array[Any] | zarr.Group:
    """Open the Zarr array or group at a path or URL for reading.

    Parameters
    ----------
    address : str
        A folder (also inside a group: ``data.zarr/X``), a ``.zip`` file, or a URL that fsspec understands.

    Raises
    ------
    SourceNotFound
        There is nothing.
    InvalidData
        There is something that is not Zarr.
    """
    is_url = "://" in address or "::" in address
    if is_url and address.startswith("file://"):
        address, is_url = unquote(urlsplit(address).path), False
    store: Store | str = address if is_url else _local_store(Path(address).absolute(), address)
    try:
        node = zarr.open(store, mode="r")
    except NodeNotFoundError as error:
        msg = f"There is no Zarr array at {address}. Check the address; nothing was found under that name."
        raise SourceNotFound(msg) from error
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


def describe_group(group: zarr.Group, name: str) -> InvalidData:
    """Build the error for a group where an array is expected: it lists the arrays within."""
    arrays = [
        f"{path} {node.shape} {node.dtype}"
        for path, node in group.members(max_depth=None)
        if isinstance(node, zarr.Array)
    ]
    arrays.sort()
    if not arrays:
        return InvalidData(f"{name} is a Zarr group without arrays; expected an array of rows x features.")
    listed = "; ".join(arrays[:SHOWN]) + ("; ..." if len(arrays) > SHOWN else "")
    example = arrays[0].split(" (")[0]
    return InvalidData(
        f"{name} is a Zarr group, expected an array (or variables that name their dimensions, as xarray writes "
        f"them). Its arrays: {listed}. Name one, e.g. {name.rstrip('/')}/{example}."
    )


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
