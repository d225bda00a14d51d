"""The compiled kernel against what this machine could do: products, exponentials and reading at measured rates.

    python benchmarks/roofline.py [--only A C] [--repeats 7] [--scale 0.2]

One thread. In the same run, for each workload of `em_iteration.py`: the products at the kernel's own shapes by
BLAS alone, exponentials of a tile by NumPy alone, the rows read once from memory. Their sum is the roofline; its
share of the time of the kernel is the figure. Beside it the rate of a square product, which no skinny one reaches.
"""

from __future__ import annotations

import argparse
import math
import time
from collections import Counter
from collections.abc import Callable

import numpy as np
from em_iteration import WORKLOADS, generate

from dgmm.engine.blas import one_blas_thread
from dgmm.mixture.compiled import CompiledKernel
from dgmm.mixture.components import Components
from dgmm.mixture.frame import Frame
from dgmm.mixture.tiling import COMPILED_PRODUCT, STRIP, aligned, as_aligned, compiled_chunk

SQUARE = 2048


def fastest(function: Callable[[], object], repeats: int, least: float = 0.02) -> float:
    """Seconds of a call: the best of several runs, each as many calls as fill some time."""
    function()
    began = time.perf_counter()
    function()
    calls = max(1, int(least / max(time.perf_counter() - began, 1e-9)))
    best = np.inf
    for _ in range(repeats):
        began = time.perf_counter()
        for _ in range(calls):
            function()
        best = min(best, (time.perf_counter() - began) / calls)
    return best


def product(m: int, n: int, k: int, dtype: np.dtype, repeats: int) -> float:
    """Seconds of a product (m, k) @ (k, n)."""
    rng = np.random.default_rng(0)
    left, right = as_aligned(rng.random((m, k)), dtype), as_aligned(rng.random((k, n)), dtype)
    out = aligned((m, n), dtype)
    return fastest(lambda: np.dot(left, right, out=out), repeats)


def chunks(size: int, most: int) -> list[int]:
    """Lengths of the pieces of at most so many."""
    return [min(most, size - first) for first in range(0, size, most)]


def shapes(kernel: CompiledKernel, components: Components) -> tuple[list[tuple[int, int, int]], ...]:
    """(m, n, k) of the products of a tile, of the E-step and of the M-step."""
    k, f = components.theta.shape
    d, b = components.parameters.n_features, kernel.tile_rows
    widths = chunks(f, compiled_chunk(k, b))
    m_step = [(width, k, b) for width in widths]
    if not components.whitening_limit:
        return [(k, b, width) for width in widths], m_step
    e_step = []
    for first in range(0, d, STRIP):
        height, last = min(STRIP, d - first), min(first + STRIP, d)
        together = max(COMPILED_PRODUCT // (height * last * b), 1)
        e_step += [(height * each, b, last) for each in chunks(k, together)]
    return e_step, m_step


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", nargs="*", default=list(WORKLOADS), choices=list(WORKLOADS))
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--scale", type=float, default=0.2, help="fraction of the rows")
    options = parser.parse_args()
    repeats = options.repeats
    with one_blas_thread():
        for dtype in (np.dtype(np.float64), np.dtype(np.float32)):
            spent = product(SQUARE, SQUARE, SQUARE, dtype, repeats=2)
            print(f"square product, {dtype}: {2 * SQUARE**3 / spent / 1e9:.0f} GFLOP/s")
        memory = np.zeros(30_000_000)
        spent = fastest(memory.sum, repeats)
        bandwidth = memory.nbytes / spent
        print(f"reading memory: {bandwidth / 1e9:.1f} GB/s")
        print(
            f"{'workload':33} {'rows':8} {'kernel':8} ns a row: {'E':>7}{'M':>7}{'exp':>7}{'read':>6}{'all':>8}"
            f"{'dgmm':>8}  share   GFLOP/s"
        )
        for name in options.only:
            n, d, k, kind = WORKLOADS[name]
            rows64, truth = generate(int(n * options.scale), d, k, kind, seed=0)
            for dtype in (np.dtype(np.float64), np.dtype(np.float32)):
                rows = rows64.astype(dtype)
                sample = rows[:: max(len(rows) // 50_000, 1)]
                frame = Frame.from_sample(sample, isotropic=False)
                radius = float(np.quantile(np.sum(frame.apply(sample) ** 2, axis=1), 0.999))
                components = Components.prepare(truth.to_frame(frame), dtype, radius)
                kernel = CompiledKernel(components, frame)
                used, b = kernel.dtype, kernel.tile_rows
                steps = shapes(kernel, components)
                e_step, m_step = (
                    sum(number * product(*shape, used, repeats) for shape, number in Counter(step).items())
                    for step in steps
                )
                exponents = -np.random.default_rng(0).random((k, b)).astype(used)
                out = np.empty_like(exponents)
                exp = fastest(lambda x=exponents, out=out: np.exp(x, out=out), repeats)
                parts = [1e9 * spent / b for spent in (e_step, m_step, exp)]
                parts.append(1e9 * d * dtype.itemsize / bandwidth)
                taken = 1e9 * fastest(lambda kernel=kernel, rows=rows: kernel(rows, None), repeats) / len(rows)
                flops = sum(2 * math.prod(shape) for step in steps for shape in step) / b
                label = f"{name}: {len(rows):,} x {d}, K={k}, {kind}"
                print(
                    f"{label:33} {dtype.name:8} {used.name:8}           "
                    + f"{parts[0]:7.1f}{parts[1]:7.1f}{parts[2]:7.1f}{parts[3]:6.1f}"
                    + f"{sum(parts):8.1f}{taken:8.1f}  {sum(parts) / taken:5.0%}  {flops / taken:8.1f}",
                    flush=True,
                )


if __name__ == "__main__":
    main()
