"""The memory plan: what a pass needs, computed and checked before its first task."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from dask.utils import format_bytes

from dgmm.data.source import Source
from dgmm.errors import NotEnoughMemory
from dgmm.mixture.components import two_gemms_pay
from dgmm.mixture.covariance_type import CovarianceType
from dgmm.mixture.tiling import STRIP, compiled_tile_rows, tile_rows, worth_compiling

# A worker that has imported Dask, Zarr and scikit-learn, which imports pandas and pyarrow where they are: measured
# 170-225 MiB; with allocator slack.
PROCESS_BYTES = 300 << 20
# More of a worker that compiles the kernel, when it is new on a machine: measured 100 MiB from the cache on disk,
# twice that amid compiling, when nothing else needs memory yet.
COMPILER_BYTES = 110 << 20
# Of a process's memory, what blocks that are kept between passes may fill, together with the plan: Dask's workers
# write results to disk at 0.7 of it and pause at 0.8.
KEPT_SHARE = 0.6


@dataclass(frozen=True)
class Plan:
    """The memory plan of a fit.

    Attributes
    ----------
    thread_bytes : int
        Planned for a process with one thread.
    available_bytes : int or None
        What a thread may use; None where nothing limits it.
    kept_bytes : int
        Of the decoded data, what stays in memory from the first pass on, in all processes together.
    data_bytes : int
        The decoded data.
    """

    thread_bytes: int
    available_bytes: int | None
    kept_bytes: int
    data_bytes: int


def thread_bytes(
    source: Source,
    weights: Source | None,
    mixtures: Sequence[tuple[int, CovarianceType]],
    sample_rows: int,
) -> int:
    """Bytes that one worker thread needs at most, whatever the number of rows.

    Parameters
    ----------
    source, weights : Source
        Two blocks each: the one being computed and the next being read.
    mixtures : sequence of (int, CovarianceType)
        Those that a pass takes in lockstep: the number of components of each, and its covariances.
    sample_rows : int
        Rows of the scan's sample.
    """
    d = source.n_features
    block_rows = int((source.bounds[1:] - source.bounds[:-1]).max())
    reading = source.read_bytes + block_rows * d * source.dtype.itemsize
    if weights is not None:
        reading += weights.read_bytes + block_rows * 8
    components: dict[CovarianceType, list[int]] = {}
    for k, covariance in mixtures:
        components.setdefault(covariance, []).append(k)
    buffers = sum(_buffer_bytes(source, block_rows, ks, covariance) for covariance, ks in components.items())
    levels = max(source.n_blocks, 1).bit_length() + 2
    sums = sum(_mixture_bytes(k, d, covariance, levels) for k, covariance in mixtures)
    # The scan holds samples where the E-step holds statistics.
    sample = sample_rows * (d * source.dtype.itemsize + 24)
    passing = reading + max(buffers + sums, 4 * sample + 4096 * d * 16)
    # A task of the search: the sample; in the frame, whitened, in part; the posterior of each component.
    largest = max((k for k, _ in mixtures), default=0)
    searching = sample + sample_rows * 8 * (4 * d + largest + 8) + buffers + sums
    return max(passing, searching)


def compiled_bytes(n_rows: int, d: int, mixtures: Sequence[tuple[int, CovarianceType]]) -> int:
    """Bytes that a thread needs besides, to fit mixtures to so many rows of D features by the compiled kernel."""
    needed = 0
    for k, covariance in mixtures:
        f = covariance.n_features(d)
        if two_gemms_pay(k, d, f) and worth_compiling(n_rows, k, f):
            tile, whitening = compiled_tile_rows(k, f), covariance.n_quadratic(d) > d
            needed += 8 * ((f + k + 2 + d) * tile + 3 * k * f + 2 * d * d)
            needed += 4 * k * (STRIP * tile + d * (d + STRIP)) if whitening else 0
    return needed + COMPILER_BYTES if needed else 0


def keepable_bytes(n_threads: int, memory: int | None, per_thread: int) -> int:
    """Bytes of blocks that a process may keep between passes, beside the work of its threads.

    Parameters
    ----------
    n_threads : int
    memory : int or None
        That the process may use; None where nothing limits it, and nothing is known.
    per_thread : int
        Bytes, from `thread_bytes` and `compiled_bytes`.
    """
    return max(0, int(KEPT_SHARE * (memory or 0)) - PROCESS_BYTES - n_threads * per_thread)


def _buffer_bytes(source: Source, block_rows: int, components: Sequence[int], covariance: CovarianceType) -> int:
    """Buffers of a tile, for mixtures of so many components each and one covariance type.

    Those for which two GEMMs pay share a feature matrix; the others, and any that the guard centres, the rows.
    """
    d = source.n_features
    features = covariance.n_features(d)
    pay = [k for k in components if two_gemms_pay(k, d, features)]
    # Of float32 rows both precisions may be needed.
    each = 8 if source.dtype == np.float64 else 12

    def tile_bytes(k: int, f: int) -> int:
        kept, temporary = max(f, d + 1) + k + 3, 3 * d + 2
        return (kept * each + temporary * 8) * min(tile_rows(k, f), block_rows)

    # Which mixture has the most components of its group, and so sets the tile, is up to the guard.
    groups = [max(tile_bytes(k, f) for k in ks) for f, ks in ((d, components), (features, pay)) if ks]
    return sum(sorted(groups)[-len(components) :])


def _mixture_bytes(k: int, d: int, covariance: CovarianceType, levels: int) -> int:
    """What a mixture needs for itself: natural parameters, matrices, and a partial sum of statistics a level."""
    features = covariance.n_features(d)
    if not two_gemms_pay(k, d, features):
        features = d
    statistics = (2 * k * d + k * covariance.n_quadratic(d) + k) * 8
    matrices = 3 * k * d * d * 8 if covariance.n_quadratic(d) > d else 0
    return levels * statistics + matrices + k * features * 12


def check_plan(available: int | None, per_thread: int, data: str) -> int:
    """Compare the plan of a pass with what a worker has.

    Parameters
    ----------
    available : int or None
        Bytes that a worker thread may use; None where nothing limits them.
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
    what = f"a pass over {data} (two blocks of rows, buffers, statistics)"
    return check_need(available, per_thread, what, ", or store the data in smaller chunks of rows (dgmm convert)")


def check_need(available: int | None, per_thread: int, what: str, remedy: str = "") -> int:
    """The same for other work.

    Parameters
    ----------
    what : str
        What messages call the work.
    remedy : str
        What helps besides more memory and fewer threads.
    """
    planned = PROCESS_BYTES + per_thread
    if available is not None and planned > available:
        msg = (
            f"{what} needs {format_bytes(planned)} a worker thread, but the smallest worker has "
            f"{format_bytes(available)} a thread. Give workers more memory or fewer threads{remedy}."
        )
        raise NotEnoughMemory(msg)
    return planned
