"""Refuses rows and weights that cannot be used, and says where they are stored."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import numpy as np

from dgmm.data.source import Block, Source
from dgmm.engine.passes import Rows
from dgmm.errors import InvalidWeights, NonFiniteData


def check_finite(block: Block) -> None:
    """Refuse a block with a value that is not finite.

    Raises
    ------
    NonFiniteData
        With the value and its place; `naming_chunks` turns that into a message.
    """
    # One number tells for nearly every block; overflow of the sum is looked at again.
    rows = block.rows
    with np.errstate(over="ignore", invalid="ignore"):
        total = rows.sum()
    if np.isfinite(total):
        return
    bad = ~np.isfinite(rows)
    if bad.any():
        at, feature = (int(i) for i in np.argwhere(bad)[0])
        value, row = float(rows[at, feature]), int(block.row_numbers()[at])
        found = f"{spelled(value)} (row {row}, feature {feature})"
        error = NonFiniteData(f"the data contain {found}; every value must be finite")
        error.value, error.row, error.feature = value, row, feature
        raise error


def spelled(value: float) -> str:
    """As people write it."""
    return "NaN" if np.isnan(value) else "infinity" if value > 0 else "-infinity"


def check_weights(block: Block, weights: Rows) -> None:
    """Refuse sample weights (n,) of a block's rows that are negative or not finite.

    Raises
    ------
    InvalidWeights
        Naming the row.
    """
    bad = ~(np.isfinite(weights) & (weights >= 0))
    if bad.any():
        at = int(np.flatnonzero(bad)[0])
        msg = (
            f"the sample weight of row {block.row_numbers()[at]} is {weights[at]}; weights must be finite and "
            "not negative. Correct it, or give the row the weight 0 to leave it out."
        )
        raise InvalidWeights(msg)


@contextlib.contextmanager
def naming_chunks(source: Source) -> Iterator[None]:
    """Say of a value that is not finite in which chunk of `source` it is stored."""
    try:
        yield
    except NonFiniteData as error:
        if error.row is None:
            raise
        leave_out = (
            "Leave out such rows with missing='drop' (--missing drop)"
            if np.isnan(error.value)
            else "Remove such rows"
        )
        msg = (
            f"the data contain {spelled(error.value)} ({source.locate(error.row, error.feature)}); every value "
            f"must be finite. {leave_out}, impute them, or give them the sample weight 0 and a finite value."
        )
        raise NonFiniteData(msg) from None
