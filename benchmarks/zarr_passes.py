"""A pass from Zarr against its parts: reading alone, computing alone; by codec, from memory and from a cold disk.

And passes that keep blocks in the memory of the processes: the first, and the next.

    python benchmarks/zarr_passes.py FOLDER [--gigabytes 1.6] [--bits 8] [--repeats 3] [--workers 1 2]

Writes float32 rows (10 features, K=16, full) to FOLDER/rows-CODEC.zarr, if they are not there, in chunks of 4 MB:
not compressed, and by Blosc's lz4 and zstd; with all bits of the mantissa, and with so many, as measured data
often are. Passes run in threads of this process and on workers with one thread each, which are processes. *Cold*:
the system is told to forget the files before each pass.

Columns: seconds of reading alone, of computing alone (rows in memory), of a pass, and that over the larger of the
two; rows per second; seconds of a first pass that keeps blocks and of the next ones, CPU time of these over that
of computing alone, the share of the data that may be kept; on workers, the share of a pass not in leaf tasks.
"""

from __future__ import annotations

import argparse
import os
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import dask
import numpy as np
import zarr
from distributed import Client, LocalCluster
from em_iteration import generate
from zarr.codecs import BloscCodec

from dgmm.data.opening import open_source
from dgmm.data.source import Source
from dgmm.engine.blas import one_blas_thread
from dgmm.engine.keeping import Keeping
from dgmm.engine.likelihood import Candidate, LockstepWork
from dgmm.engine.memory import Held, thread_bytes
from dgmm.engine.passes import Passes
from dgmm.engine.scheduler import Scheduler
from dgmm.engine.scheduling import scheduler_for
from dgmm.mixture.covariance import FULL
from dgmm.mixture.frame import Frame

CODECS = {
    "none": None,
    "lz4": BloscCodec(cname="lz4", clevel=5, shuffle="shuffle"),
    "zstd": BloscCodec(cname="zstd", clevel=3, shuffle="shuffle"),
}
N_FEATURES, N_COMPONENTS, CHUNK_ROWS = 10, 16, 100_000


class Read:
    """A pass that only reads."""

    name = "read"

    def prepare(self) -> Read:
        return self

    def begin(self) -> Callable[[Any, Any], int]:
        return lambda block, weights: len(block.rows)


def rounded(rows: np.ndarray, bits: int) -> np.ndarray:
    """The rows in float32 with so many bits of the mantissa."""
    step = np.uint32(1 << (23 - bits))
    return ((rows.astype(np.float32).view(np.uint32) + step // 2) & ~(step - np.uint32(1))).view(np.float32)


def write(folder: Path, gigabytes: float, bits: int) -> dict[str, Path]:
    """Store the rows by each codec; paths by name."""
    n = max(int(gigabytes * 1e9 / (4 * N_FEATURES)) // CHUNK_ROWS, 1) * CHUNK_ROWS
    _, truth = generate(1, N_FEATURES, N_COMPONENTS, "full", seed=0)
    paths = {}
    for kind in ("all bits", "rounded"):
        for codec, compressor in CODECS.items():
            path = folder / f"rows-{codec}{'-rounded' if kind == 'rounded' else ''}.zarr"
            if kind == "rounded" and codec == "none":
                continue
            paths[f"{codec}, {kind}"] = path
            if path.exists():
                continue
            array = zarr.create_array(
                path, shape=(n, N_FEATURES), chunks=(CHUNK_ROWS, N_FEATURES), dtype="f4", compressors=compressor
            )
            for first in range(0, n, CHUNK_ROWS):
                rng = np.random.default_rng(first)
                rows = truth.sample(CHUNK_ROWS, rng)[0][rng.permutation(CHUNK_ROWS)]
                array[first : first + CHUNK_ROWS] = rounded(rows, bits) if kind == "rounded" else rows
    return paths


def forget(path: Path) -> None:
    """Drop the files of a store from the system's cache."""
    os.sync()
    for file in path.rglob("*"):
        if file.is_file():
            descriptor = os.open(file, os.O_RDONLY)
            os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
            os.close(descriptor)


def seconds(
    function: Callable[[], object],
    repeats: int,
    before: Callable[[], object] = lambda: None,
    clock: Callable[[], float] = time.perf_counter,
) -> float:
    """Median time of a call, by the wall's clock."""
    times = []
    for _ in range(repeats):
        before()
        began = clock()
        function()
        times.append(clock() - began)
    return statistics.median(times)


def candidate() -> Candidate:
    """The generating mixture."""
    rows, truth = generate(50_000, N_FEATURES, N_COMPONENTS, "full", seed=0)
    frame = Frame.from_sample(rows, isotropic=False)
    radius = float(np.quantile(np.sum(frame.apply(rows) ** 2, axis=1), 0.999))
    return Candidate(truth.to_frame(frame), frame, radius)


def leaf_seconds(client: Client) -> float:
    """Seconds that workers have spent in leaf tasks so far."""
    prefixes = client.run_on_scheduler(
        lambda dask_scheduler: [
            (name, dict(prefix.all_durations)) for name, prefix in dask_scheduler.task_prefixes.items()
        ]
    )
    return sum(durations.get("compute", 0.0) for name, durations in prefixes if "leaf" in name)


def kept_passes(source: Source, scheduler: Scheduler, work: LockstepWork, repeats: int) -> tuple[float, ...]:
    """Seconds of a first pass that keeps blocks, of the next ones, their CPU time; the share that may be kept."""
    mixtures = [(N_COMPONENTS, FULL)]
    need = thread_bytes(Held.of(source), None, mixtures, 0, source.n_rows)
    keeping = Keeping(source)
    share = keeping.plan(scheduler.processes(), need, 0) / (source.n_rows * N_FEATURES * 4)
    passes = Passes(source, None, scheduler, keeping=keeping)
    first = seconds(lambda: passes.run(work), 1)
    later = seconds(lambda: passes.run(work), repeats)
    own = seconds(lambda: passes.run(work), repeats, clock=time.process_time)
    keeping.end(scheduler)
    return first, later, own, min(share, 1.0)


def measure(where: str, name: str, path: Path, options: argparse.Namespace, client: Client | None) -> None:
    """A line for a store, and in threads another one from a cold disk."""
    mixture, repeats = candidate(), options.repeats
    source, memory = open_source(str(path)), open_source(zarr.open_array(path, mode="r")[: 20 * CHUNK_ROWS])
    work = LockstepWork([mixture], source.dtype, source.n_rows)
    size = sum(file.stat().st_size for file in path.rglob("*") if file.is_file())

    def tell(where: str, read: float, compute: float, spent: float, rest: str = "") -> None:
        print(
            f"{where:15} {name:18} {size / 1e6:6.0f}{read:8.2f}{compute:8.2f}{spent:8.2f}"
            f"{spent / np.nanmax([read, compute]):7.2f}{source.n_rows / spent / 1e6:9.2f}{rest}",
            flush=True,
        )

    with one_blas_thread(), scheduler_for(local=client is None) as scheduler:
        passes, alone = Passes(source, None, scheduler), Passes(memory, None, scheduler)
        passes.run(work)
        read, compute, own = seconds(lambda: passes.run(Read()), repeats), np.nan, np.nan
        if client is None:
            alone.run(work)
            scale = source.n_rows / memory.n_rows
            compute = seconds(lambda: alone.run(work), repeats) * scale
            own = seconds(lambda: alone.run(work), repeats, clock=time.process_time) * scale
        before = leaf_seconds(client) if client else 0.0
        spent = seconds(lambda: passes.run(work), repeats)
        leaves = (leaf_seconds(client) - before) / repeats / len(client.nthreads()) if client else np.nan
        first, later, kept_own, share = kept_passes(source, scheduler, work, repeats)
        kept = f"{first:8.2f}{later:8.2f}{kept_own / own:7.2f}{share:6.0%}"
        tell(where, read, compute, spent, kept + (f"{1 - leaves / spent:15.1%}" if client else ""))
        if client is None:
            read = seconds(lambda: passes.run(Read()), repeats, lambda: forget(path))
            tell(f"{where}, cold", read, compute, seconds(lambda: passes.run(work), repeats, lambda: forget(path)))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--gigabytes", type=float, default=1.6)
    parser.add_argument("--bits", type=int, default=8)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--workers", type=int, nargs="*", default=[1, 2])
    options = parser.parse_args()
    options.folder.mkdir(parents=True, exist_ok=True)
    paths = write(options.folder, options.gigabytes, options.bits)
    print(
        f"{'where':15} {'codec':18} {'MB':>6}{'read':>8}{'compute':>8}{'pass':>8}{'ratio':>7}{'Mrows/s':>9}"
        f"{'first':>8}{'next':>8}{'CPU':>7}{'kept':>6}{'not in leaves':>15}"
    )
    for threads in (1, 2):
        with dask.config.set(num_workers=threads):
            for name, path in paths.items():
                measure(f"{threads} threads", name, path, options, None)
    for workers in options.workers:
        with (
            LocalCluster(
                n_workers=workers, threads_per_worker=1, memory_limit="2GiB", dashboard_address="127.0.0.1:0"
            ) as cluster,
            Client(cluster) as client,
        ):
            for name, path in paths.items():
                measure(f"{workers} workers", name, path, options, client)


if __name__ == "__main__":
    main()
