"""What a checkpoint costs an iteration: seconds of a save against those of a pass, in one run.

    python benchmarks/saving.py FOLDER [--rows 1000000] [--saves 50]

The record of an iteration of one finalist, 64 components in 64 features with full covariances, is saved to FOLDER
again and again, as a fit does after each pass. The pass is over rows in memory, on all cores.
"""

from __future__ import annotations

import argparse
import statistics
import time
import warnings
from pathlib import Path

import numpy as np
from sklearn.exceptions import ConvergenceWarning

from dgmm import GaussianMixture
from dgmm.engine import record
from dgmm.engine.checkpoint import Checkpoint
from dgmm.engine.events import Event, Iterated
from dgmm.engine.run import Silence
from dgmm.errors import CollapsedComponentWarning

K, D = 64, 64


class Iterations(Silence):
    """Notes when each iteration ended, and keeps the last."""

    def __init__(self) -> None:
        self.ends: list[float] = []
        self.last: Iterated | None = None

    def on_event(self, event: Event) -> None:
        if isinstance(event, Iterated):
            self.ends.append(time.perf_counter())
            self.last = event


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--saves", type=int, default=50)
    options = parser.parse_args()
    warnings.simplefilter("ignore", ConvergenceWarning)
    warnings.simplefilter("ignore", CollapsedComponentWarning)  # few rows in the sample
    rng = np.random.default_rng(0)
    centres = rng.normal(0, 3, (K, D)).astype("f4")
    rows = centres[rng.integers(K, size=options.rows)]
    rows += rng.standard_normal(rows.shape, dtype="f4")

    iterations = Iterations()
    model = GaussianMixture(K, random_state=0, tol=0, max_iter=4, sample_size=20_000)
    model.fit(rows, observer=iterations)
    an_iteration = statistics.median(np.diff(iterations.ends))
    saves = []
    with Checkpoint(options.folder, {"seed": 0}, {}) as checkpoint:
        for _ in range(options.saves):
            began = time.perf_counter()
            record.save(checkpoint, iterations.last)
            saves.append(time.perf_counter() - began)
    size = next(options.folder.glob("iteration-*.npz")).stat().st_size
    a_save = statistics.median(saves)
    print(f"a save of {size / 2**20:.1f} MiB: median {a_save * 1e3:.1f} ms, slowest {max(saves) * 1e3:.1f} ms")
    share = a_save / an_iteration
    print(f"an iteration over {options.rows:,} rows: {an_iteration:.1f} s; a save is {share:.2%} of it")


if __name__ == "__main__":
    main()
