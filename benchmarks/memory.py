"""Memory planned for a worker against measured, over features, components, chunks and covariance types.

    python benchmarks/memory.py FOLDER [--features 2 16 64 256] [--components 2 64 256] [--chunks 1 16 256]
        [--types full tied diag spherical]

For each, `dgmm fit` runs two iterations on one worker, on float32 rows of FOLDER in chunks of so many MiB; eight
chunks of the larger ones, 64 of the others. Columns: MiB planned (from the log of the fit), the largest resident
memory of the worker, and the first over the second. A plan over the limit has to be refused before any task.
"""

from __future__ import annotations

import argparse
import re
import shutil
import sys
import tempfile
from pathlib import Path

import numpy as np
import zarr
from watched import run


def write(path: Path, d: int, mebibytes: int) -> None:
    """Rows of eight clusters."""
    chunk = (mebibytes << 20) // (4 * d)
    n = chunk * (8 if mebibytes >= 16 else 64)
    array = zarr.create_array(path, shape=(n, d), chunks=(chunk, d), dtype="f4", compressors=None)
    rng = np.random.default_rng(0)
    centres = 4 * rng.standard_normal((8, d)).astype("f4")
    for first in range(0, n, chunk):
        rows = rng.standard_normal((chunk, d), dtype="f4")
        rows += centres[rng.integers(8, size=chunk)]
        array[first : first + chunk] = rows


def fit(data: Path, k: int, kind: str, limit: str, scratch: Path) -> tuple[str, float]:
    """What the fit says, and the largest resident memory of its worker in MiB."""
    with tempfile.TemporaryDirectory(dir=scratch) as own:
        command = [
            *(sys.executable, "-m", "dgmm", "fit", str(data), "-k", str(k), "--covariance-type", kind),
            *("--workers", "1", "--memory-limit", limit, "--seed", "0", "--tol", "0", "--max-iter", "2"),
            *("--n-init", "1", "--sample-size", "5000", "--model", f"{own}/model"),
        ]
        watcher, err, _ = run(command)
    largest = [size for name, size in watcher.largest.items() if name.startswith("worker")]
    return err, max(largest, default=0) / 2**20


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--features", type=int, nargs="+", default=[2, 16, 64, 256])
    parser.add_argument("--components", type=int, nargs="+", default=[2, 64, 256])
    parser.add_argument("--chunks", type=int, nargs="+", default=[1, 16, 256])
    parser.add_argument("--types", nargs="+", default=["full", "tied", "diag", "spherical"])
    parser.add_argument("--memory-limit", default="6GiB")
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
                    said, measured = fit(data, k, kind, options.memory_limit, options.folder)
                    found = re.search(r"(?:planned for a worker thread:|needs) ([\d.]+) ([MG]iB)", said)
                    if found is None:
                        raise SystemExit(said)
                    planned = float(found[1]) * (1024 if found[2] == "GiB" else 1)
                    ratios.append(planned / measured)
                    print(
                        f"{d:4}{k:5}{chunk:7} {kind:10}{planned:8.0f}{measured:9.0f}{ratios[-1]:7.2f}", flush=True
                    )
    shutil.rmtree(options.folder / "rows.zarr")
    print(f"planned over measured: {min(ratios):.2f} to {max(ratios):.2f}, median {np.median(ratios):.2f}")


if __name__ == "__main__":
    main()
