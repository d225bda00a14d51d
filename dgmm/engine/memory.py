"""The memory plan: what a pass needs, computed and checked before its first task."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any, NamedTuple

import numpy as np
from dask.utils import format_bytes

from dgmm.data.row_arrays import Entry
from dgmm.data.source import Source
from dgmm.data.zarr_output import ZarrOutput
from dgmm.errors import NotEnoughMemory
from dgmm.mixture.components import two_gemms_pay
from dgmm.mixture.covariance_type import CovarianceType
from dgmm.mixture.tiling import STRIP, compiled_tile_rows, tile_rows, worth_compiling

# A worker that has imported Dask, Zarr and scikit-learn: measured 175 MiB. Scikit-learn imports pandas, and that
# pyarrow, where they are installed: measured 258 MiB.
PROCESS_BYTES = (280 if find_spec("pandas") else 195) << 20
# More of a worker that loads the kernel from the cache on disk: measured 105 MiB. Where it is new on a machine it
# is compiled first, before it has buffers: measured 170 MiB.
_KERNEL_CODE_BYTES = 110 << 20
_COMPILER_BYTES = 175 << 20
# Of a process's memory, what blocks that are kept between passes may fill, together with the plan: Dask's workers
# write results to disk at 0.7 of it and pause at 0.8.
KEPT_SHARE = 0.6


class Held(NamedTuple):
    """What the plan has to know of data in blocks.

    Attributes
    ----------
    n_features : int
    dtype : dtype
    n_blocks : int
    block_rows : int
        The most rows of a block.
    read_bytes : int
        See `Source.read_bytes`.
    """

    n_features: int
    dtype: np.dtype[Any]
    n_blocks: int
    block_rows: int
    read_bytes: int

    @classmethod
    def of(cls, source: Source) -> Held:
        """As they are stored."""
        block_rows = int((source.bounds[1:] - source.bounds[:-1]).max())
        return cls(source.n_features, source.dtype, source.n_blocks, block_rows, source.read_bytes)

    @classmethod
    def converted(cls, source: Source) -> Held:
        """As `dgmm convert` would store them: a block is decoded and copied, beside its compressed bytes."""
        entry = Entry((source.n_rows, source.n_features), source.dtype)
        rows = min(ZarrOutput.usual_rows({"rows": entry}), source.n_rows)
        return cls(source.n_features, source.dtype, -(-source.n_rows // rows), rows, 3 * rows * entry.row_bytes)


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
    held: Held,
    weights: Held | None,
    mixtures: Sequence[tuple[int, CovarianceType]],
    sample_rows: int,
    n_rows: int = 0,
) -> int:
    """Bytes that one worker thread needs at most, whatever the number of rows.

    Parameters
    ----------
    held, weights : Held
        Two blocks each: the one being computed and the next being read.
    mixtures : sequence of (int, CovarianceType)
        Those that a pass takes in lockstep: the number of components of each, and its covariances.
    sample_rows : int
        Rows of the scan's sample.
    n_rows : int
        Of the data, where many are worth compiling for.
    """
    d, row_bytes = held.n_features, held.n_features * held.dtype.itemsize
    reading = held.read_bytes + held.block_rows * row_bytes
    if weights is not None:
        reading += weights.read_bytes + held.block_rows * 8
    components: dict[CovarianceType, list[int]] = {}
    for k, covariance in mixtures:
        components.setdefault(covariance, []).append(k)
    buffers = sum(_buffer_bytes(held, ks, covariance) for covariance, ks in components.items())
    kernel = kernel_bytes(n_rows, d, mixtures)
    before = buffers + sum(_mixture_bytes(k, d, covariance) for k, covariance in mixtures)
    e_step = before + kernel
    # A sum for each level of the tree, the one that is being added, and the new one.
    levels = max(held.n_blocks, 1).bit_length() + 1
    statistics = sum(_statistics_bytes(k, d, covariance) for k, covariance in mixtures)
    # The scan numbers the rows of a block, all of which may be drawn where they are weighted; it adds samples.
    sample = sample_rows * (row_bytes + 24)
    numbered = held.block_rows * (8 if weights is None else row_bytes + 64)
    scanning = numbered + 4 * sample + 4096 * d * 16
    passing = reading + max(e_step + levels * statistics, scanning)
    # A task of the search: the sample as it arrives and unpacked; then in the frame, one component's rows of it,
    # these whitened or as features, and responsibilities of some components; or in the frame, and responsibilities
    # of pairs; or an E-step of one mixture.
    matrices = max((_matrix_bytes(k, d, covariance) for k, covariance in mixtures), default=0)
    starting = sample_rows * 8 * (3 * d + max(d, 32) + 32) + 4 * matrices
    searching = 2 * sample + max(starting, e_step + matrices)
    if not kernel:
        return max(passing, searching)
    return max(max(passing, searching) + _KERNEL_CODE_BYTES, max(reading, 2 * sample) + before + _COMPILER_BYTES)


def fit_plan(
    source: Source, weights: Source | None, mixtures: Sequence[tuple[int, CovarianceType]], sample_rows: int
) -> Callable[[Held], int]:
    """The plan of a fit, for its data in some blocks; see `thread_bytes`."""
    weighing = None if weights is None else Held.of(weights)
    return lambda held: thread_bytes(held, weighing, mixtures, sample_rows, source.n_rows)


def kernel_bytes(n_rows: int, d: int, mixtures: Sequence[tuple[int, CovarianceType]]) -> int:
    """Buffers of the compiled kernel, for mixtures that so many rows of D features are worth compiling for."""
    needed = 0
    for k, covariance in mixtures:
        f = covariance.n_features(d)
        if two_gemms_pay(k, d, f) and worth_compiling(n_rows, k, f):
            tile, whitening = compiled_tile_rows(k, f), covariance.n_quadratic(d) > d
            room, strips = 4 * tile * (f + 2 * k + 2 + d), 2 * k * (2 * STRIP * tile + d * (d + STRIP))
            # In double precision, or in single precision with whitened rows; products of a tile.
            needed += room + max(room, strips if whitening else 0) + 8 * (k * f + 2 * d * d)
    return needed


def keepable_bytes(n_threads: int, memory: int | None, per_thread: int) -> int:
    """Bytes of blocks that a process may keep between passes, beside the work of its threads.

    Parameters
    ----------
    n_threads : int
    memory : int or None
        That the process may use; None where nothing limits it, and nothing is known.
    per_thread : int
        Bytes, from `thread_bytes`.
    """
    return max(0, int(KEPT_SHARE * (memory or 0)) - PROCESS_BYTES - n_threads * per_thread)


def _buffer_bytes(held: Held, components: Sequence[int], covariance: CovarianceType) -> int:
    """Buffers of a tile, for mixtures of so many components each and one covariance type.

    Those for which two GEMMs pay share a feature matrix; the others, and any that the guard centres, the rows.
    """
    d = held.n_features
    features = covariance.n_features(d)
    pay = [k for k in components if two_gemms_pay(k, d, features)]
    # Of float32 rows both precisions may be needed.
    each = 8 if held.dtype == np.float64 else 12

    def tile_bytes(k: int, f: int) -> int:
        kept, temporary = max(f, d + 1) + k + 3, 3 * d + 2
        return (kept * each + temporary * 8) * min(tile_rows(k, f), held.block_rows)

    # Which mixture has the most components of its group, and so sets the tile, is up to the guard.
    groups = [max(tile_bytes(k, f) for k in ks) for f, ks in ((d, components), (features, pay)) if ks]
    return sum(sorted(groups)[-len(components) :])


def _mixture_bytes(k: int, d: int, covariance: CovarianceType) -> int:
    """What a mixture needs for itself in an E-step, but for sums of statistics.

    Parameters as they arrive and unpacked, Cholesky factors; natural parameters in both precisions; the statistics
    of a block before and after they are split into moments.
    """
    features = covariance.n_features(d)
    theta = k * features * 20 if two_gemms_pay(k, d, features) else 0
    return 3 * _matrix_bytes(k, d, covariance) + theta + _statistics_bytes(k, d, covariance)


def _matrix_bytes(k: int, d: int, covariance: CovarianceType) -> int:
    """Covariances in full: what is as large as they are."""
    return int(np.prod(covariance.shape(k, d))) * 8


def _statistics_bytes(k: int, d: int, covariance: CovarianceType) -> int:
    return (2 * k * d + (1 if covariance.pooled else k) * covariance.n_quadratic(d) + k) * 8


def check_plan(available: int | None, plan: Callable[[Held], int], source: Source) -> int:
    """Compare the plan of a pass with what a worker has.

    Parameters
    ----------
    available : int or None
        Bytes that a worker thread may use; None where nothing limits them.
    plan : callable
        Bytes, from `thread_bytes`, for the data in some blocks.
    source : Source

    Returns
    -------
    int
        Planned bytes of a worker process with one thread.

    Raises
    ------
    NotEnoughMemory
        Naming both figures, and what would fit.
    """
    what = f"a pass over {source.name} (two blocks of rows, buffers, statistics)"
    stored, better = Held.of(source), Held.converted(source)
    converted = PROCESS_BYTES + plan(better)
    chunks = f"chunks of {better.block_rows:,} rows, as dgmm convert writes them, need {format_bytes(converted)}"
    if stored.block_rows <= better.block_rows:
        remedy = "; smaller chunks of rows would not help"
    elif available is not None and converted > available:
        remedy = f"; {chunks}: smaller chunks alone do not help"
    else:
        remedy = (
            f". Or store the data in smaller chunks of rows (dgmm convert {source.address or 'IN'} OUT): {chunks}"
        )
    return check_need(available, plan(stored), what, remedy)


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
            f"{format_bytes(available)} a thread. Give workers {format_bytes(planned)} for each thread, or start "
            f"one thread (or worker) with the memory of {-(-planned // max(available, 1))}{remedy}."
        )
        raise NotEnoughMemory(msg)
    return planned
