"""What a model says of each row of some data."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import numpy as np

from dgmm.data.source import Block, Source, iter_blocks
from dgmm.engine.blas import limit_worker_blas, one_blas_thread
from dgmm.engine.likelihood import PreparedEStep
from dgmm.engine.quantities import Quantity, Values
from dgmm.engine.validity import check_finite, naming_chunks
from dgmm.mixture.expectation import EStep


def described(block: Block, prepared: PreparedEStep, wanted: Sequence[Quantity]) -> dict[str, Values]:
    """What a model says of a block's rows.

    Parameters
    ----------
    block : Block
    prepared : PreparedEStep
    wanted : sequence of Quantity

    Returns
    -------
    dict of ndarray
        Arrays (length, ...) by name, with what stands for them in place of rows that were left out.

    Raises
    ------
    NonFiniteData
    """
    check_finite(block)
    k, rows = prepared.components.parameters.n_components, block.rows
    kinds = [quantity.arrays(k) for quantity in wanted]
    found = [
        tuple(np.empty((len(rows), *kind.trailing), kind.dtype) for kind in arrays.values()) for arrays in kinds
    ]
    for tile, density, responsibilities in EStep(prepared.components, prepared.frame).posterior(rows):
        for quantity, arrays in zip(wanted, found, strict=True):
            for array, values in zip(arrays, quantity.of_tile(density, responsibilities), strict=True):
                array[tile] = values
    return {
        name: block.with_left_out(array, kind.left_out)
        for named, arrays in zip(kinds, found, strict=True)
        for (name, kind), array in zip(named.items(), arrays, strict=True)
    }


def per_row(source: Source, prepared: PreparedEStep, quantity: Quantity) -> tuple[Any, ...]:
    """The arrays of a quantity for all rows: in memory where the rows are, else lazy; of a grid, DataArrays.

    Parameters
    ----------
    source : Source
    prepared : PreparedEStep
    quantity : Quantity
    """
    blocks = _computed(source, prepared, quantity) if source.local else _lazy(source, prepared, quantity)
    arrays = list(zip(*blocks, strict=True))
    if source.box(0) is None:
        return tuple(np.concatenate(pieces) for pieces in arrays)  # of Dask arrays, a Dask array
    from dgmm.data.grid import GridSource
    from dgmm.data.grid_results import on_grid

    assert isinstance(source, GridSource)  # noqa: S101  no other has boxes
    kinds = quantity.arrays(prepared.components.parameters.n_components)
    found = []
    for (name, kind), pieces in zip(kinds.items(), arrays, strict=True):
        array = on_grid(source, pieces, name, kind.dims)
        # Where a cell is missing xarray wants a missing value, which integers lack.
        found.append(array.where(array >= 0) if kind.dtype.kind == "i" else array)
    return tuple(found)


def _computed(source: Source, prepared: PreparedEStep, quantity: Quantity) -> list[tuple[Values, ...]]:
    with one_blas_thread(), naming_chunks(source):
        stored = iter_blocks(source.block_input(0, source.n_blocks))
        return [tuple(described(block, prepared, [quantity]).values()) for block in stored]


def _lazy(source: Source, prepared: PreparedEStep, quantity: Quantity) -> list[tuple[Any, ...]]:
    import dask.array as da
    from dask.delayed import delayed

    kinds = list(quantity.arrays(prepared.components.parameters.n_components).values())
    shared = delayed(lambda: prepared, pure=False)()
    describe = delayed(_describe_blocks, pure=False, nout=len(kinds))
    chunks = []
    for first, last in pairwise([*range(0, source.n_blocks, source.run_length), source.n_blocks]):
        length = int(source.bounds[last] - source.bounds[first])
        pieces = zip(describe(source.block_input(first, last), shared, quantity), kinds, strict=True)
        chunks.append(
            tuple(da.from_delayed(p, shape=(length, *kind.trailing), dtype=kind.dtype) for p, kind in pieces)
        )
    return chunks


def _describe_blocks(received: Any, prepared: PreparedEStep, quantity: Quantity) -> tuple[Values, ...]:
    limit_worker_blas()
    found = [tuple(described(block, prepared, [quantity]).values()) for block in iter_blocks(received)]
    return tuple(np.concatenate(pieces) for pieces in zip(*found, strict=True))
