"""A fit of data larger than the memory of its workers: seconds a pass, rows/s, planned and measured memory.

    python benchmarks/out_of_core.py FOLDER [--gigabytes 4.3] [--iterations 5]

Writes float32 rows of a mixture (20 features, K=16) to FOLDER/rows.zarr, chunk by chunk, if they are not there;
runs `dgmm fit` on 2 workers of 1 GiB, and watches the resident memory of every process of it.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import numpy as np
import zarr
from em_iteration import generate
from watched import fit

N_FEATURES, N_COMPONENTS, CHUNK_ROWS = 20, 16, 100_000


def write_rows(path: Path, gigabytes: float) -> int:
    """Write the rows; returns their number."""
    n = int(gigabytes * 1e9 / (4 * N_FEATURES)) // CHUNK_ROWS * CHUNK_ROWS
    _, truth = generate(1, N_FEATURES, N_COMPONENTS, "full", seed=0)
    rng = np.random.default_rng(0)
    array = zarr.create_array(
        path, shape=(n, N_FEATURES), chunks=(CHUNK_ROWS, N_FEATURES), dtype="f4", compressors=None
    )
    for first in range(0, n, CHUNK_ROWS):
        rows, _ = truth.sample(CHUNK_ROWS, rng)
        rng.shuffle(rows)
        array[first : first + CHUNK_ROWS] = rows
    return n


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--gigabytes", type=float, default=4.3)
    parser.add_argument("--iterations", type=int, default=5)
    options = parser.parse_args()
    options.folder.mkdir(parents=True, exist_ok=True)
    data = options.folder / "rows.zarr"
    if not data.exists():
        began = time.perf_counter()
        write_rows(data, options.gigabytes)
        print(f"wrote {data} in {time.perf_counter() - began:.0f} s", flush=True)
    n = zarr.open_array(data, mode="r").shape[0]
    print(f"{n:,} x {N_FEATURES} float32, {n * N_FEATURES * 4 / 1e9:.1f} GB, K={N_COMPONENTS} full")
    words = (data, "-k", N_COMPONENTS, "--tol", 0, "--max-iter", options.iterations)
    watcher, err, facts = fit(*words, scratch=options.folder)
    print(err)
    print({name: facts[name] for name in ("iterations", "log_likelihood")})
    for name, size in sorted(watcher.largest.items()):
        print(f"largest resident memory of {name}: {size / 2**20:,.0f} MiB")


if __name__ == "__main__":
    main()
