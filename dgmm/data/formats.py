"""What kind of file is at an address."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

from dgmm.data.files import holds_files, is_pattern
from dgmm.errors import MissingExtra

Kind = Literal["parquet", "npy", "npz", "hdf5"]

PARQUET_SUFFIXES = (".parquet", ".parq", ".pq")
_SIGNATURES: dict[bytes, Kind] = {b"PAR1": "parquet", b"\x93NUMPY": "npy", b"\x89HDF\r\n\x1a\n": "hdf5"}


def kind_at(address: str) -> Kind | None:
    """The kind of file, folder of files or pattern at an address; None where it is none of those that dgmm knows.

    Files are told by how they begin, whatever they are called.
    """
    path = Path(address)
    if is_pattern(address):
        return "parquet"
    if path.is_dir():
        zarr = any((path / name).exists() for name in ("zarr.json", ".zarray", ".zgroup"))
        return "parquet" if not zarr and holds_files(address, PARQUET_SUFFIXES) else None
    # The name of something within an HDF5 file follows the file's.
    file = next((above for above in (path, *path.parents) if above.is_file()), None)
    if file is None:
        return None
    with file.open("rb") as opened:
        start = opened.read(16)
    kind = next((kind for signature, kind in _SIGNATURES.items() if start.startswith(signature)), None)
    if path.suffix == ".npz":
        return "npz"
    return kind if file == path or kind == "hdf5" else None


@contextlib.contextmanager
def needing(extra: str, address: str) -> Iterator[None]:
    """Meanwhile an import that fails is for want of an optional package.

    Raises
    ------
    MissingExtra
        Naming the package, and how to install it.
    """
    try:
        yield
    except ImportError as error:
        msg = f"{address} needs the package {error.name}. Install it with: pip install 'dgmm[{extra}]'"
        raise MissingExtra(msg) from error
