"""Tables in this process's memory: pandas, polars, Arrow."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dgmm.data.columns import chosen, not_numbers
from dgmm.data.numpy_array import NumpySource
from dgmm.errors import UnsupportedDtype


def is_frame(data: object) -> bool:
    """Whether it is a table in memory whose columns may have names."""
    package = type(data).__module__.partition(".")[0]
    kind = {"pandas": "DataFrame", "polars": "DataFrame", "pyarrow": "Table"}.get(package)
    return type(data).__name__ == kind


def open_frame(frame: Any, variables: Sequence[str] | None, name: str) -> NumpySource:
    """Rows of a table in memory.

    Parameters
    ----------
    frame : pandas.DataFrame, polars.DataFrame or pyarrow.Table
    variables : sequence of str or None
        Columns that become features; None is all.
    name : str
        How messages call it.

    Raises
    ------
    InvalidParameter
        There is no such column.
    UnsupportedDtype
        A column holds no numbers.
    """
    columns = list(frame.column_names if hasattr(frame, "column_names") else frame.columns)
    known = len(columns)
    if variables is not None:
        chosen(variables, [column for column in columns if isinstance(column, str)], name)
        frame = frame[list(variables)] if hasattr(frame, "iloc") else frame.select(list(variables))
        columns = list(variables)
    try:
        source = NumpySource(_values(frame), name=name)
    except UnsupportedDtype as error:
        if others := list(_no_numbers(frame, columns)):
            raise not_numbers(others, known, name) from error
        raise
    if all(isinstance(column, str) for column in columns):
        source.feature_names = tuple(columns)
    return source


def _no_numbers(frame: Any, columns: Sequence[Any]) -> Iterator[tuple[str, object]]:
    """Name and type of the columns that NumPy cannot turn into numbers."""
    column_of = next(getattr(frame, way) for way in ("iloc", "to_series", "column") if hasattr(frame, way))
    for number, name in enumerate(columns):
        column = column_of[:, number] if hasattr(frame, "iloc") else column_of(number)
        try:
            NumpySource(column, column=True)
        except UnsupportedDtype:
            yield str(name), getattr(column, "dtype", None) or column.type


def _values(frame: Any) -> Any:
    dtypes = list(getattr(frame, "dtypes", ()))
    if any(hasattr(dtype, "is_temporal") and dtype.is_temporal() for dtype in dtypes):
        msg = "polars gives dates to NumPy as numbers"
        raise UnsupportedDtype(msg)
    if all(isinstance(dtype, np.dtype) for dtype in dtypes) or not hasattr(frame, "iloc"):
        return frame
    if not all(map(is_real, dtypes)):
        return frame  # for NumpySource to say so
    # The missing values of pandas' own dtypes are no numbers for NumPy.
    values: NDArray[Any] = frame.to_numpy(common_dtype(dtypes), na_value=np.nan)
    return values


def is_real(dtype: Any) -> bool:
    """Whether a column of this dtype of pandas holds real numbers."""
    from pandas.api.types import is_numeric_dtype

    return bool(is_numeric_dtype(dtype)) and dtype.kind != "c"


def common_dtype(dtypes: Sequence[Any]) -> np.dtype[Any]:
    """What NumPy keeps columns of pandas' dtypes in: float32 where all of them are."""
    kept = {getattr(dtype, "numpy_dtype", dtype) for dtype in dtypes}
    return np.dtype(np.float32 if kept == {np.dtype(np.float32)} else np.float64)
