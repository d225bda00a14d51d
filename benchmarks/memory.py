"""Memory planned for a worker against measured, over features, components, chunks and covariance types.

    python benchmarks/memory.py FOLDER [--features 2 16 64 256] [--components 2 64 256] [--chunks 1 16 256]
        [--types full tied diag spherical]

For each, a fit (scan, two starts on the sample, one full pass) runs on a worker process of its own, on float32
rows of FOLDER in chunks of so many MiB, all in one task: 36 MiB, or two chunks and a short third. Columns: MiB
planned (from the log of the fit), the largest resident memory of the worker as Linux has it at the end, and the
first over the second. The first fit on a machine compiles its kernel, which takes up to 65 MiB more.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import re
import shutil
import warnings
from pathlib import Path

import dask
import numpy as np
import zarr
from distributed import Client, LocalCluster

from dgmm import GaussianMixture


def write(path: Path, d: int, mebibytes: int) -> None:
    """Rows of eight clusters."""
    chunk = (mebibytes << 20) // (4 * d)
    n = max(2 * chunk + 1000, (36 << 20) // (4 * d))
    array = zarr.create_array(path, shape=(n, d), chunks=(chunk, d), dtype="f4", compressors=None)
    rng = np.random.default_rng(0)
    centres = 4 * rng.standard_normal((8, d)).astype("f4")
    for first in range(0, n, chunk):
        rows = rng.standard_normal((min(chunk, n - first), d), dtype="f4")
        rows += centres[rng.integers(8, size=len(rows))]
        array[first : first + chunk] = rows


def peak() -> int:
    """Largest resident memory of this process so far, in bytes (Linux)."""
    status = Path("/proc/self/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0]) << 10


def fit(data: Path, k: int, kind: str, limit: str) -> tuple[float, float]:
    """Memory planned for the worker of a fit, and the most that it had; both in MiB."""
    said = io.StringIO()
    mixture = GaussianMixture(k, covariance_type=kind, random_state=0, n_init=2, max_iter=1, tol=0.0, verbose=2)
    with (
        # All blocks in one task: one is computed while the next is read.
        dask.config.set({"dgmm.blocks-per-leaf": 1 << 20}),
        LocalCluster(
            n_workers=1, threads_per_worker=1, memory_limit=limit, dashboard_address="127.0.0.1:0"
        ) as cluster,
        Client(cluster) as client,
        contextlib.redirect_stdout(said),
        warnings.catch_warnings(),
    ):
        warnings.simplefilter("ignore")  # one iteration does not converge
        mixture.fit(str(data))
        (measured,) = client.run(peak).values()
    amount, unit = re.search(r"planned for a worker thread: ([\d.]+) ([MG])iB", said.getvalue()).groups()
    return float(amount) * (1024 if unit == "G" else 1), measured / 2**20


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--features", type=int, nargs="+", default=[2, 16, 64, 256])
    parser.add_argument("--components", type=int, nargs="+", default=[2, 64, 256])
    parser.add_argument("--chunks", type=int, nargs="+", default=[1, 16, 256])
    parser.add_argument("--types", nargs="+", default=["full", "tied", "diag", "spherical"])
    parser.add_argument("--memory-limit", default="16GiB")
    options = parser.parse_args()
    options.folder.mkdir(parents=True, exist_ok=True)
    print(f"{'D':>4}{'K':>5}{'chunk':>7} {'type':10}{'planned':>8}{'measured':>9}{'ratio':>7}")
    ratios = []
    for d in options.features:
        for chunk in options.chunks:
            data = options.folder / "rows.zarr"
            shutil.rmtree(data, ignore_errors=True)
            write(data, d, chunk)
            for k in options.components:
                for kind in options.types:
                    planned, measured = fit(data, k, kind, options.memory_limit)
                    ratios.append(planned / measured)
                    print(
                        f"{d:4}{k:5}{chunk:7} {kind:10}{planned:8.0f}{measured:9.0f}{ratios[-1]:7.2f}", flush=True
                    )
    shutil.rmtree(options.folder / "rows.zarr")
    print(f"planned over measured: {min(ratios):.2f} to {max(ratios):.2f}, median {np.median(ratios):.2f}")


if __name__ == "__main__":
    main()
