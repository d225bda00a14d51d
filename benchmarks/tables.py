"""The same rows as Parquet, HDF5, a NumPy file and a Zarr array, fitted out of core: seconds a pass, memory.

    python benchmarks/tables.py FOLDER [--gigabytes 1.6] [--components 16] [--covariance full] [--rounds 2]

Writes float32 rows of a mixture (20 features) to FOLDER, if they are not there: `rows.zarr` (not compressed),
`rows.parquet/` (100 files as pyarrow writes them), `rows.h5` and `rows.npy`. Then `dgmm fit` runs on each, on 2
workers of 1 GiB, in turns; memory and CPU time of the workers are watched. On a busy machine read the CPU time: it
is that of five passes and a search on a sample; the seconds of a pass are those of the fastest.
"""

from __future__ import annotations

import argparse
import re
from pathlib import Path

import h5py
import numpy as np
import pyarrow as pa
import zarr
from em_iteration import generate
from out_of_core import CHUNK_ROWS, N_FEATURES
from pyarrow import parquet
from watched import fit

FILES = 100
ITERATIONS = 4
KINDS = ("rows.zarr", "rows.parquet", "rows.h5", "rows.npy")


def write(folder: Path, gigabytes: float, n_components: int) -> int:
    """Write what is not there; returns the number of rows."""
    per_file = max(1, round(gigabytes * 1e9 / (4 * N_FEATURES) / FILES))
    n = per_file * FILES
    done = folder / "complete"
    if done.exists() and done.read_text() == f"{n} {n_components}":
        return n
    _, truth = generate(1, N_FEATURES, n_components, "full", seed=0)
    rng = np.random.default_rng(0)
    array = zarr.create_array(
        folder / "rows.zarr", shape=(n, N_FEATURES), chunks=(CHUNK_ROWS, N_FEATURES), dtype="f4", compressors=None,
        overwrite=True,
    )  # fmt: skip
    (folder / "rows.parquet").mkdir(exist_ok=True)
    flat = np.lib.format.open_memmap(folder / "rows.npy", "w+", "f4", (n, N_FEATURES))
    with h5py.File(folder / "rows.h5", "w") as file:
        dataset = file.create_dataset("rows", (n, N_FEATURES), "f4", chunks=(10_000, N_FEATURES))
        for number in range(FILES):
            rows, _ = truth.sample(per_file, rng)
            rng.shuffle(rows)
            rows = rows.astype("f4")
            place = slice(number * per_file, (number + 1) * per_file)
            array[place] = flat[place] = dataset[place] = rows
            table = pa.table({f"x{feature}": rows[:, feature] for feature in range(N_FEATURES)})
            parquet.write_table(table, folder / "rows.parquet" / f"part-{number:03}.parquet")
    flat.flush()
    done.write_text(f"{n} {n_components}")
    return n


def timed(data: Path, n_components: int, covariance: str) -> tuple[float, float, int]:
    """Seconds of the fastest pass, CPU seconds of the workers all in all, and the largest memory of one."""
    model = ("-k", n_components, "--covariance-type", covariance, "--tol", 0, "--max-iter", ITERATIONS)
    watcher, err, facts = fit(data, *model, scratch=data.parent)
    planned = re.search(r"memory planned for a worker thread: (.*)", err)
    print(f"    planned {planned[1] if planned else ''}", flush=True)
    memory, seconds = watcher.of_workers()
    return min(step["seconds"] for step in facts["history"]), seconds, memory


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--gigabytes", type=float, default=1.6)
    parser.add_argument("--components", type=int, default=16)
    parser.add_argument("--covariance", default="full")
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--kinds", nargs="+", default=KINDS)
    options = parser.parse_args()
    options.folder.mkdir(parents=True, exist_ok=True)
    n = write(options.folder, options.gigabytes, 16)
    size = n * N_FEATURES * 4 / 1e9
    print(f"{n:,} x {N_FEATURES} float32, {size:.1f} GB, K={options.components} {options.covariance}", flush=True)
    passes: dict[str, float] = {}
    cpu: dict[str, float] = {}
    for number in range(options.rounds):
        for kind in options.kinds:
            seconds, used, memory = timed(options.folder / kind, options.components, options.covariance)
            passes[kind] = min(passes.get(kind, np.inf), seconds)
            cpu[kind] = min(cpu.get(kind, np.inf), used)
            what = f"fastest pass {seconds:.2f} s, CPU {used:.0f} s, largest worker {memory / 2**20:.0f} MiB"
            print(f"round {number + 1}, {kind}: {what}", flush=True)
    first = options.kinds[0]
    for kind in options.kinds:
        pace = f"{passes[kind]:.2f} s a pass ({passes[kind] / passes[first]:.2f} times {first})"
        print(f"{kind}: {pace}, CPU {cpu[kind]:.0f} s ({cpu[kind] / cpu[first]:.2f} times)")


if __name__ == "__main__":
    main()
