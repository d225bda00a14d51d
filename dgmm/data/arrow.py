"""Columns of Arrow as features."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray


def said(error: Exception) -> str:
    """An error of Arrow's as a sentence: some of its messages end with a full stop."""
    return f"{str(error).strip().rstrip('.')}."


def is_real(kind: pa.DataType) -> bool:
    """Whether a column of this type holds real numbers: integers, floats, decimals, booleans; or codes of such."""
    types = pa.types
    if types.is_dictionary(kind):
        return is_real(kind.value_type)
    return bool(
        types.is_integer(kind) or types.is_floating(kind) or types.is_boolean(kind) or types.is_decimal(kind)
    )


def common_dtype(kinds: Iterable[pa.DataType]) -> np.dtype[Any]:
    """What blocks of columns of these types are: float32 where all of them are, else float64."""
    return np.dtype(np.float32 if set(kinds) == {pa.float32()} else np.float64)


def values(column: pa.Array) -> NDArray[Any]:
    """Values (n,) of a column of real numbers, not to be written to; a null is NaN."""
    kind = column.type
    if pa.types.is_dictionary(kind):
        return values(column.dictionary_decode())
    if pa.types.is_decimal(kind) or (column.null_count and not pa.types.is_floating(kind)):
        column = column.cast(pa.float64(), safe=False)
    elif pa.types.is_boolean(kind):
        column = column.cast(pa.uint8())
    # Arrow's own `to_numpy` would import pandas: 50 MB of a worker.
    if not column.null_count:
        return np.from_dlpack(column)
    dtype = np.dtype(f"f{column.type.bit_width // 8}")
    stored = np.frombuffer(column.buffers()[1], dtype)[column.offset : column.offset + len(column)]
    return np.where(np.from_dlpack(column.is_null().cast(pa.uint8())), dtype.type(np.nan), stored)
