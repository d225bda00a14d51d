"""Refuses rows and weights that cannot be used, and says where they are stored."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import numpy as np

from dgmm.data.source import Source
from dgmm.engine.passes import Rows
from dgmm.errors import InvalidWeights, NonFiniteData


def check_finite(first: int, rows: Rows) -> None:
    """Refuse a block with a value that is not finite.

    Parameters
    ----------
    first : int
        Global index of its first row.
    rows : ndarray (n, D)

    Raises
    ------
    NonFiniteData
        With the value and its place; `naming_chunks` turns that into a message.
    """
    # One number tells for nearly every block; overflow of the sum is looked at again.
    with np.errstate(over="ignore", invalid="ignore"):
        total = rows.sum()
    if np.isfinite(total):
        return
    bad = ~np.isfinite(rows)
    if bad.any():
        row, feature = (int(i) for i in np.argwhere(bad)[0])
        found = f"{spelled(rows[row, feature])} (row {first + row}, feature {feature})"
        error = NonFiniteData(f"the data contain {found}; every value must be finite")
        error.value, error.row, error.feature = float(rows[row, feature]), first + row, feature
        raise error


def spelled(value: float) -> str:
    """As people write it."""
    return "NaN" if np.isnan(value) else "infinity" if value > 0 else "-infinity"


def check_weights(first: int, weights: Rows) -> None:
    """Refuse a block's sample weights that are negative or not finite.

    Raises
    ------
    InvalidWeights
        Naming the row.
    """
    bad = ~(np.isfinite(weights) & (weights >= 0))
    if bad.any():
        row = int(np.flatnonzero(bad)[0])
        msg = (
            f"the sample weight of row {first + row} is {weights[row]}; weights must be finite and not negative. "
            "Correct it, or give the row the weight 0 to leave it out."
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
        msg = (
            f"the data contain {spelled(error.value)} ({source.locate(error.row, error.feature)}); every value "
            "must be finite. Remove or impute such rows, or give them the sample weight 0 and a finite value."
        )
        raise NonFiniteData(msg) from None
