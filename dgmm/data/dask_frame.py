"""Data frames of Dask: their partitions are blocks of rows."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from dgmm.data.columns import chosen, not_numbers
from dgmm.data.dask_array import DaskSource
from dgmm.data.frames import common_dtype, is_real
from dgmm.errors import InvalidData


def open_dask_frame(data: Any, variables: Sequence[str] | None, name: str, *, column: bool = False) -> DaskSource:
    """Rows of a data frame (or, for weights, a series) of Dask, a block a partition.

    Partitions whose length is unknown are measured, once.

    Parameters
    ----------
    data : dask.dataframe.DataFrame or Series
    variables : sequence of str or None
        Columns that become features; None is all.
    name : str
        How messages call it.
    column : bool
        Take a series as one feature.

    Raises
    ------
    InvalidData
        Another Dask collection.
    InvalidParameter
        There is no such column.
    UnsupportedDtype
        A column holds no numbers.
    """
    if not type(data).__module__.startswith("dask.dataframe"):
        msg = (
            f"{name} is a {type(data).__module__}.{type(data).__name__}; expected a dask.array.Array "
            "or a data frame of Dask."
        )
        raise InvalidData(msg)
    if data.ndim == 1:
        if not is_real(data.dtype):
            raise not_numbers([(str(data.name), data.dtype)], 1, name)
        dtype = common_dtype([data.dtype])
        return DaskSource(data.astype(dtype).to_dask_array(lengths=True), name=name, column=column)
    columns = list(data.columns)
    names = tuple(columns) if variables is None else chosen(variables, columns, name)
    frame = data[list(names)]
    dtypes = dict(zip(names, frame.dtypes, strict=True))
    others = [(str(column), dtype) for column, dtype in dtypes.items() if not is_real(dtype)]
    if others:
        raise not_numbers(others, len(columns), name)
    rows = frame.astype(common_dtype(list(dtypes.values()))).to_dask_array(lengths=True)
    source = DaskSource(rows, name=name)
    if all(isinstance(column, str) for column in names):
        source.feature_names = names
    return source
