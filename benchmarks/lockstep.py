"""One pass for several mixtures in lockstep beside a pass for each: rows in memory, and from a local Zarr array.

    python benchmarks/lockstep.py FOLDER [--repeats 5] [--scale 1.0] [--threads 2]

Writes FOLDER/lockstep.zarr (float32, Zarr's default compression, read from the page cache). Separate passes and
the pass in lockstep alternate; the fastest of each are compared. Ratios above 1: lockstep is faster. The last
column is the pass in lockstep in units of a pass for one mixture.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import dask
import numpy as np
import zarr
from em_iteration import generate

from dgmm.data.opening import open_source
from dgmm.data.source import Source
from dgmm.engine.blas import one_blas_thread
from dgmm.engine.likelihood import Candidate, LockstepWork
from dgmm.engine.passes import Passes
from dgmm.engine.threads import LocalScheduler
from dgmm.mixture.frame import Frame
from dgmm.mixture.parameters import Parameters

WORKLOADS = [(4_000_000, 4, 8, "full"), (1_000_000, 20, 16, "full"), (1_000_000, 20, 16, "diag")]
CHUNK_BYTES = 8_000_000


def candidates(rows: np.ndarray, truth: Parameters, how_many: int) -> list[Candidate]:
    """Mixtures near the generating one."""
    frame = Frame.from_sample(rows[:50_000], isotropic=truth.covariance.isotropic)
    radius = float(np.quantile(np.sum(frame.apply(rows[:50_000]) ** 2, axis=1), 0.999))
    rng = np.random.default_rng(1)
    found = []
    for _ in range(how_many):
        means = truth.means + 0.1 * rng.standard_normal(truth.means.shape)
        near = Parameters(truth.covariance, truth.weights, means, truth.covariances)
        found.append(Candidate(near.to_frame(frame), frame, radius))
    return found


def stored(path: Path, rows: np.ndarray) -> Source:
    """The rows as a Zarr array."""
    chunk = max(CHUNK_BYTES // rows[0].nbytes, 1)
    array = zarr.create_array(path, shape=rows.shape, chunks=(chunk, rows.shape[1]), dtype="f4", overwrite=True)
    array[:] = rows
    return open_source(str(path))


def seconds(function: Callable[[], Any]) -> float:
    """Wall time of a call."""
    began = time.perf_counter()
    function()
    return time.perf_counter() - began


def compare(source: Source, several: list[Candidate], repeats: int) -> tuple[float, float]:
    """Seconds of a pass for each mixture, one after another, and of one for all of them."""
    passes = Passes(source, None, LocalScheduler())

    def separate() -> None:
        for c in several:
            passes.run(LockstepWork([c], source.dtype))

    def together() -> None:
        passes.run(LockstepWork(several, source.dtype))

    separate()
    times = [(seconds(separate), seconds(together)) for _ in range(repeats)]
    return min(t[0] for t in times), min(t[1] for t in times)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--scale", type=float, default=1.0, help="fraction of the rows")
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    options.folder.mkdir(parents=True, exist_ok=True)
    print(f"{'workload':36} {'rows':8} {'mixtures':>8} {'separate':>9} {'lockstep':>9} {'ratio':>6} {'passes':>6}")
    for n, d, k, kind in WORKLOADS:
        rows, truth = generate(int(n * options.scale), d, k, kind, seed=0)
        rows = rows.astype(np.float32)
        sources = {"memory": open_source(rows), "Zarr": stored(options.folder / "lockstep.zarr", rows)}
        for where, source in sources.items():
            single = None
            for m in (1, 2, 4, 8):
                with one_blas_thread(), dask.config.set(num_workers=options.threads):
                    a, b = compare(source, candidates(rows, truth, m), options.repeats)
                single = single or a
                label = f"{len(rows):,} x {d}, K={k}, {kind}"
                print(f"{label:36} {where:8} {m:8} {a:9.3f} {b:9.3f} {a / b:6.2f} {b / single:6.2f}", flush=True)


if __name__ == "__main__":
    main()
