"""Files that hold rows: what kind they are, and the source of each kind."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

from dgmm.data.files import StoredFile, holds_files, is_pattern, list_files
from dgmm.data.reading import Reading
from dgmm.data.source import Source
from dgmm.errors import InvalidData, MissingExtra

Kind = Literal["parquet", "csv", "npy", "npz", "hdf5", "compressed"]

_SUFFIXES: dict[Kind, tuple[str, ...]] = {"parquet": (".parquet", ".parq", ".pq"), "csv": (".csv", ".tsv", ".txt")}
_COMPRESSED = (".gz", ".bz2", ".xz", ".zst")
_SIGNATURES: dict[bytes, Kind] = {b"PAR1": "parquet", b"\x93NUMPY": "npy", b"\x89HDF\r\n\x1a\n": "hdf5"}


def kind_at(address: str) -> Kind | None:
    """The kind of file, folder of files or pattern at an address; None where it is none of those that dgmm knows.

    Files are told by how they begin, whatever they are called; text, which has no mark, by its name.
    """
    path = Path(address)
    if is_pattern(address):
        return "csv" if _is_text(address) else "parquet"
    if path.is_dir():
        from dgmm.data.parquet_output import ATTRIBUTES

        if any((path / name).exists() for name in ("zarr.json", ".zarray", ".zgroup")):
            return None
        if (path / ATTRIBUTES).exists():
            return "parquet"
        return next((kind for kind, suffixes in _SUFFIXES.items() if holds_files(address, suffixes)), None)
    # The name of something within an HDF5 file follows the file's.
    file = next((above for above in (path, *path.parents) if above.is_file()), None)
    kind = None if file is None else _kind_of_file(file)
    return kind if file == path or kind == "hdf5" else None


def _kind_of_file(path: Path) -> Kind | None:
    with path.open("rb") as opened:
        start = opened.read(16)
    for signature, kind in _SIGNATURES.items():
        if start.startswith(signature):
            return kind
    if path.suffix in _COMPRESSED and _is_text(path.stem):
        return "compressed"
    return "npz" if path.suffix == ".npz" else "csv" if _is_text(path.name) else None


def _is_text(name: str) -> bool:
    return name.lower().endswith(_SUFFIXES["csv"])


def open_files(kind: Kind, address: str, reading: Reading) -> Source:
    """Describe the rows of a file, or of those of a table.

    Raises
    ------
    MissingExtra
        A package that reads them is not installed.
    InvalidData
        They are of a kind that has to be converted first; or see the source of that kind.
    """
    name = reading.name or address
    if kind in ("parquet", "csv"):
        reading.refuse_dims(name)
        if kind == "csv" and not reading.text:
            command = f"dgmm convert {address} OUT.zarr"
            msg = f"{name} is text, which every pass would parse anew. Convert it once, and use that: {command}"
            raise InvalidData(msg)
        with needing("parquet", name):
            from dgmm.data.csv import CsvSource
            from dgmm.data.parquet import ParquetSource
        if kind == "csv":
            return CsvSource(list_files(address, _SUFFIXES[kind]), reading.variables, name)
        from dgmm.data.written import features_of_folder

        own = features_of_folder(address)
        return ParquetSource(list_files(address, _SUFFIXES[kind]), reading.variables or own, name)
    if kind == "compressed":
        msg = f"{name} is compressed text, which cannot be read from the middle. Decompress it, then convert it."
        raise InvalidData(msg)
    if kind == "npz":
        msg = (
            f"{name} is an archive of NumPy arrays, which cannot be read in parts. Write the array to a file of "
            "its own with numpy.save, or pass numpy.load(path)[name]."
        )
        raise InvalidData(msg)
    reading.refuse_choice(name)
    if kind == "npy":
        from dgmm.data.npy import NpySource

        return NpySource(StoredFile.at(address), name, column=reading.column)
    with needing("hdf5", name):
        from dgmm.data.hdf5 import Hdf5Source, split_address
    file, dataset = split_address(address)
    found = StoredFile.at(file)
    return Hdf5Source(found, dataset, name, missing_chunks=reading.missing_chunks, column=reading.column)


@contextlib.contextmanager
def needing(extra: str, name: str) -> Iterator[None]:
    """Meanwhile an import that fails is for want of an optional package.

    Raises
    ------
    MissingExtra
        Naming the package, and how to install it.
    """
    try:
        yield
    except ImportError as error:
        msg = f"{name} needs the package {error.name}. Install it with: pip install 'dgmm[{extra}]'"
        raise MissingExtra(msg) from error
