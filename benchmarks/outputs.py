"""Writing results: processor time and bytes a row of each quantity and format; draws with one worker and with two.

    python benchmarks/outputs.py FOLDER [--rows 200000] [--drawn 4000000]

Rows of 16 features (float32, Zarr) are described under diagonal mixtures of 16, 256 and 1000 components by this
process alone; `dgmm sample` draws as a user runs it, the start of its cluster included.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import dask
import numpy as np
import zarr

from dgmm.data.opening import open_source
from dgmm.engine.model import Model
from dgmm.engine.predict import open_output, predict
from dgmm.engine.quantities import Anomalies, Labels, LogDensity, Quantity, Responsibilities, Top
from dgmm.mixture.covariance import DIAG
from dgmm.mixture.frame import Frame
from dgmm.mixture.parameters import Parameters

FEATURES, CHUNK_ROWS = 16, 20_000
WANTED: dict[str, Sequence[Quantity]] = {
    "labels": [Labels()],
    "top 3": [Top(3)],
    "top 10": [Top(10)],
    "all responsibilities": [Responsibilities()],
    "log-density": [LogDensity()],
    "log-density, anomalies": [LogDensity(), Anomalies(0.001)],
}


def mixture(k: int) -> Model:
    rng = np.random.default_rng(0)
    parameters = Parameters(DIAG, np.full(k, 1 / k), rng.normal(0, 2, (k, FEATURES)), np.ones((k, FEATURES)))
    return Model(parameters, Frame.identity(FEATURES), np.dtype("f4"), 400.0, True, (), 0, 0, 0.0)


def describe(folder: Path, k: int, n: int) -> None:
    model, rng = mixture(k), np.random.default_rng(1)
    rows = model.parameters.means[rng.integers(k, size=n)] + rng.standard_normal((n, FEATURES))
    zarr.create_array(folder / "x.zarr", data=rows.astype("f4"), chunks=(CHUNK_ROWS, FEATURES), overwrite=True)
    source = open_source(folder / "x.zarr")
    for name, wanted in WANTED.items():
        for out in (folder / "p.zarr", folder / "p.parquet"):
            seconds = []
            for _ in range(3):
                shutil.rmtree(out, ignore_errors=True)
                output = open_output(out, source, model, "model", wanted, "float32")
                began = time.process_time()
                predict(source, model, output, wanted)
                seconds.append(time.process_time() - began)
            size = sum(file.stat().st_size for file in out.rglob("*") if file.is_file())
            each = f"{min(seconds) / n * 1e6:.2f} µs, {size / n:.1f} bytes a row"
            print(f"K={k}, {name}, {out.suffix[1:]}: {each}", flush=True)


def sample(folder: Path, n: int) -> None:
    mixture(16).save(folder / "m.dgmm")
    for workers in (1, 2):
        shutil.rmtree(folder / "s.zarr", ignore_errors=True)
        options = ["--model", folder / "m.dgmm", "-n", n, "--seed", 0, "--workers", workers, "--json"]
        command = [sys.executable, "-m", "dgmm", "sample", "--out", folder / "s.zarr", *options]
        done = subprocess.run([*map(str, command)], check=True, capture_output=True)
        seconds = json.loads(done.stdout)["seconds"]
        print(f"sample, {n:,} rows, {workers} worker(s): {seconds:.1f} s, {n / seconds:,.0f} rows/s")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--rows", type=int, default=200_000)
    parser.add_argument("--drawn", type=int, default=4_000_000)
    given = parser.parse_args()
    given.folder.mkdir(parents=True, exist_ok=True)
    sample(given.folder, given.drawn)
    with dask.config.set(scheduler="synchronous"):
        for k in (16, 256, 1000):
            describe(given.folder, k, given.rows)


if __name__ == "__main__":
    main()
