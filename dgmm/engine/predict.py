"""What a model says of each row, written by the workers, unit by unit."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import DTypeLike

from dgmm.data.address import Address
from dgmm.data.outputs import output_kind
from dgmm.data.row_arrays import Entry
from dgmm.data.row_output import RowOutput
from dgmm.data.source import Block, Source
from dgmm.engine.anomalies import HISTOGRAM_BYTES, Threshold, threshold_of
from dgmm.engine.blas import one_blas_thread
from dgmm.engine.likelihood import PreparedEStep
from dgmm.engine.memory import Held, check_plan, thread_bytes
from dgmm.engine.model import Model
from dgmm.engine.passes import BlockFunction, Passes, Rows
from dgmm.engine.quantities import Anomalies, Quantity
from dgmm.engine.reach import check_output, check_readable
from dgmm.engine.rowwise import described
from dgmm.engine.scheduler import Scheduler
from dgmm.engine.scheduling import scheduler_for
from dgmm.engine.validity import naming_chunks
from dgmm.engine.writing import write_missing
from dgmm.errors import InvalidData, InvalidParameter, ShapeMismatch


class PredictWork(PreparedEStep):
    """Writes what is wanted of each block, which is a unit of the output; adds up rows written.

    Parameters
    ----------
    model : Model
    output : RowOutput
    wanted : sequence of Quantity
    """

    name = "predict"

    def __init__(self, model: Model, output: RowOutput, wanted: Sequence[Quantity]) -> None:
        super().__init__(model.components(), model.frame)
        self._output = output
        self._wanted = tuple(wanted)

    def prepare(self) -> PredictWork:
        return self

    def begin(self) -> BlockFunction:
        def write(block: Block, weights: Rows | None) -> int:
            self._output.write(block.first, block.first + block.length, described(block, self, self._wanted))
            return block.length

        return write


def check_features(model: Model, source: Source) -> None:
    """Refuse data of other features than the model's.

    Raises
    ------
    ShapeMismatch
        Another number of them.
    InvalidData
        Other names, or another order.
    """
    expected = model.parameters.n_features
    if source.n_features != expected:
        msg = (
            f"{source.name} has {source.n_features} features, but the model was fitted to {expected}. "
            "Pass rows of the same features, in the same order."
        )
        raise ShapeMismatch(msg)
    check_same_names(model.feature_names, source)


def check_same_names(expected: Sequence[str], source: Source) -> None:
    """Refuse data whose features have other names, where both have some.

    Raises
    ------
    InvalidData
    """
    found = source.feature_names
    if not (found and expected) or tuple(found) == tuple(expected):
        return
    at = next((i for i, pair in enumerate(zip(found, expected, strict=False)) if pair[0] != pair[1]), None)
    differ = f"{len(found)} features" if at is None else f"feature {at} called {found[at]!r}"
    wanted = f"{len(expected)}" if at is None else f"{expected[at]!r}"
    msg = (
        f"{source.name} has {differ}, but the model was fitted to {wanted}. "
        "Choose the same variables (columns), in the same order."
    )
    raise InvalidData(msg)


def open_output(
    path: Address,
    source: Source,
    model: Model,
    model_digest: str,
    wanted: Sequence[Quantity],
    dtype: DTypeLike = np.float64,
) -> RowOutput:
    """Create the output of a prediction, or go on with the one that is there.

    Parameters
    ----------
    path : str or path
        A folder, the URL of an object store, or another URL that fsspec understands; of Parquet files if it ends
        in ``.parquet``, else of a Zarr group. Results of a grid have its dimensions and coordinates.
    source : Source
    model : Model
    model_digest : str
        Digest of its file: results of another model are refused.
    wanted : sequence of Quantity
    dtype : dtype
        Of responsibilities.

    Raises
    ------
    ShapeMismatch, InvalidData, ForeignFile, CheckpointMismatch, WriteFailed, MissingExtra
    """
    check_features(model, source)
    k = model.parameters.n_components
    kinds = {name: kind for quantity in wanted for name, kind in quantity.arrays(k).items()}
    arrays = {
        name: Entry((source.n_rows, *kind.trailing), _stored(name, kind.dtype, dtype), kind.columns)
        for name, kind in kinds.items()
    }
    identity = {"model": model_digest, "data": source.fingerprint()}
    for quantity in wanted:
        if isinstance(quantity, Anomalies):
            identity["anomaly_quantile"] = repr(float(quantity.quantile))
    form = output_kind(path)
    if source.box(0) is None:
        return form.open(path, arrays=arrays, chunk_rows=form.unit_rows(source, arrays), identity=identity)
    from dgmm.data.grid import GridSource
    from dgmm.data.grid_output import GridOutput

    assert isinstance(source, GridSource)  # noqa: S101  no other has boxes
    if not issubclass(GridOutput, form):
        msg = (
            f"results of the grid {source.name} go to a Zarr group, not to Parquet: choose a path such as out.zarr"
        )
        raise InvalidParameter(msg)
    return GridOutput(path, arrays, source, {name: kind.dims for name, kind in kinds.items()}).begin(identity)


def _stored(name: str, computed: np.dtype[Any], dtype: DTypeLike) -> np.dtype[Any]:
    if name in ("responsibilities", "top_responsibilities"):
        return np.dtype(dtype)
    return np.dtype(np.int32) if computed.kind == "i" else computed


def recorded_threshold(output: RowOutput) -> Threshold | None:
    """The threshold of the anomalies in an output, once it is known."""
    found = output.recorded("anomalies")
    return Threshold.of(found) if found else None


def predict(
    source: Source,
    model: Model,
    output: RowOutput,
    wanted: Sequence[Quantity],
    on_rows: Callable[[int, int], None] = lambda done, total: None,
) -> int:
    """Write the units that are missing, on the active Dask client if there is one, and mark the output complete.

    Anomalies take a pass more, before anything is written: it finds their threshold, which is recorded with the
    output.

    Parameters
    ----------
    source : Source
    model : Model
    output : RowOutput
        From `open_output`.
    wanted : sequence of Quantity
        The same.
    on_rows : callable
        Hears of rows of the running pass so far, and of its rows in all.

    Returns
    -------
    int
        Rows written; 0 where nothing was missing.

    Raises
    ------
    NotEnoughMemory, NonFiniteData, InvalidData, WriteFailed, ClusterError
    """
    if output.complete:
        return 0

    def vet(scheduler: Scheduler) -> None:
        check_plan(scheduler.memory_per_thread(), _plan(source, model, output), source.rows(output.bounds))
        check_readable(scheduler, source)
        check_output(scheduler, output)

    with one_blas_thread(), naming_chunks(source), scheduler_for(local=source.local, vet=vet) as scheduler:
        for quantity in wanted:
            if isinstance(quantity, Anomalies) and recorded_threshold(output) is None:
                # In the blocks that are written: there the densities have the same bits.
                reading = source.rows(output.bounds)
                counting = Passes(reading, None, scheduler, lambda done: on_rows(done, source.n_rows))
                counted = counting.run(model.density_work())
                output.record("anomalies", threshold_of(counted, source, quantity.quantile).facts())
        work = PredictWork(model, output, [_settled(quantity, output) for quantity in wanted])
        return write_missing(source, output, work, scheduler, on_rows)


def _settled(quantity: Quantity, output: RowOutput) -> Quantity:
    """With the threshold, if it needs one."""
    found = recorded_threshold(output)
    return replace(quantity, threshold=found.threshold) if found and isinstance(quantity, Anomalies) else quantity


def _plan(source: Source, model: Model, output: RowOutput) -> Callable[[Held], int]:
    parameters = model.parameters
    reading = source.rows(output.bounds)
    values = sum(entry.row_values for entry in output.arrays.values())
    # Computed in 8 bytes, converted, and compressed on the way out.
    writing = output.chunk_rows * values * 8 * 3
    if "anomalies" in output.arrays:
        writing = max(writing, HISTOGRAM_BYTES * (reading.n_blocks.bit_length() + 2))
    mixtures = [(parameters.n_components, parameters.covariance)]
    return lambda held: thread_bytes(held, None, mixtures, 0) + writing
