"""What the footers of Parquet files say: columns, their types, and the rows of each row group."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from pyarrow import parquet

from dgmm.data.arrow import is_real, said
from dgmm.data.columns import chosen, listed, not_numbers
from dgmm.data.files import StoredFile, is_of_storage
from dgmm.errors import InvalidData

# Reading a footer is waiting, more than work.
_AT_ONCE = 16


@dataclass(frozen=True)
class Footers:
    """Of all files of a table.

    Attributes
    ----------
    known : tuple of str
        All columns of the first file.
    columns : tuple of str
        Those that are the features.
    kinds : frozenset of pyarrow.DataType
        Types that these have in some file.
    rows : tuple of ndarray of int64
        Rows of each row group of each file.
    """

    known: tuple[str, ...]
    columns: tuple[str, ...]
    kinds: frozenset[Any]
    rows: tuple[NDArray[np.int64], ...]


def read_footers(files: Mapping[str, StoredFile], variables: Sequence[str] | None, table: str) -> Footers:
    """Read them, some at a time, and see that all files have the same columns.

    Types may differ from file to file as long as they are numbers: a column of integers turns into floats where a
    writer such as pandas meets a missing value.

    Parameters
    ----------
    files : mapping of str to StoredFile
        By their names.
    variables : sequence of str or None
        Columns that are the features; None is all.
    table : str
        How messages call the whole.

    Raises
    ------
    InvalidData
        A file is not Parquet, or has other columns than the first.
    InvalidParameter
        There is no such column.
    UnsupportedDtype
        A column holds no numbers.
    """
    named = list(files.items())
    schema, rows = _read(*named[0])
    columns = chosen(variables, schema.names, table)
    first = {name: schema.field(name).type for name in columns}
    if others := [(name, kind) for name, kind in first.items() if not is_real(kind)]:
        raise not_numbers(others, len(schema.names), table)
    check = partial(_checked, first=schema, columns=columns, complete=variables is None, table=table)
    kinds, groups = set(first.values()), [rows]
    with ThreadPoolExecutor(_AT_ONCE, thread_name_prefix="dgmm-footers") as pool:
        for own_kinds, own_rows in pool.map(lambda item: check(*item), named[1:]):
            kinds |= own_kinds
            groups.append(own_rows)
    return Footers(tuple(schema.names), columns, frozenset(kinds), tuple(groups))


def _read(name: str, file: StoredFile) -> tuple[pa.Schema, NDArray[np.int64]]:
    try:
        with parquet.ParquetFile(file.source(read_ahead=1), pre_buffer=False) as opened:
            metadata = opened.metadata
            rows = [metadata.row_group(group).num_rows for group in range(metadata.num_row_groups)]
            return opened.schema_arrow, np.array(rows, dtype=np.int64)
    except (pa.ArrowException, OSError) as error:
        if is_of_storage(error):
            raise
        msg = (
            f"{file.path} cannot be read as a Parquet file: {said(error)} Restore it, or take it out of the table."
        )
        raise InvalidData(msg) from error


def _checked(
    name: str, file: StoredFile, *, first: pa.Schema, columns: Sequence[str], complete: bool, table: str
) -> tuple[set[Any], NDArray[np.int64]]:
    schema, rows = _read(name, file)
    if schema.equals(first):
        return set(), rows
    if absent := [column for column in columns if column not in schema.names]:
        msg = f"{name} of {table} has no column {absent[0]!r}; it has {listed(schema.names)}. "
        raise InvalidData(msg + "Write it with the columns of the other files, or leave it out.")
    if complete and (more := [column for column in schema.names if column not in columns]):
        msg = f"{name} of {table} has a column {more[0]!r} that the first file has not. "
        raise InvalidData(msg + "Choose the columns that are features with variables=[...] (--variables a,b).")
    kinds = {column: schema.field(column).type for column in columns}
    if others := [(column, kind) for column, kind in kinds.items() if not is_real(kind)]:
        raise not_numbers(others, len(schema.names), f"{name} of {table}")
    return set(kinds.values()), rows
