"""The two kernels of the E-step beside each other, and the error of single precision beside the guard's bound.

    python benchmarks/kernels.py [--rows 200000]

One thread; the fastest of seven alternating runs. Ratios above 1: the two-GEMM kernel is faster.
"""

from __future__ import annotations

import argparse
import time

import numpy as np
from em_iteration import generate

from dgmm.engine.blas import one_blas_thread
from dgmm.mixture import components
from dgmm.mixture.components import Components, two_gemms_pay
from dgmm.mixture.expectation import EStep
from dgmm.mixture.frame import Frame

SHAPES = [(d, k) for k in (1, 4, 16, 64) for d in (4, 16, 32, 64, 128, 256)]


def kernels(d: int, k: int, n: int) -> float:
    """Time of the centred kernel over that of the two GEMMs."""
    rows, truth = generate(n, d, k, "full", seed=0)
    frame = Frame.from_sample(rows, isotropic=False)
    radius = float(np.quantile(np.sum(frame.apply(rows) ** 2, axis=1), 0.999))
    steps = []
    for features_per_component in (10**9, 0):
        components.FEATURES_PER_COMPONENT = features_per_component
        components.MAX_FEATURES = 10**9
        prepared = Components.prepare(truth.to_frame(frame), np.dtype(np.float64), radius)
        steps.append(EStep(prepared, frame))
    best = [np.inf, np.inf]
    for _ in range(7):
        for i, step in enumerate(steps):
            began = time.perf_counter()
            step(rows)
            best[i] = min(best[i], time.perf_counter() - began)
    return best[1] / best[0]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=200_000, help="over D K, but 500 at least")
    options = parser.parse_args()
    rule = components.FEATURES_PER_COMPONENT, components.MAX_FEATURES
    print("   D    K  centred / two GEMMs  chosen")
    with one_blas_thread():
        for d, k in SHAPES:
            ratio = kernels(d, k, max(options.rows // (d * k), 500))
            components.FEATURES_PER_COMPONENT, components.MAX_FEATURES = rule
            chosen = "two GEMMs" if two_gemms_pay(k, d, d * (d + 1) // 2 + d + 1) else "centred"
            print(f"{d:4} {k:4} {ratio:20.2f}  {chosen}", flush=True)


if __name__ == "__main__":
    main()
