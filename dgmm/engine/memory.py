"""The memory plan: what a pass needs, computed and checked before its first task."""

from __future__ import annotations

from dask.utils import format_bytes

from dgmm.data.source import Source
from dgmm.engine.scheduling import Scheduler
from dgmm.errors import NotEnoughMemory
from dgmm.mixture.components import two_gemms_pay
from dgmm.mixture.covariance_type import CovarianceType
from dgmm.mixture.expectation import tile_rows

# A worker that has imported Dask, Zarr and scikit-learn, measured 170-200 MiB; with allocator slack.
PROCESS_BYTES = 250 << 20


def thread_bytes(
    source: Source,
    weights: Source | None,
    n_components: int,
    covariance: CovarianceType,
    sample_rows: int,
) -> int:
    """Bytes that one worker thread needs at most, whatever the number of rows.

    Parameters
    ----------
    source, weights : Source
        Two blocks each: the one being computed and the next being read.
    n_components : int
    covariance : CovarianceType
    sample_rows : int
        Rows of the scan's sample.
    """
    k, d = n_components, source.n_features
    block_rows = int((source.bounds[1:] - source.bounds[:-1]).max())
    reading = source.read_bytes + block_rows * d * source.dtype.itemsize
    if weights is not None:
        reading += weights.read_bytes + block_rows * 8
    features = covariance.n_features(d)
    if not two_gemms_pay(k, d, features):
        features = d
    tile = tile_rows(k, features)
    buffers = (features + 2 * k + 4 * d) * min(tile, block_rows) * 8
    statistics = (2 * k * d + k * covariance.n_quadratic(d) + k) * 8
    levels = max(source.n_blocks, 1).bit_length() + 2
    matrices = 3 * k * d * d * 8 if covariance.n_quadratic(d) > d else 0
    e_step = buffers + levels * statistics + matrices + k * features * 12
    # The scan holds samples where the E-step holds statistics.
    sample = sample_rows * (d * source.dtype.itemsize + 24)
    return reading + max(e_step, 4 * sample + 4096 * d * 16)


def check_plan(scheduler: Scheduler, per_thread: int, data: str) -> int:
    """Compare the plan with what a worker has.

    Parameters
    ----------
    scheduler : Scheduler
    per_thread : int
        Bytes, from `thread_bytes`.
    data : str
        What messages call the data.

    Returns
    -------
    int
        Planned bytes of a worker process with one thread.

    Raises
    ------
    NotEnoughMemory
        Naming both figures.
    """
    planned = PROCESS_BYTES + per_thread
    available = scheduler.memory_per_thread()
    if available is not None and planned > available:
        msg = (
            f"a pass over {data} needs {format_bytes(planned)} a worker thread (two blocks of rows, buffers, "
            f"statistics), but the smallest worker has {format_bytes(available)} a thread. Give workers more "
            "memory, fewer threads, or store the data in smaller chunks of rows."
        )
        raise NotEnoughMemory(msg)
    return planned
