"""Writing results: all responsibilities against the largest three, and drawing rows with one worker and with two.

    python benchmarks/outputs.py FOLDER [--rows 4000000]

Rows are drawn from a mixture of 16 features into FOLDER, and a quarter as many are described there under models of
16 and 256 components, by `dgmm sample` and `dgmm predict` as a user runs them. Times depend on the disk: read the
ratios.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np

from dgmm.engine.model import Model
from dgmm.mixture.covariance import DIAG
from dgmm.mixture.frame import Frame
from dgmm.mixture.parameters import Parameters

FEATURES = 16


def write_model(folder: Path, k: int) -> Path:
    rng = np.random.default_rng(0)
    parameters = Parameters(DIAG, np.full(k, 1 / k), rng.normal(0, 2, (k, FEATURES)), np.ones((k, FEATURES)))
    path = folder / f"{k}.dgmm"
    Model(parameters, Frame.identity(FEATURES), np.dtype("f8"), 400.0, True, (), 0, 0, 0.0).save(path)
    return path


def seconds(*arguments: object) -> float:
    """Of a command, without the start of the process."""
    command = [sys.executable, "-m", "dgmm", *map(str, arguments), "--json"]
    return float(json.loads(subprocess.run(command, check=True, capture_output=True).stdout)["seconds"])


def size(path: Path) -> float:
    return sum(file.stat().st_size for file in path.rglob("*") if file.is_file()) / 1e6


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--rows", type=int, default=4_000_000)
    given = parser.parse_args()
    folder, n = given.folder, given.rows
    folder.mkdir(parents=True, exist_ok=True)
    for k in (16, 256):
        model = write_model(folder, k)
        for rows, workers in ((n, 1), (n, 2), (n // 4, 1)):
            shutil.rmtree(folder / "x.zarr", ignore_errors=True)
            taken = seconds(
                "sample", "--model", model, "-n", rows, "--seed", 0, "--out", folder / "x.zarr",
                "--workers", workers,
            )  # fmt: skip
            print(f"sample, K={k}, {rows:,} rows, {workers} worker(s): {taken:.1f} s, {rows / taken:,.0f} rows/s")
        wanted = {
            "labels": ["--labels"],
            "all": ["--responsibilities"],
            "top 3": ["--top", 3],
            "labels, anomalies": ["--labels", "--anomaly-quantile", 0.001],
        }
        for what, options in wanted.items():
            for suffix in ("zarr", "parquet"):
                out = folder / f"p.{suffix}"
                shutil.rmtree(out, ignore_errors=True)
                taken = seconds(
                    "predict", folder / "x.zarr/rows", "--model", model, "--out", out, "--dtype", "float32",
                    "--workers", 2, *options,
                )  # fmt: skip
                print(f"predict, K={k}, {what}, {suffix}: {taken:.1f} s, {size(out):.0f} MB")


if __name__ == "__main__":
    main()
