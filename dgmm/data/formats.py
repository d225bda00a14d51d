"""What kind of file is at an address."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

from dgmm.data.files import holds_files, is_pattern
from dgmm.errors import MissingExtra

Kind = Literal["parquet"]

PARQUET_SUFFIXES = (".parquet", ".parq", ".pq")
_SIGNATURES: dict[bytes, Kind] = {b"PAR1": "parquet"}


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
    if not path.is_file():
        return None
    with path.open("rb") as file:
        start = file.read(16)
    return next((kind for signature, kind in _SIGNATURES.items() if start.startswith(signature)), None)


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
