"""A billion rows on two cores: written chunk by chunk, then fitted by `dgmm fit` on 2 workers of 1 GiB.

    python benchmarks/billion.py FOLDER [--rows 1000000000]

Float32 rows of a mixture (10 features, K=16, full covariances) go to FOLDER/billion.zarr, 40 GB, if they are not
there; as many as the disk holds, if those are too many. Prints passes, their time, rows per second, the largest
memory of every process and of all together, and the log-likelihood beside that of the generating mixture, from one
more pass over the same rows.
"""

from __future__ import annotations

import argparse
import multiprocessing
import shutil
import time
from functools import partial
from pathlib import Path

import dask
import numpy as np
import zarr
from em_iteration import generate
from watched import fit

from dgmm.data.opening import open_source
from dgmm.engine.blas import one_blas_thread
from dgmm.engine.likelihood import Candidate, LockstepWork
from dgmm.engine.passes import Passes
from dgmm.engine.threads import LocalScheduler
from dgmm.mixture.frame import Frame
from dgmm.mixture.parameters import Parameters

N_FEATURES, N_COMPONENTS, CHUNK_ROWS = 10, 16, 250_000
SPARE = 4e9


def truth() -> Parameters:
    """The generating mixture."""
    return generate(1, N_FEATURES, N_COMPONENTS, "full", seed=0)[1]


def write_chunk(path: Path, first: int) -> None:
    """A chunk, from its own seed."""
    with one_blas_thread():
        rng = np.random.default_rng(first)
        rows = truth().sample(CHUNK_ROWS, rng)[0].astype(np.float32)
        zarr.open_array(path, mode="r+")[first : first + CHUNK_ROWS] = rows[rng.permutation(CHUNK_ROWS)]


def write(path: Path, rows: int) -> None:
    """As many of the rows as the disk holds, by two processes."""
    row_bytes = 4 * N_FEATURES
    room = int((shutil.disk_usage(path.parent).free - SPARE) / row_bytes)
    n = max(min(rows, room) // CHUNK_ROWS, 1) * CHUNK_ROWS
    if n < rows:
        print(f"the disk holds {n:,} rows of {rows:,}")
    unfinished = path.with_suffix(".unfinished")
    shutil.rmtree(unfinished, ignore_errors=True)
    zarr.create_array(
        unfinished, shape=(n, N_FEATURES), chunks=(CHUNK_ROWS, N_FEATURES), dtype="f4", compressors=None
    )
    began = time.perf_counter()
    with multiprocessing.get_context("spawn").Pool(2) as pool:
        for _ in pool.imap_unordered(partial(write_chunk, unfinished), range(0, n, CHUNK_ROWS), chunksize=16):
            pass
    unfinished.rename(path)
    print(f"wrote {n * row_bytes / 1e9:.1f} GB in {time.perf_counter() - began:.0f} s", flush=True)


def generating_log_likelihood(path: Path) -> float:
    """Mean over the rows."""
    source, mixture = open_source(str(path)), truth()
    sample = zarr.open_array(path, mode="r")[:CHUNK_ROWS]
    frame = Frame.from_sample(sample, isotropic=False)
    radius = float(np.quantile(np.sum(frame.apply(sample) ** 2, axis=1), 0.999))
    work = LockstepWork([Candidate(mixture.to_frame(frame), frame, radius)], source.dtype, source.n_rows)
    with one_blas_thread(), dask.config.set(num_workers=2):
        (found,) = Passes(source, None, LocalScheduler()).run(work).members
    return float(found.mean_log_likelihood - frame.log_volume)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--rows", type=int, default=1_000_000_000)
    options = parser.parse_args()
    options.folder.mkdir(parents=True, exist_ok=True)
    data = options.folder / "billion.zarr"
    if not data.exists():
        write(data, options.rows)
    n = zarr.open_array(data, mode="r").shape[0]
    began = time.perf_counter()
    watcher, said, facts = fit(data, "-k", N_COMPONENTS, scratch=options.folder)
    spent = time.perf_counter() - began
    print(said)
    print(f"{n:,} x {N_FEATURES} float32, K={N_COMPONENTS} full, 2 workers of 1 GiB")
    print(f"passes: {facts['n_passes']}, in all {spent:.0f} s, {n * facts['n_passes'] / spent:,.0f} rows/s")
    for name, size in sorted(watcher.largest.items()):
        print(f"largest resident memory of {name}: {size / 2**20:,.0f} MiB")
    print(f"of all processes together, at most: {watcher.largest_together / 2**20:,.0f} MiB")
    print(f"log-likelihood: {facts['log_likelihood']:.6f}; generating: {generating_log_likelihood(data):.6f}")


if __name__ == "__main__":
    main()
