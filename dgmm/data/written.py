"""What dgmm wrote, opened as data: rows that were converted, or drawn from a model."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import zarr

from dgmm.data.address import kind_of
from dgmm.data.chosen_columns import ChosenColumns
from dgmm.data.parquet_output import ATTRIBUTES
from dgmm.data.reading import Reading
from dgmm.data.source import Source
from dgmm.data.zarr_array import ZarrSource
from dgmm.errors import InvalidData


def rows_within(group: zarr.Group) -> zarr.Array[Any] | None:
    """The array of rows in a group that dgmm wrote; None in any other group."""
    rows = group.get("rows") if isinstance(group.attrs.get("dgmm"), dict) else None
    return rows if isinstance(rows, zarr.Array) else None


def open_rows(group: zarr.Group, rows: zarr.Array[Any], reading: Reading, name: str) -> Source:
    """Describe those rows, with the names that their features were given.

    Raises
    ------
    InvalidData
        They are not complete.
    InvalidParameter
        There is no such feature.
    """
    attributes: dict[str, Any] = dict(group.attrs)
    _check_complete(attributes, name)
    source = ZarrSource(rows, name=name, missing_chunks=reading.missing_chunks, column=reading.column)
    source.feature_names = tuple(attributes.get("features") or ())
    if not source.feature_names:
        reading.refuse_choice(name)
    reading.refuse_dims(name)
    return source if reading.variables is None else ChosenColumns(source, reading.variables)


def features_of_folder(address: str) -> tuple[str, ...] | None:
    """Columns that are features of a Parquet folder that dgmm wrote; None of any other, and of other results.

    Raises
    ------
    InvalidData
        It is not complete.
    """
    try:
        attributes = json.loads(_read(f"{address.rstrip('/')}/{ATTRIBUTES}"))
    except (FileNotFoundError, NotADirectoryError, ValueError):
        return None
    _check_complete(attributes, address)
    return tuple(attributes.get("features") or ()) or None


def _read(address: str) -> bytes:
    if kind_of(address) is None:
        return Path(address).read_bytes()
    from dgmm.data import store

    return store.read(address)


def _check_complete(attributes: dict[str, Any], name: str) -> None:
    if not attributes.get("complete"):
        msg = f"{name} is not complete: run the command that writes it again, and it goes on where it stopped."
        raise InvalidData(msg)
