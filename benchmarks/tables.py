"""The same rows as Parquet, HDF5, a NumPy file and a Zarr array, fitted out of core: seconds a pass, memory.

    python benchmarks/tables.py FOLDER [--gigabytes 1.6] [--components 16] [--covariance full] [--rounds 3]

Writes float32 rows of a mixture (20 features) to FOLDER, if they are not there: `rows.zarr` (not compressed),
`rows.parquet/` (100 files as pyarrow writes them), `rows.h5` and `rows.npy`. Then `dgmm fit` runs on each, on 2
workers of 1 GiB, in turns; the resident memory of every process is watched. The ratio is that of the fastest
passes: other work on the machine only makes them slower.
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
import tempfile
from pathlib import Path

import h5py
import numpy as np
import pyarrow as pa
import zarr
from em_iteration import generate
from out_of_core import CHUNK_ROWS, N_FEATURES, Watcher
from pyarrow import parquet

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


def fit(data: Path, n_rows: int, n_components: int, covariance: str) -> tuple[list[float], dict[str, int]]:
    """Seconds of each pass over all rows but the scan, and the largest resident memory of each kind of process."""
    with tempfile.TemporaryDirectory(dir=data.parent) as scratch:
        command = [
            *(sys.executable, "-m", "dgmm", "fit", str(data), "-k", str(n_components)),
            *("--covariance-type", covariance, "--workers", "2", "--memory-limit", "1GiB", "--seed", "0"),
            *("--tol", "0", "--max-iter", str(ITERATIONS), "--model", f"{scratch}/model"),
        ]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        watcher = Watcher(process.pid)
        watcher.start()
        _, err = process.communicate()
        if process.returncode:
            raise SystemExit(err)
    rates = re.findall(r"^iteration .*, ([0-9,]+) rows/s$", err, re.M)
    memory: dict[str, int] = {}
    for name, size in watcher.largest.items():
        kind = name.split()[0]
        memory[kind] = max(memory.get(kind, 0), size)
    return [n_rows / float(rate.replace(",", "")) for rate in rates], memory


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--gigabytes", type=float, default=1.6)
    parser.add_argument("--components", type=int, default=16)
    parser.add_argument("--covariance", default="full")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--kinds", nargs="+", default=KINDS)
    options = parser.parse_args()
    options.folder.mkdir(parents=True, exist_ok=True)
    n = write(options.folder, options.gigabytes, 16)
    size = n * N_FEATURES * 4 / 1e9
    print(f"{n:,} x {N_FEATURES} float32, {size:.1f} GB, K={options.components} {options.covariance}", flush=True)
    best: dict[str, float] = {}
    for number in range(options.rounds):
        for kind in options.kinds:
            seconds, memory = fit(options.folder / kind, n, options.components, options.covariance)
            best[kind] = min(best.get(kind, np.inf), *seconds)
            listed = ", ".join(f"{name} {size / 2**20:.0f} MiB" for name, size in sorted(memory.items()))
            print(
                f"round {number + 1}, {kind}: passes of {min(seconds):.2f} to {max(seconds):.2f} s; {listed}",
                flush=True,
            )
    for kind in options.kinds:
        ratio = best[kind] / best[options.kinds[0]]
        pace = f"{best[kind]:.2f} s a pass, {n / best[kind]:,.0f} rows/s"
        print(f"{kind}: {pace}, {ratio:.2f} times {options.kinds[0]}")


if __name__ == "__main__":
    main()
