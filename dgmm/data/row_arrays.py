"""Arrays with one entry a row, as they are described before they are written."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np


class Entry(NamedTuple):
    """An array with one entry a row.

    Attributes
    ----------
    shape : tuple of int
        Starts with the number of rows; one more dimension at most.
    dtype : dtype
    columns : sequence of str
        What a table calls its columns. By default the array's own name, numbered from 0 where there are several.
    """

    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    columns: Sequence[str] = ()

    @property
    def row_values(self) -> int:
        """Values of a row."""
        return int(np.prod(self.shape[1:]))

    @property
    def row_bytes(self) -> int:
        """Bytes of a row."""
        return self.row_values * self.dtype.itemsize


Layout = Mapping[str, Any]
"""Arrays by name: an `Entry` each, or shape and dtype."""


def entries(arrays: Layout) -> dict[str, Entry]:
    """Arrays by name, in full."""
    return {
        name: Entry(tuple(shape), np.dtype(dtype), *columns) for name, (shape, dtype, *columns) in arrays.items()
    }
