"""The quantile sketch of anomalies against those of Apache DataSketches: accuracy, speed, size, the same bits.

    pip install datasketches && python benchmarks/quantile.py [--values 10000000]

Values are log-densities of several shapes, in blocks of 65,536 that are merged up a binary tree, as a pass does.
For each sketch and quantile: the share of values below the threshold that it gives.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from typing import Any

import datasketches
import numpy as np

from dgmm.engine.anomalies import Histogram
from dgmm.engine.summation import BinaryCounter

QUANTILES = (0.001, 0.01, 0.5)
BLOCK = 65_536
SHAPES: dict[str, Callable[[np.random.Generator, int], np.ndarray]] = {
    "8 features": lambda rng, n: -10 - 0.5 * rng.chisquare(8, n),
    "64 features": lambda rng, n: -90 - 0.5 * rng.chisquare(64, n),
    "heavy tails": lambda rng, n: -8 - np.abs(rng.standard_cauchy(n)) ** 1.5,
    "ties": lambda rng, n: -np.round(rng.exponential(5, n)),
}


class Other:
    """A sketch of DataSketches, which merges in place."""

    def __init__(self, sketch: Any, values: np.ndarray) -> None:
        self.sketch = sketch
        sketch.update(values)

    def __add__(self, other: Other) -> Other:
        self.sketch.merge(other.sketch)
        return self


SKETCHES: dict[str, tuple[Callable[[np.ndarray], Any], Callable[[Any, float], float], Callable[[Any], int]]] = {
    "histogram": (
        Histogram.of,
        lambda found, q: found.threshold(q).threshold,
        lambda found: found.buckets.nbytes + found.counts.nbytes,
    ),
    **{
        name: (
            lambda values, kind=kind, k=k: Other(getattr(datasketches, kind)(k), values),
            lambda found, q: found.sketch.get_quantile(q),
            lambda found: len(found.sketch.serialize()),
        )
        for name, kind, k in (
            ("KLL", "kll_doubles_sketch", 4096),
            ("REQ", "req_floats_sketch", 100),
            ("t-digest", "tdigest_double", 500),
        )
    },
}


def total(make: Callable[[np.ndarray], Any], values: np.ndarray) -> Any:
    counter = BinaryCounter[Any]()
    for first in range(0, len(values), BLOCK):
        counter.add(make(values[first : first + BLOCK]))
    return counter.total()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--values", type=int, default=10_000_000)
    n = parser.parse_args().values
    for shape, draw in SHAPES.items():
        values = draw(np.random.default_rng(0), n)
        print(shape)
        for name, (make, quantile, size) in SKETCHES.items():
            began = time.perf_counter()
            found = total(make, values)
            seconds = time.perf_counter() - began
            thresholds = [quantile(found, q) for q in QUANTILES]
            shares = "  ".join(
                f"{q}: {np.mean(values < t):.6f}" for q, t in zip(QUANTILES, thresholds, strict=True)
            )
            again = total(make, values)
            same = "same" if [quantile(again, q) for q in QUANTILES] == thresholds else "other"
            print(
                f"  {name:10s} {n / seconds / 1e6:5.1f}e6 values/s, {size(found) / 1e6:5.2f} MB, "
                f"{same} bits when run again; below the quantile {shares}"
            )


if __name__ == "__main__":
    main()
