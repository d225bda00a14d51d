"""Rows drawn from a model, written by the workers with bounded memory however many they are."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from dask.utils import format_bytes
from numpy.typing import NDArray

from dgmm.data.address import Address
from dgmm.data.columns import named
from dgmm.data.outputs import output_kind
from dgmm.data.row_arrays import Entry
from dgmm.data.row_output import RowOutput
from dgmm.engine.blas import one_blas_thread
from dgmm.engine.memory import check_need
from dgmm.engine.model import Model
from dgmm.engine.reach import check_output
from dgmm.engine.scheduler import Scheduler
from dgmm.engine.scheduling import scheduler_for

# The bits of a draw depend on these two.
UNIT_ROWS = 65536
UNIT_BYTES = 8 * 2**20
LOCAL_BYTES = 256 * 2**20
"""A smaller draw is done (in about 2 s a core) before a cluster would have started."""

_TASK_BYTES = 64 * 2**20
_MOST_TASKS = 4096


@dataclass(frozen=True, eq=False)
class Draw:
    """Rows to be drawn from a model, ordered by component.

    Each unit of rows has a seed of its own: the rows depend on the model, their number and the seed only.

    Attributes
    ----------
    model : Model
    n_rows : int
    seed : int
    """

    model: Model
    n_rows: int
    seed: int

    @property
    def local(self) -> bool:
        """So few that this process draws them itself."""
        return self.n_rows * self.model.parameters.n_features * 8 <= LOCAL_BYTES

    @cached_property
    def _ends(self) -> NDArray[np.int64]:
        """Where the rows of each component end, (K,)."""
        weights = self.model.parameters.weights
        return np.cumsum(np.random.default_rng(self.seed).multinomial(self.n_rows, weights / weights.sum()))

    def rows(self, start: int, stop: int) -> dict[str, NDArray[Any]]:
        """A unit of `rows` (n, D) in data units and `labels` (n,)."""
        parameters, frame = self.model.parameters, self.model.frame
        labels = np.searchsorted(self._ends, np.arange(start, stop), side="right").astype(np.int32)
        own_seed = np.random.SeedSequence(self.seed, spawn_key=(start,))
        noise = np.random.default_rng(own_seed).standard_normal((stop - start, parameters.n_features))
        rows = np.empty_like(noise)
        for k in np.unique(labels):
            own = labels == k
            coloured = parameters.covariance.colour(noise[own], parameters.covariances, int(k))
            rows[own] = parameters.means[k] + coloured
        return {"rows": rows * frame.scale + frame.shift, "labels": labels}

    def open(self, path: Address, model_digest: str) -> RowOutput:
        """Create the output, or go on with the one that is there.

        Parameters
        ----------
        path : str or path
            A folder, or a URL that fsspec understands; of Parquet files if it ends in ``.parquet``, else of a
            Zarr group.
        model_digest : str
            Digest of the model's file.

        Raises
        ------
        ForeignFile, CheckpointMismatch
            The output holds something else.
        WriteFailed, MissingExtra
        """
        d = self.model.parameters.n_features
        columns = named(self.model.feature_names, d)
        output = output_kind(path).open(
            path,
            arrays={
                "rows": Entry((self.n_rows, d), np.dtype(np.float64), columns),
                "labels": Entry((self.n_rows,), np.dtype(np.int32), ("label",)),
            },
            chunk_rows=max(1, min(UNIT_ROWS, UNIT_BYTES // (8 * d))),
            identity={"model": model_digest, "rows": str(self.n_rows), "seed": str(self.seed)},
        )
        output.describe_features(self.model.feature_names)
        return output


def draw(wanted: Draw, output: RowOutput, on_rows: Callable[[int, int], None] = lambda done, total: None) -> int:
    """Write the units that are missing, on the active Dask client if there is one, and mark the output complete.

    Parameters
    ----------
    wanted : Draw
    output : RowOutput
        That it opened.
    on_rows : callable
        Hears of rows drawn so far, and of rows to draw.

    Returns
    -------
    int
        Rows written; 0 where nothing was missing.

    Raises
    ------
    NotEnoughMemory, UnreachablePath, WriteFailed, ClusterError
    """
    if output.complete:
        return 0

    def vet(scheduler: Scheduler) -> None:
        what = f"drawing rows of {output.path} (a unit of {format_bytes(UNIT_BYTES)}, and the model)"
        check_need(scheduler.memory_per_thread(), _thread_bytes(wanted, output), what)
        check_output(scheduler, output)

    missing = output.missing_units()
    to_write = sum(stop - start for start, stop in missing)
    row_bytes = sum(entry.row_bytes for entry in output.arrays.values())
    worth = max(1, _TASK_BYTES // (output.chunk_rows * row_bytes), -(-len(missing) // _MOST_TASKS))
    batches = [missing[first : first + worth] for first in range(0, len(missing), worth)]
    written = 0
    with one_blas_thread(), scheduler_for(local=wanted.local, vet=vet) as scheduler:
        for _, rows in scheduler.map(write_units, (wanted, output), batches):
            written += rows
            on_rows(written, to_write)
    output.finish()
    return written


def write_units(shared: tuple[Draw, RowOutput], units: Sequence[tuple[int, int]]) -> int:
    wanted, output = shared
    for start, stop in units:
        output.write(start, stop, wanted.rows(start, stop))
    return sum(stop - start for start, stop in units)


def _thread_bytes(wanted: Draw, output: RowOutput) -> int:
    parameters = wanted.model.parameters
    unit = min(output.chunk_rows, wanted.n_rows) * (8 * parameters.n_features + 4)
    # Noise, its part of a component, coloured and moved; rows, in data units, and compressed on the way out. The
    # model once more than the worker's own, as it arrives.
    return 8 * unit + 2 * (parameters.covariances.nbytes + parameters.means.nbytes)
