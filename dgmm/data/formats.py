"""Files that hold rows: what kind they are, and the source of each kind."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable, Iterator
from pathlib import Path, PurePath
from typing import Literal

from dgmm.data.address import kind_of
from dgmm.data.files import StoredFile, is_pattern, list_files, some_file
from dgmm.data.reading import Reading
from dgmm.data.source import Source
from dgmm.data.text_file import COMPRESSED
from dgmm.errors import InvalidData, MissingExtra

Kind = Literal["parquet", "csv", "npy", "npz", "hdf5", "compressed", "several", "netcdf"]

# Of files in folders.
_SUFFIXES: dict[Kind, tuple[str, ...]] = {
    "parquet": (".parquet", ".parq", ".pq"),
    "csv": tuple(suffix + how for suffix in (".csv", ".tsv") for how in ("", *COMPRESSED)),
}
_TEXT = (*_SUFFIXES["csv"], *(f".txt{how}" for how in ("", *COMPRESSED)))
_NAMED: dict[str, Kind] = {
    ".npy": "npy",
    ".npz": "npz",
    ".nc": "netcdf",
    **dict.fromkeys((".h5", ".hdf5", ".hdf", ".he5"), "hdf5"),
}
_OF_ONE = (*_NAMED, ".zarr", ".zip")
_COMPRESSED_ELSE = (".zst", ".zip", ".lz4")
_SIGNATURES: dict[bytes, Kind] = {b"PAR1": "parquet", b"\x93NUMPY": "npy", b"\x89HDF\r\n\x1a\n": "hdf5"}


def kind_at(address: str) -> Kind | None:
    """The kind of file, folder of files or pattern at an address; None where it is none of those that dgmm knows.

    Files are told by how they begin, whatever they are called; text, which has no mark, and objects, which would
    have to be asked for, by their names.
    """
    if is_pattern(address):
        return _kind_of_pattern(address)
    if kind_of(address):
        return _kind_of_object(address)
    path = Path(address)
    if path.is_dir():
        return _kind_of_folder(address, lambda name: (path / name).exists())
    file, within = _split(address)
    kind = _kind_of_file(Path(file)) if Path(file).is_file() else None
    return kind if not within or kind == "hdf5" else None


def _split(address: str) -> tuple[str, str]:
    """The path or URL of a file, and what follows it: the name of something within an HDF5 file."""
    if kind_of(address):
        found = re.match(r"(.*\.(?:h5|hdf5?|he5))(?:/(.*))?$", address, re.IGNORECASE)
        return (found[1], found[2] or "") if found else (address, "")
    path = Path(address)
    file = next((above for above in (path, *path.parents) if above.is_file()), path)
    return str(file), path.relative_to(file).as_posix().removeprefix(".")


def _kind_of_pattern(address: str) -> Kind:
    name = address.lower()
    if not name.endswith((*_SUFFIXES["parquet"], *_TEXT, *_OF_ONE)):  # as in data/*
        name = (some_file(address, ("",)) or name).lower()
    return "csv" if _is_text(name) else "several" if name.endswith(_OF_ONE) else "parquet"


def _kind_of_folder(address: str, has: Callable[[str], bool]) -> Kind | None:
    from dgmm.data.parquet_output import ATTRIBUTES
    from dgmm.data.zarr_address import METADATA_NAMES

    if any(map(has, METADATA_NAMES)):
        return None
    if has(ATTRIBUTES):
        return "parquet"
    return next((kind for kind, suffixes in _SUFFIXES.items() if some_file(address, suffixes)), None)


def _kind_of_object(url: str) -> Kind | None:
    from dgmm.data.store import is_object, only_serves

    name = _split(url)[0].rpartition("/")[2].lower()
    if name.endswith(_SUFFIXES["parquet"]) or _is_text(name):
        return "csv" if _is_text(name) else "parquet"
    if name.endswith(_COMPRESSED_ELSE) and _is_text(name.rpartition(".")[0]):
        return "compressed"
    suffix = PurePath(name).suffix
    # Only what has no telling name is asked for.
    if suffix in _OF_ONE or only_serves(url):
        return _NAMED.get(suffix)
    return _kind_of_folder(url, lambda entry: is_object(f"{url.rstrip('/')}/{entry}"))


def _kind_of_file(path: Path) -> Kind | None:
    with path.open("rb") as opened:
        start = opened.read(16)
    for signature, kind in _SIGNATURES.items():
        if start.startswith(signature):
            return kind
    if path.suffix.lower() in _COMPRESSED_ELSE and _is_text(path.stem):
        return "compressed"
    return "npz" if path.suffix == ".npz" else "csv" if _is_text(path.name) else None


def _is_text(name: str) -> bool:
    return name.lower().endswith(_TEXT)


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
        known = ", ".join(COMPRESSED)
        msg = f"{name} is text that is compressed in another way than {known}. Decompress it, then convert it."
        raise InvalidData(msg)
    if kind == "npz":
        msg = (
            f"{name} is an archive of NumPy arrays, which cannot be read in parts. Write the array to a file of "
            "its own with numpy.save, or pass numpy.load(path)[name]."
        )
        raise InvalidData(msg)
    if kind == "several":
        msg = (
            f"{name} is a pattern of files that are neither Parquet nor text. Of other kinds name one file, or "
            "pass what puts them together: a Dataset of xarray.open_mfdataset, a Dask array."
        )
        raise InvalidData(msg)
    if kind == "netcdf":
        msg = f"{name} is a NetCDF file, which is read from a disk alone. Copy it there, or write it as Zarr."
        raise InvalidData(msg)
    reading.refuse_choice(name)
    if kind == "npy":
        from dgmm.data.npy import NpySource

        return NpySource(StoredFile.at(address), name, column=reading.column)
    with needing("hdf5", name):
        from dgmm.data.hdf5 import Hdf5Source
    file, dataset = _split(address)
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
