"""What an EM iteration costs: seconds as powers of rows, features and components, for each covariance type.

    python benchmarks/cost.py [--repeats 3] [--scale 1.0]

Rows in memory, float64, two threads. Rows, features and components vary one at a time about a middle; exponents by
least squares on logarithms. Far from the middle they bend: the sweeps over responsibilities (K) weigh more where
there are few features, and from D of about 6 K on full covariances take the centred kernel.
"""

from __future__ import annotations

import argparse
import time

import dask
import numpy as np
from em_iteration import dgmm_iteration

from dgmm.engine.blas import one_blas_thread
from dgmm.mixture.covariance import COVARIANCE_TYPES
from dgmm.mixture.parameters import Parameters

MIDDLE = {"rows": 200_000, "features": 16, "components": 16}
VARIED = {
    "rows": [50_000, 100_000, 200_000, 400_000],
    "features": [4, 8, 16, 32, 64],
    "components": [4, 8, 16, 32, 64],
}


def seconds(name: str, n: int, d: int, k: int, repeats: int) -> float:
    """Of an iteration, the fastest."""
    rng = np.random.default_rng(0)
    covariance = COVARIANCE_TYPES[name]
    spherical = Parameters(
        COVARIANCE_TYPES["spherical"], np.full(k, 1 / k), 2 * rng.standard_normal((k, d)), np.full(k, 0.8)
    )
    shapes = {"full": (k, d, d), "tied": (d, d), "diag": (k, d), "spherical": (k,)}
    covariances = (
        np.full(shapes[name], 0.8) if name in ("diag", "spherical") else np.zeros(shapes[name]) + 0.8 * np.eye(d)
    )
    rows, _ = spherical.sample(n, rng)
    iteration = dgmm_iteration(rows, Parameters(covariance, spherical.weights, spherical.means, covariances))
    iteration()
    times = []
    for _ in range(repeats):
        began = time.perf_counter()
        iteration()
        times.append(time.perf_counter() - began)
    return min(times)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--scale", type=float, default=1.0, help="fraction of the rows")
    options = parser.parse_args()
    print(f"{'type':10} {'varied':11} {'exponent':>8}  milliseconds of an iteration")
    with one_blas_thread(), dask.config.set(num_workers=2):
        for name in ("full", "tied", "diag", "spherical"):
            for what, values in VARIED.items():
                spent = []
                for value in values:
                    n, d, k = (value if what == key else middle for key, middle in MIDDLE.items())
                    spent.append(seconds(name, int(n * options.scale), d, k, options.repeats))
                exponent = np.polyfit(np.log(values), np.log(spent), 1)[0]
                listed = ", ".join(f"{value:,}: {1e3 * s:.1f}" for value, s in zip(values, spent, strict=True))
                print(f"{name:10} {what:11} {exponent:8.2f}  {listed}", flush=True)


if __name__ == "__main__":
    main()
