"""A grid with missing cells against the plain 2-D array of the same numbers: seconds a pass, memory.

    python benchmarks/grids.py FOLDER [--gigabytes 2] [--iterations 5]

Writes float32 profiles of 20 levels on (time, lat, lon) to FOLDER/grid.zarr, as xarray writes them, in chunks of
(1, 20, 180, 360), 30 % of the cells missing in every level; and the rows of the other cells to FOLDER/rows.zarr.
Runs `dgmm fit` on each, on 2 workers of 1 GiB, in turn.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import xarray
import zarr
from em_iteration import generate
from watched import fit

LEVELS, LAT, LON, N_COMPONENTS, CHUNK_ROWS = 20, 360, 720, 16, 100_000


def write(folder: Path, gigabytes: float) -> None:
    """Write the same numbers twice."""
    times = int(gigabytes * 1e9 / (4 * LEVELS * LAT * LON))
    _, truth = generate(1, LEVELS, N_COMPONENTS, "full", seed=0)
    rng = np.random.default_rng(0)
    cells = LAT * LON
    present = np.sort(rng.permutation(cells)[: int(0.7 * cells)])
    whole = xarray.Dataset(
        {"temp": (("time", "depth", "lat", "lon"), np.zeros((0, LEVELS, LAT, LON), "f4"))},
        {"depth": np.arange(LEVELS) * 5.0, "lat": np.linspace(-90, 90, LAT), "lon": np.linspace(0, 360, LON)},
    )
    encoding = {"temp": {"chunks": (1, LEVELS, LAT // 2, LON // 2), "compressors": None}}
    whole.to_zarr(folder / "grid.zarr", encoding=encoding, consolidated=False)
    rows = zarr.create_array(
        folder / "rows.zarr", shape=(times * len(present), LEVELS), chunks=(CHUNK_ROWS, LEVELS), dtype="f4",
        compressors=None,
    )  # fmt: skip
    for t in range(times):
        drawn, _ = truth.sample(len(present), rng)
        rng.shuffle(drawn)
        rows[t * len(present) : (t + 1) * len(present)] = drawn
        field = np.full((LEVELS, cells), np.nan, "f4")
        field[:, present] = drawn.T
        step = {"temp": (("time", "depth", "lat", "lon"), field.reshape(1, LEVELS, LAT, LON))}
        xarray.Dataset(step, {"time": [t]}).to_zarr(folder / "grid.zarr", append_dim="time", consolidated=False)


def timed(folder: Path, words: list[str], iterations: int) -> dict[str, float]:
    """Seconds of a pass, and the largest memory of a worker."""
    watcher, err, facts = fit(*words, "-k", N_COMPONENTS, "--tol", 0, "--max-iter", iterations, scratch=folder)
    print("  " + "\n  ".join(line for line in err.splitlines() if line.startswith(("scan", "memory"))))
    return {
        "seconds a pass": float(np.median([step["seconds"] for step in facts["history"]])),
        "MiB of a worker": watcher.of_workers()[0] / 2**20,
        "log-likelihood": facts["log_likelihood"],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--gigabytes", type=float, default=2.0)
    parser.add_argument("--iterations", type=int, default=5)
    options = parser.parse_args()
    options.folder.mkdir(parents=True, exist_ok=True)
    if not (options.folder / "rows.zarr").exists():
        write(options.folder, options.gigabytes)
    kinds = {
        "rows": [str(options.folder / "rows.zarr")],
        "grid": [str(options.folder / "grid.zarr"), "--variables", "temp", "--feature-dim", "depth"],
    }
    seconds: dict[str, list[float]] = {kind: [] for kind in kinds}
    for _ in range(2):
        for kind, words in kinds.items():
            found = timed(options.folder, words, options.iterations)
            seconds[kind].append(found["seconds a pass"])
            print(f"{kind}: " + ", ".join(f"{value:.6g} {name}" for name, value in found.items()), flush=True)
    print(f"grid / rows: {np.median(seconds['grid']) / np.median(seconds['rows']):.2f}")


if __name__ == "__main__":
    main()
