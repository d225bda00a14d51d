"""What counts as rows x features: shapes, dtypes, and how rows are cut into blocks."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from dgmm.errors import ShapeMismatch, UnsupportedDtype

Bounds = NDArray[np.int64]
Rows = NDArray[np.floating[Any]]


def check_shape(shape: tuple[int, ...], name: str, *, column: bool = False) -> tuple[int, int]:
    """Rows and features of an array that has at least one of each.

    Parameters
    ----------
    shape : tuple of int
    name : str
        How messages call it.
    column : bool
        Take one dimension as one feature.

    Raises
    ------
    ShapeMismatch
        The array is not two-dimensional, or is empty.
    """
    if column and len(shape) == 1:
        shape = (*shape, 1)
    if len(shape) != 2:
        advice = (
            "Reshape your data: one feature with x.reshape(-1, 1), one row with x.reshape(1, -1)."
            if len(shape) == 1
            else "Reshape your data to 2-D."
        )
        msg = f"Expected a 2-D array (rows x features), found {len(shape)}-D (shape={shape}) in {name}. {advice}"
        raise ShapeMismatch(msg)
    for length, what in zip(shape, ("sample", "feature"), strict=True):
        if length == 0:
            msg = f"Found array with 0 {what}(s) (shape={shape}) while a minimum of 1 is required: {name}."
            raise ShapeMismatch(msg)
    return shape[0], shape[1]


def block_dtype(dtype: np.dtype[Any], name: str) -> np.dtype[Any]:
    """Native float32 for float32 of any byte order, native float64 for every other real number.

    Raises
    ------
    UnsupportedDtype
        Complex numbers, text, dates, objects, records.
    """
    if dtype.kind == "f" and dtype.itemsize == 4:
        return np.dtype(np.float32)
    if dtype.kind in "biuf":
        return np.dtype(np.float64)
    advice = {
        "c": "Pass the real and the imaginary part as two features.",
        "M": "Convert dates to numbers first, e.g. seconds since a fixed date.",
        "m": "Convert durations to numbers first, e.g. seconds.",
    }.get(dtype.kind, "Convert every feature to numbers and stack them into one array first.")
    refused = "Complex data not supported: values" if dtype.kind == "c" else "Values"
    msg = f"{refused} of {name} are {dtype}; expected real numbers (float, integer or bool). {advice}"
    raise UnsupportedDtype(msg)


def regular_bounds(n_rows: int, step: int) -> Bounds:
    """Row offsets of blocks of `step` rows; the last block may be shorter."""
    return np.append(np.arange(0, n_rows, step, dtype=np.int64), np.int64(n_rows))


def held_rows(bounds: Bounds, chunk: int) -> int:
    """Rows held at most while a block is read, of which whole chunks of so many rows are read."""
    block = int(np.diff(bounds).max(initial=0))
    if np.any(bounds[1:-1] % chunk):
        # What is left of the chunks read last, those that follow, and a block that is joined of both.
        return 2 * (block + chunk) + block
    return block


def regular_length(bounds: Bounds) -> int | None:
    """Rows of a block, where all blocks but a shorter last one have the same number; else None."""
    lengths = np.diff(bounds)
    length = int(lengths[0])
    return None if np.any(lengths[:-1] != length) or lengths[-1] > length else length


def fitting_rows(block: int | None, most: int) -> int:
    """Rows of 2^j blocks, up to `most`, or of the 2^j-th part of one: runs of 2^j blocks hold whole ones.

    Parameters
    ----------
    block : int or None
        Rows of a block; None where they are ragged, which gives `most`.
    most : int
    """
    most = max(most, 1)
    if block is None:
        return most
    while block > most and block % 2 == 0:
        block //= 2
    return most if block > most else block << (most // block).bit_length() - 1
