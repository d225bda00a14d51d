"""From stored rows to a fitted mixture, with ten starts: `dgmm fit` beside scikit-learn with one.

    python benchmarks/end_to_end.py FOLDER [--rows 10000000] [--sklearn-rows N] [--skip-sklearn]

Writes float32 rows of a mixture (10 features, K=16) to FOLDER/rows.zarr, chunk by chunk, if they are not there.
Times `dgmm fit -k 16 --n-init 10 --workers 2` as a command, and scikit-learn's GaussianMixture(16, n_init=1) on
the same rows in memory, as float32. With `--sklearn-rows N` scikit-learn fits the first N rows only: its time is
then scaled to all rows, as if it took as many iterations there. Ten starts are taken to cost ten times one.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import zarr
from em_iteration import generate
from sklearn.exceptions import ConvergenceWarning
from sklearn.mixture import GaussianMixture
from sklearn_algorithm import Emulated

import dgmm
from dgmm.mixture.parameters import Parameters

N_FEATURES, N_COMPONENTS, CHUNK_ROWS, N_INIT = 10, 16, 200_000, 10


def generating_model() -> Parameters:
    """What the rows are drawn from."""
    return generate(1, N_FEATURES, N_COMPONENTS, "full", seed=0)[1]


def write_rows(path: Path, n_rows: int) -> None:
    """Write the rows in random order."""
    truth, rng = generating_model(), np.random.default_rng(0)
    chunk = min(CHUNK_ROWS, n_rows)
    array = zarr.create_array(path, shape=(n_rows, N_FEATURES), chunks=(chunk, N_FEATURES), dtype="f4")
    for first in range(0, n_rows, chunk):
        rows, _ = truth.sample(min(chunk, n_rows - first), rng)
        rng.shuffle(rows)
        array[first : first + chunk] = rows


def fit_dgmm(data: Path, scratch: Path) -> dict[str, Any]:
    """Run the command; what it says, and its whole time, start and end of the local cluster included."""
    command = [
        *(sys.executable, "-m", "dgmm", "fit", str(data), "-k", str(N_COMPONENTS), "--n-init", str(N_INIT)),
        *("--workers", "2", "--seed", "0", "--model", str(scratch / "model"), "--json"),
    ]
    began = time.perf_counter()
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    seconds = time.perf_counter() - began
    print(done.stderr, flush=True)
    if done.returncode:
        raise SystemExit(done.returncode)
    return {**json.loads(done.stdout), "wall": seconds}


def fit_sklearn(rows: np.ndarray) -> tuple[GaussianMixture, float]:
    """One start of scikit-learn itself, and its seconds."""
    began = time.perf_counter()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        model = GaussianMixture(N_COMPONENTS, n_init=1, random_state=0).fit(rows)
    return model, time.perf_counter() - began


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--rows", type=int, default=10_000_000)
    parser.add_argument("--sklearn-rows", type=int, help="fit scikit-learn to so many rows")
    parser.add_argument("--skip-sklearn", action="store_true")
    options = parser.parse_args()
    options.folder.mkdir(parents=True, exist_ok=True)
    data = options.folder / "rows.zarr"
    if not data.exists():
        began = time.perf_counter()
        write_rows(data, options.rows)
        print(f"wrote {data} in {time.perf_counter() - began:.0f} s", flush=True)
    stored = zarr.open_array(data, mode="r")
    n = stored.shape[0]
    print(f"{n:,} x {N_FEATURES} float32, {stored.nbytes / 1e9:.2f} GB, K={N_COMPONENTS} full", flush=True)
    with tempfile.TemporaryDirectory(dir=options.folder) as scratch:
        found = fit_dgmm(data, Path(scratch))
        ours = dgmm.load(Path(scratch) / "model")
    print(
        f"dgmm fit, n_init={N_INIT}, 2 workers, from Zarr: {found['wall']:.1f} s, {found['n_passes']} passes, "
        f"mean log-likelihood {found['log_likelihood']:.6f}",
        flush=True,
    )
    if options.skip_sklearn:
        return
    rows = np.asarray(stored[: options.sklearn_rows or n])
    model, seconds = fit_sklearn(rows)
    state = "converged" if model.converged_ else "not converged"
    print(
        f"scikit-learn, n_init=1, {len(rows):,} rows in memory: {seconds:.1f} s, {model.n_iter_} iterations "
        f"({state}), mean log-likelihood {model.lower_bound_:.6f}"
    )
    if len(rows) < n:
        seconds *= n / len(rows)
        print(f"  scaled to {n:,} rows by rows alone (as many iterations): {seconds:.0f} s")
    print(f"  scikit-learn, n_init={N_INIT}, ten times one start: {N_INIT * seconds:,.0f} s")
    wall = found["wall"]
    print(f"scikit-learn / dgmm: one start {seconds / wall:.1f}x, ten starts {N_INIT * seconds / wall:.0f}x")
    checked = Emulated(rows, N_COMPONENTS, 0.0)
    best = checked.log_likelihood(generating_model().to_frame(checked.frame))
    theirs = dgmm.GaussianMixture.from_sklearn(model).score(rows)
    print(
        f"mean log-likelihood on the {len(rows):,} rows: generating model {best:.6f}, "
        f"dgmm {ours.score(rows) - best:+.6f}, scikit-learn {theirs - best:+.6f}"
    )


if __name__ == "__main__":
    main()
