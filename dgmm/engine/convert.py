"""Rows of anything into a well-chunked Zarr array (or a Parquet table), once, to be fitted many times."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from dgmm.data.address import Address
from dgmm.data.blocks import Missing
from dgmm.data.columns import named
from dgmm.data.outputs import output_kind
from dgmm.data.present import PresentSource
from dgmm.data.row_arrays import Entry
from dgmm.data.row_output import RowOutput
from dgmm.data.source import Block, Source
from dgmm.engine.memory import check_need
from dgmm.engine.passes import BlockFunction, Passes, Rows
from dgmm.engine.reach import check_output, check_readable
from dgmm.engine.scheduler import Scheduler
from dgmm.engine.scheduling import scheduler_for
from dgmm.engine.validity import check_finite, naming_chunks
from dgmm.engine.writing import write_missing
from dgmm.errors import InvalidData

_PRESENT = "present"
"""What an output records: how many rows of each block of the input miss no value."""


@dataclass(frozen=True)
class Counts:
    """Rows without a missing value in blocks, by their first rows; they add."""

    present: dict[int, int]

    def __add__(self, other: Counts) -> Counts:
        return Counts(self.present | other.present)


class CountWork:
    """Counts the rows of each block that miss no value."""

    name = "count"

    def prepare(self) -> CountWork:
        return self

    def begin(self) -> BlockFunction:
        return lambda block, weights: Counts({block.first: len(block.rows)})


class ConvertWork:
    """Writes each block, which is a unit of the output; adds up rows written.

    Parameters
    ----------
    output : RowOutput
    finite : bool
        Refuse values that are not.
    """

    name = "convert"

    def __init__(self, output: RowOutput, *, finite: bool) -> None:
        self._output, self._finite = output, finite

    def prepare(self) -> ConvertWork:
        return self

    def begin(self) -> BlockFunction:
        return self._write

    def _write(self, block: Block, weights: Rows | None) -> int:
        if self._finite:
            check_finite(block)
        dtype = self._output.arrays["rows"].dtype
        self._output.write(block.first, block.first + block.length, {"rows": _narrowed(block, dtype)})
        return block.length


def _narrowed(block: Block, dtype: np.dtype[np.floating]) -> NDArray[np.floating]:
    rows = block.rows
    if rows.dtype == dtype:
        return rows
    with np.errstate(over="ignore"):
        narrowed: NDArray[np.floating] = rows.astype(dtype)
    if (lost := np.isinf(narrowed) & np.isfinite(rows)).any():
        at, feature = (int(i) for i in np.argwhere(lost)[0])
        msg = f"row {block.first + at}, feature {feature} is {rows[at, feature]:.3g}, which {dtype} cannot hold"
        raise InvalidData(msg)
    return narrowed


@dataclass(frozen=True, eq=False)
class Conversion:
    """Rows to be written.

    Attributes
    ----------
    source : Source
    missing : {"error", "drop"} or None
        What becomes of rows with a missing value; None keeps them as they are.
    dtype : dtype
        What is stored.
    """

    source: Source
    missing: Missing | None
    dtype: np.dtype[np.floating]

    def __post_init__(self) -> None:
        if self.source.box(0) is not None:
            msg = f"{self.source.name} is a grid, which is not converted: fit it as it is."
            raise InvalidData(msg)


def convert(
    wanted: Conversion,
    path: Address,
    on_rows: Callable[[int, int], None] = lambda done, total: None,
) -> tuple[RowOutput, int]:
    """Write what is missing of the output, on the active Dask client if there is one, and mark it complete.

    Where rows are left out, a pass more counts them first; the output remembers what it found.

    Parameters
    ----------
    wanted : Conversion
    path : str or path
        A folder, or a URL; of Parquet files if it ends in ``.parquet``, else of a Zarr group.
    on_rows : callable
        Hears of rows of the running pass so far, and of its rows in all.

    Returns
    -------
    RowOutput
    int
        Rows written; 0 where nothing was missing.

    Raises
    ------
    ForeignFile, CheckpointMismatch
        The output holds something else.
    MissingExtra, NotEnoughMemory, NonFiniteData, InvalidData, WriteFailed, ClusterError
    """
    with scheduler_for(local=wanted.source.local) as scheduler:
        source = wanted.source
        if wanted.missing == "drop":
            source = _present(wanted, path, scheduler, on_rows)
        output = _open(source, wanted, path)
        if output.complete:
            return output, 0
        entry = output.arrays["rows"]
        unit = min(output.chunk_rows, source.n_rows)
        # Two units, one of them being read; then converted, encoded and compressed.
        writing = unit * (source.n_features * source.dtype.itemsize + 3 * entry.row_bytes)
        _vet(scheduler, source.rows(output.bounds), writing)
        check_output(scheduler, output)
        work = ConvertWork(output, finite=wanted.missing is not None)
        with naming_chunks(source):
            return output, write_missing(source, output, work, scheduler, on_rows)


def is_counted(wanted: Conversion, path: Address) -> bool:
    """Whether an earlier run has counted the rows that are to be left out; the output is created if need be.

    Raises
    ------
    ForeignFile, CheckpointMismatch, WriteFailed, MissingExtra
    """
    return _counts(wanted, _claimed(wanted, path)) is not None


def _identity(wanted: Conversion) -> dict[str, str]:
    return {"data": wanted.source.fingerprint(), "missing": str(wanted.missing)}


def _claimed(wanted: Conversion, path: Address) -> RowOutput:
    """The output before it is known how many rows it will have."""
    return output_kind(path)(path, {}, 1).claim(_identity(wanted))


def _counts(wanted: Conversion, output: RowOutput) -> list[int] | None:
    found: list[int] | None = output.recorded(_PRESENT)
    return found if found is not None and len(found) == wanted.source.n_blocks else None


def _present(
    wanted: Conversion, path: Address, scheduler: Scheduler, on_rows: Callable[[int, int], None]
) -> PresentSource:
    """The rows that miss no value, once they have been counted."""
    source, output = wanted.source, _claimed(wanted, path)
    counts = _counts(wanted, output)
    if counts is None:
        block_rows = int(np.diff(source.bounds).max())
        _vet(scheduler, source, 2 * block_rows * source.n_features * source.dtype.itemsize)
        counting = Passes(source, None, scheduler, lambda done: on_rows(done, source.n_rows))
        found: Counts = counting.run(CountWork())
        counts = [found.present[first] for first in source.bounds[:-1].tolist()]
        output.record(_PRESENT, counts)
    return PresentSource(source, counts)


def _vet(scheduler: Scheduler, source: Source, more: int) -> None:
    what = f"converting {source.name} (two blocks of rows, and a unit of the output)"
    remedy = ", or write the input in smaller chunks of rows"
    check_need(scheduler.memory_per_thread(), source.read_bytes + more, what, remedy)
    check_readable(scheduler, source)


def _open(source: Source, wanted: Conversion, path: Address) -> RowOutput:
    columns = named(source.feature_names, source.n_features)
    arrays = {"rows": Entry((source.n_rows, source.n_features), wanted.dtype, columns)}
    kind = output_kind(path)
    output = kind.open(path, arrays=arrays, chunk_rows=kind.usual_rows(arrays), identity=_identity(wanted))
    output.describe_features(source.feature_names)
    return output
