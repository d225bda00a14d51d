"""What a model says of each row: labels, responsibilities, log-densities."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from dgmm.data.source import Block, Source, iter_blocks
from dgmm.engine.blas import limit_worker_blas, one_blas_thread
from dgmm.engine.likelihood import PreparedEStep
from dgmm.engine.validity import check_finite, naming_chunks
from dgmm.mixture.expectation import EStep

Quantity = Literal["labels", "responsibilities", "log_density"]
QUANTITIES: tuple[Quantity, ...] = get_args(Quantity)
LEFT_OUT: dict[str, float] = {"labels": -1, "responsibilities": np.nan, "log_density": np.nan}
"""What stands for a row that was left out."""


def describe(rows: NDArray[np.floating], prepared: PreparedEStep, wanted: Sequence[Quantity]) -> dict[str, Any]:
    """Compute what is wanted of some rows, in float64.

    Parameters
    ----------
    rows : ndarray (n, D)
    prepared : PreparedEStep
    wanted : sequence of {'labels', 'responsibilities', 'log_density'}

    Returns
    -------
    dict of ndarray
        labels (n,) int64; responsibilities (n, K); log_density (n,), in data units.
    """
    n, k = len(rows), prepared.components.parameters.n_components
    found: dict[str, Any] = {}
    shapes = {"labels": ((n,), np.int64), "responsibilities": ((n, k), float), "log_density": ((n,), float)}
    for name in wanted:
        shape, dtype = shapes[name]
        found[name] = np.empty(shape, dtype)
    for tile, density, responsibilities in EStep(prepared.components, prepared.frame).posterior(rows):
        if "labels" in found:
            found["labels"][tile] = responsibilities.argmax(axis=0)
        if "responsibilities" in found:
            found["responsibilities"][tile] = responsibilities.T
        if "log_density" in found:
            found["log_density"][tile] = density
    return found


def per_row(source: Source, prepared: PreparedEStep, quantity: Quantity) -> Any:
    """One quantity for each row: an array for rows in memory, else a lazy Dask array; of a grid, a DataArray.

    Parameters
    ----------
    source : Source
    prepared : PreparedEStep
    quantity : {'labels', 'responsibilities', 'log_density'}
    """
    pieces = _computed(source, prepared, quantity) if source.local else _lazy(source, prepared, quantity)
    if source.box(0) is None:
        return np.concatenate(pieces)  # of Dask arrays, a Dask array
    from dgmm.data.grid import GridSource
    from dgmm.data.grid_results import on_grid

    assert isinstance(source, GridSource)  # noqa: S101  no other has boxes
    trailing = ("component",) if quantity == "responsibilities" else ()
    found = on_grid(source, pieces, quantity, trailing)
    # Where a cell is missing xarray wants a missing value, which integers lack.
    return found.where(found >= 0) if quantity == "labels" else found


def _computed(source: Source, prepared: PreparedEStep, quantity: Quantity) -> list[NDArray[Any]]:
    with one_blas_thread(), naming_chunks(source):
        stored = iter_blocks(source.block_input(0, source.n_blocks))
        return [described(block, prepared, [quantity])[quantity] for block in stored]


def _lazy(source: Source, prepared: PreparedEStep, quantity: Quantity) -> list[Any]:
    import dask.array as da
    from dask.delayed import delayed

    k = prepared.components.parameters.n_components
    trailing = (k,) if quantity == "responsibilities" else ()
    dtype = np.dtype(np.int64 if quantity == "labels" else np.float64)
    shared = delayed(lambda: prepared, pure=False)()
    return [
        da.from_delayed(
            delayed(_describe_block, pure=False)(source.block_input(b, b + 1), shared, quantity),
            shape=(int(source.bounds[b + 1] - source.bounds[b]), *trailing),
            dtype=dtype,
        )
        for b in range(source.n_blocks)
    ]


def _describe_block(received: Any, prepared: PreparedEStep, quantity: Quantity) -> Any:
    limit_worker_blas()
    (block,) = iter_blocks(received)
    return described(block, prepared, [quantity])[quantity]


def described(block: Block, prepared: PreparedEStep, wanted: Sequence[Quantity]) -> dict[str, Any]:
    """What `describe` says of a block's rows; of those left out: the label -1, and NaN."""
    check_finite(block)
    found = describe(block.rows, prepared, wanted)
    return {name: block.with_left_out(found[name], LEFT_OUT[name]) for name in wanted}
