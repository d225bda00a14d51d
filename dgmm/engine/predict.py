"""What a model says of each row, written to Zarr by the workers, unit by unit."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from dgmm.data.address import Address
from dgmm.data.output import RowOutput, unit_rows
from dgmm.data.source import Block, Source
from dgmm.engine.blas import one_blas_thread
from dgmm.engine.likelihood import PreparedEStep
from dgmm.engine.memory import check_plan, thread_bytes
from dgmm.engine.model import Model
from dgmm.engine.passes import BlockFunction, Passes, Rows
from dgmm.engine.reach import check_output, check_readable
from dgmm.engine.rowwise import Quantity, described
from dgmm.engine.scheduling import Scheduler, scheduler_for
from dgmm.engine.validity import naming_chunks
from dgmm.errors import InvalidData, ShapeMismatch


class PredictWork(PreparedEStep):
    """Writes what is wanted of each block, which is a unit of the output; adds up rows written.

    Parameters
    ----------
    model : Model
    output : RowOutput
    """

    name = "predict"

    def __init__(self, model: Model, output: RowOutput) -> None:
        super().__init__(model.components(), model.frame)
        self._output = output

    def prepare(self) -> PredictWork:
        return self

    def begin(self) -> BlockFunction:
        wanted: Sequence[Any] = list(self._output.arrays)

        def write(block: Block, weights: Rows | None) -> int:
            self._output.write(block.first, block.first + block.length, described(block, self, wanted))
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
        A folder, the URL of an object store, or another URL that fsspec understands.
    source : Source
    model : Model
    model_digest : str
        Digest of its file: results of another model are refused.
    wanted : sequence of {'labels', 'responsibilities', 'log_density'}
    dtype : dtype
        Of responsibilities.

    Raises
    ------
    ShapeMismatch, ForeignFile, CheckpointMismatch, WriteFailed
    """
    check_features(model, source)
    n, k = source.n_rows, model.parameters.n_components
    layouts: dict[str, tuple[tuple[int, ...], np.dtype[Any]]] = {
        "labels": ((n,), np.dtype(np.int32)),
        "responsibilities": ((n, k), np.dtype(dtype)),
        "log_density": ((n,), np.dtype(np.float64)),
    }
    arrays = {str(name): layouts[name] for name in wanted}
    widest = max(int(np.prod(shape[1:])) * dtype.itemsize for shape, dtype in arrays.values())
    chunk_rows = unit_rows(source.bounds, widest)
    identity = {"model": model_digest, "data": source.fingerprint()}
    return RowOutput.open(path, arrays=arrays, chunk_rows=chunk_rows, identity=identity)


def predict(
    source: Source,
    model: Model,
    output: RowOutput,
    on_rows: Callable[[int, int], None] = lambda done, total: None,
) -> int:
    """Write the units that are missing, on the active Dask client if there is one, and mark the output complete.

    Parameters
    ----------
    source : Source
    model : Model
    output : RowOutput
        From `open_output`.
    on_rows : callable
        Hears of rows written so far, and of rows to write.

    Returns
    -------
    int
        Rows written; 0 where nothing was missing.

    Raises
    ------
    NotEnoughMemory, NonFiniteData, WriteFailed, ClusterError
    """
    if output.complete:
        return 0
    stretches = _stretches(output.missing_units())
    to_write = sum(int(bounds[-1] - bounds[0]) for bounds in stretches)
    written = 0

    def vet(scheduler: Scheduler) -> None:
        check_plan(scheduler.memory_per_thread(), _thread_bytes(source, model, output), source.name)
        check_readable(scheduler, source)
        check_output(scheduler, output)

    with one_blas_thread(), naming_chunks(source), scheduler_for(local=source.local, vet=vet) as scheduler:
        for bounds in stretches:

            def count(done: int, before: int = written) -> None:
                on_rows(before + done, to_write)

            passes = Passes(source.rows(bounds), None, scheduler, count)
            written += int(passes.run(PredictWork(model, output)))
    output.finish()
    return written


def _stretches(units: list[tuple[int, int]]) -> list[NDArray[np.int64]]:
    """Bounds of the units, a list for each stretch without a gap; an interrupted run leaves few."""
    stretches: list[list[int]] = []
    for start, stop in units:
        if stretches and stretches[-1][-1] == start:
            stretches[-1].append(stop)
        else:
            stretches.append([start, stop])
    return [np.array(bounds, dtype=np.int64) for bounds in stretches]


def _thread_bytes(source: Source, model: Model, output: RowOutput) -> int:
    parameters = model.parameters
    reading = source.rows(output.bounds)
    values = sum(int(np.prod(shape[1:])) for shape, _ in output.arrays.values())
    # Computed in 8 bytes, converted, and compressed on the way out.
    writing = output.chunk_rows * values * 8 * 3
    return thread_bytes(reading, None, [(parameters.n_components, parameters.covariance)], 0) + writing
